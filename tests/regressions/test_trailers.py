"""A trailer belongs to its message and to no other, and a body that broke off is never taken for a whole one.

aiohttp's C parser (3.14) keeps the last field of a trailer section and gives it to the next message on the
connection, as its first field: Authorization, Cookie, Cache-Control, whatever it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge
from tests.support.ledger import chunk, head

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n"
TRAILERS = [b"Authorization: Basic eA==\r\n", b"X: y\r\nCookie: a=b\r\n", b"Host: evil\r\n", b"X:\r\n"]


@pytest.mark.parametrize("trailers", TRAILERS)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
async def test_a_requests_trailer_is_not_the_next_requests_field(
    origin: LedgerOrigin, clock: DrivenClock, trailers: bytes, *, apart: bool
) -> None:
    """The connection ends with the request that has trailers: what follows has to come on another one."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        pieces = [CHUNKED, b"5\r\nhello\r\n", b"0\r\n", trailers, b"\r\n", AFTER]
        if apart:
            for piece in pieces:
                client.writer.write(piece)
                await asyncio.sleep(0)
        else:
            await client.send(b"".join(pieces))
        answer = await client.read_answer("POST")
        # With the next request in one segment, a second Host is what the parser makes of it all.
        status = 400 if b"Host" in trailers and not apart else 200
        assert (answer.status, answer["Connection"]) == (status, "close")
        assert await client.at_end()
        await edge.get("/barrier")
        asked = [(asked.target, bytes(asked.body)) for asked in origin.requests]
        assert asked == [("/up", b"hello")] * (status == 200) + [("/barrier", b"")]


@pytest.mark.parametrize("pieces", [1, 2, 64], ids=["whole", "two", "by octet"])
async def test_chunks_without_trailers_keep_the_connection(
    origin: LedgerOrigin, clock: DrivenClock, pieces: int
) -> None:
    octets = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    size = -(-len(octets) // pieces)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(3):
            for start in range(0, len(octets), size):
                client.writer.write(octets[start : start + size])
                await asyncio.sleep(0)
            assert (await client.read_answer("POST")).keep_alive
        await client.send(AFTER)
        assert (await client.read_answer()).status == 200
        assert [bytes(asked.body) for asked in origin.of("/up")] == [b"hello"] * 3


async def test_an_answers_trailer_is_not_the_next_answers_field(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """It would be another URL's answer, for another client: with a cookie, or with leave to be stored."""
    trailers = b"0\r\nCache-Control: max-age=600\r\nSet-Cookie: session=secret\r\n\r\n"
    origin.script("/a", [head(200, [("Transfer-Encoding", "chunked")]), chunk(b"one"), trailers])
    origin.script("/b", [head(200, [("Content-Length", "3")]) + b"two"])
    origin.script("/c", [head(200, [("Transfer-Encoding", "chunked")]) + chunk(b"six") + trailers])
    async with running_edge(origin.url, clock=clock) as edge:
        for first in ("/a", "/c"):
            for method in ("GET", "POST", "GET"):
                assert (await edge.request(method, first)).complete
                other = await edge.get("/b")
                assert (other.status, other.body) == (200, b"two")
                assert "set-cookie" not in other
                assert "cache-control" not in other
        assert origin.connections == 1


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nhelloX", b"0\r\n\rX", b"0\r\nX\r\n\r\n", b"-1\r\n"])
async def test_a_body_that_breaks_off_while_nobody_reads(
    origin: LedgerOrigin, clock: DrivenClock, rest: bytes
) -> None:
    """The error found the body's reader elsewhere, and the body an end: the origin took it for the whole."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(CHUNKED)
        for place in range(len(rest)):
            client.writer.write(rest[place : place + 1])
            await asyncio.sleep(0)
        assert (await client.read_answer("POST")).status == 400
        assert await client.at_end()
        await edge.get("/barrier")
        assert not any(asked.body_complete for asked in origin.of("/up"))
