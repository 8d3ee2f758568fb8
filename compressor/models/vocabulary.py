"""Smaller vocabularies: which pieces of a tokenizer are kept, and its `tokenizer.json` with these alone.

All functions are pure: a `tokenizer.json` is the dictionary that the file holds, as the tokenizers library
writes it. A text whose pieces are all kept is tokenized into the same pieces again. WordPiece takes the
longest piece that there is, and that is still there. BPE applies the same merges: those that made a kept
piece are kept with their parts, in their order. The best segmentation of Unigram is still there, and all
others were there before. A text that loses some of its pieces is spelled with shorter ones, down to single
characters.

One exception: WordPiece makes a word unknown where it finds no piece to go on with. If a piece has a
character that is no piece of its own, a shorter beginning can make such a word known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.errors import UserError

KINDS = ("WordPiece", "BPE", "Unigram")
# Names of bytes, which BPE and Unigram spell unknown characters with.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# Places that BERT's vocabularies left free for others; no text has them.
_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True)
class SmallerVocabulary:
    """Which pieces of a tokenizer are kept.

    Attributes:
        kept: their ids in the whole vocabulary, ascending; the place in this list is the new id.
        coverage: share of the counted pieces that are kept, from 0 to 1.
    """

    kept: list[int]
    coverage: float


def choose_pieces(
    content: Mapping[str, Any], counts: Mapping[int, int], coverage: float, least: int = 0
) -> SmallerVocabulary:
    """Choose the pieces to keep: what every text needs, and the most frequent ones.

    Every text needs special and added tokens, single characters, and bytes. The most frequent other pieces
    follow until those that are kept make up `coverage` of all that were counted; of BPE with the pieces
    that they are merged of. If these are fewer than `least`, others follow in the order of their ids: the
    trainers of all three kinds of tokenizers number pieces by how frequent they were in general texts.

    Args:
        content: of `tokenizer.json`.
        counts: how often each piece was counted, by its id.
        coverage: from 0 to 1; 1 keeps all pieces that were counted.
        least: number of pieces.

    Raises:
        UserError: a kind of tokenizer that cannot lose pieces.
    """
    ids = _ids(content)
    parts = _parts(content["model"], ids)
    kept: set[int] = set()

    def keep(piece: int) -> int:
        """Keep a piece with its parts; how often those that are new were counted."""
        waiting, found = [piece], 0
        while waiting:
            one = waiting.pop()
            if one not in kept:
                kept.add(one)
                found += counts.get(one, 0)
                waiting += parts.get(one, ())
        return found

    covered = sum(keep(piece) for piece in sorted(_needed(content, ids)))
    total = sum(counts.values())
    for piece in sorted(counts, key=lambda piece: (-counts[piece], piece)):
        if covered >= coverage * total:
            break
        covered += keep(piece)
    for piece in sorted(place for name, place in ids.items() if not _UNUSED.fullmatch(name)):
        if len(kept) >= least:
            break
        covered += keep(piece)
    return SmallerVocabulary(sorted(kept), covered / total if total else 1.0)


def keep_pieces(content: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return a `tokenizer.json` with those pieces alone.

    Args:
        content: of the whole one, which stays as it is.
        kept: of `choose_pieces`; the place of an id in it is the piece's new id.
    """
    places = {old: new for new, old in enumerate(kept)}
    added = [{**token, "id": places[token["id"]]} for token in content["added_tokens"]]
    padding = content.get("padding")
    return {
        **content,
        "added_tokens": added,
        "padding": padding and {**padding, "pad_id": places[padding["pad_id"]]},
        "post_processor": _processor(content.get("post_processor"), places),
        "model": _model(content["model"], places),
    }


def _ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Id of each piece and added token.

    Raises:
        UserError: a kind of tokenizer that cannot lose pieces.
    """
    model = content["model"]
    if model["type"] not in KINDS:
        raise UserError(
            f"tokenizer.json: model: type {model['type']}: only {', '.join(KINDS)} spell a word with other "
            f"pieces once its own are gone; leave --vocabulary out"
        )
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    if model["type"] == "Unigram":
        return {piece: place for place, (piece, _) in enumerate(model["vocab"])} | added
    return {**model["vocab"], **added}


def _needed(content: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[int]:
    """Ids of what every text needs."""
    model = content["model"]
    yield from (token["id"] for token in content["added_tokens"])
    yield from _processor_ids(content.get("post_processor"))
    if content.get("padding") is not None:
        yield content["padding"]["pad_id"]
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        # An unknown character costs a fixed amount more than the rarest piece.
        yield scores.index(min(scores))
        if model["unk_id"] is not None:
            yield model["unk_id"]
    elif model.get("unk_token") in ids:
        yield ids[model["unk_token"]]
    before, after = (model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix"))
    for piece, place in ids.items():
        spelled = {piece, piece.removeprefix(before)}
        spelled |= {form.removesuffix(after) for form in spelled}
        if any(len(form) == 1 for form in spelled) or _BYTE.fullmatch(piece):
            yield place


def _parts(model: Mapping[str, Any], ids: Mapping[str, int]) -> dict[int, list[int]]:
    """Ids of the pieces that each piece of BPE is merged of, in every way that there is."""
    found: dict[int, list[int]] = {}
    for first, second, result in _merges(model):
        found.setdefault(ids[result], []).extend((ids[first], ids[second]))
    return found


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Both parts and the result of each merge, in their order; none but of BPE."""
    prefix = model.get("continuing_subword_prefix") or ""
    for merge in model.get("merges", ()):
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second, first + second.removeprefix(prefix)


def _processor_ids(processor: Mapping[str, Any] | None) -> Iterator[int]:
    """Ids that a post-processor, or one within it, puts around texts."""
    if processor is None:
        return
    for part in processor.get("processors", ()):
        yield from _processor_ids(part)
    for token in processor.get("special_tokens", {}).values():
        yield from token["ids"]
    yield from (processor[key][1] for key in ("cls", "sep") if key in processor)


def _processor(processor: Mapping[str, Any] | None, places: Mapping[int, int]) -> dict[str, Any] | None:
    """A post-processor with the new ids."""
    if processor is None:
        return None
    found = dict(processor)
    if "processors" in found:
        found["processors"] = [_processor(part, places) for part in found["processors"]]
    if "special_tokens" in found:
        found["special_tokens"] = {
            name: {**token, "ids": [places[old] for old in token["ids"]]}
            for name, token in found["special_tokens"].items()
        }
    for key in ("cls", "sep"):
        if key in found:
            token, old = found[key]
            found[key] = [token, places[old]]
    return found


def _model(model: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer's model with the pieces that have a new id, and the merges of these."""
    if model["type"] == "Unigram":
        unknown = model["unk_id"]
        return {
            **model,
            "vocab": [entry for place, entry in enumerate(model["vocab"]) if place in places],
            "unk_id": None if unknown is None else places[unknown],
        }
    vocabulary = {piece: places[old] for piece, old in model["vocab"].items() if old in places}
    if "merges" not in model:
        return {**model, "vocab": vocabulary}
    merges = [
        merge
        for merge, pieces in zip(model["merges"], _merges(model), strict=True)
        if _all_in(vocabulary, pieces)
    ]
    return {**model, "vocab": vocabulary, "merges": merges}


def _all_in(vocabulary: Collection[str], pieces: Sequence[str]) -> bool:
    return all(piece in vocabulary for piece in pieces)
