"""Sparse initializers: smaller where they pay, the same values, and a session that loads them."""

import shutil

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from compressor.models.encoders.bert import BERT
from compressor.models.predictors import OnnxPredictor
from exporters.onnx import encoder_initializers
from exporters.sparse import sparse_bytes, store_sparse
from exporters.verify import check_zeros

NAME = "bert.encoder.layer.0.output.dense.weight"


def product_graph(weight: np.ndarray, path) -> None:
    """A graph that multiplies by one weight `(in, out)`."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", NAME], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", weight.shape[1]])],
        [numpy_helper.from_array(weight, NAME)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@settings(max_examples=40)
@given(
    weight=arrays(np.float32, (8, 12), elements=st.floats(-2, 2, width=32), fill=st.just(0.0)),
)
def test_a_weight_comes_back_as_it_was_and_products_too(weight, tmp_path_factory):
    import onnxruntime

    path = tmp_path_factory.mktemp("sparse") / "model.onnx"
    product_graph(weight, path)
    stored = store_sparse(path)
    pays = bool(weight.any()) and sparse_bytes(weight) < weight.nbytes
    assert list(stored) == ([NAME] if pays else [])
    found = encoder_initializers(path, BERT)[NAME.removesuffix(".weight")]
    # Zeros of either sign are zeros.
    assert torch.equal(found, torch.from_numpy(weight).T)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("share", "pays"), [(0.6, False), (0.66, False), (0.68, True), (0.9, True)])
def test_it_pays_above_two_thirds_of_zeros(share, pays, tmp_path):
    weight = np.ones((100, 100), dtype=np.float32)
    weight.reshape(-1)[: round(share * weight.size)] = 0
    product_graph(weight, tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").stat().st_size
    assert bool(store_sparse(tmp_path / "model.onnx")) == pays
    after = (tmp_path / "model.onnx").stat().st_size
    assert (after < before) == pays
    if share == 0.9:
        assert after < 0.32 * before


def test_a_real_graph_gives_the_same_logits(small_artifact_dir, tmp_path):
    """Where matrices differ, only those that pay are stored sparsely."""
    folder = tmp_path / "artifact"
    shutil.copytree(small_artifact_dir, folder)
    model = onnx.load(folder / "model.onnx")
    for entry in model.graph.initializer:
        if ".layer.0." in entry.name and len(entry.dims) == 2:
            value = numpy_helper.to_array(entry).copy()
            value[:, ::4] = value[:, 1::4] = value[::2] = 0
            entry.CopyFrom(numpy_helper.from_array(value, entry.name))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    dense = encoder_initializers(folder / "model.onnx", BERT)
    ids = torch.tensor([[101, 2023, 2003, 2307, 102]])
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    expected = OnnxPredictor(folder, 2).logits(batch)
    stored = store_sparse(folder / "model.onnx")
    assert len(stored) == 6
    assert all(".layer.0." in name for name in stored)
    found = encoder_initializers(folder / "model.onnx", BERT)
    check_zeros(dense, found, exact=True)
    for name, weight in dense.items():
        assert torch.equal(found[name], weight), name
    np.testing.assert_array_equal(OnnxPredictor(folder, 2).logits(batch), expected)
