"""Latency tables: which widths are measured, costs that never fall, a whole measurement of a tiny model."""

import io
import itertools
import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression
from tiny_checkpoints import POSITIONS, edit_json, make_checkpoint

import compressor
from cli import execute
from compressor.commands.search_tables import latency_tables
from compressor.errors import UserError
from compressor.models.batching import pad
from compressor.models.latency_table import LatencyTable, Widths, read_latency_table
from compressor.options import ExportConfig, LatencyTableConfig, RunConfig
from compressor.options.search import parse_shapes
from compressor.search import latency, micro_models
from compressor.search.latency import ascending, block_times, head_levels, levels, neuron_levels
from compressor.search.micro_models import MicroArtifacts, micro_classifier, random_texts, read_shape
from compressor.system.console import SilentProgress
from compressor.validation.schema import LatencyFigures
from exporters.shrink import layer_widths, shrink

# levels -------------------------------------------------------------------------------------------


@given(heads=st.integers(1, 128))
def test_head_levels_ascend_from_one_to_all(heads):
    found = head_levels(heads)
    assert found[0] == 1
    assert found[-1] == heads
    assert found == sorted(set(found))
    assert len(found) == min(heads, 16)


@given(neurons=st.integers(1, 20_000))
def test_neuron_levels_ascend_to_all_and_are_multiples_where_there_are_many(neurons):
    found = neuron_levels(neurons)
    assert found[-1] == neurons
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert len(found) <= 15
    if neurons >= 512:
        assert all(level % 32 == 0 for level in found[:-1])
        assert len(found) >= 10
        # Finer where they are few: no step is more than a third of all.
        assert max(np.diff([0, *found])) <= neurons / 3


def test_the_levels_of_published_shapes():
    assert neuron_levels(1536) == [32, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536]
    assert neuron_levels(3072) == [32, 64, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072]


# costs --------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=30)


@given(values=NUMBERS)
def test_costs_never_fall_and_are_the_nearest_such_numbers(values):
    found = ascending(values)
    assert len(found) == len(values)
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(found))
    # Bounds are heeded by clipping in scikit-learn too.
    np.testing.assert_allclose(found, isotonic_regression(values, y_min=0), atol=1e-9)


@given(values=NUMBERS)
def test_costs_that_never_fell_stay_as_they_are(values):
    rising = sorted(abs(value) for value in values)
    np.testing.assert_allclose(ascending(rising), rising, rtol=1e-12)


def test_a_block_costs_what_its_model_takes_more_than_the_rest_by_layer():
    rest = np.array([1.0, 10.0])
    medians = {2: np.array([3.0, 9.0]), 1: np.array([2.0, 12.0]), 4: np.array([7.0, 30.0])}
    found = block_times(medians, rest, layers=2)
    assert found.widths == [0, 1, 2, 4]
    # At the second shape one head took more than two, which took less than none: they get their mean.
    assert found.ms == [[0, 0], [0.5, 0.25], [1.0, 0.25], [3.0, 10.0]]


# options ------------------------------------------------------------------------------------------


def test_shapes_may_have_weights():
    assert parse_shapes("1x32, 8x128:2.5,4x7:3") == [(1, 32, 1.0), (8, 128, 2.5), (4, 7, 3.0)]


@pytest.mark.parametrize(
    "text", ["", "1", "1x", "0x32", "1x0", "1x32:0", "1x32:-1", "1x32,", "1x32:nan", "axb"]
)
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ValueError, match="is no shape; write BATCHxLENGTH"):
        parse_shapes(text)


def test_a_shape_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="a shape occurs twice"):
        parse_shapes("1x32,2x32,1x32:2")


# models -------------------------------------------------------------------------------------------

LAYERS, HEADS, NEURONS = 2, 4, 16


@pytest.fixture(scope="module")
def shape_dir(tmp_path_factory):
    """A directory with nothing but a configuration."""
    folder = make_checkpoint(
        tmp_path_factory.mktemp("shape"), num_hidden_layers=LAYERS, num_attention_heads=HEADS
    )
    for file in folder.iterdir():
        if file.name != "config.json":
            file.unlink()
    return folder


def test_the_shape_is_the_dense_models_whatever_was_taken_out(shape_dir, tmp_path):
    content = json.loads((shape_dir / "config.json").read_text())
    content |= {"removed_heads": {"0": [1, 2]}, "unpadded_neurons": [16, 3]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    for folder in (shape_dir, tmp_path):
        shape = read_shape(str(folder))
        assert (shape.layers, shape.heads, shape.neurons, shape.hidden_size) == (LAYERS, HEADS, NEURONS, 8)
        assert shape.longest == POSITIONS


def test_a_micro_model_has_its_widths_in_all_layers(shape_dir):
    shape = read_shape(str(shape_dir))
    for heads, neurons in [(0, 0), (3, 0), (0, 5), (HEADS, NEURONS)]:
        classifier = micro_classifier(shape, heads, neurons, seed=0)
        found = layer_widths(shrink(classifier).model)
        assert [(own.heads, own.neurons) for own in found] == [(heads, neurons)] * LAYERS


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-static", "int8-dynamic"])
def test_a_micro_artifact_runs_and_answers_as_its_model(shape_dir, tmp_path, precision):
    from compressor.models.predictors import OnnxPredictor, TorchPredictor

    shape, texts = read_shape(str(shape_dir)), random_texts(3, 9, 0)
    classifier = micro_classifier(shape, 2, 0, seed=0)
    MicroArtifacts(shape, ExportConfig(precision=precision), texts, 0).write(Widths(2, 0), tmp_path)
    found = OnnxPredictor(tmp_path, 1).logits(pad(texts, 0))
    expected = TorchPredictor(classifier).logits(pad(texts, 0))
    np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "fp32" else 0.02)


@pytest.mark.parametrize(
    ("wide", "narrow"), [(Widths(0, NEURONS), Widths(0, 5)), (Widths(HEADS - 1, 0), Widths(1, 0))]
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-static", "int8-dynamic"])
def test_a_graph_that_is_cut_is_as_one_that_is_traced(
    shape_dir, tmp_path, monkeypatch, wide, narrow, precision
):
    from compressor.models.predictors import OnnxPredictor

    shape, texts = read_shape(str(shape_dir)), random_texts(3, 9, 0)
    config = ExportConfig(precision=precision)
    cut, traced = (MicroArtifacts(shape, config, texts, 0) for _ in range(2))
    for name in ("widest", "cut", "traced"):
        (tmp_path / name).mkdir()
    cut.write(wide, tmp_path / "widest")
    with monkeypatch.context() as patch:
        patch.setattr(micro_models, "write_plain_graph", None)
        cut.write(narrow, tmp_path / "cut")
    traced.write(narrow, tmp_path / "traced")

    def described(name):
        graph = onnx.load(tmp_path / name / "model.onnx").graph
        # Not by name: those of constants are numbered.
        weights = sorted((tuple(tensor.dims), tensor.data_type) for tensor in graph.initializer)
        return weights, [node.op_type for node in graph.node]

    assert described("cut") == described("traced") != described("widest")
    assert OnnxPredictor(tmp_path / "cut", 1).logits(pad(texts, 0)).shape == (3, 2)


# the whole ----------------------------------------------------------------------------------------


def made_figures(predictors, encoded, plan, progress):
    """Times that are a sum over the layers: 2 ms, 3 ms a head, 0.5 ms a neuron, times the batch's tokens."""
    found = {}
    for name in predictors:
        words = name.split()
        heads, neurons = (HEADS, NEURONS) if name == latency.REFERENCE else (int(words[0]), int(words[2]))
        ms = [2.0 + LAYERS * (3.0 * heads + 0.5 * neurons) * b * n for b, n in plan.shapes]
        found[name] = [
            LatencyFigures(
                batch_size=b, sequence_length=n, p50_ms=own, p95_ms=own, p99_ms=own,
                examples_per_second=1.0, rounds=plan.rounds, stable=True,
            )
            for (b, n), own in zip(plan.shapes, ms, strict=True)
        ]  # fmt: skip
    return found


def test_times_that_add_up_are_predicted_exactly(shape_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(
        latency, "_predictors", lambda shape, *_: {latency._name(w): None for w in levels(shape)}
    )
    monkeypatch.setattr(latency, "measure_latency", made_figures)
    config, run = LatencyTableConfig(shapes="1x4:2,2x8"), RunConfig(device="cpu", threads=1)
    table = latency.latency_table(
        str(shape_dir), config, run, tmp_path / "table.json", force=False, progress=SilentProgress()
    )
    assert table.dense_errors() == pytest.approx([0, 0], abs=1e-9)
    for widths in [(0, 0), (1, 3)], [(4, 16), (2, 0)]:
        expected = [2 + sum(3.0 * h + 0.5 * n for h, n in widths) * tokens for tokens in (4, 16)]
        assert table.predicted_ms(widths) == pytest.approx(expected)
    assert table.rest_ms == [2, 2]
    assert table.weights == pytest.approx([2 / 3, 1 / 3])


@pytest.fixture(scope="module")
def smallest_dir(tmp_path_factory):
    """A model of one layer with two heads and two neurons: few models have to be exported."""
    return make_checkpoint(tmp_path_factory.mktemp("smallest"), intermediate_size=2)


@pytest.fixture(scope="module")
def measured(smallest_dir, tmp_path_factory):
    """A real measurement by the command, and the file that it wrote."""
    path = tmp_path_factory.mktemp("table") / "table.json"
    arguments = ["--output", str(path), "--shapes", "1x4,2x8:3", "--rounds", "3", "--threads", "1"]
    assert execute(["latency-table", str(smallest_dir), *arguments, "--precision", "int8"]) == 0
    return path


@pytest.mark.slow
def test_a_measured_table_is_complete_and_ascends(measured):
    table = read_latency_table(measured)
    assert (table.runtime, table.precision, table.threads) == ("onnxruntime", "int8", 1)
    assert (table.layers, table.heads, table.neurons, table.head_size) == (1, 2, 2, 4)
    assert [(own.batch_size, own.length, own.weight) for own in table.shapes] == [(1, 4, 1), (2, 8, 3)]
    assert table.attention.widths == table.feed_forward.widths == [0, 1, 2]
    for block in (table.attention, table.feed_forward):
        assert (np.diff(np.array(block.ms), axis=0) >= 0).all()
    assert {"processor", "packages", "rounds", "stable_share"} <= set(table.environment)
    # Nothing but the table is left.
    assert [path.name for path in measured.parent.iterdir() if path.suffix != ".lock"] == ["table.json"]


def test_a_file_is_not_overwritten_without_force(shape_dir, tmp_path, capfd):
    path = tmp_path / "table.json"
    path.write_text("mine")
    assert execute(["latency-table", str(shape_dir), "--output", str(path)]) == 2
    assert "table.json: exists; choose another name, or replace it with --force" in capfd.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.slow
def test_the_summary_has_each_width_and_the_error_of_the_prediction(measured):
    from rich.console import Console

    table = read_latency_table(measured)
    console = Console(width=120, file=io.StringIO())
    console.print(latency_tables(table))
    text = console.file.getvalue()
    assert "1 x 4, ms" in text
    for error in table.dense_errors():
        assert f"{error:+.1%}" in text
    assert f"{table.attention.ms[-1][1]:.3f}" in text


def test_the_api_and_json_give_the_record(shape_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        latency, "_predictors", lambda shape, *_: {latency._name(w): None for w in levels(shape)}
    )
    monkeypatch.setattr(latency, "measure_latency", made_figures)
    path = tmp_path / "table.json"
    table = compressor.latency_table(shape_dir, output=path, shapes="1x4", device="cpu")
    assert read_latency_table(path) == table
    again = ["latency-table", str(shape_dir), "--output", str(path), "--force", "--json", "--shapes", "1x4"]
    assert execute([*again, "--device", "cpu"]) == 0
    assert LatencyTable.model_validate(json.loads(capfd.readouterr().out)) == table


def test_shapes_that_the_model_does_not_take_are_named(shape_dir, tmp_path):
    with pytest.raises(
        UserError, match=r"config\.json: the model takes 24 tokens at most, and shapes have 32, 128"
    ):
        compressor.latency_table(shape_dir, output=tmp_path / "table.json")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_kind_is_refused_by_its_configuration(shape_dir, tmp_path):
    content = json.loads((shape_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content))
    edit_json(tmp_path / "config.json", num_attention_heads=3)
    with pytest.raises(UserError, match=r"config\.json: num_attention_heads: 3 heads do not share"):
        compressor.latency_table(tmp_path, output=tmp_path / "table.json", shapes="1x4")


def test_bad_shapes_are_an_error_of_their_option(shape_dir, tmp_path):
    with pytest.raises(UserError, match=r"shapes: .*'1x' is no shape; write BATCHxLENGTH"):
        compressor.latency_table(shape_dir, output=tmp_path / "table.json", shapes="1x")
