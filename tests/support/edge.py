"""A whole worker in this process, on real sockets, with a clock that the test drives.

Rules of this file: everything is the product's own; nothing is replaced but the clock. What a worker leaves
behind (a task, a descriptor) fails the test that used it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeproxy import settings as edge_settings
from edgeproxy.app import Worker
from tests.support.driven import DrivenClock
from tests.support.rawclient import RawAnswer, RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from edgeproxy.observe.trace import Trace

TOKEN = "test-token"


@dataclass
class Edge:
    """A running worker. ``traces`` are the finished requests' traces, in order of their end."""

    worker: Worker
    clock: DrivenClock
    traces: list[Trace] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.worker.port}"

    def client(self) -> RawClient:
        """A connection of its own; use it with ``async with``."""
        return RawClient("127.0.0.1", self.worker.port)

    async def request(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None
    ) -> RawAnswer:
        """One request on one connection."""
        async with self.client() as client:
            return await client.request(method, target, headers=headers, body=body)

    async def get(self, target: str, *headers: tuple[str, str]) -> RawAnswer:
        return await self.request("GET", target, headers)

    async def waiting(self, followers: int) -> None:
        """Until so many requests wait for the fetches of others."""
        async with asyncio.timeout(30):
            while sum(f.followers for f in self.worker.engine.flights.all()) < followers:  # noqa: ASYNC110
                await asyncio.sleep(0)  # the product rings no bell for this

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until what the loop has under way has made it so."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Until what was begun for requests has ended and L2 has what was written."""
        await self.worker.background.settle("fill ", "refresh ", "ahead ", "better coding")
        if self.worker.store.shared is not None:
            await self.worker.store.shared.flushed()


@contextlib.asynccontextmanager
async def running_edge(
    origin: str,
    *,
    rules: Path | None = None,
    clock: DrivenClock | None = None,
    store: str = "memory:",
    chance: Callable[[], float] = lambda: 0.0,
    **flags: Any,
) -> AsyncIterator[Edge]:
    """``origin`` is a URL, or several with commas between; ``chance`` is what pauses and choices hang on: 0
    does not wait before a repeat; ``rules`` None is plain HTTP caching; ``flags`` as on the command line."""
    given = {
        "origin": origin,
        "rules": "none" if rules is None else str(rules),
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "store": store,
        "access_log": "off",
        "warm_start": "off",
        "rule_history": "0",
        **{name: str(value) for name, value in flags.items()},
    }
    chosen = edge_settings.load(given, {"EDGEPROXY_ADMIN_TOKEN": TOKEN, "HOME": "/nonexistent"})
    driven = clock or DrivenClock()
    worker = Worker(chosen, clock=driven, chance=chance)
    try:
        await worker.start()
        edge = Edge(worker, driven)
        worker.handler.observers.append(edge.traces.append)
        yield edge
    finally:
        await worker.close()
