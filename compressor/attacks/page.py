"""An attack's examples as one HTML page that opens offline: to filter, search and sort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup, escape

from compressor.attacks.records import AttackedExample
from compressor.display.marking import CUT, mark_changes
from compressor.display.pages import NOTHING, number, page_templates, percent

EXAMPLES_PAGE = "examples.html"
# What people call an outcome.
OUTCOMES = {"succeeded": "fooled", "failed": "held", "skipped": "skipped"}
# Characters above which a text is shown as an excerpt, until it is opened.
LONG_TEXT = 1500
CONTEXT_WORDS = 12
FIRST_WORDS = 60
# HTML has no NUL, and browsers show no control character; each has a picture in Unicode.
_CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if not chr(code).isspace()} | {0x7F: 0x2421}


def render_page(
    record: Mapping[str, Any], examples: Sequence[AttackedExample], label_names: Sequence[str]
) -> str:
    """Return the page: the figures of `record`, then every example in the order of the data.

    Args:
        record: what `robustness.json` holds.
        label_names: by class.
    """
    counts = Counter(OUTCOMES[example.outcome] for example in examples)
    return _template().render(
        attack=record["attack"].replace(",", ", "),
        model=record["model"],
        # A model in the current directory has no name of its own.
        name=Path(record["model"]).name or record["model"],
        figures=_figures(record),
        resources=record["resources"],
        similarity=record.get("similarity"),
        counts={outcome: counts[outcome] for outcome in OUTCOMES.values()},
        examples=[_shown(place, e, label_names[e.label]) for place, e in enumerate(examples, 1)],
    )


@cache
def _template() -> Template:
    return page_templates(Path(__file__).parent / "templates").get_template("examples.html.j2")


def _figures(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and 95 % interval of each figure."""
    budgets = [
        (
            f"with {budget['max_words_changed'] * 100:.3g}% of the words at most",
            percent(budget["accuracy_under_attack"]),
            _interval(budget["interval"]),
        )
        for budget in record["word_budgets"]
    ]
    mean = record["mean_accuracy_under_attack"]
    means = []
    if mean is not None:
        name = f"mean over 0 to {mean['longest_budget'] * 100:.3g}% of the words"
        means = [(name, percent(mean["mean"]), _interval(mean["interval"]))]
    attacks = record.get("attacks", [])
    name = "Accuracy under all attacks" if attacks else "Accuracy under attack"
    return [
        _share("Accuracy", record, "accuracy"),
        _share(name, record, "accuracy_under_attack"),
        *(_share(f"Accuracy under {one['attack']}", one, "accuracy_under_attack") for one in attacks),
        *budgets,
        *means,
        _share("Attack success rate", record, "attack_success_rate"),
        ("Queries an example", number(record["queries_per_example"], ".1f"), NOTHING),
    ]


def _share(name: str, record: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    return name, percent(record[key]), _interval(record[f"{key}_interval"])


def _interval(ends: Mapping[str, float] | None) -> str:
    return NOTHING if ends is None else f"{percent(ends['low'])} to {percent(ends['high'])}"


def _shown(place: int, example: AttackedExample, label: str) -> dict[str, Any]:
    """An example as the template takes it; `changed` is None where the text is as it was."""
    pairs = [(example.text, example.perturbed)]
    if example.text_pair is not None and example.perturbed_pair is not None:
        pairs.append((example.text_pair, example.perturbed_pair))
    names = ["Text"] if len(pairs) == 1 else ["First text", "Second text"]
    told = any(before != after for before, after in pairs)
    return {
        "place": place,
        "outcome": OUTCOMES[example.outcome],
        "label": label,
        "queries": example.queries,
        "words": example.words,
        "changed": round(example.words_changed * example.words) if told else None,
        "share": percent(example.words_changed),
        "cosine": None if example.cosine is None else f"{example.cosine:.3f}",
        "texts": [text for name, pair in zip(names, pairs, strict=True) for text in _texts(name, *pair)],
    }


def _texts(name: str, original: str, perturbed: str) -> list[dict[str, Any]]:
    """The rows of a text: itself, or both versions of it where they differ."""
    before, after = (text.translate(_CONTROL_PICTURES) for text in (original, perturbed))
    if before == after:
        return [_text(name, before, escape(" ".join(before.split())), _beginning(before))]
    whole = mark_changes(before, after)
    excerpts = mark_changes(before, after, CONTEXT_WORDS) if _is_long(before, after) else whole
    terms = ["Original", "Perturbed"] if name == "Text" else [f"{name}, original", f"{name}, perturbed"]
    return [
        _text(term, text, marked, excerpt)
        for term, text, marked, excerpt in zip(terms, (before, after), whole, excerpts, strict=True)
    ]


def _text(term: str, text: str, html: Markup, excerpt: Markup) -> dict[str, Any]:
    """A row: its term, the text as HTML, and an excerpt if the text is long."""
    return {
        "term": term,
        "html": html,
        "excerpt": excerpt if _is_long(text) else None,
        "words": len(text.split()),
    }


def _is_long(*texts: str) -> bool:
    return any(len(text) > LONG_TEXT for text in texts)


def _beginning(text: str) -> Markup:
    return escape(" ".join([*text.split()[:FIRST_WORDS], CUT]))
