"""What comes back: whole answers as they are, broken ones as failures (scenarios A1 and A12)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure
from tests.origin.conftest import forward, read_all
from tests.support.driven import settle
from tests.support.ledger import FIN, RST, Gate, LedgerOrigin, chunk, head

if TYPE_CHECKING:
    from edgeproxy.origin.client import OriginClient
    from edgeproxy.policy.head import ResponseHead
    from tests.support.driven import DrivenClock

LENGTH_10 = [("Content-Length", "10")]
CHUNKED = [("Transfer-Encoding", "chunked")]


async def test_the_head_is_bytes_exact(origin: LedgerOrigin, client: OriginClient) -> None:
    raw = (
        b"HTTP/1.1 200 Fine\r\nX-a: 1\r\nx-A: 2\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-B:  \xe9 \r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    origin.script("/a", [raw])
    reply = await client.fetch(forward())
    assert (reply.head.status, reply.head.reason) == (200, "Fine")
    assert reply.head.headers.raw == (
        (b"X-a", b"1"), (b"x-A", b"2"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d"), (b"X-B", b"\xe9"),
        (b"Content-Length", b"2"),
    )  # fmt: skip
    assert reply.body.length == 2
    assert reply.body.take_all() == b"ok"
    assert await reply.body.read() == b""


async def test_a_folded_field_becomes_one_line(origin: LedgerOrigin, client: OriginClient) -> None:
    """RFC 9112 §5.2: each obs-fold is replaced by a space, or the answer is refused."""
    origin.script("/a", [b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n"])
    reply = await client.fetch(forward())
    assert reply.head.headers.get("x") == "a folded"
    assert reply.body.take_all() == b""


async def test_times_are_the_clocks(origin: LedgerOrigin, client: OriginClient, clock: DrivenClock) -> None:
    origin.reply("/a", gate="g")
    start = clock.now()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.fetch(forward()))
        await origin.gate("g").reached()
        await clock.advance(2)
        origin.gate("g").open()
    reply = task.result()
    assert (reply.request_time, reply.response_time) == (start, start + 2)
    reply.body.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_whole_body(origin: LedgerOrigin, client: OriginClient, *, chunked: bool) -> None:
    content = bytes(range(256)) * 8192  # 2 MiB: many segments
    origin.reply("/a", body=content, chunked=chunked)
    reply = await client.fetch(forward())
    assert reply.body.length == (None if chunked else len(content))
    assert await read_all(reply) == content
    assert client.connections_idle == 1


async def test_take_all_consumes_nothing_before_the_end(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [head(200, LENGTH_10), b"01234", Gate("g"), b"56789"])
    reply = await client.fetch(forward())
    await settle()
    assert reply.body.take_all() is None
    origin.gate("g").open()
    assert await read_all(reply) == b"0123456789"


async def test_close_delimited(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [head(200), b"until ", Gate("g"), b"the end", FIN])
    reply = await client.fetch(forward())
    origin.gate("g").open()
    assert reply.body.length is None
    assert await read_all(reply) == b"until the end"
    assert client.connections_idle == 0


@pytest.mark.parametrize(
    "start",
    [
        [head(200, LENGTH_10), b"01234"],
        [head(200, CHUNKED), chunk(b"01234")],
        [head(200, CHUNKED), b"a\r\n01234"],
        [head(200, CHUNKED), chunk(b"01234") + b"0\r\n"],
    ],
    ids=["content-length", "no last chunk", "half a chunk", "half a last chunk"],
)
@pytest.mark.parametrize("end", [FIN, RST], ids=["FIN", "RST"])
@pytest.mark.parametrize("late", [False, True], ids=["with the body", "later"])
async def test_a_broken_off_body_is_truncated(
    origin: LedgerOrigin, client: OriginClient, start: list[bytes], end: object, *, late: bool
) -> None:
    origin.script("/a", [*start, Gate("g"), end])  # type: ignore[list-item]
    if not late:
        origin.gate("g").open()
    try:
        reply = await client.fetch(forward())
    except OriginError as error:  # the reset overtook the head
        assert end is RST
        assert error.failure is OriginFailure.RESET  # noqa: PT017
        return
    assert reply.body.take_all() is None
    origin.gate("g").open()
    with pytest.raises(OriginError) as caught:
        await read_all(reply)
    assert caught.value.failure is OriginFailure.TRUNCATED
    with pytest.raises(OriginError):  # and never a clean end afterwards
        await reply.body.read()
    assert client.connections_idle == 0
    assert client.failures[OriginFailure.TRUNCATED] == 1


async def test_a_reset_close_delimited_body_is_truncated(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [head(200), b"until ", Gate("g"), RST])
    reply = await client.fetch(forward())
    assert await reply.body.read() == b"until "
    origin.gate("g").open()
    with pytest.raises(OriginError) as caught:
        await reply.body.read()
    assert caught.value.failure is OriginFailure.TRUNCATED
    reply.body.close()


@pytest.mark.parametrize(
    "octets",
    [
        head(200, [("Content-Length", "2"), ("Content-Length", "3")]) + b"abc",
        head(200, [("Content-Length", "2"), ("Content-Length", "2")]) + b"ab",
        head(200, [("Content-Length", "2, 2")]) + b"ab",
        head(200, [("Content-Length", "+2")]) + b"ab",
        head(200, [("Content-Length", "0x2")]) + b"ab",
        head(200, [("Content-Length", "")]) + b"ab",
        head(200, [("Content-Length", "-1")]),
        head(200, [("Content-Length", "99999999999999999999999")]),
        head(200, [("Content-Length", "2"), *CHUNKED]) + b"0\r\n\r\n",
        head(200, [*CHUNKED, ("Content-Length", "2")]) + b"0\r\n\r\n",
        head(200, [*CHUNKED, *CHUNKED]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "gzip")]) + b"abc",
        head(200, [("Transfer-Encoding", "gzip, chunked")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "xchunked")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "\x0bchunked")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "chunked, identity")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "identity, chunked")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "identity"), ("Content-Length", "3")]) + b"abc",
        head(200, [("Transfer-Encoding", "identity"), ("Transfer-Encoding", "identity")]) + b"abc",
        head(200, [("Transfer-Encoding", "foo;a=b")]) + b"abc",
        head(200, [("Transfer-Encoding", "")]) + b"abc",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head(204, CHUNKED) + b"0\r\n\r\n",
        head(204, [("Content-Length", "2")]) + b"ab",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        head(200, [("X", "a\x00b")]),
        head(200, [("X", "a\x01b")]),
        head(200, [("X", "a\x7fb")]),
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\x80: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
        head(200, [("X", "v" * 65_536)]),
        head(200, [(f"X-{i}", "v" * 1000) for i in range(70)]),
        head(200, [(f"X-{i}", "v") for i in range(600)]),
        head(101, [("Upgrade", "websocket"), ("Connection", "upgrade")]),
        head(100) * 20 + head(204),
        head(103, [("Content-Length", "3")]) + b"abc" + head(204),
    ],
)
async def test_what_is_not_one_well_framed_answer(
    origin: LedgerOrigin, client: OriginClient, octets: bytes
) -> None:
    origin.script("/a", [octets])
    with pytest.raises(OriginError) as caught:
        await client.fetch(forward())
    assert caught.value.failure is OriginFailure.BAD_RESPONSE
    await origin.connections_are(0)
    # The next client's answer is its own, on another connection.
    assert await read_all(await client.fetch(forward(target="/b"))) == b"/b version 1\n"
    assert origin.connections == 2


EXTRA = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"


@pytest.mark.parametrize("extra", [EXTRA, b"x", b"\r\nx"], ids=["an answer", "an octet", "a line"])
@pytest.mark.parametrize(
    ("method", "octets"),
    [
        ("GET", head(200, CHUNKED) + chunk(b"0123456789") + chunk(b"")),
        ("GET", head(200, [("Content-Length", "0")])),
        ("HEAD", head(200, LENGTH_10)),
        ("GET", head(204)),
        ("GET", head(304, LENGTH_10)),
    ],
    ids=["chunked", "empty", "HEAD", "204", "304"],
)
async def test_octets_after_the_end(
    origin: LedgerOrigin, client: OriginClient, method: str, octets: bytes, extra: bytes
) -> None:
    """In the same segment it is no answer; later, it ends the connection and is nobody's answer."""
    origin.script("/a", [octets + extra], times=1)
    with pytest.raises(OriginError) as caught:
        await client.fetch(forward(method))
    assert caught.value.failure is OriginFailure.BAD_RESPONSE
    await origin.connections_are(0)

    origin.script("/a", [octets, Gate("g"), extra, Gate("never")], times=1)
    reply = await client.fetch(forward(method))
    body = await read_all(reply)
    assert body == (b"0123456789" if b"0123456789" in octets else b"")
    origin.gate("g").open()
    await origin.gate("never").reached()
    assert await read_all(await client.fetch(forward(target="/b"))) == b"/b version 1\n"


@pytest.mark.parametrize("extra", [EXTRA, b"x", b"\r\nx"], ids=["an answer", "an octet", "a line"])
@pytest.mark.parametrize(
    "start",
    [
        head(200, LENGTH_10),
        head(200, [*LENGTH_10, ("Connection", "close")]),
        head(200, [("content-length", " 10\t")]),
        head(404, LENGTH_10),
    ],
    ids=["length", "close", "spaces", "404"],
)
async def test_octets_after_an_announced_end_are_nobodys(
    origin: LedgerOrigin, client: OriginClient, start: bytes, extra: bytes
) -> None:
    """RFC 9112 §6.3: the body is as long as Content-Length says, whichever segments it came in."""
    whole = start + b"0123456789" + extra
    ways: list[list[bytes | Gate]] = [
        [whole],
        [whole[:12], Gate("a"), whole[12:]],
        [start, Gate("b"), b"0123456789" + extra],
        [start + b"01234", Gate("c"), b"56789" + extra],
    ]
    for number, steps in enumerate(ways, 1):
        origin.script("/a", [*steps, Gate("never")], times=1)
        for gate in "abc":
            origin.gate(gate).open()
        assert await read_all(await client.fetch(forward())) == b"0123456789"
        assert await read_all(await client.fetch(forward(target="/b"))) == b"/b version 1\n"
        assert origin.connections == number + 1, "a connection with octets left over was used again"
        assert client.surplus == number
    assert client.failures[OriginFailure.BAD_RESPONSE] == 0


@pytest.mark.parametrize("value", ["FOO", "identity", "x-own"])
async def test_a_coding_that_is_none_goes_on_until_the_end(
    origin: LedgerOrigin, client: OriginClient, value: str
) -> None:
    """RFC 9112 §6.3: the final coding is not chunked, so the body ends with the connection."""
    body = b"0\r\n\r\n" + EXTRA
    origin.script("/a", [head(200, [("Transfer-Encoding", value)]), body[:7], Gate("g"), body[7:], FIN])
    reply = await client.fetch(forward())
    assert reply.body.length is None
    origin.gate("g").open()
    assert await read_all(reply) == body
    assert client.connections_idle == 0
    origin.script("/a", [head(200, [("Transfer-Encoding", value)]), b"half", RST])
    with pytest.raises(OriginError):
        await read_all(await client.fetch(forward()))


async def test_a_bad_chunk_in_a_streamed_body(origin: LedgerOrigin, client: OriginClient) -> None:
    bad = b"zz\r\n01234\r\n0\r\n\r\n"
    origin.script("/a", [head(200, CHUNKED), chunk(b"01234"), Gate("g"), bad, Gate("x")])
    reply = await client.fetch(forward())
    assert await reply.body.read() == b"01234"
    origin.gate("g").open()
    with pytest.raises(OriginError) as caught:
        await read_all(reply)
    assert caught.value.failure is OriginFailure.BAD_RESPONSE


@pytest.mark.parametrize(
    ("method", "octets", "length"),
    [("HEAD", head(200, LENGTH_10), 0), ("GET", head(204), 0), ("GET", head(304, LENGTH_10), 0)],
)
async def test_bodyless_answers_keep_the_connection(
    origin: LedgerOrigin, client: OriginClient, method: str, octets: bytes, length: int
) -> None:
    origin.script("/a", [octets])
    for _ in range(3):
        reply = await client.fetch(forward(method))
        assert reply.body.length == length
        assert reply.body.take_all() == b""
    reply = await client.fetch(forward(target="/b"))
    assert await read_all(reply) == b"/b version 1\n"
    assert origin.connections == 1


async def test_interim_answers_are_handed_on(origin: LedgerOrigin, client: OriginClient) -> None:
    final = head(103) + head(200, LENGTH_10) + b"0123456789"
    origin.script("/a", [head(103, [("Link", "</x>")]), Gate("g"), final])
    seen: list[ResponseHead] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.fetch(forward(on_interim=seen.append)))
        await origin.gate("g").reached()
        await settle()
        assert [(h.status, h.headers.get("link")) for h in seen] == [(103, "</x>")]
        origin.gate("g").open()
    assert [h.status for h in seen] == [103, 103]
    assert await read_all(task.result()) == b"0123456789"
    assert client.connections_idle == 1


async def test_a_slow_reader_stops_the_origin(origin: LedgerOrigin, client: OriginClient) -> None:
    """Back-pressure: what is not read stays at the origin, and reading goes on where it stopped."""
    piece, count = b"x" * 65_536, 1024  # 64 MiB, far beyond all buffers between
    size = str(count * len(piece))
    origin.script("/a", [head(200, [("Content-Length", size)]), *[piece] * count, Gate("sent")])
    reply = await client.fetch(forward())
    await settle(3000)
    assert origin.gate("sent").waiting == 0, "the origin could write on without a reader"
    body = await read_all(reply)
    assert len(body) == count * len(piece)
    assert client.connections_idle == 1
    origin.gate("sent").open()
