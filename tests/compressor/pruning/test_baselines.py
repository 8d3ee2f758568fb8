"""Rivals: magnitude, Wanda and SparseGPT, each against its formula written with loops."""

import numpy as np
import pytest
import torch

from compressor.models.batching import encode, pad
from compressor.models.classifier import encoder_linears, load_classifier, save_classifier
from compressor.options import PruneConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.pruning.patterns import NM, Unstructured, parse_pattern
from compressor.pruning.solvers.solvers import column_sweep
from compressor.system.console import SilentProgress

LENGTH = 48
ALGORITHMS = ["magnitude", "wanda", "sparsegpt"]
FIRST = "bert.encoder.layer.0.attention.self.query"


def prune(directory, data, algorithm, pattern, sparsity, seed=0, examples=32):
    classifier = load_classifier(str(directory))
    config = PruneConfig(
        algorithm=algorithm, pattern=pattern, sparsity=sparsity, calibration_examples=examples
    )
    job = PruningJob(config, LENGTH, seed)
    return classifier, prune_classifier(classifier, data, job, SilentProgress())


@pytest.fixture(scope="module", params=ALGORITHMS)
def algorithm(request):
    return request.param


@pytest.fixture(scope="module", params=[("unstructured", 0.5), ("unstructured", 0.3), ("2:4", None)], ids=str)
def pruned(request, algorithm, small_classifier_dir, quotes):
    pattern, sparsity = request.param
    found = prune(small_classifier_dir, quotes, algorithm, pattern, sparsity)
    return parse_pattern(pattern, sparsity), *found


def test_zeros_are_exact_in_number_and_place(pruned, algorithm):
    pattern, classifier, result = pruned
    for name, linear in encoder_linears(classifier.model).items():
        zeros = linear.weight == 0
        assert torch.equal(zeros, ~result.masks[name])
        assert not torch.signbit(linear.weight[zeros]).any()
        if isinstance(pattern, NM):
            assert (zeros.reshape(-1, 4).sum(dim=1) == 2).all()
        elif algorithm == "wanda":
            assert (zeros.sum(dim=1) == int(zeros.shape[1] * pattern.sparsity)).all()
        else:
            assert int(zeros.sum()) == int(zeros.numel() * pattern.sparsity)


def test_saved_and_loaded_weights_are_the_same(pruned, tmp_path):
    _, classifier, _ = pruned
    save_classifier(classifier, tmp_path)
    again = load_classifier(str(tmp_path)).model.state_dict()
    for name, value in classifier.model.state_dict().items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, again[name]), name


def test_only_encoder_weights_change(pruned, small_classifier_dir):
    _, classifier, result = pruned
    dense = load_classifier(str(small_classifier_dir)).model.state_dict()
    for name, value in dense.items():
        is_pruned = name.removesuffix(".weight") in result.masks
        assert torch.equal(value, classifier.model.state_dict()[name]) is not is_pruned, name


def test_same_seed_same_weights(algorithm, small_classifier_dir, quotes):
    one, other = (
        prune(small_classifier_dir, quotes, algorithm, "2:4", None, seed=2, examples=16)[0] for _ in range(2)
    )
    expected = other.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in one.model.state_dict().items())


def test_magnitude_keeps_the_largest_and_changes_none(small_classifier_dir, small_classifier, quotes):
    classifier, _ = prune(small_classifier_dir, quotes, "magnitude", "unstructured", 0.5)
    dense = encoder_linears(small_classifier.model)
    for name, linear in encoder_linears(classifier.model).items():
        before, after = dense[name].weight.detach().numpy(), linear.weight.detach().numpy()
        kept = after != 0
        assert np.array_equal(after[kept], before[kept])
        assert np.abs(before[kept]).min() >= np.abs(before[~kept]).max()


def test_wanda_ranks_by_weight_times_input_norm(small_classifier_dir, small_classifier, quotes):
    data = quotes.select(range(16))
    classifier, _ = prune(small_classifier_dir, data, "wanda", "unstructured", 0.5)
    # Inputs of the first layer are the embeddings, which no pruning has touched.
    total = np.zeros(384)
    for text in encode(small_classifier.tokenizer, data, LENGTH):
        batch = pad([text], small_classifier.tokenizer.pad_token_id)
        with torch.no_grad():
            hidden = small_classifier.model.bert.embeddings(batch["input_ids"])[0].double().numpy()
        total += (hidden**2).sum(axis=0)
    before = encoder_linears(small_classifier.model)[FIRST].weight.detach().double().numpy()
    after = encoder_linears(classifier.model)[FIRST].weight.detach().double().numpy()
    scores = np.abs(before) * np.sqrt(total)
    expected = np.zeros_like(before)
    for row, score in enumerate(scores):
        kept = np.argsort(score)[192:]
        expected[row, kept] = before[row, kept]
    # A rounding of the norms may swap two scores that are nearly equal.
    assert (after != expected).mean() < 1e-3


def test_three_quarters_by_sparsegpt_are_nearer_than_by_wanda(small_classifier_dir, quotes):
    errors = {}
    for name in ("wanda", "sparsegpt"):
        _, result = prune(small_classifier_dir, quotes, name, "unstructured", 0.75, examples=64)
        errors[name] = np.mean([layer.relative_error for layer in result.layers])
    assert errors["sparsegpt"] < 0.8 * errors["wanda"]


# SparseGPT's sweep ------------------------------------------------------------------------------


def sweep(weight: np.ndarray, hessian: np.ndarray, n: int, m: int) -> np.ndarray:
    """The sweep with N:M by its definition: a new inverse of what is left at every column."""
    weight = weight.copy()
    rows, width = weight.shape
    diagonal = np.array([np.linalg.inv(hessian[j:, j:])[0, 0] for j in range(width)])
    keep = np.ones_like(weight, dtype=bool)
    for column in range(width):
        if column % m == 0:
            for row in range(rows):
                scores = weight[row, column : column + m] ** 2 / diagonal[column : column + m]
                keep[row, column + np.argsort(scores, kind="stable")[: m - n]] = False
        inverse = np.linalg.inv(hessian[column:, column:])
        for row in range(rows):
            if not keep[row, column]:
                step = weight[row, column] / inverse[0, 0]
                weight[row, column:] -= step * inverse[0]
                weight[row, column] = 0.0
    return weight


def sweep_unstructured(weight: np.ndarray, hessian: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The sweep on a given mask: each row's rest is corrected for every dropped weight."""
    weight = weight.copy()
    for column in range(weight.shape[1]):
        inverse = np.linalg.inv(hessian[column:, column:])
        for row in range(len(weight)):
            if not keep[row, column]:
                weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[0]
    return weight * keep


def problem(seed, rows, width):
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((4 * width, width)) @ generator.standard_normal((width, width))
    return generator.standard_normal((rows, width)), inputs.T @ inputs + 0.1 * width * np.eye(width)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_sparsegpt_with_n_of_m_is_the_sweep_by_its_definition(seed, n, m):
    weight, hessian = problem(seed, 5, 12)
    found, mask = column_sweep(torch.from_numpy(weight), torch.from_numpy(hessian), NM(n, m))
    expected = sweep(weight, hessian, n, m)
    assert found.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert np.array_equal(mask.numpy(), expected != 0)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_sparsegpt_unstructured_is_the_sweep_on_its_mask(sparsity):
    weight, hessian = problem(2, 6, 20)
    found, mask = column_sweep(torch.from_numpy(weight), torch.from_numpy(hessian), Unstructured(sparsity))
    assert int((~mask).sum()) == int(120 * sparsity)
    diagonal = np.array([np.linalg.inv(hessian[j:, j:])[0, 0] for j in range(20)])
    scores = weight**2 / diagonal
    assert scores[mask.numpy()].min() >= scores[~mask.numpy()].max()
    assert found.numpy() == pytest.approx(
        sweep_unstructured(weight, hessian, mask.numpy()), rel=1e-6, abs=1e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.29, 0.5, 0.77])
def test_sparsegpt_over_several_blocks_has_exactly_its_zeros(sparsity):
    weight, hessian = problem(3, 7, 160)
    found, mask = column_sweep(torch.from_numpy(weight), torch.from_numpy(hessian), Unstructured(sparsity))
    assert int((~mask).sum()) == round(1120 * sparsity * 1e6) // 10**6
    assert torch.equal(found == 0, ~mask)
    assert found.numpy() == pytest.approx(
        sweep_unstructured(weight, hessian, mask.numpy()), rel=1e-5, abs=1e-6
    )


def test_sparsegpt_leaves_its_inputs_alone():
    weight, hessian = (torch.from_numpy(value) for value in problem(4, 3, 8))
    before = weight.clone(), hessian.clone()
    column_sweep(weight, hessian, NM(2, 4))
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])
