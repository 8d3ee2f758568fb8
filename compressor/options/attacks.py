"""Attacks by their names: TextAttack's recipe of each, and what the rest must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from compressor.errors import UserError
from compressor.options.registry import Registry, SeveralOf, package_of
from compressor.options.section import Section

# What `AttackResources` can provide.
RESOURCES = frozenset(
    {"word_vectors", "sentence_encoder", "part_of_speech", "masked_language_model", "synonyms"}
)


class BadCharactersConfig(Section):
    """Imperceptible changes of characters, found by differential evolution.

    A search takes at most `population * changes * (generations + 1)` queries for a text; twice as many of the
    kinds invisible and deletions, whose changes have two numbers each.
    """

    kind: Literal["homoglyphs", "invisible", "deletions", "reorderings"] = Field(
        "homoglyphs",
        description="What a change is: another character that looks the same, one that is not shown, one "
        "that a backspace takes away, or two that are shown in the other order.",
    )
    changes: int = Field(1, ge=1, le=20, description="Maximum number of changes in a text.")
    population: int = Field(
        32, ge=5, le=1000, description="Members of a generation, for each number of a solution."
    )
    generations: int = Field(10, ge=1, le=1000, description="Maximum number of generations after the first.")


@dataclass(frozen=True)
class Attack:
    """An attack that can be asked for by its name.

    Attributes:
        recipe: `module:class` of a TextAttack `AttackRecipe`, imported when TextAttack is ready, which it is
            not before an attack is built. Its `build` is given the victim, and the options by name. A class
            alone is one of `compressor.attacks.adapted`, which only stages that attack depend on.
        needs: resources that stand in for what the recipe would download, of `RESOURCES`.
        replaces_in_order: whether it puts one word in another's place, each once at most, in an order that
            is fixed before the first change, so that figures within word budgets can be read off a run.
        options: section of the attack's own options.
        differs: what is otherwise than in TextAttack's recipe, by a name, for the records.

    Raises:
        ValueError: a resource that there is not.
    """

    recipe: str
    needs: frozenset[str] = frozenset()
    replaces_in_order: bool = False
    options: type[Section] = Section
    differs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(self.needs - RESOURCES)
        if unknown:
            raise ValueError(f"needs {', '.join(unknown)}; there are {', '.join(sorted(RESOURCES))}")


# DeepWordBug could take the last letter of what counts as a word; of 1,601 attacked quotes none lost a word.
ATTACKS: dict[str, Attack] = {
    "deepwordbug": Attack("textattack.attack_recipes:DeepWordBugGao2018", replaces_in_order=True),
    "textfooler": Attack(
        "textattack.attack_recipes:TextFoolerJin2019",
        frozenset({"word_vectors", "sentence_encoder", "part_of_speech"}),
        replaces_in_order=True,
    ),
    "textbugger": Attack(
        "textattack.attack_recipes:TextBuggerLi2018", frozenset({"word_vectors", "sentence_encoder"})
    ),
    "bertattack": Attack(
        "textattack.attack_recipes:BERTAttackLi2020",
        frozenset({"sentence_encoder", "masked_language_model"}),
        replaces_in_order=True,
    ),
    "pwws": Attack("textattack.attack_recipes:PWWSRen2019", frozenset({"synonyms"}), replaces_in_order=True),
    "pruthi": Attack("textattack.attack_recipes:Pruthi2019"),
    "inputreduction": Attack("textattack.attack_recipes:InputReductionFeng2018"),
    "a2t": Attack(
        "textattack.attack_recipes:A2TYoo2021",
        frozenset({"word_vectors", "sentence_encoder", "part_of_speech"}),
        replaces_in_order=True,
        differs={
            "word_order": "by deletion of each word, not by gradients, which exported graphs do not have"
        },
    ),
    "badcharacters": Attack(
        "BadCharacters",
        options=BadCharactersConfig,
        differs={
            "goal": "any class but the text's own",
            "homoglyphs": "TextAttack's table for words, of 37 characters, not Unicode's intentional.txt",
        },
    ),
    "checklist": Attack(
        "CheckList",
        differs={"names_and_locations": "not changed: TextAttack finds them with flair's tagger"},
    ),
}
ATTACK_REGISTRY = Registry("attack", "compress.attacks", tuple(ATTACKS), lambda name: ATTACKS[name].options)

AttackName = Annotated[str, ATTACK_REGISTRY]
AttackNames = Annotated[str, SeveralOf(ATTACK_REGISTRY)]


def attack_named(name: str) -> Attack:
    """Return the attack of a name, built in or registered by a package.

    Raises:
        UserError: no such name, or what a package registered under it is no attack.
    """
    entry = ATTACK_REGISTRY.entry_point(name)
    if entry is None:
        return ATTACKS[name]
    found = ATTACK_REGISTRY.load(name)
    if not isinstance(found, Attack):
        raise UserError(
            f"attack: {name!r}, {entry.value} of {package_of(entry)}, is of type {type(found).__name__}, not "
            f"compressor.options.Attack"
        )
    return found


def with_word_budgets() -> list[str]:
    """Return the names of the attacks built in whose runs tell figures within word budgets, sorted."""
    return sorted(name for name, attack in ATTACKS.items() if attack.replaces_in_order)
