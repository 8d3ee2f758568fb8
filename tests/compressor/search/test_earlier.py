"""A search beside an earlier one: when what it found is better, and what cannot be compared."""

import json

import pytest
from made_searches import make_refused, make_search

from compressor.errors import UserError
from compressor.search.earlier import held_against, read_earlier
from compressor.search.record import SEARCH_RECORD
from compressor.search.report import search_html, search_markdown


def changed(record, speedup=1.0, size=1.0, **update):
    """The record with a chosen artifact that is so many times as fast and as large."""
    figures = record.test_figures
    artifact = figures.artifact.model_copy(update={"size_bytes": round(figures.artifact.size_bytes * size)})
    figures = figures.model_copy(update={"speedup": figures.speedup * speedup, "artifact": artifact})
    return record.model_copy(update={"test_figures": figures, **update})


@pytest.mark.parametrize(
    ("objective", "change", "better"),
    [
        ("latency", {"speedup": 1.2}, True),
        ("latency", {"speedup": 1.2, "size": 2}, True),
        # Times of two runs differ by as much.
        ("latency", {"speedup": 1.04}, False),
        ("latency", {"speedup": 0.5, "size": 0.1}, False),
        ("latency", {"speedup": 1.2, "verdict": "fail"}, False),
        ("latency", {"speedup": 1.2, "verdict": "inconclusive"}, False),
        ("size", {"size": 0.9}, True),
        ("size", {"size": 0.97, "speedup": 3}, False),
    ],
)
def test_it_is_better_if_it_holds_its_gates_and_is_clearly_ahead(objective, change, better):
    earlier = make_search().model_copy(update={"objective": objective, "verdict": "pass"})
    found = held_against(changed(earlier, **change), earlier)
    assert found.better == better
    assert found.sentence.startswith("Better than the earlier" if better else "No better than the earlier")
    assert found.speedup == earlier.test_figures.speedup
    assert found.size_bytes == earlier.test_figures.artifact.size_bytes


def test_what_cannot_be_better_is_said():
    earlier = make_search()
    assert not held_against(make_refused(), earlier).better
    assert held_against(make_refused(), earlier).sentence.startswith("This search chose nothing; the earlier")
    other = held_against(earlier.model_copy(update={"gates": ["accuracy_drop <= 0.5"]}), earlier)
    assert "which had other gates" in other.sentence


def test_pages_say_it():
    earlier = make_search()
    record = earlier.model_copy(update={"earlier": held_against(changed(earlier, speedup=2), earlier)})
    for page in (search_markdown(record), search_html(record)):
        assert record.earlier.sentence in page
    assert "earlier search" not in search_markdown(earlier) + search_html(earlier)


def written(record, folder):
    folder.mkdir()
    content = json.loads(record.model_dump_json(exclude={"path"}))
    (folder / SEARCH_RECORD).write_text(json.dumps(content))
    return str(folder)


def test_an_outcome_is_read_again(tmp_path):
    record = make_search()
    found = read_earlier(written(record, tmp_path / "in-use"), record.objective)
    assert found.test_figures == record.test_figures


def test_what_cannot_be_compared_is_refused(tmp_path):
    record = make_search()
    folder = written(record, tmp_path / "in-use")
    other = "size" if record.objective == "latency" else "latency"
    with pytest.raises(UserError, match=f"for {record.objective}, this one is for {other}"):
        read_earlier(folder, other)
    with pytest.raises(UserError, match="chose nothing"):
        read_earlier(written(make_refused(), tmp_path / "refused"), make_refused().objective)
    with pytest.raises(UserError, match=r"search\.json"):
        read_earlier(str(tmp_path / "nothing"), record.objective)
