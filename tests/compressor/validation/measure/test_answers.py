"""Figures of logits: against counting, and against each other."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compressor.validation.measure.answers as answers_module
from compressor.intervals import paired_difference
from compressor.models.metrics import correlation, measure
from compressor.validation.measure.answers import (
    Examples,
    NumberedExamples,
    answer_figures,
    number_figures,
    pack_bits,
    unpack_bits,
)
from compressor.validation.measure.slices import label_slices, length_slices

NAMES = ["no", "yes", "perhaps"]


def logits_for(answers, classes=3):
    return np.eye(classes, dtype=np.float32)[answers] * 4


@pytest.fixture(scope="module")
def case():
    """Labels, a dense model that is right on 80 %, and a pruned one that fails on label 1."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    dense = np.where(generator.random(600) < 0.8, labels, (labels + 1) % 3)
    pruned = np.where((labels == 1) & (generator.random(600) < 0.3), 0, dense)
    lengths = generator.integers(4, 40, 600)
    return labels, dense, pruned, lengths


def figures(case, metric="accuracy"):
    labels, dense, pruned, lengths = case
    slices = label_slices(labels.tolist(), NAMES) + length_slices(lengths.tolist())
    examples = Examples(labels.tolist(), slices, metric, seed=0)
    return answer_figures(logits_for(pruned), logits_for(dense), examples)


def test_accuracy_agreement_and_drop_are_what_counting_gives(case):
    labels, dense, pruned, _ = case
    found = figures(case)
    assert found["accuracy"] == (pruned == labels).mean()
    assert found["accuracy_interval"].low < found["accuracy"] < found["accuracy_interval"].high
    against = found["answers_against_dense"]
    assert against.label_agreement == (pruned == dense).mean()
    paired = paired_difference((dense == labels).tolist(), (pruned == labels).tolist())
    assert against.accuracy_drop.p_value == paired.p_value
    assert against.accuracy_drop.difference == pytest.approx((dense == labels).mean() - found["accuracy"])
    assert (unpack_bits(found["right"], 600) == (pruned == labels)).all()


def test_the_slice_that_got_worse_is_flagged_and_the_others_are_not(case):
    parts = {part.name: part for part in figures(case)["slices"] if part.by == "label"}
    assert {name: part.regression for name, part in parts.items()} == {
        "no": False,
        "yes": True,
        "perhaps": False,
    }
    labels, dense, pruned, _ = case
    drop = (dense == labels)[labels == 1].mean() - (pruned == labels)[labels == 1].mean()
    assert parts["yes"].drop.difference == pytest.approx(drop)


def test_the_dense_model_is_held_against_nothing(case):
    labels, dense, _, _ = case
    found = answer_figures(
        logits_for(dense),
        None,
        Examples(labels.tolist(), label_slices(labels.tolist(), NAMES), "accuracy", 0),
    )
    assert found["answers_against_dense"] is None
    assert all(part.drop is None and not part.regression for part in found["slices"])


@pytest.mark.slow
def test_the_interval_of_a_task_score_is_the_bootstrap_s(case, monkeypatch):
    monkeypatch.setattr(answers_module, "RESAMPLES", 250)
    metric = "matthews"
    labels, dense, pruned, _ = case
    found = figures(case, metric)
    assert found["task_score"] == measure(metric, pruned.tolist(), labels.tolist())
    # The same by drawing examples one by one, from other random numbers.
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(150):
        rows = generator.integers(0, 600, 600)
        scores = [measure(metric, answers[rows], labels[rows].tolist()) for answers in (dense, pruned)]
        drawn.append((scores[1], scores[0] - scores[1]))
    against = found["answers_against_dense"]
    for column, interval in enumerate((found["task_score_interval"], against.task_score_drop_interval)):
        ends = np.percentile([row[column] for row in drawn], [2.5, 97.5])
        width = ends[1] - ends[0]
        assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=0.3 * width)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_flags_survive_packing(flags):
    values = np.array(flags)
    assert (unpack_bits(pack_bits(values), len(flags)) == values).all()


def test_flags_that_are_too_few_are_an_error():
    with pytest.raises(ValueError, match="8 flags, not 9"):
        unpack_bits("ff", 9)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80))
@settings(max_examples=60)
def test_length_slices_part_the_texts_in_ascending_order(lengths):
    slices = length_slices(lengths)
    if not slices:
        assert np.quantile(lengths, 0.75, method="inverted_cdf") == max(lengths) or len(set(lengths)) == 1
        return
    assert 2 <= len(slices) <= 4
    assert sorted(place for part in slices for place in part.places) == list(range(len(lengths)))
    for shorter, longer in itertools.pairwise(slices):
        assert max(lengths[i] for i in shorter.places) < min(lengths[i] for i in longer.places)


def test_quarters_of_different_lengths_are_quarters():
    assert [(part.name, len(part.places)) for part in length_slices(list(range(1, 101)))] == [
        ("1 to 25 tokens", 25),
        ("26 to 50 tokens", 25),
        ("51 to 75 tokens", 25),
        ("76 to 100 tokens", 25),
    ]


def numbered(metric, noise, count=200):
    """Numbers, a dense model's answers to them and a sparse model's, which is off by `noise` more."""
    generator = np.random.default_rng(3)
    numbers = generator.normal(size=count)
    dense = numbers + 0.5 * generator.normal(size=count)
    sparse = dense + noise * generator.normal(size=count)
    examples = NumberedExamples(numbers.tolist(), metric, seed=0)
    logits = [answers[:, None].astype(np.float32) for answers in (sparse, dense)]
    return number_figures(*logits, examples), (numbers, dense, sparse)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_intervals_of_a_correlation_are_the_paired_bootstrap_s(metric):
    found, (numbers, dense, sparse) = numbered(metric, 0.6)
    scores = [correlation(metric, answers, numbers) for answers in (dense, sparse)]
    against = found["answers_against_dense"]
    assert found["task_score"] == pytest.approx(scores[1], abs=1e-6)
    assert against.task_score_drop == pytest.approx(scores[0] - scores[1], abs=1e-6)
    generator = np.random.default_rng(99)
    draws = [generator.integers(200, size=200) for _ in range(1000)]
    own = [
        [correlation(metric, answers[rows], numbers[rows]) for rows in draws] for answers in (dense, sparse)
    ]
    for ends, values in (
        (found["task_score_interval"], own[1]),
        (against.task_score_drop_interval, np.subtract(*own)),
    ):
        width = np.ptp(np.percentile(values, [2.5, 97.5]))
        assert [ends.low, ends.high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.15 * width)
    # On other draws for each of the two the difference would be far less sure.
    apart = np.subtract(own[0], own[1][::-1])
    ends = against.task_score_drop_interval
    assert ends.low > 0
    assert ends.high - ends.low < 0.9 * np.ptp(np.percentile(apart, [2.5, 97.5]))


def test_the_same_numbers_have_no_drop_at_all():
    against = numbered("spearman", 0.0)[0]["answers_against_dense"]
    assert (against.task_score_drop, against.accuracy_drop, against.label_agreement) == (0, None, None)
    assert (against.task_score_drop_interval.low, against.task_score_drop_interval.high) == (0, 0)
