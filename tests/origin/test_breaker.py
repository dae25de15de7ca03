"""The breaker alone, on given times: when it opens, for how long, and who may try."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.origin.breaker import FORGIVEN, SOON, Breaker, State
from edgeproxy.origin.window import SECONDS, Window
from edgeproxy.rules.pools import Breaker as Policy

AT = 1_700_000_000.0


def breaker(*, chance: float = 0.0, **policy: Any) -> tuple[Breaker, Window]:
    window = Window()
    return Breaker(replace(Policy(), **policy), window, lambda: chance), window


def fail(b: Breaker, w: Window, now: float, *, connect: bool = False, trial: bool = False) -> bool:
    w.add(now, failed=1)
    return b.failed(now, "why", connect=connect, trial=trial)


def answer(b: Breaker, w: Window, now: float, *, trial: bool = False) -> None:
    w.add(now, answered=1)
    b.answered(now, trial=trial)


def test_five_failures_to_connect_in_a_row_open_it() -> None:
    b, w = breaker()
    assert [fail(b, w, AT, connect=True) for _ in range(4)] == [False] * 4
    answer(b, w, AT)  # not in a row
    assert [fail(b, w, AT, connect=True) for _ in range(5)] == [False] * 4 + [True]
    assert (b.state, b.opens, b.cannot_connect) == (State.OPEN, 1, True)
    assert "5 failures to connect in a row" in b.reason
    assert not b.ready(AT + 0.9)
    assert b.ready(AT + 1.0)


@pytest.mark.parametrize(("good", "bad", "opens"), [(25, 25, True), (26, 24, False), (0, 49, False)])
def test_half_of_fifty_requests_in_ten_seconds(good: int, bad: int, opens: bool) -> None:
    b, w = breaker()
    for _ in range(good):
        answer(b, w, AT)
    for _ in range(bad):
        fail(b, w, AT)
    assert (b.state is State.OPEN) is opens
    assert not b.cannot_connect


def test_failures_long_ago_do_not_count() -> None:
    b, w = breaker()
    for second in range(100):
        for _ in range(4):
            fail(b, w, AT + second)  # 40 in any ten seconds
    assert b.state is State.CLOSED


def test_one_trial_at_a_time_and_its_outcome_decides() -> None:
    b, w = breaker(connects=1)
    fail(b, w, AT, connect=True)
    assert b.ready(AT + 1)
    b.try_one(AT + 1)
    assert b.state is State.HALF_OPEN
    assert not b.ready(AT + 100)
    answer(b, w, AT + 1)  # one that was under way before: says nothing of now
    fail(b, w, AT + 1, connect=True)
    assert b.state is State.HALF_OPEN
    b.abandoned()
    assert b.state.value == "open"
    assert b.ready(AT + 1)
    b.try_one(AT + 1)
    answer(b, w, AT + 1.5, trial=True)
    assert b.state.value == "closed"
    assert (w.failed, w.answered) == (0, 0), "what was before does not open it again"


def test_the_pause_doubles_to_its_longest_and_is_forgiven() -> None:
    b, w = breaker(connects=1, base=1.0, longest=60.0)
    now, pauses = AT, []
    fail(b, w, now, connect=True)
    for _ in range(8):
        pauses.append(b.until - now)
        now = b.until
        b.try_one(now)
        assert fail(b, w, now, connect=True, trial=True)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    b.try_one(now)
    answer(b, w, now, trial=True)
    now += 3 * FORGIVEN
    fail(b, w, now, connect=True)
    assert b.until - now == 60  # nine doublings less three
    b.try_one(now)
    answer(b, w, now, trial=True)
    now += 20 * FORGIVEN
    fail(b, w, now, connect=True)
    assert b.until - now == 1


@pytest.mark.parametrize(("took", "alone", "pause"), [(0.0, True, SOON), (0.0, False, 60), (5.0, True, 60)])
def test_a_trial_that_cost_nobody_anything_is_soon_followed_by_another(
    took: float, alone: bool, pause: float
) -> None:
    b, w = breaker(connects=1)
    fail(b, w, AT, connect=True)
    now = AT
    for _ in range(8):
        now = b.until
        b.try_one(now)
        now += took
        w.add(now, failed=1)
        b.failed(now, "why", connect=False, trial=True, alone=alone)
    assert b.until - now == pytest.approx(pause)


def test_jitter_takes_a_tenth_at_most() -> None:
    b, w = breaker(connects=1, chance=1.0)
    fail(b, w, AT, connect=True)
    assert b.until == pytest.approx(AT + 0.9)


def test_signs_of_life_hurry_it() -> None:
    b, w = breaker(connects=1, base=30.0)
    fail(b, w, AT, connect=True)
    b.hurry(AT + 2)
    assert b.ready(AT + 2)
    b.postpone(AT + 3)
    assert not b.ready(AT + 2)


def test_one_that_is_off_never_opens() -> None:
    b, w = breaker(enabled=False)
    for _ in range(500):
        fail(b, w, AT, connect=True)
    assert b.state is State.CLOSED


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ok", "fail", "refused", "try", "leave", "hurry"]),
        st.floats(min_value=0, max_value=30, allow_nan=False),
    ),
    max_size=200,
)


@given(EVENTS, st.floats(min_value=0, max_value=1))
def test_whatever_happens(events: list[tuple[str, float]], chance: float) -> None:
    """Never two trials; open never longer than its longest; closed is always ready."""
    b, w = breaker(chance=chance)
    now, trial = AT, False
    for what, after in events:
        now += after
        if what == "try" and b.state is not State.CLOSED and b.ready(now):
            assert not trial
            b.try_one(now)
            trial = True
        elif what == "leave" and trial:
            b.abandoned()
            trial = False
        elif what == "hurry":
            b.hurry(now)
        elif what in ("ok", "fail", "refused"):
            if what == "ok":
                answer(b, w, now, trial=trial)
            else:
                fail(b, w, now, connect=what == "refused", trial=trial)
            trial = False
        assert b.state is not State.OPEN or b.until <= now + 60.0
        if b.state is State.CLOSED:
            assert b.ready(now)
        assert (b.state is State.HALF_OPEN) is trial
        assert w.total >= 0
        assert not (trial and b.ready(now))


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=15), st.booleans()), max_size=200))
def test_the_window_is_what_the_last_ten_seconds_held(events: list[tuple[float, bool]]) -> None:
    w, now, seen = Window(), AT, []
    for after, well in events:
        now += after
        seen.append((int(now), well))
        w.add(now, answered=well, failed=not well)
        kept = [good for second, good in seen if second > int(now) - SECONDS]
        assert (w.answered, w.failed) == (sum(kept), len(kept) - sum(kept))
