"""The numbers as they change: GET /api/live once, GET /api/events as server-sent events.

Rules of this file:

- While nobody listens there is no timer and nothing is computed. However many listen, each window is worked
  out once a second, and what it costs is bounded by MOST listeners and by three windows.
- The first event has the whole history; each further one its last TAIL slots, which the reader puts in the
  place of those that it has, and every TABLES-th one the tables. A reader that is slow gets the next one
  instead of a queue; one that takes nothing for PATIENCE seconds is let go.
- It ends with the application: an open stream never holds up the end of a process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edgeproxy.admin.problem import Problem, to_json
from edgeproxy.observe import pulse
from edgeproxy.observe.percentiles import STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from edgeproxy.admin.control import Control
    from edgeproxy.clock import Clock, Timer

EVERY = 1.0
TABLES = 2
TAIL = 4
MOST = 32
PATIENCE = 10.0
WINDOW = "5m"

_LOG = logging.getLogger("edgeproxy.admin")


class Listener:
    """One reader. ``told`` is the latest that it has not been sent."""

    def __init__(self, window: str) -> None:
        self.window = window
        self.told: bytes | None = None
        self.news = asyncio.Event()

    def tell(self, event: bytes) -> None:
        self.told = event
        self.news.set()


class Live:
    """Of one application. ``spawn`` runs work in the background."""

    def __init__(
        self,
        control: Control,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._control = control
        self._clock = clock
        self._spawn = spawn
        self.listeners: set[Listener] = set()
        self._timer: Timer | None = None
        self._beats = 0
        self._closed = False

    async def once(self, request: web.Request) -> web.StreamResponse:
        """All there is to see, as JSON."""
        seen = await self._view(0, _window(request), tables=True)
        return web.Response(body=to_json(seen), content_type="application/json")

    async def events(self, request: web.Request) -> web.StreamResponse:
        window = _window(request)
        if self._closed or len(self.listeners) >= MOST:
            raise Problem(503, f"{MOST} readers at most can follow the numbers", {"Retry-After": "10"})
        listener = Listener(window)
        self.listeners.add(listener)  # before the first await, so that MOST holds
        try:
            first = await self._view(0, window, tables=True)
            answer = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
            answer.content_type = "text/event-stream"
            await answer.prepare(request)
            if request.method == "HEAD":
                return answer
            await self._write(answer, _event(first))
            self._schedule()
            while not self._closed:
                await listener.news.wait()
                listener.news.clear()
                told, listener.told = listener.told, None
                if told is not None:
                    await self._write(answer, told)
        except (ConnectionError, TimeoutError):
            # It has gone, or takes nothing: the connection is no use any more.
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.listeners.discard(listener)
        return answer

    @staticmethod
    async def _write(answer: web.StreamResponse, event: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await answer.write(event)

    def close(self) -> None:
        """Let all readers go; nothing is computed from here on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for listener in self.listeners:
            listener.news.set()

    # -- the beat ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is None and self.listeners and not self._closed:
            self._timer = self._clock.call_later(EVERY, self._begin)

    def _begin(self) -> None:
        # The timer stays until the beat is over: there is never a second one under way.
        self._spawn(self._beat(), "live numbers")

    async def _beat(self) -> None:
        try:
            self._beats += 1
            windows = {listener.window for listener in self.listeners}
            after = int(self._clock.now() // STEP) - TAIL
            for window in windows:
                seen = await self._view(after, window, tables=self._beats % TABLES == 0)
                event = _event(seen)
                for listener in self.listeners:
                    if listener.window == window:
                        listener.tell(event)
        finally:
            self._timer = None
            self._schedule()

    async def _view(self, after: int, window: str, *, tables: bool) -> dict[str, Any]:
        told = dict(await self._control.pulse(after, window, tables=tables))
        seen = await pulse.view(told, window, self._clock.now())
        return {"state": self._control.state, **seen}


def _window(request: web.Request) -> str:
    window = request.query.get("window", WINDOW)
    if window not in pulse.SPANS:
        raise Problem(400, f"window: expected one of {', '.join(pulse.SPANS)}")
    return window


def _event(seen: dict[str, Any]) -> bytes:
    return b"data: " + to_json(seen).rstrip(b"\n") + b"\n\n"
