"""The layout of a safetensors file, so that the same bytes can be written again from its tensors.

A file is the length of its header (8 bytes, little endian), the header in JSON, and the tensors' bytes,
without gaps. Writers differ in the order of tensors and in the header's spaces and padding.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor


def read_header(path: Path) -> str:
    """The header of a safetensors file, as it is written there.

    Raises:
        ValueError: it is not UTF-8.
    """
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return stream.read(length).decode("utf-8")


def file_pieces(header: str, tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The content of the file that has this header, piece by piece.

    Raises:
        KeyError, TypeError, ValueError: the header is none, or the tensors do not fit it.
    """
    raw = header.encode("utf-8")
    yield struct.pack("<Q", len(raw))
    yield raw
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    end = 0
    for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
        tensor = tensors[name]
        start, stop = entries[name]["data_offsets"]
        if start != end or stop - start != tensor.nbytes:
            raise ValueError(f"the tensor {name} does not fit the header")
        end = stop
        yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def layout_sha256(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file that `write_layout` writes; raises as `file_pieces`."""
    found = hashlib.sha256()
    for piece in file_pieces(header, tensors):
        found.update(piece)
    return found.hexdigest()


def write_layout(path: Path, header: str, tensors: Mapping[str, Tensor]) -> None:
    """Write the file; raises as `file_pieces`."""
    with path.open("wb") as stream:
        for piece in file_pieces(header, tensors):
            stream.write(piece)
