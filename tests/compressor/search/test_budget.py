"""A search begins no candidate that would not end in time, and makes none ahead that it would not begin."""

from hypothesis import assume, given
from hypothesis import strategies as st

from compressor.options import SearchConfig
from compressor.search.budget import most_begun, why_over
from compressor.search.record import CandidateFigures


def candidate(seconds, target=None):
    return CandidateFigures.model_construct(seconds=seconds, target=target)


def is_over(found, tried, config, is_made=False):
    return why_over(found, tried, config, is_made=is_made) is not None


SECONDS = st.floats(0.0, 600.0)


@given(SECONDS, st.lists(SECONDS, max_size=4), st.floats(1.0, 60.0), st.integers(1, 12))
def test_as_many_are_thought_to_begin_as_would_if_each_took_as_long_as_the_longest(
    dense, pruned, minutes, candidates
):
    found = [candidate(dense), *(candidate(seconds, 8.0) for seconds in pruned)]
    tried, config = len(pruned), SearchConfig(budget_minutes=minutes, candidates=candidates)
    assume(not is_over(found, tried, config))
    most, longest = most_begun(found, tried, config), max(one.seconds for one in found)
    begun = 0
    while not is_over(found, tried + begun, config):
        found.append(candidate(longest, 8.0))
        begun += 1
    # Sums of floats may be off at a bound.
    ends = sum(one.seconds for one in found) + longest
    assert most == begun or (abs(most - begun) == 1 and min(abs(ends - 60 * minutes), longest) < 1e-6 * ends)


def test_the_first_one_begins_in_any_time():
    assert not is_over([], 0, SearchConfig(budget_minutes=1e-9))


def test_one_that_is_made_takes_as_long_as_the_exported_dense_model():
    config, found = SearchConfig(budget_minutes=10), [candidate(60.0), candidate(400.0, 8.0)]
    assert is_over(found, 1, config)
    assert not is_over(found, 1, config, is_made=True)
    assert is_over([*found, candidate(100.0, 9.0)], 2, config, is_made=True)


def test_no_more_are_tried_than_asked_for():
    config, found = SearchConfig(candidates=2), [candidate(0.0), candidate(0.0, 8.0)]
    assert most_begun(found, 1, config) == 1
    assert is_over(found, 2, config, is_made=True)
