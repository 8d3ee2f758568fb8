"""The proof of parity fails where it must: at a difference, at NaN, at a zero that moved."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.classifier import encoder_weights, load_classifier
from compressor.console import SilentProgress
from compressor.errors import UserError
from compressor.predictors import OnnxPredictor, TorchPredictor
from exporters.onnx import encoder_initializers
from exporters.verify import Parity, check_parity, check_zeros, measure_parity, ragged_batches


@pytest.fixture(scope="module")
def reference(small_pruned_dir):
    return TorchPredictor(load_classifier(str(small_pruned_dir), attention="eager"))


@pytest.fixture(scope="module")
def exported(small_artifact_dir):
    return OnnxPredictor(small_artifact_dir, threads=2)


class Altered:
    """A predictor whose logits are changed for the texts that hold a token."""

    def __init__(self, predictor, token, change):
        self.tokenizer, self.label_names = predictor.tokenizer, predictor.label_names
        self._predictor, self._token, self._change = predictor, token, change

    def logits(self, batch):
        logits = self._predictor.logits(batch).copy()
        rows = (batch["input_ids"] == self._token).any(dim=1).numpy()
        logits[rows] = self._change(logits[rows])
        return logits


@pytest.fixture
def marked(quotes, reference):
    """60 texts, of which the one at 41 alone has a certain word."""
    texts = quotes.select(range(60))
    token = reference.tokenizer.convert_tokens_to_ids("zebra")
    texts.texts[41] = "a zebra of a film"
    return texts, token


@given(st.integers(1, 200))
def test_ragged_batches_hold_every_index_once(count):
    batches = list(ragged_batches([([1], [0])] * count))
    assert [i for batch in batches for i in batch] == list(range(count))
    assert [len(batch) for batch in batches[:-1]] == [(1, 8, 33)[i % 3] for i in range(len(batches) - 1)]
    assert batches[-1]


def test_real_texts_have_parity(reference, exported, quotes):
    parity = measure_parity(reference, exported, quotes.select(range(60)), 48, SilentProgress())
    assert parity.examples == 60
    assert 0 < parity.max_difference <= 1e-4
    assert parity.label_agreement == 1.0
    check_parity(parity, 1e-4)


def test_a_difference_in_one_text_is_found_and_named(reference, exported, marked):
    texts, token = marked
    altered = Altered(exported, token, lambda logits: logits + 0.5)
    parity = measure_parity(reference, altered, texts, 48, SilentProgress())
    assert parity.max_difference == pytest.approx(0.5, abs=1e-3)
    assert parity.worst_text == "a zebra of a film"
    with pytest.raises(UserError, match=r"differ from PyTorch's by 5.*'a zebra of a film'"):
        check_parity(parity, 1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_fail(reference, exported, marked, value):
    texts, token = marked
    altered = Altered(exported, token, lambda logits: np.full_like(logits, value))
    parity = measure_parity(reference, altered, texts, 48, SilentProgress())
    assert parity.max_difference == np.inf
    with pytest.raises(UserError, match="a zebra of a film"):
        check_parity(parity, 1.0)


def test_nan_on_both_sides_fails(reference, exported, marked):
    texts, token = marked
    broken = [Altered(p, token, lambda logits: logits * np.nan) for p in (reference, exported)]
    with pytest.raises(UserError):
        check_parity(measure_parity(*broken, texts, 48, SilentProgress()), 1.0)


def test_label_agreement_counts_texts(reference, exported, marked):
    texts, token = marked
    altered = Altered(exported, token, lambda logits: logits[:, ::-1])
    parity = measure_parity(reference, altered, texts, 48, SilentProgress())
    assert parity.label_agreement == pytest.approx(59 / 60)


def test_the_tolerance_itself_passes_and_long_texts_are_cut():
    parity = Parity(3, 1e-4, 1.0, "x" * 500)
    check_parity(parity, 1e-4)
    with pytest.raises(UserError) as caught:
        check_parity(dataclasses.replace(parity, max_difference=1.1e-4), 1e-4)
    assert len(str(caught.value)) < 300


def test_zeros_that_agree_pass(reference, small_pruned_dir, small_artifact_dir):
    weights = encoder_weights(load_classifier(str(small_pruned_dir)).model)
    check_zeros(weights, encoder_initializers(small_artifact_dir / "model.onnx"))


def test_a_zero_that_moved_is_a_bug():
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(RuntimeError, match="a: the zeros of the graph are not those of the model"):
        check_zeros({"a": weight}, {"a": weight.flip(0)})


@pytest.mark.parametrize("exported_names", [["a"], ["a", "b", "c"], []])
def test_other_layers_are_a_bug(exported_names):
    weight = torch.eye(2)
    with pytest.raises(RuntimeError, match="the graph's linear layers are not the model's"):
        check_zeros({"a": weight, "b": weight}, dict.fromkeys(exported_names, weight))
