"""What the walk holds in memory and on disk, whatever the system offers."""

import copy
import errno
import os
import tempfile

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import compressor.pruning.walk as module
from compressor.errors import UserError
from compressor.pruning.walk import SideBySide, calibration_batches

WIDTH = 16


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=300
    )
    return BertForSequenceClassification(config).eval()


def batches_of(lengths, size=8):
    generator = torch.Generator().manual_seed(0)
    encoded = [
        (torch.randint(1, 299, (length,), generator=generator).tolist(), [0] * length) for length in lengths
    ]
    return calibration_batches(encoded, size, 0, torch.device("cpu"))


def held_bytes(value, seen=None):
    """Bytes of all tensors that an object holds, those in models aside."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, torch.nn.Module):
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, dict):
        return sum(held_bytes(inner, seen) for inner in value.values())
    if isinstance(value, list | tuple):
        return sum(held_bytes(inner, seen) for inner in value)
    return held_bytes(vars(value), seen) if hasattr(value, "__dict__") else 0


@pytest.mark.parametrize("step", [0, 1])
def test_a_token_of_calibration_data_takes_a_few_bytes_of_memory(model, step):
    # Of lengths that differ, so that masks are needed.
    walk = SideBySide(model, copy.deepcopy(model), batches_of([60 + i % 4 for i in range(64)]))
    for _ in range(step):
        walk.moments("output.dense")
        walk.advance()
    pairs = walk.block_pairs()
    assert len(pairs[-1].target) == 8
    assert held_bytes(walk) + held_bytes(pairs) <= 8 * 64 * 64


def test_batches_are_given_back_as_they_came(model):
    batches = batches_of([3, 9, 30, 31])
    for found, expected in zip(SideBySide(model, model, batches).batches, batches, strict=True):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_states_are_read_as_they_were_written(dtype):
    shapes = [(2, 3, 4), (1, 1, 4), (3, 2, 4)]
    states = module._States(shapes, dtype)
    expected = [torch.randn(shape).to(dtype) for shape in shapes]
    for index in (2, 0, 1, 0):
        states[index] = expected[index]
    # Not contiguous, and written over.
    expected[2] = torch.randn(2, 3, 4).to(dtype).transpose(0, 1)
    states[2] = expected[2]
    assert [state.dtype for state in states] == [dtype] * 3
    assert all(torch.equal(found, value) for found, value in zip(states, expected, strict=True))
    with pytest.raises(IndexError):
        states[3]


def test_pairs_are_those_of_the_batches(model):
    pruned = copy.deepcopy(model)
    walk = SideBySide(model, pruned, batches_of([5, 9, 12], size=1))
    pairs = walk.block_pairs()
    assert len(pairs) == len(list(pairs)) == 3
    assert [pair.tokens.shape[1] for pair in pairs[1:]] == [9, 12]
    assert all(float(pair.squared_error(walk.blocks[1])) == 0 for pair in pairs)


def test_the_walk_needs_nothing_that_linux_alone_has(model, monkeypatch):
    for name in ("posix_fallocate", "sched_getaffinity", "memfd_create", "pread", "pwrite"):
        monkeypatch.delattr(os, name, raising=False)
    SideBySide(model, model, batches_of([5, 9])).advance()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_without_room_is_a_user_error_before_anything_is_solved(model, monkeypatch, code):
    class Full:
        def seek(self, _):
            pass

        def write(self, _):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match=f"MB of calibration states .{os.strerror(code)}.; set TMPDIR"):
        SideBySide(model, model, batches_of([5, 9]))


def test_without_any_folder_for_temporary_files_the_way_out_is_named(model, monkeypatch, tmp_path):
    def fail():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(UserError, match=r"No usable temporary directory found.; set TMPDIR"):
        SideBySide(model, model, batches_of([5, 9]))
