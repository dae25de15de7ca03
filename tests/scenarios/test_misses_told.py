"""What Cache-Status says of a miss (RFC 9211 §2.2): the same whichever way the request was answered."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.edge import running_edge
from tests.support.fixtures import a_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.servers import Server

    Rules = Callable[[str], Path]
    Ask = Callable[[str], Awaitable[str]]

redis = pytest.fixture(scope="module")(a_redis)

TEXT = 'rules: [{name: all, match: {path: "/**"}, ttl: 1h, tags_from: [X-Tags]}]'
BY_URL = PurgeOrder(PurgeKind.URL, "/v")


@pytest.fixture(params=["memory", "lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: Server = request.getfixturevalue("redis")
        with Redis(port=server.port) as client:
            client.flushall()
        return server.url
    return "memory:" if request.param == "memory" else f"lmdb:{tmp_path / 'store'}"


@asynccontextmanager
async def asking(
    origin: LedgerOrigin, clock: DrivenClock, directory: Path, store: str, lane: str
) -> AsyncIterator[tuple[Edge, Ask]]:
    async with (
        running_edge(
            origin.url, rules=directory, clock=clock, store=store, lane=lane, store_budget="60s"
        ) as edge,
        edge.client() as client,
    ):
        if edge.worker.store.bus is not None:
            await edge.worker.store.bus.followed.wait()

        async def ask(theme: str) -> str:
            """Why it went to the origin, or "hit"."""
            tags = [("X-Tags", theme)]
            origin.reply("/v", headers=[("Vary", "X-Theme"), *tags])
            answer = await client.request("GET", "/v", headers=[("X-Theme", theme)])
            await edge.settle()
            return answer["Cache-Status"].split("; ")[1].removeprefix("fwd=")

        yield edge, ask


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_of_variants(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, store: str, lane: str
) -> None:
    async with asking(origin, clock, rules(TEXT), store, lane) as (edge, ask):

        async def purge(order: PurgeOrder) -> None:
            await edge.worker.store.purge(order, wait=False)

        assert [await ask(theme) for theme in "aab"] == ["uri-miss", "hit", "vary-miss"]
        # The lane knows of both.
        assert [await ask(theme) for theme in "abab"] == ["hit"] * 4
        await purge(BY_URL)
        assert await ask("a") == "uri-miss", "what is purged is not there, this variant nor another"
        assert [await ask(theme) for theme in "aba"] == ["hit", "vary-miss", "hit"]
        await purge(BY_URL)
        assert await ask("c") == "uri-miss", "nor for who never had one"
        assert [await ask(theme) for theme in "caca"] == ["hit", "vary-miss", "hit", "hit"]
        await purge(PurgeOrder(PurgeKind.TAG, "a"))
        assert await ask("a") == "vary-miss", "the other one is there"
        assert [await ask(theme) for theme in "ac"] == ["hit", "hit"]
        if edge.worker.store.shared is not None:
            edge.worker.store.memory.clear()
            assert [await ask(theme) for theme in "ax"] == ["hit", "vary-miss"]
            edge.worker.store.memory.clear()
            await purge(PurgeOrder(PurgeKind.ALL))
            assert [await ask(theme) for theme in "yx"] == ["uri-miss", "vary-miss"]
