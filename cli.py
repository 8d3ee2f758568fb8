"""The command line. Parses, calls one function, prints; heavy imports wait until a command runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import __version__
from compressor.console import terminal_progress
from compressor.errors import GateFailed, UserError
from compressor.flags import section_flags
from compressor.ranks import ranks_of_environment
from compressor.recipe import (
    AttackConfig,
    ColumnsConfig,
    ExportConfig,
    FinetuneConfig,
    KnowledgeConfig,
    PerturbConfig,
    PruneConfig,
    ResourcesConfig,
    RunConfig,
    SoupConfig,
    ValidateConfig,
)

if TYPE_CHECKING:
    from compressor.validation.report import Report

app = typer.Typer(
    name="compress",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Prune a BERT classifier, attack it, export it to ONNX, and prove what the artifact does. "
    "Exit codes: 0 done, 1 a gate failed, 2 bad input.",
)

resources_app = typer.Typer(
    no_args_is_help=True, help="What attacks need besides a victim: list, build, verify."
)
app.add_typer(resources_app, name="resources")

SHARED_BY_RANKS = ("attack", "prune")

Model = Annotated[
    str, typer.Argument(help="BERT classifier: directory or hub id, safetensors.", show_default=False)
]
Encoder = Annotated[str, typer.Argument(help="BERT checkpoint: directory or hub id.", show_default=False)]
ModelOrArtifact = Annotated[
    str, typer.Argument(help="Classifier (directory or hub id) or exported artifact.", show_default=False)
]
Data = Annotated[
    str,
    typer.Option(
        "--data", help="Labelled texts: csv, tsv, jsonl or parquet file, or hub id.", show_default=False
    ),
]
Output = Annotated[
    Path, typer.Option("--output", help="Directory for the result; must not exist.", show_default=False)
]
OptionalOutput = Annotated[
    Path | None, typer.Option("--output", help="Directory for the result as JSON; must not exist.")
]
Processes = Annotated[
    int,
    typer.Option(
        min=1, help="Processes that share out the attacked examples, and the threads; same outcomes."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that an earlier command wrote.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"compress {__version__}")
        raise typer.Exit
    if ranks_of_environment().world > 1 and context.invoked_subcommand not in SHARED_BY_RANKS:
        raise UserError(
            f"torchrun shares out the work of compress {' and '.join(SHARED_BY_RANKS)} alone; start "
            f"compress {context.invoked_subcommand} without it"
        )


@app.command()
@section_flags
def finetune(
    model: Encoder,
    data: Data,
    output: Output,
    options: FinetuneConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a BERT checkpoint into a dense classifier."""
    from compressor.training import finetune_directory

    with _results_only(as_json):
        record = finetune_directory(
            model, data, columns, options, run, output, force=force, progress=terminal_progress()
        )
    _print(
        as_json,
        record,
        f"{record['steps']} training steps in {record['seconds']:.0f} s; classifier in {output}",
    )


@app.command()
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
    """Make a robust dense classifier: fine-tune several times, average by accuracy under attack.

    The texts that are attacked are drawn from the data and not trained on. Runs and attacks are kept in
    OUTPUT.runs: the same command goes on where it was stopped, and another one takes what it needs of them.
    """
    from compressor.souping import soup_directory
    from compressor.tables import soup_table

    with _results_only(as_json):
        record = soup_directory(
            model,
            data,
            columns,
            options,
            run,
            output,
            processes=processes,
            force=force,
            progress=terminal_progress(),
        )
    _print(as_json, record, "" if as_json else soup_table(record))
    if not as_json:
        print(f"Classifier: {output}")


@app.command()
@section_flags
def prune(
    model: Model,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            help="Texts to prune with (randomized: labelled): file or hub id.",
            show_default=False,
        ),
    ],
    output: Output,
    options: PruneConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on behind the last finished layer of a run that was stopped."),
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prune the encoder of a classifier with one of the published methods, or a baseline."""
    from compressor.pruning import prune_directory

    with _results_only(as_json):
        record = prune_directory(
            model,
            calibration,
            columns,
            options,
            run,
            output,
            force=force,
            progress=terminal_progress(),
            resume=resume,
        )
    _print(
        as_json,
        record,
        f"{record['algorithm']}, {record['pattern']}: {record['sparsity']:.2%} of the encoder is zero; "
        f"{record['seconds']:.0f} s; classifier in {output}",
    )


@app.command()
@section_flags
def attack(
    model: ModelOrArtifact,
    data: Data,
    output: Output,
    options: AttackConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Output of the same attack on another model, to compare with: the difference with its "
            "interval, and how many of the texts that fooled the other one fool this one."
        ),
    ] = None,
    processes: Processes = 1,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on behind the last finished example of a run that was stopped."),
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Attack a classifier or an exported artifact with TextAttack, on local resources."""
    from compressor.robustness.attack_stage import attack_directory
    from compressor.tables import attack_table

    with _results_only(as_json):
        record = attack_directory(
            model,
            data,
            columns,
            options,
            run,
            output,
            against=against,
            processes=processes,
            resume=resume,
            force=force,
            progress=terminal_progress(),
        )
    _print(as_json, record, "" if as_json else attack_table(record))
    if not as_json:
        _print(False, None, f"Records: {output}")


@app.command()
@section_flags
def perturb(
    model: ModelOrArtifact,
    data: Data,
    output: Output,
    options: PerturbConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    against: Annotated[
        Path | None, typer.Option(help="Output of the same command on another model, to compare with.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score typos, synonyms and casing not made for the model: seconds where an attack takes minutes."""
    from compressor.robustness.perturb import perturb_directory
    from compressor.tables import perturbations_table

    with _results_only(as_json):
        record = perturb_directory(
            model,
            data,
            columns,
            options,
            run,
            output,
            against=against,
            force=force,
            progress=terminal_progress(),
        )
    _print(as_json, record, "" if as_json else perturbations_table(record))
    if not as_json:
        print(f"Records: {output}")


@app.command()
@section_flags
def export(
    model: Model,
    output: Output,
    options: ExportConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Real texts for the proof of parity; those that the model was made with if not given.",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export a classifier to ONNX and prove its parity with PyTorch."""
    from exporters.artifact import export_directory

    with _results_only(as_json):
        manifest = export_directory(
            model, data, columns, options, run, output, force=force, progress=terminal_progress()
        )
    parity = manifest["parity"]
    _print(
        as_json,
        manifest,
        f"model.onnx, opset {manifest['opset']}, {manifest['sparsity']:.2%} zeros in the encoder; "
        f"logits within {parity['max_difference']:.1e} of PyTorch's on {parity['examples']} texts; "
        f"artifact in {output}",
    )


@app.command()
def pack(
    model: Annotated[
        Path, typer.Argument(help="Directory of a classifier with safetensors weights.", show_default=False)
    ],
    output: Output,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Pack a pruned classifier for shipping: only the weights that are not zero, bit for bit."""
    from exporters.packed import pack_directory

    manifest = pack_directory(model, output, force=force)
    own, whole = manifest["packed_tensors_bytes"], manifest["weights_bytes"]
    _print(
        as_json,
        manifest,
        f"{manifest['packed_tensors']} tensors: {own['before'] / 1e6:.1f} MB to {own['after'] / 1e6:.1f}; "
        f"all weights from {whole['before'] / 1e6:.1f} MB to {whole['after'] / 1e6:.1f}; packed in {output}",
    )


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(help="Directory from `compress pack`.", show_default=False)],
    output: Output,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Restore a packed classifier, bit for bit."""
    from exporters.packed import unpack_directory

    record = unpack_directory(packed, output, force=force)
    _print(as_json, record, f"{record['tensors']} tensors, as they were packed; classifier in {output}")


@app.command()
def verify(
    artifact: Annotated[
        Path,
        typer.Argument(help="Directory of an exported artifact or a packed classifier.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Check that an artifact is, file by file, what was written."""
    from exporters.manifest import artifact_problems

    problems = artifact_problems(artifact)
    text = "\n".join(problems) or f"{artifact}: every file is as it was exported"
    _print(as_json, {"ok": not problems, "problems": problems}, text)
    if problems:
        raise GateFailed(f"{artifact}: is not what was exported; problems: {len(problems)}")


@app.command()
@section_flags
def validate(
    dense: Annotated[
        str, typer.Argument(help="The dense classifier: directory or hub id.", show_default=False)
    ],
    artifact: Annotated[Path, typer.Argument(help="The exported artifact's directory.", show_default=False)],
    data: Data,
    options: ValidateConfig,
    attacked: AttackConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Directory for the report; ARTIFACT-validation beside the artifact if not given."
        ),
    ] = None,
    pruned: Annotated[
        Path | None,
        typer.Option(
            "--pruned", help="The pruned classifier; found through the artifact's manifest if not given."
        ),
    ] = None,
    processes: Processes = 1,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Hold the artifact against the dense classifier: accuracy, robustness, latency, size, gates."""
    from compressor.validation.run import ValidationJob, validate_directories

    output = output or artifact.with_name(f"{artifact.name}-validation")
    job = ValidationJob(dense, artifact, pruned, data, columns, options, attacked, run, processes)
    with _results_only(as_json):
        report = validate_directories(job, output, force=force, progress=terminal_progress())
    _print_report(as_json, report, output)


@app.command()
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
    """Show what a classifier or an artifact holds, and what it keeps of a dense model's knowledge."""
    from compressor.inspection import inspect_stage
    from compressor.knowledge_texts import knowledge_options
    from compressor.tables import inspection_table

    with _results_only(as_json):
        knowledge = knowledge_options(compared.against, columns, compared.model_dump(exclude={"against"}))
        facts = inspect_stage(
            model, knowledge, columns, run, output, force=force, progress=terminal_progress()
        )
    _print(as_json, facts, "" if as_json else inspection_table(facts))


@resources_app.command("list")
@section_flags
def resources_list(options: ResourcesConfig, as_json: Json = False) -> None:
    """List what attacks need besides a victim: source, licence, checksum, and what TextAttack would fetch."""
    _print_resources(options, as_json)


@resources_app.command("build")
@section_flags
def resources_build(options: ResourcesConfig, as_json: Json = False) -> None:
    """Make what is made of other resources and is not there, so that the first attack need not."""
    from compressor.robustness.inventory import build

    with _results_only(as_json):
        build(options, terminal_progress())
    _print_resources(options, as_json)


@resources_app.command("verify")
@section_flags
def resources_verify(options: ResourcesConfig, as_json: Json = False) -> None:
    """Read all resources; exit 1 if one is missing, or is not what was pinned or built."""
    broken = _print_resources(options, as_json)
    if broken:
        raise GateFailed(f"resources are not as they must be: {', '.join(broken)}")


def _print_resources(options: ResourcesConfig, as_json: bool) -> list[str]:
    """Print what is found of the resources; return those that attacks cannot do with."""
    from compressor.robustness.inventory import examine, inventory, is_broken
    from compressor.tables import resources_json, resources_table

    with _results_only(as_json):
        findings = [examine(resource) for resource in inventory(options)]
    _print(as_json, resources_json(findings), "" if as_json else resources_table(findings))
    return [f"{f.resource.name} is {f.state}" for f in findings if is_broken(f, options)]


@app.command("run")
@section_flags
def run_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    output: Output,
    device: Annotated[str | None, typer.Option("--device", help="In place of the recipe's device.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="In place of the recipe's seed.")] = None,
    processes: Processes = 1,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a whole recipe: fine-tune, prune, export, attack, validate."""
    from compressor.pipeline import run_recipe
    from compressor.recipe import load_recipe

    changes = {key: value for key, value in (("device", device), ("seed", seed)) if value is not None}
    with _results_only(as_json):
        loaded = load_recipe(recipe, changes)
        report = run_recipe(loaded, output, processes=processes, force=force, progress=terminal_progress())
    _print_report(as_json, report, output)


@app.command()
@section_flags
def quickstart(
    options: PruneConfig,
    attacked: AttackConfig,
    run: RunConfig,
    output: Annotated[
        Path, typer.Option("--output", help="Directory for the result; must not exist.")
    ] = Path("runs/quickstart"),
    force: Force = False,
    as_json: Json = False,
) -> None:
    """The main job on real input: MiniLM on critic quotes, fine-tuned, pruned, attacked, validated."""
    from compressor.quickstart import run_quickstart

    with _results_only(as_json):
        report = run_quickstart(output, options, attacked, run, force=force, progress=terminal_progress())
    _print_report(as_json, report, output)


@app.command()
@section_flags
def doctor(
    run: RunConfig, output: OptionalOutput = None, force: Force = False, as_json: Json = False
) -> None:
    """Check whether this machine can do the main job."""
    from dataclasses import asdict

    from compressor.doctor import examine
    from compressor.tables import doctor_table

    with _results_only(as_json):
        checks = examine(run)
        result = {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}
        _write_optional(output, force, "inspection.json", result)
    _print(as_json, result, "" if as_json else doctor_table(checks))
    failed = [check.name for check in checks if not check.ok]
    if failed:
        raise GateFailed(f"not ready: {', '.join(failed)}")


@contextmanager
def _results_only(as_json: bool) -> Iterator[None]:
    """With `--json`, send whatever libraries print to stderr, so that stdout holds one object."""
    if not as_json:
        yield
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def _print(as_json: bool, value: Any, text: Any) -> None:
    if not ranks_of_environment().is_first:
        return
    if as_json:
        print(json.dumps(value, allow_nan=False, ensure_ascii=False))
    elif isinstance(text, str):
        print(text)
    else:
        from rich.console import Console

        Console().print(text)


def _print_report(as_json: bool, report: Report, output: Path) -> None:
    from compressor.tables import report_table
    from compressor.validation.run import failed_gates

    _print(as_json, report.model_dump(), "" if as_json else report_table(report))
    if not as_json:
        print(f"Report: {output / 'report.html'}")
    failed = [f"{gate.metric} is {gate.value:g}, bound {gate.bound}" for gate in failed_gates(report)]
    if failed:
        raise GateFailed("; ".join(failed))


def _write_optional(output: Path | None, force: bool, name: str, value: Any) -> None:
    if output is None:
        return
    from compressor.output import atomic_directory, write_json

    with atomic_directory(output, force=force) as working:
        write_json(working / name, value)


# What libraries would print besides; a user's own settings win. No telemetry.
QUIET = {
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def execute(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors of people get one line, no traceback."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        code = app(arguments, standalone_mode=False)
        return int(code or 0)
    except GateFailed as error:
        print(f"gate failed: {error}", file=sys.stderr)
        return 1
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        line = " ".join(message.split())
        print(f"error: {line}", file=sys.stderr)
        if "--json" in arguments:
            print(json.dumps({"error": line}, ensure_ascii=False))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; run the same command again", file=sys.stderr)
        return 130


def main() -> None:
    """Entry point of `compress`."""
    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    main()
