"""How answers go out: framing, keeping connections, pipelining, slow readers, clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING

import pytest

from edgeproxy.admin.control import State
from edgeproxy.engine.exchange import FromStream
from edgeproxy.front.parting import Idle, unheard
from edgeproxy.front.server import EdgeServer
from tests.support.edge import running_edge
from tests.support.ledger import FIN, Gate, Step, chunk, head
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from edgeproxy.engine.exchange import Answer, Exchange, Reader
    from edgeproxy.front.server import EdgeProtocol
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

MIB = 2**20
NO_STORE = ("Cache-Control", "no-store")
CHUNKED = ("Transfer-Encoding", "chunked")


async def test_chunked_for_a_body_of_unknown_length(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Each piece as it comes; from the cache it has a length."""
    origin.script(
        "/a",
        [
            head(200, [("Cache-Control", "max-age=60"), CHUNKED]),
            chunk(b"one"),
            Gate("g"),
            chunk(b"two"),
            chunk(b""),
        ],
    )
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("GET", "/a")
        answer = await client.read_head()
        assert answer.chunked
        assert await client.reader.readexactly(8) == b"3\r\none\r\n"
        origin.gate("g").open()
        assert await client.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        await edge.settle()
        hit = await client.request("GET", "/a")
        assert (hit["X-Cache-Status"], hit.length, hit.body) == ("HIT", 6, b"onetwo")


@pytest.mark.parametrize("field", [NO_STORE, ("Cache-Control", "max-age=60")])
async def test_http_1_0_gets_the_body_until_the_end_of_the_connection(
    origin: LedgerOrigin, clock: DrivenClock, field: tuple[str, str]
) -> None:
    origin.script("/a", [head(200, [field, CHUNKED]), chunk(b"one"), Gate("g"), chunk(b"two"), chunk(b"")])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.read_head()
        assert (answer.length, answer.chunked, answer["Connection"]) == (None, False, "close")
        origin.gate("g").open()
        await client.read_body(answer)
        assert (answer.body, answer.complete) == (b"onetwo", True)


async def test_a_body_that_broke_off_never_looks_ended_to_http_1_0(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """Its end is the end of the connection, so that end must be a reset."""
    origin.script("/a", [head(200, [NO_STORE, CHUNKED]), chunk(b"one"), Gate("g"), FIN])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"GET /a HTTP/1.0\r\n\r\n")
        answer = await client.read_head()
        assert await client.read_some() == b"one"
        origin.gate("g").open()
        await client.read_body(answer)
        assert client.was_reset
        assert not answer.complete


async def test_http_1_0_keeps_the_connection_if_it_asks_to(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(3):
            await client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.read_answer()
            assert (answer.status, answer["Connection"]) == (200, "keep-alive")
        await client.send(b"GET /a HTTP/1.0\r\n\r\n")
        assert (await client.read_answer())["Connection"] == "close"
        assert await client.at_end()


async def test_connections_are_kept_until_either_side_says_close(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for n in range(5):
            assert "Connection" not in await client.request("GET", "/a" if n % 2 else "/b")
        answer = await client.request("GET", "/a", [("Connection", "close")])
        assert (answer.status, answer["Connection"]) == (200, "close")
        assert await client.at_end()


async def test_the_origins_connection_is_not_the_clients(origin: LedgerOrigin, clock: DrivenClock) -> None:
    fields = [("Connection", "close, x-hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), NO_STORE]
    origin.script("/a", [head(200, [*fields, ("Content-Length", "2")]), b"ok", FIN])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(2):
            answer = await client.request("GET", "/a")
            assert answer.body == b"ok"
            assert not {"connection", "x-hop", "keep-alive"} & {name for name, _ in answer.headers}


async def test_pipelined_requests_are_answered_in_order(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Two in one segment, the first the slower one; then many, hits and misses mixed."""
    origin.reply("/slow", gate="g")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await edge.get("/hot")

        def get(target: str) -> bytes:
            return f"GET {target} HTTP/1.1\r\nHost: example.test\r\n\r\n".encode()

        await client.send(get("/slow") + get("/hot"))
        await origin.gate("g").reached()
        origin.gate("g").open()
        assert (await client.read_answer()).body == origin.stamp("/slow", 1)
        assert (await client.read_answer()).body == origin.stamp("/hot", 1)

        targets = [f"/{n}" if n % 3 else "/hot" for n in range(100)]
        await client.send(b"".join(map(get, targets)))
        for target in targets:
            assert (await client.read_answer()).body == origin.stamp(target, 1)


async def test_after_close_nothing_of_a_pipeline_is_executed(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(
            b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            b"POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        )
        assert (await client.read_answer("POST"))["Connection"] == "close"
        assert await client.at_end()
        assert origin.count("/second") == 0


async def test_a_head_in_many_pieces(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for octet in b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n":
            await client.send(bytes([octet]))
            await asyncio.sleep(0)
        assert (await client.read_answer()).body == origin.stamp("/a", 1)


async def _stand_still(edge: Edge, measure: list[int]) -> None:
    """Until nothing more is taken from the origin: the figure has not moved for many turns of the loop."""
    async with asyncio.timeout(20):
        before, still = -1, 0
        while still < 300:
            await asyncio.sleep(0)
            still = still + 1 if measure[0] == before else 0
            before = measure[0]


@pytest.mark.parametrize("field", [NO_STORE, ("Cache-Control", "max-age=60")])
async def test_a_slow_reader_holds_the_origin_back(
    origin: LedgerOrigin, clock: DrivenClock, field: tuple[str, str]
) -> None:
    """64 MiB to a client that reads nothing: the edge takes a few MiB at most, then stops reading."""
    sent = [0]
    piece = bytes(MIB // 4)

    class Counting(list[Step]):
        """The script's steps; counts the octets of those that were begun."""

        def __iter__(self) -> Iterator[Step]:
            yield head(200, [field, ("Content-Length", str(64 * MIB))])
            for _ in range(256):
                sent[0] += len(piece)
                yield piece

    origin.script("/big", Counting())
    async with running_edge(origin.url, clock=clock) as edge:
        client = RawClient("127.0.0.1", edge.worker.port, receive_buffer=4096)
        async with client:
            await client.start("GET", "/big")
            answer = await client.read_head()
            await _stand_still(edge, sent)
            # What the kernel's buffers hold on two connections is in this too.
            assert sent[0] < 40 * MIB
            assert edge.worker.handler.in_flight == 1
            (connection,) = edge.worker.server.connections
            assert connection.writing_paused
            assert connection.transport is not None
            assert connection.transport.get_write_buffer_size() < 2 * MIB
            await client.read_body(answer)
            assert answer.complete
            assert len(answer.body) == 64 * MIB


async def test_a_client_that_leaves_ends_what_is_its_alone(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """While it waits for the head, and while it is sent a body; a shared fetch goes on."""
    origin.script("/waits", [Gate("never"), head(200, [("Content-Length", "0")])])
    origin.script("/streams", [head(200, [NO_STORE, CHUNKED]), chunk(b"x"), Gate("never")])
    origin.script(
        "/shared",
        [Gate("shared"), head(200, [("Cache-Control", "max-age=60"), ("Content-Length", "2")]), b"ok"],
    )
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.start("GET", "/waits", [("Cache-Control", "no-store")])
            await origin.gate("never").reached()
        await origin.connections_are(0)
        async with edge.client() as client:
            await client.start("GET", "/streams")
            await client.read_head()
            client.reset()
        await origin.connections_are(0)
        async with edge.client() as client:
            await client.start("GET", "/shared")
            await origin.gate("shared").reached()
        origin.gate("shared").open()
        await clock.advance(0.01)
        await _until(lambda: edge.worker.handler.in_flight == 0)
        await edge.settle()
        assert (await edge.get("/shared"))["X-Cache-Status"] == "HIT"
        assert [(t.target, t.aborted) for t in edge.traces] == [
            ("/waits", True), ("/streams", True), ("/shared", True), ("/shared", False),
        ]  # fmt: skip


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what turns it true rings no bell
            await asyncio.sleep(0)


async def test_a_client_that_leaves_in_the_middle_of_its_upload(
    origin: LedgerOrigin, clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    origin.reply("/up", status=201)
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.start("POST", "/up", [("Content-Length", "1000")])
            await client.send(b"x" * 10)
            request = await origin.arrived("/up")
            await origin.body_arrived(request, 10)
        await origin.connections_are(0)
        await _until(lambda: edge.worker.handler.in_flight == 0)
        assert not request.body_complete
        assert edge.traces[-1].aborted
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_crash_inside_is_a_500_without_details(
    origin: LedgerOrigin, clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns the request's id, the log the rest; HEAD gets no body; the connection ends."""

    async def broken(exchange: Exchange) -> Answer:
        raise RuntimeError("a secret of the house")

    async with running_edge(origin.url, clock=clock, trace_from="all") as edge:
        edge.worker.engine.handle = broken  # type: ignore[method-assign]
        for method in ("GET", "HEAD"):
            async with edge.client() as client:
                answer = await client.request(method, "/a", [("X-Request-ID", "mine-1")])
                assert (answer.status, answer["Connection"]) == (500, "close")
                assert answer["Content-Type"] == "application/problem+json"
                assert b"secret" not in answer.raw
                assert (b"mine-1" in answer.body) == (method == "GET")
                assert await client.at_end()
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.getMessage() for r in errors] == ["request mine-1 failed"] * 2
    assert errors[0].exc_info is not None


class Breaking:
    """A body that gives one piece and then fails in a way that nobody has foreseen."""

    def __init__(self, body: Reader) -> None:
        self._body = body
        self._given = False
        self.length = body.length

    def take_all(self) -> bytes | None:
        return None

    async def read(self) -> bytes:
        if self._given:
            raise RuntimeError("broken")
        self._given = True
        return await self._body.read()

    def close(self) -> None:
        self._body.close()


async def test_a_crash_in_the_middle_of_an_answer_breaks_it_off(
    origin: LedgerOrigin, clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    origin.script("/a", [head(200, [NO_STORE, ("Content-Length", "6")]), b"one", Gate("g"), b"two"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        edge.worker.handler.short = None
        handle = edge.worker.engine.handle

        async def breaking(exchange: Exchange) -> Answer:
            answer = await handle(exchange)
            assert isinstance(answer, FromStream)
            return dataclasses.replace(answer, body=Breaking(answer.body))

        edge.worker.engine.handle = breaking  # type: ignore[method-assign]
        answer = await client.request("GET", "/a")
        assert (answer.status, answer.body, answer.complete) == (200, b"one", False)
        assert edge.traces[-1].aborted
    assert "broken" in caplog.text


@contextlib.asynccontextmanager
async def _connected(edge: Edge, count: int) -> AsyncIterator[list[RawClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(edge.client()) for _ in range(count)]


async def test_the_largest_number_of_connections(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Who comes above it is turned away; the others go on; a place that gets free is taken again."""
    async with running_edge(origin.url, clock=clock, max_connections=3) as edge:
        async with _connected(edge, 3) as clients:
            for client in clients:
                assert (await client.request("GET", "/a")).status == 200
            async with edge.client() as fourth:
                with pytest.raises((ConnectionError, EOFError)):
                    await fourth.request("GET", "/a")
            assert edge.worker.doors.full == 1
            for client in clients:
                assert (await client.request("GET", "/a")).status == 200
        await _until(lambda: len(edge.worker.server.connections) == 0)
        assert (await edge.get("/a")).status == 200


async def test_draining_ends_idle_connections_and_closes_busy_ones_after_their_answer(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/slow", gate="g")
    origin.script(
        "/streams", [head(200, [NO_STORE, CHUNKED]), chunk(b"one"), Gate("g"), chunk(b"two"), chunk(b"")]
    )
    async with (
        running_edge(origin.url, clock=clock) as edge,
        edge.client() as idle, edge.client() as busy, edge.client() as streaming,
    ):  # fmt: skip
        await idle.request("GET", "/a")
        await busy.start("GET", "/slow")
        await streaming.start("GET", "/streams")
        begun = await streaming.read_head()
        await origin.gate("g").reached(2)
        drained = asyncio.ensure_future(edge.worker.drain())  # noqa: TID251
        await clock.advance(0.1)
        assert await idle.at_end()
        origin.gate("g").open()
        answer = await busy.read_answer()
        assert (answer.body, answer["Connection"]) == (origin.stamp("/slow", 1), "close")
        assert await busy.at_end()
        await streaming.read_body(begun)
        assert (begun.body, begun.complete) == (b"onetwo", True)
        await clock.advance(0.1)
        assert await streaming.at_end()
        await clock.advance(0.1)
        await drained
        with pytest.raises(ConnectionError):
            await edge.get("/a")


async def test_draining_cuts_no_connection_that_was_not_told(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """The head of an answer went out before the drain began, and did not say that it is the last: its client
    may send another request behind it, and for the grace from then on it is answered."""
    script: list[Step] = [head(200, [NO_STORE, CHUNKED]), chunk(b"one"), Gate("g"), chunk(b"two"), chunk(b"")]
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as plain, edge.client() as post:
        origin.script("/plain", script)
        origin.script("/post", script)
        await plain.start("GET", "/plain")
        await post.start("POST", "/post", body=b"x")
        begun = [await each.read_head() for each in (plain, post)]
        await origin.gate("g").reached(2)
        drained = asyncio.ensure_future(edge.worker.drain(grace=5))  # noqa: TID251
        await clock.advance(6)
        origin.gate("g").open()
        for client, answer in zip((plain, post), begun, strict=True):
            await client.read_body(answer)
            assert (answer.body, answer.complete, answer.keep_alive) == (b"onetwo", True, True)
        # Its time begins with its end, though that of connections that were idle before is over.
        await clock.advance(4)
        for client in (plain, post):
            answer = await client.request("GET", "/a")
            assert (answer.status, answer.keep_alive) == (200, False)
            assert await client.at_end()
        await clock.advance(0.1)
        await drained


async def test_an_answer_that_is_written_while_draining_says_that_it_is_the_last(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """However its request waited: as the first for its key, behind another, with content, or in vain."""
    origin.reply("/slow", gate="g")
    origin.reply("/post", gate="g")
    origin.script("/vain", [Gate("g"), FIN])
    async with (
        running_edge(origin.url, clock=clock) as edge,
        edge.client() as first, edge.client() as second, edge.client() as post, edge.client() as vain,
    ):  # fmt: skip
        clients = {first: "/slow", second: "/slow", post: "/post", vain: "/vain"}
        for client, target in clients.items():
            if client is post:
                await client.start("POST", target, body=b"x")
            else:
                await client.start("GET", target)
            if client is first:
                await origin.gate("g").reached(1)
        await origin.gate("g").reached(3)
        await _until(lambda: edge.worker.handler.in_flight == 4)
        drained = asyncio.ensure_future(edge.worker.drain(grace=5))  # noqa: TID251
        await clock.advance(0.1)
        origin.gate("g").open()
        for client, target in clients.items():
            answer = await client.read_answer()
            assert (answer.complete, answer.keep_alive) == (True, False), target
            assert answer.status == (502 if client is vain else 200), target
            assert await client.at_end()
        await clock.advance(0.1)
        await drained


async def test_until_a_balancer_has_seen_that_it_is_not_ready_new_connections_are_taken(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    # C3
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as kept:
        await kept.request("GET", "/a")
        drained = asyncio.ensure_future(edge.worker.drain(delay=5))  # noqa: TID251
        await clock.advance(4.9)
        assert edge.worker.state is State.DRAINING, "what /readyz says"
        assert (await edge.get("/a")).status == 200
        answer = await kept.request("GET", "/a")
        assert (answer.status, answer.get("Connection")) == (200, None)
        await clock.advance(0.2)
        with pytest.raises(ConnectionError):
            await edge.get("/a")
        assert await kept.at_end()
        await clock.advance(0.1)
        await drained


async def test_a_connection_that_was_just_accepted_when_draining_begins_is_answered(
    origin: LedgerOrigin, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[asyncio.Task[None]] = []
    async with running_edge(origin.url, clock=clock) as edge:
        arrive = EdgeServer.__call__

        def just_then(server: EdgeServer) -> EdgeProtocol:
            drained.append(asyncio.create_task(edge.worker.drain(grace=1)))  # noqa: TID251
            return arrive(server)

        monkeypatch.setattr(EdgeServer, "__call__", just_then)
        async with edge.client() as client:
            await _until(lambda: bool(drained))
            await _until(lambda: bool(edge.worker.server.connections))
            await clock.advance(0.1)
            assert not drained[0].done()
            assert (await client.request("GET", "/a")).status == 200
            assert await client.at_end()
        await clock.advance(0.1)
        await drained[0]


async def test_draining_does_not_close_on_octets_that_nobody_has_read(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client, edge.client() as idle:
        for one in (client, idle):
            await one.request("GET", "/a")
        own = client.writer.get_extra_info("sockname")
        (connection,) = [
            each
            for each in edge.worker.server.connections
            if each.transport is not None and each.transport.get_extra_info("peername") == own
        ]
        assert isinstance(connection.transport, asyncio.Transport)
        connection.transport.pause_reading()  # what comes stays in the socket
        await client.start("GET", "/b")
        await _until(lambda: unheard(connection.transport) > 0)
        Idle(edge.clock, 0).end(edge.worker.server.idle())
        assert await idle.at_end()
        connection.transport.resume_reading()
        assert (await client.read_answer()).status == 200


async def test_draining_waits_for_the_last_octet_of_an_answer(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """An answer handed to the transport is not out while its client has not read it."""
    body = bytes(range(256)) * 64 * 1024
    origin.reply("/large", body=body)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/large")
        await edge.settle()
        async with RawClient("127.0.0.1", edge.worker.port, receive_buffer=4096) as client:
            await client.request("GET", "/a")
            (connection,) = edge.worker.server.connections
            assert connection.transport is not None
            connection.transport.set_write_buffer_limits(high=2 * len(body))
            await client.start("GET", "/large")
            answer = await client.read_head()
            await _until(lambda: edge.worker.handler.in_flight == 0)
            assert connection.transport.get_write_buffer_size() > 0
            drained = asyncio.ensure_future(edge.worker.drain())  # noqa: TID251
            await clock.advance(1)
            assert not drained.done()
            await client.read_body(answer)
            assert (len(answer.body), answer.complete) == (len(body), True)
            await _until(lambda: len(edge.worker.server.connections) == 0)
            await clock.advance(0.1)
            await drained
