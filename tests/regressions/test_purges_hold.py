"""After a purge has returned, nothing that began before it brings the purged object back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.driven import settle
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

PURGE = PurgeOrder(PurgeKind.URL, "/a", host="example.test")
STALE_ON_ERROR = [("Cache-Control", "max-age=10, stale-if-error=600")]


@pytest.mark.parametrize("late", [False, True], ids=["who asked before", "who asks afterwards"])
async def test_an_error_does_not_bring_back_what_was_purged_while_it_was_asked_for(
    origin: LedgerOrigin, clock: DrivenClock, *, late: bool
) -> None:
    origin.reply("/a", headers=STALE_ON_ERROR, times=1)
    origin.reply("/a", status=503, gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(20)
        asked = [asyncio.create_task(edge.get("/a"))]  # noqa: TID251
        await origin.gate("g").reached()
        assert (await edge.worker.store.purge(PURGE)).complete
        if late:
            asked.append(asyncio.create_task(edge.get("/a")))  # noqa: TID251
            await edge.waiting(1)
        origin.gate("g").open()
        for answer in await asyncio.gather(*asked):
            assert (answer.status, answer.body) != (200, origin.stamp("/a", 1))
            assert answer.status == 503


async def test_what_is_purged_while_the_shared_store_is_asked_is_not_served_stale(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path
) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=10, stale-while-revalidate=600")])
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{tmp_path / 'store'}") as edge:
        await edge.get("/a")
        await edge.settle()
        await clock.advance(20)
        at_sync, go = asyncio.Event(), asyncio.Event()

        async def before_promote() -> None:
            at_sync.set()
            await go.wait()

        edge.worker.store.hooks = SimpleNamespace(before_promote=before_promote)
        asked = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await asyncio.wait_for(at_sync.wait(), 5)
        assert (await edge.worker.store.purge(PURGE)).complete
        origin.bump("/a")
        go.set()
        assert (await asked).body == origin.stamp("/a", 2)
        edge.worker.store.hooks = None


async def test_a_coding_made_late_does_not_bring_back_a_forgotten_entry(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path
) -> None:
    """Forgotten because the origin said so (an answer that may not be stored took its place); then its
    better coding is ready, and was written to the shared store as if nothing had happened."""
    origin.reply(
        "/a",
        headers=[("Cache-Control", "max-age=600"), ("Content-Type", "text/plain")],
        body=b"x" * 5000,
        times=1,
    )
    origin.reply("/a", headers=[("Cache-Control", "private")])
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        await edge.get("/a")
        await edge.settle()
        (entry,) = edge.worker.store.inspect("http://example.test/a")
        await edge.get("/a", ("Cache-Control", "no-cache"))
        await edge.settle()
        assert not await edge.worker.store.inspect_shared("http://example.test/a")
        entry.codings["br"] = b"better"
        edge.worker.store.update(entry)
        await edge.settle()
        assert not await edge.worker.store.inspect_shared("http://example.test/a")


@pytest.mark.parametrize("status", [200, 204, 303])
async def test_a_write_whose_client_leaves_invalidates_all_the_same(
    origin: LedgerOrigin, clock: DrivenClock, status: int
) -> None:
    """The origin has made the change: that its author has gone does not undo it (RFC 9111 §4.4)."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=600")], times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        origin.reply("/a", status=status, gate="write", times=1)
        origin.reply("/a", headers=[("Cache-Control", "max-age=600")])
        async with edge.client() as client:
            await client.start("POST", "/a", body=b"new")
            await origin.gate("write").reached()
            client.reset()
        await settle(100)  # the edge has seen it
        origin.bump("/a")
        origin.gate("write").open()
        await edge.until(lambda: edge.worker.origin.in_flight == 0)
        await edge.until(lambda: edge.worker.handler.in_flight == 0)
        assert (await edge.get("/a")).body == origin.stamp("/a", 2)
