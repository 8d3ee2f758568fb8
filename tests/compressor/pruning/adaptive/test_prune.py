"""The adaptive walk on a real small classifier: what it zeroes, keeps, and gets nearer to."""

import json

import numpy as np
import pytest
import torch

from compressor.errors import UserError
from compressor.models.classifier import (
    encoder_linears,
    load_classifier,
    save_classifier,
    weights_fingerprint,
)
from compressor.models.predictors import TorchPredictor, predict
from compressor.options import AdaptiveConfig, ColumnsConfig, PruneConfig, RunConfig
from compressor.pruning.interface import PruningJob, prune_classifier, prune_directory
from compressor.pruning.patterns import NM, Unstructured, parse_pattern, pruned_count
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import read_json

LENGTH = 48
RUN = RunConfig(device="cpu", threads=2)


def prune(
    directory,
    data,
    pattern="unstructured",
    sparsity=None,
    seed=0,
    algorithm="adaptive",
    scope=None,
    **options,
):
    classifier = load_classifier(str(directory))
    examples = options.pop("calibration_examples", 64)
    options = {"iterations": 10, **options}
    config = PruneConfig(
        algorithm=algorithm,
        pattern=pattern,
        sparsity=sparsity,
        scope=scope,
        calibration_examples=examples,
        adaptive=AdaptiveConfig(**options),
    )
    job = PruningJob(config, LENGTH, seed)
    result = prune_classifier(classifier, data, job, SilentProgress())
    return classifier, result


def distance_to(dense, classifier, data):
    """Mean absolute difference of logits on texts that were not pruned with."""
    one, other = (predict(TorchPredictor(c), data, LENGTH) for c in (dense, classifier))
    return float(np.abs(one - other).mean())


@pytest.fixture(
    scope="module",
    params=[("unstructured", 0.5, None), ("unstructured", 0.3, "row"), ("2:4", None, None)],
    ids=str,
)
def pruned(request, small_classifier_dir, quotes):
    pattern, sparsity, scope = request.param
    found = prune(small_classifier_dir, quotes, pattern, sparsity, scope=scope)
    return parse_pattern(pattern, sparsity, scope), *found


def test_each_row_or_group_has_exactly_its_zeros(pruned):
    pattern, classifier, result = pruned
    for name, linear in encoder_linears(classifier.model).items():
        zeros = linear.weight == 0
        assert torch.equal(zeros, ~result.masks[name])
        if isinstance(pattern, NM):
            assert (zeros.reshape(-1, 4).sum(dim=1) == 2).all()
        elif pattern.scope == "row":
            # 384 and 256 inputs: 115 and 76 zeros a row at 0.3.
            assert (zeros.sum(dim=1) == int(zeros.shape[1] * pattern.sparsity)).all()
    if isinstance(pattern, Unstructured) and pattern.scope is None:
        # Layers that share their input have their zeros together.
        assert result.patterns
        for names in result.patterns:
            zeros = torch.cat([~result.masks[name] for name in names])
            assert int(zeros.sum()) == pruned_count(zeros.numel(), pattern.sparsity)


def test_records_tell_of_every_layer_in_order(pruned):
    job_pattern, classifier, result = pruned
    assert [record.name for record in result.layers] == list(encoder_linears(classifier.model))
    for record in result.layers:
        assert record.sparsity == pytest.approx(float((~result.masks[record.name]).double().mean()))
        assert 0 < record.relative_error < 0.5
        assert record.ridge > 0
    assert result.details["calibration_examples"] == 64
    assert set(result.details["sparsities"].values()) == {job_pattern.sparsity}


def test_saved_and_loaded_weights_are_the_same_with_their_zeros(pruned, tmp_path):
    _, classifier, result = pruned
    save_classifier(classifier, tmp_path)
    again = load_classifier(str(tmp_path))
    for name, value in classifier.model.state_dict().items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, again.model.state_dict()[name]), name
    for name, linear in encoder_linears(again.model).items():
        assert torch.equal(linear.weight == 0, ~result.masks[name])


def test_made_texts_help_where_the_texts_are_few(small_classifier_dir, small_classifier, quotes, test_quotes):
    def distance(tokens, seed):
        options = {"calibration_examples": 8, "calibration_tokens": tokens, "seed": seed, "solver": "greedy"}
        classifier, _ = prune(small_classifier_dir, quotes, sparsity=0.75, **options)
        return distance_to(small_classifier, classifier, test_quotes.select(range(200)))

    few, filled = (np.mean([distance(tokens, seed) for seed in range(2)]) for tokens in (0, 4000))
    assert filled < 0.9 * few


def test_embeddings_and_layer_norms_are_untouched(pruned, small_classifier):
    _, classifier, _ = pruned
    for name, value in small_classifier.model.state_dict().items():
        if "embeddings" in name or "LayerNorm" in name:
            assert torch.equal(value, classifier.model.state_dict()[name]), name


def test_half_the_weights_keep_most_of_the_accuracy(small_pruned_dir, small_classifier, test_quotes):
    labels = np.array(test_quotes.class_labels)
    pruned = load_classifier(str(small_pruned_dir))
    dense_accuracy, accuracy = (
        (predict(TorchPredictor(c), test_quotes, LENGTH).argmax(axis=1) == labels).mean()
        for c in (small_classifier, pruned)
    )
    assert accuracy > test_quotes.majority_share()
    assert accuracy >= dense_accuracy - 0.03


@pytest.mark.parametrize("resolve", [False, True])
def test_heads_change_only_if_asked_for(small_classifier_dir, small_classifier, quotes, resolve):
    classifier, _ = prune(small_classifier_dir, quotes, sparsity=0.5, resolve_heads=resolve, iterations=2)
    for name, value in small_classifier.model.state_dict().items():
        if name.startswith(("bert.pooler.", "classifier.")):
            assert torch.equal(value, classifier.model.state_dict()[name]) is not resolve, name


def test_no_sparsity_keeps_the_logits(small_classifier_dir, small_classifier, quotes, test_quotes):
    classifier, _ = prune(small_classifier_dir, quotes, sparsity=0.0)
    assert distance_to(small_classifier, classifier, test_quotes.select(range(100))) < 1e-3


def test_three_quarters_leave_logits_nearer_than_magnitude_does(
    small_classifier_dir, small_classifier, quotes, test_quotes
):
    data = test_quotes.select(range(200))
    adaptive, magnitude = (
        prune(small_classifier_dir, quotes, sparsity=0.75, algorithm=name, calibration_examples=200)[0]
        for name in ("adaptive", "magnitude")
    )
    near, far = (distance_to(small_classifier, c, data) for c in (adaptive, magnitude))
    assert near < 0.7 * far


def test_more_sparsity_leaves_more_error(small_classifier_dir, quotes):
    errors = [
        sum(
            layer.relative_error
            for layer in prune(small_classifier_dir, quotes, sparsity=s, iterations=2)[1].layers
        )
        for s in (0.3, 0.7)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_same_seed_same_weights(small_classifier_dir, quotes):
    one, same, other = (
        prune(small_classifier_dir, quotes, sparsity=0.5, seed=seed, calibration_examples=32, iterations=2)[0]
        for seed in (3, 3, 4)
    )
    states = [c.model.state_dict() for c in (one, same, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_calibration_texts_work_or_are_a_user_error(small_classifier_dir, quotes, count):
    try:
        classifier, _ = prune(small_classifier_dir, quotes, sparsity=0.5, calibration_examples=count)
    except UserError as error:
        assert "calibration" in str(error)
        return
    assert all(torch.isfinite(value).all() for value in classifier.model.state_dict().values())


def test_equal_calibration_texts_work_or_are_a_user_error(small_classifier_dir, quotes):
    try:
        prune(small_classifier_dir, quotes.select([0] * 8), sparsity=0.5)
    except UserError as error:
        assert "calibration" in str(error)


def test_a_pattern_that_does_not_fit_is_a_user_error(small_classifier_dir, quotes):
    with pytest.raises(UserError, match="has 384 input features, which 5 does not divide"):
        prune(small_classifier_dir, quotes, "2:5")


# the stage --------------------------------------------------------------------------------------


def test_the_stage_writes_its_record(small_pruned_dir, small_classifier_dir, quotes):
    record = read_json(small_pruned_dir / "pruning.json")
    assert record["algorithm"] == "adaptive"
    assert record["pattern"] == "unstructured"
    assert record["sparsity"] == 0.5
    assert record["seed"] == 0
    assert len(record["layers"]) == 12
    assert record["model"]["sha256"] == weights_fingerprint(str(small_classifier_dir))
    assert record["data"]["fingerprint"] == quotes.fingerprint
    assert record["options"]["calibration_examples"] == 64
    assert record["environment"]["threads"] == 2


def stage(model, data, output, force=False, **options):
    config = PruneConfig(**{"algorithm": "magnitude", **options})
    return prune_directory(
        str(model),
        str(data),
        config,
        Context(
            output=output,
            columns=ColumnsConfig(max_length=LENGTH),
            run=RUN,
            force=force,
            progress=SilentProgress(),
        ),
    ).model_dump()


def test_the_stage_returns_what_it_wrote(small_classifier_dir, critic_quotes, tmp_path):
    result = stage(small_classifier_dir, critic_quotes / "small.tsv", tmp_path / "out", pattern="2:4")
    written = read_json(tmp_path / "out" / "pruning.json")
    assert {**written, "path": str(tmp_path / "out"), "sha256": result["sha256"]} == result
    assert result["sha256"] == weights_fingerprint(str(tmp_path / "out"))
    assert written["sparsity"] == 0.5


def test_the_stage_leaves_the_dense_model_alone(small_classifier_dir, critic_quotes, tmp_path):
    before = weights_fingerprint(str(small_classifier_dir))
    stage(small_classifier_dir, critic_quotes / "small.tsv", tmp_path / "out")
    assert weights_fingerprint(str(small_classifier_dir)) == before


def test_the_stage_needs_no_labels(small_classifier_dir, tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": f"film {i}"}) for i in range(8)))
    record = stage(small_classifier_dir, tmp_path / "texts.jsonl", tmp_path / "out", algorithm="wanda")
    assert record["data"]["examples"] == 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pattern": "2:5"}, "5 does not divide"),
        ({"pattern": "none"}, "pattern 'none': unknown"),
        ({"pattern": "2:4", "sparsity": 0.6}, "always has 0.5"),
    ],
)
def test_the_stage_refuses_a_bad_pattern_and_writes_nothing(
    small_classifier_dir, critic_quotes, tmp_path, options, says
):
    with pytest.raises(UserError, match=says):
        stage(small_classifier_dir, critic_quotes / "small.tsv", tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_magnitude_at_a_third_has_exactly_its_zeros_in_the_file(
    small_classifier_dir, critic_quotes, tmp_path
):
    stage(small_classifier_dir, critic_quotes / "small.tsv", tmp_path / "out", sparsity=0.29)
    pattern = Unstructured(0.29)
    for linear in encoder_linears(load_classifier(str(tmp_path / "out")).model).values():
        assert int((linear.weight == 0).sum()) == linear.weight.numel() * 29 // 100
        assert pattern.is_met_by(linear.weight != 0)
