"""Layers of unlike width: narrow in memory, alike in a checkpoint, the same answers everywhere."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_checkpoints import edit_json, make_checkpoint
from transformers import AutoModelForSequenceClassification

import compressor
from compressor.errors import UserError
from compressor.models.classifier import copied_classifier, load_classifier, save_classifier
from compressor.models.structure import (
    classifier_class,
    remove_attention,
    remove_feed_forward,
    remove_heads,
    remove_neurons,
    set_neuron_count,
    with_padded_layers,
)

LAYERS, HEADS, NEURONS = 3, 4, 12


@pytest.fixture(scope="module")
def dense_dir(tmp_path_factory):
    folder = make_checkpoint(
        tmp_path_factory.mktemp("dense"),
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=NEURONS,
    )
    weights = load_file(folder / "model.safetensors")
    # Biases and normalizations too, which a new model has at 0 and 1.
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(w.shape, generator=generator) * 0.4 for name, w in sorted(weights.items())}
    save_file(drawn, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits(model):
    ids = torch.randint(5, 15, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([9, 2, 5, 9])[:, None]).long()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def narrow(classifier, widths):
    """Leave each layer the first of its heads and neurons; 0 removes the effect of the whole block."""
    for index, (heads, neurons) in enumerate(widths):
        if heads:
            remove_heads(classifier.model, index, range(heads, HEADS))
        else:
            remove_attention(classifier.model, index)
        if neurons:
            remove_neurons(classifier.model, index, range(neurons, NEURONS))
        else:
            remove_feed_forward(classifier.model, index)
    set_neuron_count(classifier.model)


def masked(classifier, widths):
    """Zero instead what `narrow` takes out: the model that has the same answers."""
    head = classifier.model.config.hidden_size // HEADS
    for block, (heads, neurons) in zip(classifier.layout.blocks(classifier.model), widths, strict=True):
        block.attention.output.dense.weight.data[:, heads * head :] = 0
        block.output.dense.weight.data[:, neurons:] = 0


def shapes(model):
    return [
        (block.attention.self.num_attention_heads, block.intermediate.dense.out_features)
        for block in model.bert.encoder.layer
    ]


def plainly_loaded(folder):
    """The model as programs without this one load it."""
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "mismatched_keys", "unexpected_keys"))
    return model.eval()


WIDTHS = st.lists(st.tuples(st.integers(0, HEADS), st.integers(0, NEURONS)), min_size=LAYERS, max_size=LAYERS)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(widths=WIDTHS)
def test_any_widths_give_the_masked_models_answers_in_memory_and_from_each_loader(
    dense_dir, tmp_path_factory, widths
):
    zeroed, classifier = load_classifier(str(dense_dir)), load_classifier(str(dense_dir))
    masked(zeroed, widths)
    narrow(classifier, widths)
    expected = logits(zeroed.model)
    found = [(max(1, heads), max(1, neurons)) for heads, neurons in widths]
    assert shapes(classifier.model) == found
    torch.testing.assert_close(logits(classifier.model), expected, atol=1e-5, rtol=1e-5)
    folder = tmp_path_factory.mktemp("saved")
    save_classifier(classifier, folder)
    again, plain = load_classifier(str(folder)), plainly_loaded(folder)
    assert shapes(again.model) == found
    assert torch.equal(logits(again.model), logits(classifier.model))
    assert again.model.config.to_dict().get("layer_neurons") == classifier.model.config.to_dict().get(
        "layer_neurons"
    )
    assert shapes(plain) == [(HEADS, max(neurons for _, neurons in found))] * LAYERS
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-5)


UNLIKE = [(4, 12), (1, 5), (2, 7)]


@pytest.fixture
def unlike(dense_dir):
    classifier = load_classifier(str(dense_dir))
    narrow(classifier, UNLIKE)
    return classifier


def test_the_configuration_in_memory_has_the_neurons_of_each_layer(unlike):
    config = unlike.model.config
    assert (config.intermediate_size, config.layer_neurons) == (12, [12, 5, 7])


def test_layers_that_are_alike_again_need_no_list(unlike):
    remove_neurons(unlike.model, 0, range(5, 12))
    remove_neurons(unlike.model, 2, [0, 6])
    set_neuron_count(unlike.model)
    assert unlike.model.config.intermediate_size == 5
    assert not hasattr(unlike.model.config, "layer_neurons")


def test_a_checkpoint_has_zeros_up_to_the_widest_layer_and_lists_the_widths(unlike, tmp_path):
    save_classifier(unlike, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["intermediate_size"], written["unpadded_neurons"]) == (12, [12, 5, 7])
    assert "layer_neurons" not in written
    weights = load_file(tmp_path / "model.safetensors")
    prefix = "bert.encoder.layer.1."
    assert weights[f"{prefix}intermediate.dense.weight"][5:].count_nonzero() == 0
    assert weights[f"{prefix}intermediate.dense.bias"][5:].count_nonzero() == 0
    assert weights[f"{prefix}output.dense.weight"][:, 5:].count_nonzero() == 0
    # Saving leaves the model as it was.
    assert unlike.model.config.layer_neurons == [12, 5, 7]
    assert not hasattr(unlike.model.config, "unpadded_neurons")


def test_what_transformers_alone_loads_and_saves_is_narrow_again(unlike, tmp_path):
    save_classifier(unlike, tmp_path / "saved")
    plainly_loaded(tmp_path / "saved").save_pretrained(tmp_path / "again")
    unlike.tokenizer.save_pretrained(tmp_path / "again")
    again = load_classifier(str(tmp_path / "again"))
    assert shapes(again.model) == UNLIKE
    assert torch.equal(logits(again.model), logits(unlike.model))


def test_a_model_that_was_saved_by_its_own_method_is_read_too(unlike, tmp_path):
    unlike.model.save_pretrained(tmp_path)
    unlike.tokenizer.save_pretrained(tmp_path)
    again = load_classifier(str(tmp_path))
    assert shapes(again.model) == UNLIKE
    assert torch.equal(logits(again.model), logits(unlike.model))


def test_a_model_can_be_built_from_the_configuration_of_one_in_memory(unlike):
    config = type(unlike.model.config).from_dict(json.loads(unlike.model.config.to_json_string()))
    built = classifier_class(config)(config).eval()
    built.load_state_dict(unlike.model.state_dict())
    assert shapes(built) == UNLIKE
    assert torch.equal(logits(built), logits(unlike.model))


def test_a_copy_of_a_plainly_loaded_model_is_narrow(unlike, tmp_path):
    save_classifier(unlike, tmp_path)
    copied = copied_classifier(plainly_loaded(tmp_path), unlike.tokenizer)
    assert shapes(copied.model) == UNLIKE


def test_a_narrow_model_that_is_pruned_to_a_mask_keeps_its_widths(unlike, tmp_path):
    """As `prune` does with another pattern: masks are made for the narrow matrices."""
    pruned = compressor.prune_model(
        unlike.model,
        unlike.tokenizer,
        ["a fine film"],
        algorithm="magnitude",
        pattern="unstructured",
        sparsity=0.5,
        max_length=16,
    )
    assert shapes(pruned.model) == UNLIKE


def test_a_model_whose_layers_are_alike_is_not_copied(dense_dir):
    model = load_classifier(str(dense_dir)).model
    assert with_padded_layers(model) is model


def test_weights_in_the_padding_are_refused(unlike, tmp_path):
    save_classifier(unlike, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["bert.encoder.layer.2.output.dense.weight"][3, 7] = 0.1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"config\.json: unpadded_neurons: layer 2 .* not zero after the 7 .*remove the key"
    ):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"unpadded_neurons": [12, 5]}, "must have the neurons of each of 3 layers, at most 12"),
        ({"unpadded_neurons": [12, 5, 13]}, "at most 12"),
        ({"unpadded_neurons": [12, 5, 0]}, "no list of whole numbers above 0"),
        ({"unpadded_neurons": "12"}, "no list of whole numbers above 0"),
        ({"unpadded_neurons": [12, 5, 7], "layer_neurons": [12, 5, 7]}, "remove one of the two"),
        ({"unpadded_neurons": [12, True, 7]}, "no list of whole numbers above 0"),
    ],
)
def test_widths_that_do_not_fit_are_named_with_their_key(unlike, tmp_path, values, problem):
    save_classifier(unlike, tmp_path)
    edit_json(tmp_path / "config.json", **values)
    with pytest.raises(UserError, match=rf"config\.json: unpadded_neurons: .*{problem}"):
        load_classifier(str(tmp_path))


def test_a_checkpoint_that_lost_its_list_has_the_same_answers_with_its_zeros(unlike, tmp_path):
    save_classifier(unlike, tmp_path)
    edit_json(tmp_path / "config.json", unpadded_neurons=...)
    again = load_classifier(str(tmp_path))
    assert [neurons for _, neurons in shapes(again.model)] == [12] * 3
    torch.testing.assert_close(logits(again.model), logits(unlike.model), atol=1e-5, rtol=1e-5)


def test_a_block_that_is_gone_keeps_its_bias_alone(dense_dir):
    classifier = load_classifier(str(dense_dir))
    remove_attention(classifier.model, 1)
    remove_feed_forward(classifier.model, 1)
    block = classifier.model.bert.encoder.layer[1]
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
    own = block.attention.output
    with torch.no_grad():
        middle = own.LayerNorm(states + own.dense.bias)
        expected = block.output.LayerNorm(middle + block.output.dense.bias)
        found = block(states)
    found = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(found, expected)
