"""The greedy average of fine-tuned models (algorithm 3 of Li et al., EMNLP 2023), and its grid of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.options import FinetuneConfig, SoupConfig

# Options of a fine-tuning that a grid varies: the grid's name of each, and the option's.
AXES = {
    "learning_rates": "learning_rate",
    "optimizers": "optimizer",
    "epoch_counts": "epochs",
    "weight_decays": "weight_decay",
    "adversarial_step_counts": "adversarial_steps",
    "substituted_shares": "substituted_share",
}


def grid_runs(config: SoupConfig, seed: int) -> list[FinetuneConfig]:
    """The fine-tuning runs of a grid: a Latin hypercube, so that a few runs see every value of each axis.

    Along each axis every value is taken equally often, or once more than another.
    """
    generator = np.random.default_rng(seed)
    shared = config.model_dump(include=set(FinetuneConfig.model_fields))
    columns = {}
    for axis, option in AXES.items():
        values = getattr(config, axis)
        places = generator.permutation(np.resize(generator.permutation(len(values)), config.runs))
        columns[option] = [values[place] for place in places]
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [FinetuneConfig.model_validate(shared | row) for row in rows]


def average_weights(models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of weights of the same names and shapes, taken in float64; what is no float is the first's.

    Raises:
        ValueError: the names or shapes differ, or there are no models.
    """
    if not models:
        raise ValueError("there is nothing to average")
    first = models[0]
    shapes = {name: value.shape for name, value in first.items()}
    if any({name: value.shape for name, value in model.items()} != shapes for model in models[1:]):
        raise ValueError("the models' weights differ in name or shape")
    return {
        name: torch.stack([model[name].double() for model in models]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in first.items()
    }


@dataclass(frozen=True)
class Score:
    """What a model does on held-out texts, from 0 to 1.

    Attributes:
        robustness: accuracy under attack, or its mean over word budgets.
    """

    accuracy: float
    robustness: float


@dataclass(frozen=True)
class Trial:
    """One step of the greedy average.

    Attributes:
        run: the model that is tried.
        score: of the average with it; None if it was not averaged, since it is too inaccurate itself.
        kept: whether it stays in.
    """

    run: int
    score: Score | None
    kept: bool


def greedy_soup(
    scores: Sequence[Score], score_of: Callable[[tuple[int, ...]], Score], accuracy_tolerance: float
) -> list[Trial]:
    """Which models to average: most robust first, each kept if the average is no less robust for it.

    The paper's algorithm looks at the accuracy under attack alone. There a model that answers the same to
    everything is hard to beat, so no model or average may lose more than a tolerance of accuracy.

    Args:
        scores: of each model by itself; of equals the first comes first.
        score_of: score of the average of the models at those places.
        accuracy_tolerance: what may be lost of the most accurate model's accuracy.

    Returns:
        One trial a model, in the order in which they were tried; the first one's has its own score.

    Raises:
        ValueError: no models.
    """
    if not scores:
        raise ValueError("there is nothing to average")
    least = max(score.accuracy for score in scores) - accuracy_tolerance
    order = sorted(range(len(scores)), key=lambda run: -scores[run].robustness)
    able = [run for run in order if scores[run].accuracy >= least]
    kept: tuple[int, ...] = (able[0],)
    best = scores[able[0]].robustness
    trials = [Trial(able[0], scores[able[0]], kept=True)]
    for run in able[1:]:
        score = score_of((*kept, run))
        stays = score.accuracy >= least and score.robustness >= best
        trials.append(Trial(run, score, stays))
        if stays:
            kept, best = (*kept, run), score.robustness
    return trials + [Trial(run, None, kept=False) for run in order if run not in able]
