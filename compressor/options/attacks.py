"""Attacks by their names: TextAttack's recipe of each, and what the rest must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from compressor.errors import UserError
from compressor.options.registry import Registry, package_of
from compressor.options.section import Section

# What `AttackResources` can provide.
RESOURCES = frozenset(
    {"word_vectors", "sentence_encoder", "part_of_speech", "masked_language_model", "synonyms"}
)


@dataclass(frozen=True)
class Attack:
    """An attack that can be asked for by its name.

    Attributes:
        recipe: `module:class` of a TextAttack `AttackRecipe`, imported when TextAttack is ready, which it is
            not before an attack is built. Its `build` is given the victim, and the options by name.
        needs: resources that stand in for what the recipe would download, of `RESOURCES`.
        replaces_in_order: whether it puts one word in another's place, each once at most, in an order that
            is fixed before the first change, so that figures within word budgets can be read off a run.
        options: section of the attack's own options.

    Raises:
        ValueError: a resource that there is not.
    """

    recipe: str
    needs: frozenset[str] = frozenset()
    replaces_in_order: bool = False
    options: type[Section] = Section

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
}
ATTACK_REGISTRY = Registry("attack", "compress.attacks", tuple(ATTACKS))

AttackName = Annotated[str, ATTACK_REGISTRY]


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
