"""The soup stage: a robust dense start, averaged from fine-tuning runs by accuracy under attack.

Step A of adaptive knowledge-retention pruning (section 4.2 and algorithm 3 of Li et al., EMNLP 2023).
Runs and evaluations are kept in a folder beside the output, each under a name made of all that decides
it: what is there already is not made again, whatever command asks for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from compressor.attacks.records import mean_accuracy, summarize
from compressor.attacks.runner import attack_model
from compressor.attacks.stage import attack_decides
from compressor.attacks.victims import Victim
from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.intervals import wilson_interval
from compressor.models.accuracy import measure_accuracy
from compressor.models.classifier import (
    Classifier,
    load_classifier,
    load_for_finetuning,
    model_content,
    save_classifier,
    weights_bytes,
    weights_fingerprint,
)
from compressor.models.normalization.tokenizers import normalized_classifier
from compressor.models.predictors import Predictor, TorchPredictor
from compressor.options import (
    FinetuneConfig,
    RobustnessFigure,
    SoupConfig,
    with_word_budgets,
)
from compressor.options.training import training_in_words
from compressor.system.checkpoint import Checkpoint, checkpoint_folder, remove_checkpoint
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import (
    atomic_directory,
    check_space,
    claims_output,
    name_of_facts,
    place_of,
    read_json,
    scratch_directory,
    write_json,
    write_whole,
)
from compressor.training.checkpoint import DISK_SHARE
from compressor.training.finetune_stage import TRAINING_RECORD, finetune_classifier, training_decides
from compressor.training.mixture import SubstitutionWords, load_substitution_words
from compressor.training.records import SoupRecord
from compressor.training.soup import Score, Trial, average_weights, greedy_soup, grid_runs
from compressor.training.word_substitution import check_substitution

SOUP_RECORD = "soup.json"


@dataclass(frozen=True)
class FinetuningRun:
    """One model of the grid, on disk.

    Attributes:
        seed: of the order of the texts and of dropout; the head starts alike in all.
    """

    directory: Path
    options: FinetuneConfig
    seed: int
    sha256: str | None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"directory": str(self.directory), "options": self.options.model_dump()}


@claims_output
def soup_directory(model: str, train_data: str, config: SoupConfig, context: Context) -> SoupRecord:
    """Run the soup stage: an encoder and labelled texts in, a robust dense classifier out.

    The texts that runs are compared on are drawn from `train_data` and not trained on. Writes the
    average and `soup.json`, whose content is returned. The runs stay in the folder `OUTPUT.runs`.

    Raises:
        UserError: bad model, data, resources or output.
    """
    columns, run, output = context.columns, context.run, context.output
    check_soup(config)
    device = prepare(run)
    data = load_text_data(train_data, columns, "train")
    log_notes(data, context.progress)
    training, holdout = data.hold_out(config.holdout_examples, run.seed)
    store = _RunStore(model, training, holdout, config, context, device)
    if any(config.substituted_shares):
        store.words = load_substitution_words(config, context.progress)
    _check_model(model, data, context, config.runs + 2 + DISK_SHARE)
    began = time.monotonic()
    plans = grid_runs(config, run.seed)
    runs = [store.finetuned(plan, place, len(plans)) for place, plan in enumerate(plans)]
    alone, trials, figures = _average(store, runs)
    kept = [trial.run for trial in trials if trial.kept]
    record = {
        "seconds": round(time.monotonic() - began, 2),
        "options": config.model_dump(),
        "seed": run.seed,
        "labels": data.label_names,
        "model": {"source": model, "sha256": weights_fingerprint(model)},
        "data": data.record(columns),
        "holdout": {"examples": len(holdout), "fingerprint": holdout.fingerprint},
        "resources": store.resources,
        "runs": [own.record() | figures for own, figures in zip(runs, alone, strict=True)],
        "trials": [asdict(trial) for trial in trials],
        "kept": kept,
        **figures,
        "environment": describe_environment(run),
    }
    classifier = averaged_classifier([runs[place] for place in kept], device)
    with atomic_directory(output, force=context.force, needed_bytes=2 * weights_bytes(classifier)) as working:
        save_classifier(classifier, working)
        write_json(working / SOUP_RECORD, record)
    return SoupRecord(**record, path=output, sha256=weights_fingerprint(str(output)))


def _check_model(model: str, data: TextData, context: Context, copies: int) -> None:
    """Check that the runs can begin with a model, and that so many copies of it fit on the disk.

    Raises:
        UserError: they do not.
    """
    classifier = load_for_finetuning(
        model,
        data.label_names,
        context.run.seed,
        lengths={"max_length": context.columns.max_length},
        has_pairs=data.pairs is not None,
    )
    check_space(context.output, copies * weights_bytes(classifier))


def _average(
    store: _RunStore, runs: Sequence[FinetuningRun]
) -> tuple[list[dict[str, Any]], list[Trial], dict[str, Any]]:
    """Find which runs to average: the figures of each alone, the trials, and the figures of the average."""
    config, count = store.config, len(runs)
    alone = [store.evaluated([own], f"run {place + 1} of {count}") for place, own in enumerate(runs)]
    found: dict[tuple[int, ...], dict[str, Any]] = {(n,): figures for n, figures in enumerate(alone)}

    def score_of(places: tuple[int, ...]) -> Score:
        name = f"average of runs {', '.join(str(place + 1) for place in places)}"
        found[places] = store.evaluated([runs[place] for place in places], name)
        return _score(found[places], config.chosen_by)

    scores = [_score(figures, config.chosen_by) for figures in alone]
    trials = greedy_soup(scores, score_of, config.accuracy_tolerance)
    return alone, trials, found[tuple(trial.run for trial in trials if trial.kept)]


def check_soup(config: SoupConfig) -> None:
    """Find options that contradict each other.

    Raises:
        UserError: several attacks; one that does not tell the figure that runs are chosen by; words that
            nothing draws are to be drawn several times.
    """
    check_substitution(config)
    if len(config.attack.attacks) > 1:
        raise UserError(
            f"attack: {config.attack.attack} are several, and a soup compares its runs by one; name one"
        )
    if config.chosen_by == "mean_accuracy_under_attack" and config.attack.longest_word_budget is None:
        raise UserError(
            f"chosen_by: {config.attack.attack} does not report {config.chosen_by}; use --chosen-by "
            f"accuracy_under_attack, or attack with one of {', '.join(with_word_budgets())}"
        )


def runs_folder(output: Path) -> Path:
    """Where the fine-tuning runs of a soup, and what they did under attack, are kept."""
    return place_of(output).beside("runs")


def averaged_classifier(runs: Sequence[FinetuningRun], device: torch.device) -> Classifier:
    """The classifier whose weights are the mean of the runs'."""
    classifiers = [load_classifier(str(own.directory), device) for own in runs]
    weights = average_weights([classifier.model.state_dict() for classifier in classifiers])
    classifiers[0].model.load_state_dict(weights)
    return classifiers[0]


def _score(figures: Mapping[str, Any], chosen_by: RobustnessFigure) -> Score:
    robustness = figures[chosen_by]
    return Score(figures["accuracy"], robustness if isinstance(robustness, float) else robustness["mean"])


@dataclass
class _RunStore:
    """Makes runs and evaluations, or takes those that are in its folder.

    Attributes:
        words: that stand for others, where runs of the grid have some replaced.
        resources: that the attacks used, once there was one.
    """

    model: str
    training: TextData
    holdout: TextData
    config: SoupConfig
    context: Context
    device: torch.device
    words: SubstitutionWords | None = None
    resources: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the runs."""
        return runs_folder(self.context.output)

    def finetuned(self, options: FinetuneConfig, place: int, count: int) -> FinetuningRun:
        """The run with those options; its seed is the soup's, moved on by `place`."""
        run, log = self.context.run, self.context.progress.log
        moved_on = replace(self.context, run=run.model_copy(update={"seed": run.seed + place}))
        words = self.words if options.substituted_share else None
        # One head for all: averages of models whose heads started apart mean little.
        decisive = training_decides(
            options,
            moved_on.run,
            {"content": model_content(self.model)},
            self.training,
            self.context.columns.max_length,
            head_seed=run.seed,
        )
        facts = {
            "options": options.model_dump(),
            "seed": moved_on.run.seed,
            "head_seed": run.seed,
            "data": self.training.fingerprint,
            **(words or SubstitutionWords()).record(),
            "decides": decisive,
        }
        directory = self.folder / name_of_facts("run", decisive)
        if directory.exists():
            log(f"Run {place + 1} of {count} is done already: {directory.name}")
        else:
            labels = self.training.label_names
            classifier = load_for_finetuning(self.model, labels, run.seed, self.device)
            if options.normalize_text:
                classifier = normalized_classifier(classifier)
            log(f"Run {place + 1} of {count}: {training_in_words(options.model_dump())}")
            began = time.monotonic()
            # The name has all that decides the run, so what a stopped one left is always gone on with.
            checkpoint = Checkpoint(checkpoint_folder(directory), decisive, log)
            with atomic_directory(directory, force=False, needed_bytes=weights_bytes(classifier)) as working:
                steps = finetune_classifier(classifier, self.training, options, moved_on, words, checkpoint)
                save_classifier(classifier, working)
                seconds = round(time.monotonic() - began, 2)
                record = facts | {"steps": steps, "seconds": seconds, "labels": labels}
                write_json(working / TRAINING_RECORD, record)
            remove_checkpoint(checkpoint)
        return FinetuningRun(directory, options, moved_on.run.seed, weights_fingerprint(str(directory)))

    def evaluated(self, runs: Sequence[FinetuningRun], name: str) -> dict[str, Any]:
        """What the average of `runs` does on the held-out texts, and under attack on the first of them."""
        facts = attack_decides(
            self.config.attack,
            self.context.run,
            self.holdout.fingerprint,
            self.context.columns.max_length,
        )
        facts["average_of"] = [own.sha256 for own in runs]
        folder = self.folder / name_of_facts("evaluation", facts)
        summary = folder / SOUP_RECORD
        if summary.is_file():
            found = read_json(summary)
            self.resources = found["resources"]
            return dict(found["figures"])
        progress = self.context.progress
        progress.log(f"Attacking the {name}")
        classifier = averaged_classifier(runs, self.device)
        predictor = TorchPredictor(classifier)
        attacked = self.holdout.select(range(min(self.config.attack.attack_examples, len(self.holdout))))
        with scratch_directory(folder) as working:
            directory = working / "average"
            save_classifier(classifier, directory)
            examples, self.resources = attack_model(
                str(directory),
                Victim(predictor, self.context.columns.max_length, name="average"),
                attacked,
                self.config.attack,
                self.context,
                Checkpoint(folder, facts, progress.log, keeps=(SOUP_RECORD,)),
            )
        figures = asdict(summarize(examples, self.config.attack.attack))
        longest = self.config.attack.longest_word_budget
        mean = None if longest is None else asdict(mean_accuracy(examples, longest))
        figures |= {"mean_accuracy_under_attack": mean}
        # On the attacked texts alone the accuracy is too unsure to leave a run out for it.
        figures |= self._accuracy(predictor, name)
        text = json.dumps({"resources": self.resources, "figures": figures}, indent=2, allow_nan=False)
        write_whole(summary, text + "\n")
        score = _score(figures, self.config.chosen_by)
        kind = self.config.chosen_by.replace("_", " ")
        self.context.progress.log(f"{name}: accuracy {score.accuracy:.1%}, {kind} {score.robustness:.1%}")
        return figures

    def _accuracy(self, predictor: Predictor, name: str) -> dict[str, Any]:
        """On all held-out texts, with its interval."""
        count = len(self.holdout)
        share = measure_accuracy(
            predictor, self.holdout, self.context.columns.max_length, self.context.progress, name
        )
        interval = wilson_interval(round(share * count), count)
        return {"accuracy": share, "accuracy_interval": asdict(interval)}
