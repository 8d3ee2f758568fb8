"""Commands that judge: validate, compare, inspect, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.commands.arguments import (
    Data,
    Force,
    Json,
    ModelOrArtifact,
    OptionalOutput,
    Processes,
    Resume,
)
from compressor.commands.flags import section_flags
from compressor.commands.printing import (
    optional_output,
    print_report,
    print_result,
    results_only,
    write_optional,
)
from compressor.errors import GateFailed
from compressor.options import (
    AttackConfig,
    ColumnsConfig,
    KnowledgeConfig,
    RunConfig,
    TestTextsConfig,
    ValidateConfig,
)
from compressor.system.console import terminal_progress
from compressor.system.context import terminal_context


@section_flags
def validate(
    dense: Annotated[str, typer.Argument(help="Dense classifier: directory or hub id.", show_default=False)],
    artifact: Annotated[Path, typer.Argument(help="Directory of the exported artifact.", show_default=False)],
    data: Data,
    options: ValidateConfig,
    attacked: AttackConfig,
    columns: ColumnsConfig,
    tested: TestTextsConfig,
    run: RunConfig,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Directory for the report; by default ARTIFACT-validation next to the artifact."
        ),
    ] = None,
    pruned: Annotated[
        Path | None,
        typer.Option(
            "--pruned", help="Pruned classifier; by default the one that the artifact's manifest names."
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(
            "--engine",
            help="Output directory of the artifact's build_engine.sh; adds the engine to the report.",
        ),
    ] = None,
    processes: Processes = 1,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare the artifact with the dense classifier: accuracy, robustness, latency, size, gates."""
    from compressor.validation.stage import ValidationJob, report_directory, validate_directories

    output = output or report_directory(artifact)
    job = ValidationJob(
        dense,
        artifact,
        pruned,
        data,
        options,
        attacked,
        allow_test_texts=tested.allow_test_texts,
        engine=engine,
    )
    context = terminal_context(output, columns, run, processes=processes, resume=resume, force=force)
    with results_only(as_json):
        report = validate_directories(job, context)
    print_report(as_json, report, output)


def compare(
    first: Annotated[
        Path, typer.Argument(help="Report of a validation: report.json or its directory.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(help="Report to compare with the first.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Compare two reports: the metrics of both artifacts, their differences, and what is not comparable."""
    from dataclasses import asdict

    from compressor.validation.gates.baseline import read_report
    from compressor.validation.gates.compare import compare_reports
    from compressor.validation.report.tables import comparison_table

    comparison = compare_reports(read_report(first), read_report(second))
    paths = {"first": str(first), "second": str(second)}
    text = "" if as_json else comparison_table(comparison, str(first), str(second))
    print_result(as_json, paths | asdict(comparison), text)


@section_flags
def inspect(
    model: ModelOrArtifact,
    compared: KnowledgeConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    output: OptionalOutput = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show layers, sparsity and patterns of a model, and its differences from a dense one (--against)."""
    from compressor.commands.tables import inspection_table
    from compressor.inspection.stage import inspect_model, inspect_stage
    from compressor.inspection.texts import knowledge_options

    with results_only(as_json):
        knowledge = knowledge_options(compared.against, columns, compared.model_dump(exclude={"against"}))
        if output is None:
            record = inspect_model(model, knowledge, columns, run, terminal_progress())
        else:
            record = inspect_stage(model, knowledge, terminal_context(output, columns, run, force=force))
    facts = record.model_dump()
    print_result(as_json, facts, "" if as_json else inspection_table(facts))


@section_flags
def doctor(
    run: RunConfig, output: OptionalOutput = None, force: Force = False, as_json: Json = False
) -> None:
    """Check whether this machine can run all stages."""
    from dataclasses import asdict

    from compressor.commands.doctor import examine
    from compressor.commands.tables import doctor_table

    with results_only(as_json), optional_output(output, force):
        checks = examine(run)
        result = {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}
        write_optional(output, force, "inspection.json", result)
    print_result(as_json, result, "" if as_json else doctor_table(checks))
    failed = [check.name for check in checks if not check.ok]
    if failed:
        raise GateFailed(f"not ready: {', '.join(failed)}")
