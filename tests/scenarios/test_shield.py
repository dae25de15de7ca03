"""Edges in a row: an edge whose origin is another edge, the shield; and edges that go in a circle.

Rules of this file: two whole workers on one driven clock, each with its own name unless that is the point.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.cdn_loop import with_member
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import Gate, LedgerOrigin, head
from tests.support.origins import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.rawclient import RawAnswer

RULES = """
rules:
  - name: items
    match: {path: "/items/**"}
    tags: [items]
    stale_while_revalidate: 30s
"""


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as ledger:
        yield ledger


@contextlib.asynccontextmanager
async def row(origin: LedgerOrigin, tmp_path: Path) -> AsyncIterator[tuple[Edge, Edge]]:
    """The edge that clients ask, and the shield behind it."""
    rules = tmp_path / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "a.yaml").write_text(RULES)
    clock = DrivenClock()
    async with (
        running_edge(origin.url, clock=clock, rules=rules, name="shield") as shield,
        running_edge(f"http://{shield.host}", clock=clock, rules=rules, name="edge") as edge,
    ):
        yield edge, shield


def members(answer: RawAnswer) -> list[str]:
    """Of Cache-Status, without what is not about the cache."""
    told = ", ".join(answer.all("cache-status")).replace('; rule="items"', "")
    return told.split(", ")


async def test_cache_status_and_age_through_both(origin: LedgerOrigin, tmp_path: Path) -> None:
    """The member nearest to the origin comes first (RFC 9211 §2); the time at the shield counts in Age."""
    origin.reply("/items/1", headers=[("Cache-Control", "max-age=60")])
    async with row(origin, tmp_path) as (edge, shield):
        first = await edge.get("/items/1", ("Host", "e.test"))
        assert members(first) == [
            "shield; fwd=uri-miss; fwd-status=200; ttl=60; stored",
            "edge; fwd=uri-miss; fwd-status=200; ttl=60; stored",
        ]
        assert first["via"] == "1.1 shield, 1.1 edge" or first.all("via") == ["1.1 shield", "1.1 edge"]
        await edge.clock.advance(10)
        hit = await edge.get("/items/1", ("Host", "e.test"))
        assert hit["age"] == "10"
        assert members(hit)[-1] == "edge; hit; ttl=50"
        # What the edge has lost comes from the shield, as old as it is there.
        await edge.worker.store.purge(PurgeOrder(PurgeKind.TAG, "items"))
        again = await edge.get("/items/1", ("Host", "e.test"))
        assert again["age"] == "10"
        assert members(again)[0] == "shield; hit; ttl=50"
        assert members(again)[1].startswith("edge; fwd=uri-miss; ")
        assert "ttl=50; stored" in members(again)[1]
        await edge.clock.advance(5)
        hit = await edge.get("/items/1", ("Host", "e.test"))
        assert (hit["age"], members(hit)[-1]) == ("15", "edge; hit; ttl=45")
        await edge.clock.advance(45.5)
        await shield.get("/items/1", ("Host", "e.test"))
        assert origin.count("/items/1") == 1  # stale, and served: the refresh waits for nobody
        await shield.settle()
        assert origin.count("/items/1") == 2


@pytest.mark.parametrize("way", ["time", "soft purge"])
async def test_what_is_stale_is_served_by_both_and_made_fresh(
    origin: LedgerOrigin, tmp_path: Path, way: str
) -> None:
    """No client waits for the origin, however slow it is; in a few requests the new version is everywhere."""
    fresh = head(200, [("Cache-Control", "max-age=10"), ("Content-Length", "3")])
    origin.script("/items/1", [fresh, b"old"])
    async with row(origin, tmp_path) as (edge, shield):
        assert (await edge.get("/items/1", ("Host", "e.test"))).body == b"old"
        origin.script("/items/1", [Gate("slow"), fresh, b"new"])
        if way == "time":
            await edge.clock.advance(12)
        else:
            for each in (shield, edge):
                await each.worker.store.purge(PurgeOrder(PurgeKind.TAG, "items", soft=True))
        stale = await edge.get("/items/1", ("Host", "e.test"))
        assert (stale.body, stale["x-cache-status"]) == (b"old", "UPDATING")
        await origin.gate("slow").reached()  # the shield's refresh; the edge's got the shield's stale answer
        await edge.settle()
        for _ in range(3):
            stale = await edge.get("/items/1", ("Host", "e.test"))
            assert (stale.body, stale["x-cache-status"]) == (b"old", "UPDATING")
            await edge.settle()
        assert origin.gate("slow").waiting == 1  # the shield merges what its edges ask
        origin.gate("slow").open()
        await shield.settle()
        await edge.clock.advance(2)  # a refresh that brought nothing new is not repeated at once
        answers = []
        for _ in range(3):
            answers.append((await edge.get("/items/1", ("Host", "e.test"))).body)
            await edge.settle()
        assert answers[-1] == b"new"
        assert origin.count("/items/1") == 2


async def test_a_hard_purge_goes_from_the_shield_outwards(origin: LedgerOrigin, tmp_path: Path) -> None:
    origin.reply("/items/1", headers=[("Cache-Control", "max-age=600")])
    async with row(origin, tmp_path) as (edge, shield):
        before = await edge.get("/items/1", ("Host", "e.test"))
        origin.bump("/items/1")
        for each in (shield, edge):
            await each.worker.store.purge(PurgeOrder(PurgeKind.TAG, "items"))
        after = await edge.get("/items/1", ("Host", "e.test"))
        assert after.body != before.body
        assert after["x-cache-status"] == "MISS"


# -- circles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["on", "off"])
@pytest.mark.parametrize("names", [("one", "two"), ("edgeproxy", "edgeproxy")])
async def test_a_circle_of_two_ends_where_it_began(lane: str, names: tuple[str, str]) -> None:
    ports = free_port(), free_port()
    async with (
        running_edge(
            f"http://127.0.0.1:{ports[1]}", listen=f"127.0.0.1:{ports[0]}", name=names[0], lane=lane
        ) as a,
        running_edge(
            f"http://127.0.0.1:{ports[0]}", listen=f"127.0.0.1:{ports[1]}", name=names[1], lane=lane
        ) as b,
    ):
        async with a.client() as client:
            for _ in range(3):  # the block is known at last, and the refusal is learned nowhere
                answer = await client.request("GET", "/x", [("Host", "e.test")])
                assert answer.status == 508
                assert b"CDN-Loop" in answer.body
                assert answer["cache-control"] == "no-store"
        assert "error=proxy_loop_detected" in ", ".join(answer.all("proxy-status"))
        # There, and back, and no further.
        assert len(a.traces) == 6
        assert len(b.traces) == 3
        refused = [trace for trace in a.traces if trace.unsatisfied is not None]
        assert len(refused) == 3
        assert a.worker.metrics.snapshot()["edge_answers"] == {"loop-detected": 3}
        posted = await a.request("POST", "/x", [("Host", "e.test")], b"body")
        assert posted.status == 508
        assert len(b.traces) == 4


async def test_an_edge_that_is_its_own_origin() -> None:
    port = free_port()
    async with running_edge(f"http://127.0.0.1:{port}", listen=f"127.0.0.1:{port}") as edge:
        assert (await edge.get("/x")).status == 508
        assert len(edge.traces) == 2


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_what_others_have_written_goes_on(origin: LedgerOrigin, lane: str) -> None:
    """A shield is asked by edges all day: their requests are as fast as any, and differ in nothing else."""
    origin.reply("/x", headers=[("Cache-Control", "no-store")])
    async with running_edge(origin.url, lane=lane) as edge:
        sent = ("CDN-Loop", 'other.example; v="1, 2", edgeproxy; node=another')
        async with edge.client() as client:
            for _ in range(3):
                assert (await client.request("GET", "/x", [("Host", "e.test"), sent])).status == 200
            await client.request("GET", "/x", [("Host", "e.test"), sent, ("Connection", "CDN-Loop")])
            await client.request("GET", "/x", [("Host", "e.test")])
        got = [request.all("CDN-Loop") for request in origin.requests]
        ours = got[-1][0]
        assert ours.startswith("edgeproxy; node=")
        assert got == [[with_member(sent[1], ours)]] * 4 + [[ours]]
        # A client that claims to have been here is refused, though Connection names the field.
        for more in ([], [("Connection", "CDN-Loop")]):
            refused = await edge.get("/x", ("CDN-Loop", ours), *more)
            assert refused.status == 508
        assert len(origin.requests) == 5


async def test_the_lane_answers_what_comes_through_another_edge(origin: LedgerOrigin) -> None:
    origin.reply("/x", headers=[("Cache-Control", "max-age=60")])
    async with running_edge(origin.url) as edge:
        async with edge.client() as client:
            for _ in range(6):
                await client.request("GET", "/x", [("Host", "e.test"), ("CDN-Loop", "edge; node=1")])
        lane = edge.worker.handler.lane
        assert lane is not None
        lane.fold()
        assert lane.hits > 0
        assert origin.count("/x") == 1
