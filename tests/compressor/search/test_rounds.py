"""Rounds of candidates that are made at once: whatever is made ahead, the search takes the same way."""

from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from made_latency_tables import SMALL as TABLE

from compressor.options import AttackConfig, RunConfig, SearchConfig, ValidateConfig
from compressor.search.candidates import SearchJob
from compressor.search.record import CandidateFigures
from compressor.search.stage import all_candidates
from compressor.system.console import SilentProgress

MAKING, MEASURING = 60.0, 10.0


class MadeUpStore:
    """Makes and measures nothing; candidates up to a speed hold the gates, and all take as long."""

    def __init__(self, config, limit):
        gates = ValidateConfig(gates=["accuracy_drop <= 0.02"])
        self.job = SearchJob("m", "c", "s", "t", None, config, gates, AttackConfig())
        self.context = SimpleNamespace(progress=SilentProgress(), run=RunConfig())
        self.limit = limit
        self.made, self.rounds, self.waited = set(), [], 0.0

    def is_made(self, wanted):
        return wanted.target in self.made

    def make(self, wanted):
        """A round of candidates."""
        assert not self.made & {one.target for one in wanted}
        self.rounds.append([one.target for one in wanted])
        self.made |= set(self.rounds[-1])
        self.waited = MAKING

    def candidate(self, number, wanted, began):
        del began
        makes_it = wanted.target is not None and wanted.target not in self.made
        seconds = MEASURING + self.waited + (MAKING if makes_it else 0.0)
        self.waited, holds = 0.0, wanted.target is None or wanted.target <= self.limit
        return CandidateFigures.model_construct(
            number=number, target=wanted.target, seconds=seconds, quality_holds=holds, holds=holds,
            speedup=wanted.target or 3.0, size_bytes=1, accuracy=0.9, task_score=0.9, gates=[], unsure=[],
        )  # fmt: skip


def searched(config, limit):
    """The candidates and the store of a search."""
    store = MadeUpStore(config, limit)
    makers = SimpleNamespace(
        store=store, count=config.processes, make=store.make if config.processes > 1 else lambda wanted: None
    )
    return all_candidates(store.job, {Path("a.json"): TABLE}, makers)[0], store


def targets(found):
    return [one.target for one in found]


OPTIONS = st.fixed_dictionaries(
    {"candidates": st.integers(1, 6)},
    optional={"speedups": st.lists(st.floats(4.0, 20.0), max_size=6), "closeness": st.floats(0.05, 0.5)},
)


@given(OPTIONS, st.integers(2, 8), st.floats(3.0, 40.0))
def test_the_way_is_the_same_and_all_is_made_in_rounds(options, processes, limit):
    alone, _ = searched(SearchConfig(budget_minutes=600, **options), limit)
    found, store = searched(SearchConfig(budget_minutes=600, processes=processes, **options), limit)
    assert targets(found) == targets(alone)
    assert set(targets(found[1:])) <= store.made
    assert all(1 <= len(made) <= processes for made in store.rounds)
    if options.get("speedups"):
        # What comes is known, so nothing is made for nothing.
        assert store.made == set(targets(found[1:]))


@given(st.integers(1, 8), st.floats(3.0, 40.0), st.floats(1.0, 12.0))
def test_more_processes_try_no_less_in_a_time_and_keep_it(processes, limit, minutes):
    options = {"budget_minutes": minutes, "closeness": 0.05}
    alone, _ = searched(SearchConfig(**options), limit)
    found, store = searched(SearchConfig(processes=processes, **options), limit)
    assert targets(found)[: len(alone)] == targets(alone)
    # A first pruned one begins where only the dense model is known, which takes less.
    assert sum(one.seconds for one in found) <= 60 * minutes + MAKING
    clock = MAKING * len(store.rounds if processes > 1 else found[1:]) + MEASURING * len(found)
    assert sum(one.seconds for one in found) == clock


def test_what_a_search_would_not_begin_is_not_made():
    config = SearchConfig(processes=8, candidates=2, speedups=[8.0, 6.0, 5.0])
    assert searched(config, 40.0)[1].rounds == [[8.0, 6.0]]


def test_near_the_end_of_the_time_nothing_is_made_that_would_not_be_measured():
    speeds = [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    found, store = searched(SearchConfig(processes=2, budget_minutes=4, speedups=speeds), 40.0)
    assert store.rounds == [[4.0, 5.0], [6.0, 7.0], [8.0]]
    assert targets(found) == [None, *speeds[:5]]
    assert sum(one.seconds for one in found) == 240
