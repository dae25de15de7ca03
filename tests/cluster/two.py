"""Two nodes on one Redis, in one process, on one clock."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.support.edge import Edge

T = TypeVar("T")


class Two:
    def __init__(self, origin: LedgerOrigin, clock: DrivenClock, nodes: list[Edge]) -> None:
        self.origin = origin
        self.clock = clock
        self.one, self.other = nodes

    async def through(self, work: Awaitable[T]) -> T:
        """The work's result, while time goes on for who waits."""
        task = asyncio.ensure_future(work)  # noqa: TID251
        async with asyncio.timeout(40):
            while not task.done():
                await self.clock.advance(0.02)
                await asyncio.sleep(0.001)
        return await task


@asynccontextmanager
async def two_nodes(url: str) -> AsyncIterator[Two]:
    """On the Redis with this URL. Both follow the purge log."""
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(LedgerOrigin())
        clock = DrivenClock()
        nodes = [
            await stack.enter_async_context(
                running_edge(origin.url, clock=clock, store=url, store_budget="60s")
            )
            for _ in range(2)
        ]
        for node in nodes:
            assert node.worker.store.bus is not None
            await node.worker.store.bus.followed.wait()
        yield Two(origin, clock, nodes)
