"""The plots of a report: what they show, that they are well-formed, and the same everywhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from made_reports import SHAPES, make_appendix, make_report

from compressor.validation.report.plots import (
    accuracy_plot,
    latency_plot,
    layers_plot,
    short_names,
    tradeoff_plot,
)
from compressor.validation.report.render import render_html
from compressor.validation.report.rows import measured_variants
from compressor.validation.schema import LayerRow


def svgs_of(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)


def test_svgs_are_accessible_xml_in_the_page_s_colours() -> None:
    svgs = svgs_of(render_html(make_report(), make_appendix()))
    assert len(svgs) == 4
    for svg in svgs:
        root = ElementTree.fromstring(svg)  # noqa: S314 -- made by this test
        assert root.get("role") == "img"
        assert root[0].tag.endswith("title")
        assert root[0].text == root.get("aria-label")
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert "#000000" not in svg
        assert "#ffffff" not in svg
        assert not re.search(r"<metadata|<style|dc:date|<\?xml", svg)


def test_plots_are_the_same_bytes_whatever_the_user_s_settings() -> None:
    import matplotlib

    figures = measured_variants(make_report())
    layers = make_appendix().layers

    def draw() -> list[str]:
        return [accuracy_plot(figures), tradeoff_plot(figures), latency_plot(figures), layers_plot(layers)]

    first = draw()
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "ytick.direction": "in"}):
        before = dict(matplotlib.rcParams)
        assert draw() == first
        assert dict(matplotlib.rcParams) == before


def test_plots_hold_the_figures() -> None:
    figures = measured_variants(make_report())
    assert accuracy_plot(figures).count("92.0%") == 3
    latency = latency_plot(figures)
    assert all(f">{batch} × {length}<" in latency for batch, length in SHAPES)
    layers = layers_plot(make_appendix().layers)
    assert ">0.attention.self.query<" in layers
    assert "relative reconstruction error<" in layers


@pytest.mark.parametrize("errors", [[None, None], [0.0, 0.0], [0.0, None], [float("inf"), 0.1], [1e-6, 0.9]])
def test_layers_plot_with_any_errors(errors: list[float | None]) -> None:
    layers = [LayerRow(f"encoder.{number}", 0.5, error) for number, error in enumerate(errors)]
    svg = layers_plot(layers)
    assert ("relative reconstruction error<" in svg) == any(error is not None for error in errors)
    ElementTree.fromstring(svg)  # noqa: S314 -- made by this test


def test_short_names() -> None:
    assert short_names(["a.b.0.c", "a.b.1.c"]) == ["0.c", "1.c"]
    assert short_names(["a.b.c"]) == ["c"]
    assert short_names(["a", "a.b"]) == ["a", "a.b"]
    assert short_names(["layer.1.x", "layer.10.x"]) == ["1.x", "10.x"]
