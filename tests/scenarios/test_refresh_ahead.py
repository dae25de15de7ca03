"""Refresh-ahead: what is asked for often does not expire; nothing else is asked for before its time."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.origin.base import Purpose
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.warm.tally import Ahead
from tests.support.edge import running_edge
from tests.support.ledger import RST
from tests.support.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

RULES = """
rules:
  - name: hot
    match: {path: "/**"}
    ttl: 100s
    refresh_ahead: {within: 20%, rate: 1/s, waiting: 0}
    stale_if_error: 10s
"""


NONE: Mapping[str, str] = MappingProxyType({})


def ahead(edge: Edge) -> dict[str, int]:
    return {came.value: n for came, n in edge.worker.metrics.warm.ahead.items() if n}


async def play(
    edge: Edge, target: str, seconds: int, *, each: int = 3, fields: Mapping[str, str] = NONE
) -> set[str]:
    """``each`` requests a second on one connection; the words of X-Cache-Status that came."""
    words = set()
    async with edge.client() as client:
        for _ in range(seconds):
            for _ in range(each):
                answer = await client.request("GET", target, headers=list(fields.items()))
                words.add(answer["X-Cache-Status"])
            await edge.clock.advance(1)
            await edge.settle()
    return words


async def test_what_is_asked_for_often_does_not_expire(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """By the lane and by the ordinary way; each refresh is one fetch, in the last fifth of the life."""
    origin.reply("/a", etag=True)
    async with running_edge(origin.url, rules=rules(RULES), clock=clock) as edge:
        await edge.get("/a")
        began = clock.now()
        assert await play(edge, "/a", 79) == {"HIT"}
        assert origin.count("/a") == 1
        assert await play(edge, "/a", 171) == {"HIT"}
        assert origin.of("/a")[1].get("if-none-match") == '"v1"'
        assert 3 <= origin.count("/a") <= 4
        assert ahead(edge) == {"refreshed": origin.count("/a") - 1}
        assert edge.worker.handler.lane is not None
        edge.worker.handler.lane.fold()
        assert edge.worker.handler.lane.hits > 500
        assert clock.now() - began == 250


async def test_without_the_lane(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    async with running_edge(origin.url, rules=rules(RULES), clock=clock, lane="off") as edge:
        await edge.get("/a")
        assert await play(edge, "/a", 150) == {"HIT"}
        assert origin.count("/a") == 2


async def test_what_is_asked_for_seldom_expires(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    async with running_edge(origin.url, rules=rules(RULES), clock=clock) as edge:
        await edge.get("/seldom")
        for _ in range(20):
            await clock.advance(5)
            await edge.get("/seldom")
        assert origin.count("/seldom") == 2  # at its end, by the client
        assert ahead(edge) == {}


async def test_what_is_fetched_quickly_may_expire(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """The fetch cost counts: with a driven clock a plain fetch takes no time, a gated one 2 s."""
    text = RULES.replace("waiting: 0", "waiting: 5")
    origin.reply("/slow", gate="g", times=1)
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        slow = asyncio.create_task(edge.get("/slow"))  # noqa: TID251
        await origin.gate("g").reached()
        await clock.advance(2)
        origin.gate("g").open()
        await slow
        await edge.get("/quick")
        for target in ("/slow", "/quick"):
            async with edge.client() as client:
                for _ in range(300):
                    await client.request("GET", target)
        for _ in range(96):
            await clock.advance(1)
            await edge.get("/slow")
            await edge.get("/quick")
            await edge.settle()
        assert (origin.count("/slow"), origin.count("/quick")) == (2, 1)


async def test_off_by_default(origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]) -> None:
    text = "rules: [{name: a, match: {path: /**}, ttl: 100s}]"
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        await edge.get("/a")
        await play(edge, "/a", 99)
        assert origin.count("/a") == 1
        rules(RULES)
        assert not (await edge.worker.operator.reload_rules()).errors
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"


async def test_not_all_in_the_same_second(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    text = RULES.replace("rate: 1/s", "rate: 0")
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        targets = [f"/{n}" for n in range(30)]
        for target in targets:
            await edge.get(target)
        assert len(origin.requests) == 30
        await clock.advance(79)
        most = before = 0
        for _ in range(20):
            await clock.advance(1)
            async with edge.client() as client:
                for target in targets:
                    await client.request("GET", target)
            await edge.settle()
            most = max(most, len(origin.requests) - 30 - before)
            before = len(origin.requests) - 30
        assert before == 30
        assert most < 15


async def test_a_failure_changes_nothing_and_is_not_repeated(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Nobody sees it; the old answer lives as long as it would have, and stale no longer."""
    async with running_edge(origin.url, rules=rules(RULES), clock=clock) as edge:
        first = await edge.get("/a")
        origin.reply("/a", status=503, headers=[("Cache-Control", "no-store")])
        assert await play(edge, "/a", 99) == {"HIT"}
        assert origin.count("/a") == 2
        assert ahead(edge) == {"failed": 1}
        await clock.advance(5)
        stale = await edge.get("/a")
        assert (stale["X-Cache-Status"], stale.body) == ("STALE", first.body)
        await clock.advance(7)
        assert (await edge.get("/a")).status == 503  # past stale_if_error: 10s


async def test_never_while_the_origin_fails_or_has_no_room(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    async with running_edge(origin.url, rules=rules(RULES), clock=clock) as edge:
        await edge.get("/a")
        await play(edge, "/a", 75)
        origin.script("/dead", [RST])
        await edge.get("/dead")
        assert edge.worker.engine.origin_failing
        await play(edge, "/a", 24)
        assert origin.count("/a") == 1
        assert ahead(edge)["held-back"] > 1
        await edge.get("/b")  # it answers again
        await play(edge, "/a", 76)
        asked = []

        def no_room(purpose: Purpose) -> bool:
            asked.append(purpose)
            return False

        edge.worker.warming.ahead._may_begin = no_room
        count = origin.count("/a")
        await play(edge, "/a", 20)
        assert origin.count("/a") == count
        assert set(asked) == {Purpose.WARM}


async def test_clients_follow_the_refresh_that_is_under_way(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    text = RULES + "    coalesce: {wait: 1m, lease: 1m}\n"
    async with running_edge(origin.url, rules=rules(text), clock=clock, first_byte_timeout="1m") as edge:
        await edge.get("/a")
        await play(edge, "/a", 79)
        origin.reply("/a", gate="g")
        while not origin.gate("g").waiting:
            await edge.get("/a")
            await clock.advance(0.5)
        await clock.advance(100 - (clock.now() - 1_700_000_000.0) + 0.5)
        clients = [asyncio.create_task(edge.get("/a")) for _ in range(5)]  # noqa: TID251
        await edge.waiting(5)
        origin.gate("g").open()
        assert {a.status for a in await asyncio.gather(*clients)} == {200}
        assert origin.count("/a") == 2


async def test_a_purge_overtakes_it(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    async with running_edge(origin.url, rules=rules(RULES), clock=clock) as edge:
        await edge.get("/a")
        await play(edge, "/a", 79)
        origin.reply("/a", gate="g", times=1)
        while not origin.gate("g").waiting:
            await edge.get("/a")
            await clock.advance(0.5)
        await edge.worker.store.purge(PurgeOrder(PurgeKind.ALL))
        origin.bump("/a")
        origin.gate("g").open()
        await edge.settle()
        assert (await edge.get("/a")).body == origin.stamp("/a", 2)


async def test_nobodys_cookies_go_along(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    text = RULES + "  - {name: x, match: {path: /x}}\n"
    text = (
        text.replace('match: {path: "/**"}', 'match: {path: "/open/**"}')
        + """
  - name: people
    match: {path: "/people"}
    ttl: 100s
    key: {cookies: [session]}
    refresh_ahead: {rate: 0, waiting: 0}
"""
    )
    origin.reply("/open/v", headers=[("Vary", "Accept-Language")])
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        fields = {"Cookie": "session=s3cret", "Accept-Language": "fr", "User-Agent": "x"}
        await play(edge, "/open/v", 99, fields=fields)
        assert origin.count("/open/v") == 2
        again = origin.of("/open/v")[1]
        assert again.get("accept-language") == "fr"
        assert (again.get("cookie"), again.get("user-agent")) == (None, None)
        assert again.get("x-forwarded-for") is None
        await play(edge, "/people", 99, fields=fields)
        assert origin.count("/people") == 1


async def test_what_another_node_has_refreshed_is_taken_over(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path
) -> None:
    with redis_server() as redis:
        if redis is None:
            pytest.skip("no redis-server here")
        given: dict[str, Any] = {
            "rules": rules(RULES),
            "clock": clock,
            "store": redis.url,
            "store_budget": "5s",
            "l1_lease": "1h",  # the clock is driven faster than a real server can be heard
        }
        async with (
            running_edge(origin.url, cache_dir=tmp_path / "1", **given) as one,
            running_edge(origin.url, cache_dir=tmp_path / "2", **given) as two,
        ):
            await edge_shares(one, two)
            assert origin.count("/a") == 1
            for edge in (one, two):
                async with edge.client() as client:
                    for _ in range(200):
                        await client.request("GET", "/a")
            await clock.advance(79)
            for _ in range(20):
                await clock.advance(1)
                for edge in (one, two):
                    await edge.get("/a")
                    await edge.settle()
            assert origin.count("/a") == 2
            counted = {came: one.worker.metrics.warm.ahead[came] + two.worker.metrics.warm.ahead[came]
                       for came in Ahead}  # fmt: skip
            assert (counted[Ahead.REFRESHED], counted[Ahead.ADOPTED]) == (1, 1)


async def edge_shares(one: Edge, two: Edge) -> None:
    """Until what ``one`` has fetched is what ``two`` answers with."""
    for edge in (one, two):
        bus = edge.worker.store.bus
        while bus is not None and not bus.ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # it connects to a real server
    await one.get("/a")
    await one.settle()
    assert (await two.get("/a"))["X-Cache-Status"] == "HIT"
