"""Forms that suit ONNX Runtime: the same numbers, and the kernels that it then takes."""

import math
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compressor.models.classifier import Classifier
from exporters.cpu_kernels import halve_gelus_last, suit_cpu_kernels, sum_residuals
from exporters.onnx import export_graph
from exporters.onnx_graph import inputs

LAYERS = 2
ROOT = math.sqrt(2)


@pytest.fixture(scope="module")
def plain_path(half_classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("forms") / "plain.onnx"
    export_graph(Classifier(half_classifier.model.float(), None, "tiny"), path)
    half_classifier.model.half()
    return path


@pytest.fixture(scope="module")
def suited_path(plain_path):
    path = plain_path.with_name("suited.onnx")
    path.write_bytes(plain_path.read_bytes())
    suit_cpu_kernels(path)
    return path


def session(path, *, optimized, kept=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if kept is not None:
        options.optimized_model_filepath = str(kept)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def batch(texts, tokens):
    generator = np.random.default_rng(texts * tokens)
    mask = np.arange(tokens) < generator.integers(1, tokens + 1, (texts, 1))
    return {
        "input_ids": generator.integers(0, 100, (texts, tokens)),
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": np.zeros((texts, tokens), dtype=np.int64),
    }


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (33, 64)])
def test_logits_are_the_same_bit_for_bit(plain_path, suited_path, shape):
    expected, found = (
        session(path, optimized=False).run(None, batch(*shape))[0] for path in (plain_path, suited_path)
    )
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, expected)


def test_onnx_runtime_takes_fast_kernels_of_the_suited_graph_alone(plain_path, suited_path, tmp_path):
    kernels, logits = [], []
    for path in (plain_path, suited_path):
        logits += session(path, optimized=True, kept=tmp_path / path.name).run(None, batch(3, 17))
        kernels.append(Counter(node.op_type for node in onnx.load(tmp_path / path.name).graph.node))
    plain, suited = kernels
    assert (plain["SkipLayerNormalization"], plain["Erf"]) == (2 * LAYERS, LAYERS)
    assert (suited["SkipLayerNormalization"], suited["Erf"]) == (0, 0)
    assert (suited["LayerNormalization"], suited["Gelu"] + suited["BiasGelu"]) == (1 + 2 * LAYERS, LAYERS)
    assert np.abs(logits[0] - logits[1]).max() <= 1e-6


def test_the_graph_keeps_its_interface_its_domain_and_its_weights(plain_path, suited_path):
    plain, suited = onnx.load(plain_path), onnx.load(suited_path)
    assert inputs(suited.graph) == inputs(plain.graph)
    assert list(suited.graph.output) == list(plain.graph.output)
    assert {node.domain for node in suited.graph.node} == {""}
    assert len(suited.graph.node) == len(plain.graph.node)
    assert list(suited.graph.initializer) == list(plain.graph.initializer)
    # There is nothing left to do.
    assert (sum_residuals(suited), halve_gelus_last(suited)) == (0, 0)


def gelu(*, half=0.5, one=1.0, root=ROOT, operator="Div", swapped=(), more=(), source="x"):
    """The exporter's GELU in float64; `swapped` names the nodes whose inputs are in the other order."""
    values = {"half": half, "one": one, "root": root}
    nodes = [
        (operator, [source, "root"], "scaled"),
        ("Erf", ["scaled"], "bent"),
        ("Add", ["bent", "one"], "shifted"),
        ("Mul", ["half", "shifted"], "halved"),
        ("Mul", ["x", "halved"], "y"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node(operator, names[::-1] if output in swapped else names, [output])
            for operator, names, output in nodes
        ],
        "gelu",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n"]) for name in {"x", source}],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n"]) for name in ("y", *more)],
        [numpy_helper.from_array(np.array(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=20),
    swapped=st.sets(st.sampled_from(["shifted", "halved", "y"])),
)
def test_a_gelu_in_any_order_is_found_and_stays_the_same(values, swapped):
    # The smallest numbers have no half.
    x = np.array([value if abs(value) > 1e-290 else 0.0 for value in values])
    model = gelu(swapped=swapped)
    [expected] = ReferenceEvaluator(model).run(None, {"x": x})
    truth = x * 0.5 * (1 + torch.erf(torch.from_numpy(x) / ROOT).numpy())
    assert halve_gelus_last(model) == 1
    onnx.checker.check_model(model, full_check=True)
    [found] = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected)
    # The evaluator's erf is an approximation.
    assert (np.abs(found - truth) <= 1e-8 * (1 + np.abs(x))).all()
    assert [node.op_type for node in model.graph.node][-2:] == ["Mul", "Mul"]
    assert list(model.graph.node[-1].input) == ["halved", "half"]


@pytest.mark.parametrize(
    "other",
    [
        {"half": 0.25},
        {"one": 2.0},
        {"root": 1.5},
        {"operator": "Mul"},
        {"source": "z"},
        {"more": ("halved",)},
        {"swapped": ("scaled",)},
    ],
)
def test_what_is_no_gelu_of_its_own_stays(other):
    model = gelu(**other)
    before = model.SerializeToString()
    assert halve_gelus_last(model) == 0
    assert model.SerializeToString() == before


def test_sums_that_are_not_normalized_stay(plain_path):
    model = onnx.load(plain_path)
    before = Counter(node.op_type for node in model.graph.node)
    # The embeddings' and two of each layer.
    assert sum_residuals(model) == 1 + 2 * LAYERS
    after = Counter(node.op_type for node in model.graph.node)
    assert after["Add"] == before["Add"] - (1 + 2 * LAYERS) > 0
