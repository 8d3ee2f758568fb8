"""Digests of where a model is from: they change with what they name, and with nothing else."""

import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.manifest import read_manifest
from exporters.lineage import masks_sha256, options_sha256, recorded_lineage, stage_record


def matrices(seed, shapes):
    """Normal matrices, half of whose weights are zero, by name."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for index, shape in enumerate(shapes):
        weight = torch.randn(shape, generator=generator)
        weights[f"layer.{index}"] = weight.masked_fill(torch.rand(shape, generator=generator) < 0.5, 0.0)
    return weights


seeds = st.integers(0, 2**31 - 1)
several_shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)


@given(seeds, several_shapes, st.sampled_from([torch.float64, torch.float16, torch.bfloat16]))
def test_values_dtype_and_order_do_not_change_the_masks(seed, shapes, dtype):
    weights = matrices(seed, shapes)
    others = {name: torch.where(w == 0, -0.0, w.sign() * 3).to(dtype) for name, w in weights.items()}
    assert masks_sha256(dict(reversed(others.items()))) == masks_sha256(weights)


@given(seeds, several_shapes, st.data())
def test_one_weight_that_becomes_zero_or_none_changes_the_masks(seed, shapes, data):
    weights = matrices(seed, shapes)
    before = masks_sha256(weights)
    weight = weights[data.draw(st.sampled_from(sorted(weights)))].view(-1)
    place = data.draw(st.integers(0, len(weight) - 1))
    weight[place] = 0.0 if weight[place] else 1.0
    assert masks_sha256(weights) != before


def test_names_and_shapes_belong_to_the_masks():
    weight = torch.ones(2, 6)
    digests = [
        masks_sha256(weights)
        for weights in ({"a": weight}, {"b": weight}, {"a": weight.T}, {"a": weight, "b": weight}, {})
    ]
    assert len(set(digests)) == len(digests)


def test_the_masks_digest_is_as_stated():
    weight = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    expected = hashlib.sha256(b"a (3, 3)\n" + bytes([0b01110000, 0b10000000])).hexdigest()
    assert masks_sha256({"a": weight}) == expected


def test_options_are_hashed_by_content():
    options = {"pattern": "2:4", "adaptive": {"damping": 0.01, "iterations": 60}, "name": "größe"}
    found = options_sha256(options)
    assert found == options_sha256(json.loads(json.dumps(dict(reversed(options.items())))))
    assert found != options_sha256({**options, "pattern": "1:4"})
    text = '{"adaptive":{"damping":0.01,"iterations":60},"name":"größe","pattern":"2:4"}'
    assert found == hashlib.sha256(text.encode()).hexdigest()


def test_the_manifest_has_the_lineage_of_the_pruned_model(small_artifact_dir, small_pruned_dir):
    lineage = read_manifest(small_artifact_dir)["lineage"]
    record = json.loads((small_pruned_dir / "pruning.json").read_text())
    weights = encoder_weights(load_classifier(str(small_pruned_dir)).model)
    assert lineage["masks_sha256"] == masks_sha256(weights)
    assert lineage["options_sha256"] == options_sha256(record["options"])
    assert lineage["seed"] == record["seed"] == 0


def test_a_dense_model_has_options_and_data_but_no_pruning(small_classifier_dir):
    record = stage_record(str(small_classifier_dir))
    lineage = recorded_lineage(record)
    assert lineage["options_sha256"] == options_sha256(record["options"])
    assert lineage["data_fingerprint"] == record["data"]["fingerprint"]
    assert lineage["dense_sha256"] is lineage["pruning"] is None


def test_a_run_of_a_soup_records_its_data_as_a_fingerprint():
    record = {"data": "abc", "model": "some/model", "options": {}, "seed": 3}
    lineage = recorded_lineage(record)
    assert (lineage["data_fingerprint"], lineage["seed"]) == ("abc", 3)


@pytest.mark.parametrize("content", [None, {}])
def test_a_directory_of_others_has_no_record(tmp_path, content):
    if content is not None:
        (tmp_path / "notes.json").write_text(json.dumps(content))
    assert stage_record(str(tmp_path)) is None


@pytest.mark.parametrize(
    "record", [[], 1.0, {}, {"data": "abc"}, {"data": "abc", "options": {}, "seed": 0, "algorithm": "x"}]
)
def test_a_damaged_record_is_one_line(tmp_path, record):
    (tmp_path / "pruning.json").write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=r"pruning\.json: is no record of compress: .*restore it, or remove it"
    ):
        stage_record(str(tmp_path))
