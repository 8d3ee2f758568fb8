"""Randomized masks against deterministic ones, at equal training steps, from 50 to 99 % zeros.

    python -m benchmarks.randomized_vs_imp DENSE TRAIN TEST --output FILE [--seeds N] [--quick]

DENSE is fine-tuned on TRAIN. One run passes through all sparsities and is measured on TEST behind each step.
Iterative magnitude pruning (IMP) takes one mask a step, by magnitude; it recovers for as many training steps
as the randomized method takes for its candidates and its recovery together. Both also run with
`--saliency adaptive`, masks of algorithm 1 and weights re-solved on them, which costs no training step: so
the table tells what chance does and what the saliency does. Candidates are compared on a part of TRAIN that
is not trained on. Runs that FILE has already are kept.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from benchmarks.experiment import (
    CALIBRATION_TEXTS,
    MAX_LENGTH,
    Dense,
    Experiment,
    Output,
    Seeds,
    Test,
    Train,
    with_spread,
)
from benchmarks.results_file import RESULTS, find_row, known_rows, markdown_table, write_result
from compressor.data.texts import TextData
from compressor.models.classifier import Classifier, load_classifier
from compressor.models.metrics import measure_task
from compressor.models.predictors import TorchPredictor, predict
from compressor.options import AdaptiveConfig, ClassMetricName, PruneConfig, RandomizedConfig, RunConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.system.checkpoint import NoCheckpoint, Part
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare

SPARSITIES = [0.5, 0.75, 0.9375, 0.99]
METHODS = ("IMP", "randomized", "adaptive saliency", "randomized, adaptive saliency")
# Of the walk behind adaptive saliencies, one for each candidate.
ITERATIONS = 30
METRICS: tuple[ClassMetricName, ...] = ("accuracy", "f1", "matthews")
# Recovery and early evaluation, unless a table varies them. The rate is the best of 1e-4, 3e-4 and 1e-3 for
# IMP at 93.75 and 99 %, on sentences of SST-2's training data.
TRAINING: dict[str, Any] = {
    "early_learning_rate": 1e-3,
    "learning_rate": 1e-3,
    "holdout_examples": 512,
}


class Measured(NoCheckpoint):
    """Measures the model behind each pruning step."""

    def __init__(self, classifier: Classifier, test: TextData) -> None:
        self._classifier = classifier
        self._test = test
        self.figures: list[dict[str, float]] = []

    def save(self, name: str, part: Part) -> None:
        del name, part
        self.figures.append(figures(self._classifier, self._test))


def figures(classifier: Classifier, test: TextData) -> dict[str, float]:
    """Each metric of a classifier."""
    logits = predict(TorchPredictor(classifier), test, MAX_LENGTH, progress=terminal_progress())
    return {metric: measure_task(metric, logits, test.targets) for metric in METRICS}


def config_of(method: str, settings: RandomizedConfig) -> RandomizedConfig:
    """A method's options; all have the same number of training steps in each pruning step."""
    changes: dict[str, Any] = {}
    if not method.startswith("randomized"):
        budget = settings.recovery_steps + settings.candidates * settings.early_steps
        changes = {"candidates": 1, "sampling_ratio": 0.0, "early_steps": 0, "recovery_steps": budget}
        changes["reference"] = "dense"
    if method.endswith("adaptive saliency"):
        changes["saliency"] = "adaptive"
    return settings.model_copy(update=changes)


def run(experiment: Experiment, config: RandomizedConfig, train_texts: int, seed: int) -> dict[str, Any]:
    """One run on texts drawn with the seed: the figures behind each step, and what was tried and chosen."""
    classifier = load_classifier(experiment.dense)
    measured = Measured(classifier, experiment.test)
    sparsities = config.step_sparsities or []
    options = PruneConfig(
        algorithm="randomized",
        sparsity=sparsities[-1],
        calibration_examples=CALIBRATION_TEXTS,
        adaptive=AdaptiveConfig(iterations=ITERATIONS),
        randomized=config,
    )
    job = PruningJob(options, MAX_LENGTH, seed, measured)
    texts = experiment.calibration.sample(train_texts, seed)
    result = prune_classifier(classifier, texts, job, terminal_progress())
    steps = dict(zip(map(str, sparsities), measured.figures, strict=True))
    return {"figures": steps, "details": result.details}


def table(result: dict[str, Any], metric: ClassMetricName) -> str:
    """Mean and deviation over seeds in per cent, and the mean difference from IMP on the same seeds."""
    reported = result["settings"]["step_sparsities"]
    rows: dict[str, list[str]] = {}

    def by_seed(method: str, sparsity: float) -> dict[int, float]:
        own = [row for row in result["rows"] if row["method"] == method]
        return {row["seed"]: 100 * row["figures"][str(sparsity)][metric] for row in own}

    def differences(method: str, sparsity: float) -> list[float]:
        before, after = by_seed("IMP", sparsity), by_seed(method, sparsity)
        return [after[seed] - before[seed] for seed in before if seed in after]

    for method in dict.fromkeys(row["method"] for row in result["rows"]):
        rows[method] = [with_spread(list(by_seed(method, sparsity).values())) for sparsity in reported]
        if method != "IMP":
            rows[f"{method}: difference"] = [
                with_spread(differences(method, sparsity)) for sparsity in reported
            ]
    header = [f"{metric}, dense {100 * result['dense'][metric]:.1f}", *(f"{s:.2%}" for s in reported)]
    return markdown_table(header, [[name, *cells] for name, cells in rows.items()])


def main(
    dense: Dense,
    train: Train,
    test: Test,
    output: Output = RESULTS / "randomized_vs_imp.json",
    seeds: Seeds = 3,
    method: Annotated[list[str] | None, typer.Option(help="A line of the table; repeatable.")] = None,
    metric: Annotated[str, typer.Option(help="Metric of the table: accuracy, f1 or matthews.")] = "accuracy",
    candidates: Annotated[int, typer.Option(help="Masks drawn in each step.")] = 2,
    sampling_ratio: Annotated[float, typer.Option(help="Share of the kept weights that is drawn.")] = 0.05,
    early_steps: Annotated[int, typer.Option(help="Training steps of a candidate.")] = 15,
    recovery_steps: Annotated[int, typer.Option(help="Training steps of the chosen mask.")] = 120,
    learning_rate: Annotated[float, typer.Option(help="Of both.")] = TRAINING["learning_rate"],
    step_rate: Annotated[
        list[float] | None, typer.Option(help="Of one sparsity, in their order, in place of --learning-rate.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts of a training step.")] = 32,
    patience: Annotated[
        int, typer.Option(help="Held-out evaluations without a lower loss that end a recovery; 0: none.")
    ] = 0,
    train_texts: Annotated[int, typer.Option(help="Texts of TRAIN that a run draws, at most.")] = 20_000,
    quick: Annotated[bool, typer.Option("--quick", help="Two sparsities, few steps, one seed.")] = False,
) -> None:
    """Compare randomized with deterministic masks."""
    options = RunConfig()
    prepare(options)
    settings = RandomizedConfig(
        step_sparsities=SPARSITIES,
        candidates=candidates,
        sampling_ratio=sampling_ratio,
        early_steps=early_steps,
        recovery_steps=recovery_steps,
        batch_size=batch_size,
        patience=patience,
        reference="both",
        step_learning_rates=step_rate or None,
        **TRAINING | {"learning_rate": learning_rate, "early_learning_rate": learning_rate},
    )
    if quick:
        update = {"step_sparsities": [0.5, 0.75], "early_steps": 2, "recovery_steps": 10, "candidates": 2}
        settings, seeds = settings.model_copy(update=update), 1
    experiment = Experiment(dense, train, test)
    result: dict[str, Any] = {
        "environment": describe_environment(options),
        "dense": figures(load_classifier(dense), experiment.test),
        "settings": settings.model_dump(),
        "test_examples": len(experiment.test),
        "rows": [],
    }
    known = known_rows(output)
    for seed in range(seeds):
        for own in method or METHODS:
            config = config_of(own, settings)
            line = {"method": own, "seed": seed, "train_texts": train_texts, "config": config.model_dump()}
            found = find_row(known, line)
            result["rows"].append(found or line | run(experiment, config, train_texts, seed))
            write_result(output, result)
    print(table(result, metric))  # type: ignore[arg-type]


if __name__ == "__main__":
    typer.run(main)
