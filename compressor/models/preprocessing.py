"""How texts become an artifact's inputs: written into its tokenizer files, proven, and recorded.

Whoever loads the artifact then cuts and pads as its proof did, by what is in its files alone. Texts are cut
to `max_length` tokens, of a pair the longer one first; padding comes after the tokens, since BERT counts its
positions from the first column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import UserError, first_line
from compressor.models.artifact_files import EXPORT_AGAIN
from compressor.models.encoders.inputs import IDS, SEGMENTS, WITH_SEGMENTS
from compressor.models.manifest import MANIFEST
from compressor.models.transformers_versions import TOKENIZER_CONFIG, save_tokenizer
from compressor.system.files import read_json, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from compressor.models.batching import Encoded

TOKENIZER = "tokenizer.json"
# What a tokenizer that was loaded from a tokenizer.json of others brings along; none of it is ours.
_FOREIGN = ("max_len", "max_length", "stride", "truncation_strategy", "pad_to_multiple_of")
_PAD_TYPE_ID = 0
WITHOUT_TRANSFORMERS = "serve.py, Triton's client and other programs without transformers cannot take it"


def write_tokenizer(
    tokenizer: PreTrainedTokenizerBase, directory: Path, max_length: int, inputs: Sequence[str]
) -> dict[str, Any]:
    """Write a tokenizer's files so that they cut and pad as `compressor.models.batching` does.

    `tokenizer_config.json` has what transformers reads; `tokenizer.json`, which slow tokenizers do not have,
    what the tokenizers library reads.

    Args:
        max_length: longest input in tokens.
        inputs: names of the graph's inputs.

    Returns:
        the manifest's `preprocessing`, without what `prove_preprocessing` finds.
    """
    save_tokenizer(tokenizer, directory)
    record = {
        "max_length": max_length,
        "truncation": "longest_first",
        "truncation_side": tokenizer.truncation_side,
        "stride": 0,
        "padding": "longest",
        "padding_side": "right",
        "pad_token": str(tokenizer.pad_token),
        "pad_token_id": int(tokenizer.pad_token_id),
        "pad_token_type_id": _PAD_TYPE_ID,
        "inputs": list(inputs),
    }
    config = read_json(directory / TOKENIZER_CONFIG)
    config = {key: value for key, value in config.items() if key not in _FOREIGN}
    write_json(directory / TOKENIZER_CONFIG, config | _config_of(record))
    if (directory / TOKENIZER).is_file():
        _set_backend(directory / TOKENIZER, record)
    return record | {"source_padding_side": tokenizer.padding_side}


def _config_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `tokenizer_config.json` has of the record."""
    return {
        "model_max_length": record["max_length"],
        "truncation_side": record["truncation_side"],
        "padding_side": record["padding_side"],
        "model_input_names": record["inputs"],
    }


def _set_backend(path: Path, record: Mapping[str, Any]) -> None:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(path))
    set_truncation(backend, record, record["max_length"])
    set_padding(backend, record, None)
    backend.save(str(path))


def set_truncation(backend: Tokenizer, record: Mapping[str, Any], max_length: int) -> None:
    """Let a tokenizer of the tokenizers library cut as the record says, to `max_length` tokens."""
    backend.enable_truncation(
        max_length,
        stride=record["stride"],
        strategy=record["truncation"],
        direction=record["truncation_side"],
    )


def set_padding(backend: Tokenizer, record: Mapping[str, Any], multiple: int | None) -> None:
    """Let it pad to the longest text of a batch, or to a multiple of so many tokens."""
    backend.enable_padding(
        direction=record["padding_side"],
        pad_id=record["pad_token_id"],
        pad_type_id=record["pad_token_type_id"],
        pad_token=record["pad_token"],
        pad_to_multiple_of=multiple,
    )


def prove_preprocessing(
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    record: Mapping[str, Any],
    texts: Sequence[str],
    pairs: Sequence[str] | None,
) -> dict[str, Any]:
    """Encode texts with the written files alone, and compare with what `tokenizer` makes of them.

    Texts and pairs of texts are encoded, as they are and longer than `max_length`, with special tokens in
    them and without a word. First by transformers with `truncation=True`, then by the tokenizers library.

    Returns:
        the record with `needs_transformers`: None, or why the tokenizers library alone cannot take the
        artifact.

    Raises:
        UserError: transformers reads another tokenizer from the files than was written.
    """
    from compressor.models.batching import encode_texts
    from compressor.models.classifier import load_tokenizer
    from compressor.system.hub import quiet

    written = load_tokenizer(str(directory))
    reason = None
    if not (directory / TOKENIZER).is_file():
        kind = type(tokenizer).__name__
        reason = f"its tokenizer, {kind}, has no {TOKENIZER}: transformers has no fast form of it"
    for first, second in _probes(texts, pairs, tokenizer.all_special_tokens, record["max_length"]):
        # Slow tokenizers warn of each pair that they cut.
        with quiet():
            expected = encode_texts(tokenizer, first, second, record["max_length"])
            found = _by_transformers(written, first, second, record["inputs"])
        if found != expected:
            raise UserError(
                f"export failed: the tokenizer {type(tokenizer).__name__} that was saved encodes texts "
                f"differently from the one that was loaded; save it again with transformers "
                f"and export the model again"
            )
        if reason is None and _by_tokenizers(directory, first, second) != expected:
            reason = f"{TOKENIZER} alone encodes some texts otherwise than transformers does"
    return {**record, "needs_transformers": reason}


def _probes(
    texts: Sequence[str], pairs: Sequence[str] | None, special: Sequence[str], max_length: int
) -> Iterator[tuple[list[str], list[str] | None]]:
    """Texts alone and in pairs, given ones and made ones."""
    # Some tokens have many letters; a word is one token at least.
    many = " ".join(texts)[: 50 * max_length]
    long = " ".join([many] * (1 + max_length // max(1, len(many.split()))))
    made = [long, f"{' '.join(special)} {many[:200]} {' '.join(special)}", ""]
    alone = [*texts, *made]
    yield alone, None
    yield [*texts, *made, *made], [*(pairs or texts[::-1]), long, *made[:2], made[0], "", made[1]]


def _by_transformers(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], pairs: list[str] | None, inputs: Sequence[str]
) -> list[Encoded]:
    # Segments that the graph does not take are not given unless they are asked for, to be compared.
    options = {} if SEGMENTS in inputs else WITH_SEGMENTS
    found = tokenizer(texts, pairs, truncation=True, **options)
    return list(zip(found[IDS], found[SEGMENTS], strict=True))


def _by_tokenizers(directory: Path, texts: list[str], pairs: list[str] | None) -> list[Encoded]:
    """Ids and segments without the padding, which must be where it belongs."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(directory / TOKENIZER))
    found = backend.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    return [
        (entry.ids[: sum(entry.attention_mask)], entry.type_ids[: sum(entry.attention_mask)])
        for entry in found
    ]


def read_preprocessing(directory: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """An artifact's preprocessing as its manifest has it and its tokenizer files too.

    Raises:
        UserError: the manifest is of an early export and has none, or a file says otherwise.
    """
    record = manifest.get("preprocessing")
    if not isinstance(record, dict) or not isinstance(record.get("max_length"), int):
        raise UserError(
            f"{directory / MANIFEST}: has no preprocessing, as early exports have not, so it is not known "
            f"how texts are cut and padded; {EXPORT_AGAIN}"
        )
    for file, stated in _stated(directory):
        for key, value in stated.items():
            expected = _config_of(record).get(key) if file == TOKENIZER_CONFIG else record.get(key)
            if value != expected:
                raise UserError(
                    f"{directory / file}: {key} is {value!r}, and {MANIFEST} has {expected!r}; {EXPORT_AGAIN}"
                )
    return record


def _stated(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each of the tokenizer's files says, under the record's names."""
    config = read_json(directory / TOKENIZER_CONFIG, EXPORT_AGAIN)
    if not isinstance(config, dict):
        raise UserError(f"{directory / TOKENIZER_CONFIG}: holds no JSON object; {EXPORT_AGAIN}")
    keys = ("model_max_length", "truncation_side", "padding_side", "model_input_names")
    yield TOKENIZER_CONFIG, {key: config.get(key) for key in keys}
    if (directory / TOKENIZER).is_file():
        yield TOKENIZER, _backend_record(load_backend(directory))


def load_backend(directory: Path) -> Tokenizer:
    """The tokenizer of an artifact in the tokenizers library.

    Raises:
        UserError: it cannot be loaded.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(directory / TOKENIZER))
    except Exception as error:  # the library raises plain exceptions
        raise UserError(
            f"{directory / TOKENIZER}: cannot be loaded: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error


def _backend_record(backend: Tokenizer) -> dict[str, Any]:
    cut, padded = backend.truncation or {}, backend.padding or {}
    is_longest = bool(padded) and padded["length"] is None and padded["pad_to_multiple_of"] is None
    return {
        "max_length": cut.get("max_length"),
        "truncation": cut.get("strategy"),
        "truncation_side": cut.get("direction"),
        "stride": cut.get("stride"),
        "padding": "longest" if is_longest else json.dumps(padded or None),
        "padding_side": padded.get("direction"),
        "pad_token": padded.get("pad_token"),
        "pad_token_id": padded.get("pad_id"),
        "pad_token_type_id": padded.get("pad_type_id"),
    }


def check_measured_as_proven(directory: Path, manifest: Mapping[str, Any], max_length: int) -> None:
    """Raise a `UserError` if an artifact would be measured on longer inputs than it was proven with.

    Shorter ones are let pass: the graph takes them, and the result says at which length it was measured.

    Args:
        max_length: longest input in tokens of the measurement.

    Raises:
        UserError: also as `read_preprocessing`.
    """
    proven = read_preprocessing(directory, manifest)["max_length"]
    if max_length > proven:
        raise UserError(
            f"{directory}: was proven with inputs of at most {proven} tokens and cuts texts there, so "
            f"figures at --max-length {max_length} are not those of what is served; give --max-length "
            f"{proven}, or export it again with --max-length {max_length}"
        )
