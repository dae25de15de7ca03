"""Streams: events that must not wait, silences that mean nothing, and bodies larger than memory (A13, D7)."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.vocabulary import NotStored
from tests.support.edge import running_edge
from tests.support.ledger import READ_BODY, RST, Gate, chunk, head
from tests.support.origins import edgeproxy_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin, Step
    from tests.support.rawclient import RawClient

EVENTS = [("Content-Type", "text/event-stream; charset=utf-8"), ("Transfer-Encoding", "chunked")]
WANTED = [("Accept", "text/event-stream")]


def event(n: int) -> bytes:
    return b"id: %d\ndata: %d\n\n" % (n, n)


async def next_event(client: RawClient) -> bytes:
    """One chunk's data: what one piece of the origin's became."""
    async with asyncio.timeout(10):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        return (await client.reader.readexactly(size + 2))[:-2]


async def in_flight(edge: Edge, count: int) -> None:
    await edge.until(lambda: edge.worker.origin.in_flight == count)


# -- server-sent events -------------------------------------------------------------------------------------


async def test_each_event_arrives_before_the_next_is_sent(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Although the rule would have it kept for an hour: it is neither stored nor joined by another client."""
    steps: list[Step] = [head(200, EVENTS)]
    for n in range(4):
        steps += [Gate(f"{n}"), chunk(event(n))]
    origin.script("/events", [*steps, chunk(b"")])
    given = rules("rules: [{name: all, match: {path: /**}, ttl: 1h}]")
    async with running_edge(origin.url, clock=clock, rules=given) as edge:
        for round_ in (1, 2):
            async with edge.client() as client:
                await client.start("GET", "/events", WANTED)
                answer = await client.read_head()
                assert (answer.status, answer["X-Cache-Status"]) == (200, "BYPASS" if round_ == 2 else "MISS")
                for n in range(4):
                    await origin.gate(f"{n}").reached()
                    origin.gate(f"{n}").open()
                    assert await next_event(client) == event(n)
                assert await next_event(client) == b""
            for n in range(4):
                origin.gate(f"{n}").close()
        assert origin.count("/events") == 2
        assert edge.traces[0].not_stored is NotStored.EVENT_STREAM
        assert edge.worker.store.stats()["l1_entries"] == 0


async def test_nobody_waits_for_anothers_events(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """An origin may keep the head back until there is an event: all who ask are at it at once."""
    origin.script("/events", [Gate("g"), head(200, EVENTS), chunk(event(1)), Gate("never")])
    async with running_edge(origin.url, clock=clock) as edge:
        clients = [edge.client() for _ in range(3)]
        for client in clients:
            await client.connect()
            await client.start("GET", "/events", WANTED)
        await origin.gate("g").reached(3)
        origin.gate("g").open()
        for client in clients:
            await client.read_head()
            assert await next_event(client) == event(1)
            client.reset()
        await in_flight(edge, 0)


async def test_a_cached_answer_is_a_hit_whatever_is_accepted(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        assert (await edge.get("/a"))["X-Cache-Status"] == "MISS"
        assert (await edge.get("/a", *WANTED))["X-Cache-Status"] == "HIT"


async def test_an_idle_stream_of_events_is_not_cut(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Hours may pass between two events; an ordinary body that stops for that long is broken off."""
    script: list[Step] = [chunk(event(1)), Gate("g"), chunk(event(2)), chunk(b"")]
    origin.script("/events", [head(200, EVENTS), *script])
    origin.script("/body", [head(200, [("Cache-Control", "no-store"), EVENTS[1]]), *script])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client, edge.client() as other:
        await client.start("GET", "/events")
        await client.read_head()
        assert await next_event(client) == event(1)
        await other.start("GET", "/body")
        await other.read_head()
        assert await next_event(other) == event(1)
        await clock.advance(4 * 3600)
        assert await other.at_end()
        origin.gate("g").open()
        assert await next_event(client) == event(2)
        assert await next_event(client) == b""


async def test_how_long_an_origin_may_be_silent_is_for_a_rule_to_say(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    fields = [("Cache-Control", "no-store"), ("Transfer-Encoding", "chunked")]
    script: list[Step] = [chunk(event(1)), Gate("g"), chunk(event(2)), Gate("never")]
    origin.script("/ever", [head(200, fields), *script])
    origin.script("/long", [head(200, fields), *script])
    origin.script("/events", [head(200, EVENTS), *script])
    given = rules("""
rules:
  - {name: ever, match: {path: /ever}, read_timeout: 0}
  - {name: five, match: {path: [/long, /events]}, read_timeout: 5m}
""")
    async with running_edge(origin.url, clock=clock, rules=given) as edge:
        clients = {path: edge.client() for path in ("/ever", "/long", "/events")}
        for path, client in clients.items():
            await client.connect()
            await client.start("GET", path)
            await client.read_head()
            assert await next_event(client) == event(1)
        await clock.advance(299)
        origin.gate("g").open()
        for client in clients.values():
            assert await next_event(client) == event(2)
        await clock.advance(330)
        assert await clients["/long"].at_end()
        assert await clients["/events"].at_end()
        await in_flight(edge, 1)
        await clock.advance(24 * 3600)
        await in_flight(edge, 1)
        clients["/ever"].reset()
        await in_flight(edge, 0)
        for client in clients.values():
            await client.aclose()


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_a_client_that_leaves_ends_its_stream(
    origin: LedgerOrigin, clock: DrivenClock, way: str
) -> None:
    """At once, though nothing moves."""
    origin.script("/events", [head(200, EVENTS), chunk(event(1)), Gate("never")])
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.start("GET", "/events", WANTED)
            await client.read_head()
            assert await next_event(client) == event(1)
            if way == "RST":
                client.reset()
        await origin.connections_are(0)
        await in_flight(edge, 0)
        assert edge.traces[-1].aborted


async def test_an_origin_that_dies_in_a_stream_of_events(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """EventSource connects again when the stream breaks off; a clean end would say the same of no events."""
    origin.script("/events", [head(200, EVENTS), chunk(event(1)), Gate("g"), RST])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("GET", "/events", WANTED)
        answer = await client.read_head()
        assert await next_event(client) == event(1)
        origin.gate("g").open()
        assert not (await client.read_body(answer)).complete


# -- long downloads -----------------------------------------------------------------------------------------


async def test_a13_nobody_is_left_and_it_is_too_large(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """A fill that nobody reads goes on while it may be stored; when it has outgrown that it ends."""
    piece = chunk(bytes(64 * 1024))
    steps: list[Step] = [
        head(200, [("Cache-Control", "max-age=60"), EVENTS[1]]),
        piece,
        Gate("g"),
        *[piece] * 8,
        Gate("never"),
    ]
    origin.script("/a", steps)
    given = rules("rules: [{name: all, match: {path: /**}, max_object: 256KiB}]")
    async with running_edge(origin.url, clock=clock, rules=given) as edge:
        async with edge.client() as client:
            await client.start("GET", "/a")
            await client.read_head()
            client.reset()
        await origin.gate("g").reached()
        await in_flight(edge, 1)
        origin.gate("g").open()
        await in_flight(edge, 0)
        await edge.settle()
        assert edge.worker.store.stats()["l1_entries"] == 0


# -- uploads ------------------------------------------------------------------------------------------------

EXPECT = ("Expect", "100-continue")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_body_is_asked_for_when_there_is_a_place_at_the_origin(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """Not before: what is not sent need not be held, nor sent again after a 503."""
    origin.script("/first", [Gate("g"), head(200, [("Content-Length", "0")])])
    origin.script("/up", [READ_BODY, head(201, [("Content-Length", "0")])])
    async with running_edge(origin.url, clock=clock, origin_connections=1) as edge, edge.client() as client:
        first = asyncio.ensure_future(edge.request("POST", "/first"))  # noqa: TID251
        await origin.gate("g").reached()
        await client.start("POST", "/up", [("Content-Length", "5"), EXPECT])
        await edge.until(lambda: edge.worker.origin.queued == 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not client.reader._buffer  # type: ignore[attr-defined]
        origin.gate("g").open()
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        await client.send(b"hello")
        assert (await client.read_answer("POST")).status == 201
        assert (await first).status == 200


async def test_a_body_is_not_asked_for_when_there_is_no_place(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.script("/first", [Gate("g"), head(200, [("Content-Length", "0")])])
    async with running_edge(origin.url, clock=clock, origin_connections=1) as edge, edge.client() as client:
        first = asyncio.ensure_future(edge.request("POST", "/first"))  # noqa: TID251
        await origin.gate("g").reached()
        await client.start("POST", "/up", [("Content-Length", "5"), EXPECT])
        await edge.until(lambda: edge.worker.origin.queued == 1)
        await clock.advance(4)
        answer = await client.read_answer("POST")
        assert (answer.status, answer.interim) == (503, [])
        origin.gate("g").open()
        await first


async def test_an_origin_that_is_down_asks_for_no_body(origin: LedgerOrigin, clock: DrivenClock) -> None:
    await origin.stop()
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/up", [("Content-Length", "5"), EXPECT])
        answer = await client.read_answer("POST")
        assert (answer.status, answer.interim, answer["Connection"]) == (502, [], "close")


@pytest.mark.parametrize("how", ["answers early", "dies"])
async def test_d7_what_an_origin_can_do_during_an_upload(
    origin: LedgerOrigin, clock: DrivenClock, how: str
) -> None:
    """The client hears of it while it is still sending, and the rest of its body goes nowhere."""
    early: list[Step] = [head(413, [("Content-Length", "3")]), b"big", Gate("never")]
    origin.script("/up", [READ_BODY] if how == "dies" else [Gate("g"), *early, READ_BODY])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/up", [("Transfer-Encoding", "chunked")])
        piece = chunk(bytes(65_536))

        async def send() -> None:
            try:
                while True:
                    client.writer.write(piece)
                    await client.writer.drain()
            except ConnectionError:
                pass

        sending = asyncio.ensure_future(send())  # noqa: TID251
        request = await origin.arrived("/up")
        if how == "dies":
            await origin.body_arrived(request, 2**20)
            origin.drop_connections(reset=True)
        else:
            origin.gate("g").open()
        answer = await client.read_head()
        assert answer.status == (413 if how == "answers early" else 502)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await client.aclose()
        await in_flight(edge, 0)
        await origin.connections_are(0)


# -- D7: memory ---------------------------------------------------------------------------------------------

SIZE = 256 * 2**20
GROWTH = 32 * 2**20
PIECE = bytes(2**20)


class Pipe:
    """An origin on threads: takes a body of SIZE octets and answers with one, at the same time."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.taken = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            octets = b""
            while b"\r\n\r\n" not in octets:
                octets += connection.recv(65_536)
            self.taken = len(octets.partition(b"\r\n\r\n")[2])
            connection.sendall(head(200, [("Content-Length", str(SIZE)), ("Cache-Control", "no-store")]))
            sender = threading.Thread(target=pour, args=(connection,))
            sender.start()
            while self.taken < SIZE and (piece := connection.recv(2**20)):
                self.taken += len(piece)
            sender.join()

    def close(self) -> None:
        self._thread.join(30)
        self._listening.close()


def pour(connection: socket.socket) -> None:
    for _ in range(SIZE // len(PIECE)):
        connection.sendall(PIECE)


def resident(pid: int) -> tuple[int, int]:
    """Now, and the most there has been, in octets."""
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, most = (int(told[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def test_d7_memory_stays_flat(tmp_path: Path) -> None:
    """256 MiB up and 256 MiB down at once, through a worker of its own."""
    pipe = Pipe()
    with edgeproxy_process(f"http://127.0.0.1:{pipe.port}", tmp_path) as edge:
        before, _ = resident(edge.process.pid)
        with socket.create_connection(("127.0.0.1", edge.port), timeout=60) as client:
            client.sendall(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE)
            sender = threading.Thread(target=pour, args=(client,))
            sender.start()
            octets = b""
            while b"\r\n\r\n" not in octets:
                octets += client.recv(65_536)
            assert octets.startswith(b"HTTP/1.1 200")
            got = len(octets.partition(b"\r\n\r\n")[2])
            while got < SIZE and (piece := client.recv(2**20)):
                got += len(piece)
            sender.join()
        pipe.close()
        assert (got, pipe.taken) == (SIZE, SIZE)
        assert resident(edge.process.pid)[1] - before < GROWTH
