"""The vocabulary stage: a classifier directory in, the same classifier with fewer pieces out."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from compressor.data.texts import load_text_data, log_notes
from compressor.models.classifier import (
    check_pairs,
    load_classifier,
    save_classifier,
    weights_bytes,
    weights_fingerprint,
)
from compressor.options import VocabularyConfig
from compressor.pruning.interface import PRUNING_RECORD
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import atomic_directory, claims_output, write_json
from compressor.training.finetune_stage import TRAINING_RECORD
from exporters.records import VocabularyRecord
from exporters.vocabulary import smaller_classifier

VOCABULARY_RECORD = "vocabulary.json"


@claims_output
def vocabulary_directory(
    model: str, vocabulary: str, data: str, config: VocabularyConfig, context: Context
) -> VocabularyRecord:
    """Write a classifier with the pieces of its vocabulary that texts need, and `vocabulary.json`.

    The records of its pruning or training come along: the encoder is the same.

    Args:
        model: directory or hub id.
        vocabulary: texts whose pieces are kept: file or hub id.
        data: texts on which answers are compared, none of which is counted: file or hub id.

    Raises:
        UserError: bad model, texts or output, or answers that agree less often than the options allow.
    """
    columns, run = context.columns, context.run
    prepare(run)
    classifier = load_classifier(model, "cpu", lengths={"max_length": columns.max_length})
    compared = load_text_data(data, columns, "test", label_names=classifier.label_names, needs_labels=False)
    log_notes(compared, context.progress)
    check_pairs(model, classifier.model.config, classifier.tokenizer, compared.pairs is not None)
    smaller, facts = smaller_classifier(classifier, vocabulary, compared, config, context)
    needed = weights_bytes(smaller)
    with atomic_directory(context.output, force=context.force, needed_bytes=needed) as working:
        save_classifier(smaller, working)
        copy_records(Path(model), working)
        record = {
            "options": config.model_dump(),
            "model": {"source": model, "sha256": weights_fingerprint(model)},
            "vocabulary": asdict(facts),
            "environment": describe_environment(run),
        }
        write_json(working / VOCABULARY_RECORD, record)
    return VocabularyRecord(**record, path=context.output, sha256=weights_fingerprint(str(context.output)))


def copy_records(model: Path, directory: Path) -> None:
    """Copy what pruning and training recorded of a model, as far as its directory has it."""
    for name in (PRUNING_RECORD, TRAINING_RECORD):
        if (model / name).is_file():
            shutil.copyfile(model / name, directory / name)
