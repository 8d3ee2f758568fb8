"""Results as tables for terminals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from compressor.commands.doctor import Check
from compressor.options.training import training_in_words
from compressor.validation.report.engine import MISSING
from compressor.validation.schema import IntervalFigures

if TYPE_CHECKING:
    from compressor.attacks.inventory import Finding


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1%}"


def _interval(ends: IntervalFigures | None) -> str:
    return MISSING if ends is None else f"{ends.low:.1%} to {ends.high:.1%}"


def attack_table(record: Mapping[str, Any]) -> Table:
    """Figures of one attack, their intervals, and the comparison with another model if there is one."""
    attacks = record.get("attacks", [])
    under = "under all attacks" if attacks else "under attack"
    names = record["attack"].replace(",", ", ")
    title = Text(f"{names} on {record['examples']} examples of {record['model']}")
    table = Table(title=title, title_justify="left", title_style="none")
    for column in ("figure", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name in ("accuracy", "accuracy_under_attack", "attack_success_rate"):
        shown = name.replace("under_attack", under).replace("_", " ")
        _add_share(table, shown, record[name], record[f"{name}_interval"])
    for one in attacks:
        share, ends = one["accuracy_under_attack"], one["accuracy_under_attack_interval"]
        _add_share(table, f"  under {one['attack']}", share, ends)
    for budget in record["word_budgets"]:
        _add_share(table, _within(budget), budget["accuracy_under_attack"], budget["interval"])
    mean = record["mean_accuracy_under_attack"]
    if mean is not None:
        _add_share(table, _mean_over(mean["longest_budget"]), mean["mean"], mean["interval"])
    queries = record["queries_per_example"]
    table.add_row("queries an example", MISSING if queries is None else f"{queries:.1f}", "")
    taken = record["successes"]
    if taken["queries"] is not None:
        table.add_row("a success takes: queries", f"{taken['queries']:.1f}", "")
        table.add_row("  words changed", _share(taken["words_changed"]), "")
        table.add_row("  cosine to the original", f"{taken['cosine']:.3f}", "")
    if "against" in record:
        against = record["against"]
        drop, transfer = against["accuracy_under_attack_drop"], against["transfer"]
        table.add_section()
        table.add_row(Text(f"against {against['model']}"), "", "")
        _add_drop(table, f"drop of accuracy {under}", drop)
        for one in attacks:
            _add_drop(table, f"  under {one['attack']}", one["against"]["accuracy_under_attack_drop"])
        for budget in against["word_budgets"]:
            _add_drop(table, _within(budget), budget["accuracy_under_attack_drop"])
        mean_drop = against["mean_accuracy_under_attack_drop"]
        if mean is not None and mean_drop is not None:
            name = _mean_over(mean["longest_budget"])
            _add_share(table, name, mean_drop["difference"], mean_drop["interval"])
        name = f"fooled by its {transfer['texts']} adversarial texts"
        _add_share(table, name, transfer["rate"], transfer["interval"])
    return table


def perturbations_table(record: Mapping[str, Any]) -> Table:
    """Accuracy under each kind of perturbation, what it costs, and the difference to another model."""
    against = record.get("against")
    title = Text(f"Perturbations of {record['examples']} texts on {record['model']}")
    table = Table(title=title, title_justify="left", title_style="none")
    for column in ("texts", "accuracy", "95 % interval", "drop from clean", "95 % interval"):
        table.add_column(column, justify="left" if column == "texts" else "right")
    if against:
        table.add_column(f"drop against {against['model']}", justify="right")
        table.add_column("95 % interval", justify="right")
    for row in record["perturbations"]:
        cells = [row["kind"], _share(row["accuracy"]), _ends(row["interval"])]
        drops = [row["drop_from_clean"]]
        if against:
            drops.append(against["accuracy_drop"][row["kind"]])
        for drop in drops:
            cells += [_share(drop["difference"]), _ends(drop["interval"])] if drop else [MISSING, MISSING]
        table.add_row(*cells)
    return table


def _ends(ends: Mapping[str, float]) -> str:
    return _interval(IntervalFigures.model_validate(ends))


def soup_table(record: Mapping[str, Any]) -> Group:
    """The runs in the order in which they were tried, and what the average with each of them is worth."""
    table = Table(title="Fine-tuning runs, most robust first", title_justify="left")
    by_mean = record["options"]["chosen_by"] == "mean_accuracy_under_attack"
    under_attack = "mean under attack" if by_mean else "under attack"
    for column in ("run", "training", "accuracy", under_attack, "95 % interval", "average with it", ""):
        table.add_column(column, justify="left" if column in ("training", "") else "right")
    for trial in record["trials"]:
        own = record["runs"][trial["run"]]
        table.add_row(
            str(trial["run"] + 1),
            training_in_words(own["options"]),
            _share(own["accuracy"]),
            *_chosen_by(own, by_mean),
            _share(trial["score"] and trial["score"]["robustness"]),
            "kept" if trial["kept"] else "left out" if trial["score"] else "too inaccurate",
        )
    summary = (
        f"Average of {len(record['kept'])} of {len(record['runs'])} runs: accuracy "
        f"{_share(record['accuracy'])} on {record['holdout']['examples']} texts that were held out, under "
        f"attack {_share(record['accuracy_under_attack'])} on {record['examples']} of them"
    )
    return Group(table, Text(summary))


def _chosen_by(figures: Mapping[str, Any], by_mean: bool) -> tuple[str, str]:
    """What a run was compared by, and its interval."""
    if by_mean:
        mean = figures["mean_accuracy_under_attack"]
        return _share(mean["mean"]), _ends(mean["interval"])
    return _share(figures["accuracy_under_attack"]), _ends(figures["accuracy_under_attack_interval"])


def _within(budget: Mapping[str, Any]) -> str:
    return f"  if at most {budget['max_words_changed']:.0%} of the words change"


def _mean_over(longest: float) -> str:
    return f"  mean over 0 to {longest:.0%} of the words"


def _add_share(table: Table, name: str, share: float | None, ends: Mapping[str, float] | None) -> None:
    table.add_row(name, _share(share), MISSING if ends is None else _ends(ends))


def _add_drop(table: Table, name: str, drop: Mapping[str, Any]) -> None:
    _add_share(table, f"{name} (p = {drop['p_value']:.2g})", drop["difference"], drop["interval"])


def inspection_table(facts: dict[str, Any]) -> Group:
    """One row a linear layer."""
    table = Table(title=f"{facts['path']}: {facts['kind']}", title_justify="left")
    for column in ("layer", "shape", "zeros", "sparsity", "patterns"):
        table.add_column(column, justify="left" if column in ("layer", "patterns") else "right")
    for layer in facts["layers"]:
        shape = " x ".join(map(str, layer["shape"]))
        patterns = ", ".join(layer["patterns"]) or MISSING
        table.add_row(layer["name"], shape, f"{layer['zeros']:,}", f"{layer['sparsity']:.2%}", patterns)
    labels, size = ", ".join(facts["labels"]), facts["size_bytes"] / 1e6
    answers = "regression, one number" if facts["task"] == "regression" else f"labels {labels}"
    summary = f"{answers}; {size:.1f} MB; {facts['sparsity']:.2%} zeros"
    kept = [knowledge_tables(facts["knowledge"])] if "knowledge" in facts else []
    return Group(table, Text(summary), *kept)


def knowledge_tables(knowledge: Mapping[str, Any]) -> Group:
    """Distances of [CLS], then reconstruction errors of each set of texts, one row an encoder layer."""
    sets = knowledge["sets"]
    parts: list[Table | Text] = [_distance_table(knowledge)]
    for name, entry in sets.items():
        parts.append(_reconstruction_table(name, entry["reconstruction"]))
    reasons = Counter(row["skipped"] for row in next(iter(sets.values()))["reconstruction"] if row["skipped"])
    for reason, count in reasons.items():
        parts.append(Text(f"{MISSING}: {count} linear layers are not compared, since {reason}"))
    return Group(*parts)


def _distance_table(knowledge: Mapping[str, Any]) -> Table:
    sets = knowledge["sets"]
    counts = " and ".join(f"{entry['texts']} {name}" for name, entry in sets.items())
    title = Text(f"Distance of [CLS] to that of {knowledge['against']}, {counts} texts", style="table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for measure in ("cosine", "relative Euclidean"):
        for name in sets:
            table.add_column(f"{measure}, {name}", justify="right")
    for rows in zip(*(entry["cls_distance"] for entry in sets.values()), strict=True):
        layer = rows[0]["layer"]
        cells = [f"{row[key]:.4f}" for key in ("cosine", "relative_euclidean") for row in rows]
        table.add_row(str(layer) if layer else "embeddings", *cells)
    return table


def _reconstruction_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    errors = {(row["layer"], row["matrix"]): row["relative_error"] for row in rows}
    matrices = list(dict.fromkeys(row["matrix"] for row in rows))
    table = Table(title=f"Relative reconstruction error, {name} texts", title_justify="left")
    table.add_column("layer")
    for matrix in matrices:
        table.add_column(matrix, justify="right")
    for layer in sorted({row["layer"] for row in rows}):
        cells = [errors[layer, matrix] for matrix in matrices]
        table.add_row(str(layer), *(MISSING if error is None else f"{error:.4f}" for error in cells))
    return table


def resources_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for machines."""
    return {
        "resources": [
            asdict(finding.resource)
            | {
                "file": None if finding.resource.file is None else str(finding.resource.file),
                "state": finding.state,
                "sha256": finding.sha256,
            }
            for finding in findings
        ]
    }


def resources_table(findings: Sequence[Finding]) -> Table:
    """One row a resource of attacks."""
    table = Table(show_lines=True)
    for column in ("resource", "state", "what it is"):
        table.add_column(column)
    for finding in findings:
        resource = finding.resource
        facts = {
            "used by": ", ".join(resource.attacks) or "all attacks",
            "from": resource.source,
            "instead of": resource.instead_of,
            "licence": resource.licence,
            "sha256": finding.sha256,
            "another one": resource.option,
        }
        lines = [f"{name}: {value}" for name, value in facts.items() if value]
        table.add_row(resource.name, finding.state, Text("\n".join(lines)))
    return table


def doctor_table(checks: Sequence[Check]) -> Table:
    """One row a check."""
    table = Table()
    for column in ("check", "", "found"):
        table.add_column(column)
    for check in checks:
        table.add_row(check.name, "ok" if check.ok else "NOT OK", check.detail)
    return table
