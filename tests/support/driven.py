"""A clock that stands still until a test moves it.

Rules of this file:

- Nothing here reads real time. ``now()`` and ``monotonic()`` move together, by ``advance()`` only.
- ``advance()`` fires the timers that fall due in the order of their times (ties: in the order of their
  making), with the clock standing at each timer's own time, and lets the loop settle after each, so that
  a timer set by a timer's consequence fires in the same ``advance()`` when it falls due in it.
- ``settle()`` cycles the loop a bounded number of times. It polls the sockets each time, so bytes that the
  kernel has already moved over loopback are seen; for anything slower a test awaits a barrier.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, TypeVarTuple, Unpack

from edgeproxy.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Timer

Ts = TypeVarTuple("Ts")

CYCLES = 30
"""Turns of the loop that count as settled: more than the longest chain of callbacks in a request."""


async def settle(cycles: int = CYCLES) -> None:
    """Let everything that can run now run."""
    for _ in range(cycles):
        await asyncio.sleep(0)


class _DrivenTimer:
    __slots__ = ("call", "cancelled", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class DrivenClock(Clock):
    """``DrivenClock()`` starts at 2023-11-14T22:13:20Z, monotonic 0; ``await clock.advance(seconds)``."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        super().__init__()
        self._start = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _DrivenTimer]] = []

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def call_later(self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> Timer:
        timer = _DrivenTimer(self._elapsed + max(0.0, delay), lambda: callback(*args))
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    @property
    def pending(self) -> tuple[float, ...]:
        """Seconds from now of each timer that is set and not cancelled, soonest first."""
        return tuple(when - self._elapsed for when, _, t in sorted(self._timers) if not t.cancelled)

    async def advance(self, seconds: float) -> None:
        """Move time forward, firing what falls due on the way."""
        if seconds < 0:
            raise ValueError("time does not go back")
        await settle()
        until = self._elapsed + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self._elapsed = max(self._elapsed, when)
            timer.call()
            await settle()
        self._elapsed = until
        await settle()

    def jump(self, seconds: float) -> None:
        """Move time without firing anything and without the loop running: a suspended machine."""
        self._elapsed += seconds
