"""Clients of an HTTP server: connections that are held open, and requests that are sent when they are due.

Rules of this file:

- An open loop: a server that gets slow is not asked less. What finds no idle connection waits for one, and
  its time runs from when it was due. It waits PATIENCE at most: with requests that are nearly given up
  already, a crowd would keep a server busy for nobody for ever.
- Whichever connection has been idle for longest is next, so that all of them are used. A new one that nobody
  waits for asks at once, uncounted: who connects and says nothing is shut out (--head-timeout).
- Every answer is read to its end, by a strict parser, and judged.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httptools

from tests.load.scenes.body import body_of
from tests.load.scenes.record import DEADLINE, PATIENCE, Outcome, Second

if TYPE_CHECKING:
    from tests.load.scenes.record import Job

OPENING = 100
"""Connections that are being made at once."""
PAUSE = 0.05
"""Seconds before a connection is tried again."""
SWEEP = 0.2


@dataclass(slots=True, eq=False)
class Asked:
    """A request, ``due`` by the loop's clock; ``second`` counts it and ``answer`` is told of it, if given."""

    path: str
    due: float
    second: Second | None
    answer: asyncio.Future[bool] | None = None


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._asked: Asked | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._fields: dict[bytes, bytes] = {}
        self._sent = 0
        self.transport: asyncio.Transport | None = None

    @property
    def closed(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, asked: Asked, octets: bytes) -> None:
        assert self.transport is not None
        self._asked = asked
        self._sent += 1
        self.transport.write(octets)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(Outcome.BROKEN)

    def on_message_begin(self) -> None:
        self._body.clear()
        self._fields.clear()
        if self._asked is None:
            self._end(Outcome.BROKEN)  # an answer that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        asked, self._asked = self._asked, None
        if asked is None or self.transport is None:
            return
        status = self._parser.get_status_code()
        self._crowd.answered(asked, status, self._fields, b"".join(self._body))
        if not self._parser.should_keep_alive() or 0 < self._crowd.per_connection <= self._sent:
            self._end(Outcome.BROKEN)
        else:
            self._crowd.idle_again(self)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._end(Outcome.BROKEN)

    def _end(self, outcome: Outcome) -> None:
        """Close, and settle what was under way."""
        asked, self._asked = self._asked, None
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
            self._crowd.gone(self)
        if asked is not None:
            self._crowd.failed(asked, outcome)

    def close(self) -> None:
        self._end(Outcome.BROKEN)

    def time_out(self) -> None:
        self._end(Outcome.TIMEOUT)


class Crowd:
    """``connections`` of them are wanted; ``per_connection`` requests close one, 0: none does. ``greeting``
    is the path that a new one asks for."""

    def __init__(self, job: Job, greeting: str) -> None:
        self.greeting = greeting
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._waiting: deque[Asked] = deque()
        self._under_way: dict[Asked, Connection] = {}
        self._tls = _unverified() if job.tls else None
        self._number = 0
        self._wanted = asyncio.Event()
        self._rest = (
            f" HTTP/1.1\r\nHost: {job.authority}\r\nUser-Agent: load/1\r\nAccept: */*\r\n\r\n".encode()
        )
        self.connections = 0
        self.per_connection = 0

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def busy(self) -> bool:
        return bool(self._under_way or self._waiting)

    def want(self, connections: int, per_connection: int) -> None:
        """From now on. Those that are too many go when they are idle."""
        self.connections, self.per_connection = connections, per_connection
        while len(self._open) > connections and self._idle:
            self._idle.popleft().close()
        self._wanted.set()

    def ask(self, asked: Asked) -> None:
        while self._idle:
            connection = self._idle.popleft()
            if not connection.closed:
                self._send(connection, asked)
                return
        self._waiting.append(asked)

    def idle_again(self, connection: Connection) -> None:
        if len(self._open) > self.connections:
            connection.close()
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wanted.set()

    def answered(self, asked: Asked, status: int, fields: dict[bytes, bytes], body: bytes) -> None:
        self._under_way.pop(asked, None)
        outcome = self._judged(asked.path, status, fields, body)
        if asked.second is not None:
            asked.second.answered(status, word_of(fields), len(body))
        self._settle(asked, outcome)

    def failed(self, asked: Asked, outcome: Outcome) -> None:
        self._under_way.pop(asked, None)
        self._settle(asked, outcome)

    async def stay_open(self) -> None:
        """Keep as many connections as are wanted, until cancelled."""
        making: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wanted.clear()
                while len(self._open) + len(making) < self.connections and len(making) < OPENING:
                    task = asyncio.ensure_future(self._connect())  # noqa: TID251 - no part of the product
                    making.add(task)
                    task.add_done_callback(making.discard)
                    task.add_done_callback(lambda _: self._wanted.set())
                await self._wanted.wait()
        finally:
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)

    async def keep_deadlines(self) -> None:
        """Give up what is older than DEADLINE, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP)
            now = self._loop.time()
            while self._waiting and self._waiting[0].due <= now - PATIENCE:
                self._settle(self._waiting.popleft(), Outcome.UNCONNECTED)
            for connection in [c for asked, c in self._under_way.items() if asked.due <= now - DEADLINE]:
                connection.time_out()

    def close(self) -> None:
        self.connections = 0
        for connection in list(self._open):
            connection.close()

    # -- its own ------------------------------------------------------------------------------------------

    def _send(self, connection: Connection, asked: Asked) -> None:
        self._under_way[asked] = connection
        connection.send(asked, b"GET " + asked.path.encode() + self._rest)

    async def _connect(self) -> None:
        # A port is taken for each pair of addresses, and there are fewer than two for each of 30,000.
        self._number += 1
        spread = self._job.addresses
        local = None if spread == 1 else (f"127.0.0.{2 + self._number % spread}", 0)
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self), self._job.host, self._job.port, ssl=self._tls, local_addr=local
            )
        except OSError:
            await asyncio.sleep(PAUSE)
            return
        if connection.closed:
            return
        self._open.add(connection)
        if not self._waiting:
            self._waiting.append(Asked(self.greeting, self._loop.time(), None))
        self.idle_again(connection)

    def _judged(self, path: str, status: int, fields: dict[bytes, bytes], body: bytes) -> Outcome:
        if status >= 500:
            passed_on = b"fwd-status=" in fields.get(b"cache-status", b"")
            return Outcome.ORIGIN if passed_on else Outcome.EDGE
        if self._job.paths is not None:
            return Outcome.RIGHT
        return Outcome.RIGHT if status == 200 and body == body_of(path) else Outcome.WRONG

    def _settle(self, asked: Asked, outcome: Outcome) -> None:
        if asked.second is not None:
            took = min(self._loop.time() - asked.due, DEADLINE)
            asked.second.add(outcome, max(1, round(took * 1e6)))
        if asked.answer is not None and not asked.answer.done():
            asked.answer.set_result(outcome is Outcome.RIGHT)


def word_of(fields: dict[bytes, bytes]) -> str:
    """What the cache says it did: X-Cache-Status, else HIT or MISS by Cache-Status (RFC 9211), of the cache
    that is nearest to the client, the last one; NONE where it says nothing."""
    said = fields.get(b"x-cache-status")
    if said is not None:
        return said.decode("latin-1").strip().upper()
    member = fields.get(b"cache-status", b"").rpartition(b",")[2].replace(b" ", b"")
    if not member:
        return "NONE"
    if b";hit" in member:
        return "HIT"
    return "BYPASS" if b"fwd=bypass" in member or b"fwd=method" in member else "MISS"


def _unverified() -> ssl.SSLContext:
    """TLS to an edge that is tried out: its certificate may be anybody's."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
