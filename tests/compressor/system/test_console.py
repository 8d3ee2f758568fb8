"""Progress goes to stderr, at most one line every few seconds, and never changes what it tracks."""

import io
import sys

import pytest

from compressor.system import console
from compressor.system.console import (
    BarProgress,
    LineProgress,
    SilentProgress,
    format_seconds,
    terminal_progress,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on by what a test says."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.mark.parametrize("progress", [SilentProgress, LineProgress, BarProgress])
@pytest.mark.parametrize("items", [[], [1, 2, 3], range(5), (i for i in range(4))])
def test_items_pass_through_and_stdout_stays_empty(progress, items, capfd):
    expected = list(range(4)) if not hasattr(items, "__len__") else list(items)
    if not hasattr(items, "__len__"):
        items = iter(range(4))
    shown = progress()
    shown.log("a line [bold]of[/bold] interest")
    assert list(shown.track(items, "Working [1:2]")) == expected
    out, err = capfd.readouterr()
    assert out == ""
    assert ("a line [bold]of[/bold] interest" in err) is (progress is not SilentProgress)


def test_short_work_gives_no_lines(capfd):
    list(LineProgress().track(range(1000), "Working"))
    assert capfd.readouterr().err == ""


def test_long_work_gives_a_line_every_ten_seconds_and_one_at_the_end(clock, capfd):
    for _ in LineProgress().track(range(10), "Working"):
        clock.now += 4.0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Working: 3/10, 0:28 left",
        "Working: 6/10, 0:16 left",
        "Working: 9/10, 0:04 left",
        "Working: done in 0:40",
    ]


def test_what_is_known_so_far_is_told_with_the_progress(clock, capfd):
    found = []
    for item in LineProgress().track(range(4), "Working", status=lambda: f"found {len(found)}"):
        clock.now += 11.0
        found.append(item)
    assert capfd.readouterr().err.splitlines()[:2] == [
        "Working: 1/4, 0:33 left, found 1",
        "Working: 2/4, 0:22 left, found 2",
    ]


def test_work_of_unknown_length_gives_lines_without_time_left(clock, capfd):
    for _ in LineProgress().track(iter(range(4)), "Working"):
        clock.now += 11.0
    assert capfd.readouterr().err.splitlines()[0] == "Working: 1/?"


def test_a_given_total_counts_for_a_generator(clock, capfd):
    for _ in LineProgress().track(iter(range(4)), "Working", total=4):
        clock.now += 11.0
    assert capfd.readouterr().err.splitlines()[0] == "Working: 1/4, 0:33 left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (75.2, "1:15"), (3600, "1:00:00")]
)
def test_seconds_are_written_as_a_clock_does(seconds, text):
    assert format_seconds(seconds) == text


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("streams", [(), ("stdout",), ("stderr",), ("stdout", "stderr")])
def test_bars_need_both_streams_on_a_terminal(monkeypatch, streams):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal() if name in streams else io.StringIO())
    assert isinstance(terminal_progress(), BarProgress) is (len(streams) == 2)
