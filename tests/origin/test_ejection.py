"""Ejection alone: what deserves it, how long it lasts, how many a pool may spare."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.origin.ejection import DECAY, Ejector, may_eject, too_slow
from edgeproxy.origin.health import Vitals
from edgeproxy.rules.pools import Ejection, Health

AT = 1_700_000_000.0


def test_failures_in_a_row() -> None:
    ejector = Ejector(Ejection())
    assert [ejector.failed() for _ in range(4)] == [False] * 4
    ejector.answered()
    assert [ejector.failed() for _ in range(5)] == [False] * 4 + [True]
    off = Ejector(Ejection(enabled=False))
    assert not any(off.failed() for _ in range(50))


def test_answers_that_break_off_after_a_good_head() -> None:
    ejector = Ejector(Ejection())

    def head_then(broken: bool) -> bool:
        ejector.answered()
        return broken and ejector.broke_off()

    assert [head_then(broken=True) for _ in range(5)] == [False] * 4 + [True]
    ejector.eject(AT, "why")
    assert ejector.broke_off(), "on probation, once is enough"
    ejector = Ejector(Ejection())
    assert not any(head_then(broken=n % 4 == 0) for n in range(100)), "one in four is no reason to go"
    ejector = Ejector(Ejection())
    for _ in range(8):  # all at once: the heads first
        ejector.answered()
    assert [ejector.broke_off() for _ in range(5)][-1]


def test_each_time_longer_and_time_in_service_takes_it_off_again() -> None:
    ejector = Ejector(Ejection(base=1.0, longest=60.0))
    now, lasted = AT, []
    for _ in range(3):
        ejector.eject(now, "why")
        lasted.append(ejector.until - now)
        assert ejector.out(now)
        now = ejector.until
        assert not ejector.out(now)
    assert lasted == [1, 2, 3]
    ejector.eject(now + 2 * DECAY, "why")
    assert ejector.until - now - 2 * DECAY == 2
    assert ejector.ejections == 4
    for _ in range(100):
        ejector.eject(ejector.until, "why")
    assert ejector.until - now <= 100 * 60


@pytest.mark.parametrize(
    ("members", "out", "others", "may"),
    [
        (1, 0, 0, False),
        (2, 0, 1, True),
        (2, 1, 0, False),
        (3, 0, 2, True),
        (3, 1, 1, False),
        (4, 1, 2, True),
        (4, 2, 1, False),
        (4, 0, 0, False),
    ],
)
def test_half_of_a_pool_at_most_and_never_the_last_usable_one(
    members: int, out: int, others: int, may: bool
) -> None:
    assert may_eject(Ejection(), members, out, others) is may


def test_none_where_none_may_go() -> None:
    assert not may_eject(Ejection(percent=0.0), 10, 0, 9)
    assert not may_eject(Ejection(enabled=False), 10, 0, 9)


@given(st.integers(1, 20), st.floats(0, 100), st.lists(st.integers(0, 19), max_size=60))
def test_whatever_fails_some_are_left(members: int, percent: float, failing: list[int]) -> None:
    policy = replace(Ejection(), percent=percent)
    out: set[int] = set()
    for each in failing:
        if (
            each < members
            and each not in out
            and may_eject(policy, members, len(out), members - len(out) - 1)
        ):
            out.add(each)
    assert len(out) < members
    assert len(out) <= max(1, members * percent / 100)


@pytest.mark.parametrize(
    ("mine", "answers", "others", "slow"),
    [
        (0.1, 20, [0.01, 0.01], True),
        (0.04, 20, [0.01, 0.01], False),
        (0.1, 5, [0.01, 0.01], False),
        (0.1, 20, [], False),
        (0.009, 20, [0.001, 0.001], False),
        (0.1, 20, [0.01, 0.2], False),
    ],
)
def test_slow_beside_the_others(mine: float, answers: int, others: list[float], slow: bool) -> None:
    assert too_slow(Ejection(), mine, answers, others) is slow


def test_checks_in_a_row_make_a_state() -> None:
    vitals = Vitals(Health("/", up=2, down=3))
    changes = [vitals.checked(good=g == "+") for g in "--+---+-++"]
    assert [i for i, changed in enumerate(changes) if changed] == [5, 9]
    assert vitals.healthy
