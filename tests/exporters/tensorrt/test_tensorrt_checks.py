"""Each check passes on a real graph and fails for what it is there for, with the place and the reason."""

import dataclasses

import numpy as np
import onnx
import pytest
from damaged_graphs import QUERY, add_node, as_float32, graph_of, initializer, said
from onnx import TensorProto, helper, numpy_helper

from exporters.tensorrt.checks import static_checks
from exporters.tensorrt.operators import CONSTANT_INPUT, SUPPORTED_TYPES, TYPED_INPUT, TYPED_OUTPUT, UNTYPED

POSITIONS = 64


def test_a_graph_exported_in_float16_passes_every_check(half_graph, profile):
    checks = static_checks(half_graph, profile, POSITIONS)
    assert [check.name for check in checks] == [
        "valid ONNX", "default domain", "opset", "operators", "dense weights", "inputs", "profile",
        "quantization", "strong typing", "float16",
    ]  # fmt: skip
    assert {check.status for check in checks} == {"pass"}
    notes = {check.name: check.note for check in checks}
    assert notes["opset"] == "opset 18"
    assert notes["float16"].startswith("100.0% of")
    assert notes["operators"] == f"{len(half_graph.graph.node)} nodes of 18 operators"


def test_the_checks_leave_the_graph_as_it_is(half_graph, profile):
    before = half_graph.SerializeToString(deterministic=True)
    static_checks(half_graph, profile, POSITIONS)
    assert half_graph.SerializeToString(deterministic=True) == before


def test_a_graph_in_float32_fails_at_every_multiplication(half_graph, failures):
    found = failures(as_float32(half_graph))
    assert set(found) == {"float16"}
    gemms = [node.name for node in half_graph.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert [finding.where for finding in found["float16"]] == gemms
    assert {finding.reason for finding in found["float16"]} == {
        "MatMul of float32, not of float16",
        "Gemm of float32, not of float16",
    }


def test_a_layer_norm_in_float32_between_casts_is_noted_and_passes(half_graph, failures, profile):
    norm = next(node for node in half_graph.graph.node if node.op_type == "LayerNormalization")
    source, target = norm.input[0], norm.output[0]
    for name in norm.input[1:]:
        value = numpy_helper.to_array(initializer(half_graph, name)).astype(np.float32)
        half_graph.graph.initializer.append(numpy_helper.from_array(value, f"{name}.float32"))
    norm.input[:] = ["wide", *(f"{name}.float32" for name in norm.input[1:])]
    norm.output[0] = "normed"
    place = list(half_graph.graph.node).index(norm)
    half_graph.graph.node.insert(place + 1, helper.make_node("Cast", ["normed"], [target], to=10))
    half_graph.graph.node.insert(place, helper.make_node("Cast", [source], ["wide"], to=1))
    del half_graph.graph.value_info[:]
    assert failures(half_graph) == {}
    note = static_checks(half_graph, profile, POSITIONS)[-1].note
    assert "LayerNorm.weight.float32" in note
    assert note.startswith("99.")


def test_a_foreign_domain_is_found(half_graph, failures):
    half_graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    add_node(half_graph, "FastGelu", ["logits"], domain="com.microsoft")
    found = failures(half_graph)
    assert set(found) == {"default domain"}
    assert said(found["default domain"]) == (
        "new_FastGelu: com.microsoft::FastGelu is not of ONNX's default domain"
    )


def test_a_function_of_the_model_is_found(half_graph, failures):
    half_graph.opset_import.append(helper.make_opsetid("own", 1))
    body = [helper.make_node("Neg", ["x"], ["y"])]
    half_graph.functions.append(
        helper.make_function("own", "Minus", ["x"], ["y"], body, [helper.make_opsetid("", 18)])
    )
    assert said(failures(half_graph)["default domain"]) == (
        "Minus: is a function of the model's own, of domain 'own'"
    )


@pytest.mark.parametrize("version", [7, 8, 21])
def test_an_opset_out_of_range_is_found(failures, version):
    found = failures(graph_of("y = MatMul(x, w)", version))
    assert "opset" in found
    assert said(found["opset"]).endswith(f"opset {version} is not from 9 to 20")


@pytest.mark.parametrize("version", [9, 20])
def test_the_ends_of_the_range_of_opsets_pass(failures, version):
    assert failures(graph_of("y = MatMul(x, w)", version)) == {}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "reason"),
    [
        ("Bernoulli", ["logits"], {}, "Bernoulli is not supported"),
        ("Det", ["logits"], {}, "Det is not supported"),
        ("NonZero", ["input_ids"], {}, "NonZero of int64 is not supported"),
        ("Cast", ["input_ids"], {"to": TensorProto.DOUBLE}, "Cast of double is not supported"),
        ("Cast", ["input_ids"], {"to": TensorProto.INT8}, "Cast of int8 is not supported"),
        ("ReduceMean", ["logits", "axes"], {}, "input 'axes' of ReduceMean has to be a constant"),
    ],
)
def test_an_operator_that_tensorrt_lacks_is_found(half_graph, failures, op, inputs, attributes, reason):
    half_graph.graph.initializer.append(numpy_helper.from_array(np.array([1]), "kept_axes"))
    add_node(half_graph, "Identity", ["kept_axes"], ["axes"])
    add_node(half_graph, op, inputs, **attributes)
    found = failures(half_graph)
    assert set(found) == {"operators"}
    assert said(found["operators"]) == f"new_{op}: {reason}"


def test_a_second_output_of_layer_normalization_is_found(half_graph, failures):
    norms = [node for node in half_graph.graph.node if node.op_type == "LayerNormalization"]
    for number, norm in enumerate(norms[:2]):
        norm.output.append(f"mean_{number}")
    found = failures(half_graph)
    assert set(found) == {"operators"}
    assert [finding.where for finding in found["operators"]] == [norm.name for norm in norms[:2]]
    assert "only the first output" in said(found["operators"])


def test_operators_in_a_branch_are_found(half_graph, failures):
    then = helper.make_graph(
        [helper.make_node("Bernoulli", ["logits"], ["drawn"], name="inner")],
        "then", [], [helper.make_tensor_value_info("drawn", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["logits"], ["same"])],
        "else", [], [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )  # fmt: skip
    half_graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "which"))
    add_node(half_graph, "If", ["which"], then_branch=then, else_branch=other)
    found = failures(half_graph)
    assert set(found) == {"operators"}
    assert said(found["operators"]) == "inner: Bernoulli is not supported"


def test_a_sparse_initializer_is_found(half_graph, failures):
    dense = initializer(half_graph, QUERY)
    values = numpy_helper.to_array(dense)
    places = np.flatnonzero(values)
    half_graph.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(values.reshape(-1)[places], QUERY),
            numpy_helper.from_array(places.astype(np.int64), f"{QUERY}.places"),
            list(values.shape),
        )
    )
    half_graph.graph.initializer.remove(dense)
    found = failures(half_graph)
    assert set(found) == {"dense weights"}
    assert said(found["dense weights"]) == f"{QUERY}: is a sparse initializer; TensorRT reads dense ones only"


def test_a_sparse_constant_is_found(half_graph, failures):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float16)), numpy_helper.from_array(np.zeros(1, np.int64)), [4]
    )
    add_node(half_graph, "Constant", [], sparse_value=sparse)
    assert said(failures(half_graph)["dense weights"]).startswith("new_Constant: holds a sparse value")


def test_weights_in_another_file_are_found(half_graph, failures):
    onnx.external_data_helper.set_external_data(initializer(half_graph, QUERY), "weights.bin")
    found = failures(half_graph)
    assert said(found["dense weights"]) == f"{QUERY}: has its values in a file outside of the graph"


def fix_axis(inputs):
    inputs[0].type.tensor_type.shape.dim[1].dim_value = 128


def unname_axis(inputs):
    inputs[1].type.tensor_type.shape.dim[0].ClearField("dim_param")


def flatten_rank(inputs):
    del inputs[2].type.tensor_type.shape.dim[1:]


def lose_shape(inputs):
    inputs[2].type.tensor_type.ClearField("shape")


def rename_axis(inputs):
    inputs[1].type.tensor_type.shape.dim[1].dim_param = "words"


def make_float(inputs):
    inputs[1].type.tensor_type.elem_type = TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (fix_axis, "input_ids: axis 1 is fixed at 128"),
        (unname_axis, "attention_mask: axis 0 has no name"),
        (flatten_rank, "token_type_ids: has rank 1, not 2 (batch and sequence)"),
        (lose_shape, "token_type_ids: has rank unknown, not 2 (batch and sequence)"),
        (
            rename_axis,
            "attention_mask: has the axes batch, words, input_ids has batch, sequence",
        ),
        (make_float, "attention_mask: is float16, not int32 or int64"),
    ],
)
def test_an_input_of_the_wrong_form_is_found(half_graph, failures, damage, reason):
    damage(half_graph.graph.input)
    assert said(failures(half_graph)["inputs"]) == reason


def test_an_input_that_trtexec_cannot_name_and_no_input_at_all_are_found(half_graph, failures):
    half_graph.graph.input.append(helper.make_tensor_value_info("a:b", 7, ["batch", "sequence"]))
    assert said(failures(half_graph)["inputs"]) == "a:b: has a name that trtexec's shapes cannot hold"
    del half_graph.graph.input[:]
    assert "has no inputs" in said(failures(half_graph)["inputs"])


def test_a_profile_past_the_models_positions_is_found(half_graph, failures, profile):
    assert failures(half_graph, positions=profile.max_sequence) == {}
    longer = dataclasses.replace(profile, max_sequence=POSITIONS + 1)
    found = failures(half_graph, longer)
    assert set(found) == {"profile"}
    assert "max_sequence 65 is more than the 64 positions" in said(found["profile"])


def test_a_graph_that_contradicts_itself_is_no_valid_onnx(half_graph, failures):
    half_graph.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert "valid ONNX" in failures(half_graph)


@pytest.mark.parametrize(
    ("node", "checks"),
    [
        (
            helper.make_node("FastGelu", ["logits"], ["new"], domain="com.microsoft"),
            {"valid ONNX", "default domain", "strong typing", "float16"},
        ),
        (helper.make_node("MatMul", [], ["new"]), {"valid ONNX", "strong typing", "float16"}),
        (helper.make_node("Add", ["logits", "nowhere"], ["new"]), {"valid ONNX", "strong typing"}),
        (helper.make_node("QuantizeLinear", ["logits"], ["new"]), {"valid ONNX", "quantization"}),
    ],
    ids=["domain without a version", "no inputs", "dangling input", "no scale"],
)
def test_a_graph_that_is_no_onnx_fails_and_is_not_taken_for_well_typed(half_graph, failures, node, checks):
    half_graph.graph.node.append(node)
    assert set(failures(half_graph)) == checks


def test_an_empty_model_fails(failures):
    assert {"valid ONNX", "opset", "inputs"} <= set(failures(onnx.ModelProto()))


def test_the_operator_table_is_of_operators_that_onnx_has():
    schemas = {schema.name: schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(SUPPORTED_TYPES) <= set(schemas)
    kinds = {TensorProto.DataType.Name(number) for number in TensorProto.DataType.values()}
    for name, types in SUPPORTED_TYPES.items():
        assert types <= kinds, name
    for name in {*CONSTANT_INPUT, *TYPED_INPUT, *TYPED_OUTPUT, *UNTYPED}:
        assert name in SUPPORTED_TYPES, name
    for name in ("DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul", "BitShift", "Unique"):
        assert name not in SUPPORTED_TYPES, name
