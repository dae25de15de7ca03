"""When an alert begins, fires and is over."""

from __future__ import annotations

import math

from edgeproxy.alerting.state import SETTLED, State
from tests.alerting.made import Now, alert


def test_it_fires_when_it_has_held_for_long_enough() -> None:
    state, figures = State([alert()]), Now({"Slow": {"a": 3.0}})
    assert state.step(figures, 0.0) == []
    assert [each.since for each in state.pending] == [0.0]
    state.step(figures, 45.0)
    assert state.firing == []
    state.step(figures, 60.0)
    (fires,) = state.firing
    assert (fires.fired, fires.since, fires.labels, state.pending) == (60.0, 0.0, (("origin", "a"),), [])
    assert fires.summary("node") == "node: a takes 3s"


def test_one_that_must_hold_for_no_time_fires_at_once() -> None:
    state = State([alert(lasts="0m")])
    state.step(Now({"Slow": {"a": 0.25 + 1}}), 7.0)
    assert [each.fired for each in state.firing] == [7.0]


def test_what_did_not_hold_was_nothing() -> None:
    state, figures = State([alert()]), Now({"Slow": {"a": 3.0}})
    state.step(figures, 0.0)
    figures.told = {"Slow": {"a": 1.0}}
    state.step(figures, 15.0)
    assert state.pending == []
    figures.told = {"Slow": {"a": 3.0}}
    for now in (30.0, 60.0, 75.0):
        state.step(figures, now)
    assert state.firing == []  # a minute from the first of them, not from the second
    figures.told = {"Slow": {"a": math.nan}}
    state.step(figures, 90.0)
    assert (state.firing, state.pending) == ([], [])


def test_one_that_comes_and_goes_is_one() -> None:
    state, figures = State([alert()]), Now({"Slow": {"a": 3.0}})
    for now in (0.0, 60.0):
        state.step(figures, now)
    (fires,) = state.firing
    for now in range(75, 300, 15):  # away for half a minute, again and again
        figures.told = {"Slow": {"a": 3.0 if now % 45 == 0 else 0.0}}
        assert state.step(figures, now) == []
        assert state.firing == [fires]
    figures.told = {}
    last = fires.seen
    assert state.step(figures, last + SETTLED - 1) == []
    assert state.step(figures, last + SETTLED) == [fires]
    assert (fires.over, state.firing) == (last + SETTLED, [])
    figures.told = {"Slow": {"a": 3.0}}
    state.step(figures, 1000.0)
    assert state.firing == []  # the next one has to hold as well


def test_each_origin_is_its_own_and_the_urgent_come_first() -> None:
    state = State([alert(lasts="0m"), alert("Out", "critical", "0m")])
    state.step(Now({"Slow": {"a": 3.0}}), 0.0)
    state.step(Now({"Slow": {"a": 3.0, "b": 4.0}, "Out": {"b": 2.0}}), 15.0)
    told = [(each.alert.name, dict(each.labels)["origin"]) for each in state.firing]
    assert told == [("Out", "b"), ("Slow", "a"), ("Slow", "b")]
    assert {name for name, _ in state.windows} == {"Slow", "Out"}
