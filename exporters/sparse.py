"""Matrices with many zeros as ONNX's `sparse_initializer`: a smaller file, the same session.

ONNX Runtime makes them dense as it loads, so nothing gets faster. Its optimizer and its quantizer refuse such
a file, and TensorRT has no use for it: this comes last, and only where it makes the file smaller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# ONNX's checker takes linear indices of 64 bits and no others.
INDEX_BYTES = 8


def sparse_bytes(value: NDArray[Any]) -> int:
    """What a tensor takes as `sparse_initializer`: for each value that is not zero, itself and its place."""
    return int(np.count_nonzero(value)) * (value.itemsize + INDEX_BYTES)


def store_sparse(path: Path) -> dict[str, dict[str, int]]:
    """Store the initializers of a graph sparsely, in place, where that is smaller.

    Returns:
        Of each that is, by its name: `dense_bytes` and `sparse_bytes`.
    """
    model = onnx.load(path)
    stored = {}
    dense = []
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        # An entry without values is nothing that runtimes expect.
        if value.ndim != 2 or not value.any() or sparse_bytes(value) >= value.nbytes:
            dense.append(initializer)
            continue
        places = np.flatnonzero(value).astype(np.int64)
        model.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                numpy_helper.from_array(value.reshape(-1)[places], initializer.name),
                numpy_helper.from_array(places),
                list(value.shape),
            )
        )
        stored[initializer.name] = {"dense_bytes": value.nbytes, "sparse_bytes": sparse_bytes(value)}
    kept = [onnx.TensorProto.FromString(entry.SerializeToString()) for entry in dense]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return stored
