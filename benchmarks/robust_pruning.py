"""Accuracy and robustness of a plain model, of a soup, and of both pruned: the paper's tables 1 and 2.

    python -m benchmarks.robust_pruning TRAIN TEST FOLDER [--word-vectors FILE] [--quick] [--output FILE]

Everything starts from MiniLM. Models and attacks are kept in FOLDER; what is there is not made again.
TextFooler, or another --attack, is run on each model and the same test texts; the soup is chosen by
TextFooler whatever that is. IMP is iterative magnitude pruning of the plain model
with training in between, without distillation; IMP + FreeLB trains adversarially. What is called distilled
ends with label-free training steps that follow the soup; robustly distilled, they follow what it says to a
text on that text with words replaced as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.experiment import Test
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.attacks.records import ROBUSTNESS_RECORD, Robustness
from compressor.attacks.stage import attack_directory
from compressor.data.texts import load_text_data
from compressor.options import (
    AdaptiveConfig,
    AttackConfig,
    AttackName,
    ColumnsConfig,
    DeviceName,
    FinetuneConfig,
    PruneConfig,
    RandomizedConfig,
    RobustnessFigure,
    RunConfig,
    SoupConfig,
    SubstitutionChoice,
)
from compressor.pruning.interface import prune_directory
from compressor.system.assets import encoder_directory
from compressor.system.console import terminal_progress
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import read_json
from compressor.training.finetune_stage import finetune_directory
from compressor.training.soup_stage import SOUP_RECORD, soup_directory

RATE = 1e-4
# Two steps gain little on MiniLM; larger ones, or perturbed before it has learnt much, leave a constant
# answer.
ADVERSARIAL_STEPS, STEP_SIZE, START = 3, 0.2, 0.5
KEPT = ("word_budgets", "mean_accuracy_under_attack", "resources", "seed")
CALIBRATION_TOKENS = 2**16


@dataclass(frozen=True)
class Plan:
    """Files, sizes and budgets of the table."""

    train: str
    test: str
    folder: Path
    columns: ColumnsConfig
    run: RunConfig
    attack: AttackConfig
    soup: SoupConfig
    epochs: int
    calibration_examples: int
    distilled: AdaptiveConfig
    substituted_share: float
    recovery_steps: int
    processes: int

    @property
    def models(self) -> dict[str, Callable[[Path], None]]:
        """How each model is made, in order; later ones take earlier ones."""
        made: dict[str, Callable[[Path], None]] = {"plain": self._plain, "soup": self._soup}
        for sparsity in (0.3, 0.5, 0.875):
            made[f"soup, adaptive {sparsity:.1%}"] = self._adaptive(sparsity, AdaptiveConfig())
        made["plain, IMP 50.0%"] = self._magnitude(0)
        made["plain, IMP + FreeLB 50.0%"] = self._magnitude(ADVERSARIAL_STEPS)
        for sparsity in (0.875, 0.5):
            made[f"soup, adaptive, distilled {sparsity:.1%}"] = self._adaptive(sparsity, self.distilled)
        for sparsity in (0.5, 0.875):
            name = f"soup, adaptive, robustly distilled {sparsity:.1%}"
            made[name] = self._adaptive(sparsity, self.robustly_distilled)
        return made

    @property
    def robustly_distilled(self) -> AdaptiveConfig:
        """As `distilled`, and with words replaced as in the soup's runs, chosen by the gradient."""
        return self.distilled.model_copy(
            update={
                "robust": True,
                "substitution_mixture": "words",
                "substitution_choice": "gradient",
                "distillation_substituted_share": self.substituted_share,
                "substitution_vectors": self.soup.substitution_vectors,
            }
        )

    def directory(self, name: str) -> Path:
        """Where the model of that name is."""
        return self.folder / "".join(letter if letter.isalnum() else "-" for letter in name)

    def _plain(self, output: Path) -> None:
        finetune_directory(
            str(encoder_directory()),
            self.train,
            FinetuneConfig(epochs=self.epochs, learning_rate=RATE),
            Context(output=output, columns=self.columns, run=self.run, progress=terminal_progress()),
        )

    def _soup(self, output: Path) -> None:
        soup_directory(
            str(encoder_directory()),
            self.train,
            self.soup,
            Context(
                output=output,
                columns=self.columns,
                run=self.run,
                processes=self.processes,
                progress=terminal_progress(),
            ),
        )

    def _adaptive(self, sparsity: float, adaptive: AdaptiveConfig) -> Callable[[Path], None]:
        config = PruneConfig(
            sparsity=sparsity, calibration_examples=self.calibration_examples, adaptive=adaptive
        )
        return lambda output: self._prune("soup", config, output)

    def _magnitude(self, adversarial_steps: int) -> Callable[[Path], None]:
        randomized = RandomizedConfig(
            candidates=1,
            sampling_ratio=0,
            early_steps=0,
            recovery_steps=self.recovery_steps,
            learning_rate=RATE,
            distillation_weight=0,
            adversarial_steps=adversarial_steps,
            adversarial_step_size=STEP_SIZE,
        )
        config = PruneConfig(algorithm="randomized", sparsity=0.5, randomized=randomized)
        return lambda output: self._prune("plain", config, output)

    def _prune(self, start: str, config: PruneConfig, output: Path) -> None:
        prune_directory(
            str(self.directory(start)),
            self.train,
            config,
            Context(
                output=output,
                columns=self.columns,
                run=self.run,
                progress=terminal_progress(),
                resume=True,
            ),
        )

    def _attack_folder(self, name: str) -> Path:
        return self.folder / f"{self.directory(name).name}-{self.attack.attack}"

    def attacked(self, name: str) -> dict[str, Any]:
        """The attack's record on the model of that name, and where there is a soup its comparison with it."""
        output, soup = self._attack_folder(name), self._attack_folder("soup")
        if not output.exists():
            attack_directory(
                str(self.directory(name)),
                self.test,
                self.attack,
                Context(
                    output=output,
                    columns=self.columns,
                    run=self.run,
                    processes=self.processes,
                    resume=True,
                    progress=terminal_progress(),
                ),
                against=soup if soup.exists() else None,
            )
        return dict(read_json(output / ROBUSTNESS_RECORD))


def shortened(source: str, count: int, columns: ColumnsConfig, folder: Path) -> str:
    """A file with `count` of the source's single sentences, drawn with seed 0."""
    target = folder / f"train-{count}.tsv"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = load_text_data(source, columns, "train").sample(count, 0)
        rows = zip(data.texts, data.class_labels, strict=True)
        lines = ["text\tlabel", *(f"{text}\t{data.label_names[label]}" for text, label in rows)]
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(target)


def figures(plan: Plan, name: str) -> dict[str, Any]:
    """What the table keeps of a model: figures, no paths."""
    record = plan.attacked(name)
    kept = {key: record[key] for key in (*Robustness.__dataclass_fields__, *KEPT)}
    if "against" in record:
        kept["drop_from_soup"] = record["against"]["accuracy_under_attack_drop"]
        kept["drop_from_soup_within_budgets"] = record["against"]["word_budgets"]
        kept["mean_drop_from_soup"] = record["against"]["mean_accuracy_under_attack_drop"]
    soup = plan.directory(name) / SOUP_RECORD
    if soup.is_file():
        chosen = read_json(soup)
        runs = [_without_paths(own) for own in chosen["runs"]]
        kept["soup"] = {"runs": runs, "trials": chosen["trials"], "holdout": chosen["holdout"]}
    return kept


def _without_paths(own: dict[str, Any]) -> dict[str, Any]:
    options = own["options"]
    vectors = options["substitution_vectors"]
    options = options | {"substitution_vectors": vectors and Path(vectors).name}
    return {key: value for key, value in own.items() if key != "directory"} | {"options": options}


def table(result: dict[str, Any]) -> str:
    """One line a model."""
    budgets = [budget["max_words_changed"] for budget in result["rows"][0]["word_budgets"]]
    within = [f"Aua, {share:.0%} of words" for share in budgets]
    # Told of attacks that change one word after the other, as the budgets are.
    if mean := result["rows"][0]["mean_accuracy_under_attack"]:
        within.append(f"mean over 0 to {mean['longest_budget']:.0%}")
    header = ["model", "Acc", "Aua", "Asr", *within, "queries"]
    rows = []
    for row in result["rows"]:
        cells = [
            row["model"],
            f"{100 * row['accuracy']:.1f}",
            _with_interval(row["accuracy_under_attack"], row["accuracy_under_attack_interval"]),
            f"{100 * row['attack_success_rate']:.1f}",
        ]
        cells += [_with_interval(b["accuracy_under_attack"], b["interval"]) for b in row["word_budgets"]]
        if mean := row["mean_accuracy_under_attack"]:
            cells.append(_with_interval(mean["mean"], mean["interval"]))
        rows.append([*cells, f"{row['queries_per_example']:.0f}"])
    return markdown_table(header, rows)


def _with_interval(share: float, interval: dict[str, float]) -> str:
    return f"{100 * share:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def main(
    train: Annotated[str, typer.Argument(help="File of labelled texts to train on.")],
    test: Test,
    folder: Annotated[Path, typer.Argument(help="Folder for models and attacks.")],
    word_vectors: Annotated[
        str | None, typer.Option(help="Word vectors for TextFooler; computed with MiniLM if not given.")
    ] = None,
    attack: Annotated[AttackName, typer.Option(help="Attack of the table.")] = "textfooler",
    max_length: Annotated[int, typer.Option(help="Longest input in tokens.")] = 64,
    train_texts: Annotated[int, typer.Option(help="Texts to train on, drawn from the file.")] = 20_000,
    examples: Annotated[int, typer.Option(help="Test texts that are attacked.")] = 300,
    trial_examples: Annotated[
        int, typer.Option(help="Held-out training texts that are attacked to choose the soup.")
    ] = 100,
    trial_words_changed: Annotated[
        float, typer.Option(help="Share of their words that may change: where it is large, all are fooled.")
    ] = 0.15,
    chosen_by: Annotated[
        RobustnessFigure, typer.Option(help="Figure of that attack that the soup is chosen by.")
    ] = "accuracy_under_attack",
    substituted_share: Annotated[
        float, typer.Option(help="Share of the words that the soup's runs are trained with close ones for.")
    ] = 0.3,
    substitution_choice: Annotated[
        SubstitutionChoice, typer.Option(help="How these words, and what replaces them, are chosen.")
    ] = "drawn",
    substitution_draws: Annotated[
        int, typer.Option(help="Draws of these words, of which a step trains on the worst.")
    ] = 1,
    soup_adversarial_steps: Annotated[
        list[int] | None, typer.Option(help="Steps of FreeLB in the soup's runs: 0 and 3 if not given.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the texts to train on.")] = 1,
    calibration_examples: Annotated[
        int, typer.Option(help="Texts that adaptive pruning solves the layers with.")
    ] = 512,
    distillation_steps: Annotated[
        int, typer.Option(help="Label-free training steps of what is called distilled.")
    ] = 1000,
    distillation_examples: Annotated[
        int, typer.Option(help="Texts of these steps; those that the layers are solved with if 0.")
    ] = 0,
    distillation_rate: Annotated[float, typer.Option(help="Peak learning rate of these steps.")] = 2e-4,
    distillation_substituted_share: Annotated[
        float, typer.Option(help="Share of the words that the robust ones of these steps replace.")
    ] = 0.1,
    models: Annotated[
        list[str] | None, typer.Option(help="Rows of the table to make, by name; all if not given.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where models run.")] = "auto",
    processes: Annotated[int, typer.Option(help="Among which an attack's examples are shared out.")] = 2,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "robust_pruning.json",
    quick: Annotated[bool, typer.Option("--quick", help="2,000 texts to train on, 20 to attack.")] = False,
) -> None:
    """Measure robust pruning."""
    run = RunConfig(device=device)
    prepare(run)
    columns = ColumnsConfig(max_length=max_length)
    if quick:
        train_texts, examples, trial_examples = 2000, 20, 10
    attack_config = AttackConfig(attack=attack, attack_examples=examples, word_vectors=word_vectors)
    soup = SoupConfig(
        runs=4,
        learning_rates=[RATE, 2 * RATE],
        optimizers=["adamw"],
        epoch_counts=[epochs],
        holdout_examples=train_texts // 20,
        adversarial_step_counts=soup_adversarial_steps or [0, ADVERSARIAL_STEPS],
        adversarial_step_size=STEP_SIZE,
        adversarial_start=START,
        substituted_shares=[substituted_share],
        substitution_choice=substitution_choice,
        substitution_draws=substitution_draws,
        substitution_vectors=word_vectors,
        chosen_by=chosen_by,
        # Robust runs are less accurate than plain ones; a constant answer is far below both.
        accuracy_tolerance=0.1,
        # At the floor of the full attack all models are alike.
        attack=attack_config.model_copy(
            update={
                "attack": "textfooler",
                "attack_examples": trial_examples,
                "max_words_changed": trial_words_changed,
            }
        ),
    )
    plan = Plan(
        shortened(train, train_texts, columns, folder),
        test,
        folder,
        columns,
        run,
        attack_config,
        soup,
        epochs,
        calibration_examples,
        AdaptiveConfig(
            calibration_tokens=CALIBRATION_TOKENS,
            distillation_steps=distillation_steps,
            distillation_examples=distillation_examples,
            distillation_rate=distillation_rate,
        ),
        distillation_substituted_share,
        recovery_steps=epochs * train_texts // 32 // 3,
        processes=processes,
    )
    result: dict[str, Any] = {
        "environment": describe_environment(run),
        "attack": attack,
        "train_texts": train_texts,
        "epochs": epochs,
        "substituted_share": substituted_share,
        "substitution_choice": substitution_choice,
        "substitution_draws": substitution_draws,
        "chosen_by": chosen_by,
        "calibration_examples": calibration_examples,
        "distillation_steps": distillation_steps,
        "distillation_examples": distillation_examples,
        "distillation_rate": distillation_rate,
        "distillation_substituted_share": distillation_substituted_share,
        "rows": [],
    }
    for name, make in plan.models.items():
        if models and name not in models:
            continue
        if not plan.directory(name).exists():
            make(plan.directory(name))
        result["rows"].append({"model": name, **figures(plan, name)})
        write_result(output, result)
        print(table(result), flush=True)


if __name__ == "__main__":
    typer.run(main)
