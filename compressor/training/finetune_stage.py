"""The finetune stage: an encoder and labelled texts become a dense classifier."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from compressor.data.labels import NUMBER_NAMES
from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.models.batching import encode
from compressor.models.classifier import (
    Classifier,
    load_for_finetuning,
    model_content,
    save_classifier,
    weights_bytes,
    weights_fingerprint,
)
from compressor.models.normalization.tokenizers import normalized_classifier
from compressor.models.reuse import decides
from compressor.options import FinetuneConfig, RunConfig
from compressor.system.checkpoint import NoCheckpoint, open_checkpoint, remove_checkpoint
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import atomic_directory, claims_output, write_json
from compressor.system.jobs import Job, describe_machine
from compressor.training.checkpoint import DISK_SHARE, TrainingCheckpoint
from compressor.training.freelb import perturbation_of
from compressor.training.loop import TrainingSet, train
from compressor.training.mixture import SubstitutionWords, load_substitution_words, mixture_of
from compressor.training.records import FinetuneRecord
from compressor.training.schedule import Schedule
from compressor.training.substitution import Substitution
from compressor.training.word_substitution import check_substitution, substitution_kind

TRAINING_RECORD = "training.json"


def finetune_classifier(
    classifier: Classifier,
    data: TextData,
    config: FinetuneConfig,
    context: Context,
    words: SubstitutionWords | None,
    checkpoint: NoCheckpoint,
) -> int:
    """Fine-tune all weights in place on labelled data; return the number of training steps.

    Args:
        context: whose length, seed and progress are used.
        words: that stand for others; None where the options have none replaced.
        checkpoint: where the training's state is kept, and where it goes on from.

    Raises:
        UserError: the device cannot compute in the precision of the options.
    """
    tokenizer, max_length, seed = classifier.tokenizer, context.columns.max_length, context.run.seed
    substitution: Substitution | None = None
    if words is not None:
        mixture, share = mixture_of(config, words).replacements, config.substituted_share
        substitution = substitution_kind(config)(tokenizer, data, max_length, mixture, share, seed)
    training = TrainingSet(
        encode(tokenizer, data, max_length), torch.tensor(data.targets), substitution=substitution
    )
    schedule = Schedule(
        steps=config.epochs * math.ceil(len(data) / (config.batch_size * config.accumulation_steps)),
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        warmup_share=config.warmup_share,
        perturbation=perturbation_of(config),
        accumulation_steps=config.accumulation_steps,
        precision=config.precision,
    )
    return train(
        classifier,
        training,
        schedule,
        seed=seed,
        checkpoint=TrainingCheckpoint(checkpoint, "training"),
        track=lambda steps: context.progress.track(steps, f"Fine-tuning on {len(data)} texts"),
    )


def training_decides(
    config: FinetuneConfig,
    run: RunConfig,
    model: Mapping[str, str],
    data: TextData,
    max_length: int,
    **more: Any,
) -> dict[str, Any]:
    """All that decides a fine-tuning, ready for JSON.

    Args:
        model: its content.
        more: what else decides it.

    Raises:
        UserError: see `compressor.models.reuse.decides`.
    """
    return decides(
        "finetune",
        run,
        {"finetune": config},
        model=dict(model),
        labels=data.label_names,
        data={"train": {"content": data.fingerprint}, "max_length": max_length},
        **more,
    )


@claims_output
def finetune_directory(
    model: str, train_data: str, config: FinetuneConfig, context: Context
) -> FinetuneRecord:
    """Run the finetune stage: an encoder and labelled texts in, a dense classifier out.

    Writes the classifier and `training.json`, whose content is returned. The training's state is
    kept beside the output until that is whole: a run that was stopped goes on from there if it is started
    again.

    Raises:
        UserError: bad model, data or output.
    """
    columns, run, progress = context.columns, context.run, context.progress
    check_substitution(config)
    device = prepare(run)
    names = NUMBER_NAMES if config.task == "regression" else None
    data = load_text_data(train_data, columns, "train", label_names=names)
    log_notes(data, progress)
    classifier = load_for_finetuning(
        model,
        data.label_names,
        run.seed,
        device,
        lengths={"max_length": columns.max_length},
        has_pairs=data.pairs is not None,
    )
    if config.normalize_text:
        classifier = normalized_classifier(classifier)
    words = load_substitution_words(config, progress) if config.substituted_share else None
    facts = {
        "options": config.model_dump(),
        "seed": run.seed,
        "labels": classifier.label_names,
        "model": {"source": model, "sha256": weights_fingerprint(model)},
        "data": data.record(columns),
        **(words or SubstitutionWords()).record(),
        "environment": describe_environment(run),
    }
    content = {"content": model_content(model)}
    job = Job(
        training_decides(config, run, content, data, columns.max_length),
        {"model": model, "data.train": train_data},
        describe_machine(run),
    )
    checkpoint = open_checkpoint(
        context.output, job, resume=context.resume, force=context.force, log=progress.log
    )
    needed = (1 + DISK_SHARE) * weights_bytes(classifier)
    # Opened ahead of the training: what cannot be written in the end is told before hours are spent.
    with atomic_directory(context.output, force=context.force, needed_bytes=needed) as working:
        start = time.monotonic()
        steps = finetune_classifier(classifier, data, config, context, words, checkpoint)
        record = {
            "steps": steps,
            "seconds": round(time.monotonic() - start, 2),
            **facts,
            **checkpoint.began_on,
        }
        save_classifier(classifier, working)
        write_json(working / TRAINING_RECORD, record)
    remove_checkpoint(checkpoint)
    return FinetuneRecord(**record, path=context.output, sha256=weights_fingerprint(str(context.output)))
