"""Pages of the repository become pages of the site: links hold, equations are MathML."""

import posixpath
import re

import pytest
from documented import ROOT
from site_hooks import LINK, OUTSIDE, site_links, with_mathml

PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]


@pytest.mark.parametrize(
    ("page", "target", "expected"),
    [
        ("index.md", "tutorial.md", "tutorial.md"),
        ("index.md", "../benchmarks/README.md#curves", "benchmarks/README.md#curves"),
        ("how-to/ci.md", "exporting.md#triton", "exporting.md#triton"),
        ("how-to/ci.md", "../reference/cli.md", "../reference/cli.md"),
        ("how-to/robust.md", "../../deploy/recipes/robust.yaml", "../deploy/recipes/robust.yaml"),
        ("how-to/robust.md", "../../benchmarks/README.md", "../benchmarks/README.md"),
        ("benchmarks/README.md", "../docs/how-to/exporting.md", "../how-to/exporting.md"),
        ("benchmarks/README.md", "results/curves_sparsity.svg", "results/curves_sparsity.svg"),
    ],
)
def test_a_link_leads_to_the_same_file_in_the_site(page, target, expected):
    assert site_links(f"see [it]({target}).", page) == f"see [it]({expected})."


@pytest.mark.parametrize("target", ["#here", "https://example.org/docs/a.md", "mailto:a@example.org"])
def test_links_that_are_no_files_stay(target):
    assert site_links(f"[it]({target})", "how-to/ci.md") == f"[it]({target})"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_is_a_file_of_the_repository_and_in_the_site(page):
    in_site = {path.resolve() for pattern in OUTSIDE for path in ROOT.glob(pattern)}
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        file = (page.parent / match["target"]).resolve()
        assert file.is_file(), match["target"]
        assert file in in_site or (ROOT / "docs") in file.parents, match["target"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_are_to_pages_and_not_out_of_the_site(page):
    name = page.relative_to(ROOT).as_posix().removeprefix("docs/")
    for match in LINK.finditer(site_links(page.read_text(encoding="utf-8"), name)):
        target = posixpath.join(posixpath.dirname(name), match["target"])
        assert not posixpath.normpath(target).startswith("..")


def test_equations_are_converted_where_they_stand():
    page = (
        '<p>with <span class="arithmatex">\\(a &lt; b\\)</span>:</p>\n'
        '<div class="arithmatex">\\[\nx^2\n\\]</div><p>end</p>'
    )
    converted = with_mathml(page, lambda latex, display: f"<math {display}>{latex}</math>")
    assert converted == "<p>with <math inline>a < b</math>:</p>\n<math block>x^2</math><p>end</p>"


def test_an_unknown_command_of_latex_is_an_error():
    page = '<span class="arithmatex">\\(\\foo\\)</span>'
    with pytest.raises(ValueError, match=re.escape("\\foo: has a command")):
        with_mathml(page, lambda latex, display: f"<mi>{latex}</mi>")
