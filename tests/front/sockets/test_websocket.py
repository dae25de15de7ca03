"""WebSockets through the edge: the handshake, the frames, every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from edgeproxy.front.websocket import CLOSE_WAIT
from tests.support.edge import running_edge
from tests.support.ledger import head
from tests.support.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    RawSocketOrigin,
    SocketClient,
    at_end,
    closing,
    made,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.websocket import OriginEnd

Pair = tuple["Edge", SocketClient, "OriginEnd"]


@contextlib.asynccontextmanager
async def joined(clock: DrivenClock, *, rules: Path | None = None, **flags: Any) -> AsyncIterator[Pair]:
    """A raw client and a raw origin with an open WebSocket between them; nothing is left behind."""
    async with (
        RawSocketOrigin() as origin,
        running_edge(origin.url, clock=clock, rules=rules, **flags) as edge,
    ):
        client, answer = await SocketClient.open(edge)
        assert answer.status == 101
        try:
            yield edge, client, await origin.end()
        finally:
            await client.aclose()
        await ended(edge, clock)


async def ended(edge: Edge, clock: DrivenClock) -> None:
    """Everything is given back."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await edge.until(lambda: not len(edge.worker.handler.websockets))
    if len(edge.worker.handler.websockets):
        await clock.advance(CLOSE_WAIT + 1)
    await edge.until(lambda: not edge.worker.server.connections and not edge.worker.origin.connections_open)
    assert len(edge.worker.handler.websockets) == 0
    assert edge.worker.handler.websockets.places == {}
    assert edge.worker.origin.in_flight == 0


def how(edge: Edge) -> str:
    """How the last WebSocket ended, as the access log tells it."""
    return next(t.closed for t in reversed(edge.traces) if t.status == 101)


# -- an origin and a client that are not ours ---------------------------------------------------------------


@contextlib.asynccontextmanager
async def echo(**options: Any) -> AsyncIterator[str]:
    """The server of aiohttp: it echoes; "close N" closes with N."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat", "other"), **options)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith("close "):
                await socket.close(code=int(message.data[6:]), message=b"as asked")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("compress", [0, 15])
async def test_messages_of_all_kinds(clock: DrivenClock, compress: int) -> None:
    """Text, binary, empty, large and compressed (permessage-deflate); the subprotocol agreed end to end."""
    large = b"".join(zlib.crc32(b"%d" % n).to_bytes(4) for n in range(250_000))
    async with (
        echo(max_msg_size=0) as origin,
        running_edge(origin, clock=clock) as edge,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://{edge.host}/ws"
        async with session.ws_connect(
            url, protocols=("none", "chat"), compress=compress, max_msg_size=0, autoping=False
        ) as socket:
            assert socket.protocol == "chat"
            assert socket.compress == compress
            for text in ("hello", "", "ä" * 70_000):
                await socket.send_str(text)
                assert (await socket.receive(10)).data == text
            for octets in (large, b"", large[:65_536]):
                await socket.send_bytes(octets)
                assert (await socket.receive(10)).data == octets
            await socket.ping(b"are you there")
            pong = await socket.receive(10)
            assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"are you there")
            await socket.close(code=4001, message=b"done")
        await ended(edge, clock)
        (trace,) = edge.traces
        assert (trace.status, trace.closed, trace.aborted) == (101, "client 4001", False)
        assert trace.bytes_in > len(large) / 2
        assert trace.bytes_out > len(large) / 2
        sockets = edge.worker.metrics.sockets
        assert (sockets.messages_in, sockets.messages_out, sockets.open, sockets.opened) == (6, 6, 0, 1)
        assert sockets.closes == {("client", "4xxx"): 1}


@pytest.mark.parametrize("code", [1000, 1001, 1008, 3000, 4999])
async def test_the_origins_close_code_is_kept(clock: DrivenClock, code: int) -> None:
    async with (
        echo() as origin,
        running_edge(origin, clock=clock) as edge,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{edge.host}/ws") as socket,
    ):
        await socket.send_str(f"close {code}")
        message = await socket.receive(10)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, code, "as asked")
        await ended(edge, clock)
        assert how(edge) == f"origin {code}"


async def test_an_origin_that_pings(clock: DrivenClock) -> None:
    """Its pings reach the client, and the client's pongs reach it."""
    async with joined(clock) as (_, client, origin):
        await origin.send(made(PING, b"one", masked=False))
        assert (await client.frame()).payload == b"one"
        await client.send(made(PONG, b"one"))
        frame = await origin.frame()
        assert (frame.opcode, frame.payload, frame.masked) == (PONG, b"one", True)


# -- the handshake ------------------------------------------------------------------------------------------


async def test_the_handshake_reaches_the_origin_and_its_answer_the_client(clock: DrivenClock) -> None:
    fields = [("Sec-WebSocket-Protocol", "b"), ("X-Extra", "1"), ("Sec-WebSocket-Extensions", "x-foo; a=1")]
    async with RawSocketOrigin(fields) as origin, running_edge(origin.url, clock=clock) as edge:
        asked = [
            ("Sec-WebSocket-Protocol", "a, b"),
            ("Sec-WebSocket-Extensions", "x-foo"),
            ("Origin", "https://a"),
        ]
        client, answer = await SocketClient.open(edge, "/ws?room=1", asked)
        end = await origin.end()
        assert end.head.startswith("GET /ws?room=1 HTTP/1.1\r\n")
        for name, value in (
            *asked,
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Via", "1.1 edgeproxy"),
        ):
            assert f"\r\n{name}: {value}\r\n" in end.head
        assert answer["Sec-WebSocket-Accept"] == ACCEPT
        assert (answer["Connection"], answer["Upgrade"]) == ("Upgrade", "websocket")
        assert (answer["Sec-WebSocket-Protocol"], answer["X-Extra"]) == ("b", "1")
        assert answer["Sec-WebSocket-Extensions"] == "x-foo; a=1"
        assert "Content-Length" not in answer
        assert answer["X-Cache-Status"] == "BYPASS"
        await client.aclose()
        await ended(edge, clock)


@pytest.mark.parametrize("extended", [False, True])
async def test_what_comes_with_the_handshakes_is_not_lost(clock: DrivenClock, extended: bool) -> None:
    """Frames in the segment of the 101, and frames that a client sends without waiting for it."""
    late, early = made(TEXT, b"l" * 70_000, masked=False), made(TEXT, b"e" * 200_000)
    fields = [("Sec-WebSocket-Extensions", "x-foo")] if extended else []
    async with RawSocketOrigin(fields, late) as origin, running_edge(origin.url, clock=clock) as edge:
        client, answer = await SocketClient.open(edge, behind=early)
        end = await origin.end()
        assert answer.status == 101
        assert (await client.frame()).payload == b"l" * 70_000
        assert (await end.frame()).payload == b"e" * 200_000
        await client.send(closing(1000))
        assert (await end.frame()).code == 1000
        await client.aclose()
        await ended(edge, clock)


async def test_a_handshake_that_the_origin_refuses(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Any other status is an answer like any other, and the connection goes on."""
    origin.reply("/ws", status=403, body=b"no", headers=[("X-Why", "because")])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(2):
            answer = await client.request("GET", "/ws", HANDSHAKE)
            assert (answer.status, answer.body, answer["X-Why"]) == (403, b"no", "because")
            assert answer.keep_alive
        assert (await client.request("GET", "/a"))["X-Cache-Status"] == "MISS"
        assert origin.count("/ws") == 2
        assert edge.worker.handler.websockets.places == {}
        assert edge.worker.origin.in_flight == 0


SWITCHED = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)]


@pytest.mark.parametrize(
    "fields",
    [
        [("Upgrade", "h2c"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)],
        [("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)],
        [("Upgrade", "websocket"), ("Connection", "Upgrade")],
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", "x" + ACCEPT[1:])],
    ],
)
async def test_a_101_that_does_not_accept_is_an_error(
    origin: LedgerOrigin, clock: DrivenClock, fields: list[tuple[str, str]]
) -> None:
    origin.script("/ws", [head(101, fields)])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        assert (await client.request("GET", "/ws", HANDSHAKE)).status == 502
        await origin.connections_are(0)
        assert edge.worker.origin.in_flight == 0


NONE_OF_IT = {
    "no Upgrade": HANDSHAKE[2:],
    "no Connection": HANDSHAKE[1:],
    "no key": (*HANDSHAKE[:2], HANDSHAKE[3]),
    "two keys": (*HANDSHAKE, HANDSHAKE[2]),
    "no version": HANDSHAKE[:3],
    "another protocol": (HANDSHAKE[0], ("Upgrade", "foo"), *HANDSHAKE[2:]),
    "several protocols": (HANDSHAKE[0], ("Upgrade", "foo, websocket"), *HANDSHAKE[2:]),
}


@pytest.mark.parametrize("case", NONE_OF_IT)
async def test_what_is_no_handshake_is_not_upgraded(
    origin: LedgerOrigin, clock: DrivenClock, case: str
) -> None:
    """It goes on as a plain request, without its Upgrade; a 101 to it is an error and is not kept."""
    origin.script("/ws", [head(101, [*SWITCHED, ("Cache-Control", "max-age=60")])], times=1)
    origin.reply("/ws", body=b"plain")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        assert (await client.request("GET", "/ws", NONE_OF_IT[case])).status == 502
        answer = await client.request("GET", "/ws", NONE_OF_IT[case])
        assert (answer.status, answer.body) == (200, b"plain")
        assert all(r.get("upgrade") is None and r.get("connection") is None for r in origin.requests)


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "foo"])
@pytest.mark.parametrize("before", [b"", b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_what_is_pipelined_behind_an_offer_is_answered_or_the_connection_ends(
    origin: LedgerOrigin, clock: DrivenClock, protocol: str, before: bytes
) -> None:
    """Never lost without a word. An offer that comes alone costs nothing."""
    offer = f"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.send(before + offer + b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
            if before:
                assert (await client.read_answer()).status == 200
            first = await client.read_answer()
            assert first.status == 200
            if first.keep_alive:
                assert (await client.read_answer()).body == origin.stamp("/b", 1)
            else:
                assert protocol != "websocket"
                assert await client.at_end()
        async with edge.client() as client:
            for _ in range(3):
                await client.send(offer)
                assert (await client.read_answer()).keep_alive


async def test_an_http_1_0_handshake_or_one_by_post_is_none(origin: LedgerOrigin, clock: DrivenClock) -> None:
    fields = "".join(f"{n}: {v}\r\n" for n, v in HANDSHAKE)
    for line, end in (("GET /ws HTTP/1.0", ""), ("POST /ws HTTP/1.1", "Content-Length: 0\r\n")):
        async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
            await client.send(f"{line}\r\nHost: a\r\n{fields}{end}\r\n".encode())
            assert (await client.read_answer()).status == 200
    assert [r.get("upgrade") for r in origin.requests] == [None, None]


async def test_a_101_is_never_kept(clock: DrivenClock) -> None:
    async with (
        RawSocketOrigin([("Cache-Control", "public, max-age=60"), ("ETag", '"a"')]) as origin,
        running_edge(origin.url, clock=clock) as edge,
    ):
        for _ in range(2):
            client, answer = await SocketClient.open(edge)
            assert answer.status == 101
            await origin.end()  # it was asked again
            client.reset()
        await ended(edge, clock)
        assert [(t.stored, t.word) for t in edge.traces] == [(False, "BYPASS")] * 2


async def test_a_client_that_leaves_during_the_handshake(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/ws", status=403, gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.start("GET", "/ws", HANDSHAKE)
            await origin.gate("g").reached()
        await origin.connections_are(0)
        await ended(edge, clock)


# -- data ---------------------------------------------------------------------------------------------------


async def test_a_lot_of_data_both_ways_at_once_and_slowly(clock: DrivenClock) -> None:
    """64 KiB x 512 each way, exact; while nobody reads, what is held is two buffers, not the data."""
    count, payload = 512, bytes(range(256)) * 256
    whole, masked = made(BINARY, payload, masked=False), made(BINARY, payload)
    async with joined(clock) as (edge, client, origin):

        async def pour(writer: asyncio.StreamWriter, octets: bytes) -> None:
            for _ in range(count):
                writer.write(octets)
                await writer.drain()

        async def take(reader: asyncio.StreamReader, octets: bytes) -> None:
            for _ in range(count):
                assert await reader.readexactly(len(octets)) == octets

        pouring = asyncio.gather(pour(origin.writer, whole), pour(client.writer, masked))
        (relay,) = edge.worker.handler.websockets.relays
        await edge.until(lambda: relay.client.full and relay.origin.full)
        for side in (relay.client, relay.origin):
            assert side.transport.get_write_buffer_size() < 2**20
        assert not pouring.done()
        await asyncio.gather(pouring, take(client.reader, whole), take(origin.reader, masked))
        assert (relay.client.walker.messages, relay.origin.walker.messages) == (count, count)


async def test_a_client_that_does_not_read_is_ended(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        (relay,) = edge.worker.handler.websockets.relays
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        data = made(BINARY, bytes(2**20), masked=False)

        async def pour() -> None:
            with contextlib.suppress(ConnectionError):
                while not origin.writer.transport.is_closing():
                    origin.writer.write(data)
                    await origin.writer.drain()

        pouring = asyncio.ensure_future(pour())  # noqa: TID251
        await edge.until(lambda: relay.client.full)
        for _ in range(8):
            await clock.advance(60)
        await pouring
        assert relay.client.lost


async def test_fragments_and_controls_between_them(clock: DrivenClock) -> None:
    octets = made(TEXT, b"a", fin=False) + made(PING, b"p") + made(CONTINUATION, b"b")
    async with joined(clock) as (edge, client, origin):
        for octet in octets:
            await client.send(bytes([octet]))
        got = [await origin.frame() for _ in range(3)]
        assert [(f.opcode, f.payload, f.fin) for f in got] == [
            (TEXT, b"a", False), (PING, b"p", True), (CONTINUATION, b"b", True),
        ]  # fmt: skip
        (relay,) = edge.worker.handler.websockets.relays
        assert relay.client.walker.messages == 1


# -- ends ---------------------------------------------------------------------------------------------------


async def test_the_close_handshake_begun_by_the_client(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        await client.send(closing(1000, b"bye") + made(TEXT, b"never"))
        frame = await origin.frame()
        assert (frame.code, frame.payload[2:], frame.masked) == (1000, b"bye", True)
        await origin.send(closing(1000, b"bye", masked=False))
        assert (await client.frame()).code == 1000
        assert await at_end(client.reader)
        assert await at_end(origin.reader)
        await ended(edge, clock)
        assert how(edge) == "client 1000"


async def test_a_close_that_is_not_answered(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        await client.send(closing(1000))
        assert (await origin.frame()).code == 1000
        await clock.advance(CLOSE_WAIT + 1)
        assert await at_end(client.reader)
        assert await at_end(origin.reader)
        await ended(edge, clock)
        assert how(edge) == "client 1000"


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_an_origin_that_dies(clock: DrivenClock, way: str) -> None:
    """1011: the client knows that it may come again."""
    async with joined(clock) as (edge, client, origin):
        await origin.send(made(TEXT, b"hello", masked=False))
        assert (await client.frame()).payload == b"hello"
        if way == "FIN":
            origin.writer.close()
        else:
            origin.reset()
        assert (await client.frame()).code == 1011
        await client.send(closing(1011))
        assert await at_end(client.reader)
        await ended(edge, clock)
        assert how(edge) == "origin 1006"


async def test_an_origin_that_dies_in_a_frame(clock: DrivenClock) -> None:
    """No Close frame fits there: the connection is cut (1006), and no part is taken for the whole."""
    async with joined(clock) as (edge, client, origin):
        await origin.send(made(TEXT, b"hello" * 100, masked=False)[:300])
        await client.reader.readexactly(300)
        origin.reset()
        assert await at_end(client.reader)
        await ended(edge, clock)


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_a_client_that_dies(clock: DrivenClock, way: str) -> None:
    async with joined(clock) as (edge, client, origin):
        await client.send(made(TEXT, b"hello"))
        assert (await origin.frame()).payload == b"hello"
        if way == "FIN":
            await client.aclose()
        else:
            client.reset()
        assert await at_end(origin.reader)
        origin.writer.close()
        await ended(edge, clock)
        assert how(edge) == "client 1006"


async def test_a_half_closed_client_still_hears_the_origin(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        await client.send(made(TEXT, b"last words"))
        client.half_close()
        assert (await origin.frame()).payload == b"last words"
        assert await at_end(origin.reader)
        await origin.send(made(TEXT, b"heard", masked=False) + closing(1000, masked=False))
        origin.writer.close()
        assert (await client.frame()).payload == b"heard"
        assert (await client.frame()).code == 1000
        assert await at_end(client.reader)
        await ended(edge, clock)


async def test_a_frame_longer_than_its_data(clock: DrivenClock) -> None:
    """The client says 1000 octets, sends 10 and FIN: 1002; the origin never has the part for the whole."""
    async with joined(clock) as (edge, client, origin):
        await client.send(made(TEXT, b"x" * 1000)[:18])
        assert len(await origin.reader.readexactly(18)) == 18
        client.half_close()
        assert (await client.frame()).code == 1002
        assert await at_end(client.reader)
        assert await at_end(origin.reader)
        await ended(edge, clock)
        assert how(edge) == "edge 1002"


BAD = {
    "unmasked": made(TEXT, b"a", masked=False),
    "a large ping": bytes([0x80 | PING, 0x80 | 126, 0, 126]) + b"1234" + b"x" * 126,
    "a fragmented ping": made(PING, fin=False),
    "a reserved bit": made(TEXT, b"a", reserved=0x40),
    "a reserved opcode": made(0x5, b"a"),
    "nothing to continue": made(CONTINUATION, b"a"),
    "a huge length": bytes([0x82, 0xFF]) + b"\xff" * 8 + b"1234",
}


@pytest.mark.parametrize("case", BAD)
async def test_a_client_that_breaks_the_protocol(clock: DrivenClock, case: str) -> None:
    """1002 to it and to the origin, which has what came before and nothing else."""
    async with joined(clock) as (edge, client, origin):
        await client.send(made(TEXT, b"good") + BAD[case] + made(TEXT, b"never"))
        assert (await client.frame()).code == 1002
        assert await at_end(client.reader)
        assert (await origin.frame()).payload == b"good"
        assert (await origin.frame()).code == 1002
        await client.aclose()
        assert await at_end(origin.reader)
        await ended(edge, clock)
        assert how(edge) == "edge 1002"


async def test_an_origin_that_breaks_the_protocol(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        await origin.send(made(TEXT, b"masked"))
        assert (await origin.frame()).code == 1002
        assert (await client.frame()).code == 1011
        await client.send(closing(1011))
        assert await at_end(client.reader)
        await ended(edge, clock)


# -- idle, heartbeat, limits --------------------------------------------------------------------------------


async def test_a_silent_client_is_asked_and_its_answer_goes_no_further(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        for _ in range(3):
            await clock.advance(31)
            ping = await client.frame()
            assert (ping.opcode, ping.masked) == (PING, False)
            await client.send(made(PONG, ping.payload))
        await client.send(made(TEXT, b"still here"))
        assert (await origin.frame()).payload == b"still here"
        await origin.send(made(TEXT, b"so am I", masked=False))
        assert (await client.frame()).payload == b"so am I"
        (relay,) = edge.worker.handler.websockets.relays
        assert relay.closed is None


async def test_a_client_that_does_not_answer_is_gone(clock: DrivenClock) -> None:
    async with joined(clock) as (edge, client, origin):
        await clock.advance(31)
        assert (await client.frame()).opcode == PING
        await clock.advance(31)
        assert await at_end(client.reader)
        assert (await origin.frame()).code == 1001
        assert await at_end(origin.reader)
        await ended(edge, clock)
        assert how(edge) == "edge 1006"


async def test_who_talks_is_not_asked(clock: DrivenClock) -> None:
    """A ping of ours between the origin's own could cost it its pong (RFC 6455 §5.5.3)."""
    async with joined(clock) as (_, client, origin):
        for n in range(4):
            await clock.advance(20)
            await origin.send(made(PING, b"%d" % n, masked=False))
            assert (await client.frame()).payload == b"%d" % n


async def test_no_ping_of_ours_within_a_frame(clock: DrivenClock) -> None:
    whole = made(TEXT, b"y" * 1000, masked=False)
    async with joined(clock) as (_, client, origin):
        await origin.send(whole[:500])
        got = await client.reader.readexactly(500)
        await clock.advance(100)
        await origin.send(whole[500:])
        assert got + await client.reader.readexactly(len(whole) - 500) == whole
        await clock.advance(31)
        assert (await client.frame()).opcode == PING


LIMITED = """
rules:
  - name: chat
    match: {path: /ws}
    websocket: {idle: 10m, heartbeat: 0, connections: 2, max_frame: 1000, max_message: 1500}
  - name: closed
    match: {path: /closed}
    websocket: off
"""


@pytest.fixture
def limited(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(LIMITED)
    return tmp_path


async def test_idle(clock: DrivenClock, limited: Path) -> None:
    """Both are told; what moves in time stays."""
    async with joined(clock, rules=limited) as (edge, client, origin):
        await clock.advance(599)
        await client.send(made(TEXT, b"a"))
        await origin.frame()
        await clock.advance(599)
        assert len(edge.worker.handler.websockets) == 1
        await clock.advance(2)
        assert (await client.frame()).code == 1001
        assert (await origin.frame()).code == 1001
        await client.send(closing(1001))
        assert await at_end(client.reader)
        await ended(edge, clock)
        assert how(edge) == "edge 1001"


@pytest.mark.parametrize(
    "octets",
    [made(BINARY, b"x" * 1001), made(BINARY, b"x" * 900, fin=False) + made(CONTINUATION, b"x" * 601)],
)
@pytest.mark.parametrize("from_client", [True, False])
async def test_too_large(clock: DrivenClock, limited: Path, octets: bytes, from_client: bool) -> None:
    async with joined(clock, rules=limited) as (edge, client, origin):
        if from_client:
            await client.send(octets)
        else:
            unmasked = made(BINARY, b"x" * 1001, masked=False)
            await origin.send(unmasked)
        codes = []
        for side in (client, origin):
            while (frame := await side.frame()).opcode != CLOSE:
                pass
            codes.append(frame.code)
        assert codes == ([1009, 1009] if from_client else [1011, 1009])
        await client.aclose()
        await ended(edge, clock)


async def test_so_many_and_no_more(clock: DrivenClock, limited: Path) -> None:
    """The rule's limit, then the worker's; a place that is given back is taken again."""
    async with (
        RawSocketOrigin() as origin,
        running_edge(origin.url, clock=clock, rules=limited, websockets=3) as edge,
    ):
        opened = [await SocketClient.open(edge, "/ws") for _ in range(3)]
        assert [a.status for _, a in opened] == [101, 101, 503]
        assert opened[2][1]["Retry-After"] == "5"
        opened += [await SocketClient.open(edge, "/other") for _ in range(2)]
        assert [a.status for _, a in opened[3:]] == [101, 503]
        client, answer = await SocketClient.open(edge, "/closed")
        assert answer.status == 403
        await client.aclose()
        opened[0][0].reset()
        await edge.until(lambda: edge.worker.metrics.sockets.open == 2)
        client, answer = await SocketClient.open(edge, "/ws")
        assert answer.status == 101
        assert edge.worker.metrics.sockets.refused == 3
        for other, _ in opened:
            await other.aclose()
        await client.aclose()
        await ended(edge, clock)


async def test_sockets_do_not_take_the_requests_places(clock: DrivenClock) -> None:
    async with (
        RawSocketOrigin() as origin,
        running_edge(origin.url, clock=clock, origin_connections=2) as edge,
    ):
        opened = [await SocketClient.open(edge) for _ in range(5)]
        assert [a.status for _, a in opened] == [101] * 5
        assert edge.worker.origin.in_flight == 0
        for client, _ in opened:
            await client.aclose()
        await ended(edge, clock)


# -- reload and drain ---------------------------------------------------------------------------------------


def room_for(sockets: int) -> int:
    """How many fit: each takes four descriptors, with both its ends in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    return min(sockets, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 4)


@pytest.mark.long
async def test_500_sockets_stay_open_through_a_reload(clock: DrivenClock, limited: Path) -> None:
    """And the rule that has come into force is for those that come after."""
    count = room_for(500)
    (limited / "rules.yaml").write_text("rules: [{name: chat, match: {path: /ws}}]")
    async with RawSocketOrigin() as origin, running_edge(origin.url, clock=clock, rules=limited) as edge:
        opened = [(await SocketClient.open(edge))[0] for _ in range(count)]
        ends = [await origin.end() for _ in range(count)]
        (limited / "rules.yaml").write_text(LIMITED)
        assert not (await edge.worker.operator.reload_rules()).errors
        assert len(edge.worker.handler.websockets) == count
        for n, client in enumerate(opened):
            await client.send(made(TEXT, b"%d" % n + b"." * 1200))
        got = {(await end.frame()).payload.partition(b".")[0] for end in ends}
        assert got == {b"%d" % n for n in range(count)}
        for end in ends:
            await end.send(made(TEXT, b"after", masked=False))
        assert [(await c.frame()).payload for c in opened] == [b"after"] * count
        late, answer = await SocketClient.open(edge)
        assert answer.status == 503  # more than two are open
        for client in (*opened, late):
            client.reset()
        await ended(edge, clock)


async def test_c10_a_drain_closes_them_spread_over_its_time(clock: DrivenClock) -> None:
    """200 sockets: 1001 to each, not all at once; what does not answer is cut at the deadline."""
    count = 200
    async with (
        RawSocketOrigin() as origin,
        running_edge(origin.url, clock=clock, drain_timeout="20s") as edge,
    ):
        opened = [(await SocketClient.open(edge))[0] for _ in range(count)]
        ends = [await origin.end() for _ in range(count)]
        draining = edge.worker.background.spawn(edge.worker.drain(), "drain")
        told = []
        for _ in range(4):
            await clock.advance(1)
            told.append(edge.worker.metrics.sockets.closes.get(("edge", "1001"), 0))
        assert told[-1] == count
        assert 20 < told[0] < told[1] < told[2]
        answering, deaf = opened[: count // 2], opened[count // 2 :]
        for client in answering:
            assert (await client.frame()).code == 1001
            await client.send(closing(1001))
            assert await at_end(client.reader)
        for end in ends:
            assert (await end.frame()).code == 1001
        assert not draining.done()
        await clock.advance(20)
        assert draining.done()
        for client in deaf:
            assert (await client.frame()).code == 1001
            assert await at_end(client.reader)
        for client in opened:
            await client.aclose()
        await ended(edge, clock)


async def test_a_slow_client_has_time_for_what_came_before_the_close(clock: DrivenClock) -> None:
    """It is asked twice whether it takes anything; when it does not, it is cut."""
    async with joined(clock) as (edge, client, origin):
        (relay,) = edge.worker.handler.websockets.relays
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        piece = made(BINARY, bytes(65_536), masked=False)

        async def pour() -> None:
            with contextlib.suppress(ConnectionError):
                while not origin.writer.transport.is_closing():
                    origin.writer.write(piece)
                    await origin.writer.drain()

        pouring = asyncio.ensure_future(pour())  # noqa: TID251
        await edge.until(lambda: relay.client.full)
        edge.worker.handler.websockets.drain(1)
        await clock.advance(CLOSE_WAIT + 3)
        assert not relay.client.lost
        await clock.advance(2 * CLOSE_WAIT)
        assert relay.client.lost
        await asyncio.wait_for(pouring, 10)


async def test_the_end_of_a_worker_is_the_end_of_its_sockets(clock: DrivenClock) -> None:
    """Without a drain: cut, and nothing is left (running_edge looks)."""
    async with RawSocketOrigin() as origin:
        async with running_edge(origin.url, clock=clock) as edge:
            client, _ = await SocketClient.open(edge)
            end = await origin.end()
        assert await at_end(client.reader)
        assert await at_end(end.reader)
        await client.aclose()


async def test_what_is_told_of_them(clock: DrivenClock, tmp_path: Path) -> None:
    """Metrics, stats and one line of the access log; a request's latency is not how long one was open."""
    log = tmp_path / "access.log"
    async with joined(clock, access_log=log) as (edge, client, origin):
        assert "edgeproxy_websockets_open 1.0" in edge.worker.metrics.render().decode()
        await client.send(made(TEXT, b"12345"))
        await origin.frame()
        await clock.advance(25)
        await client.send(closing(4000))
        assert (await origin.frame()).code == 4000
        await origin.send(closing(4000, masked=False))
        assert (await client.frame()).code == 4000
        await ended(edge, clock)
        text = edge.worker.metrics.render().decode()
        assert 'edgeproxy_websocket_closes_total{code="4xxx",side="client"} 1.0' in text
        assert 'edgeproxy_websocket_messages_total{direction="in"} 1.0' in text
        assert 'edgeproxy_websocket_bytes_total{direction="out"} 4.0' in text
        assert 'edgeproxy_request_duration_seconds_count{rule="none"} 0.0' in text
        (trace,) = edge.traces
        assert 25 <= trace.seconds < 27
        assert (trace.bytes_in, trace.bytes_out) == (11 + 8, 4)
        assert edge.worker.telemetry.access_log is not None
        edge.worker.telemetry.access_log.close()
        line = log.read_text()
        assert '"closed":"client 4000"' in line
        assert '"status":101' in line
