"""Moments and solutions of each kind of group of linear layers against float64 references."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES
from transformers import AutoConfig, AutoModelForSequenceClassification

from compressor.models.batching import inputs_of, pad
from compressor.models.encoders.registry import layout_of
from compressor.models.latency_table import Widths
from compressor.models.structure import linear_at
from compressor.options import AdaptiveConfig
from compressor.pruning.adaptive.group_solvers import MaskSolver, StructuredSolver, linear_problem
from compressor.pruning.layerwise import LinearGroup
from compressor.pruning.solvers.supports import least_squares
from compressor.pruning.walk import SideBySide, calibration_batches

BIASES = {"mlp_bias": True, "attention_bias": True, "norm_bias": True}
# Post-norm with biases; pre-norm, fused, gated, without biases and with them; distances by the same matrices
# and by others.
KINDS = {
    "roberta": {},
    "modernbert": {},
    "modernbert with biases": BIASES,
    "deberta-v2": {},
    "deberta-v2 with matrices of distances": {"share_att_key": False},
}
OPTIONS = AdaptiveConfig(damping=1e-6)


def drawn(model, deviation, seed):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=deviation)
    return model


@pytest.fixture(scope="module", params=KINDS)
def models(request):
    """A dense model, one that has drifted from it in all weights, and texts of several lengths."""
    model_type = request.param.split()[0]
    config = AutoConfig.for_model(
        model_type, vocab_size=60, **{**FAMILIES[model_type].config, **KINDS[request.param]}
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    dense = drawn(model, 0.1, 0)
    generator = np.random.default_rng(0)
    texts = [generator.integers(5, 60, generator.integers(3, 30)).tolist() for _ in range(40)]
    return dense, drawn(copy.deepcopy(dense), 0.02, 1), [(ids, [0] * len(ids)) for ids in texts]


def rows_text_by_text(model, names, encoded):
    """Inputs of linear layers `(rows, in)` float64, each text alone, and how much each row counts."""
    model, layout = copy.deepcopy(model).double(), layout_of(model)
    first = layout.linears.groups[0][0]
    found = {name: ([], []) for name in names}
    for ids, types in encoded:
        caught = {name: [] for name in names}
        handles = [
            linear_at(model, name).register_forward_pre_hook(
                lambda _, inputs, name=name, caught=caught: caught[name].append(inputs[0][0].numpy())
            )
            for name in names
        ]
        with torch.no_grad():
            model(**inputs_of(model, pad([(ids, types)], 0)))
        for handle in handles:
            handle.remove()
        for name, calls in caught.items():
            rows, weights = found[name]
            rows.append(calls[0])
            weights += [1.0] * len(ids)
            if name.endswith(first) and len(calls) > 1:
                # One row of the embeddings of distances for each pair of tokens.
                places = model.deberta.encoder.get_rel_pos(torch.zeros(1, len(ids), 1))[0] + 8
                for place in places.flatten().clamp(0, 15).tolist():
                    rows.append(calls[1][place : place + 1])
                    weights.append(1 / len(ids))
    return {name: (np.concatenate(rows), np.array(weights)) for name, (rows, weights) in found.items()}


def groups_of(model):
    return [(index, names) for index, names in layout_of(model).groups(model)]


def walk_over(models):
    dense, drifted, encoded = models
    return SideBySide(dense, drifted, calibration_batches(encoded, 7, 0, torch.device("cpu")))


def each_moments(models):
    """Each group with its moments."""
    dense, drifted, _ = models
    layout, walk = layout_of(dense), walk_over(models)
    for index, names in groups_of(dense):
        linears = tuple(linear_at(drifted, name) for name in names)
        group = LinearGroup(layout, index, names, linears)
        yield group, walk.moments(group.first)
        if group.is_last:
            walk.advance()


@torch.no_grad()
def test_moments_are_those_of_single_texts_in_float64(models):
    dense, drifted, encoded = models
    firsts = [names[0] for _, names in groups_of(dense)]
    inputs = [rows_text_by_text(model, firsts, encoded) for model in (dense, drifted)]
    for group, moments in each_moments(models):
        (rows, weights), (others, _) = (own[group.names[0]] for own in inputs)
        assert moments.count == round(weights.sum())
        for found, expected in (
            (moments.dense_sum, weights @ rows),
            (moments.pruned_sum, weights @ others),
            (moments.square, others.T @ (weights[:, None] * others)),
            (moments.cross, rows.T @ (weights[:, None] * others)),
        ):
            assert np.abs(found.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@torch.no_grad()
def test_a_masked_solution_is_that_of_least_squares_over_all_rows(models):
    """NumPy's least squares over the rows themselves, with a column of ones where there is a bias."""
    dense, drifted, encoded = models
    names = [own for _, group in groups_of(dense) for own in group]
    inputs = [rows_text_by_text(model, names, encoded) for model in (dense, drifted)]
    generator = np.random.default_rng(1)
    for group, moments in each_moments(models):
        weight, bias = group.weight, group.bias
        mask = torch.from_numpy(generator.random(weight.shape) < 0.5)
        solver = MaskSolver(OPTIONS, lambda _, problem, mask=mask: (_on(problem, mask), mask))
        solution = solver.solve(group, moments)
        assert bool(solution.biases) == (bias is not None)
        (rows, weights), (others, _) = (own[group.names[0]] for own in inputs)
        scale = np.sqrt(weights)[:, None]
        ones = np.ones((len(others), int(bias is not None)))
        target = (rows @ weight.numpy().T + (0 if bias is None else bias.numpy())) * scale
        found = torch.cat(solution.weights)
        for row in (0, len(weight) // 2, len(weight) - 1):
            support = mask[row].numpy()
            design = np.concatenate([others[:, support], ones], axis=1) * scale
            expected = np.linalg.lstsq(design, target[:, row], rcond=None)[0]
            got = found[row][support].double().numpy()
            if bias is not None:
                got = np.append(got, torch.cat(solution.biases)[row].double().numpy())
            error, least = (np.square(design @ own - target[:, row]).sum() for own in (got, expected))
            assert error <= least * (1 + 1e-3) + 1e-9 * np.square(target[:, row]).sum()
            assert not found[row][~support].any()


def _on(problem, mask):
    return least_squares(problem.target, problem.hessian, mask)


@torch.no_grad()
def test_without_a_bias_the_weight_takes_up_the_mean(models):
    """Centred moments would leave the mean of the outputs to a bias that is not there."""
    for group, moments in each_moments(models):
        problem = linear_problem(group.names[0], group.weight, group.bias, moments, OPTIONS)
        moved = problem.bias(problem.target)
        assert (moved is None) == (group.bias is None)
        expected = moments.square if group.bias is None else moments.hessian
        identity = torch.eye(len(expected), dtype=torch.float64)
        torch.testing.assert_close(problem.hessian, expected + problem.ridge * identity)
        if moved is None:
            change = problem.target @ moments.square - group.weight @ moments.cross
            assert float(change.abs().max()) < 1e-3 * float((group.weight @ moments.cross).abs().max())


@torch.no_grad()
def test_a_structured_solution_is_that_of_least_squares_without_the_heads_and_neurons_that_went(models):
    dense, _, _ = models
    layout = layout_of(dense)
    size = dense.config.hidden_size // dense.config.num_attention_heads
    solver = StructuredSolver(OPTIONS, [Widths(2, 100)] * 2, size, 0)
    kinds = {layout.linears.attention_output: size, layout.linears.neurons_out: 1}
    for group, moments in each_moments(models):
        if group.first not in kinds:
            continue
        solution = solver.solve(group, moments)
        gone = [
            place * kinds[group.first] + part
            for place in solution.removed
            for part in range(kinds[group.first])
        ]
        stays = np.setdiff1d(np.arange(group.weight.shape[1]), gone)
        assert solution.weights[0].shape[1] == len(stays)
        has_bias = group.bias is not None
        square = moments.hessian_of(has_bias=has_bias).numpy()[np.ix_(stays, stays)]
        cross = moments.cross_of(has_bias=has_bias).numpy()[:, stays]
        ridge = linear_problem("", group.weight, group.bias, moments, OPTIONS).ridge
        right = group.weight.numpy() @ cross + ridge * group.weight.numpy()[:, stays]
        expected = np.linalg.solve(square + ridge * np.eye(len(stays)), right.T).T
        assert np.abs(solution.weights[0].numpy() - expected).max() < 1e-4 * np.abs(expected).max()
