"""The held-out texts on which candidates are compared, and what a candidate costs on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.batching import Encoded, encode
from compressor.models.classifier import Classifier
from compressor.models.metrics import measure_task
from compressor.models.predictors import TorchPredictor, predict_encoded
from compressor.options import AttackConfig, PerturbConfig, RandomizedConfig
from compressor.pruning.interface import PruningJob
from compressor.system.console import Progress, SilentProgress
from compressor.training.loop import TrainingSet
from compressor.training.losses import answer_divergence, distillation_loss
from compressor.training.schedule import Schedule

TEACHER_BATCH_SIZE = 64
# Casing is nothing to an uncased model.
SHIFTS = PerturbConfig(perturbations=["typos", "synonyms"])
# It needs no word vectors, and fewer queries than any other.
ATTACK = AttackConfig(attack="deepwordbug")


@dataclass(frozen=True)
class Holdout:
    """Held-out texts on which candidates are compared.

    Attributes:
        clean: the texts.
        perturbed: the same texts, once for each kind of perturbation; empty where robustness does not count.
        attack: share of attacked held-out texts that a model gets wrong in the end; None where it does not
            count.
    """

    clean: TrainingSet
    perturbed: Sequence[Sequence[Encoded]] = ()
    attack: Callable[[Classifier], float] | None = None


def split(
    classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
) -> tuple[TrainingSet, Holdout]:
    """Training and held-out sets, drawn with the seed, with the dense model's logits if they are learnt from.

    Raises:
        UserError: so many texts are held out that none are left.
    """
    config = job.config.randomized
    rest, held = data.hold_out(config.holdout_examples, job.seed)
    perturbed: list[TextData] = []
    if config.shift_weight:
        # TextAttack takes seconds to import.
        from compressor.attacks.perturbations import perturbed_texts

        perturbed = list(perturbed_texts(held, SHIFTS, job.seed, progress)[0].values())

    def part(texts: TextData, name: str) -> TrainingSet:
        encoded, targets = encode(classifier.tokenizer, texts, job.max_length), torch.tensor(texts.targets)
        if not config.distillation_weight:
            return TrainingSet(encoded, targets)
        logits = predict_encoded(
            TorchPredictor(classifier),
            encoded,
            TEACHER_BATCH_SIZE,
            progress,
            f"Dense model's logits of {name} texts",
        )
        return TrainingSet(encoded, targets, torch.from_numpy(logits))

    others = [encode(classifier.tokenizer, texts, job.max_length) for texts in perturbed]
    attack = (
        _attack_on(held.sample(config.attacked_examples, job.seed), job) if config.attack_weight else None
    )
    return part(rest, "training"), Holdout(part(held, "held-out"), others, attack)


def _attack_on(texts: TextData, job: PruningJob) -> Callable[[Classifier], float]:
    """Share of the texts that a model gets wrong once DeepWordBug has searched each for a wrong answer."""
    # TextAttack takes seconds to import.
    from compressor.attacks.records import summarize
    from compressor.attacks.runner import attack_victim
    from compressor.attacks.victims import Victim

    def error(classifier: Classifier) -> float:
        victim = Victim(TorchPredictor(classifier), job.max_length)
        examples, _ = attack_victim(victim, texts, ATTACK, job.seed, SilentProgress())
        return 1 - summarize(examples, ATTACK.attack).accuracy_under_attack

    return error


def candidate_cost(
    classifier: Classifier, holdout: Holdout, config: RandomizedConfig, schedule: Schedule
) -> float:
    """What candidates are compared by, lower is better; without dropout.

    The loss, or one minus a metric; for each unit of `shift_weight` the divergence of answers between
    texts and their perturbed forms, mean over kinds; and `attack_weight` times the error under attack.
    """
    clean = holdout.clean
    logits = _logits(classifier, clean.encoded, schedule)
    if config.score == "loss":
        cost = float(distillation_loss(logits, clean.labels, clean.teacher_logits, schedule))
    else:
        cost = 1 - measure_task(config.score, logits.numpy(), clean.labels.tolist())
    shifts = [
        float(answer_divergence(logits, _logits(classifier, texts, schedule))) for texts in holdout.perturbed
    ]
    cost += config.shift_weight * (sum(shifts) / len(shifts) if shifts else 0.0)
    return cost if holdout.attack is None else cost + config.attack_weight * holdout.attack(classifier)


def holdout_loss(classifier: Classifier, holdout: TrainingSet, schedule: Schedule) -> float:
    """The training loss on held-out data, without dropout."""
    logits = _logits(classifier, holdout.encoded, schedule)
    return float(distillation_loss(logits, holdout.labels, holdout.teacher_logits, schedule))


def _logits(classifier: Classifier, encoded: Sequence[Encoded], schedule: Schedule) -> Tensor:
    return torch.from_numpy(predict_encoded(TorchPredictor(classifier), encoded, schedule.batch_size))
