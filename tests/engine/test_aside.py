"""Long work in a thread: what is set for it meanwhile, and that it is set back."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from typing import Any
from weakref import ref

import pytest

from edgeproxy.engine.aside import SLICE, TURN, aside, considerate, let_go


def now() -> tuple[float, int]:
    return round(sys.getswitchinterval(), 6), gc.get_threshold()[2]


class Thing:
    pass


async def test_turns_are_short_and_the_collector_waits_while_something_is_done() -> None:
    before = now()
    go = threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> tuple[float, int]:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(30)
        return now()

    first = asyncio.create_task(aside(work))  # noqa: TID251
    await begun.wait()  # the loop runs while the work waits
    with considerate():
        assert now()[0] == TURN
    assert now()[0] == TURN  # the first is still in
    go.set()
    inside = await first
    assert inside[0] == TURN
    assert inside[1] > before[1]
    assert now() == before


async def test_what_fails_fails_and_leaves_nothing_set() -> None:
    before = now()
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0)
    assert now() == before


async def test_things_are_let_go() -> None:
    things: list[Any] = [Thing() for _ in range(SLICE * 2 + 1)]
    seen = [ref(thing) for thing in things]
    await let_go(things)
    assert not things
    assert not any(each() for each in seen)
