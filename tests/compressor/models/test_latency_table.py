"""The latency table as a record: its checks, what it predicts, and its reader."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.models.latency_table import BlockTimes, LatencyTable, read_latency_table

LAYERS, HEADS, NEURONS = 3, 4, 64
CONTENT = {
    "runtime": "onnxruntime",
    "precision": "fp32",
    "threads": 1,
    "layers": LAYERS,
    "heads": HEADS,
    "neurons": NEURONS,
    "hidden_size": 16,
    "head_size": 4,
    "shapes": [
        {"batch_size": 1, "length": 32, "weight": 3.0},
        {"batch_size": 8, "length": 128, "weight": 1.0},
    ],
    "attention": {"widths": [0, 2, 4], "ms": [[0, 0], [1.0, 10.0], [1.5, 22.0]]},
    "feed_forward": {"widths": [0, 32, 64], "ms": [[0, 0], [0.5, 8.0], [1.0, 20.0]]},
    "rest_ms": [0.5, 4.0],
    "dense_ms": [8.0, 130.0],
    "reference_ms": [16.0, 520.0],
    "environment": {"cores": 2},
}
TABLE = LatencyTable.model_validate(CONTENT)
WIDTHS = st.lists(st.tuples(st.integers(0, HEADS), st.integers(0, NEURONS)), min_size=LAYERS, max_size=LAYERS)


@given(widths=WIDTHS)
def test_a_prediction_is_the_sum_of_its_parts_in_any_order(widths):
    expected = np.array(CONTENT["rest_ms"])
    for heads, neurons in widths:
        for column in (0, 1):
            expected[column] += np.interp(
                heads, [0, 2, 4], [row[column] for row in CONTENT["attention"]["ms"]]
            )
            expected[column] += np.interp(
                neurons, [0, 32, 64], [row[column] for row in CONTENT["feed_forward"]["ms"]]
            )
    np.testing.assert_allclose(TABLE.predicted_ms(widths), expected)
    np.testing.assert_allclose(TABLE.predicted_ms(widths[::-1]), expected)


@given(widths=WIDTHS, layer=st.integers(0, LAYERS - 1))
def test_a_wider_layer_is_never_predicted_to_be_faster(widths, layer):
    wider = list(widths)
    heads, neurons = wider[layer]
    wider[layer] = min(heads + 1, HEADS), min(neurons + 7, NEURONS)
    assert (TABLE.predicted_ms(wider) >= TABLE.predicted_ms(widths)).all()
    assert TABLE.speedup(TABLE.predicted_ms(wider)) <= TABLE.speedup(TABLE.predicted_ms(widths))


def test_measured_widths_are_as_measured_and_others_between():
    assert TABLE.attention.at(2).tolist() == [1.0, 10.0]
    assert TABLE.attention.at(3).tolist() == [1.25, 16.0]
    assert TABLE.feed_forward.at(0).tolist() == [0, 0]


@pytest.mark.parametrize("width", [-1, 5])
def test_a_width_that_the_dense_model_does_not_have_is_an_error(width):
    with pytest.raises(ValueError, match=f"width of {width} is not between 0 and 4"):
        TABLE.attention.at(width)


def test_weights_are_shares():
    assert TABLE.weights.tolist() == [0.75, 0.25]


def test_the_speedup_is_the_weighted_mean_of_the_ratios():
    # A quarter of the reference's time at the first shape, a half at the second.
    assert TABLE.speedup(np.array([4.0, 260.0])) == pytest.approx(1 / (0.75 / 4 + 0.25 / 2))
    assert TABLE.speedup(np.array(CONTENT["reference_ms"])) == pytest.approx(1)


def test_the_error_for_the_dense_model_is_relative_to_what_was_measured():
    # 0.5 + 3 * (1.5 + 1) and 4 + 3 * (22 + 20).
    assert TABLE.dense_errors() == pytest.approx([8.0 / 8.0 - 1, 130.0 / 130.0 - 1])
    slower = TABLE.model_copy(update={"dense_ms": [10.0, 100.0]})
    assert slower.dense_errors() == pytest.approx([-0.2, 0.3])


@pytest.mark.parametrize(
    ("widths", "ms", "problem"),
    [
        ([1, 2], [[0], [1]], "must begin with 0"),
        ([0, 2], [[0.1], [1]], "at a cost of 0"),
        ([0, 2], [[0]], "each must have its times"),
        ([0, 2, 2], [[0], [1], [1]], "must ascend"),
        ([], [], "must begin with 0"),
    ],
)
def test_blocks_that_are_not_a_curve_from_zero_are_refused(widths, ms, problem):
    with pytest.raises(ValueError, match=problem):
        BlockTimes(widths=widths, ms=ms)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"heads": 5}, "last width of each block must be the dense model's"),
        ({"neurons": 128}, "last width of each block must be the dense model's"),
        ({"rest_ms": [1.0]}, "one for each shape"),
        ({"dense_ms": [1.0, 0.0]}, "must be above 0"),
        ({"shapes": []}, "at least 1"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        LatencyTable.model_validate({**CONTENT, **values})


# the file -----------------------------------------------------------------------------------------


def test_a_table_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE.model_dump()))
    assert read_latency_table(path) == TABLE


def test_all_problems_of_a_file_are_named_with_their_keys_and_the_way_out(tmp_path):
    path = tmp_path / "table.json"
    broken = {key: value for key, value in CONTENT.items() if key != "runtime"}
    broken |= {"threads": 0, "more": 1, "attention": {"widths": [1], "ms": [[0, 0]]}}
    broken["shapes"] = [{"batch_size": 1, "length": 0, "weight": 1}]
    path.write_text(json.dumps(broken))
    with pytest.raises(UserError) as caught:
        read_latency_table(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for key in ("runtime:", "threads:", "more:", "attention: ", "shapes.0.length:"):
        assert key in message
    assert message.endswith("measure it with: compress latency-table")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"schema_version": 2}'])
def test_what_is_no_table_is_refused_with_the_way_out(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(UserError, match="measure it with: compress latency-table"):
        read_latency_table(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"table\.json: no such file; measure it with: compress latency-table"
    ):
        read_latency_table(tmp_path / "table.json")
