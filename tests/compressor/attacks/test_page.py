"""The page of an attack's examples: what it shows, that text cannot break out, that it loads nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest

from compressor.attacks.page import LONG_TEXT, render_page
from compressor.attacks.records import AttackedExample, mean_accuracy, summarize, under_word_budgets

VOID_TAGS = {"meta", "input"}
LABELS = ["negative", "positive"]


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def line(self) -> str:
        """The text in one line, with a space between elements."""
        pieces = [child if isinstance(child, str) else child.line() for child in self.children]
        return " ".join(" ".join(pieces).split())

    def all(self, tag: str | None = None, **attributes: str) -> list[Element]:
        inner = [child for child in self.children if isinstance(child, Element)]
        found = [element for child in inner for element in [child, *child.all()]]
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [e for e in found if tag in (None, e.tag) and wanted.items() <= e.attributes.items()]


class Tree(HTMLParser):
    """Builds the elements, and asserts that each is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.root = Element("root", {})
        self._open = [self.root]
        self.feed(source)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID_TAGS:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def make_example(
    outcome: str = "failed",
    text: str = "a fine film",
    perturbed: str | None = None,
    pair: str | None = None,
    perturbed_pair: str | None = None,
    **changes: Any,
) -> AttackedExample:
    words = len(f"{text} {pair or ''}".split())
    fields: dict[str, Any] = {
        "text": text,
        "text_pair": pair,
        "perturbed": text if perturbed is None else perturbed,
        "perturbed_pair": pair if perturbed_pair is None else perturbed_pair,
        "label": 1,
        "outcome": outcome,
        "queries": 12,
        "scored": 11,
        "words": words,
        "words_changed": 1 / words if outcome == "succeeded" else 0.0,
        "seconds": 0.1,
        "cosine": None,
    }
    return AttackedExample(**fields | changes)


def fooled(text: str = "a fine film", perturbed: str = "a fnie film", **changes: Any) -> AttackedExample:
    return make_example("succeeded", text, perturbed, **changes)


def make_record(examples: Sequence[AttackedExample], **changes: Any) -> dict[str, Any]:
    budgets = under_word_budgets(examples, [0.05, 0.125])
    return {
        **asdict(summarize(list(examples), "textfooler")),
        "model": "runs/artifact",
        "word_budgets": [asdict(budget) for budget in budgets],
        "mean_accuracy_under_attack": asdict(mean_accuracy(examples, 0.125)),
        "resources": {"word_vectors": "glove & co", "part_of_speech": "TextBlob 0.19.0"},
        **changes,
    }


def render(*examples: AttackedExample, **changes: Any) -> str:
    return render_page(make_record(examples, **changes), examples, LABELS)


def page(*examples: AttackedExample, **changes: Any) -> Element:
    return Tree(render(*examples, **changes)).root


def items_of(root: Element) -> list[Element]:
    return root.all("ol", class_="attacks")[0].all("li")


def rows(item: Element) -> list[tuple[str, str]]:
    """Terms and texts of an example; excerpts are left out."""
    texts = [element.all("div", class_="text")[0].text() for element in item.all("dd")]
    return list(zip([term.text() for term in item.all("dt")], texts, strict=True))


def marks(item: Element) -> list[str]:
    return [mark.text() for mark in item.all("mark")]


def test_title_figures_and_resources() -> None:
    root = page(fooled(), make_example(queries=30), make_example("skipped", queries=1), make_example())
    assert root.all("title")[0].text() == "textfooler on artifact: examples"
    assert root.all("h1")[0].text() == "textfooler on artifact"
    table = [row.line() for row in root.all("tr")]
    assert table == [
        "Figure Value 95 % interval",
        "Accuracy 75.0% 30.1% to 95.4%",
        "Accuracy under attack 50.0% 15.0% to 85.0%",
        "with 5% of the words at most 50.0% 15.0% to 85.0%",
        "with 12.5% of the words at most 50.0% 15.0% to 85.0%",
        "mean over 0 to 12.5% of the words 50.0% 15.4% to 84.6%",
        "Attack success rate 33.3% 6.1% to 79.2%",
        "Queries an example 18.0 –",
    ]
    assert "word vectors glove & co part of speech TextBlob 0.19.0" in root.all("dl")[0].line()


def test_what_is_not_there_is_a_dash_or_left_out() -> None:
    skipped = make_example("skipped")
    root = page(skipped, word_budgets=[], mean_accuracy_under_attack=None, resources={}, model="..")
    lines = [row.line() for row in root.all("tr")]
    assert "Attack success rate – –" in lines
    assert "Queries an example – –" in lines
    assert not [line for line in lines if "of the words" in line]
    assert "needs nothing besides the model" in root.text()
    assert "None" not in root.text()
    assert "Similarity" not in root.text()
    assert "Similarity is given as cosine of x." in page(skipped, similarity="cosine of x").text()


def test_each_filter_has_its_count_and_every_example_is_there() -> None:
    examples = [fooled(), make_example(), make_example("skipped"), make_example(), make_example()]
    root = page(*examples)
    buttons = {button.attributes["data-outcome"]: button.line() for button in root.all("button")}
    assert buttons == {"": "All 5", "fooled": "Fooled 1", "held": "Held 3", "skipped": "Skipped 1"}
    assert "5 examples: 1 fooled" in " ".join(root.text().split())
    items = items_of(root)
    outcomes = ["fooled", "held", "skipped", "held", "held"]
    assert [item.attributes["class"] for item in items] == outcomes
    assert [item.all("span", class_="status")[0].text() for item in items] == outcomes
    # Without JavaScript the controls are not shown, and all examples are.
    assert "hidden" in root.all("div", class_="controls")[0].attributes
    assert not any("hidden" in item.attributes for item in items)


def test_the_order_of_the_data_and_what_is_sorted_by() -> None:
    items = items_of(page(make_example(queries=1200), fooled(words=2000, words_changed=0.0015, queries=7)))
    names = ("data-place", "data-queries", "data-changed")
    assert [[item.attributes[name] for name in names] for item in items] == [
        ["1", "1200", "Infinity"],
        ["2", "7", "3"],
    ]


def test_heading_of_an_example() -> None:
    held, success = items_of(page(make_example(label=0, queries=1), fooled(queries=1234, cosine=0.98765)))
    assert held.all("h3")[0].line() == "1 held label negative 1 query"
    assert success.all("h3")[0].line() == (
        "2 fooled label positive 1,234 queries 1 of 3 words changed (33.3%) cosine 0.988"
    )
    unmeasured = items_of(page(fooled(cosine=None)))[0]
    assert "cosine" not in unmeasured.line()


def test_changed_words_are_marked_in_both_texts() -> None:
    item = items_of(page(fooled("a fine old film", "a fnie old flim")))[0]
    assert rows(item) == [("Original", "a fine old film"), ("Perturbed", "a fnie old flim")]
    assert marks(item) == ["fine", "film", "fnie", "flim"]


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_where_nothing_changed_the_text_stands_alone(outcome: str) -> None:
    item = items_of(page(make_example(outcome)))[0]
    assert rows(item) == [("Text", "a fine film")]
    assert marks(item) == []


def test_what_input_reduction_took_away_is_shown_though_it_failed() -> None:
    item = items_of(page(make_example("failed", "a fine film", "fine film", words_changed=1 / 3)))[0]
    assert rows(item) == [("Original", "a fine film"), ("Perturbed", "fine film")]
    assert marks(item) == ["a"]
    assert "1 of 3 words changed" in item.line()


def test_pairs_show_both_texts() -> None:
    held, second, both = items_of(
        page(
            make_example(pair="it is good"),
            fooled("a film", "a film", pair="it is good", perturbed_pair="it is godo"),
            fooled("a film", "a flim", pair="it is good", perturbed_pair="it is godo"),
        )
    )
    assert rows(held) == [("First text", "a fine film"), ("Second text", "it is good")]
    assert rows(second) == [
        ("First text", "a film"),
        ("Second text, original", "it is good"),
        ("Second text, perturbed", "it is godo"),
    ]
    assert marks(second) == ["good", "godo"]
    assert [term for term, _ in rows(both)][:2] == ["First text, original", "First text, perturbed"]
    assert marks(both) == ["film", "flim", "good", "godo"]


def test_text_cannot_break_out() -> None:
    hostile = "</dd></script><script>alert(1)</script> <img src=//x.org onerror=x> <!-- & &lt; \"'"
    examples = [make_example(text=hostile), fooled(hostile, hostile.replace("src", "srcc"))]
    record = make_record(examples, model="runs/<b>bold", resources={"<i>": "<u>"})
    root = Tree(render_page(record, examples, ["no", '"><b>yes'])).root
    assert len(root.all("script")) == 1
    assert not {"img", "i", "u"} & {element.tag for element in root.all()}
    first, second = items_of(root)
    assert rows(first) == [("Text", hostile)]
    assert rows(second)[0] == ("Original", hostile)
    assert marks(second) == ["src=//x.org", "srcc=//x.org"]
    assert first.all("bdi")[0].text() == '"><b>yes'


def test_characters_that_browsers_drop_or_break_lines_at() -> None:
    odd = "nul\0 bell\a one\u2028two\u2029three\x85four"
    for example in (make_example(text=odd), fooled(odd, odd + " x")):
        source = render(example)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]", source)
        assert rows(items_of(Tree(source).root)[0])[0][1] == "nul␀ bell␇ one two three four"


def test_every_text_has_a_direction_of_its_own() -> None:
    items = items_of(page(make_example(text="סרט נפלא"), fooled("word " * LONG_TEXT, "wrod " * LONG_TEXT)))
    texts = [
        text for item in items for text in item.all() if text.attributes.get("class") in ("text", "excerpt")
    ]
    assert len(texts) == 5
    assert {text.attributes["dir"] for text in texts} == {"auto"}


def test_long_texts_are_opened_and_show_their_changes_before() -> None:
    words = [f"w{number}" for number in range(2000)]
    perturbed = [*words]
    perturbed[1000] = "changed"
    held, success = items_of(
        page(make_example(text=" ".join(words)), fooled(" ".join(words), " ".join(perturbed)))
    )
    for item, count in ((held, 1), (success, 2)):
        assert len(item.all("details")) == count
        assert all("open" not in details.attributes for details in item.all("details"))
        assert "whole text, 2,000 words" in item.all("summary")[0].line()
    assert rows(held) == [("Text", " ".join(words))]
    assert rows(success)[1] == ("Perturbed", " ".join(perturbed))
    excerpts = [excerpt.text() for excerpt in success.all("span", class_="excerpt")]
    assert excerpts[1] == " ".join(["…", *words[988:1000], "changed", *words[1001:1013], "…"])
    assert held.all("span", class_="excerpt")[0].text() == " ".join([*words[:60], "…"])


def test_nothing_is_loaded() -> None:
    source = render(fooled("see https://example.org now", "see https://example.org won"), make_example())
    root = Tree(source).root
    for element in root.all():
        assert element.tag not in {"link", "img", "iframe", "object", "base", "a"}
        assert not {"src", "href", "action", "style"} & set(element.attributes)
        assert not any(name.startswith("on") for name in element.attributes)
    own = "".join(element.text() for element in root.all() if element.tag in ("style", "script"))
    assert not re.search(r"https?:|//\w|url\(|@import|fetch|XMLHttpRequest|eval", own)
    policies = [element for element in root.all("meta") if "http-equiv" in element.attributes]
    assert (policies[0].attributes["content"] or "").startswith("default-src 'none';")


def test_an_unknown_outcome_is_no_page() -> None:
    with pytest.raises(KeyError):
        render_page(make_record([make_example()]), [make_example("lost")], LABELS)
