"""How many attacked texts it takes to tell two models apart, by each figure of the same attacks.

    python -m benchmarks.attack_power FIRST SECOND [--quick] [--output FILE]

FIRST and SECOND are outputs of `compress attack` on the same examples. Of these, so many are drawn with
replacement, again and again. Power is the share of draws in which the 95 % interval of the difference
excludes zero; a false alarm is the same where each drawn example's two models changed places by the toss of a
coin, so that there is no difference to be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.attacks.records import ROBUSTNESS_RECORD, AttackedExample, read_examples
from compressor.errors import UserError
from compressor.intervals import Interval, paired_difference, paired_mean_difference
from compressor.options import RunConfig
from compressor.options.robustness import LONGEST_WORD_BUDGET
from compressor.system.environment import describe_environment
from compressor.system.files import read_json

BUDGETS = (1.0, 0.1, 0.15)
MEAN = f"mean over 0 to {LONGEST_WORD_BUDGET:.0%}"


def figures_of(examples: Sequence[AttackedExample]) -> dict[str, list[float]]:
    """What each figure counts of each example, by the figure's name."""
    counted = {
        "accuracy under attack" if share == 1 else f"with {share:.0%} of the words": [
            float(example.holds_out(share)) for example in examples
        ]
        for share in BUDGETS
    }
    return counted | {MEAN: [example.held_budgets(LONGEST_WORD_BUDGET) for example in examples]}


def interval_of(name: str, first: list[float], second: list[float]) -> Interval:
    """The interval that the toolkit tells of that figure's difference."""
    if name == MEAN:
        return paired_mean_difference(first, second).interval
    return paired_difference([value == 1 for value in first], [value == 1 for value in second]).interval


def excludes_zero(
    name: str, pairs: NDArray[np.float64], count: int, draws: int, *, tossed: bool, seed: int
) -> float:
    """Share of draws whose interval excludes zero.

    Args:
        pairs: `(2, examples)`, what counts of each example for the first and the second model.
        tossed: whether the two change places at random.
    """
    generator = np.random.default_rng(seed)
    found = 0
    for _ in range(draws):
        first, second = pairs[:, generator.integers(pairs.shape[1], size=count)]
        if tossed:
            swapped = generator.random(count) < 0.5
            first, second = np.where(swapped, second, first), np.where(swapped, first, second)
        ends = interval_of(name, first.tolist(), second.tolist())
        found += ends.low > 0 or ends.high < 0
    return found / draws


def table(rows: list[dict[str, Any]], counts: Sequence[int]) -> str:
    """One line a figure."""
    header = [
        "figure",
        "difference",
        *(f"power, {n} texts" for n in counts),
        f"false alarms, {counts[-1]} texts",
    ]
    return markdown_table(
        header,
        [
            [
                row["figure"],
                f"{100 * row['difference']:+.1f}",
                *(f"{row['power'][str(n)]:.0%}" for n in counts),
                f"{row['false_alarms']:.1%}",
            ]
            for row in rows
        ],
    )


def main(
    first: Annotated[Path, typer.Argument(help="Output of compress attack on one model.")],
    second: Annotated[Path, typer.Argument(help="The same on another one.")],
    counts: Annotated[list[int] | None, typer.Option(help="Numbers of texts.")] = None,
    draws: Annotated[int, typer.Option(help="Of each number of texts.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "attack_power.json",
    quick: Annotated[bool, typer.Option("--quick", help="200 draws.")] = False,
) -> None:
    """Measure the power of comparisons of two attacks."""
    counts = counts or [50, 100, 200, 400]
    draws = 200 if quick else draws
    one, other = read_examples(first), read_examples(second)
    if [example.text for example in one] != [example.text for example in other]:
        raise UserError(f"{second}: other examples were attacked than in {first}")
    figures = figures_of(one), figures_of(other)
    rows = []
    for name in figures[0]:
        pairs = np.array([figures[0][name], figures[1][name]])
        power = {str(n): excludes_zero(name, pairs, n, draws, tossed=False, seed=seed) for n in counts}
        alarms = excludes_zero(name, pairs, counts[-1], draws, tossed=True, seed=seed)
        difference = float(np.mean(pairs[0] - pairs[1]))
        rows.append({"figure": name, "difference": difference, "power": power, "false_alarms": alarms})
    record = read_json(first / ROBUSTNESS_RECORD)
    result = {
        "environment": describe_environment(RunConfig()),
        "attack": record["options"]["attack"],
        "examples": len(one),
        "draws": draws,
        "seed": seed,
        "rows": rows,
    }
    write_result(output, result)
    print(table(rows, counts))


if __name__ == "__main__":
    typer.run(main)
