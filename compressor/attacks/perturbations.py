"""Perturbed texts that do not depend on the model: typos, synonyms, casing.

They are drawn once for each text and replayed on any model: no search, so a look takes seconds where an
attack takes minutes, and two models see the same texts. An attack finds more.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from compressor.attacks.attacker import random_state
from compressor.attacks.recipes import has_words, synonym_swap
from compressor.attacks.resources import import_textattack, load_synonyms
from compressor.data.texts import TextData
from compressor.options import PerturbationName, PerturbConfig
from compressor.system.console import Progress

Perturber = Callable[[str], str]
# Words that are changed at once: each change copies the text that it is made in.
PIECE = 200
CASES: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.title, str.swapcase)


def perturbed_texts(
    data: TextData, config: PerturbConfig, seed: int, progress: Progress
) -> tuple[dict[PerturbationName, TextData], dict[str, str]]:
    """Each text once in every kind of perturbation, and a description of the resources that were used.

    Of a pair the second text is perturbed. A text's perturbation depends on the seed, its place and itself.

    Raises:
        UserError: a resource is missing or broken.
    """
    perturbers, resources = _perturbers(config, progress)
    found: dict[PerturbationName, list[str]] = {kind: [] for kind in perturbers}
    own = data.texts if data.pairs is None else data.pairs
    for index in progress.track(range(len(data)), "Perturbing texts"):
        for kind, perturber in perturbers.items():
            with random_state(seed, index):
                found[kind].append(perturber(own[index]) if has_words(own[index]) else own[index])
    return {kind: _with_texts(data, texts) for kind, texts in found.items()}, resources


def _with_texts(data: TextData, texts: list[str]) -> TextData:
    pairs = None if data.pairs is None else texts
    first = texts if data.pairs is None else data.texts
    return replace(data, texts=first, pairs=pairs)


def _perturbers(
    config: PerturbConfig, progress: Progress
) -> tuple[dict[PerturbationName, Perturber], dict[str, str]]:
    textattack = import_textattack()
    resources = {}
    made: dict[PerturbationName, Perturber] = {}
    for kind in dict.fromkeys(config.perturbations):
        if kind == "casing":
            made[kind] = random_case
        elif kind == "typos":
            swaps = textattack.augmentation.CharSwapAugmenter()
            made[kind] = _swapped(
                swaps.transformation, swaps.pre_transformation_constraints, config.perturbed_share
            )
        else:
            synonyms = load_synonyms(config, progress)
            resources["synonyms"] = synonyms.description
            pre = textattack.constraints.pre_transformation
            constraints = [pre.RepeatModification(), pre.StopwordModification()]
            made[kind] = _swapped(synonym_swap(synonyms), constraints, config.perturbed_share)
    return made, resources


def _swapped(transformation: Any, constraints: list[Any], share: float) -> Perturber:
    """Return what changes a share of a text's words, at least one; the text itself where none can be changed.

    Word by word in a random order, and a long text piece by piece: TextAttack's own augmenter makes all
    changes of all words for each word that it changes, which takes a minute for 200 words.
    """
    textattack = import_textattack()

    def perturb(text: str) -> str:
        return "".join(map(perturb_piece, pieces(text)))

    def perturb_piece(text: str) -> str:
        current = textattack.shared.AttackedText(text)
        count = len(current.words)
        left = max(int(share * count), 1)
        for index in random.sample(range(count), count):
            if not left:
                break
            found = transformation(current, constraints, {index}, shifted_idxs=True)
            if found:
                current = random.choice(found)
                left -= 1
        return str(current.printable_text())

    return perturb


def pieces(text: str) -> list[str]:
    """Cut a text between words into pieces of `PIECE` words; the last may have nearly twice as many."""
    words = [match.start() for match in re.finditer(r"\S+", text)]
    cuts = words[PIECE : len(words) - PIECE + 1 : PIECE]
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]


def random_case(text: str) -> str:
    """The text in lower or upper case, in title case, or with both cases swapped; drawn by `random`."""
    return random.choice(CASES)(text)


def changed_share(texts: TextData, perturbed: Mapping[PerturbationName, TextData]) -> dict[str, float]:
    """Share of the texts that each kind of perturbation changed."""
    before = list(zip(texts.texts, texts.pairs or texts.texts, strict=True))
    return {
        kind: sum(a != b for a, b in zip(before, zip(d.texts, d.pairs or d.texts, strict=True), strict=True))
        / len(before)
        for kind, d in perturbed.items()
    }
