"""The readable reports: what they say, that they are well-formed, and that text cannot break out."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from made_reports import (
    AGAINST,
    SHAPES,
    dropped_within_budgets,
    judged,
    make_appendix,
    make_report,
    robustness,
    variant,
    within_budgets,
)
from page_parser import Page
from rich.console import Console

from compressor.validation.report.render import LATENCY_NOTE, escape_markdown, render_html, render_markdown
from compressor.validation.report.rows import gate_value, interval, measured_variants, variant_groups
from compressor.validation.report.tables import report_table
from compressor.validation.schema import (
    AgainstFigures,
    Appendix,
    IntervalFigures,
    Report,
    RobustnessFigures,
    Variants,
)
from exporters.tensorrt.engine_log import EngineBuild, EngineLayer, Latency, SparseLayers


def test_html_loads_nothing_and_runs_nothing() -> None:
    source = render_html(make_report(), make_appendix())
    page = Page(source)
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", source))


def test_html_ids_are_unique_and_every_reference_has_its_target() -> None:
    source = render_html(make_report(), make_appendix())
    ids = [attributes["id"] for _, attributes in Page(source).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', source)
    assert references
    assert {first or second for first, second in references} <= set(ids)


def test_html_says_the_verdict_first() -> None:
    failed = Page(render_html(make_report(), Appendix())).texts
    assert failed[0] == "FAIL"
    assert " ".join(failed[2:6]) == "1 of 3 gates failed: accuracy_ drop is 0.0149, bound <= 0.01 Gates"
    passed = make_report(verdict="pass", gates=make_report().gates[1:])
    texts = Page(render_html(passed, Appendix())).texts
    assert texts[0] == "PASS"
    assert "No gate failed: 2 passed of 2." in texts


def test_html_has_every_gate_with_value_bound_and_result() -> None:
    source = render_html(make_report(), Appendix())
    rows = re.findall(r'<tr class="gate">.*?</tr>', source, flags=re.DOTALL)
    cells = [" ".join(Page(row.replace("<wbr>", "")).texts) for row in rows]
    assert cells == [
        "accuracy_drop <= 0.01 fail 0.0149 0.01 –",
        "sparsity >= 0.4 pass 0.5 0.4 –",
        "size_ratio <= 0.3 pass 0.2521 0.3 –",
    ]


def test_html_escapes_text_and_marks_changed_words() -> None:
    source = render_html(make_report(), make_appendix())
    assert "<script>" not in source
    assert "<b>positive" not in source
    assert "a <mark>fine</mark> &lt;script&gt;alert(1)&lt;/script&gt; film | <mark>really</mark>" in source
    assert "<mark>fnie</mark>" in source
    assert "within 3e-5 &lt;on&gt;" in source


def test_html_table_of_variants_and_latency() -> None:
    texts = " ".join(Page(render_html(make_report(), Appendix())).texts)
    assert "Accuracy under attack 21.0% 21.0% 21.0%" in texts
    assert "Queries per example 41.3" in texts
    assert "Size, MB 438.0 438.0 110.4" in texts
    assert "Load time, s 0.31 0.31 0.31" in texts
    assert "Encoder, GFLOP at 1 × 128 22.3 22.3 22.3 Without products by zero 11.5" in texts
    assert "1 × 32 dense 16.00 17.78 18.82 62.5 1.00×" in texts
    assert "artifact 8.00 8.89 9.41 125.0 2.00×" in texts
    assert LATENCY_NOTE in texts


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_without_the_pruned_model(render: Any) -> None:
    variants = Variants(dense=variant("dense"), pruned=None, artifact=variant("artifact"))
    text = render(make_report(variants=variants), make_appendix())
    assert "was not at hand" in text
    assert "None" not in text
    assert list(measured_variants(make_report(variants=variants))) == ["dense", "artifact"]


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_figures_that_are_unknown_are_dashes(render: Any) -> None:
    robustness = RobustnessFigures(
        attack="textfooler",
        accuracy=0,
        accuracy_under_attack=0,
        attack_success_rate=None,
        queries_per_example=None,
        examples=4,
        accuracy_interval=IntervalFigures(low=0, high=0.49),
        accuracy_under_attack_interval=IntervalFigures(low=0, high=0.49),
        attack_success_rate_interval=None,
    )
    # A model from the hub: its size is not known. And no shape at all was timed.
    bare = variant("org/model", robustness=robustness, latency=[], size_bytes=0)
    report = make_report(variants=Variants(dense=bare, pruned=None, artifact=bare), gates=[], environment={})
    text = render(report, Appendix())
    assert "No gate was set." in text
    assert "No shape was timed." in text or render is render_markdown
    assert "None" not in text
    size = next(line for line in text.splitlines() if "Size, MB" in line)
    assert size.count("–") == 3


def test_markdown_starts_with_the_verdict_and_the_failed_gates() -> None:
    lines = render_markdown(make_report(), Appendix()).splitlines()
    assert lines[0] == "## Validation: FAIL"
    assert "1 of 3 gates failed:" in lines
    assert "- accuracy_drop is 0.0149, bound <= 0.01" in lines
    assert "| `sparsity >= 0.4` | pass | 0.5 | 0.4 | – |" in lines
    assert len(lines) < 45


def test_markdown_tables_are_well_formed() -> None:
    report = make_report(
        gates=[judged("odd|metric", "<= 1", 0.5, "pass")],
    )
    text = render_markdown(report, make_appendix())
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", text)]
    tables = [block for block in blocks if block[0].startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {table[0].count("|")}
        assert re.fullmatch(r"\|( -{3}:? \|)+", table[1])
    assert [row.split(" | ")[0] for row in tables[1][-4:]] == [
        f"| p50 of {batch} × {length}, ms" for batch, length in SHAPES
    ]


def test_markdown_tells_the_environment_in_one_line() -> None:
    text = render_markdown(make_report(), Appendix())
    assert text.splitlines()[-1] == (
        "Environment: device cpu; threads 2; torch 2.9.1; onnxruntime 1.23.2; seed 13."
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", r"a \| b"),
        ("a \\| b", r"a \\\| b"),
        ("two\nlines", "two lines"),
        ("accuracy_drop", "accuracy_drop"),
        ("_this_", r"\_this\_"),
        ("<script>", r"\<script>"),
        ("x <= 1 & y", "x <= 1 & y"),
        ("&lt; [a](b)", r"\&lt; \[a\](b)"),
    ],
)
def test_escape_markdown(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


@pytest.mark.parametrize(
    ("value", "shown"), [(0.014908, "0.01491"), (0.01, "0.01"), (0.010000004, "0.010000004"), (0.0, "0")]
)
def test_gate_value_is_told_from_its_bound(value: float, shown: str) -> None:
    gate = judged("accuracy_drop", "<= 0.01", value, "fail")
    assert gate_value(gate) == shown


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_the_comparison_with_the_dense_model_is_shown_with_its_interval(render: Any) -> None:
    against = AgainstFigures.model_validate(
        {
            "accuracy_under_attack_drop": {
                "difference": 0.02,
                "interval": {"low": -0.011, "high": 0.052},
                "p_value": 0.5,
                "only_first": 4,
                "only_second": 2,
                "examples": 100,
            },
            "transfer": {"texts": 71, "fooled": 50, "rate": 50 / 71, "interval": {"low": 0.59, "high": 0.8}},
        }
    )
    variants = Variants(
        dense=variant("dense"), pruned=None, artifact=variant("artifact", against_dense=against)
    )
    text = render(make_report(variants=variants), Appendix())
    shown = ("14.2% to 30.0%", "2.0%", "-1.1% to 5.2%")
    for cell in (*shown, "70.4% of 71") if render is render_html else shown:
        assert cell in text


def test_what_is_left_within_word_budgets_is_shown_with_the_drop_to_the_dense_model() -> None:
    held = robustness(0.02).model_copy(update={"word_budgets": within_budgets((0.05, 0.6), (0.1, 0.3))})
    dense = variant("dense", robustness=held)
    drops = dropped_within_budgets((0.05, 0), (0.1, 6))
    against = AGAINST.model_copy(update={"word_budgets": drops})
    artifact = variant("artifact", dense=dense, robustness=held, against_dense=against)
    report = make_report(variants=Variants(dense=dense, pruned=None, artifact=artifact))
    rows = {row[0]: row[1:] for _, group in variant_groups(report) for row in group}
    assert rows["Within 10% of words"][0] == "30.0% (21.9% to 39.6%)"
    assert [cell.split()[0] for cell in rows["Within 10% of words, drop to dense"]] == ["–", "–", "6.0%"]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report_table(report))
    assert "within 5% of words" in capture.get()


def worse_artifact() -> Report:
    dense = variant("dense", 0.92, examples=500)
    unsettled = [entry.model_copy(update={"stable": False, "rounds": 100}) for entry in dense.latency]
    artifact = variant("artifact", 0.8, examples=500, dense=dense, latency=unsettled)
    gates = [judged("accuracy", ">= 0.8", 0.8, "inconclusive", note="because", place="1 x 32")]
    return make_report(
        variants=Variants(dense=dense, pruned=None, artifact=artifact), gates=gates, verdict="pass"
    )


def test_the_terminal_tells_why_a_gate_is_inconclusive() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report_table(worse_artifact()))
    assert "accuracy >= 0.8: because\n" in capture.get()


def test_html_marks_slices_that_got_worse_and_times_that_did_not_settle() -> None:
    texts = " ".join(Page(render_html(worse_artifact(), Appendix())).texts)
    drop = interval(worse_artifact().variants.artifact.slices[0].drop.interval)
    assert f"label: fresh 500 92.0% 80.0% worse 12.0% ({drop})" in texts
    assert texts.count("not settled") == len(SHAPES) + 1
    assert "20 to 100 timed runs" in texts
    assert "No gate failed: 1 inconclusive of 1." in texts
    assert "at 1 x 32; because" in texts


def test_markdown_names_slices_that_got_worse() -> None:
    lines = render_markdown(worse_artifact(), Appendix()).splitlines()
    assert any(line.startswith("- label fresh: 12.0% worse than dense (") for line in lines)
    assert "| `accuracy >= 0.8` at 1 x 32 | inconclusive | 0.8 | 0.8 | – |" in lines


@pytest.mark.parametrize("metric", ["f1", "matthews"])
@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_another_task_metric_has_its_row(render: Any, metric: str) -> None:
    text = render(make_report(task_metric=metric), Appendix())
    assert {"f1": "F1", "matthews": "Matthews correlation"}[metric] in text
    assert "0.920" in text


def test_html_shows_the_engine_of_the_report_and_nothing_of_tensorrt_without_one() -> None:
    build = EngineBuild(
        version="10.14.1",
        passed=True,
        errors=(),
        gpu="NVIDIA <A100>",
        sparsity="enable",
        eligible=SparseLayers(3, ("a", "b", "c")),
        chosen=SparseLayers(1, ("a",)),
        skipped_tactics=0,
        build_seconds=30.25,
        throughput_per_second=640.5,
        gpu_latency=Latency(1.25, 2.75, 1.5, 1.375, {"99": 2.5}),
        latency=None,
        graph_sha256="ab" * 32,
        sparse_layers=(EngineLayer("node_MatMul_2", "sptensor16x8x32", True, ("node_2",)),),
    )
    report = make_report(engine=build)
    assert Report.model_validate_json(report.model_dump_json()) == report
    texts = Page(render_html(report, make_appendix())).texts
    for shown in ("TensorRT 10.14.1", "NVIDIA <A100>", "median 1.375 ms, p99 2.5 ms", "sptensor16x8x32"):
        assert shown in texts
    rows = dict(pairwise(texts))
    assert rows["layers eligible for sparse kernels"] == "3"
    assert rows["layers chosen for sparse kernels"] == "1"
    assert "TensorRT" not in render_html(make_report(), make_appendix())
