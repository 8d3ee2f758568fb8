"""Reports where several attacks ran: rows, tables, pages, and the figure by attack."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from made_reports import make_appendix, make_report, make_report_of_several
from rich.console import Console

from compressor.validation.report.plots import attacks_plot
from compressor.validation.report.render import render_html, render_markdown
from compressor.validation.report.rows import measured_variants, variant_groups
from compressor.validation.report.tables import report_table
from compressor.validation.schema import Report


def test_rows_are_under_all_attacks_and_under_each() -> None:
    groups = dict(variant_groups(make_report_of_several()))
    assert [name for name in groups if name.startswith("Under")] == [
        "Under all attacks", "Under pwws", "Under pruthi",
    ]  # fmt: skip
    rows = {heading: {row[0]: row[1:] for row in rows} for heading, rows in groups.items()}
    assert rows["Under all attacks"]["Accuracy under attack"] == ["35.0%", "–", "23.0%"]
    assert rows["Under pwws"]["Accuracy under attack"] == ["40.0%", "–", "30.0%"]
    assert rows["Under pruthi"]["Drop under attack to dense"] == ["–", "–", "2.0%"]
    assert "Under attack" in dict(variant_groups(make_report()))


def test_the_summary_and_the_table_of_the_terminal_have_each_attack() -> None:
    report = make_report_of_several()
    text = render_markdown(report, make_appendix())
    for name in ("all attacks", "pwws", "pruthi"):
        assert f"| Accuracy under {name} |" in text
        assert f"| Drop under {name} to dense |" in text
    assert "The attacks are pwws, pruthi; an example holds under all of them if it holds under each." in text
    assert "The attack is deepwordbug." in render_markdown(make_report(), make_appendix())
    console = Console(width=120)
    with console.capture() as shown:
        console.print(report_table(report))
    for line in ("under all 2 attacks (100)", "under pwws", "under pruthi"):
        assert line in shown.get()


def test_the_figure_by_attack_is_in_the_page_of_several_alone() -> None:
    page = render_html(make_report_of_several(), make_appendix())
    assert 'id="attacks-plot-' in page
    assert "Accuracy under each attack, and under all of them" in page
    assert "accuracy under all attacks (hollow)" in page
    alone = render_html(make_report(), make_appendix())
    assert 'id="attacks-plot-' not in alone
    assert "accuracy under attack (hollow)" in alone


def test_the_figure_by_attack_is_accessible_and_has_a_row_for_each_and_for_all() -> None:
    svg = attacks_plot(measured_variants(make_report_of_several()))
    root = ElementTree.fromstring(svg)  # noqa: S314 -- made by this test
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Accuracy of each variant under pwws, pruthi, and under all of them"
    assert root[0].text == root.get("aria-label")
    labels = re.findall(r">([^<>]+)</text>", svg)
    assert [label for label in labels if label in ("pwws", "pruthi", "all of them")] == [
        "pwws",
        "pruthi",
        "all of them",
    ]
    assert {"dense", "artifact"} <= set(labels)


def test_a_report_of_several_is_read_as_it_was_written() -> None:
    report = make_report_of_several()
    assert Report.model_validate_json(report.model_dump_json()) == report
    # Reports of versions that ran one attack have no such entry.
    old = make_report().model_dump(mode="json")
    for variant in old["variants"].values():
        del variant["attacks"]
    assert Report.model_validate(old) == make_report()
