"""Who joins an answer on its way gets only what a stored answer would have given him as well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.driven import settle
from tests.support.edge import running_edge
from tests.support.ledger import FIN, Gate, chunk, head

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin, Step


async def test_a_body_on_its_way_is_joined_only_while_it_is_fresh(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1")], body_gate="body", times=1)
    origin.reply("/a", headers=[("Cache-Control", "max-age=1")], gate="second")
    async with running_edge(origin.url, clock=clock) as edge:
        first = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.gate("body").reached()
        await edge.until(lambda: any(f.outcome.done() for f in edge.worker.engine.flights.all()))
        await clock.advance(20)
        origin.bump("/a")
        late = [asyncio.create_task(edge.get("/a")) for _ in range(5)]  # noqa: TID251
        await origin.gate("second").reached()
        await edge.waiting(4)
        origin.gate("second").open()
        origin.gate("body").open()
        assert {a.body for a in await asyncio.gather(*late)} == {origin.stamp("/a", 2)}
        assert (await first).body == origin.stamp("/a", 1)
        assert origin.count("/a") == 2


async def test_what_arrives_stale_and_must_not_be_served_so_is_for_its_asker_alone(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    said = [("Cache-Control", "max-age=60, must-revalidate"), ("Age", "100"), ("ETag", '"1"')]
    origin.reply("/a", headers=said, gate="g", times=1)
    origin.reply("/a", headers=said)
    async with running_edge(origin.url, clock=clock) as edge:
        asked = [asyncio.create_task(edge.get("/a")) for _ in range(3)]  # noqa: TID251
        await origin.gate("g").reached()
        await edge.waiting(2)
        origin.gate("g").open()
        await asyncio.gather(*asked)
        assert origin.count("/a") == 3


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_breaks_off_breaks_off_for_all_and_is_not_kept(
    origin: LedgerOrigin, clock: DrivenClock, *, chunked: bool
) -> None:
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "100")
    piece = b"5\r\nhello\r\n" if chunked else b"hello"
    broken: list[Step] = [head(200, [("Cache-Control", "max-age=600"), framing]), piece, Gate("g"), FIN]
    origin.script("/a", broken, times=1)
    origin.reply("/a", headers=[("Cache-Control", "max-age=600")])
    async with running_edge(origin.url, clock=clock) as edge:
        clients = [edge.client() for _ in range(6)]
        for client in clients:
            await client.connect()
            await client.start("GET", "/a")
        heads = [await client.read_head() for client in clients]
        assert origin.count("/a") == 1
        origin.gate("g").open()
        for client, answer in zip(clients, heads, strict=True):
            await client.read_body(answer)
            assert (answer.body, answer.complete) == (b"hello", False)
            await client.aclose()
        assert (await edge.get("/a"))["X-Cache-Status"] == "MISS"
        assert len(edge.worker.engine.flights) == 0


async def test_a_leader_whose_answer_is_his_alone_does_not_release_a_herd(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """With Authorization one's answer is most likely one's own: nobody else waits for it, so that who comes
    meanwhile shares one fetch among themselves."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")], gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        own = asyncio.create_task(edge.get("/a", ("Authorization", "Bearer 1")))  # noqa: TID251
        await origin.gate("g").reached()
        others = [asyncio.create_task(edge.get("/a")) for _ in range(20)]  # noqa: TID251
        await edge.waiting(19)
        origin.gate("g").open()
        await asyncio.gather(own, *others)
        assert origin.count("/a") == 2


async def test_a_reader_that_does_not_read_does_not_hold_the_others_up(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """A body that has outgrown the cache is read no faster than the slowest reads, for a while."""
    pieces = [chunk(b"y" * 65_536)] * 300
    start = head(200, [("Cache-Control", "max-age=60"), ("Transfer-Encoding", "chunked")])
    origin.script("/a", [start, Gate("g"), *pieces, chunk(b"")])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as good, edge.client() as bad:
        await good.start("GET", "/a")
        answer = await good.read_head()
        bad.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await bad.start("GET", "/a")
        await settle(100)
        assert origin.count("/a") == 1
        origin.gate("g").open()
        reading = asyncio.create_task(good.read_body(answer))  # noqa: TID251
        while not reading.done():
            await clock.advance(1)
        assert (await reading).complete
        assert len(answer.body) == 300 * 65_536
        bad.reset()
