"""A5: an origin that cannot be had, and a cache that is warm."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from edgeproxy.origin.breaker import State
from tests.scenarios.failing import NO_STORE, only
from tests.support.driven import settle
from tests.support.edge import running_edge
from tests.support.ledger import RST, LedgerOrigin

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock


async def test_a5_a_refresh_that_fails(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1, stale-while-revalidate=15")], times=1)
    origin.reply("/a", status=503, headers=NO_STORE)
    async with running_edge(origin.url, clock=clock) as edge:
        good = (await edge.get("/a")).body
        await clock.advance(1.5)
        at: list[float] = []
        most = 0
        for _ in range(100):
            before = origin.count("/a")
            async with edge.client() as client:
                answer = await client.request("GET", "/a", headers=[("X-Body", "1")])
            assert (answer.status, answer.body) == (200, good)
            await edge.settle()
            if origin.count("/a") > before:
                at.append(clock.monotonic())
            most = max(most, origin.count("/a") - before)
            await clock.advance(0.1)
        assert most == 1, "one refresh in flight at a time"
        pauses = [b - a for a, b in pairwise(at)]
        assert len(at) <= 5
        # Doubled each time, up to half of it less by chance.
        assert all(pause >= 0.5 * 2**n for n, pause in enumerate(pauses))
        assert all(not r.body for r in origin.of("/a"))
        await clock.advance(5)  # 16.5 s: past the window, that no failure has moved
        assert (await edge.get("/a")).status == 503
        origin.bump("/a")
        origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
        answer = await edge.get("/a")
        assert (answer.status, answer.body) == (200, origin.stamp("/a", 2))


async def test_all_down_for_a_minute_on_a_warm_cache(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """No request for a key within its stale window fails, the origin is left alone, and is found at once."""
    fields = [("Cache-Control", "max-age=1, stale-while-revalidate=30, stale-if-error=600")]
    keys = [f"/k{n}" for n in range(20)]
    for key in keys:
        origin.reply(key, headers=fields)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for key in keys:
            await client.get(key)
        await clock.advance(2)
        await origin.stop()
        failed = asked = 0
        for step in range(240):
            for key in keys[step % 4 :: 4]:
                asked += 1
                failed += (await client.get(key)).status != 200
            await clock.advance(0.25)
        assert (asked, failed) == (1200, 0)
        assert only(edge).breaker.state is State.OPEN
        assert only(edge).failures <= 20, "requests that it had to bear; all else was answered here"
        before = len(origin.requests)
        await origin.start()
        back = clock.monotonic()
        while len(origin.requests) == before:
            for key in keys:
                assert (await client.get(key)).status == 200
            await clock.advance(0.1)
        assert clock.monotonic() - back <= 2
        await clock.advance(1)
        for key in keys:
            await client.get(key)
        await edge.settle()
        await settle()
        assert len(origin.requests) - before >= 10


async def test_refreshes_of_an_origin_that_resets_everything_keep_to_the_budget(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    fields = [("Cache-Control", "max-age=1, stale-while-revalidate=600")]
    keys = [f"/k{n}" for n in range(20)]
    for key in keys:
        origin.reply(key, headers=fields, times=1)
        origin.script(key, [RST])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for key in keys:
            await client.get(key)
        await clock.advance(2)
        before = len(origin.requests)
        for _ in range(60):
            for key in keys:
                assert (await client.get(key)).status == 200
            await clock.advance(0.5)
        assert 3 <= len(origin.requests) - before <= 3 + 0.2 * 1200
        assert len(origin.requests) - before < 150, "each key waits longer after each failure, too"
