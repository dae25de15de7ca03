"""What is let through while a worker has too much to do."""

from __future__ import annotations

from edgeproxy.engine.overload import BUSY, LEAST, TICK, WINDOW, Overload
from tests.support.driven import DrivenClock


def made(in_flight: int, lag: float = 0.1, most: int = 1000) -> Overload:
    overload = Overload(DrivenClock(), most=most, lag=lag)
    overload.in_flight = lambda: in_flight
    return overload


def test_above_the_most_nothing_is_let_through() -> None:
    assert made(10, lag=0, most=10).admits()
    overload = made(11, lag=0, most=10)
    assert [overload.admits() for _ in range(3)] == [False] * 3
    assert (overload.shed, overload.shedding) == (3, True)


def test_the_share_falls_while_the_loop_is_late_and_comes_back() -> None:
    overload = made(BUSY)
    for _ in range(WINDOW):
        assert overload.share == 1.0, "not for one long moment"
        overload.look(0.2)
    assert overload.share < 1.0
    for _ in range(50):
        overload.look(0.2)
    assert overload.share == LEAST
    assert sum(overload.admits() for _ in range(1000)) == 1000 * LEAST
    assert overload.drops()
    for _ in range(WINDOW + int(1 / 0.05)):
        overload.look(0.0)
    assert overload.share == 1.0
    assert overload.admits()
    assert not overload.drops()


def test_a_worker_with_little_under_way_sheds_nothing_however_late_it_is() -> None:
    overload = made(BUSY - 1)
    for _ in range(100):
        overload.look(5.0)
    assert overload.share == 1.0


async def test_nothing_is_measured_while_there_is_little_to_do() -> None:
    clock, under_way = DrivenClock(), 3
    overload = Overload(clock, most=1000, lag=0.1)
    overload.in_flight = lambda: under_way
    overload.admits()
    assert clock.pending == ()
    under_way = BUSY + 1
    overload.admits()
    assert len(clock.pending) == 1
    await clock.advance(10 * TICK)
    assert len(clock.pending) == 1
    assert overload.share == 1.0, "the timers came when they were due"
    under_way = 0
    await clock.advance(TICK)
    assert clock.pending == ()
