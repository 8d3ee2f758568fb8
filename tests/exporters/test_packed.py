"""Packing: bit for bit, as small as stated, and nothing broken is unpacked."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli import execute
from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.manifest import MANIFEST, artifact_problems, read_manifest, write_manifest
from exporters.packed import PACKED, pack, pack_directory, unpack, unpack_directory

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    zeros=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
)
def test_any_tensor_comes_back_bit_for_bit(seed, shape, zeros, dtype):
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator).to(dtype)
    tensor[torch.rand(shape, generator=generator) < zeros] = 0.0
    # Values that compare as zero, or as nothing at all.
    odd = torch.tensor([-0.0, float("nan"), float("inf"), 0.0], dtype=dtype)
    tensor.reshape(-1)[: min(4, tensor.numel())] = odd[: tensor.numel()]
    parts = pack(tensor)
    if parts is not None:
        bits, values = parts
        found = unpack(bits, values, tuple(shape))
        assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))
        assert bits.numel() + values.numel() * values.element_size() < tensor.numel() * tensor.element_size()


@pytest.mark.parametrize(("sparsity", "bound"), [(0.75, 0.30), (0.9, 0.15)])
def test_size_at_a_sparsity(sparsity, bound):
    tensor = torch.randn(384, 1536, generator=torch.Generator().manual_seed(0))
    tensor.reshape(-1)[: int(sparsity * tensor.numel())] = 0.0
    bits, values = pack(tensor)
    assert (bits.numel() + 4 * values.numel()) / (4 * tensor.numel()) < bound


def test_what_would_not_be_smaller_stays():
    assert pack(torch.ones(64)) is None
    assert pack(torch.zeros(64, dtype=torch.int64)) is None


@pytest.mark.parametrize(
    ("bits", "values", "shape"),
    [
        (torch.tensor([255], dtype=torch.uint8), torch.ones(8), (9,)),
        (torch.tensor([255], dtype=torch.uint8), torch.ones(7), (8,)),
        (torch.tensor([-1], dtype=torch.int8), torch.ones(8), (8,)),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(bits, values, shape):
    with pytest.raises(ValueError, match="for"):
        unpack(bits, values, shape)


@pytest.fixture
def packed(small_pruned_dir, tmp_path):
    pack_directory(small_pruned_dir, tmp_path / "packed", force=False)
    return tmp_path / "packed"


def test_a_pruned_model_comes_back_as_it_was(small_pruned_dir, packed, tmp_path, capsys):
    assert not (packed / "model.safetensors").exists()
    assert artifact_problems(packed) == []
    assert execute(["unpack", str(packed), "--output", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "again")
    before, after = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (small_pruned_dir, tmp_path / "again")
    )
    assert before == after


def test_pack_tells_sizes(small_pruned_dir, tmp_path, capsys):
    assert execute(["pack", str(small_pruned_dir), "--output", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    weights = encoder_weights(load_classifier(str(small_pruned_dir)).model).values()
    expected = sum(-(-w.numel() // 8) + 4 * int(w.count_nonzero()) for w in weights)
    assert told["packed_tensors"] == len(weights)
    assert told["packed_tensors_bytes"]["after"] == expected
    assert told["weights_bytes"]["after"] == (tmp_path / "out" / PACKED).stat().st_size
    assert told["weights_bytes"]["after"] < told["weights_bytes"]["before"]


def test_the_manifest_has_the_lineage_that_an_artifact_of_the_model_has(packed, small_artifact_dir):
    expected = read_manifest(small_artifact_dir)["lineage"]
    del expected["model"]
    assert read_manifest(packed)["lineage"] == expected


def test_a_changed_byte_is_found(packed, tmp_path):
    content = bytearray((packed / PACKED).read_bytes())
    content[-1] ^= 1
    (packed / PACKED).write_bytes(content)
    with pytest.raises(UserError, match="its sha256 differs"):
        unpack_directory(packed, tmp_path / "again", force=False)
    assert not (tmp_path / "again").exists()


def test_other_weights_under_a_fitting_manifest_are_found(packed, tmp_path):
    tensors = load_file(packed / PACKED)
    name = next(name for name in tensors if name.startswith("values."))
    tensors[name][0] += 1
    with safe_open(packed / PACKED, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, packed / PACKED, metadata=metadata)
    (packed / MANIFEST).unlink()
    write_manifest(packed, {"format": "packed"})
    with pytest.raises(UserError, match="not those that were packed"):
        unpack_directory(packed, tmp_path / "again", force=False)


@pytest.mark.parametrize(
    "metadata", [None, {"packed": "{"}, {"packed": "[]"}, {"packed": '{"shapes": {"a": [2]}}'}]
)
def test_a_foreign_file_is_refused(packed, tmp_path, metadata):
    save_file({"a": torch.from_numpy(np.ones(2))}, packed / PACKED, metadata=metadata)
    (packed / MANIFEST).unlink()
    write_manifest(packed, {"format": "packed"})
    with pytest.raises(UserError, match="is no packed model of compress"):
        unpack_directory(packed, tmp_path / "again", force=False)


def test_what_is_no_packed_model_is_bad_input(small_pruned_dir, small_artifact_dir, tmp_path, capsys):
    output = ["--output", str(tmp_path / "out")]
    assert execute(["unpack", str(small_artifact_dir), *output]) == 2
    assert "is no packed model; make one with: compress pack" in capsys.readouterr().err
    assert execute(["unpack", str(small_pruned_dir), *output]) == 2
    capsys.readouterr()
    assert execute(["pack", str(small_artifact_dir), *output]) == 2
    line = capsys.readouterr().err
    assert line.startswith(
        f"error: {small_artifact_dir}: is an exported artifact or a packed classifier, and"
    )
    assert line.endswith(f"tar --create --gzip --file artifact.tar.gz {small_artifact_dir}\n")
    (tmp_path / "empty").mkdir()
    assert execute(["pack", str(tmp_path / "empty"), *output]) == 2
    assert "a directory with model.safetensors is needed" in capsys.readouterr().err
