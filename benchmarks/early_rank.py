"""Whether a candidate's early score tells its final one.

    python -m benchmarks.early_rank DENSE TRAIN TEST [--output FILE] [--quick]

In one pruning step from the dense model, candidates are scored early, as the method does, and each is then
recovered in full from its own mask. Spearman's correlation between the early cost and the final one on the
same held-out texts, and between the early cost and the final error on TEST, which nothing was chosen on.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any

import typer
from scipy.stats import spearmanr

from benchmarks.experiment import MAX_LENGTH, Dense, Experiment, Output, Seeds, Test, Train
from benchmarks.randomized_vs_imp import TRAINING
from benchmarks.results_file import RESULTS, find_row, known_rows, markdown_table, write_result
from compressor.models.classifier import Classifier, encoder_weights, load_classifier
from compressor.models.predictors import TorchPredictor
from compressor.options import CandidateRatios, PruneConfig, RandomizedConfig, RunConfig, Saliency
from compressor.pruning.interface import PruningJob
from compressor.pruning.patterns import Unstructured
from compressor.pruning.randomized.candidates import StepJob, Trials, all_alive, recovery_schedule
from compressor.pruning.randomized.holdout import holdout_loss, split
from compressor.pruning.randomized.prune import Shared, begin
from compressor.system.console import SilentProgress, terminal_progress
from compressor.system.environment import describe_environment, prepare
from compressor.training.loop import train

SPARSITIES = (0.75, 0.9375)


def scores(shared: Shared, sparsity: float, index: int) -> tuple[Classifier, dict[str, Any]]:
    """A candidate, recovered in full, with its early and its final cost."""
    dense, config, seed = shared.dense, shared.job.config.randomized, shared.job.seed
    own = StepJob(0, 1, Unstructured(sparsity), config, seed)
    recovered = Classifier(copy.deepcopy(dense), shared.classifier.tokenizer, shared.classifier.source)
    masks = begin(shared, all_alive(encoder_weights(dense)), own, index, recovered, SilentProgress())
    training, holdout = shared.training, shared.holdout
    trials = Trials(
        recovered, lambda _index, _trial: masks, training, holdout, config, seed, teacher=dense, keep=False
    )
    early = trials.cost(index, 0)
    schedule = recovery_schedule(config, config.recovery_steps, config.learning_rate)
    train(recovered, training, schedule, seed=seed, masks=masks, teacher=dense)
    return recovered, {"early": early, "final": holdout_loss(recovered, holdout.clean, schedule)}


def correlations(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Spearman's correlation of the early cost with the final one and with the final test error."""
    early = [row["early"] for row in rows]
    return {
        "final cost": float(spearmanr(early, [row["final"] for row in rows]).statistic),
        "test error": float(spearmanr(early, [1 - row["accuracy"] for row in rows]).statistic),
    }


def table(result: dict[str, Any]) -> str:
    """One line a sparsity and seed."""
    groups: dict[tuple[float, int], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["sparsity"], row["seed"]), []).append(row)
    lines = []
    for (sparsity, seed), rows in groups.items():
        found = correlations(rows)
        finals = [row["final"] for row in rows]
        cells = [f"{found[key]:.2f}" for key in ("final cost", "test error")]
        lines.append([f"{sparsity:.2%}", seed, len(rows), *cells, f"{min(finals):.3f} to {max(finals):.3f}"])
    header = ["sparsity", "seed", "candidates", "early and final cost", "early cost and test error", "final"]
    return markdown_table(header, lines)


def main(
    dense: Dense,
    train_file: Train,
    test: Test,
    output: Output = RESULTS / "early_rank.json",
    seeds: Seeds = 1,
    candidates: Annotated[int, typer.Option(min=3, help="Masks, the first by magnitude.")] = 10,
    sampling_ratio: Annotated[float, typer.Option(help="Share of the kept weights that is drawn.")] = 0.05,
    candidate_ratios: Annotated[CandidateRatios, typer.Option(help="As in compress prune.")] = "same",
    saliency: Annotated[Saliency, typer.Option(help="As in compress prune.")] = "magnitude",
    sparsity: Annotated[list[float] | None, typer.Option(help="Zeros, a share; repeatable.")] = None,
    early_steps: Annotated[int, typer.Option(help="Training steps before the early score.")] = 25,
    recovery_steps: Annotated[int, typer.Option(help="Training steps of the full recovery.")] = 300,
    train_texts: Annotated[int, typer.Option(help="Texts of TRAIN that are drawn, at most.")] = 20_000,
    quick: Annotated[bool, typer.Option("--quick", help="One sparsity, three masks, few steps.")] = False,
) -> None:
    """Correlate early with final scores."""
    options = RunConfig()
    prepare(options)
    candidates = 3 if quick else candidates
    sparsities = sparsity or list(SPARSITIES)
    config = RandomizedConfig(
        candidates=candidates,
        candidate_ratios=candidate_ratios,
        saliency=saliency,
        sampling_ratio=sampling_ratio,
        early_steps=2 if quick else early_steps,
        recovery_steps=6 if quick else recovery_steps,
        **TRAINING,
    )
    classifier = load_classifier(dense)
    experiment = Experiment(dense, train_file, test)
    result: dict[str, Any] = {
        "environment": describe_environment(options),
        "test_examples": len(experiment.test),
        "rows": [],
    }
    known = known_rows(output)
    progress = terminal_progress()
    for seed in range(1 if quick else seeds):
        job = PruningJob(PruneConfig(randomized=config), MAX_LENGTH, seed)
        texts = experiment.calibration.sample(train_texts, seed)
        training, holdout = split(classifier, texts, job, progress)
        shared = Shared(classifier, classifier.model, texts, training, holdout, job, progress)
        for zeros in sparsities[:1] if quick else sparsities:
            for index in progress.track(range(candidates), f"Candidates at {zeros:.2%}"):
                line = {
                    "sparsity": zeros,
                    "seed": seed,
                    "candidate": index,
                    "train_texts": train_texts,
                    "config": config.model_dump(),
                }
                row = find_row(known, line)
                if row is None:
                    own, found = scores(shared, zeros, index)
                    row = line | found | {"accuracy": experiment.accuracy(TorchPredictor(own))}
                result["rows"].append(row)
                write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
