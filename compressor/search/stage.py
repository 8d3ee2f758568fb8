"""Search for the smallest or fastest artifact that holds the gates, and prove it on the test texts.

Quality falls as speed rises, so the speed that candidates are pruned for is found by bisection. Candidates
are compared on selection texts; the chosen one is validated on the test texts once, with all gates.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from compressor.config.recipe import Recipe, dump_recipe
from compressor.data.overlap import check_shared
from compressor.data.texts import Role, load_text_data
from compressor.errors import UserError
from compressor.models.classifier import model_labels, weights_fingerprint
from compressor.models.latency_table import LatencyTable, read_latency_table
from compressor.options import ColumnsConfig, DataConfig, PruneConfig
from compressor.search.budget import most_begun, why_over
from compressor.search.candidates import (
    CandidateStore,
    SearchJob,
    Wanted,
    model_figures,
    outcome_figures,
)
from compressor.search.earlier import held_against, read_earlier
from compressor.search.makers import Makers, candidate_makers
from compressor.search.record import (
    ARTIFACT,
    PAGE,
    RECIPE,
    REPORT_FOLDER,
    SCHEMA_VERSION,
    SEARCH_RECORD,
    SUMMARY,
    TABLE,
    CandidateFigures,
    SearchRecord,
    front_of,
)
from compressor.search.report import search_html, search_markdown
from compressor.search.targets import Tried, coming_targets, next_target
from compressor.system.context import Context
from compressor.system.environment import describe_environment
from compressor.system.files import atomic_directory, claims_output, write_json
from compressor.validation.gates.baseline import prepare_gates
from compressor.validation.gates.gates import parse_gates
from compressor.validation.schema import GateResult, Report


@claims_output
def search_directory(
    job: SearchJob, context: Context, take: int | None = None, earlier: str | None = None
) -> SearchRecord:
    """Run a search and write its outcome: record, chosen artifact, its report and a recipe that makes it.

    What is made for candidates stays in the folder `OUTPUT.candidates`: a search that was stopped goes on
    after its last finished candidate if it is started again.

    Args:
        take: number of the candidate to choose; None chooses the best that holds all gates.
        earlier: output of an earlier search, with whose artifact the chosen one is compared.

    Raises:
        UserError: bad model, texts, tables, options or output, or no outcome of an earlier search. That
            nothing holds the gates is no error here: the record's verdict says so.
    """
    prepare_gates(job.validate, job.attack)
    past = None if earlier is None else read_earlier(earlier, job.config.objective)
    _check_texts(job, context)
    store = CandidateStore(job, context)
    files = [Path(file) for file in job.config.latency_tables] or [store.measured_table()]
    tables = {file: read_latency_table(file) for file in files}
    for file, table in tables.items():
        if table.threads != store.latency_threads:
            context.progress.log(
                f"{file}: is of {table.threads} threads, and candidates are timed on "
                f"{store.latency_threads}; --latency-threads {table.threads} times them alike"
            )
    with candidate_makers(store) as makers:
        candidates, reason = all_candidates(job, tables, makers)
    chosen = _chosen(candidates, job, take)
    report, tested = (None, None) if chosen is None else store.tested(chosen)
    record = _record(job, candidates, chosen, report, reason, store)
    if past is not None:
        record = record.model_copy(update={"earlier": held_against(record, past)})
    with atomic_directory(context.output, force=context.force) as working:
        write_json(working / SEARCH_RECORD, record.model_dump(mode="json", exclude={"path"}))
        (working / PAGE).write_text(search_html(record), encoding="utf-8")
        (working / SUMMARY).write_text(search_markdown(record), encoding="utf-8")
        if chosen is not None and tested is not None:
            shutil.copytree(store.folder / chosen.artifact, working / ARTIFACT)
            shutil.copytree(tested, working / REPORT_FOLDER)
            shutil.copyfile(chosen.table, working / TABLE)
            recipe = recipe_of(job, chosen, store, context)
            (working / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
    return record


def _record(
    job: SearchJob,
    candidates: list[CandidateFigures],
    chosen: CandidateFigures | None,
    report: Report | None,
    reason: str,
    store: CandidateStore,
) -> SearchRecord:
    """What the search found.

    Args:
        report: of the chosen candidate on the test texts.
        reason: why the search ended.
    """
    # All candidates were held against the same dense model; that was attacked with those that were.
    attacked = next((one for one in candidates if one.attacked), candidates[0])
    measured = store.report_of(attacked)
    return SearchRecord(
        schema_version=SCHEMA_VERSION,
        objective=job.config.objective,
        gates=[str(gate) for gate in parse_gates(job.validate.gates)],
        task_metric=measured.task_metric,
        attack_metric=job.attack.figure,
        texts=_sources(job),
        dense={"source": job.model, "sha256": weights_fingerprint(job.model)},
        dense_figures=model_figures(measured.variants.dense),
        candidates=candidates,
        front=front_of(candidates, job.config.objective),
        chosen=None if chosen is None else chosen.number,
        nearest=nearest_to_gates(candidates).number if chosen is None else None,
        verdict="fail" if report is None else report.verdict,
        reason=why_none(candidates) if chosen is None else reason,
        test_gates=[] if report is None else report.gates,
        test_figures=None if report is None else outcome_figures(report.variants),
        environment=describe_environment(store.context.run),
        path=store.context.output,
    )


def _sources(job: SearchJob) -> dict[str, str]:
    found = {"calibration": job.calibration, "selection": job.selection, "test": job.test}
    return found if job.vocabulary is None else {**found, "vocabulary": job.vocabulary}


def _check_texts(job: SearchJob, context: Context) -> None:
    """Raise a `UserError` if texts cannot be used, or candidates would be made with test texts."""
    names = model_labels(job.model)
    test = load_text_data(job.test, context.columns, "test", label_names=names)
    others: dict[Role, str | None] = {
        "calibration": job.calibration,
        "selection": job.selection,
        "vocabulary": job.vocabulary,
    }
    for role, source in others.items():
        if source is not None:
            needs = role == "selection"
            data = load_text_data(source, context.columns, role, label_names=names, needs_labels=needs)
            check_shared(role, data, test, allowed=False)


def all_candidates(
    job: SearchJob, tables: Mapping[Path, LatencyTable], makers: Makers
) -> tuple[list[CandidateFigures], str]:
    """Return all candidates in the order in which they are measured, and why there are no more.

    Raises:
        UserError: bad model, texts or options, or a process that made a candidate was killed.
    """
    found: list[CandidateFigures] = []
    store, gates = makers.store, parse_gates(job.validate.gates)
    log = store.context.progress.log
    for path, table in tables.items():
        target: float | None = None
        tried: list[Tried] = []
        while True:
            wanted = Wanted(path, table, target)
            is_made = store.is_made(wanted)
            if reason := why_over(found, len(tried), job.config, is_made=is_made):
                return found, reason
            number, form = len(found), f"{table.runtime} {table.precision}"
            log(f"Candidate {number}: {wanted.name}, {form}; {_so_far(found, job)}")
            began = time.monotonic()
            if target is not None and not is_made:
                makers.make(_round(wanted, found, tried, makers))
            one = store.candidate(number, wanted, began)
            found.append(one)
            log(f"Candidate {number}: {in_words(one)}")
            if target is None and not one.quality_holds:
                break
            if target is not None:
                tried.append(Tried(target, one.quality_holds))
            target = next_target(table, tried, job.config, gates)
            if target is None:
                break
    if job.config.speedups:
        return found, "all speed-ups that were asked for, and are within reach, were tried"
    return found, "the fastest speed that holds the gates is known closely enough"


def _round(
    wanted: Wanted, found: Sequence[CandidateFigures], tried: Sequence[Tried], makers: Makers
) -> list[Wanted]:
    """What is made at once: a candidate that is not made, and those that are likely to come after it."""
    job = makers.store.job
    most = most_begun(found, len(tried), job.config)
    targets = coming_targets(wanted.table, tried, job.config, parse_gates(job.validate.gates), most)
    coming = (wanted._replace(target=target) for target in targets)
    return list(islice((one for one in coming if not makers.store.is_made(one)), makers.count))


def _so_far(found: Sequence[CandidateFigures], job: SearchJob) -> str:
    used = sum(one.seconds for one in found) / 60
    best = _chosen(found, job, None)
    shown = "none holds the gates yet" if best is None else f"best so far {in_words(best)}"
    return f"{used:.1f} of {job.config.budget_minutes:g} minutes used; {shown}"


def in_words(one: CandidateFigures) -> str:
    """Return the figures of a candidate in one line."""
    accuracy = f"score {one.task_score:.4f}" if one.accuracy is None else f"accuracy {one.accuracy:.2%}"
    held = "holds the gates" if one.holds else f"fails {one.problems}"
    return f"{one.speedup:.1f} times dense PyTorch, {one.size_bytes / 1e6:.1f} MB, {accuracy}, {held}"


def _chosen(
    candidates: Sequence[CandidateFigures], job: SearchJob, take: int | None
) -> CandidateFigures | None:
    """The candidate of a number, or the best that holds all gates.

    Raises:
        UserError: there is no such number.
    """
    if take is not None:
        if take >= len(candidates):
            raise UserError(f"take {take}: there are candidates 0 to {len(candidates) - 1}")
        return candidates[take]
    holding = [one for one in candidates if one.holds]
    if not holding:
        return None
    if job.config.objective == "size":
        return min(holding, key=lambda one: (one.size_bytes, -one.speedup))
    return max(holding, key=lambda one: one.speedup)


def nearest_to_gates(candidates: Sequence[CandidateFigures]) -> CandidateFigures:
    """Return the candidate that is nearest to gates that none holds.

    Where the gates on quality are held, it is the fastest that holds them; otherwise the one that fails the
    fewest gates.
    """
    cheap = [one for one in candidates if one.quality_holds]
    if cheap:
        return max(cheap, key=lambda one: one.speedup)
    return min(candidates, key=lambda one: (len(one.not_held), -one.task_score))


def why_none(candidates: Sequence[CandidateFigures]) -> str:
    """Return which gates stand in the way, and the candidate that is nearest to all of them."""
    nearest = nearest_to_gates(candidates)
    kind = "speed or size" if nearest.quality_holds else "quality"
    others = sorted({result.metric for one in candidates for result in one.not_held})
    stand = "stands" if len(others) == 1 else "stand"
    return (
        f"no candidate holds all gates ({', '.join(others)} {stand} in the way); nearest is candidate "
        f"{nearest.number} ({nearest.name}), short in {kind}: "
        f"{'; '.join(_sentence(result) for result in nearest.not_held)}"
    )


def _sentence(result: GateResult) -> str:
    """What is wrong with a gate that does not hold, or not surely."""
    return result.sentence if result.status == "fail" else f"{result.sentence}: it holds, but not surely"


def recipe_of(job: SearchJob, chosen: CandidateFigures, store: CandidateStore, context: Context) -> Recipe:
    """Return the recipe that makes and proves the chosen artifact again, without a search."""
    data = context.columns.model_dump(include=set(ColumnsConfig.model_fields))
    data |= {"calibration": job.calibration, "test": job.test, "vocabulary": job.vocabulary}
    # What was not pruned is exported as it is.
    prune = PruneConfig(algorithm="magnitude", sparsity=0.0)
    if chosen.target is not None:
        prune = store.prune_config(context.output / TABLE, chosen.target)
    return Recipe(
        model=job.model,
        data=DataConfig(**data),
        run=context.run,
        prune=prune,
        attack=job.attack,
        export=store.export_config(chosen.runtime, chosen.precision),
        validate=job.validate,
    )
