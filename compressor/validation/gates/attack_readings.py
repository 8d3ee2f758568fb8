"""Figures of attacks, as gates bound them and reports are compared by. Pure functions."""

from __future__ import annotations

from compressor.intervals import Interval
from compressor.validation.gates.metric import (
    Measured,
    Pairs,
    Reading,
    Readings,
    difference_from,
    ends,
    of_classes,
)
from compressor.validation.schema import (
    AgainstFigures,
    DifferenceFigures,
    RobustnessFigures,
    VariantFigures,
    WordBudgetFigures,
)


def budget_name(share: float) -> str:
    """`0.1 of words`."""
    return f"{share:g} of words"


def robustness(figures: VariantFigures) -> RobustnessFigures:
    return of_classes(figures.robustness)


def attacks(figures: VariantFigures) -> AgainstFigures:
    if figures.against_dense is None:
        raise ValueError("the artifact's attack was not compared with that on the dense model")
    return figures.against_dense


def mean_under_attack(_: Measured, figures: VariantFigures) -> Readings:
    found = robustness(figures).mean_accuracy_under_attack
    if found is None:
        return {}
    return {"": Reading(found.mean, ends(found.interval), possible=Interval(0.0, 1.0))}


def mean_drop(measured: Measured, figures: VariantFigures) -> Readings:
    dense = robustness(measured.variants.dense).mean_accuracy_under_attack
    drop = attacks(figures).mean_accuracy_under_attack_drop
    if dense is None or drop is None:
        return {}
    return {"": Reading(drop.difference, ends(drop.interval), possible=difference_from(dense.mean))}


def paired_attacks(first: VariantFigures, second: VariantFigures, _: str) -> Pairs | None:
    against = _held_against(first, second)
    if against is None:
        return None
    return _pairs(against.accuracy_under_attack_drop, robustness(first).accuracy_under_attack)


def paired_within_budgets(first: VariantFigures, second: VariantFigures, place: str) -> Pairs | None:
    against = _held_against(first, second)
    if against is None:
        return None
    drops = {
        budget_name(drop.max_words_changed): drop.accuracy_under_attack_drop for drop in against.word_budgets
    }
    return _pairs(drops[place], _budgets(first)[place].accuracy_under_attack)


def _held_against(first: VariantFigures, second: VariantFigures) -> AgainstFigures | None:
    """The comparison of the two attacks, where the second is the dense model; None of any other two."""
    return first.against_dense if second.against_dense is None else None


def _pairs(drop: DifferenceFigures, share: float) -> Pairs:
    """What the drop from the dense model counted, the variant's own share at hand."""
    held = round(share * drop.examples)
    return Pairs(held - drop.only_second, drop.only_second, drop.only_first, drop.examples)


def _budgets(figures: VariantFigures) -> dict[str, WordBudgetFigures]:
    return {budget_name(budget.max_words_changed): budget for budget in robustness(figures).word_budgets}


def within_budgets(_: Measured, figures: VariantFigures) -> Readings:
    return {
        place: Reading(budget.accuracy_under_attack, ends(budget.interval), possible=Interval(0.0, 1.0))
        for place, budget in _budgets(figures).items()
    }


def drops_within_budgets(measured: Measured, figures: VariantFigures) -> Readings:
    dense = _budgets(measured.variants.dense)
    return {
        (place := budget_name(budget.max_words_changed)): Reading(
            budget.accuracy_under_attack_drop.difference,
            ends(budget.accuracy_under_attack_drop.interval),
            possible=difference_from(dense[place].accuracy_under_attack),
        )
        for budget in attacks(figures).word_budgets
    }
