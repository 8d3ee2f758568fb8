"""What a configuration, a tokenizer and inputs must have in common: all of it is decided before any work."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import POSITIONS, edit_json, make_checkpoint
from transformers import AutoTokenizer, BertConfig
from transformers.activations import ACT2FN

from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.checks import (
    TokenizerFacts,
    fitted,
    head_problems,
    key_problems,
    label_problems,
    length_problems,
    model_problems,
    pair_problems,
    tokenizer_problems,
    weight_problems,
)
from compressor.models.classifier import check_pairs, load_classifier, load_for_finetuning, model_task
from compressor.models.encoders import bert
from compressor.options import ColumnsConfig, ExportConfig, PruneConfig, RunConfig
from compressor.pruning.interface import prune_directory
from compressor.system.context import Context
from exporters.stage import export_directory

CLASSIFIER, KEYS = bert.BERT.classifier_name, bert.BERT.keys
BERT = BertConfig(architectures=[CLASSIFIER]).to_dict()
FACTS = TokenizerFacts(size=30522)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of a tiny classifier, to be changed at will."""
    return shutil.copytree(checkpoint, tmp_path / "model")


def problems(**values):
    config = {key: value for key, value in {**BERT, **values}.items() if value is not ...}
    return list(model_problems(config, FACTS))


# keys -------------------------------------------------------------------------------------------


def test_every_key_of_the_configuration_is_decided():
    """A version of transformers with a new key fails here: decide in `KEYS` what it does."""
    assert set(BERT) <= set(KEYS)
    assert all(key.reason for key in KEYS.values())


def test_the_defaults_of_bert_have_no_problems():
    assert problems() == []
    assert list(model_problems({"model_type": "bert"}, FACTS)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("position_embedding_type", "alibi"),
        ("is_decoder", True),
        ("is_encoder_decoder", True),
        ("add_cross_attention", True),
        ("cross_attention_hidden_size", 8),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("compression_config", {"format": "pack-quantized"}),
        ("auto_map", {"AutoModel": "modeling.Model"}),
        ("adapters", {"adapters": {"one": "x"}}),
        ("peft_config", {"r": 8}),
        ("embedding_size", 128),
        ("prefix", "query: "),
        ("task_specific_params", {"text-classification": {"problem_type": "multi_label_classification"}}),
        ("hidden_act", "nonsense"),
        ("hidden_act", None),
        ("hidden_act", ["gelu"]),
        ("layer_norm_eps", 0),
        ("layer_norm_eps", "1e-12"),
        ("hidden_size", 0),
        ("hidden_size", "768"),
        ("hidden_size", True),
        ("num_attention_heads", 7),
        ("num_hidden_layers", -1),
        ("type_vocab_size", 0),
        ("hidden_dropout_prob", 2),
        ("classifier_dropout", "x"),
        ("pruned_heads", {"0": list(range(12))}),
        ("pruned_heads", {"12": [0]}),
        ("pruned_heads", {"0": [0, 0]}),
        ("pruned_heads", [1]),
        ("layer_neurons", [3072] * 11),
        ("layer_neurons", [3072] * 11 + [3073]),
        ("layer_neurons", {"0": 5}),
        ("torch_dtype", "nonsense"),
        ("problem_type", "multi_label_classification"),
        ("problem_type", "regression"),
        ("problem_type", "nonsense"),
        ("id2label", {"1": "neg", "2": "pos"}),
        ("id2label", {"0": "neg", "2": "pos"}),
        ("id2label", {"a": "neg", "b": "pos"}),
        ("id2label", ["neg", "pos"]),
        ("id2label", {}),
        ("id2label", {"0": "same", "1": "same"}),
        ("id2label", {"0": "", "1": "pos"}),
        ("id2label", {"0": ["neg"], "1": "pos"}),
        ("num_labels", 3),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_key(key, value):
    found = problems(**{key: value})
    assert len(found) == 1
    assert found[0].startswith(f"config.json: {key}:")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunk_size_feed_forward", 4),
        ("output_attentions", True),
        ("output_hidden_states", True),
        ("return_dict", False),
        ("torchscript", True),
        ("pad_token_id", 7),
        ("pad_token_id", None),
        ("torch_dtype", "bfloat16"),
        ("dtype", "float16"),
        ("use_cache", False),
        ("tie_word_embeddings", False),
        ("classifier_dropout", 0.3),
        ("pruned_heads", {"0": [1, 2]}),
        ("layer_neurons", None),
        ("layer_neurons", [*range(1, 13)]),
        ("unpadded_neurons", [3072, *range(1, 12)]),
        ("position_embedding_type", None),
        ("task_specific_params", {"summarization": {"length": 3}}),
        ("problem_type", "single_label_classification"),
        ("architectures", None),
        ("architectures", ["Other", CLASSIFIER]),
        ("label2id", None),
        ("label2id", {"neg": 1, "pos": 0}),
        ("pooler_fc_size", 768),
        ("vocab_size", 30528),
    ],
)
def test_what_can_be_done_is_not_refused(key, value):
    assert problems(**{key: value}) == []


@pytest.mark.parametrize("activation", sorted(ACT2FN))
def test_each_activation_of_transformers_is_taken(activation):
    assert problems(hidden_act=activation) == []


def test_all_problems_are_named_at_once(folder):
    edit_json(folder / "config.json", is_decoder=True, id2label={"1": "neg", "2": "pos"})
    AutoTokenizer.from_pretrained(folder)
    with pytest.raises(UserError, match=r"has 3 problems: .*is_decoder.*id2label.*max_length 99") as caught:
        load_classifier(str(folder), lengths={"max_length": 99})
    assert "\n" not in str(caught.value)


def test_a_configuration_without_a_model_type_is_told():
    [problem] = key_problems({"hidden_size": 8})
    assert problem.startswith('config.json: model_type: missing; add "model_type": "bert" of BERT or "')


# labels and heads ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label2id", [{"neg": 1, "pos": 0}, {"neg": 0}, {"neg": 0, "pos": 2}, ["neg"], {"neg": "x"}]
)
def test_labels_that_contradict_each_other_are_refused(label2id):
    config = {**BERT, "id2label": {"0": "neg", "1": "pos"}, "label2id": label2id}
    assert [line for line in label_problems(config) if line.startswith("config.json: label2id:")]


def test_default_names_contradict_nothing_and_are_replaced():
    config = {**BERT, "id2label": {"0": "neg", "1": "pos"}}
    assert config["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}
    assert label_problems(config) == []
    assert fitted(config, 0)["label2id"] == {"neg": 0, "pos": 1}


@pytest.mark.parametrize(
    ("count", "problem_type", "refused"),
    [
        (1, None, False),
        (1, "regression", False),
        (1, "single_label_classification", True),
        (1, "multi_label_classification", True),
        (3, None, False),
        (3, "regression", True),
        (3, "single_label_classification", False),
        (3, "multi_label_classification", True),
    ],
)
def test_a_task_must_fit_the_number_of_outputs(count, problem_type, refused):
    names = {str(index): f"class {index}" for index in range(count)}
    found = label_problems({**BERT, "id2label": names, "label2id": None, "problem_type": problem_type})
    assert bool(found) is refused


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        (["BertModel"], "fine-tune it first"),
        (["BertForMaskedLM"], "fine-tune it first"),
        (["BertForTokenClassification"], "fine-tune it first"),
        (["MyBertForSequenceClassification"], "whose code is not known here"),
        ("BertForSequenceClassification", "is no list of names"),
    ],
)
def test_another_head_is_named(architectures, message):
    assert message in head_problems({**BERT, "architectures": architectures})[0]


def test_a_classifier_is_loaded_without_its_architecture_if_its_head_is_there(folder):
    edit_json(folder / "config.json", architectures=...)
    assert load_classifier(str(folder)).label_names == ["neg", "pos"]
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.startswith("classifier.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"has no head of a classifier .*names no architectures.*fine-tune"):
        load_classifier(str(folder))


def test_a_new_head_replaces_what_the_configuration_says_of_labels(folder):
    edit_json(
        folder / "config.json",
        problem_type="multi_label_classification",
        id2label={"1": "toxic", "2": "toxic"},
        architectures=["BertForMaskedLM"],
    )
    with pytest.raises(UserError, match=r"problems: .*fine-tune.*id2label"):
        load_classifier(str(folder))
    classifier = load_for_finetuning(str(folder), ["a", "b"], 0)
    assert classifier.label_names == ["a", "b"]
    assert classifier.model.config.problem_type is None


def test_the_task_of_a_model_is_its_number_of_outputs(folder):
    assert model_task(str(folder)) == "classification"
    edit_json(folder / "config.json", id2label={"0": "score"}, label2id=None)
    assert model_task(str(folder)) == "regression"


# tokenizers, lengths and pairs ----------------------------------------------------------------------


@pytest.mark.parametrize(("size", "fits"), [(30000, True), (30522, True), (30523, False)])
def test_token_ids_must_be_in_the_models_vocabulary(size, fits):
    found = tokenizer_problems(BERT, TokenizerFacts(size))
    assert (found == []) is fits
    assert fits or f"the tokenizer has {size} tokens, the model 30522" in found[0]


def test_added_tokens_without_embeddings_are_refused(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["the plot"])
    tokenizer.save_pretrained(folder)
    for load in (load_classifier, lambda source: load_for_finetuning(source, ["a", "b"], 0)):
        with pytest.raises(UserError, match="the tokenizer has 16 tokens, the model 15"):
            load(str(folder))


@pytest.mark.parametrize("name", ["unk_token", "cls_token", "sep_token"])
def test_a_special_token_that_is_missing_is_named(name):
    assert tokenizer_problems(BERT, TokenizerFacts(9, missing=(name,)))[0].startswith(
        f"the tokenizer has no {name};"
    )


def test_a_tokenizer_without_a_fast_form_is_loaded(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    edit = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic"}
    edit |= {"subword_tokenizer_type": "character"}
    (folder / "tokenizer_config.json").write_text(json.dumps(edit))
    assert not load_classifier(str(folder)).tokenizer.is_fast


@pytest.mark.parametrize("form", ["single", "pair"])
def test_a_template_with_an_unknown_special_token_is_refused(folder, form):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    processor = content["post_processor"]
    index = next(i for i, piece in enumerate(processor[form]) if "SpecialToken" in piece)
    processor[form][index]["SpecialToken"]["id"] = "~"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"post_processor: {form}: '~' is none of its special_tokens"):
        load_classifier(str(folder))
    content["post_processor"] = {"type": "Sequence", "processors": [processor]}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is none of its special_tokens"):
        load_classifier(str(folder))


def test_ids_of_a_template_are_in_the_models_vocabulary(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [1002]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the tokenizer has 1003 tokens, the model"):
        load_classifier(str(folder))


def test_a_tokenizer_that_fails_on_any_text_is_one_line(folder):
    edit_json(folder / "tokenizer_config.json", model_max_length={"a": 1})
    with pytest.raises(UserError, match=r"the tokenizer cannot tokenize: .*restore the files"):
        load_classifier(str(folder))


def test_weights_that_say_another_framework_are_refused(folder):
    path = folder / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "tf"})
    with pytest.raises(UserError, match=r"another framework wrote them .*save the model with PyTorch"):
        load_classifier(str(folder))


@pytest.mark.parametrize(
    ("length", "fits"), [(23, True), (24, True), (25, False), (512, False), (None, True)]
)
def test_a_length_above_the_models_positions_is_refused(folder, length, fits):
    lengths = {"max_length": length}
    if fits:
        load_classifier(str(folder), lengths=lengths)
        return
    expected = f"max_length {length}: the model takes {POSITIONS} tokens at most .*--max-length {POSITIONS}"
    for load in (
        lambda: load_classifier(str(folder), lengths=lengths),
        lambda: load_for_finetuning(str(folder), ["a", "b"], 0, lengths=lengths),
    ):
        with pytest.raises(UserError, match=expected):
            load()


def test_each_length_is_named_by_its_option():
    lengths = {"max_length": 512, "sequence_lengths": 1024}
    [problem] = length_problems(BERT, lengths)
    assert problem.startswith("sequence_lengths 1024: the model takes 512 tokens at most")


def test_models_of_more_positions_take_longer_texts():
    assert ColumnsConfig(max_length=1024).max_length == 1024
    assert length_problems({**BERT, "max_position_embeddings": 2048}, {"max_length": 1024}) == []


def test_pairs_need_a_model_that_knows_their_segments():
    assert pair_problems(BERT, FACTS) == []
    assert "type_vocab_size" in pair_problems({**BERT, "type_vocab_size": 1}, FACTS)[0]
    assert pair_problems({**BERT, "type_vocab_size": 1}, TokenizerFacts(9, segments=1)) == []
    assert "model_input_names" in pair_problems(BERT, TokenizerFacts(9, gives_segments=False))[0]


def test_a_model_of_one_segment_takes_texts_and_no_pairs(tmp_path):
    folder = make_checkpoint(tmp_path / "one", type_vocab_size=1)
    classifier = load_classifier(str(folder))
    given = (str(folder), classifier.model.config, classifier.tokenizer)
    check_pairs(*given, has_pairs=False)
    with pytest.raises(UserError, match="pairs have 2 segments, and the model knows 1"):
        check_pairs(*given, has_pairs=True)


# weights and adapters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("bert.encoder.layer.0.attention.self.query.lora_A.default.weight", "F32", "merge it"),
        ("bert.encoder.layer.0.attention.self.query.base_layer.weight", "F32", "merge it"),
        ("classifier.modules_to_save.default.weight", "F32", "merge it"),
        ("bert.encoder.layer.0.output.dense.weight", "I8", "are quantized"),
        ("bert.encoder.layer.0.output.dense.weight", "U8", "are quantized"),
        ("bert.encoder.layer.0.output.dense.weight", "F8_E4M3", "are quantized"),
        ("bert.encoder.layer.0.output.dense.weight", "BF16", None),
        ("bert.embeddings.position_ids", "I64", None),
    ],
)
def test_weights_of_another_kind_are_refused(name, kind, message):
    found = weight_problems({name: kind})
    assert found == [] if message is None else message in found[0]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("beside_a_model", [True, False])
def test_an_adapter_is_refused(folder, tmp_path, name, beside_a_model):
    place = folder if beside_a_model else tmp_path / "alone"
    place.mkdir(exist_ok=True)
    (place / name).write_text("{}")
    for load in (load_classifier, model_task, lambda source: load_for_finetuning(source, ["a", "b"], 0)):
        with pytest.raises(UserError, match=rf"{name}: is an adapter, .*merge it into the model first"):
            load(str(place))


def test_weights_in_int8_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    weights[name] = weights[name].to(torch.int8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"weights of type I8 \({name}\): the weights are quantized"):
        load_classifier(str(folder))


def test_weights_of_a_larger_head_are_not_left_out(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.dense.weight"] = torch.ones(8, 8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"holds 1 weights .*classifier\.dense\.weight"):
        load_classifier(str(folder))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_are_loaded_as_float32(folder, kind):
    weights = {name: weight.to(kind) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", dtype=str(kind).removeprefix("torch."))
    model = load_classifier(str(folder)).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# to the end -----------------------------------------------------------------------------------------


def test_what_is_set_leaves_the_answers_and_works_to_the_artifact(checkpoint, folder, tmp_path):
    """Keys that make outputs tuples, or chunks of a fixed size, or padding of another token."""
    edit_json(
        folder / "config.json",
        return_dict=False,
        torchscript=True,
        output_attentions=True,
        output_hidden_states=True,
        chunk_size_feed_forward=5,
        pad_token_id=None,
        hidden_act="gelu_new",
        gradient_checkpointing=True,
        attn_implementation="kernels-community/none",
    )
    edit_json(checkpoint / "config.json", hidden_act="gelu_new")
    tokens = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    with torch.no_grad():
        plain, kept = (load_classifier(str(place)).model(**tokens).logits for place in (checkpoint, folder))
    assert torch.equal(plain, kept)
    edit_json(checkpoint / "config.json", hidden_act="gelu")
    data = tmp_path / "data.tsv"
    data.write_text("text\tlabel\n" + "a fine film\tpos\ndull story and empty charm\tneg\n" * 6)
    columns, run = ColumnsConfig(max_length=POSITIONS), RunConfig(device="cpu", threads=1)
    from compressor.system.console import SilentProgress

    quiet = {"progress": SilentProgress()}
    wanda = PruneConfig(algorithm="wanda")
    prune_directory(
        str(folder), str(data), wanda, Context(output=tmp_path / "pruned", columns=columns, run=run, **quiet)
    )
    export_directory(
        str(tmp_path / "pruned"),
        str(data),
        ExportConfig(),
        Context(output=tmp_path / "artifact", columns=columns, run=run, **quiet),
    )
    saved = json.loads((tmp_path / "artifact" / "config.json").read_text())
    assert saved["pad_token_id"] == 0
    for load in (
        lambda: prune_directory(
            str(folder),
            str(data),
            wanda,
            Context(output=tmp_path / "more", columns=ColumnsConfig(max_length=25), run=run, **quiet),
        ),
        lambda: export_directory(
            str(folder),
            str(data),
            ExportConfig(),
            Context(output=tmp_path / "more", columns=ColumnsConfig(max_length=25), run=run, **quiet),
        ),
    ):
        with pytest.raises(UserError, match="max_length 25: the model takes 24 tokens at most"):
            load()
    assert not (tmp_path / "more").exists()
    assert load_text_data(str(data), columns, "test").pairs is None
