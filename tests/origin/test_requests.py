"""What goes out: heads, framing and uploads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.base import Forward, OriginError
from edgeproxy.origin.framing import request_head
from edgeproxy.policy.head import Headers
from edgeproxy.policy.vocabulary import OriginFailure
from tests.origin.conftest import forward, read_all
from tests.support.driven import DrivenClock, settle
from tests.support.ledger import READ_BODY, RST, Gate, LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgeproxy.origin.client import OriginClient


async def pieces(*items: bytes | Exception) -> AsyncIterator[bytes]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def gated(gate: asyncio.Event, *items: bytes) -> AsyncIterator[bytes]:
    """The first piece at once, the others when the gate is open."""
    yield items[0]
    await gate.wait()
    for item in items[1:]:
        yield item


async def test_the_head_goes_out_as_it_is(origin: LedgerOrigin, client: OriginClient) -> None:
    fields = [("X-b", "2"), ("x-B", "1"), ("Cookie", "a=\xe9"), ("HOST", "Example.TEST:81")]
    target = "/a%2fb/../c?q=%zz&&x"
    reply = await client.fetch(Forward("GET", target, Headers.of(fields)))
    reply.body.close()
    assert origin.requests[0].raw_head == (
        b"GET /a%2fb/../c?q=%zz&&x HTTP/1.1\r\n"
        b"X-b: 2\r\nx-B: 1\r\nCookie: a=\xe9\r\nHOST: Example.TEST:81\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("GET", [], b"GET / HTTP/1.1\r\nHost: origin:1\r\n\r\n"),
        ("GET", [("Host", "h")], b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("POST", [("Host", "h")], b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
        ("DELETE", [("Host", "h")], b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("BREW", [("Host", "h")], b"BREW / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
        (
            "GET",
            [("Content-Length", "5"), ("Host", "h"), ("transfer-Encoding", "chunked"), ("Connection", "x")],
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        ("GET", [("Content-Length", "5")], b"GET / HTTP/1.1\r\nHost: origin:1\r\n\r\n"),
    ],
)
def test_framing_is_ours_alone(method: str, fields: list[tuple[str, str]], expected: bytes) -> None:
    assert request_head(Forward(method, "/", Headers.of(fields)), "origin:1") == expected


@pytest.mark.parametrize(
    ("method", "target", "field"),
    [
        ("GET", "/", ("X", "a\r\nY: b")),
        ("GET", "/", ("X", "a\nY: b")),
        ("GET", "/", ("X\r\nY", "b")),
        ("GET", "/", ("X", "a\rb")),
        ("GET", "/", ("X", "a\0b")),
        ("GET", "/ HTTP/1.1\r\nX:", ("X", "a")),
        ("GET", "/a b", ("X", "a")),
        ("GET", "", ("X", "a")),
        ("GET /", "/", ("X", "a")),
    ],
)
def test_one_head_never_becomes_two(method: str, target: str, field: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="request"):
        request_head(Forward(method, target, Headers.of([field])), "origin:1")


@pytest.mark.parametrize("length", [11, None])
async def test_a_streamed_upload(origin: LedgerOrigin, client: OriginClient, length: int | None) -> None:
    for _ in range(2):
        body = pieces(b"hello", b"", b" world")
        reply = await client.fetch(forward("POST", body=body, length=length))
        assert await read_all(reply) == b"/a version 1\n"
    assert [bytes(r.body) for r in origin.requests] == [b"hello world"] * 2
    assert [r.get("content-length") for r in origin.requests] == ["11" if length else None] * 2
    assert origin.connections == 1


async def test_a_large_upload_waits_for_the_origin(origin: LedgerOrigin, client: OriginClient) -> None:
    """Back-pressure: the next piece is not asked for while the origin does not read."""
    asked = 0
    piece, count = b"x" * 65_536, 512

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        for _ in range(count):
            asked += 1
            yield piece

    origin.script("/a", [Gate("g"), READ_BODY, head(204)])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.fetch(forward("PUT", body=body(), length=count * len(piece))))
        await origin.gate("g").reached()
        await settle(3000)
        assert asked < count, "all was asked for while nobody read"
        origin.gate("g").open()
    assert asked == count
    task.result().body.close()
    assert len(origin.requests[0].body) == count * len(piece)
    assert client.connections_idle == 1


async def test_an_early_answer_is_delivered(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.reply("/a", status=413, body=b"too large", early=True)
    never = asyncio.Event()
    reply = await client.fetch(forward("POST", body=gated(never, b"x" * 10, b"y"), length=100))
    assert reply.head.status == 413
    assert await read_all(reply) == b"too large"
    assert client.connections_idle == 0
    await origin.connections_are(0)


async def test_both_directions_at_once(origin: LedgerOrigin, client: OriginClient) -> None:
    """The answer has begun; sending goes on until both are done, and then the connection is reused."""
    origin.script("/a", [head(200, [("Content-Length", "4")]), b"ab", READ_BODY, b"cd"])
    gate = asyncio.Event()
    reply = await client.fetch(forward("POST", body=gated(gate, b"one", b"two"), length=6))
    assert await reply.body.read() == b"ab"
    gate.set()
    assert await read_all(reply) == b"cd"
    assert bytes(origin.requests[0].body) == b"onetwo"
    assert client.connections_idle == 1


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (lambda: pieces(b"abc", ConnectionResetError("the client left")), 10),
        (lambda: pieces(b"abc", ValueError("bad chunk")), None),
        (lambda: pieces(b"abc"), 10),
        (lambda: pieces(b"abc", b"def"), 4),
    ],
    ids=["client gone", "bad framing", "too short", "too long"],
)
async def test_a_broken_request_body(
    origin: LedgerOrigin, client: OriginClient, body: object, length: int | None
) -> None:
    assert callable(body)
    with pytest.raises(OriginError) as caught:
        await client.fetch(forward("POST", body=body(), length=length))
    assert caught.value.failure is OriginFailure.REQUEST_BODY
    await origin.connections_are(0)
    assert not any(r.body_complete for r in origin.requests), "a part was taken for the whole"
    assert client.failures[OriginFailure.REQUEST_BODY] == 1


async def test_a_request_body_that_breaks_while_the_answer_is_read(
    origin: LedgerOrigin, client: OriginClient
) -> None:
    origin.script("/a", [head(200, [("Content-Length", "4")]), b"ab", READ_BODY, b"cd"])
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await gate.wait()
        raise ConnectionResetError

    reply = await client.fetch(forward("POST", body=body(), length=6))
    assert await reply.body.read() == b"ab"
    gate.set()
    with pytest.raises(OriginError) as caught:
        await read_all(reply)
    assert caught.value.failure is OriginFailure.REQUEST_BODY


async def test_an_origin_that_dies_during_an_upload(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [Gate("g"), RST, READ_BODY])
    never = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        body = gated(never, b"x" * 1000, b"y")
        task = group.create_task(_failure(client, forward("POST", body=body, length=2000)))
        await origin.gate("g").reached()
        origin.gate("g").open()
    assert task.result() is OriginFailure.RESET


async def _failure(client: OriginClient, request: Forward) -> OriginFailure:
    with pytest.raises(OriginError) as caught:
        await client.fetch(request)
    return caught.value.failure


async def test_a_slow_client_is_not_the_origins_fault(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    """No deadline runs while the client's next piece is awaited; the head's begins when all is sent."""
    origin.script("/a", [READ_BODY, Gate("g"), head(204)])
    gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        body = gated(gate, b"abc", b"def")
        task = group.create_task(_failure(client, forward("POST", body=body, length=6)))
        request = await origin.arrived("/a")
        await origin.body_arrived(request, 3)
        await clock.advance(3600)
        assert not task.done()
        gate.set()
        await origin.gate("g").reached()
        await clock.advance(9.9)
        assert not task.done()
        await clock.advance(0.2)
    assert task.result() is OriginFailure.FIRST_BYTE_TIMEOUT


async def test_an_origin_that_does_not_read(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    origin.script("/a", [Gate("g"), READ_BODY])
    async with asyncio.TaskGroup() as group:
        body = pieces(*[b"x" * 65_536] * 512)
        task = group.create_task(_failure(client, forward("PUT", body=body, length=512 * 65_536)))
        await origin.gate("g").reached()
        await settle(3000)
        await clock.advance(29)
        assert not task.done()
        await clock.advance(2)
    assert task.result() is OriginFailure.READ_TIMEOUT
    origin.gate("g").open()
