"""The files that a checkpoint is loaded from: weights, one file or several shards, and a digest of them.

Nothing here needs PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from compressor.errors import UserError
from compressor.system.files import sha256_of

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "model.ckpt", "pytorch_model.pt")
# Any one of them makes a tokenizer: of WordPiece vocab.txt, of BPE vocab.json with its merges.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")


def weight_files(directory: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, in the order of their names; empty if there are none.

    As transformers does, one whole file is taken before shards.

    Raises:
        UserError: an index of shards that cannot be read, names no file of the directory, or one that is
            missing.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        return []
    files = [directory / name for name in shard_names(directory / INDEX)]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: is missing, though {INDEX} lists it; fetch the checkpoint again")
    return files


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index of shards lists, sorted.

    Raises:
        UserError: it cannot be read, or a name is that of no file beside it.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: is no index of shards: {error}; fetch the checkpoint again") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: lists {name!r}, which is no safetensors file beside it")
    if not names:
        raise UserError(f"{index}: lists no files; fetch the checkpoint again")
    return names


def digest_of_files(files: Sequence[Path]) -> str | None:
    """SHA-256 of one file; of several, over the line `SHA256  NAME` of each; None of none.

    `sha256sum model-*.safetensors | sha256sum` gives the same for shards.
    """
    if len(files) <= 1:
        return sha256_of(files[0]) if files else None
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(files, key=lambda file: file.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
