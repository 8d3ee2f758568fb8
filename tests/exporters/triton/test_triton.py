"""The model repository as Triton's own protobuf reads it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format, text_format
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from tokenizers import Tokenizer
from triton_server import OPTIONS, ModelConfig, read_config

from compressor.errors import UserError
from compressor.models.batching import encode_texts, pad
from compressor.models.classifier import load_classifier
from compressor.models.manifest import MANIFEST, artifact_problems, write_manifest
from compressor.models.preprocessing import write_tokenizer
from compressor.system.files import MARKER
from exporters.triton import client as triton_client
from exporters.triton.repository import (
    Signature,
    Tensor,
    TritonConfig,
    quoted,
    read_signature,
    write_repository,
)

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def test_the_repository_holds_models_alone_and_the_rest_is_beside_it(triton_repository, small_artifact_dir):
    manifest = json.loads((triton_repository / MANIFEST).read_text())
    assert {path.name for path in triton_repository.iterdir()} == {"models", "client", MANIFEST, MARKER}
    # Triton takes every folder here for a model.
    assert {path.name for path in (triton_repository / "models").iterdir()} == {
        "critic-2_b",
        "critic-2_b_tensorrt",
    }
    assert set(manifest["files"]) == {
        "client/client.py",
        "client/labels.txt",
        "client/tokenizer.json",
        "models/critic-2_b/3/model.onnx",
        "models/critic-2_b/config.pbtxt",
        "models/critic-2_b/labels.txt",
        "models/critic-2_b_tensorrt/config.pbtxt",
        "models/critic-2_b_tensorrt/labels.txt",
    }
    assert artifact_problems(triton_repository) == []
    graph = triton_repository / "models/critic-2_b/3/model.onnx"
    assert graph.read_bytes() == (small_artifact_dir / "model.onnx").read_bytes()
    assert manifest["graph_sha256"] == manifest["files"]["models/critic-2_b/3/model.onnx"]["sha256"]
    assert manifest["options"] == OPTIONS
    assert manifest["labels"] == ["fresh", "rotten"]


def test_no_path_of_this_machine_is_in_the_repository(triton_repository, small_artifact_dir):
    for path in triton_repository.rglob("*"):
        assert path.is_dir() or str(small_artifact_dir).encode() not in path.read_bytes(), path


def test_every_field_for_onnxruntime(triton_config):
    found = json_format.MessageToDict(triton_config, preserving_proto_field_name=True)
    lengths = found.pop("model_warmup")
    assert found == {
        "name": "critic-2_b",
        "backend": "onnxruntime",
        "platform": "onnxruntime_onnx",
        "default_model_filename": "model.onnx",
        "version_policy": {"latest": {"num_versions": 2}},
        "max_batch_size": 8,
        "input": [{"name": name, "data_type": "TYPE_INT64", "dims": ["-1"]} for name in INPUTS],
        "output": [
            {"name": "logits", "data_type": "TYPE_FP32", "dims": ["2"], "label_filename": "labels.txt"}
        ],
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": "250"},
        "instance_group": [{"kind": "KIND_CPU", "count": 2}],
        "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    }
    assert [entry["name"] for entry in lengths] == [
        "batch_1_length_16",
        "batch_1_length_48",
        "batch_8_length_16",
        "batch_8_length_48",
    ]


def test_tensorrt_is_a_model_of_its_own_that_awaits_its_engine(triton_repository, triton_config):
    found = read_config(triton_repository / "models" / "critic-2_b_tensorrt")
    own = ModelConfig()
    own.CopyFrom(triton_config)
    own.name, own.backend, own.platform = "critic-2_b_tensorrt", "tensorrt", "tensorrt_plan"
    own.default_model_filename = "model.plan"
    own.instance_group[0].kind = own.instance_group[0].KIND_GPU
    del own.parameters["intra_op_thread_count"]
    assert found == own
    engine = json.loads((triton_repository / MANIFEST).read_text())["models"]["critic-2_b_tensorrt"]["engine"]
    assert engine == {"path": "models/critic-2_b_tensorrt/3/model.plan", "min": [1, 16], "max": [8, 48]}
    # The folder that the engine is copied to is there; Triton reads all that is in it.
    assert list((triton_repository / engine["path"]).parent.iterdir()) == []
    assert "3/model.plan" in (triton_repository / "models/critic-2_b_tensorrt/config.pbtxt").read_text()


def test_an_artifact_for_openvino_is_a_model_of_its_backend(openvino_repository, openvino_artifact_dir):
    folder = openvino_repository / "models" / "classifier"
    assert {path.name for path in (folder / "1").iterdir()} == {"model.xml", "model.bin"}
    for name in ("model.xml", "model.bin"):
        assert (folder / "1" / name).read_bytes() == (openvino_artifact_dir / name).read_bytes()
    assert artifact_problems(openvino_repository) == []
    found = json_format.MessageToDict(read_config(folder), preserving_proto_field_name=True)
    warmup = found.pop("model_warmup")
    assert found == {
        "name": "classifier",
        "backend": "openvino",
        "default_model_filename": "model.xml",
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [{"name": name, "data_type": "TYPE_INT64", "dims": ["-1", "-1"]} for name in INPUTS],
        "output": [
            {"name": "logits", "data_type": "TYPE_FP32", "dims": ["-1", "2"], "label_filename": "labels.txt"}
        ],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        "parameters": {
            "INFERENCE_NUM_THREADS": {"string_value": "2"},
            "PERFORMANCE_HINT": {"string_value": "LATENCY"},
        },
    }
    assert [(entry["batch_size"], entry["inputs"]["input_ids"]["dims"]) for entry in warmup] == [
        (1, ["1", "16"]),
        (1, ["1", "48"]),
    ]


def test_another_backend_than_the_artifacts_own_is_a_suffix(openvino_artifact_dir, tmp_path):
    options = TritonConfig(backends=["onnxruntime", "openvino"])
    manifest = write_repository(openvino_artifact_dir, tmp_path / "out", options, force=False)
    models = {name: facts["backend"] for name, facts in manifest["models"].items()}
    assert models == {"classifier_onnxruntime": "onnxruntime", "classifier": "openvino"}


def test_openvino_serves_artifacts_for_openvino_alone(small_artifact_dir, tmp_path):
    with pytest.raises(UserError, match=r"has no model\.(xml|bin); export it with: .* --runtime openvino"):
        write_repository(
            small_artifact_dir, tmp_path / "out", TritonConfig(backends=["openvino"]), force=False
        )


def test_a_runtime_without_a_backend_needs_one_that_is_given(artifact_copy, tmp_path):
    artifact = artifact_copy({"runtime": "other"})
    with pytest.raises(UserError, match="runtime is 'other', which is no backend of Triton; give --backends"):
        write_repository(artifact, tmp_path / "out", TritonConfig(), force=False)
    options = TritonConfig(backends=["onnxruntime"])
    manifest = write_repository(artifact, tmp_path / "out", options, force=False)
    assert manifest["models"] == {"classifier": {"backend": "onnxruntime", "version": 1}}


def test_defaults_leave_batching_and_threads_to_triton(small_artifact_dir, tmp_path):
    manifest = write_repository(small_artifact_dir, tmp_path / "out", TritonConfig(), force=False)
    assert manifest["models"] == {"classifier": {"backend": "onnxruntime", "version": 1}}
    found = read_config(tmp_path / "out/models/classifier")
    assert found.HasField("dynamic_batching")
    assert list(found.dynamic_batching.preferred_batch_size) == []
    assert dict(found.parameters) == {}
    assert found.instance_group[0].kind == found.instance_group[0].KIND_AUTO


def test_each_warm_up_is_a_request_that_the_graph_answers(triton_config, triton_session):
    for sample in triton_config.model_warmup:
        feeds = {}
        for name, entry in sample.inputs.items():
            assert entry.WhichOneof("input_data_type") == "zero_data"
            assert entry.data_type == next(i.data_type for i in triton_config.input if i.name == name)
            feeds[name] = np.zeros((sample.batch_size, *entry.dims), dtype=np.int64)
        assert set(feeds) == set(INPUTS)
        (logits,) = triton_session.run(None, feeds)
        assert logits.shape == (sample.batch_size, 2)
        assert np.isfinite(logits).all()


def test_labels_are_a_line_each_in_the_order_of_the_logits(triton_repository, triton_config):
    for folder in ("models/critic-2_b", "models/critic-2_b_tensorrt", "client"):
        assert (triton_repository / folder / "labels.txt").read_bytes() == b"fresh\nrotten\n"
    assert triton_config.output[0].label_filename == "labels.txt"


@given(st.text(max_size=20))
def test_any_string_survives_quoting(text):
    assert text_format.Parse(f"name: {quoted(text)} max_batch_size: 1", ModelConfig()).name == text


def small_graph(path, inputs, outputs):
    """A graph with those `(name, type, shape)` and without nodes, for what only reads its signature."""
    entries = [[helper.make_tensor_value_info(*entry) for entry in side] for side in (inputs, outputs)]
    onnx.save(helper.make_model(helper.make_graph([], "g", *entries)), path)
    return path


IDS = ("input_ids", onnx.TensorProto.INT64, ["batch", "sequence"])
LOGITS = ("logits", onnx.TensorProto.FLOAT, ["batch", 3])


def test_names_types_and_labels_are_read_from_the_graph(tmp_path):
    graph = small_graph(
        tmp_path / "g.onnx",
        [
            ("attention_mask", onnx.TensorProto.INT32, ["b", "s"]),
            ("input_ids", onnx.TensorProto.INT32, ["b", "s"]),
        ],
        [('odd "name"', onnx.TensorProto.FLOAT16, ["b", 5])],
    )
    assert read_signature(graph) == Signature(
        [Tensor("attention_mask", "TYPE_INT32", [-1]), Tensor("input_ids", "TYPE_INT32", [-1])],
        Tensor('odd "name"', "TYPE_FP16", [5]),
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([("input_ids", IDS[1], [8, "s"])], [LOGITS], "'input_ids' has no free batch axis"),
        ([("input_ids", IDS[1], ["b", 64])], [LOGITS], r"input 'input_ids' with \[64\] after the batch"),
        ([("pixels", IDS[1], ["b", "s"])], [LOGITS], "input 'pixels' .* known are input_ids, "),
        (
            [("input_ids", onnx.TensorProto.STRING, ["b", "s"])],
            [LOGITS],
            "of type STRING, which is not served",
        ),
        ([IDS], [LOGITS, LOGITS], "is no classifier"),
        ([IDS], [("hidden", LOGITS[1], ["b", "s", 384])], "is no classifier"),
        ([IDS], [("logits", LOGITS[1], ["b", "labels"])], "is no classifier"),
        ([], [LOGITS], "is no classifier"),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused(inputs, outputs, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_signature(small_graph(tmp_path / "g.onnx", inputs, outputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "a/b"}, "model name 'a/b': only letters, digits, _ and -"),
        ({"model_name": "a\n"}, "model name"),
        ({"model_name": ""}, "model name ''"),
        (
            {"max_length": 40, "padding_multiple": 528},
            "padding_multiple 528: inputs of max_length 40 are padded to 528 tokens, and the model takes 512",
        ),
        ({"max_batch_size": 4, "preferred_batch_sizes": [8]}, "8 is more than max_batch_size, which is 4"),
    ],
)
def test_options_that_contradict_are_refused(options, message, small_artifact_dir, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        write_repository(small_artifact_dir, tmp_path / "out", TritonConfig(**options), force=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def artifact_copy(small_artifact_dir, tmp_path):
    """A function that copies the artifact with some facts and files changed, its checksums true."""

    def change(facts=None, files=None):
        copy = Path(shutil.copytree(small_artifact_dir, tmp_path / "copy"))
        for name, text in (files or {}).items():
            (copy / name).write_text(text)
        manifest = json.loads((copy / MANIFEST).read_text())
        del manifest["files"], manifest["schema_version"]
        write_manifest(copy, manifest | (facts or {}))
        return copy

    return change


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"labels": ["fresh", "rot\nten"]}, r"the label 'rot\\nten' has a line break"),
        ({"labels": ["fresh"]}, "the manifest has 1 labels, the graph 2 logits"),
    ],
)
def test_labels_that_do_not_fit_are_refused(facts, message, artifact_copy, tmp_path):
    with pytest.raises(UserError, match=message):
        write_repository(artifact_copy(facts), tmp_path / "out", TritonConfig(), force=False)


def test_a_length_that_the_model_does_not_take_is_refused(artifact_copy, small_artifact_dir, tmp_path):
    values = json.loads((small_artifact_dir / "config.json").read_text()) | {"max_position_embeddings": 32}
    artifact = artifact_copy(files={"config.json": json.dumps(values)})
    with pytest.raises(UserError, match="max_length 48: the model takes 32 tokens at most"):
        write_repository(artifact, tmp_path / "out", TritonConfig(), force=False)


@pytest.mark.parametrize(("exported", "longest"), [(48, 48), (37, 48)])
def test_inputs_are_cut_where_the_artifact_was_exported_to(
    exported, longest, small_pruned_dir, artifact_copy, tmp_path
):
    artifact = artifact_copy()
    tokenizer = load_classifier(str(small_pruned_dir)).tokenizer
    record = write_tokenizer(tokenizer, artifact, exported, INPUTS) | {"needs_transformers": None}
    manifest = json.loads((artifact / MANIFEST).read_text())
    del manifest["files"], manifest["schema_version"]
    write_manifest(artifact, manifest | {"max_length": exported, "preprocessing": record})
    options = TritonConfig(model_name="m", backends=["onnxruntime", "tensorrt"], max_batch_size=4)
    told = write_repository(artifact, tmp_path / "out", options, force=False)
    assert told["max_length"] == exported
    assert told["models"]["m_tensorrt"]["engine"]["max"] == [4, longest]
    warmup = read_config(tmp_path / "out/models/m").model_warmup
    assert {tuple(entry.dims) for sample in warmup for entry in sample.inputs.values()} == {(16,), (longest,)}
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/client/tokenizer.json"))
    expected = pad(
        encode_texts(load_classifier(str(small_pruned_dir)).tokenizer, ["long " * 100], None, exported), 0
    )
    found = triton_client.encode(tokenizer, ["long " * 100])
    assert found["input_ids"].shape == (1, longest)
    np.testing.assert_array_equal(found["input_ids"][:, :exported], expected["input_ids"].numpy())
    assert found["attention_mask"].sum() == exported


def test_a_graph_with_weights_in_another_file_is_refused(artifact_copy, tmp_path):
    artifact = artifact_copy()
    graph = onnx.load(artifact / "model.onnx")
    onnx.save(graph, artifact / "model.onnx", save_as_external_data=True, location="weights.bin")
    with pytest.raises(UserError, match=r"model\.onnx: keeps weights in another file"):
        read_signature(artifact / "model.onnx")


def test_only_whole_artifacts_are_taken(triton_repository, artifact_copy, tmp_path):
    with pytest.raises(UserError, match="is no exported classifier; make one with: compress export"):
        write_repository(triton_repository, tmp_path / "out", TritonConfig(), force=False)
    artifact = artifact_copy()
    with (artifact / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(UserError, match=r"tokenizer\.json: is not the file that was exported"):
        write_repository(artifact, tmp_path / "out", TritonConfig(), force=False)


@pytest.mark.parametrize("part", [".", ".."])
def test_force_does_not_replace_the_artifact_itself(part, artifact_copy, tmp_path):
    artifact = artifact_copy()
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match=r"holds .*copy.*, which the command reads"):
        write_repository(artifact, artifact / part, TritonConfig(), force=True)
    assert (artifact / "model.onnx").is_file()
