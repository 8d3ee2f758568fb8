"""A broken artifact whose manifest fits is met with one line that names the file and the way out."""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
from broken_artifacts import (
    CONFIG,
    GRAPH,
    PREDICTING,
    READING,
    TOKENIZER,
    VOCABULARY,
    refusal,
    run,
    seal,
)
from onnx import TensorProto, helper, numpy_helper


def test_the_whole_artifact_is_taken(made, artifact, tmp_path):
    for name in ("perturb", "inspect", "verify"):
        assert run(name, made, artifact, tmp_path / name) == 0
    seal(artifact)
    for name in ("perturb", "inspect", "verify"):
        assert run(name, made, artifact, tmp_path / f"{name} again") == 0


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path):
    path.write_bytes(b"")


def scrambled(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def of_opset_99(path):
    model = onnx.load(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)


def without_its_weights(path):
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    path.with_name("weights.bin").unlink()


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("broken", [truncated, emptied, scrambled, of_opset_99, without_its_weights])
def test_a_graph_that_cannot_be_loaded_is_named(made, artifact, capsys, name, broken):
    broken(artifact / GRAPH)
    seal(artifact)
    line = refusal(name, made, artifact, capsys)
    assert line.startswith(f"{artifact / GRAPH}: ")
    assert line.endswith("export it again with: compress export")


TOKENS = ("input_ids", TensorProto.INT64, ["texts", "tokens"])
MASK = ("attention_mask", TensorProto.INT64, ["texts", "tokens"])
LOGITS = ("logits", TensorProto.FLOAT, ["texts", 2])


def small_graph(*, inputs=(TOKENS, MASK), output=LOGITS, rows=100):
    """A graph that looks its first input's tokens up in a table and adds them up."""
    table = numpy_helper.from_array(np.ones((rows, output[2][-1]), np.float32), "table")
    axes = numpy_helper.from_array(np.array([1]), "axes")
    nodes = [
        helper.make_node("Gather", ["table", inputs[0][0]], ["words"]),
        helper.make_node("ReduceSum", ["words", "axes"], [output[0]], keepdims=0),
    ]
    values = [helper.make_tensor_value_info(*entry) for entry in inputs]
    outputs = [helper.make_tensor_value_info(*output)]
    graph = helper.make_graph(nodes, "small", values, outputs, [table, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


FOREIGN = {
    "other inputs": ({"inputs": [("x", TensorProto.INT64, ["n", "m"])]}, "it has no input input_ids"),
    "one input more": (
        {"inputs": [TOKENS, MASK, ("image", TensorProto.INT64, ["n", "m"])]},
        "its input image is not one of input_ids, attention_mask, token_type_ids",
    ),
    "inputs of int32": (
        {"inputs": [("input_ids", TensorProto.INT32, ["n", "m"]), MASK]},
        "its input input_ids is tensor(int32)",
    ),
    "inputs of a fixed size": (
        {"inputs": [("input_ids", TensorProto.INT64, [1, 16])]},
        "its input input_ids is tensor(int64) of shape [1, 16]",
    ),
    "inputs of three sizes": (
        {
            "inputs": [("input_ids", TensorProto.INT64, ["n", "m", "k"])],
            "output": ("logits", TensorProto.FLOAT, ["n", "k", 2]),
        },
        "its input input_ids is tensor(int64) of shape ['n', 'm', 'k']",
    ),
    "another output": (
        {"output": ("hidden", TensorProto.FLOAT, ["n", 2])},
        "it has no output logits",
    ),
    "three labels": (
        {"output": ("logits", TensorProto.FLOAT, ["n", 3])},
        "it gives 3 logits, and config.json has 2 labels",
    ),
}


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("breakage", FOREIGN)
def test_a_graph_of_another_model_is_named(made, artifact, capsys, name, breakage):
    options, expected = FOREIGN[breakage]
    onnx.save(small_graph(**options), artifact / GRAPH)
    seal(artifact)
    line = refusal(name, made, artifact, capsys)
    problem = "holds no encoder of a BERT classifier" if name == "inspect" else expected
    assert line.startswith(f"{artifact / GRAPH}: ")
    assert problem in line
    assert line.endswith("export it again with: compress export")


def test_a_graph_that_fails_when_it_runs_is_named(made, artifact, capsys):
    onnx.save(small_graph(rows=3), artifact / GRAPH)
    seal(artifact)
    line = refusal("perturb", made, artifact, capsys)
    assert re.search(
        r"model\.onnx: ONNX Runtime cannot run it on an input of shape \d+ x \d+ \(texts x tokens\)", line
    )
    assert "export it again with: compress export" in line


def change_config(**changes):
    def change(path):
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def content(value):
    return lambda path: path.write_bytes(value)


BROKEN_CONFIGS = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "empty": (emptied, "is no configuration of a classifier"),
    "cut": (truncated, "is no configuration of a classifier"),
    "not text": (content(b"\xff\xfe\x00"), "is no configuration of a classifier"),
    "a list": (content(b"[]"), "is no configuration of a classifier"),
    "of no model": (content(b"{}"), "is no configuration of a classifier"),
    "of an unknown model": (change_config(model_type="nothing"), "is no configuration of a classifier"),
    "no labels": (
        change_config(id2label=None, label2id=None),
        "has the labels LABEL_0, LABEL_1, and manifest.json has fresh, rotten",
    ),
    "other labels": (
        # With the old label2id beside them they would contradict each other.
        change_config(id2label={"0": "rotten", "1": "fresh"}, label2id=None),
        "has the labels rotten, fresh, and manifest.json has fresh, rotten",
    ),
    "labels with a gap": (
        change_config(id2label={"0": "fresh", "2": "rotten"}),
        "is no configuration of a classifier",
    ),
    "labels without number": (change_config(id2label={"a": "fresh"}), "is no configuration of a classifier"),
    "labels as a list": (change_config(id2label=["fresh"]), "is no configuration of a classifier"),
}


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize("breakage", BROKEN_CONFIGS)
def test_a_broken_configuration_is_named(made, artifact, capsys, name, breakage):
    change, expected = BROKEN_CONFIGS[breakage]
    change(artifact / CONFIG)
    seal(artifact)
    line = refusal(name, made, artifact, capsys)
    assert line.startswith(f"{artifact / CONFIG}: {expected}")
    assert line.endswith("export it again with: compress export")


def without_vocabulary(folder):
    (folder / TOKENIZER).unlink()
    (folder / VOCABULARY).unlink(missing_ok=True)


def of_file(name, value):
    return lambda folder: (folder / name).write_bytes(value)


BROKEN_TOKENIZERS = {
    "missing": without_vocabulary,
    "empty": of_file(TOKENIZER, b""),
    "cut": lambda folder: truncated(folder / TOKENIZER),
    "not text": of_file(TOKENIZER, b"\xff\xfe\x00"),
    "another JSON": of_file(TOKENIZER, b"{}"),
    "cut options": of_file("tokenizer_config.json", b"{"),
    "options of a kind": of_file("tokenizer_config.json", b"[]"),
}


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize("breakage", BROKEN_TOKENIZERS)
def test_a_broken_tokenizer_is_named(made, artifact, capsys, name, breakage):
    BROKEN_TOKENIZERS[breakage](artifact)
    seal(artifact)
    line = refusal(name, made, artifact, capsys)
    expected = "the tokenizer (tokenizer.json, tokenizer_config.json) cannot be loaded: "
    assert line.startswith(f"{artifact}: {expected}")
    if breakage == "missing":
        assert "there is no tokenizer.json and no vocab.txt" in line
    assert line.endswith("restore the files that were saved with the model")


@pytest.mark.parametrize("breakage", BROKEN_TOKENIZERS)
def test_a_broken_tokenizer_of_a_classifier_is_named_as_well(made, tmp_path, capsys, breakage):
    (tmp_path / "here").mkdir()
    classifier = shutil.copytree(made / "dense", tmp_path / "here" / "artifact")
    BROKEN_TOKENIZERS[breakage](classifier)
    line = refusal("perturb", made, classifier, capsys)
    assert line.startswith(f"{classifier}: the tokenizer (tokenizer.json, tokenizer_config.json) cannot")


@pytest.mark.parametrize("name", PREDICTING)
def test_a_tokenizer_of_an_unknown_class_without_special_tokens_is_named(made, artifact, capsys, name):
    """Version 4 of transformers refuses the class; version 5 goes by tokenizer.json."""
    of_file("tokenizer_config.json", b'{"tokenizer_class": "Nothing"}')(artifact)
    seal(artifact)
    line = refusal(name, made, artifact, capsys)
    assert re.search(r"class Nothing does not exist|the tokenizer has no (token to pad|\w+_token)", line)
    assert "restore the files" in line or "in tokenizer_config.json" in line


def test_a_tokenizer_that_cannot_pad_is_named(made, artifact, capsys):
    options = json.loads((artifact / "tokenizer_config.json").read_text())
    (artifact / "tokenizer_config.json").write_text(json.dumps(options | {"pad_token": None}))
    (artifact / "special_tokens_map.json").unlink(missing_ok=True)
    seal(artifact)
    line = refusal("perturb", made, artifact, capsys)
    assert "has no token to pad with; set pad_token in tokenizer_config.json" in line


def test_code_of_a_checkpoint_is_refused_and_not_asked_for(made, artifact, capsys):
    change_config(model_type="nothing", auto_map={"AutoConfig": "own.OwnConfig"})(artifact / CONFIG)
    (artifact / "own.py").write_text("raise SystemExit('the code ran')\n")
    seal(artifact)
    assert "is no configuration of a classifier" in refusal("perturb", made, artifact, capsys)
