"""The proof of parity fails where it must: at a difference, at NaN, at a zero that moved."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.predictors import OnnxPredictor, TorchPredictor
from compressor.options import ColumnsConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.onnx import encoder_initializers
from exporters.verify import (
    InputLimits,
    Parity,
    check_parity,
    check_zeros,
    edge_batches,
    input_limits,
    measure_parity,
    ragged_batches,
    variance_kept,
)

# The small model has some more word pieces; at its length these tests would take long.
LIMITS = InputLimits(vocabulary=10000, length=64, segments=2)
CONTEXT = Context(
    output=Path("artifact"),
    columns=ColumnsConfig(max_length=48),
    run=RunConfig(seed=0),
    progress=SilentProgress(),
)


def parity_of(reference, exported, data):
    return measure_parity(reference, exported, data, CONTEXT, LIMITS)


@pytest.fixture(scope="module")
def reference(small_pruned_dir):
    return TorchPredictor(load_classifier(str(small_pruned_dir), attention="eager"))


@pytest.fixture(scope="module")
def exported(small_artifact_dir):
    return OnnxPredictor(small_artifact_dir, threads=2)


class AlteredAt:
    """A predictor whose logits are changed for batches of one shape."""

    def __init__(self, predictor, shape, change):
        self.tokenizer, self.label_names = predictor.tokenizer, predictor.label_names
        self._predictor, self._shape, self._change = predictor, shape, change

    def logits(self, batch):
        logits = self._predictor.logits(batch)
        return logits + self._change if tuple(batch["input_ids"].shape) == self._shape else logits


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
    token = reference.tokenizer.convert_tokens_to_ids("elephant")
    texts.texts[41] = "an elephant of a film"
    return texts, token


@given(st.integers(1, 200))
def test_ragged_batches_hold_every_index_once(count):
    batches = list(ragged_batches([([1], [0])] * count))
    assert [i for batch in batches for i in batch] == list(range(count))
    assert [len(batch) for batch in batches[:-1]] == [(1, 8, 33)[i % 3] for i in range(len(batches) - 1)]
    assert batches[-1]


def test_real_texts_have_parity(reference, exported, quotes):
    parity = parity_of(reference, exported, quotes.select(range(60)))
    assert parity.examples == 60
    assert 0 < parity.max_difference <= 1e-4
    assert parity.label_agreement == 1.0
    check_parity(parity, 1e-4, 0.98)


def test_a_difference_in_one_text_is_found_and_named(reference, exported, marked):
    texts, token = marked
    altered = Altered(exported, token, lambda logits: logits + 0.5)
    parity = parity_of(reference, altered, texts)
    assert parity.max_difference == pytest.approx(0.5, abs=1e-3)
    assert parity.worst_text == "an elephant of a film"
    with pytest.raises(UserError, match=r"differ from PyTorch's by 5.*'an elephant of a film'"):
        check_parity(parity, 1e-4, 0.98)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_fail(reference, exported, marked, value):
    texts, token = marked
    altered = Altered(exported, token, lambda logits: np.full_like(logits, value))
    parity = parity_of(reference, altered, texts)
    assert parity.max_difference == np.inf
    with pytest.raises(UserError, match="an elephant of a film"):
        check_parity(parity, 1.0, 0.98)


def test_nan_on_both_sides_fails(reference, exported, marked):
    texts, token = marked
    broken = [Altered(p, token, lambda logits: logits * np.nan) for p in (reference, exported)]
    with pytest.raises(UserError):
        check_parity(parity_of(*broken, texts), 1.0, 0.98)


def test_label_agreement_counts_texts(reference, exported, marked):
    texts, token = marked
    altered = Altered(exported, token, lambda logits: logits[:, ::-1])
    parity = parity_of(reference, altered, texts)
    assert parity.label_agreement == pytest.approx(59 / 60)


def test_the_tolerance_itself_passes_and_long_texts_are_cut():
    parity = Parity(3, 1e-4, 1.0, "x" * 500, {"1 x 1": 1e-4})
    check_parity(parity, 1e-4, 0.98)
    with pytest.raises(UserError) as caught:
        check_parity(dataclasses.replace(parity, max_difference=1.1e-4), 1e-4, 0.98)
    assert len(str(caught.value)) < 300


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=20),
    st.floats(0.1, 50),
    st.floats(-9, 9),
)
def test_the_variance_that_is_kept_has_no_unit(rows, scale, shift):
    expected, found = np.array(rows).T
    share = variance_kept(expected, found)
    if np.ptp(expected) < 1e-3:
        return
    assert share == pytest.approx(1 - ((expected - found) ** 2).mean() / expected.var(), rel=1e-6)
    assert variance_kept(scale * expected + shift, scale * found + shift) == pytest.approx(share, rel=1e-4)
    assert variance_kept(expected, expected) == 1
    # As good as the mean, which knows nothing of the texts.
    assert variance_kept(expected, np.full_like(expected, expected.mean())) == pytest.approx(0, abs=1e-9)


def test_constant_answers_tell_nothing_of_the_variance():
    assert variance_kept(np.ones(3), np.ones(3)) is None


NUMBERS = Parity(3, 0.2, None, "a text", {"1 x 1": 0.1}, variance_kept=0.95)


def test_a_regression_is_held_to_its_numbers():
    check_parity(NUMBERS, None, 0.9)
    check_parity(NUMBERS, 0.2, 0.9)
    with pytest.raises(
        UserError, match=r"95\.0% of the variance of PyTorch's answers to 3 texts is kept, less"
    ):
        check_parity(NUMBERS, None, 0.98)
    with pytest.raises(UserError, match=r"logits differ .* more than 1e-04, at 'a text'"):
        check_parity(NUMBERS, 1e-4, 0.9)


def test_a_regression_without_variance_or_tolerance_is_not_proven():
    constant = dataclasses.replace(NUMBERS, variance_kept=None)
    check_parity(constant, 0.2, 0.98)
    with pytest.raises(UserError, match="gives the same number for each of 3 texts"):
        check_parity(constant, None, 0.98)


def test_nan_keeps_no_variance():
    kept = variance_kept(np.arange(3.0), np.array([0, np.nan, 2]))
    with pytest.raises(UserError):
        check_parity(dataclasses.replace(NUMBERS, variance_kept=kept), 1.0, 0.0)


@given(
    st.builds(
        InputLimits, vocabulary=st.integers(1, 50), length=st.integers(2, 80), segments=st.integers(1, 2)
    ),
    st.integers(0, 2**31 - 1),
)
def test_edge_batches_reach_all_edges(limits, seed):
    batches = edge_batches(limits, 7, seed)
    full = limits.length
    longest = max(batches, key=lambda shape: batches[shape]["input_ids"].shape[0]).removeprefix("33 x ")
    assert list(batches) == ["1 x 1", f"1 x {full}", f"33 x {longest}", f"2 x {full}"]
    for shape, batch in batches.items():
        assert " x ".join(map(str, batch["input_ids"].shape)) == shape
        real = batch["attention_mask"] == 1
        assert real.any(dim=1).all()
        assert (batch["input_ids"][~real] == 7).all()
        assert ((batch["input_ids"][real] >= 0) & (batch["input_ids"][real] < limits.vocabulary)).all()
        assert (batch["token_type_ids"] < limits.segments).all()
    assert batches["1 x 1"]["attention_mask"].sum() == 1
    assert batches[f"1 x {full}"]["attention_mask"].all()
    assert batches[f"2 x {full}"]["attention_mask"].sum(dim=1).tolist() == [full, 1]
    for shape, batch in edge_batches(limits, 7, seed).items():
        assert all(torch.equal(batch[key], batches[shape][key]) for key in batch)


def test_edge_batches_are_drawn_from_the_whole_vocabulary_and_all_segments():
    batch = edge_batches(InputLimits(1000, 512, 2), 0, seed=0)["1 x 512"]
    assert batch["input_ids"].min() < 50
    assert batch["input_ids"].max() > 950
    assert set(batch["token_type_ids"].flatten().tolist()) == {0, 1}


def test_limits_are_those_of_the_model(small_pruned_dir):
    classifier = load_classifier(str(small_pruned_dir))
    limits = InputLimits(vocabulary=len(classifier.tokenizer), length=512, segments=2)
    assert input_limits(classifier) == limits


@pytest.mark.parametrize("change", [0.5, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (33, None), (2, 64)])
def test_a_difference_at_an_edge_alone_is_found_and_named(reference, exported, quotes, shape, change):
    names = [name for name in edge_batches(LIMITS, 0, 0) if name.startswith(f"{shape[0]} x")]
    name = next(name for name in names if shape[1] is None or name.endswith(f" x {shape[1]}"))
    altered = AlteredAt(exported, tuple(map(int, name.split(" x "))), change)
    parity = parity_of(reference, altered, quotes.select(range(9)))
    assert parity.max_difference <= 1e-4
    assert {edge for edge, found in parity.edge_differences.items() if found > 1e-4} == {name}
    with pytest.raises(UserError, match=rf"on random tokens of shape {name} \(texts x tokens\)"):
        check_parity(parity, 1e-4, 0.98)


def test_zeros_that_agree_pass(reference, small_pruned_dir, small_artifact_dir):
    weights = encoder_weights(load_classifier(str(small_pruned_dir)).model)
    check_zeros(weights, encoder_initializers(small_artifact_dir / "model.onnx", BERT), exact=True)


def test_a_zero_that_moved_is_a_bug():
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(RuntimeError, match="a: the zeros of the graph are not those of the model"):
        check_zeros({"a": weight}, {"a": weight.flip(0)}, exact=True)


@pytest.mark.parametrize("exported_names", [["a"], ["a", "b", "c"], []])
def test_other_layers_are_a_bug(exported_names):
    weight = torch.eye(2)
    with pytest.raises(RuntimeError, match="the graph's linear layers are not the model's"):
        check_zeros({"a": weight, "b": weight}, dict.fromkeys(exported_names, weight), exact=True)
