"""Commands that make classifiers: finetune, soup, prune, vocabulary."""

from __future__ import annotations

from typing import Annotated

import typer

from compressor.commands.arguments import Data, Encoder, Force, Json, Model, Output, Processes, Resume
from compressor.commands.flags import section_flags
from compressor.commands.printing import print_result, results_only
from compressor.options import (
    ColumnsConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SoupConfig,
    VocabularyConfig,
)
from compressor.system.context import terminal_context


@section_flags
def finetune(
    model: Encoder,
    data: Data,
    output: Output,
    options: FinetuneConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fine-tune an encoder into a dense classifier."""
    from compressor.training.finetune_stage import finetune_directory

    context = terminal_context(output, columns, run, resume=resume, force=force)
    with results_only(as_json):
        record = finetune_directory(model, data, options, context)
    print_result(
        as_json,
        record.model_dump(),
        f"{record.steps} training steps in {record.seconds:.0f} s; classifier in {output}",
    )


@section_flags
def soup(
    model: Encoder,
    data: Data,
    output: Output,
    options: SoupConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    processes: Processes = 1,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fine-tune several times and average the runs that are most robust under attack (model soup).

    The attacked texts are held out of the training data. Runs and attacks are kept in OUTPUT.runs: the same
    command resumes after an interruption, and a command with other options reuses what it shares.
    """
    from compressor.commands.tables import soup_table
    from compressor.training.soup_stage import soup_directory

    context = terminal_context(output, columns, run, processes=processes, force=force)
    with results_only(as_json):
        record = soup_directory(model, data, options, context)
    facts = record.model_dump()
    print_result(as_json, facts, "" if as_json else soup_table(facts))
    if not as_json:
        print_result(False, None, f"Classifier: {output}")


@section_flags
def prune(
    model: Model,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            help="Calibration texts (labelled for randomized): file or hub id.",
            show_default=False,
        ),
    ],
    output: Output,
    options: PruneConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prune the encoder of a classifier with a published method or a baseline."""
    from compressor.pruning.interface import prune_directory

    context = terminal_context(output, columns, run, resume=resume, force=force)
    with results_only(as_json):
        record = prune_directory(model, calibration, options, context)
    print_result(
        as_json,
        record.model_dump(),
        f"{record.algorithm}, {record.pattern}: {record.sparsity:.2%} of the encoder is zero; "
        f"{record.seconds:.0f} s; classifier in {output}",
    )


@section_flags
def vocabulary(
    model: Model,
    vocabulary: Annotated[
        str,
        typer.Option(
            "--vocabulary",
            help="Texts of the task, whose pieces are kept: file or hub id; labels are not needed.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Other texts, on which answers are compared with those of the whole vocabulary: file or hub "
            "id.",
            show_default=False,
        ),
    ],
    output: Output,
    options: VocabularyConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Reduce the vocabulary of a classifier to the pieces that the texts of a task need.

    Texts whose pieces are all kept have the same logits, bit for bit. Attacks bring new words: robustness is
    that of the smaller vocabulary, so attack the result.
    """
    from exporters.vocabulary import VocabularyFacts
    from exporters.vocabulary_stage import vocabulary_directory

    context = terminal_context(output, columns, run, force=force)
    with results_only(as_json):
        record = vocabulary_directory(model, vocabulary, data, options, context)
    summary = VocabularyFacts(**record.vocabulary).summary
    print_result(as_json, record.model_dump(), f"{summary}; classifier in {output}")
