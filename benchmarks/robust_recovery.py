"""What a robust recovery gains against three attacks, what it costs in accuracy, and what a step takes.

    python -m benchmarks.robust_recovery DENSE TRAIN TEST FOLDER [--quick] [--output FILE]

DENSE is a plainly fine-tuned classifier. It is pruned by a structured 50 % with the same recovery on the same
texts: without and with perturbed texts, and with one kind of perturbation left out of the mixture at a time,
which tells whether the others make up for it. Each model is attacked on the same test texts by DeepWordBug,
TextFooler and PWWS. Models and attacks are kept in FOLDER; what is there is not made again. Choose settings
on other texts than TEST.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.experiment import Test
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.attacks.records import ROBUSTNESS_RECORD
from compressor.attacks.stage import attack_directory
from compressor.data.texts import load_text_data
from compressor.models.accuracy import measure_accuracy
from compressor.models.batching import encode
from compressor.models.classifier import load_classifier
from compressor.models.predictors import TorchPredictor
from compressor.options import (
    AdaptiveConfig,
    AttackConfig,
    ColumnsConfig,
    DeviceName,
    PruneConfig,
    RunConfig,
    SubstitutionChoice,
    parse_mixture,
)
from compressor.pruning.adaptive.distillation import BATCH_SIZE, HIDDEN_WEIGHT, TEMPERATURE, readable
from compressor.pruning.interface import PRUNING_RECORD, prune_directory
from compressor.system.console import terminal_progress
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import read_json
from compressor.training.loop import TrainingSet, train
from compressor.training.mixture import load_substitution_words, mixture_of
from compressor.training.schedule import Schedule
from compressor.training.substitution import Substitution
from compressor.training.teacher import ask_teacher
from compressor.training.word_substitution import substitution_kind

SPARSITY = 0.5
ATTACKS = ("deepwordbug", "textfooler", "pwws")
FIGURES = (
    "examples",
    "accuracy",
    "accuracy_under_attack",
    "accuracy_under_attack_interval",
    "mean_accuracy_under_attack",
    "queries_per_example",
)
# Steps of each kind that are timed, in turn.
TIMED_STEPS, TIMED_TEXTS = 12, 1024


@dataclass(frozen=True)
class Plan:
    """Files and sizes of the table.

    Attributes:
        recovery: of the pruned models, robust or not.
    """

    dense: str
    train: str
    test: str
    folder: Path
    columns: ColumnsConfig
    run: RunConfig
    recovery: Mapping[str, Any]
    choice: SubstitutionChoice
    attacked: int
    calibration_examples: int

    def adaptive(self, mixture: str | None) -> AdaptiveConfig:
        """The recovery with a mixture of perturbations; None trains on the texts alone."""
        if mixture is None:
            return AdaptiveConfig.model_validate(self.recovery)
        robust = {"robust": True, "substitution_mixture": mixture, "substitution_choice": self.choice}
        return AdaptiveConfig.model_validate({**self.recovery, **robust})

    @property
    def models(self) -> dict[str, str | None]:
        """The mixture of each pruned model, by name."""
        whole = str(AdaptiveConfig.model_fields["substitution_mixture"].default)
        weights = parse_mixture(whole)
        left_out = {
            f"robust, without {kind}": ",".join(
                f"{other}:{weight:g}" for other, weight in weights.items() if other != kind
            )
            for kind in weights
        }
        return {"plain": None, "robust": whole, **left_out}

    def directory(self, name: str) -> Path:
        """Where the model of that name is; the dense one is where it was."""
        if name == "dense":
            return Path(self.dense)
        return self.folder / "".join(letter if letter.isalnum() else "-" for letter in name)

    def context(self, output: Path) -> Context:
        """Where and how a stage runs."""
        return Context(
            output=output, columns=self.columns, run=self.run, resume=True, progress=terminal_progress()
        )

    def make(self, name: str) -> None:
        """Prune the model of that name, unless it is there."""
        output = self.directory(name)
        if name != "dense" and not output.exists():
            config = PruneConfig(
                pattern="structured",
                sparsity=SPARSITY,
                calibration_examples=self.calibration_examples,
                adaptive=self.adaptive(self.models[name]),
            )
            prune_directory(self.dense, self.train, config, self.context(output))

    def figures(self, name: str) -> dict[str, Any]:
        """What the table keeps of a model: figures, no paths."""
        directory = self.directory(name)
        classifier = load_classifier(str(directory))
        data = load_text_data(self.test, self.columns, "test", label_names=classifier.label_names)
        length, progress = self.columns.max_length, terminal_progress()
        found: dict[str, Any] = {
            "accuracy": measure_accuracy(TorchPredictor(classifier), data, length, progress, name)
        }
        if name != "dense":
            details = read_json(directory / PRUNING_RECORD)["details"]
            found["distillation"] = details["distillation"]
        for attack in ATTACKS:
            record = self._attacked(name, attack)
            found[attack] = {key: record[key] for key in FIGURES}
        return found

    def _attacked(self, name: str, attack: str) -> dict[str, Any]:
        output = self.folder / f"{name.replace(',', '').replace(' ', '-')}-{attack}"
        if not output.exists():
            config = AttackConfig(attack=attack, attack_examples=self.attacked)
            attack_directory(str(self.directory(name)), self.test, config, self.context(output))
        return dict(read_json(output / ROBUSTNESS_RECORD))


def step_seconds(plan: Plan, choices: Sequence[SubstitutionChoice]) -> dict[str, float]:
    """Median processor seconds of a training step of each kind, of steps that are timed in turn.

    The answers of the dense model are there already, as in a pruning. Processor seconds are those of this
    process, which other work on the machine changes less than the time of the day.
    """
    dense = load_classifier(plan.dense)
    data = load_text_data(plan.train, plan.columns, "calibration", label_names=dense.label_names)
    texts = encode(dense.tokenizer, data.sample(TIMED_TEXTS, plan.run.seed), plan.columns.max_length)
    logits, states = ask_teacher(dense.model, texts, int(dense.tokenizer.pad_token_id))
    mixture = plan.models["robust"]
    kinds: dict[str, Substitution | None] = {"plain": None}
    for choice in choices:
        config = plan.adaptive(mixture).model_copy(update={"substitution_choice": choice})
        words = mixture_of(config, load_substitution_words(config, terminal_progress()))
        kinds[choice] = substitution_kind(config)(
            dense.tokenizer,
            readable(texts, dense.tokenizer),
            plan.columns.max_length,
            words.replacements,
            config.distillation_substituted_share,
            plan.run.seed,
        )
    labels = torch.zeros(len(texts), dtype=torch.int64)
    runs = {
        name: _timed(plan, dense.model, TrainingSet(texts, labels, logits, states, adversarial=kind))
        for name, kind in kinds.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TIMED_STEPS):
        for name, run in runs.items():
            times[name].append(next(run))
    # Kernels of the first shapes are compiled in the first steps.
    return {name: statistics.median(own[TIMED_STEPS // 4 :]) for name, own in times.items()}


def _timed(plan: Plan, teacher: Any, data: TrainingSet) -> Iterator[float]:
    """Train the plainly recovered model a step at a time; yields the processor seconds of each."""
    step = 0
    classifier = load_classifier(str(plan.directory("plain")))
    classifier.layout.embeddings(classifier.model).requires_grad_(False)
    while True:
        schedule = Schedule(
            steps=1,
            learning_rate=1e-5,
            batch_size=BATCH_SIZE,
            distillation_weight=1.0,
            distillation_temperature=TEMPERATURE,
            hidden_weight=HIDDEN_WEIGHT,
            dropout=False,
        )
        began = time.process_time()
        train(classifier, data, schedule, seed=step, teacher=teacher)
        yield time.process_time() - began
        step += 1


def table(result: dict[str, Any]) -> str:
    """One line a model."""
    header = ["model", "accuracy", *ATTACKS, "mean over budgets, TextFooler", "clean divergence", "perturbed"]
    rows = []
    for row in result["rows"]:
        kept = row.get("distillation", {})
        mean = row["textfooler"]["mean_accuracy_under_attack"]
        rows.append(
            [
                row["model"],
                f"{100 * row['accuracy']:.1f}",
                *(_attack_cell(row[attack]) for attack in ATTACKS),
                _with_interval(mean["mean"], mean["interval"]),
                _divergence_cell(kept.get("divergence")),
                _divergence_cell(kept.get("perturbed_divergence")),
            ]
        )
    return markdown_table(header, rows)


def _attack_cell(figures: Mapping[str, Any]) -> str:
    return _with_interval(figures["accuracy_under_attack"], figures["accuracy_under_attack_interval"])


def _with_interval(share: float, interval: Mapping[str, float]) -> str:
    return f"{100 * share:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def _divergence_cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main(
    dense: Annotated[str, typer.Argument(help="A plainly fine-tuned classifier.")],
    train_file: Annotated[str, typer.Argument(metavar="TRAIN", help="Texts to prune and recover with.")],
    test: Test,
    folder: Annotated[Path, typer.Argument(help="Folder for models and attacks.")],
    max_length: Annotated[int, typer.Option(help="Longest input in tokens.")] = 64,
    steps: Annotated[int, typer.Option(help="Training steps of a recovery.")] = 300,
    examples: Annotated[int, typer.Option(help="Texts of a recovery.")] = 8192,
    rate: Annotated[float, typer.Option(help="Peak learning rate of a recovery.")] = 1e-4,
    choice: Annotated[SubstitutionChoice, typer.Option(help="How perturbed words are chosen.")] = "drawn",
    attacked: Annotated[int, typer.Option(help="Test texts that each attack is given.")] = 200,
    models: Annotated[
        list[str] | None, typer.Option(help="Rows of the table to make, by name; all if not given.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where models run.")] = "cpu",
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "robust_recovery.json",
    quick: Annotated[
        bool, typer.Option("--quick", help="4 steps, 10 texts to attack, no kind left out.")
    ] = False,
) -> None:
    """Measure a robust recovery."""
    run = RunConfig(device=device)
    prepare(run)
    if quick:
        steps, examples, attacked, models = 4, 64, 10, models or ["dense", "plain", "robust"]
    plan = Plan(
        dense=dense,
        train=train_file,
        test=test,
        folder=folder,
        columns=ColumnsConfig(max_length=max_length),
        run=run,
        recovery={
            "distillation_steps": steps,
            "distillation_examples": examples,
            "distillation_rate": rate,
        },
        choice=choice,
        attacked=attacked,
        calibration_examples=64 if quick else 512,
    )
    result: dict[str, Any] = {
        "environment": describe_environment(run),
        "sparsity": SPARSITY,
        "recovery": dict(plan.recovery),
        "choice": choice,
        "rows": [],
    }
    for name in ["dense", *plan.models]:
        if models and name not in models:
            continue
        plan.make(name)
        result["rows"].append({"model": name, "mixture": plan.models.get(name), **plan.figures(name)})
        write_result(output, result)
        print(table(result), flush=True)
    if plan.directory("plain").exists():
        seconds = step_seconds(plan, ["drawn", "gradient"])
        result["step_seconds"] = seconds
        write_result(output, result)
        ratios = {name: round(own / seconds["plain"], 2) for name, own in seconds.items()}
        print(f"Processor seconds of a step: {seconds}; times a plain one: {ratios}")


if __name__ == "__main__":
    typer.run(main)
