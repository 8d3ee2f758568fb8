"""Which texts two models are compared on: clean ones, attacked ones, and one sentence to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.attacks.records import EXAMPLES_RECORD, ROBUSTNESS_RECORD, read_examples
from compressor.data.texts import TextData, load_text_data
from compressor.errors import UserError
from compressor.options import ColumnsConfig
from compressor.options.section import flag_name
from compressor.system.files import read_json


@dataclass(frozen=True)
class KnowledgeOptions:
    """What a sparse model is held against, and on which texts.

    Attributes:
        against: the dense classifier, a directory or hub id.
        data: clean texts, a file or hub id; labels are not needed.
        attacked: a directory that the attack stage wrote.
        sentence, attacked_sentence: for the attention maps.
        examples: most texts of a set that are compared.
        attention_layer: encoder layer of the attention maps, from 1; None takes the last.
    """

    against: str
    data: str | None = None
    attacked: Path | None = None
    sentence: str | None = None
    attacked_sentence: str | None = None
    examples: int = 256
    attention_layer: int | None = None


@dataclass(frozen=True)
class KnowledgeTexts:
    """Texts by name, "clean" first, then "attacked" where there are any.

    Attributes:
        sets: texts to compare on.
        sources: where each set is from.
        sentences: for the attention maps, one example each.
        attacks: facts on the attack that `sets["attacked"]` is from, or None.
    """

    sets: dict[str, TextData]
    sources: dict[str, str]
    sentences: dict[str, TextData]
    attacks: dict[str, Any] | None


def knowledge_options(
    against: str | None, columns: ColumnsConfig, values: Mapping[str, Any]
) -> KnowledgeOptions | None:
    """Options of a comparison as the command line has them; None if none is asked for.

    Args:
        values: fields of `KnowledgeOptions` besides `against`; None where a flag was not given.

    Raises:
        UserError: an option that another one is missing for.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if against is None:
        fields = ColumnsConfig.model_fields
        stray = [*given, *(name for name in fields if getattr(columns, name) != fields[name].default)]
        if stray:
            raise UserError(
                f"{flag_name(stray[0])}: is for the comparison with a dense model; name that model "
                f"with --against DENSE"
            )
        return None
    options = KnowledgeOptions(against=against, **given)
    if options.data is None and options.attacked is None:
        raise UserError(
            "--against: needs texts to compare on; give --data FILE, or --attacked DIR from compress attack"
        )
    if options.attacked_sentence is not None and options.sentence is None:
        raise UserError("--attacked-sentence: needs the sentence before the attack; give --sentence TEXT")
    for name in ("sentence", "attacked_sentence"):
        if not (given.get(name) or "x").strip():
            raise UserError(f"{flag_name(name)}: is empty; give a text")
    return options


def load_sets(options: KnowledgeOptions, columns: ColumnsConfig, seed: int) -> KnowledgeTexts:
    """Load the texts of a comparison.

    Without data of their own, the clean texts are the originals of the attacked ones, pair by pair,
    so that the two sets differ in nothing but the attack.

    Raises:
        UserError: bad data, no record of an attack, or an attack that never succeeded.
    """
    sets: dict[str, TextData] = {}
    sources: dict[str, str] = {}
    attacks = None
    if options.data is not None:
        data = load_text_data(options.data, columns, "test", needs_labels=False)
        sets["clean"] = data.sample(options.examples, seed)
        sources["clean"] = data.record(columns)["source"]
    if options.attacked is not None:
        record = _attack_record(options.attacked)
        originals, perturbed = _successes(options.attacked)
        chosen = sorted(np.random.default_rng(seed).permutation(len(perturbed))[: options.examples].tolist())
        first = {"clean": originals.select([0]), "attacked": perturbed.select([0])}
        sets = {"clean": originals.select(chosen), **sets, "attacked": perturbed.select(chosen)}
        directory = str(options.attacked)
        sources = {"clean": directory, **sources, "attacked": directory}
        attacks = {"path": directory, **record, "succeeded": len(perturbed)}
    else:
        first = {"clean": sets["clean"].select([0])}
    return KnowledgeTexts(sets, sources, _given_sentences(options) or first, attacks)


def _given_sentences(options: KnowledgeOptions) -> dict[str, TextData]:
    texts = {"clean": options.sentence, "attacked": options.attacked_sentence}
    return {
        name: TextData([text], None, None, [], flag_name("sentence"))
        for name, text in texts.items()
        if text is not None
    }


def _attack_record(directory: Path) -> dict[str, Any]:
    """Attack and victim, from the attack stage's record."""
    path = directory / ROBUSTNESS_RECORD
    if not path.is_file():
        raise UserError(
            f"--attacked {directory}: has no {ROBUSTNESS_RECORD}; give a directory that compress attack wrote"
        )
    record = read_json(path)
    try:
        return {"attack": record["attack"], "victim": record["model"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a record of an attack; run compress attack again") from error


def _successes(directory: Path) -> tuple[TextData, TextData]:
    """Originals and perturbed texts of the successful attacks, in the same order."""
    successes = [example for example in read_examples(directory) if example.outcome == "succeeded"]
    if not successes:
        raise UserError(
            f"--attacked {directory}: no attack succeeded there, so it holds no attacked text; attack more "
            f"examples, or give --data alone"
        )
    path = directory / EXAMPLES_RECORD
    originals = _text_data([(example.text, example.text_pair) for example in successes], path)
    return originals, _text_data([(e.perturbed, e.perturbed_pair) for e in successes], path)


def _text_data(rows: list[tuple[str, str | None]], path: Path) -> TextData:
    texts = [text for text, _ in rows]
    pairs = [pair for _, pair in rows if pair is not None]
    return TextData(texts, pairs or None, None, [], str(path))
