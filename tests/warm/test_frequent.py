"""The counter keeps its promises for every stream."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.warm.frequent import HIGHEST, Frequent

KEYS = st.integers(0, 30).map(str)


@given(st.lists(st.tuples(KEYS, st.integers(1, 20)), max_size=400), st.integers(1, 8))
def test_estimates_are_within_the_bound(stream: list[tuple[str, int]], room: int) -> None:
    frequent, truth = Frequent(room, 60.0, 0.0), Counter[str]()
    for key, count in stream:
        frequent.add(key, count, 0.0)
        truth[key] += count
        assert len(frequent.weights) < 2 * room or room == 1
    assert frequent.off <= sum(truth.values()) / (room + 1)
    for key, true in truth.items():
        assert true - frequent.off <= frequent.count(key, 0.0) <= true
    # So whatever came more often than the bound is there.
    assert {key for key, true in truth.items() if true > frequent.off} <= set(frequent.weights)


@given(
    st.lists(st.tuples(KEYS, st.integers(1, 5), st.floats(0, 600)), max_size=200),
    st.floats(0, 100 * HIGHEST),
)
def test_counts_decay_by_half_in_each_half_life(stream: list[tuple[str, int, float]], later: float) -> None:
    frequent, now = Frequent(64, 60.0, 0.0), 0.0
    truth: dict[str, float] = {}
    for key, count, passed in stream:
        now += passed
        truth = {k: v * 2 ** (-passed / 60.0) for k, v in truth.items()}
        truth[key] = truth.get(key, 0.0) + count
        frequent.add(key, count, now)
    for key, true in truth.items():
        left = true * 2.0 ** (-later / 60.0)
        assert abs(frequent.count(key, now + later) - left) <= 1e-9 + left * 1e-6
    assert all(weight < 2.0 ** (HIGHEST + 20) for weight in frequent.weights.values())


def test_the_recent_outweighs_the_old() -> None:
    frequent = Frequent(4, 60.0, 0.0)
    frequent.add("old", 100, 0.0)
    frequent.add("new", 20, 0.0)
    frequent.add("new", 20, 300.0)
    assert frequent.top(2) == ["new", "old"]


def test_a_clock_that_goes_back_does_no_harm() -> None:
    frequent = Frequent(4, 60.0, 1000.0)
    frequent.add("a", 1, 500.0)
    assert frequent.count("a", 400.0) == 1
