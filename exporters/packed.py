"""Packed weights for shipping: a bitmask of what is not zero, and those values; bit for bit restored.

A share `s` of zeros in a float32 matrix takes `1 - s + 1/32` of its size: 28 % at 75 % zeros, 13 % at
90 %. Embeddings are never pruned and keep their size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.models.encoders.registry import known_layouts
from compressor.models.manifest import (
    MANIFEST,
    PACKED_FORMAT,
    absent_files,
    is_artifact,
    read_manifest,
    write_manifest,
)
from compressor.models.weight_files import WEIGHTS, weight_files
from compressor.system.files import MARKER, atomic_directory, claims_output, read_tensors, sha256_of
from compressor.system.links import is_own_file
from exporters.lineage import model_lineage
from exporters.records import PackRecord, UnpackRecord
from exporters.safetensors_layout import layout_sha256, read_header, write_layout

PACKED = "packed.safetensors"
# A tensor is seen as integers of its width: negative zero and NaN are values like others.
INTEGERS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16,
            torch.bfloat16: torch.int16}  # fmt: skip


def pack(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """The bitmask and the values of a tensor, or None where they would not be smaller than it.

    Returns:
        uint8 `(ceil(numel / 8),)`, the first element in the highest bit, set where any bit of the element
        is; and the elements there, `(set bits,)` of the tensor's dtype, in row-major order.
    """
    if tensor.dtype not in INTEGERS:
        return None
    flat = tensor.contiguous().reshape(-1)
    stays = flat.view(INTEGERS[tensor.dtype]) != 0
    values = flat[stays]
    bits = torch.from_numpy(np.packbits(stays.numpy()))
    return (bits, values) if bits.nbytes + values.nbytes < flat.nbytes else None


def unpack(bits: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor of `shape` that was packed.

    Raises:
        ValueError: bits, values and shape do not belong together.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if bits.dtype != torch.uint8 or bits.shape != ((size + 7) // 8,):
        raise ValueError(f"a bitmask of {bits.numel()} bytes for {size} elements")
    stays = torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool))
    if values.shape != (int(stays.sum()),):
        raise ValueError(f"{values.numel()} values for {int(stays.sum())} set bits")
    flat = torch.zeros(size, dtype=values.dtype)
    flat[stays] = values
    return flat.reshape(shape)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bits, whatever order and file they are in."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@claims_output
def pack_directory(model: Path, output: Path, *, force: bool) -> PackRecord:
    """Pack a model directory's weights, in one file or in shards. Returns the manifest.

    All its other files come along as they are, also from folders in it; hidden folders such as `.git` do not,
    and the manifest names them in `left_out`. Of a snapshot in the Hugging Face cache, whose files are links,
    the content is packed.

    Raises:
        UserError: no such directory, an artifact, no or broken weights, a file that a classifier needs is
            missing, a link that leads elsewhere, bad output.
    """
    from safetensors.torch import save_file

    files = weight_files(model)
    if not files and is_artifact(model):
        raise UserError(
            f"{model}: is an exported artifact or a packed classifier, and packing takes a classifier with "
            f"{WEIGHTS}; an artifact gets smaller in an archive: tar --create --gzip --file artifact.tar.gz "
            f"{model}"
        )
    if not files:
        raise UserError(f"{model / WEIGHTS}: no such file; a directory with {WEIGHTS} is needed")
    others, left_out = _other_files(model, files)
    for name in absent_files(others):
        raise UserError(f"{model}: has no {name}; it is not a complete classifier")
    tensors, layouts = _load_all(files)
    packed: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    sizes = {"before": 0, "after": 0}
    for name, tensor in tensors.items():
        parts = pack(tensor)
        if parts is None:
            packed[f"dense.{name}"] = tensor
            continue
        packed[f"bits.{name}"], packed[f"values.{name}"] = parts
        shapes[name] = list(tensor.shape)
        sizes["before"] += tensor.nbytes
        sizes["after"] += sum(part.nbytes for part in parts)
    header = {"shapes": shapes, "files": layouts, "sha256": digest(tensors)}
    stored = sum(file.stat().st_size for file in files)
    with atomic_directory(output, force=force, needed_bytes=stored) as working:
        _copy(model, working, others)
        save_file(packed, working / PACKED, metadata={PACKED_FORMAT: json.dumps(header)})
        facts = {
            "format": PACKED_FORMAT,
            "lineage": model_lineage(str(model), _encoder_matrices(tensors)),
            "left_out": left_out,
            "packed_tensors": len(shapes),
            "packed_tensors_bytes": sizes,
            "weights_bytes": {"before": stored, "after": (working / PACKED).stat().st_size},
        }
        manifest = write_manifest(working, facts)
    return PackRecord(**manifest, path=output)


@claims_output
def unpack_directory(packed: Path, output: Path, *, force: bool) -> UnpackRecord:
    """The model directory that was packed, every file in it byte for byte the same.

    Raises:
        UserError: no packed directory, a file that is not as it was packed, bad output.
    """
    manifest = read_manifest(packed)
    if manifest.get("format") != PACKED_FORMAT or PACKED not in manifest["files"]:
        raise UserError(f"{packed}: is no packed model; make one with: compress pack")
    others = [name for name in manifest["files"] if name != PACKED]
    stored, header_text = _load(packed / PACKED)
    try:
        header = json.loads(header_text[PACKED_FORMAT])
        tensors = {
            name.removeprefix("dense."): tensor
            for name, tensor in stored.items()
            if name.startswith("dense.")
        }
        for name, shape in header["shapes"].items():
            tensors[name] = unpack(stored[f"bits.{name}"], stored[f"values.{name}"], tuple(shape))
        if digest(tensors) != header["sha256"]:
            raise ValueError("the weights are not those that were packed")
        layouts = _checked_layouts(header, tensors, others)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{packed / PACKED}: is no packed model of compress: {error}") from error
    needed = sum(tensor.nbytes for tensor in tensors.values())
    with atomic_directory(output, force=force, needed_bytes=needed) as working:
        _copy(packed, working, others)
        for name, layout in layouts.items():
            write_layout(working / name, layout, tensors)
    return UnpackRecord(path=output, tensors=len(tensors), sha256=header["sha256"])


def _checked_layouts(
    header: Mapping[str, Any], tensors: dict[str, Tensor], others: Sequence[str]
) -> dict[str, str]:
    """The header of each file of weights that is to be written, by its name.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the file would not be the one that was packed.
    """
    if "files" not in header:
        # Packed before shards were taken: one file, as safetensors writes it.
        return {WEIGHTS: _plain_header(tensors, header["metadata"])}
    for name, layout in header["files"].items():
        if Path(name).name != name or name in others:
            raise ValueError(f"{name!r} is no name of a file of weights")
        if layout_sha256(layout["header"], tensors) != layout["sha256"]:
            raise ValueError(f"{name} would not be the file that was packed")
    return {name: layout["header"] for name, layout in header["files"].items()}


def _plain_header(tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> str:
    from safetensors.torch import save

    content = save(tensors, metadata=metadata)
    return content[8 : 8 + int.from_bytes(content[:8], "little")].decode("utf-8")


def _load_all(files: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """The tensors of all files of weights, and of each file its header and its SHA-256."""
    tensors: dict[str, Tensor] = {}
    layouts = {}
    for file in files:
        found, _ = _load(file)
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise UserError(f"{file}: holds {twice[0]}, which another shard holds as well")
        layout = {"header": read_header(file), "sha256": sha256_of(file)}
        if layout_sha256(layout["header"], found) != layout["sha256"]:
            raise UserError(f"{file}: has a layout that cannot be restored byte for byte; save it again")
        tensors |= found
        layouts[file.name] = layout
    return tensors, layouts


def _encoder_matrices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's matrices by layer; packing takes any directory, so any known family's names count."""
    layouts = known_layouts()
    return {
        name.removesuffix(".weight"): tensor
        for name, tensor in tensors.items()
        if name.endswith(".weight") and tensor.ndim == 2 and any(layout.place_of(name) for layout in layouts)
    }


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError

    try:
        return read_tensors(path)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _other_files(model: Path, weights: Sequence[Path]) -> tuple[list[str], list[str]]:
    """What a directory holds besides its weights: names of its files, and of hidden folders.

    Raises:
        UserError: a link that leads out of the directory, something that is no file, a file that has the
            name of one that packing writes.
    """
    files: list[str] = []
    hidden: list[str] = []
    for folder, folders, names in os.walk(model):
        for name in [*folders, *names]:
            path = Path(folder, name)
            relative = path.relative_to(model).as_posix()
            if relative == MARKER:
                continue
            if name in folders and not path.is_symlink():
                hidden += [relative] * name.startswith(".")
                continue
            _check_file(model, relative)
            files += [relative] * (path not in weights)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    for name in (PACKED, MANIFEST):
        if name in files:
            raise UserError(f"{model / name}: has the name of a file that packing writes; move it elsewhere")
    return sorted(files), sorted(hidden)


def _check_file(model: Path, name: str) -> None:
    path = model / name
    try:
        if not is_own_file(model, name):
            raise UserError(
                f"{path}: is a link that leads out of the directory, which could ship what is not the "
                f"model's; put the file in its place, or remove the link"
            )
        if not path.is_file():
            raise UserError(f"{path}: is no file, or a link to none; remove it")
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
