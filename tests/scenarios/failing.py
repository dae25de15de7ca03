"""What the scenarios of failing origins share: several of them, and a look at the pool that asks them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from edgeproxy.origin.member import Member
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.rawclient import RawAnswer

    WriteRules = Callable[[str], Path]

PASS = """
rules:
  - name: all
    match: {path: "/**"}
    pass: true
"""
NO_STORE = [("Cache-Control", "no-store")]


@contextlib.asynccontextmanager
async def origins(clock: DrivenClock, count: int) -> AsyncIterator[list[LedgerOrigin]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(LedgerOrigin(clock=clock)) for _ in range(count)]


def start(edge: Edge, target: str, method: str = "GET") -> asyncio.Task[RawAnswer]:
    body = b"x" if method == "POST" else None
    return asyncio.get_running_loop().create_task(edge.request(method, target, body=body))


def members(edge: Edge, pool: str = "default") -> list[Member]:
    return list(edge.worker.origin.pools[pool].members)


def only(edge: Edge) -> Member:
    return members(edge)[0]
