"""The only reader of time.

Rules of this file:

- Everything else is handed a Clock (or a plain ``now``), so that tests can drive it.
- ``now()`` is wall time that does not jump: the wall clock is read once, when the clock is made, and the
  machine's boot-time clock is added to it. Ages, lifetimes and stored stamps use it, so an operator who
  sets the clock back an hour does not make entries immortal, and a suspended machine wakes to entries
  that have aged (CLOCK_BOOTTIME goes on while it sleeps; CLOCK_MONOTONIC does not). The workers of a node
  share their parent's ``base``: one that is started after such a step agrees with the others on every age.
- ``call_later()`` is the only timer, so that a driven clock drives every timeout.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Ts = TypeVarTuple("Ts")

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock:
    """Real time. ``now()`` in seconds since the epoch, ``monotonic()`` in seconds since anything."""

    def __init__(self, base: float | None = None) -> None:
        self.base = time.time() - time.clock_gettime(_STEADY) if base is None else base  # noqa: TID251

    def now(self) -> float:
        """Seconds since 1970, steady: never steps back, goes on during suspend."""
        return self.base + time.clock_gettime(_STEADY)

    monotonic: Callable[[], float] = staticmethod(time.perf_counter)
    """Seconds, for measuring how long something took."""

    def call_later(self, delay: float, callback: Callable[[*Ts], object], *args: *Ts) -> Timer:
        """Call back after ``delay`` seconds, on the running loop."""
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    async def wait_for(self, future: asyncio.Future[object], delay: float) -> bool:
        """Wait until ``future`` is done (True) or ``delay`` seconds are over (False).

        The future is neither cancelled nor are its result and exception consumed.
        """
        if future.done():
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def finish(result: bool) -> None:  # noqa: FBT001
            if not waiter.done():
                waiter.set_result(result)

        def on_done(_: asyncio.Future[object]) -> None:
            finish(True)  # noqa: FBT003

        timer = self.call_later(delay, finish, False)  # noqa: FBT003
        future.add_done_callback(on_done)
        try:
            return await waiter
        finally:
            timer.cancel()
            future.remove_done_callback(on_done)

    async def sleep(self, delay: float) -> None:
        await self.wait_for(asyncio.get_running_loop().create_future(), delay)
