"""Bytes by part: they add up to the files, and each weight counts where it belongs."""

import dataclasses

import onnx
import pytest
from made_reports import make_appendix, make_report
from quantized import quantized_copy
from safetensors import safe_open

from compressor.errors import UserError
from compressor.models.classifier import load_classifier
from compressor.models.manifest import read_manifest
from compressor.validation.report.render import render_html
from compressor.validation.schema import Report
from exporters.quantize_rows import quantize_rows
from exporters.sizes import classifier_size, graph_size, parts_of, tokenizer_bytes
from exporters.sparse import store_sparse


@pytest.fixture(scope="module")
def dense(made):
    return load_classifier(str(made / "dense"))


def expected_of(path):
    """Bytes of the embeddings and the head of a checkpoint, by the names that BERT has for them."""
    sizes = {"embeddings": 0, "encoder": 0, "head": 0}
    with safe_open(path, "numpy") as stream:
        for name in stream.keys():  # noqa: SIM118
            size = stream.get_tensor(name).nbytes
            if ".embeddings." in name:
                sizes["embeddings"] += size
            elif ".encoder." in name:
                sizes["encoder"] += size
            else:
                sizes["head"] += size
    return sizes


def test_a_checkpoint_is_the_sum_of_its_parts(made, dense):
    path = made / "dense" / "model.safetensors"
    found = classifier_size(dense)
    expected = expected_of(path)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.weights == path.stat().st_size
    # The file's header.
    assert 0 < found.other < path.stat().st_size - sum(expected.values()) + 1
    files = [made / "dense" / name for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")]
    assert found.tokenizer >= sum(file.stat().st_size for file in files if file.is_file())
    assert found.tokenizer == tokenizer_bytes(made / "dense", dense.tokenizer)


def test_a_classifier_without_a_directory_counts_as_in_memory(made, dense, tmp_path):
    there = classifier_size(dense)
    found = classifier_size(dataclasses.replace(dense, source=str(tmp_path / "hub" / "id")))
    assert (found.embeddings, found.encoder, found.head) == (there.embeddings, there.encoder, there.head)
    assert (found.other, found.tokenizer) == (0, None)


@pytest.mark.parametrize("change", [None, quantize_rows, store_sparse], ids=["fp32", "int8", "sparse"])
def test_a_graph_is_the_sum_of_its_parts(made, dense, tmp_path, change):
    artifact = made / "artifact"
    if change is not None:
        artifact = quantized_copy(artifact, tmp_path, change)
    found = graph_size(artifact / "model.onnx", parts_of(dense), dense.tokenizer)
    assert found.weights == (artifact / "model.onnx").stat().st_size
    assert min(found.embeddings, found.encoder, found.head, found.other) > 0
    named = list(onnx.load(artifact / "model.onnx").graph.initializer)
    embeddings = sum(entry.ByteSize() for entry in named if ".embeddings." in entry.name)
    # The numbers of the positions are no weight.
    assert found.embeddings == embeddings - sum(e.ByteSize() for e in named if "position_ids" in e.name)


def test_a_broken_graph_is_named(dense, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"model\.onnx: cannot be read as ONNX"):
        graph_size(tmp_path / "model.onnx", parts_of(dense), dense.tokenizer)


def test_the_manifest_has_sizes_and_their_ratio(made, dense):
    stated = read_manifest(made / "artifact")["size"]
    found = graph_size(made / "artifact" / "model.onnx", parts_of(dense), dense.tokenizer)
    ratio = found.weights / (made / "dense" / "model.safetensors").stat().st_size
    assert stated == {**dataclasses.asdict(found), "size_ratio": ratio}


def test_reports_show_sizes_and_those_from_before_do_not():
    html = render_html(make_report(), make_appendix())
    for name in (
        "Size relative to dense",
        "Embeddings, MB",
        "Encoder, MB",
        "Head, MB",
        "Tokenizer files, MB",
    ):
        assert name in html
    value = make_report().model_dump(mode="json")
    for figures in value["variants"].values():
        del figures["size_by_part"], figures["size_ratio"]
    assert "Embeddings, MB" not in render_html(Report.model_validate(value), make_appendix())
