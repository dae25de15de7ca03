"""The budget alone: what extra work may come to, and who yields first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.origin.base import Purpose
from edgeproxy.origin.budget import Budget
from edgeproxy.origin.window import Window
from edgeproxy.rules.pools import Retries

AT = 1_700_000_000.0
EXTRA = [Purpose.RETRY, Purpose.REFRESH, Purpose.WARM, Purpose.PREDICT]


def budget(**policy: Any) -> tuple[Budget, Window]:
    window = Window()
    return Budget(replace(Retries(), **policy), window), window


def most(requests: int, purpose: Purpose, *, slow: bool = False) -> int:
    """How many of a purpose may be under way at once after so many requests."""
    b, w = budget()
    w.add(AT, answered=requests)
    while b.take(purpose, AT, slow=slow):
        pass
    return b.under_way


@pytest.mark.parametrize(
    ("requests", "expected"),
    [(0, [3, 3, 2, 1]), (100, [23, 21, 12, 6]), (1000, [203, 180, 102, 51])],
)
def test_a_fifth_and_three(requests: int, expected: list[int]) -> None:
    """Refreshes a little more: each is called for by a client's request."""
    assert [most(requests, purpose) for purpose in EXTRA] == expected


def test_when_the_origin_is_slow_the_background_stops_first() -> None:
    assert [most(100, purpose, slow=True) for purpose in EXTRA] == [23, 7, 0, 0]


def test_who_is_lower_waits_for_those_above() -> None:
    b, w = budget()
    w.add(AT, answered=100)
    while b.take(Purpose.REFRESH, AT):
        pass
    assert not b.take(Purpose.WARM, AT)
    assert not b.take(Purpose.PREDICT, AT)
    assert b.take(Purpose.RETRY, AT)


def test_what_was_answered_costs_nothing_and_what_failed_is_spent_for_ten_seconds() -> None:
    b, _ = budget()
    for _ in range(50):
        assert b.take(Purpose.RETRY, AT)
        b.ended(AT, well=True)
    for _ in range(3):
        assert b.take(Purpose.RETRY, AT)
        b.ended(AT, well=False)
    assert not b.take(Purpose.RETRY, AT)
    assert not b.spend(AT)
    assert b.refused == 2
    assert b.take(Purpose.RETRY, AT + 10)


def test_a_budget_of_nothing() -> None:
    b, _ = budget(budget=0.0, least=0)
    assert [b.take(purpose, AT) for purpose in EXTRA] == [False] * 4


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "retry", "refresh", "resend", "end"]), st.floats(0, 0.05)), max_size=400
)


@given(STEPS)
def test_under_total_failure_the_origin_sees_a_fifth_more_and_three(steps: list[tuple[str, float]]) -> None:
    """Whatever is tried within ten seconds: extra work is at most 0.2 of the clients' requests and 3."""
    b, w = budget()
    now, asked, extra, under_way = AT, 0, 0, 0
    for what, after in steps:
        now = min(now + after, AT + 9.9)
        if what == "ask":
            asked += 1
            w.add(now, failed=1)
        elif what == "resend":
            extra += b.spend(now)
        elif what == "end" and under_way:
            under_way -= 1
            w.add(now, failed=1)
            b.ended(now, well=False)
        elif what in ("retry", "refresh"):
            asked += what == "refresh"  # a client's request for something stale
            if b.take(Purpose(what), now):
                extra += 1
                under_way += 1
        assert extra <= 0.2 * asked + 3
