"""The stages as functions of Python: the same options, results and files as the commands.

Options are keywords; each function's docstring lists them. Where a path is taken, the result of an earlier
stage is taken as well. Progress is silent unless one is given. PyTorch's threads and the random state of the
calling program are as before when a function returns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compressor.errors import GateFailed, UserError
from compressor.options import (
    AttackConfig,
    ColumnsConfig,
    ExportConfig,
    FinetuneConfig,
    KnowledgeConfig,
    LatencyTableConfig,
    PerturbConfig,
    PruneConfig,
    RunConfig,
    SearchConfig,
    SoupConfig,
    TestTextsConfig,
    ValidateConfig,
    VocabularyConfig,
)
from compressor.options.keywords import KeywordOptions, SortedOptions
from compressor.system.console import Progress, SilentProgress, terminal_progress
from compressor.system.context import Context
from compressor.system.host import host_unchanged

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.attacks.results import AttackRecord, PerturbRecord
    from compressor.inspection.record import InspectRecord
    from compressor.models.latency_table import LatencyTable
    from compressor.models.manifest import VerifyRecord
    from compressor.pruning.in_memory import PrunedModel
    from compressor.pruning.record import PruneRecord
    from compressor.search.record import SearchRecord
    from compressor.training.records import FinetuneRecord, SoupRecord
    from compressor.validation.schema import Report
    from exporters.records import ExportRecord, PackRecord, UnpackRecord, VocabularyRecord

__all__ = [
    "GateFailed",
    "UserError",
    "attack",
    "export",
    "finetune",
    "inspect",
    "latency_table",
    "pack",
    "perturb",
    "prune",
    "prune_model",
    "run",
    "search_artifact",
    "soup",
    "terminal_progress",
    "unpack",
    "validate",
    "verify",
    "vocabulary",
]

StrPath: TypeAlias = str | os.PathLike[str]

_FINETUNE = KeywordOptions(FinetuneConfig, ColumnsConfig, RunConfig)
_SOUP = KeywordOptions(SoupConfig, ColumnsConfig, RunConfig)
_LATENCY_TABLE = KeywordOptions(LatencyTableConfig, RunConfig)
_PRUNE = KeywordOptions(PruneConfig, ColumnsConfig, RunConfig)
_PRUNE_MODEL = KeywordOptions(
    PruneConfig,
    ColumnsConfig,
    RunConfig,
    left_out=("device", "text_column", "text_pair_column", "label_column", "encoding", "delimiter"),
)
_VOCABULARY = KeywordOptions(VocabularyConfig, ColumnsConfig, RunConfig)
_ATTACK = KeywordOptions(AttackConfig, ColumnsConfig, RunConfig)
_PERTURB = KeywordOptions(PerturbConfig, ColumnsConfig, RunConfig)
_EXPORT = KeywordOptions(ExportConfig, ColumnsConfig, RunConfig)
_SEARCH = KeywordOptions(SearchConfig, ValidateConfig, AttackConfig, ColumnsConfig, RunConfig)
_VALIDATE = KeywordOptions(ValidateConfig, AttackConfig, ColumnsConfig, TestTextsConfig, RunConfig)
_INSPECT = KeywordOptions(KnowledgeConfig, ColumnsConfig, RunConfig)


@_FINETUNE.taken_by
def finetune(
    model: StrPath,
    *,
    data: StrPath,
    output: StrPath,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> FinetuneRecord:
    """Fine-tune an encoder into a dense classifier.

    Args:
        model: directory or hub id of the checkpoint.
        data: labelled texts: file or hub id.
        output: directory of the classifier; must not exist.
        resume: never throw away what a stopped run left.
        force: replace `output`, and what a stopped run of other options or input left.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, data or output.
    """
    given = _FINETUNE.sort(options)
    from compressor.training.finetune_stage import finetune_directory

    with host_unchanged():
        context = _context(given, output, progress, resume=resume, force=force)
        return finetune_directory(os.fspath(model), os.fspath(data), given.of(FinetuneConfig), context)


@_SOUP.taken_by
def soup(
    model: StrPath,
    *,
    data: StrPath,
    output: StrPath,
    processes: int = 1,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> SoupRecord:
    """Make a robust dense classifier: fine-tune several times, average by accuracy under attack.

    Args:
        model: directory or hub id of the checkpoint.
        data: labelled texts, of which some are held out and attacked: file or hub id.
        output: directory of the classifier; must not exist. The runs are kept in `OUTPUT.runs`.
        processes: among which attacked examples are shared out.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, data, resources or output.
    """
    given = _SOUP.sort(options)
    from compressor.training.soup_stage import soup_directory

    with host_unchanged():
        context = _context(given, output, progress, processes=processes, force=force)
        return soup_directory(os.fspath(model), os.fspath(data), given.of(SoupConfig), context)


@_LATENCY_TABLE.taken_by
def latency_table(
    model: StrPath,
    *,
    output: StrPath,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> LatencyTable:
    """Measure what heads and neurons cost on this machine, for pruning that heeds latency.

    Args:
        model: directory or hub id; only its `config.json` is read, and the times are of random weights.
        output: file of the table, in JSON; must not exist.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model or output.
    """
    given = _LATENCY_TABLE.sort(options)
    from compressor.search.latency import latency_table

    with host_unchanged():
        return latency_table(
            os.fspath(model),
            given.of(LatencyTableConfig),
            given.of(RunConfig),
            Path(output),
            force=force,
            progress=progress or SilentProgress(),
        )


@_PRUNE.taken_by
def prune(
    model: StrPath,
    *,
    calibration: StrPath,
    output: StrPath,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> PruneRecord:
    """Prune the encoder of a classifier with one of the published methods, or a baseline.

    Args:
        model: directory or hub id of the dense classifier.
        calibration: texts to prune with (randomized: labelled): file or hub id; never the test data.
        output: directory of the pruned classifier; must not exist.
        resume: never throw away what a stopped run left.
        force: replace `output`, and what a stopped run of other options or input left.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, data or output.
    """
    given = _PRUNE.sort(options)
    from compressor.pruning.interface import prune_directory

    with host_unchanged():
        context = _context(given, output, progress, resume=resume, force=force)
        return prune_directory(os.fspath(model), os.fspath(calibration), given.of(PruneConfig), context)


@_PRUNE_MODEL.taken_by
def prune_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    text_pairs: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PrunedModel:
    """Prune a copy of a model in memory; `model` stays as it is, and no file is written.

    The copy is on the model's device. Word vectors that `robust` needs are the only thing that may be read
    from, or computed into, the cache.

    Args:
        model: a fine-tuned classifier.
        tokenizer: that the model was trained with.
        texts: to prune with; never the test data.
        text_pairs: the second text of each example.
        labels: name or index of each text's class, or its number; randomized pruning needs them.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model or texts.
    """
    given = _PRUNE_MODEL.sort(options)
    config, columns, run_options = given.of(PruneConfig), given.of(ColumnsConfig), given.of(RunConfig)
    from compressor.data.texts import text_data
    from compressor.models.classifier import copied_classifier
    from compressor.pruning.in_memory import prune_in_memory
    from compressor.pruning.interface import algorithm_named
    from compressor.system.environment import set_threads

    needs_labels = algorithm_named(config.algorithm).needs_labels
    if needs_labels and labels is None:
        raise UserError(f"labels: algorithm {config.algorithm} needs them; give the class of each text")
    lengths = {"max_length": columns.max_length}
    with host_unchanged():
        set_threads(run_options)
        classifier = copied_classifier(model, tokenizer, lengths=lengths, has_pairs=text_pairs is not None)
        names = classifier.label_names
        data = text_data(texts, text_pairs, labels, columns, label_names=names, needs_labels=needs_labels)
        shown = progress or SilentProgress()
        return prune_in_memory(classifier, data, config, columns.max_length, run_options.seed, shown)


@_VOCABULARY.taken_by
def vocabulary(
    model: StrPath,
    *,
    vocabulary: StrPath,
    data: StrPath,
    output: StrPath,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> VocabularyRecord:
    """Reduce the vocabulary of a classifier to the pieces that the texts of a task need.

    Args:
        model: directory or hub id of the classifier.
        vocabulary: texts of the task, whose pieces are kept: file or hub id.
        data: other texts, on which answers are compared with those of the whole vocabulary: file or hub id.
        output: directory of the classifier; must not exist.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, texts or output, or answers that agree too seldom.
    """
    given = _VOCABULARY.sort(options)
    from exporters.vocabulary_stage import vocabulary_directory

    with host_unchanged():
        context = _context(given, output, progress, force=force)
        sources = os.fspath(vocabulary), os.fspath(data)
        return vocabulary_directory(os.fspath(model), *sources, given.of(VocabularyConfig), context)


@_EXPORT.taken_by
def export(
    model: StrPath,
    *,
    output: StrPath,
    data: StrPath | None = None,
    calibration: StrPath | None = None,
    reference_texts: StrPath | None = None,
    vocabulary: StrPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ExportRecord:
    """Export a classifier to ONNX and prove its parity with PyTorch.

    Args:
        model: directory or hub id of the classifier.
        output: directory of the artifact; must not exist.
        data: real texts for the proof of parity; those that the model was made with if not given.
        calibration: texts that int8-static is fitted on; those that the model was made with if not given.
        reference_texts: texts that go into the artifact with its answers, to check other hosts; the first 32
            are taken. Made ones if not given.
        vocabulary: texts of the task; only the pieces of the vocabulary that they need are kept, all if not
            given. Attacks bring new words: robustness is that of the smaller vocabulary.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, data or output, or parity that does not hold.
    """
    given = _EXPORT.sort(options)
    from exporters.stage import export_directory
    from exporters.texts import ExportTexts

    with host_unchanged():
        context = _context(given, output, progress, force=force)
        config = given.of(ExportConfig)
        sources = ExportTexts(_text(calibration), _text(reference_texts), _text(vocabulary))
        return export_directory(os.fspath(model), _text(data), config, context, sources)


@_ATTACK.taken_by
def attack(
    model: StrPath,
    *,
    data: StrPath,
    output: StrPath,
    against: StrPath | None = None,
    processes: int = 1,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> AttackRecord:
    """Attack a classifier or an exported artifact with TextAttack, on local resources.

    Args:
        model: classifier (directory or hub id) or exported artifact.
        data: labelled texts: file or hub id.
        output: directory of the records; must not exist.
        against: the same attack on another model, to compare with.
        processes: among which attacked examples are shared out.
        resume: never throw away what a stopped run left.
        force: replace `output`, and what a stopped run of other options or input left.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, data, resources or output.
    """
    given = _ATTACK.sort(options)
    from compressor.attacks.stage import attack_directory

    with host_unchanged():
        context = _context(given, output, progress, processes=processes, resume=resume, force=force)
        config = given.of(AttackConfig)
        return attack_directory(os.fspath(model), os.fspath(data), config, context, _path(against))


@_PERTURB.taken_by
def perturb(
    model: StrPath,
    *,
    data: StrPath,
    output: StrPath,
    against: StrPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> PerturbRecord:
    """Score typos, synonyms and casing not made for the model: seconds where an attack takes minutes.

    Args:
        model: classifier (directory or hub id) or exported artifact.
        data: labelled texts: file or hub id.
        output: directory of the records; must not exist.
        against: the same call on another model, to compare with.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, data, resources or output.
    """
    given = _PERTURB.sort(options)
    from compressor.attacks.perturb_stage import perturb_directory

    with host_unchanged():
        context = _context(given, output, progress, force=force)
        config = given.of(PerturbConfig)
        return perturb_directory(os.fspath(model), os.fspath(data), config, context, _path(against))


@_VALIDATE.taken_by
def validate(
    dense: StrPath,
    artifact: StrPath,
    *,
    data: StrPath,
    output: StrPath | None = None,
    pruned: StrPath | None = None,
    engine: StrPath | None = None,
    processes: int = 1,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Hold the artifact against the dense classifier: accuracy, robustness, latency, size, gates.

    A broken gate is no error: the report's `verdict` is `fail`, and its `gates` say why.

    Args:
        dense: directory or hub id of the dense classifier.
        artifact: directory of the exported artifact.
        data: labelled test texts: file or hub id.
        output: directory of the report; `ARTIFACT-validation` beside the artifact if not given.
        pruned: the pruned classifier; found through the artifact's manifest if not given.
        engine: directory that the artifact's `build_engine.sh` filled; its figures join the report.
        processes: among which attacked examples are shared out.
        resume: never throw away what a stopped run left.
        force: replace `output`, and what a stopped run of other options or input left.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, models, data or output.
    """
    given = _VALIDATE.sort(options)
    from compressor.validation.stage import ValidationJob, report_directory, validate_directories

    job = ValidationJob(
        dense=os.fspath(dense),
        artifact=Path(artifact),
        pruned=_path(pruned),
        data=os.fspath(data),
        config=given.of(ValidateConfig),
        attack=given.of(AttackConfig),
        allow_test_texts=given.of(TestTextsConfig).allow_test_texts,
        engine=_path(engine),
    )
    directory = report_directory(job.artifact) if output is None else Path(output)
    context = _context(given, directory, progress, processes=processes, resume=resume, force=force)
    with host_unchanged():
        report = validate_directories(job, context)
    return report.written_to(directory)


@_INSPECT.taken_by
def inspect(
    model: StrPath,
    *,
    output: StrPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> InspectRecord:
    """Return what a classifier or an artifact holds, and what it keeps of a dense model's knowledge.

    Args:
        model: classifier (directory or hub id) or exported artifact.
        output: directory for the facts and plots; none is written if not given.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, models, texts or output.
    """
    given = _INSPECT.sort(options)
    from compressor.inspection.stage import inspect_model, inspect_stage
    from compressor.inspection.texts import knowledge_options

    columns, run_options, compared = given.of(ColumnsConfig), given.of(RunConfig), given.of(KnowledgeConfig)
    knowledge = knowledge_options(compared.against, columns, compared.model_dump(exclude={"against"}))
    with host_unchanged():
        if output is None:
            shown = progress or SilentProgress()
            return inspect_model(os.fspath(model), knowledge, columns, run_options, shown)
        return inspect_stage(os.fspath(model), knowledge, _context(given, output, progress, force=force))


def pack(model: StrPath, *, output: StrPath, force: bool = False) -> PackRecord:
    """Pack a pruned classifier for shipping: only the weights that are not zero, bit for bit.

    Args:
        model: directory of a classifier.
        output: directory of the packed classifier; must not exist.
        force: replace `output`.

    Raises:
        UserError: bad model or output.
    """
    from exporters.packed import pack_directory

    return pack_directory(Path(model), Path(output), force=force)


def unpack(packed: StrPath, *, output: StrPath, force: bool = False) -> UnpackRecord:
    """Restore a packed classifier, bit for bit.

    Args:
        packed: directory that `pack` wrote.
        output: directory of the classifier; must not exist.
        force: replace `output`.

    Raises:
        UserError: no packed classifier, or bad output.
    """
    from exporters.packed import unpack_directory

    return unpack_directory(Path(packed), Path(output), force=force)


def verify(artifact: StrPath, *, run: bool = False) -> VerifyRecord:
    """Check that an artifact or a packed classifier is, file by file, what was written.

    Args:
        artifact: its directory.
        run: also compare its answers on this machine with those that its export recorded; the record then
            has them as `host`. Not for packed classifiers.

    Raises:
        UserError: no directory, no readable manifest in it, or no recorded answers to run. A changed file or
            another answer is no error: `ok` is False.
    """
    if run:
        from compressor.models.host_verification import verify_host

        return verify_host(Path(artifact))
    from compressor.models.manifest import verify_directory

    return verify_directory(Path(artifact))


@_SEARCH.taken_by
def search_artifact(
    model: StrPath,
    *,
    calibration: StrPath,
    selection: StrPath,
    test: StrPath,
    output: StrPath,
    vocabulary: StrPath | None = None,
    take: int | None = None,
    earlier: StrPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> SearchRecord:
    """Search for the fastest or smallest artifact that holds the gates, and prove it on the test texts.

    That nothing holds the gates is no error: the record's `chosen` is None, and its `reason` says why.

    Args:
        model: directory or hub id of the dense classifier.
        calibration: texts to prune with, without labels: file or hub id.
        selection: labelled texts by which candidates are compared; no test texts.
        test: labelled texts on which the chosen artifact is validated, once.
        output: directory of the outcome; must not exist. Candidates are kept in `OUTPUT.candidates`.
        vocabulary: texts whose pieces of the vocabulary the artifacts keep; all are kept if not given.
        take: number of the candidate to choose, in place of the best.
        earlier: output of an earlier search, with whose artifact the chosen one is compared.
        force: replace `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad options, model, texts, tables or output.
    """
    given = _SEARCH.sort(options)
    from compressor.search.candidates import SearchJob
    from compressor.search.stage import search_directory

    job = SearchJob(
        os.fspath(model),
        os.fspath(calibration),
        os.fspath(selection),
        os.fspath(test),
        None if vocabulary is None else os.fspath(vocabulary),
        given.of(SearchConfig),
        given.of(ValidateConfig),
        given.of(AttackConfig),
    )
    with host_unchanged():
        context = _context(given, output, progress, force=force)
        return search_directory(job, context, take, _text(earlier))


def run(
    recipe: StrPath,
    *,
    output: StrPath,
    settings: Mapping[str, Any] | None = None,
    processes: int = 1,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run a whole recipe: fine-tune, prune, export, attack, validate; what `output` holds is reused.

    A broken gate is no error: the report's `verdict` is `fail`, and its `gates` say why.

    Args:
        recipe: a YAML file.
        output: directory of the run.
        settings: values in place of the recipe's, by their keys such as `prune.sparsity`.
        processes: among which attacked examples are shared out.
        force: begin anew, without what is in `output`.
        progress: shows the progress; nothing is shown if not given.

    Raises:
        UserError: bad recipe, model, data or output.
    """
    from compressor.config.overrides import Override
    from compressor.config.recipe import load_recipe
    from compressor.pipeline.run import run_recipe

    overrides = [
        Override(tuple(key.split(".")), value, f"settings: {key}") for key, value in (settings or {}).items()
    ]
    loaded = load_recipe(Path(recipe), overrides)
    with host_unchanged():
        report = run_recipe(
            loaded, Path(output), processes=processes, force=force, progress=progress or SilentProgress()
        )
    return report.written_to(Path(output))


def _context(given: SortedOptions, output: StrPath, progress: Progress | None, **more: Any) -> Context:
    """Return what the stages are given besides their own options."""
    return Context(
        output=Path(output),
        columns=given.of(ColumnsConfig),
        run=given.of(RunConfig),
        progress=progress or SilentProgress(),
        **more,
    )


def _text(path: StrPath | None) -> str | None:
    return None if path is None else os.fspath(path)


def _path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)
