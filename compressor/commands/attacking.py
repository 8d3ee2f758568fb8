"""Commands about robustness: attack, perturb, resources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.commands.arguments import Data, Force, Json, ModelOrArtifact, Output, Processes, Resume
from compressor.commands.flags import section_flags
from compressor.commands.printing import print_result, results_only
from compressor.errors import GateFailed
from compressor.options import AttackConfig, ColumnsConfig, PerturbConfig, ResourcesConfig, RunConfig
from compressor.system.console import terminal_progress
from compressor.system.context import terminal_context


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
            help="Output of the same attack on another model to compare with: reports the paired difference "
            "with its interval, and the transfer rate of the other model's adversarial texts."
        ),
    ] = None,
    processes: Processes = 1,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Attack a classifier or an exported artifact with TextAttack, using local resources only."""
    from compressor.attacks.stage import attack_directory
    from compressor.commands.tables import attack_table

    context = terminal_context(output, columns, run, processes=processes, resume=resume, force=force)
    with results_only(as_json):
        record = attack_directory(model, data, options, context, against)
    facts = record.model_dump()
    print_result(as_json, facts, "" if as_json else attack_table(facts))
    if not as_json:
        print_result(False, None, f"Records: {output}")


@section_flags
def perturb(
    model: ModelOrArtifact,
    data: Data,
    output: Output,
    options: PerturbConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    against: Annotated[
        Path | None, typer.Option(help="Output of the same command on another model to compare with.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure accuracy under random typos, synonyms and casing: takes seconds, an attack takes minutes."""
    from compressor.attacks.perturb_stage import perturb_directory
    from compressor.commands.tables import perturbations_table

    context = terminal_context(output, columns, run, force=force)
    with results_only(as_json):
        record = perturb_directory(model, data, options, context, against)
    facts = record.model_dump()
    print_result(as_json, facts, "" if as_json else perturbations_table(facts))
    if not as_json:
        print_result(False, None, f"Records: {output}")


@section_flags
def resources_list(options: ResourcesConfig, as_json: Json = False) -> None:
    """List the attack resources: source, licence, checksum, and the download that each replaces."""
    _print_resources(options, as_json)


@section_flags
def resources_build(options: ResourcesConfig, as_json: Json = False) -> None:
    """Build the attack resources that are computed from others, before the first attack needs them."""
    from compressor.attacks.inventory import build

    with results_only(as_json):
        build(options, terminal_progress())
    _print_resources(options, as_json)


@section_flags
def resources_verify(options: ResourcesConfig, as_json: Json = False) -> None:
    """Check all attack resources; exit code 1 if one is missing or has changed."""
    broken = _print_resources(options, as_json)
    if broken:
        raise GateFailed(f"resources are not as they must be: {', '.join(broken)}")


def _print_resources(options: ResourcesConfig, as_json: bool) -> list[str]:
    """Print the state of the resources; return those that attacks cannot use."""
    from compressor.attacks.inventory import examine, inventory, is_broken
    from compressor.commands.tables import resources_json, resources_table

    with results_only(as_json):
        findings = [examine(resource) for resource in inventory(options)]
    print_result(as_json, resources_json(findings), "" if as_json else resources_table(findings))
    return [f"{f.resource.name} is {f.state}" for f in findings if is_broken(f, options)]
