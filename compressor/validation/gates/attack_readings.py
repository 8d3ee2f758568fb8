"""Figures of attacks, as gates bound them and reports are compared by. Pure functions.

Where several attacks ran, each has a reading at the place of its name, and at each of its word budgets.
"""

from __future__ import annotations

from collections.abc import Callable

from compressor.intervals import Interval
from compressor.validation.gates.metric import (
    Measured,
    Pairs,
    Reading,
    Readings,
    difference_from,
    ends,
    of_classes,
    share,
)
from compressor.validation.schema import (
    AgainstFigures,
    AttackFigures,
    DifferenceFigures,
    RobustnessFigures,
    VariantFigures,
    WordBudgetFigures,
)

# Between an attack and a word budget in the name of a place; no name of an attack has a comma.
_WITHIN = ", "


def place_name(attack: str, budget: float | None = None) -> str:
    """`pwws, 0.1 of words`; without the attack where only one ran, whose name is empty here."""
    return _WITHIN.join(filter(None, (attack, "" if budget is None else f"{budget:g} of words")))


def attack_at(place: str) -> str:
    """Return which of several attacks a place is about."""
    return place.partition(_WITHIN)[0]


def each_attack(figures: VariantFigures) -> dict[str, AttackFigures]:
    """Return the figures of each of several attacks by its name; of a single one under an empty name."""
    if figures.attacks:
        return {one.robustness.attack: one for one in figures.attacks}
    return {"": _all_attacks(figures)}


def _all_attacks(figures: VariantFigures) -> AttackFigures:
    return AttackFigures(robustness=of_classes(figures.robustness), against_dense=figures.against_dense)


def against_dense(figures: AttackFigures) -> AgainstFigures:
    if figures.against_dense is None:
        raise ValueError("the artifact's attack was not compared with that on the dense model")
    return figures.against_dense


def under_attack(figures: AttackFigures) -> Reading:
    found = figures.robustness
    interval = ends(found.accuracy_under_attack_interval)
    return Reading(found.accuracy_under_attack, interval, possible=Interval(0.0, 1.0))


def attack_drop(figures: AttackFigures, dense: RobustnessFigures) -> Reading:
    return Reading(
        dense.accuracy_under_attack - figures.robustness.accuracy_under_attack,
        ends(against_dense(figures).accuracy_under_attack_drop.interval),
        possible=difference_from(dense.accuracy_under_attack),
    )


def success_rate(figures: AttackFigures) -> Reading:
    found = figures.robustness
    return share(found.attack_success_rate, found.attack_success_rate_interval)


def success_rate_rise(figures: AttackFigures, dense: RobustnessFigures) -> Reading:
    before = dense.attack_success_rate or 0.0
    own = figures.robustness.attack_success_rate or 0.0
    return Reading(own - before, possible=difference_from(1 - before))


def transfer_rate(figures: AttackFigures, _: RobustnessFigures) -> Reading:
    transfer = against_dense(figures).transfer
    return share(transfer.rate, transfer.interval)


def largest_drop(figures: AttackFigures, _: RobustnessFigures) -> Reading:
    """What the drop may still be, given the number of examples."""
    return Reading(against_dense(figures).accuracy_under_attack_drop.interval.high)


def of_each(read: Callable[[AttackFigures], Reading]) -> Callable[[Measured, VariantFigures], Readings]:
    """A figure of any variant, for each attack."""
    return lambda _, figures: {name: read(one) for name, one in each_attack(figures).items()}


def of_each_against(
    read: Callable[[AttackFigures, RobustnessFigures], Reading],
) -> Callable[[Measured, VariantFigures], Readings]:
    """A figure of a variant and the dense model, for each attack."""

    def readings(measured: Measured, figures: VariantFigures) -> Readings:
        dense = each_attack(measured.variants.dense)
        return {name: read(one, dense[name].robustness) for name, one in each_attack(figures).items()}

    return readings


def under_all_attacks(_: Measured, figures: VariantFigures) -> Readings:
    """The accuracy under all of several attacks; no reading of a single one."""
    return {"": under_attack(_all_attacks(figures))} if figures.attacks else {}


def all_attacks_drop(measured: Measured, figures: VariantFigures) -> Readings:
    dense = of_classes(measured.variants.dense.robustness)
    return {"": attack_drop(_all_attacks(figures), dense)} if figures.attacks else {}


def mean_under_attack(_: Measured, figures: VariantFigures) -> Readings:
    found = {name: one.robustness.mean_accuracy_under_attack for name, one in each_attack(figures).items()}
    return {
        name: Reading(mean.mean, ends(mean.interval), possible=Interval(0.0, 1.0))
        for name, mean in found.items()
        if mean is not None
    }


def mean_drop(measured: Measured, figures: VariantFigures) -> Readings:
    denses, readings = each_attack(measured.variants.dense), {}
    for name, one in each_attack(figures).items():
        dense = denses[name].robustness.mean_accuracy_under_attack
        drop = against_dense(one).mean_accuracy_under_attack_drop
        if dense is not None and drop is not None:
            possible = difference_from(dense.mean)
            readings[name] = Reading(drop.difference, ends(drop.interval), possible=possible)
    return readings


def paired_attacks(first: VariantFigures, second: VariantFigures, place: str) -> Pairs | None:
    return _paired(each_attack(first)[place], second)


def paired_all_attacks(first: VariantFigures, second: VariantFigures, _: str) -> Pairs | None:
    return _paired(_all_attacks(first), second)


def _paired(figures: AttackFigures, second: VariantFigures) -> Pairs | None:
    against = _held_against(figures, second)
    if against is None:
        return None
    return _pairs(against.accuracy_under_attack_drop, figures.robustness.accuracy_under_attack)


def paired_within_budgets(first: VariantFigures, second: VariantFigures, place: str) -> Pairs | None:
    attack = attack_at(place) if first.attacks else ""
    figures = each_attack(first)[attack]
    against = _held_against(figures, second)
    if against is None:
        return None
    drops = {
        place_name(attack, drop.max_words_changed): drop.accuracy_under_attack_drop
        for drop in against.word_budgets
    }
    return _pairs(drops[place], _budgets(attack, figures)[place].accuracy_under_attack)


def _held_against(first: AttackFigures, second: VariantFigures) -> AgainstFigures | None:
    """The comparison of the two attacks, where the second is the dense model; None of any other two."""
    return first.against_dense if second.against_dense is None else None


def _pairs(drop: DifferenceFigures, share: float) -> Pairs:
    """What the drop from the dense model counted, the variant's own share at hand."""
    held = round(share * drop.examples)
    return Pairs(held - drop.only_second, drop.only_second, drop.only_first, drop.examples)


def _budgets(attack: str, figures: AttackFigures) -> dict[str, WordBudgetFigures]:
    budgets = figures.robustness.word_budgets
    return {place_name(attack, budget.max_words_changed): budget for budget in budgets}


def within_budgets(_: Measured, figures: VariantFigures) -> Readings:
    return {
        place: Reading(budget.accuracy_under_attack, ends(budget.interval), possible=Interval(0.0, 1.0))
        for attack, one in each_attack(figures).items()
        for place, budget in _budgets(attack, one).items()
    }


def drops_within_budgets(measured: Measured, figures: VariantFigures) -> Readings:
    denses, readings = each_attack(measured.variants.dense), {}
    for attack, one in each_attack(figures).items():
        dense = _budgets(attack, denses[attack])
        for budget in against_dense(one).word_budgets:
            place, drop = place_name(attack, budget.max_words_changed), budget.accuracy_under_attack_drop
            possible = difference_from(dense[place].accuracy_under_attack)
            readings[place] = Reading(drop.difference, ends(drop.interval), possible=possible)
    return readings
