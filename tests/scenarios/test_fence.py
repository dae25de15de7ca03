"""E1, E2, E6, E9, E10: no purge and no newer fetch is ever undone by an older one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

ORDERS = {
    "url": PurgeOrder(PurgeKind.URL, "/a", host="example.test"),
    "url-any-host": PurgeOrder(PurgeKind.URL, "/a"),
    "tag": PurgeOrder(PurgeKind.TAG, "t1"),
    "prefix": PurgeOrder(PurgeKind.PREFIX, "/"),
    "pattern": PurgeOrder(PurgeKind.PATTERN, "/a*"),
    "host": PurgeOrder(PurgeKind.ALL, host="example.test"),
    "all": PurgeOrder(PurgeKind.ALL),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("delivery", ["at once", "streamed"])
async def test_e1_a_purge_overtakes_a_fetch(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path, name: str, delivery: str
) -> None:
    """GET starts; PURGE returns; the origin becomes v2; the gate opens: v1 is in no layer."""
    where = {"gate": "g"} if delivery == "at once" else {"body_gate": "g"}
    origin.reply("/a", headers=[("Surrogate-Key", "t1 t2")], times=1, **where)  # type: ignore[arg-type]
    origin.reply("/a", headers=[("Surrogate-Key", "t1 t2")])
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{tmp_path / 'store'}") as edge:
        first = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.gate("g").reached()
        receipt = await edge.worker.store.purge(ORDERS[name])
        assert receipt.complete
        origin.bump("/a")
        # Who comes after the purge must not share the fetch that began before it.
        late = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        if delivery == "streamed":
            assert (await late).body == origin.stamp("/a", 2)
        origin.gate("g").open()
        assert (await first).body == origin.stamp("/a", 1)
        assert (await late).body == origin.stamp("/a", 2)
        await edge.settle()
        again = await edge.get("/a")
        assert again.body == origin.stamp("/a", 2)
        assert again["X-Cache-Status"] == "HIT"
        assert edge.worker.store.stats()["l1_entries"] == 1


async def test_e1_an_unrelated_purge_keeps_one_fetch_for_all(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        first = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.gate("g").reached()
        await edge.worker.store.purge(PurgeOrder(PurgeKind.TAG, "other"))
        second = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        origin.gate("g").open()
        assert (await first).body == (await second).body
        assert origin.count("/a") == 1


async def test_e2_a_304_does_not_revive_what_was_purged(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=10")], etag=True, times=1)
    origin.reply("/a", headers=[("Cache-Control", "max-age=10")], etag=True, gate="g", times=1)
    origin.reply("/a", headers=[("Cache-Control", "max-age=10")], etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(20)
        asked = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.gate("g").reached()
        assert origin.of("/a")[1].get("if-none-match") == '"v1"'
        await edge.worker.store.purge(ORDERS["url"])
        origin.gate("g").open()
        answer = await asked
        assert (answer.status, answer.body) == (200, origin.stamp("/a", 1))
        # It was asked once more, without conditions.
        assert origin.count("/a") == 3
        assert origin.of("/a")[2].get("if-none-match") is None


async def test_e6_what_was_read_from_l2_before_a_purge_is_not_promoted(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path
) -> None:
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        await edge.get("/a")
        await edge.settle()
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        at_sync, go = asyncio.Event(), asyncio.Event()

        async def before_promote() -> None:
            at_sync.set()
            await go.wait()

        hooks = SimpleNamespace(before_promote=before_promote)
        edge.worker.store.hooks = hooks
        slow = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await asyncio.wait_for(at_sync.wait(), 5)
        await edge.worker.store.purge(ORDERS["url"])
        origin.bump("/a")
        go.set()
        await slow
        edge.worker.store.hooks = None
        assert (await edge.get("/a")).body == origin.stamp("/a", 2)


async def test_e9_the_fetch_that_began_later_stays(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Fetch 1 slow, fetch 2 newer and faster; fetch 1 ends last."""
    origin.reply("/a", gate="slow", times=1)
    origin.reply("/a")
    async with running_edge(origin.url, clock=clock) as edge:
        slow = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.gate("slow").reached()
        await clock.advance(1)
        origin.bump("/a")
        # no-cache insists on an answer of its own.
        fast = await edge.get("/a", ("Cache-Control", "no-cache"))
        assert fast.body == origin.stamp("/a", 2)
        origin.gate("slow").open()
        assert (await slow).body == origin.stamp("/a", 1)
        assert edge.traces[-1].not_stored == "newer-fetch-stored"
        hit = await edge.get("/a")
        assert (hit["X-Cache-Status"], hit.body) == ("HIT", origin.stamp("/a", 2))


LANGUAGES = ("en", "de", "fr", "it", "es")


@pytest.mark.parametrize("kind", ["url", "soft", "tag"])
async def test_e10_a_purge_takes_all_variants(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path, kind: str
) -> None:
    origin.reply(
        "/a",
        headers=[
            ("Vary", "X-Lang"),
            ("Cache-Control", "max-age=60, stale-while-revalidate=30"),
            ("Surrogate-Key", "t1"),
        ],
        body=lambda r: f"{r.get('x-lang')} {r.version}".encode(),
    )
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        for language in LANGUAGES:
            await edge.get("/a", ("X-Lang", language))
        await edge.settle()
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        for language in LANGUAGES[:2]:  # in L1 again; the others only in L2
            hit = await edge.get("/a", ("X-Lang", language))
            assert hit["X-Cache-Status"] == "HIT"
        order = {
            "url": ORDERS["url"],
            "soft": PurgeOrder(PurgeKind.URL, "/a", soft=True),
            "tag": ORDERS["tag"],
        }[kind]
        await edge.worker.store.purge(order)
        origin.bump("/a")
        for language in LANGUAGES:
            answer = await edge.get("/a", ("X-Lang", language))
            if kind == "soft":
                assert answer["X-Cache-Status"] == "UPDATING"
                assert answer.body == f"{language} 1".encode()
            else:
                assert answer["X-Cache-Status"] in ("MISS", "EXPIRED")
                assert answer.body == f"{language} 2".encode()
            await edge.settle()
        for language in LANGUAGES:
            assert (await edge.get("/a", ("X-Lang", language))).body == f"{language} 2".encode()


async def test_e10_a_soft_purge_never_lengthens(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Soft-purged at 5 s with a window of 10 s: stale may be served until 15 s, not longer; and one that
    may never be stale is fetched at once."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=60, stale-while-revalidate=10")])
    origin.reply("/b", headers=[("Cache-Control", "max-age=60, stale-while-revalidate=10, must-revalidate")])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await edge.get("/b")
        await clock.advance(5)
        await edge.worker.store.purge(PurgeOrder(PurgeKind.ALL, soft=True))
        assert (await edge.get("/b"))["X-Cache-Status"] == "EXPIRED"
        await clock.advance(11)
        assert (await edge.get("/a"))["X-Cache-Status"] == "EXPIRED"
