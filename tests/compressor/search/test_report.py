"""The pages of a search: their figures, that they are well-formed, and that text cannot break out."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from made_reports import interval_of, judged
from made_searches import candidates, make_refused, make_regression, make_search
from page_parser import Page

import compressor.search.record as record_module
from compressor.search.plots import search_plot
from compressor.search.record import SearchRecord, search_schema
from compressor.search.report import search_html, search_markdown
from compressor.search.rows import headline, obstacles, shortfall
from compressor.validation.schema import IntervalFigures

EVERY = [make_search, make_refused, make_regression]
OUTCOME = "Chosen artifact against the dense model"
EVIL = "<script>alert(1)</script>|`x`\n# [a](b) ${y}"


def as_json(record: SearchRecord) -> dict[str, Any]:
    """What is in `search.json`."""
    found: dict[str, Any] = json.loads(record.model_dump_json(exclude={"path"}))
    return found


def table_of(source: str, label: str) -> list[list[str]]:
    """Cells of a table, by the label of its region; texts of a cell are joined."""
    _, _, rest = source.partition(f'aria-label="{label}">')
    rows = re.findall(r"<tr.*?</tr>", rest.partition("</table>")[0], flags=re.DOTALL)
    return [
        [
            " ".join(Page(cell.replace("<wbr>", "")).texts)
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.DOTALL)
        ]
        for row in rows
    ]


def tables_of(markdown: str) -> list[list[str]]:
    """The lines of each table."""
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", markdown)]
    return [block for block in blocks if block and block[0].startswith("|")]


# figures ----------------------------------------------------------------------------------------


def test_the_table_of_candidates_has_the_figures_of_the_json() -> None:
    record = make_search()
    header, *rows = table_of(search_html(record), "Candidates")
    assert header == [
        "Candidate", "Gates", "Made for", "Runtime", "Speed-up", "Size, MB", "Accuracy", "Under attack",
    ]  # fmt: skip
    found = as_json(record)
    assert len(rows) == len(found["candidates"])
    for row, one in zip(rows, found["candidates"], strict=True):
        ends = one["accuracy_interval"]
        attacked = one["accuracy_under_attack"]
        assert int(row[0].split()[0]) == one["number"]
        assert ("chosen" in row[0]) == (one["number"] == found["chosen"])
        assert ("front" in row[0]) == (one["number"] in found["front"])
        failed = [gate["metric"] for gate in one["gates"] if gate["status"] == "fail"]
        assert row[1] == ("hold" if one["holds"] else f"fail {', '.join(failed)}")
        assert row[2] == ("dense" if one["target"] is None else f"{one['target']:.3g}×")
        assert row[3] == f"{one['runtime']} {one['precision']}"
        assert float(row[4]) == pytest.approx(one["speedup"], abs=0.005)
        assert float(row[5]) == pytest.approx(one["size_bytes"] / 1e6, abs=0.05)
        assert row[6] == f"{one['accuracy']:.1%} ({ends['low']:.1%} to {ends['high']:.1%})"
        ends = one["accuracy_under_attack_interval"]
        assert row[7] == (
            "–" if attacked is None else f"{attacked:.1%} ({ends['low']:.1%} to {ends['high']:.1%})"
        )


def test_both_pages_have_the_same_cells() -> None:
    record = make_search()
    rows = table_of(search_html(record), "Candidates")[1:]
    listed = next(table for table in tables_of(search_markdown(record)) if "Made for" in table[0])[2:]
    assert [row[2:] for row in rows] == [line.strip("| ").split(" | ")[2:] for line in listed]


def test_predictions_stand_beside_what_was_measured() -> None:
    rows = table_of(search_html(make_search()), "Predicted and measured latency")[1:]
    assert rows[6] == ["3: 10.5x", "1 × 32", "9.00", "0.86", "0.82", "+5.0%"]
    # A shape that the table has not.
    assert rows[7] == ["8 × 128", "120.00", "–", "10.91", "–"]


def test_the_chosen_one_is_held_against_the_dense_model() -> None:
    record = make_search()
    rows = {row[0]: row[1:] for row in table_of(search_html(record), OUTCOME)}
    difference = "-1.2 points (-2.2 to -0.2)"
    assert rows["Accuracy"] == ["90.0% (88.6% to 91.2%)", "88.8% (87.3% to 90.1%)", difference]
    under_attack = ["42.0% (35.4% to 48.9%)", "40.8% (34.4% to 47.9%)", difference]
    assert rows["Mean accuracy under attack"] == under_attack
    assert rows["Other labels in batches"] == ["0.0%, logits within 2.0e-07"] * 2 + [""]
    assert rows["Size, MB"] == ["90.9", "13.2", "6.89 times smaller"]
    assert rows["p50 of 8 × 128, ms"] == ["120.00", "10.81", "11.10 times as fast"]
    assert headline(record) == (
        "Candidate 3 (10.5x): 11.1 times as fast as the dense model in PyTorch; 6.9 times smaller; accuracy "
        "88.8% (87.3% to 90.1%), of the dense model 90.0% (88.6% to 91.2%); mean accuracy under attack "
        "40.8%, of the dense model 42.0%."
    )


def test_the_verdict_comes_first() -> None:
    assert Page(search_html(make_search())).texts[0] == "PASS"
    assert search_markdown(make_search()).startswith("## Search: PASS\n\nCandidate 3 (10.5x): 11.1 times as")


def test_a_gate_that_fails_on_the_test_texts_is_named() -> None:
    gates = [judged("accuracy_drop", "<= 0.02", 0.031, "fail"), judged("size_ratio", "<= 0.5", 0.1, "pass")]
    record = make_search(verdict="fail", test_gates=gates)
    texts = " ".join(Page(search_html(record).replace("<wbr>", "")).texts)
    assert "On the test texts 1 of 2 gates failed: accuracy_drop is 0.031, bound <= 0.02" in texts
    assert "- accuracy_drop is 0.031, bound <= 0.02\n" in search_markdown(record)


def test_where_nothing_was_chosen_the_gate_in_the_way_is_shown_and_how_near_it_was() -> None:
    record = make_refused()
    source = search_html(record)
    rows = table_of(source, "Gates that the nearest candidate does not hold")
    assert rows[1:] == [["latency_ratio <= 0.2", "0.2941", "0.2", "0.0941", "0.122 (candidate 1)"]]
    texts = Page(source.replace("<wbr>", "")).texts
    assert f"Nothing was chosen: {record.reason}." in texts
    assert "Candidate 0 is nearest to the gates. It does not hold:" in texts
    listed = "| `latency_ratio <= 0.2` | 0.2941 | 0.2 | 0.0941 | 0.122 (candidate 1) |"
    assert listed in search_markdown(record)
    for absent in ("report/report.html", "recipe.yaml", "Chosen artifact"):
        assert absent not in source
    assert obstacles(make_search()) == []


@pytest.mark.parametrize(
    ("gate", "value", "expected"),
    [
        ("accuracy_drop <= 0.02", 0.05, 0.03),
        ("accuracy >= 0.9", 0.86, 0.04),
        ("accuracy >= 0.9", 0.95, -0.05),
    ],
)
def test_a_shortfall_is_above_nought_on_the_wrong_side_of_the_limit(
    gate: str, value: float, expected: float
) -> None:
    assert shortfall(judged(*gate.split(" ", 1), value, "fail")) == pytest.approx(expected)


def test_a_gate_that_must_hold_for_certain_is_short_by_the_end_of_its_interval() -> None:
    ends = interval_of(0.95, 1000)
    result = judged("accuracy", ">= 0.94", 0.95, "fail", interval=ends)
    certain = result.model_copy(update={"gate": "certain: accuracy >= 0.94"})
    assert shortfall(certain) == pytest.approx(0.94 - ends.low)
    assert shortfall(certain) > 0 > shortfall(result)


def test_a_regression_has_its_score_and_no_accuracy() -> None:
    record = make_regression(gates=["task_score_drop <= 0.02"])
    source = search_html(record)
    assert table_of(source, "Candidates")[0][-1] == "Pearson correlation"
    assert table_of(source, "Candidates")[1][-1] == "0.901 (0.881 to 0.918)"
    rows = {row[0]: row[1:] for row in table_of(source, OUTCOME)}
    assert rows["Pearson correlation"] == ["0.900 (0.886 to 0.912)", "0.888 (0.873 to 0.901)", "-0.012"]
    assert not {"Accuracy", "Mean accuracy under attack"} & set(rows)
    for text in (source, search_markdown(record)):
        assert "nan" not in text.lower()
        assert "None" not in text
    assert "Pearson correlation 0.888 (0.873 to 0.901), of the dense model 0.900" in str(headline(record))


def test_another_score_of_classes_stands_beside_the_accuracy() -> None:
    header = table_of(search_html(make_search(task_metric="f1")), "Candidates")[0]
    assert header[-3:] == ["Accuracy", "F1", "Under attack"]


# form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", EVERY)
def test_the_page_loads_nothing_and_runs_nothing(make: Any) -> None:
    source = search_html(make())
    page = Page(source)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", source))


@pytest.mark.parametrize("make", EVERY)
def test_links_lead_to_parts_of_the_page_or_to_files_of_the_output(make: Any) -> None:
    record = make()
    page = Page(search_html(record))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    files = {target for target in targets if not target.startswith("#")}
    chosen = {"report/report.html", "recipe.yaml", "latency-table.json", "artifact/manifest.json"}
    assert files == {"search.json", *(chosen if record.chosen is not None else ())}


@pytest.mark.parametrize("make", EVERY)
def test_tables_and_figures_can_be_read_aloud_and_reached_by_keys(make: Any) -> None:
    source = search_html(make())
    page = Page(source)
    headers = [attributes for tag, attributes in page.tags if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in headers)
    figures = re.findall(r"<figure.*?</figure>", source, flags=re.DOTALL)
    assert len(figures) == 2
    assert all(re.search(r"<figcaption>[A-Z].+</figcaption>", figure) for figure in figures)
    regions = [attributes for _, attributes in page.tags if attributes.get("role") == "region"]
    assert source.count("<table") == len(regions)
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("by", ["latency", "size"])
def test_plots_are_well_formed_with_every_candidate_in_their_text(make: Any, by: Any) -> None:
    record = make()
    svg = search_plot(record, by)
    root = ElementTree.fromstring(svg)  # noqa: S314 -- made by this test
    assert root.get("role") == "img"
    assert root[0].tag.endswith("title")
    assert root[0].text == root.get("aria-label")
    for one in record.candidates:
        x = one.speedup if by == "latency" else one.size_bytes / 1e6
        assert f"{one.number} at {x:.3g}, {one.task_score:.3f}" in str(root[0].text)
    drawn = {text.text for text in root.iter() if text.tag.endswith("text")}
    assert {"dense", *(str(one.number) for one in record.candidates)} <= drawn
    assert {"front", "dense, PyTorch", "dense, exported", "fails a gate"} <= drawn
    assert ("chosen" in drawn) == (record.chosen is not None)
    assert ("nearest to the gates" in drawn) == (record.nearest is not None)


def test_ticks_of_the_accuracy_are_what_they_say() -> None:
    wide = IntervalFigures(low=0.73, high=0.93)
    found = [one.model_copy(update={"task_score_interval": wide}) for one in candidates()]
    root = ElementTree.fromstring(search_plot(make_search(candidates=found), "size"))  # noqa: S314 -- made here
    texts = [str(text.text) for text in root.iter() if text.tag.endswith("text")]
    ticks = [float(text.removesuffix("%")) for text in texts if text.endswith("%")]
    steps = [after - before for before, after in pairwise(ticks)]
    assert len(steps) > 3
    assert steps == pytest.approx([steps[0]] * len(steps))


def test_a_plot_of_one_candidate_is_one() -> None:
    record = make_refused(candidates=candidates()[:1], front=[0])
    ElementTree.fromstring(search_plot(record, "latency"))  # noqa: S314 -- made by this test


@pytest.mark.parametrize("make", [make_search, make_refused])
def test_text_cannot_break_out(make: Any) -> None:
    evil = make(dense={"source": EVIL, "sha256": EVIL}, reason=EVIL, environment={EVIL: EVIL})
    found = [one.model_copy(update={"table": EVIL, "runtime": EVIL}) for one in evil.candidates]
    evil = evil.model_copy(update={"candidates": found, "texts": {"test": EVIL}, "gates": [EVIL]})
    source = search_html(evil)
    assert "<script" not in source
    assert source.count("&lt;script&gt;") >= 6
    markdown = search_markdown(evil)
    assert not re.search(r"(?<![\\`])<script", markdown)
    assert "\n# " not in markdown
    assert r"\[a\](b)" in markdown
    for table in tables_of(markdown):
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {table[0].count("|")}


def test_markdown_tables_are_well_formed() -> None:
    for make in EVERY:
        tables = tables_of(search_markdown(make()))
        assert len(tables) >= 3
        for table in tables:
            assert {row.count("|") for row in table} == {table[0].count("|")}
            assert re.fullmatch(r"\|( -{3}:? \|)+", table[1])


# the record -------------------------------------------------------------------------------------


def test_the_schema_in_the_repository_is_that_of_the_record() -> None:
    schema = Path(record_module.__file__).with_name("search.schema.json")
    assert json.loads(schema.read_text(encoding="utf-8")) == search_schema()


@pytest.mark.parametrize("make", EVERY)
def test_a_record_is_as_its_schema_says(make: Any) -> None:
    jsonschema.validate(as_json(make()), search_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(as_json(make()) | {"chosen": "3"}, search_schema())
