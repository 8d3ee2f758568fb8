"""What a figure of a report is: its readings, what they depend on, and how two of them compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from compressor.intervals import Interval, difference_interval, paired_interval
from compressor.validation.schema import IntervalFigures, Report, VariantFigures, Variants

# What a figure depends on besides the model: where it differs, two reports do not compare.
Basis = Literal["data", "attack", "machine"]


@dataclass(frozen=True)
class Measured:
    """What is read.

    Attributes:
        majority_share: share of the most frequent label; None of a regression.
        class_coverage: share of the model's classes that the test data hold; None of a regression, and where
            it was not measured.
    """

    variants: Variants
    majority_share: float | None
    class_coverage: float | None = None

    @classmethod
    def of(cls, report: Report) -> Measured:
        return cls(report.variants, report.majority_share, report.class_coverage)


@dataclass(frozen=True)
class Reading:
    """One figure.

    Attributes:
        interval: at 95 %; None for figures that have none.
        doubt: why it is not to be relied on, if it is not.
        possible: the least and the most that it could be on these examples, whatever the artifact is;
            None where bounds outside are no mishap.
        undefined: why nothing follows from it whatever the bound, if nothing does.
    """

    value: float
    interval: Interval | None = None
    doubt: str | None = None
    possible: Interval | None = None
    undefined: str | None = None


# By shape, such as `1 x 32`, for times, and by share of words for bounded attacks; under an empty name for
# all else. Empty where the attack tells no such figure.
Readings = dict[str, Reading]


@dataclass(frozen=True)
class Pairs:
    """Numbers of examples that count for two shares, for one of them alone, and of all."""

    both: int
    only_first: int
    only_second: int
    examples: int


PairCounts = Callable[[VariantFigures, VariantFigures, str], Pairs | None]


@dataclass(frozen=True)
class Metric:
    """A figure by name.

    Attributes:
        read: its readings for a variant.
        of_one: whether it is of a single variant, so that the dense model has it as well.
        has_interval: whether its readings have one.
        basis: what it depends on besides the model.
        pair: counts of two variants on the same examples at a place, where these are known.
    """

    read: Callable[[Measured, VariantFigures], Readings]
    of_one: bool
    has_interval: bool
    basis: frozenset[Basis]
    pair: PairCounts = lambda first, second, place: None

    def difference_interval(
        self,
        place: str,
        first: Reading,
        second: Reading,
        of_first: VariantFigures,
        of_second: VariantFigures,
        factor: float = 1.0,
    ) -> Interval | None:
        """Return the 95 % interval of `first - factor * second`; None for metrics without one.

        Where the pairs are not known, the two count as independent, which makes it wider, never narrower.

        Args:
            place: of both readings.
            of_first: figures of the variant that `first` was read from; `of_second` likewise.
        """
        pairs = self.pair(of_first, of_second, place)
        if pairs is not None:
            counts = (pairs.both, pairs.only_first, pairs.only_second, pairs.examples)
            return paired_interval(*counts, factor=factor)
        if first.interval is None or second.interval is None:
            return None
        return difference_interval(first.value, first.interval, second.value, second.interval, factor=factor)


Figure = TypeVar("Figure")


def of_classes(figure: Figure | None) -> Figure:
    if figure is None:
        raise ValueError("a regression has no such figure")
    return figure


def ends(interval: IntervalFigures | None) -> Interval | None:
    return None if interval is None else Interval(interval.low, interval.high)


def difference_from(share: float) -> Interval:
    """What is left of a share if another share, which may be any, is taken away."""
    return Interval(share - 1, share)


def share(value: float | None, interval: IntervalFigures | None) -> Reading:
    # Where there was nothing to count, such as no text to attack, nothing was counted.
    return Reading(value or 0.0, ends(interval))
