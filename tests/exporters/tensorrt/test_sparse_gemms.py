"""2:4 along K, counted on the initializers: against loops, PyTorch's own weights and NVIDIA's polygraphy."""

import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import UserError
from compressor.models.classifier import encoder_linears
from exporters.tensorrt.sparse_gemms import broken_groups, sparse_gemms

# The one encoder layer of the classifier that is not pruned.
DENSE_LAYER = "bert.encoder.layer.1.attention.self.value"
ACTIVATIONS = "both inputs are computed; sparse weights have to be constant"


def counted(weight):
    """Groups and broken groups of `(K, N)`, by loops."""
    groups = broken = 0
    for column in range(weight.shape[1]):
        for start in range(0, weight.shape[0] - 3, 4):
            groups += 1
            broken += sum(weight[start + i, column] != 0 for i in range(4)) > 2
    return groups, broken


def kept_mask(weight):
    """Whether each group of 4 of `(N, K)`, PyTorch's orientation, has at most 2 other than zero."""
    return bool(((weight.reshape(weight.shape[0], -1, 4) != 0).sum(dim=2) <= 2).all())


def graph_of(op, weight, *, left=False, dtype=TensorProto.FLOAT16, **attributes):
    """A graph that multiplies an input by `weight`, or `weight` by an input."""
    node = helper.make_node(op, ["w", "x"] if left else ["x", "w"], ["y"], name="product", **attributes)
    graph = helper.make_graph(
        [node],
        "made",
        [helper.make_tensor_value_info("x", dtype, ["a", "b"])],
        [helper.make_tensor_value_info("y", dtype, ["c", "d"])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


sparse_arrays = st.tuples(st.integers(1, 17), st.integers(1, 6)).flatmap(
    lambda shape: arrays.arrays(np.float16, shape, elements=st.sampled_from([0.0, 0.0, -0.0, 1.0, -2.0]))
)


@given(sparse_arrays)
def test_groups_are_those_that_loops_count(weight):
    assert broken_groups(weight) == counted(weight)


@given(sparse_arrays, st.sampled_from(["MatMul", "Gemm", "Gemm^T", "left", "left Gemm", "left Gemm^T"]))
def test_k_is_the_axis_that_is_summed_over_however_the_weight_lies(weight, form):
    stored = {
        "MatMul": weight, "Gemm": weight, "Gemm^T": weight.T,
        "left": weight.T, "left Gemm": weight.T, "left Gemm^T": weight,
    }[form]  # fmt: skip
    side = {"Gemm^T": {"transB": 1}, "left Gemm^T": {"transA": 1}}.get(form, {})
    op = "Gemm" if "Gemm" in form else "MatMul"
    model = graph_of(op, np.ascontiguousarray(stored), left=form.startswith("left"), **side)
    (row,) = sparse_gemms(model)
    groups, broken = counted(weight)
    assert (row.k, row.n, row.groups, row.broken_groups) == (*weight.shape, groups, broken)
    assert row.sparsity == pytest.approx((weight == 0).mean())
    assert row.eligible == (weight.shape[0] % 4 == 0 and broken == 0)
    assert row.eligible == (not row.reasons)


def test_rows_of_a_real_graph_are_its_layers_by_name(half_graph, half_classifier):
    rows = sparse_gemms(half_graph)
    gemms = [node for node in half_graph.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert [(row.node, row.op) for row in rows] == [(node.name, node.op_type) for node in gemms]
    named = {row.weight.removesuffix(".weight"): row for row in rows if row.weight}
    linears = {
        name: module for name, module in half_classifier.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }  # fmt: skip
    assert set(named) == set(linears)
    for name, linear in linears.items():
        row = named[name]
        assert (row.n, row.k) == tuple(linear.weight.shape), name
        assert row.sparsity == pytest.approx((linear.weight == 0).double().mean().item()), name
        assert (row.groups, row.broken_groups) == counted(linear.weight.detach().T.numpy()), name
        assert row.dtype == "float16"
    activations = [row for row in rows if row.weight is None]
    assert len(activations) == 4
    assert all(row.reasons == (ACTIVATIONS,) and not row.eligible for row in activations)


def test_layers_pruned_2_4_are_eligible_and_others_say_why(half_graph, half_classifier):
    named = {row.weight: row for row in sparse_gemms(half_graph) if row.weight}
    pruned = {f"{name}.weight" for name in encoder_linears(half_classifier.model)} - {f"{DENSE_LAYER}.weight"}
    assert {name for name, row in named.items() if row.eligible} == pruned
    assert len(pruned) == 11
    dense = named[f"{DENSE_LAYER}.weight"]
    assert dense.reasons == ("not 2:4: 1024 of 1024 groups hold more than 2 values that are not zero",)
    assert dense.notes == ()
    assert named["classifier.weight"].notes == ("N is 2, no multiple of 16; sparse kernels may not take it",)


def test_zeros_along_n_alone_are_not_2_4():
    weight = np.ones((8, 16), np.float16)
    weight[:, ::2] = 0
    assert broken_groups(weight.T) == (32, 0)
    (row,) = sparse_gemms(graph_of("MatMul", weight))
    assert row.sparsity == 0.5
    assert row.broken_groups == 16
    assert not row.eligible


def test_a_k_that_4_does_not_divide_and_float32_are_reasons():
    (row,) = sparse_gemms(graph_of("MatMul", np.zeros((6, 16), np.float16)))
    assert row.reasons == ("K is 6, which 4 does not divide",)
    assert (row.groups, row.broken_groups) == (16, 0)
    (row,) = sparse_gemms(graph_of("MatMul", np.zeros((16, 16), np.float32), dtype=TensorProto.FLOAT))
    assert row.reasons == ("is float32; sparse tensor cores multiply float16, bfloat16, int8 by 2:4",)


def test_weights_are_seen_through_quantization_casts_and_transposes():
    weight = np.zeros((64, 32), np.int8)
    weight[::4] = 5
    nodes = [
        helper.make_node("Transpose", ["w8"], ["turned"], perm=[1, 0]),
        helper.make_node("DequantizeLinear", ["turned", "scale"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["w"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["a", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["a", 64])],
        [numpy_helper.from_array(weight, "w8"), numpy_helper.from_array(np.float32(0.5), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (row,) = sparse_gemms(model)
    assert (row.weight, row.dtype, row.k, row.n) == ("w8", "int8", 32, 64)
    assert row.broken_groups == sum(counted(weight.T)[1:])
    assert row.sparsity == 0.75
    # Turned, one in four along K is all of it or nothing of it.
    assert not row.eligible
    graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.tile([[1, 0, 0, 2]], (64, 8)).astype(np.int8), "w8")
    )
    (row,) = sparse_gemms(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert row.eligible
    assert row.notes == ()


def test_a_weight_of_three_axes_has_k_last_but_one():
    weight = np.zeros((2, 8, 16), np.float16)
    weight[:, ::2] = 1
    (row,) = sparse_gemms(graph_of("MatMul", weight))
    assert (row.k, row.n, row.groups, row.eligible) == (8, 16, 64, True)
    assert row.notes == ("K is 8, no multiple of 16; sparse kernels may not take it",)


def test_a_weight_in_another_file_is_an_error(half_graph):
    name = f"{DENSE_LAYER}.weight"
    entry = next(entry for entry in half_graph.graph.initializer if entry.name == name)
    onnx.external_data_helper.set_external_data(entry, "weights.bin")
    with pytest.raises(UserError, match=rf"{name}: its values lie outside of the graph"):
        sparse_gemms(half_graph)


def test_rows_are_json(half_graph):
    from dataclasses import asdict

    rows = [asdict(row) for row in sparse_gemms(half_graph)]
    assert json.loads(json.dumps(rows, allow_nan=False))[0]["groups"] == 1024


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_polygraphy_finds_the_same_tensors_2_4(half_graph, half_classifier):
    from polygraphy.tools.sparse import SparsityPruner

    pruner = SparsityPruner(half_graph)
    pruner.check()
    ours = {row.weight for row in sparse_gemms(half_graph) if row.weight and not row.broken_groups}
    assert pruner.sparse_tensors == ours
    kept = {f"{n}.weight" for n, m in encoder_linears(half_classifier.model).items() if kept_mask(m.weight)}
    assert ours == kept
    assert len(ours) == 11
