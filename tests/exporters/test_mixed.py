"""int8 with some weights in float32: as few as the parity check needs, those first that cost most."""

from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from scipy.special import softmax
from scipy.stats import entropy

from compressor.errors import UserError
from compressor.models.predictors import OnnxPredictor
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters import mixed, stage, verify
from exporters.mixed import divergence, fewest_kept, keep_costliest
from exporters.onnx import computation_sha256, write_metadata
from exporters.quantize_rows import quantizable, quantize_rows
from exporters.stage import export_directory

NAMES = [f"w{index}" for index in range(12)]


@given(st.integers(1, len(NAMES)))
def test_no_more_weights_are_kept_than_the_bound_needs(needed):
    asked = []

    def holds(kept):
        asked.append(len(kept))
        return len(kept) >= needed

    assert fewest_kept(NAMES, holds) == NAMES[:needed]
    assert len(asked) == len(set(asked)) <= 8


@given(st.lists(st.booleans(), min_size=len(NAMES) + 1, max_size=len(NAMES) + 1))
def test_whatever_holds_the_last_weight_that_is_kept_is_needed(answers):
    answers[0], answers[-1] = False, True
    kept = len(fewest_kept(NAMES, lambda kept: answers[len(kept)]))
    assert answers[kept]
    assert not answers[kept - 1]


def test_the_divergence_is_that_of_the_classes_or_the_squared_difference():
    generator = np.random.default_rng(0)
    expected, found = generator.normal(size=(2, 7, 3)).astype(np.float32)
    wide = [softmax(rows.astype(np.float64), axis=1) for rows in (expected, found)]
    assert divergence(expected, found) == pytest.approx(entropy(*wide, axis=1).mean(), rel=1e-12)
    assert divergence(expected, expected) == 0
    numbers = generator.normal(size=(2, 7, 1)).astype(np.float32)
    assert divergence(*numbers) == pytest.approx(
        ((numbers[0] - numbers[1]).astype(float) ** 2).mean(), rel=1e-6
    )


def initializers(path):
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(path).graph.initializer}


def test_weights_that_are_kept_are_the_models(small_artifact_dir, tmp_path):
    graph = tmp_path / "model.onnx"
    graph.write_bytes((small_artifact_dir / "model.onnx").read_bytes())
    before, names = initializers(graph), quantizable(graph)
    # Six matrices of each of two layers, words and positions, and the pooler.
    assert len(names) == 15
    kept = [names[0], names[5]]
    quantize_rows(graph, kept=kept)
    after = initializers(graph)
    for name in names:
        assert (name in after) == (name in kept)
    for name in kept:
        assert np.array_equal(after[name], before[name])
    assert sum(value.dtype == np.int8 and value.ndim == 2 for value in after.values()) == 13


def test_weights_are_ranked_by_what_they_alone_cost(small_artifact_dir, tmp_path):
    graph = tmp_path / "model.onnx"
    graph.write_bytes((small_artifact_dir / "model.onnx").read_bytes())
    names = quantizable(graph)
    costs = {name: abs(hash_of(name)) for name in names}

    def float_weights():
        return set(names) & set(initializers(graph))

    def distance():
        (quantized,) = set(names) - float_weights()
        return costs[quantized]

    judged = []

    def holds(kept):
        assert float_weights() == set(kept)
        judged.append(list(kept))
        return len(kept) >= 3

    kept = keep_costliest(
        graph, lambda kept: quantize_rows(graph, kept=kept), holds, distance, SilentProgress()
    )
    assert judged[0] == []
    assert kept == sorted(names, key=lambda name: -costs[name])[:3]
    assert float_weights() == set(kept)


def hash_of(name):
    """A number that does not follow the order of the names."""
    return sum(ord(letter) * (index + 1) ** 2 for index, letter in enumerate(name)) % 997


# the export -------------------------------------------------------------------------------------


def export(model, output, data, **options):
    context = Context(
        output=output,
        columns=ColumnsConfig(max_length=32),
        run=RunConfig(device="cpu", threads=1),
        progress=SilentProgress(),
    )
    config = ExportConfig(precision="int8", parity_examples=48, **options)
    return export_directory(str(model), str(data), config, context)


def test_an_export_within_a_bound_always_exists(small_pruned_dir, critic_quotes, tmp_path):
    data = critic_quotes / "small.tsv"
    whole = export(small_pruned_dir, tmp_path / "whole", data, parity_agreement=0.5)
    bound = 0.8 * whole.parity["max_difference"]
    with pytest.raises(UserError, match="export failed: logits differ from PyTorch's by"):
        export(small_pruned_dir, tmp_path / "all", data, parity_tolerance=bound, mixed=False)
    found = export(small_pruned_dir, tmp_path / "mixed", data, parity_tolerance=bound)
    assert 0 < len(found.kept_in_float32) < 14
    assert found.parity["max_difference"] <= bound
    assert OnnxPredictor(tmp_path / "mixed", 1).label_names == ["fresh", "rotten"]
    exact = export(small_pruned_dir, tmp_path / "exact", data, parity_tolerance=1e-4)
    assert len(exact.kept_in_float32) > len(found.kept_in_float32)
    assert exact.parity["max_difference"] <= 1e-4


@pytest.fixture
def measured(monkeypatch):
    """What the parity check found, each time that it ran."""
    found = []

    def measure(*arguments):
        found.append(verify.measure_parity(*arguments))
        return found[-1]

    for module in (mixed, stage):
        monkeypatch.setattr(module, "measure_parity", measure)
    return found


@pytest.mark.parametrize("is_mixed", [True, False])
def test_the_graph_is_proven_once(is_mixed, small_pruned_dir, critic_quotes, tmp_path, measured):
    data = critic_quotes / "small.tsv"
    record = export(small_pruned_dir, tmp_path / "artifact", data, parity_agreement=0.5, mixed=is_mixed)
    (parity,) = measured
    assert {**asdict(parity), **record.parity} == {**record.parity, "worst_text": parity.worst_text}


def test_what_was_found_of_another_graph_is_not_taken(
    small_pruned_dir, critic_quotes, tmp_path, measured, monkeypatch
):
    def quantize(*arguments):
        found = mixed.quantize_within_bound(*arguments)
        return replace(found, judged=replace(found.judged, computation="0" * 64))

    monkeypatch.setattr(stage, "quantize_within_bound", quantize)
    export(small_pruned_dir, tmp_path / "artifact", critic_quotes / "small.tsv", parity_agreement=0.5)
    assert len(measured) == 2


def test_metadata_compute_nothing_and_weights_do(small_artifact_dir, tmp_path):
    graph = tmp_path / "model.onnx"
    graph.write_bytes((small_artifact_dir / "model.onnx").read_bytes())
    before = computation_sha256(graph)
    write_metadata(graph, {"task": "another"})
    assert computation_sha256(graph) == before
    quantize_rows(graph)
    assert computation_sha256(graph) != before


def test_nothing_is_kept_that_the_bound_does_not_need(small_pruned_dir, critic_quotes, tmp_path):
    found = export(small_pruned_dir, tmp_path / "artifact", critic_quotes / "small.tsv", parity_agreement=0.5)
    assert found.kept_in_float32 == []
