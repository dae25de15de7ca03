from __future__ import annotations

import asyncio

import pytest

from tests.support.driven import DrivenClock


async def test_stands_still_until_moved() -> None:
    clock = DrivenClock(start=1000.0)
    assert (clock.now(), clock.monotonic()) == (1000.0, 0.0)
    await clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)


async def test_timers_fire_in_order_at_their_own_time() -> None:
    clock = DrivenClock()
    seen: list[tuple[str, float]] = []
    clock.call_later(2, lambda: seen.append(("late", clock.monotonic())))
    clock.call_later(1, lambda: seen.append(("early", clock.monotonic())))
    clock.call_later(1, lambda: seen.append(("early too", clock.monotonic())))
    await clock.advance(0.999)
    assert seen == []
    await clock.advance(5)
    assert seen == [("early", 1.0), ("early too", 1.0), ("late", 2.0)]


async def test_a_cancelled_timer_does_not_fire() -> None:
    clock = DrivenClock()
    seen: list[int] = []
    timer = clock.call_later(1, seen.append, 1)
    assert clock.pending == (1.0,)
    timer.cancel()
    assert not clock.pending
    await clock.advance(5)
    assert seen == []


async def test_a_timer_set_by_a_timer_fires_in_the_same_advance() -> None:
    clock = DrivenClock()
    seen: list[float] = []

    async def twice() -> None:
        await clock.sleep(1)
        seen.append(clock.monotonic())
        await clock.sleep(1)
        seen.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        group.create_task(twice())
        await clock.advance(3)
        assert seen == [1.0, 2.0]


async def test_wait_for_uses_it() -> None:
    clock = DrivenClock()
    never: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(clock.wait_for(never, 10))
        await clock.advance(9.9)
        assert not task.done()
        await clock.advance(0.2)
        assert task.result() is False


async def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        await DrivenClock().advance(-1)
