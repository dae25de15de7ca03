"""Many requests on one connection: answered in order, held back where too many, none behind a bad one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

MANY = 1000
QUEUED = 32
"""Requests that aiohttp parses ahead of the one that is answered."""


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


@pytest.mark.parametrize(("lane", "many"), [("on", MANY), ("off", 100)])
async def test_a_thousand_in_one_segment(
    origin: LedgerOrigin, clock: DrivenClock, lane: str, many: int
) -> None:
    """Each gets its own answer, in order, hits and misses mixed."""
    targets = [f"/{number % 7}" if number % 50 else f"/new{number}" for number in range(many)]
    async with running_edge(origin.url, clock=clock, lane=lane) as edge, edge.client() as client:
        await client.send(b"".join(map(get, targets)))
        for target in targets:
            answer = await client.read_answer()
            assert (answer.status, answer.body) == (200, origin.stamp(target, 1))
        assert len(origin.requests) == len(set(targets))


async def test_no_more_is_begun_than_may_wait(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """One at a time is answered, a few are parsed, the rest stays as octets; nobody asks the origin ahead."""
    origin.reply("/first", gate="g")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(get("/first") + b"".join(get(f"/{number}") for number in range(200)))
        await origin.gate("g").reached()
        (connection,) = edge.worker.server.connections
        assert len(connection._messages) <= QUEUED
        assert [asked.target for asked in origin.requests] == ["/first"]
        origin.gate("g").open()
        for target in ("/first", *(f"/{number}" for number in range(200))):
            assert (await client.read_answer()).body == origin.stamp(target, 1)


@pytest.mark.parametrize(("behind", "asked"), [(20, 0), (200, 2)], ids=["all read", "held back"])
async def test_the_client_leaves_early(
    origin: LedgerOrigin, clock: DrivenClock, behind: int, asked: int
) -> None:
    """What nobody is there for any more is not asked for. Where reading was held back, it is the next answer
    that shows it."""
    origin.reply("/first", gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.send(get("/first") + b"".join(get(f"/{number}") for number in range(behind)))
            await origin.gate("g").reached()
            client.reset()
        if not asked:
            await edge.until(lambda: all(one.transport is None for one in edge.worker.server.connections))
        origin.gate("g").open()
        await edge.until(lambda: not edge.worker.server.connections)
        await edge.settle()
        assert len(origin.requests) <= 1 + asked


@pytest.mark.parametrize(
    "bad", [b"GET / bad HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"]
)
@pytest.mark.parametrize("apart", [False, True], ids=["one segment", "apart"])
async def test_nothing_behind_a_bad_one_is_executed(
    origin: LedgerOrigin, clock: DrivenClock, bad: bytes, *, apart: bool
) -> None:
    segments = [get("/hot"), get("/good"), bad, get("/after"), b"POST /after HTTP/1.1\r\nHost: a\r\n\r\n"]
    async with running_edge(origin.url, clock=clock) as edge:
        for _ in range(4):
            await edge.get("/hot", ("Host", "a"))  # the lane knows it
        async with edge.client() as client:
            if apart:
                for segment in segments:
                    client.writer.write(segment)
                    await asyncio.sleep(0)
            else:
                await client.send(b"".join(segments))
            while (answer := await client.read_answer()).status == 200:
                assert answer.keep_alive
            assert (answer.status, answer.keep_alive) == (400, False)
            assert await client.at_end()
        await edge.get("/barrier")
        assert {asked.target for asked in origin.requests} <= {"/hot", "/good", "/barrier"}


async def test_a_body_is_no_request(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """However much it looks like one, in whatever segments."""
    inner = get("/smuggled")
    for framing, body in (
        (f"Content-Length: {len(inner)}", inner),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)),
    ):
        head = f"POST /up HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode()
        async with running_edge(origin.url, clock=clock) as edge:
            for _ in range(3):
                await edge.get("/smuggled", ("Host", "a"))  # the lane would know it
            before = len(edge.traces)
            for pieces in ([head + body], [head, body], [head[:-2], head[-2:], body[:4], body[4:]]):
                async with edge.client() as client:
                    for piece in pieces:
                        client.writer.write(piece)
                        await asyncio.sleep(0)
                    assert (await client.read_answer("POST")).status == 200
                    await client.send(get("/after"))
                    assert (await client.read_answer()).body == origin.stamp("/after", 1)
            assert [trace.target for trace in edge.traces[before:]] == ["/up", "/after"] * 3
            assert bytes(origin.of("/up")[-1].body) == inner
