"""What each family's layout says, held against a model of transformers."""

import pytest
import torch
from families import FAMILIES, LENGTH
from transformers import AutoConfig, AutoModelForSequenceClassification

from compressor.models.batching import inputs_of, pad
from compressor.models.checks import TokenizerFacts, key_problems, pair_problems, tokenizer_problems
from compressor.models.classifier import Classifier, encoder_linears
from compressor.models.encoders.registry import layout_of, layout_of_type
from compressor.models.structure import (
    head_size,
    linear_at,
    remove_heads,
    remove_neurons,
    set_neuron_count,
    with_padded_layers,
)
from compressor.models.transformers_versions import hidden_states_of
from exporters.shrink import layer_widths, shrink

VOCABULARY = 40


@pytest.fixture(params=FAMILIES)
def model(request):
    """Random weights, of biases too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            request.param, vocab_size=VOCABULARY, num_labels=3, **FAMILIES[request.param].config
        )
        # As for an export.
        found = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
        for parameter in found.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return found


def batch_of(model, texts):
    encoded = [(ids, [0] * len(ids)) for ids in texts]
    return inputs_of(model, pad(encoded, model.config.pad_token_id))


def test_classes_and_sizes_are_those_of_transformers(model):
    layout, default = layout_of(model), type(model.config)()
    assert type(model) is layout.classifier_class()
    assert type(model).__name__ == layout.classifier_name
    assert isinstance(model.base_model, layout.encoder_class())
    assert layout_of(model.base_model) is layout
    assert {key: getattr(default, key) for key in layout.sizes} == dict(layout.sizes)


def test_every_key_of_the_configuration_is_decided(model):
    """A version of transformers with a new key fails here: decide in the layout what it does."""
    layout, content = layout_of(model), type(model.config)().to_dict()
    assert set(content) <= set(layout.keys)
    assert key_problems(content) == key_problems(model.config.to_dict()) == []
    assert key_problems({"model_type": layout.model_type}) == []


def test_groups_are_all_linear_layers_of_the_blocks_and_share_their_input(model):
    layout, caught = layout_of(model), {}
    names = [name for _, group in layout.groups(model) for name in group]
    assert list(encoder_linears(model)) == names
    assert len(names) == (4 if layout.linears.gated else 6) * len(layout.blocks(model))
    for name in names:
        linear_at(model, name).register_forward_pre_hook(
            # Those of the tokens; positions, which some project too, come after them.
            lambda _, inputs, name=name: caught.update({name: caught.get(name, inputs[0])})
        )
    model(**batch_of(model, [[5, 6, 7]]))
    assert list(caught) == names
    for _, group in layout.groups(model):
        assert all(torch.equal(caught[name], caught[group[0]]) for name in group)


def test_head_layers_make_the_logits_of_what_the_last_block_puts_out(model):
    layout, batch, caught = layout_of(model), batch_of(model, [[5, 6, 7, 8], [9, 10]]), []
    layout.blocks(model)[-1].register_forward_hook(lambda _, __, output: caught.append(output))
    with torch.no_grad():
        model(**batch)
        found = layout.head_inputs(model, hidden_states_of(caught[0]), batch["attention_mask"].bool())
        for layer in layout.head(model):
            assert linear_at(model, layer.name) is layer.linear
            found = layer.output(found)
        torch.testing.assert_close(found, model(**batch).logits)


def test_each_weight_is_of_the_head_or_of_the_encoder(model):
    layout = layout_of(model)
    encoder = {f"{model.base_model_prefix}.{name}" for name in model.base_model.state_dict()}
    heads = {name for name in model.state_dict() if layout.is_head_weight(name)}
    assert heads == set(model.state_dict()) - encoder
    assert all(layout.is_own_weight(name) for name in model.state_dict())
    assert all(layout.is_own_weight(name) for name in model.base_model.state_dict())
    for name in ("lm_head.dense.weight", "qa_outputs.weight", "embeddings.position_ids"):
        assert not layout.is_own_weight(name)


def test_a_block_tells_its_heads_and_its_activation(model):
    layout = layout_of(model)
    block = layout.blocks(model)[1]
    heads = layout.head_count(block)
    remove_heads(model, 1, [0])
    assert layout.head_count(block) == heads - 1
    rows = linear_at(block, layout.linears.query).out_features // layout.linears.parts(layout.linears.query)
    assert rows == (heads - 1) * head_size(model)
    values = torch.linspace(-2, 2, 5)
    assert torch.equal(layout.activation(block)(values), torch.nn.functional.gelu(values))
    assert layout.matrix_title(layout.linears.query).startswith("query")


def test_heads_that_are_removed_one_after_the_other_are_missed_no_more_than_zeros(model):
    layout, size = layout_of(model), head_size(model)
    output = linear_at(layout.blocks(model)[1], layout.linears.attention_output)
    with torch.no_grad():
        for head in (0, 2):
            output.weight[:, head * size : (head + 1) * size] = 0
        batch = batch_of(model, [[5, 6, 7, 8, 9], [10, 11]])
        expected = model(**batch).logits
        remove_heads(model, 1, [2])
        remove_heads(model, 1, [0])
        assert layout.head_count(layout.blocks(model)[1]) == 2
        torch.testing.assert_close(model(**batch).logits, expected)
        torch.testing.assert_close(with_padded_layers(model)(**batch).logits, expected)


def test_the_longest_input_runs_and_a_longer_one_does_not(model):
    layout = layout_of(model)
    assert layout.longest_input(model.config.to_dict()) == LENGTH
    with torch.no_grad():
        assert model(**batch_of(model, [[5] * LENGTH])).logits.isfinite().all()
        longer = batch_of(model, [[5] * (LENGTH + 1)])
        if getattr(layout.embeddings(model), "position_embeddings", None) is None:
            # There is no end to distances; what a model was made for counts.
            assert model(**longer).logits.isfinite().all()
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(**longer)


@pytest.mark.parametrize("whole", [False, True])
def test_what_has_no_effect_is_cut_and_the_answers_stay(model, whole):
    layout, size = layout_of(model), head_size(model)
    block, names = layout.blocks(model)[1], layout.linears
    value, inner = linear_at(block, names.value), linear_at(block, names.neurons_in)
    with torch.no_grad():
        value.weight.chunk(names.parts(names.value))[-1][: None if whole else size] = 0
        inner.weight[: None if whole else 3] = 0
    shrunk = shrink(Classifier(model, None, "random weights")).model
    left, before = layer_widths(shrunk)[1], layer_widths(model)[1]
    assert left.neurons == (0 if whole else before.neurons - 3)
    can_lose_one = layout.scores_by_content(block)
    assert left.heads == (0 if whole else before.heads - can_lose_one)
    batch = batch_of(model, [[5, 6, 7, 8, 9], [10, 11]])
    # What an exported graph is given: see `exporters/onnx.py`.
    masked = {**batch, "attention_mask": layout.graph_mask(batch["attention_mask"], torch.float32)}
    with torch.no_grad():
        found = layout.for_graph(shrunk)(**masked).logits
        torch.testing.assert_close(found, model(**batch).logits, rtol=1e-4, atol=1e-4)


def test_what_a_graph_is_called_with_is_what_the_model_computes(model):
    batch = batch_of(model, [[5, 6, 7, 8, 9], [10, 11], [1]])
    with torch.no_grad():
        given = layout_of(model).graph_arguments(model, batch)
        assert torch.equal(model(**batch, **given).logits, model(**batch).logits)


def test_biases_by_distance_are_looked_up_as_they_are_computed():
    config = AutoConfig.for_model("mpnet", **{**FAMILIES["mpnet"].config, "max_position_embeddings": 302})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.arange(10, 310).reshape(1, 300)
    with torch.no_grad():
        found = layout_of(model).for_graph(model)(ids).logits
        assert torch.equal(found, model(ids).logits)


@pytest.mark.parametrize("padding", [1, 4])
def test_fewer_words_leave_the_answers_also_where_the_padding_gets_another_id(model, padding):
    config = {**model.config.to_dict(), "pad_token_id": padding}
    config |= {"max_position_embeddings": config["max_position_embeddings"] + padding}
    layout = layout_of(model)
    if layout.padding_id(config) != padding:
        pytest.skip("padding may have any id, and is masked; or it cannot have this one")
    whole = type(model)(layout.config_of(config)).eval()
    smaller = type(model)(layout.config_of(config)).eval()
    smaller.load_state_dict(whole.state_dict())
    longest = layout.longest_input(config)
    kept = [0, padding, *range(padding + 1, 20)]
    layout.keep_words(smaller, kept, 1)
    assert layout.longest_input(smaller.config.to_dict()) == longest
    texts = [[0, 5, 7, 5, 6], [0, 9], [padding, 8]]
    with torch.no_grad():
        expected = whole(**batch_of(whole, texts)).logits
        found = smaller(**batch_of(smaller, [[kept.index(token) for token in ids] for ids in texts])).logits
        assert torch.equal(found, expected)
        longest_text = [[kept.index(7)] * longest]
        assert smaller(**batch_of(smaller, longest_text)).logits.isfinite().all()


def test_a_tokenizer_that_pads_with_another_token_is_refused_where_that_moves_positions(model):
    config = model.config.to_dict()
    padding = layout_of(model).padding_id(config)
    fits = TokenizerFacts(size=VOCABULARY, padding=model.config.pad_token_id)
    assert tokenizer_problems(config, fits) == []
    problems = tokenizer_problems(config, TokenizerFacts(size=VOCABULARY, padding=3))
    assert len(problems) == (padding is not None)
    assert all("pads with token 3, and the model counts positions by its token" in p for p in problems)


def test_pairs_need_segments_only_where_the_model_takes_them(model):
    config, without = model.config.to_dict(), TokenizerFacts(size=1, gives_segments=False)
    assert bool(pair_problems(config, without)) == ("token_type_ids" in layout_of(model).inputs)


@pytest.mark.parametrize("value", [None, -1, "x", 33])
def test_a_padding_that_leaves_no_positions_is_refused(model, value):
    layout = layout_of(model)
    config = {**model.config.to_dict(), "pad_token_id": value, "max_position_embeddings": 34}
    problems = key_problems(config)
    assert bool(problems) == (layout.keys["pad_token_id"].decision == "checked")
    assert all("config.json: pad_token_id" in problem for problem in problems)
    if problems:
        assert layout.longest_input(config) == 34


GATED = {"mlp_bias": True, "attention_bias": True, "norm_bias": True, "classifier_bias": True}
# What a configuration may say besides what the models of `FAMILIES` have.
VARIANTS = {
    "mean of all tokens": ("modernbert", {"classifier_pooling": "mean"}),
    "biases": ("modernbert", GATED),
    "matrices of distances": ("deberta-v2", {"share_att_key": False}),
    "keys of distances alone": ("deberta-v2", {"share_att_key": False, "pos_att_type": ["c2p"]}),
    "no distances": ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    "distances without buckets": ("deberta-v2", {"position_buckets": -1, "norm_rel_ebd": "none"}),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    model_type, changes = VARIANTS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = AutoConfig.for_model(
            model_type, vocab_size=VOCABULARY, num_labels=3, **{**FAMILIES[model_type].config, **changes}
        )
        found = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
        for parameter in found.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    assert key_problems(found.config.to_dict()) == []
    return found


def graph_logits(model, batch):
    layout = layout_of(model)
    masked = {**batch, "attention_mask": layout.graph_mask(batch["attention_mask"], torch.float32)}
    return layout.for_graph(model)(**masked, **layout.graph_arguments(model, batch)).logits


def test_what_a_graph_computes_is_what_the_model_does(variant):
    batch = batch_of(variant, [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [10, 11], [1]])
    with torch.no_grad():
        torch.testing.assert_close(
            graph_logits(variant, batch), variant(**batch).logits, rtol=1e-4, atol=1e-4
        )


def test_variants_lose_heads_and_neurons_as_zeros_and_their_heads_make_the_same_logits(variant):
    layout, size, caught = layout_of(variant), head_size(variant), []
    names, batch = layout.linears, batch_of(variant, [[5, 6, 7, 8, 9], [10, 11]])
    with torch.no_grad():
        block = layout.blocks(variant)[0]
        linear_at(block, names.attention_output).weight[:, size : 2 * size] = 0
        linear_at(block, names.neurons_out).weight[:, [3, 5]] = 0
        expected = variant(**batch).logits
        remove_heads(variant, 0, [1])
        remove_neurons(variant, 0, [3, 5])
        set_neuron_count(variant)
        torch.testing.assert_close(variant(**batch).logits, expected)
        torch.testing.assert_close(graph_logits(variant, batch), expected, rtol=1e-4, atol=1e-4)
        padded = with_padded_layers(variant)
        assert [own.shape for own in padded.parameters()] == [
            own.shape for own in type(variant)(padded.config).parameters()
        ]
        torch.testing.assert_close(padded(**batch).logits, expected)
        layout.blocks(variant)[-1].register_forward_hook(lambda _, __, output: caught.append(output))
        variant(**batch)
        found = layout.head_inputs(variant, hidden_states_of(caught[0]), batch["attention_mask"].bool())
        for layer in layout.head(variant):
            found = layer.output(found)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("zeros", ["gates", "activations", "both"])
def test_gated_neurons_that_are_the_same_for_each_token_go_into_a_bias(zeros):
    """With biases a gate of zeros leaves a neuron that varies; both halves of zeros leave one number."""
    config = AutoConfig.for_model("modernbert", vocab_size=40, **{**FAMILIES["modernbert"].config, **GATED})
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = batch_of(model, [[5, 6, 7, 8, 9], [10, 11]])
    with torch.no_grad():
        activations, gates = layout_of(model).blocks(model)[1].mlp.Wi.weight.chunk(2)
        for part in {"gates": [gates], "activations": [activations], "both": [gates, activations]}[zeros]:
            part[:3] = 0
        shrunk = shrink(Classifier(model, None, "random weights")).model
        neurons = layer_widths(model)[1].neurons
        assert layer_widths(shrunk)[1].neurons == neurons - (3 if zeros == "both" else 0)
        torch.testing.assert_close(shrunk(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "key", "value", "says"),
    [
        ("modernbert", "rope_scaling", {"rope_type": "yarn"}, "another type than default"),
        ("modernbert", "layer_types", ["full_attention"] * 3, "of 2 layers"),
        ("modernbert", "layer_types", ["sliding_attention", "full_attention"], "each n-th"),
        ("modernbert", "rope_parameters", {"full_attention": {"rope_type": "linear"}}, "another type"),
        ("modernbert", "classifier_pooling", "max", "none of cls, mean"),
        ("modernbert", "mlp_bias", 1, "neither true nor false"),
        ("deberta-v2", "conv_kernel_size", 3, "convolution beside the first layer"),
        ("deberta-v2", "type_vocab_size", 2, "only models without segments"),
        ("deberta-v2", "pos_att_type", ["p2p"], "other parts"),
        ("deberta-v2", "pos_att_type", "c2p", "one of them alone would see distances"),
        ("deberta-v2", "position_buckets", 2, "less than 4 buckets"),
        ("deberta-v2", "pooler_hidden_size", 32, "hidden states of 64"),
        ("deberta-v2", "attention_head_size", 32, "4 heads share out hidden_size 64"),
    ],
)
def test_what_a_family_cannot_do_is_refused_with_the_reason(model_type, key, value, says):
    config = {"model_type": model_type, **FAMILIES[model_type].config}
    assert key_problems(config) == []
    [problem] = key_problems({**config, key: value})
    assert problem.startswith(f"config.json: {key}: ")
    assert says in problem


# Keys of the families' public models, as their authors wrote them.
PUBLIC = {
    "modernbert": {
        "architectures": ["ModernBertForSequenceClassification"], "attention_bias": False,
        "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True,
        "deterministic_flash_attn": False, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
        "gradient_checkpointing": False, "hidden_size": 768, "intermediate_size": 1152,
        "layer_norm_eps": 1e-05, "local_attention": 128, "local_rope_theta": 10000.0, "num_hidden_layers": 22,
        "position_embedding_type": "absolute", "reference_compile": None, "repad_logits_with_grad": False,
    },
    "deberta-v2": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "relative_attention": True,
        "attention_head_size": 64, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7,
        "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0,
        "pooler_dropout": 0, "pooler_hidden_act": "gelu", "pooler_hidden_size": 768, "conv_kernel_size": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", PUBLIC)
def test_configurations_of_public_models_are_taken(model_type):
    assert key_problems({"model_type": model_type, **PUBLIC[model_type]}) == []


def test_a_configuration_is_stored_for_both_versions_of_transformers():
    config = AutoConfig.for_model(
        "modernbert", **{**FAMILIES["modernbert"].config, "global_rope_theta": 5000.0}
    )
    stored = layout_of_type("modernbert").stored_config(config.to_dict())
    assert stored["global_rope_theta"] == 5000.0
    assert stored["local_rope_theta"] == 10000.0
    assert stored["global_attn_every_n_layers"] == 2
    again = layout_of_type("modernbert").config_of(stored)
    assert layout_of_type("modernbert").stored_config(again.to_dict()) == stored
