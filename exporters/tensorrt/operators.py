"""Which ONNX operators TensorRT parses, with which types: onnx-tensorrt's operator table for TensorRT 10.15.

Operators of opset 20 and before; an operator that is not here is not supported.
"""

from __future__ import annotations

TABLE_VERSION = "10.15"

_FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})
_NUMBERS = _FLOATS | {"INT32", "INT64"}
_ANY = _NUMBERS | {"BOOL"}
_STORED = _ANY | {"FLOAT8E4M3FN", "FLOAT4E2M1", "INT4"}

_ROWS: tuple[tuple[frozenset[str], str], ...] = (
    (
        _FLOATS,
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose "
        "Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool "
        "GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM "
        "LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool "
        "MeanVarianceNormalization PRelu QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform "
        "RandomUniformLike Reciprocal Resize Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt "
        "Tan Tanh ThresholdedRelu Upsample",
    ),
    (
        frozenset({"FLOAT", "FLOAT16"}),
        "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero "
        "RoiAlign",
    ),
    (frozenset({"FLOAT"}), "STFT"),
    (
        _NUMBERS,
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min "
        "Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign "
        "SpaceToDepth Sub Sum TopK",
    ),
    (_NUMBERS | {"INT8"}, "Gelu"),
    (_NUMBERS | {"FLOAT8E4M3FN"}, "Mean"),
    (
        _ANY,
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape "
        "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    ),
    (_ANY | {"UINT8"}, "Cast CastLike"),
    (_STORED, "Constant ConstantOfShape"),
    (frozenset({"INT8", "FLOAT8E4M3FN", "FLOAT4E2M1", "INT4"}), "DequantizeLinear"),
    (frozenset({"BOOL"}), "And Not Or Xor"),
)

# Operator -> names of the element types that it may have.
SUPPORTED_TYPES: dict[str, frozenset[str]] = {name: types for types, row in _ROWS for name in row.split()}

# The input whose type the table means, where that is not the first; operators that only make values
# have it in their output.
TYPED_INPUT = {"Where": 1, "OneHot": 2}
TYPED_OUTPUT = frozenset(
    {"Cast", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "RandomNormalLike",
     "RandomUniformLike"}
)  # fmt: skip
# Branches and bodies have types of their own, checked with their nodes.
UNTYPED = frozenset({"If", "Loop", "Scan"})

# Inputs, by position, that have to be known when the engine is built.
CONSTANT_INPUT = {
    "CumSum": 1, "Dropout": 2, "OneHot": 1, "Squeeze": 1, "Unsqueeze": 1,
    **{name: 1 for name in SUPPORTED_TYPES if name.startswith("Reduce")},
}  # fmt: skip
# Operators whose further outputs are not supported.
FIRST_OUTPUT_ONLY = frozenset({"LayerNormalization", "MaxPool"})
