"""A raw TCP origin that does exactly what its script says and writes down all that it is asked.

Rules of this file:

- A path has a script: a list of steps, or a function of the request that makes one. Steps are octets to
  write (or a function that makes them of the request when their turn comes, its body read), ``Gate`` (wait
  until the test opens it), ``READ_BODY``, ``FIN``, ``RST``. Scripts set with
  ``times=n`` are used up first, in the order of setting; then the standing one; then the default handler.
- What an answer says is fixed when its request arrives, before any gate: an answer that waits at a gate is
  an old answer. Its body is stamped with the path's version (``bump(path)`` makes the next one) and with a
  serial number that no two answers share.
- ``requests`` holds every request whose head was complete, in order of arrival, before anything is
  answered; ``await arrived(path, n)`` is a barrier on it. Nothing here sleeps.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, Self

from tests.support.toxic import reset_transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Iterable, Sequence
    from types import TracebackType

    from edgeproxy.clock import Clock

_PATIENCE = 10.0
"""Real seconds after which a barrier gives up and says what it was waiting for."""
_HEAD_LIMIT = 2**20


class _Mark:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


FIN: Final = _Mark("FIN")
"""Close the connection in the proper way."""
RST: Final = _Mark("RST")
"""Break the connection."""
READ_BODY: Final = _Mark("READ_BODY")
"""Read the request's body to its end. Where a script has none, the body is read first."""
HALF: Final = _Mark("HALF")
"""Send FIN and go on with the script (and keep the connection's other half open)."""


@dataclass(frozen=True)
class Gate:
    """A step: wait until ``origin.gate(name).open()``."""

    name: str


@dataclass
class Recorded:
    """A request as it came."""

    raw_head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    """Names as they were written, values in Latin-1."""
    connection: int
    """Number of the connection, from 1."""
    order: int
    """Number of the request on its connection, from 1."""
    body: bytearray = field(default_factory=bytearray)
    """As far as it was read, chunk framing removed."""
    body_complete: bool = False
    version: int = 1
    """Of the path, when the request arrived."""
    serial: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def get(self, name: str) -> str | None:
        """A field's values joined by ", "; None where there is none."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.headers if n.lower() == name.lower()]


Step = bytes | Gate | _Mark | Callable[[Recorded], bytes]

if TYPE_CHECKING:
    Script = Sequence[Step] | Callable[[Recorded], Sequence[Step]]


class GateHandle:
    """Closed until opened; counts who waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._event = asyncio.Event()
        self._bell = Bell()
        self.waiting = 0

    def open(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._event.clear()

    async def pass_through(self) -> None:
        self.waiting += 1
        self._bell.ring()
        try:
            await self._event.wait()
        finally:
            self.waiting -= 1

    async def reached(self, n: int = 1) -> None:
        """Wait until ``n`` answers stand at the gate."""
        await self._bell.until(lambda: self.waiting >= n, f"{n} answers at gate {self.name!r}")


class Bell:
    """Wait until something is so, looking again each time it rings."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not condition():
                    await self._event.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}") from None


def head(status: int, headers: Iterable[tuple[str, str]] = (), reason: str = "") -> bytes:
    """The octets of a response head, empty line included."""
    lines = [f"HTTP/1.1 {status} {reason or 'Status'}", *(f"{n}: {v}" for n, v in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk; ``chunk(b"")`` is the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class LedgerOrigin:
    """``async with LedgerOrigin() as origin:`` listens on ``origin.url``; see the module's docstring."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        unix: str | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.host, self.port, self.unix, self.tls = host, 0, unix, tls
        self._clock = clock
        self.cache_control: str | None = "max-age=60"
        """Of the default handler and of replies that name no Cache-Control of their own; None: leave out."""
        self.requests: list[Recorded] = []
        self.connections = 0
        """Accepted so far."""
        self._standing: dict[str, Script] = {}
        self._queued: dict[str, deque[Script]] = {}
        self._versions: dict[str, int] = {}
        self._gates: dict[str, GateHandle] = {}
        self._bell = Bell()
        self._server: asyncio.Server | None = None
        self._open: dict[int, asyncio.StreamWriter] = {}
        self._at_gate: dict[int, asyncio.Task[object]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    # -- life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after ``stop()`` on the same port again."""
        loop = asyncio.get_running_loop()
        if self.unix is not None:
            self._server = await loop.create_unix_server(self._protocol, self.unix)
            return
        self._server = await loop.create_server(self._protocol, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break every connection: a dead origin."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop_connections()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop_connections(self, *, reset: bool = False) -> None:
        """End every open connection, with FIN or RST."""
        for writer in list(self._open.values()):
            if reset:
                reset_transport(writer.transport)
            else:
                writer.close()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def connections_are(self, n: int) -> None:
        """Wait until exactly ``n`` connections are open."""
        await self._bell.until(
            lambda: len(self._open) == n, f"{n} open connections (there are {len(self._open)})"
        )

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """What an origin client is given to reach it."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    def _protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    def _peer_left(self, number: int) -> None:
        """The other side ended connection ``number``: an answer that stands at a gate has no reader."""
        self._open.pop(number, None)
        if number in self._at_gate:
            self._at_gate[number].cancel()
        self._bell.ring()

    # -- scripting ----------------------------------------------------------------------------------

    def script(self, path: str, steps: Script, *, times: int | None = None) -> None:
        """Answer ``path`` (a target with its query, or a path for any query) by these steps."""
        if times is None:
            self._standing[path] = steps
        else:
            self._queued.setdefault(path, deque()).extend([steps] * times)

    def reply(
        self,
        path: str,
        *,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Callable[[Recorded], bytes] | None = None,
        gate: str | None = None,
        body_gate: str | None = None,
        chunked: bool = False,
        etag: bool = False,
        early: bool = False,
        times: int | None = None,
    ) -> None:
        """A whole answer: ``gate`` waits before the head, ``body_gate`` between head and body.

        ``body`` None is the stamp of the path's version. ``etag``: add ``ETag: "v<version>"`` and answer
        a matching If-None-Match with 304. ``early``: answer without reading the request's body.
        """
        fields = list(headers)

        def make(request: Recorded) -> Sequence[Step]:
            return self._answer(
                request, status, fields, body,
                gate=gate, body_gate=body_gate, chunked=chunked, etag=etag, early=early,
            )  # fmt: skip

        self.script(path, make, times=times)

    def bump(self, path: str) -> int:
        """The next version of the content at ``path``; its number."""
        self._versions[path] = self.version(path) + 1
        return self._versions[path]

    def version(self, path: str) -> int:
        return self._versions.get(path, 1)

    def forget(self) -> None:
        """Neither scripts nor requests, as at the start: for tests that share an origin."""
        self._standing.clear()
        self._queued.clear()
        self.requests.clear()

    def gate(self, name: str) -> GateHandle:
        return self._gates.setdefault(name, GateHandle(name))

    @staticmethod
    def stamp(path: str, version: int) -> bytes:
        """The body that answers carry unless told another."""
        return f"{path} version {version}\n".encode("latin-1")

    # -- reading the ledger -------------------------------------------------------------------------

    def of(self, path: str) -> list[Recorded]:
        """The requests for a path (any query), or for a target with exactly this query."""
        return [r for r in self.requests if path == (r.target if "?" in path else r.path)]

    def count(self, path: str) -> int:
        return len(self.of(path))

    async def arrived(self, path: str, n: int = 1) -> Recorded:
        """Wait until ``n`` requests for ``path`` have arrived; the n-th."""
        await self._bell.until(
            lambda: self.count(path) >= n, f"request {n} for {path} (saw {[r.target for r in self.requests]})"
        )
        return self.of(path)[n - 1]

    async def body_arrived(self, request: Recorded, octets: int | None = None) -> None:
        """Wait until so many octets of a request's body have been read; None: all of it."""
        await self._bell.until(
            lambda: request.body_complete if octets is None else len(request.body) >= octets,
            f"the body of {request.method} {request.target} (have {len(request.body)} octets)",
        )

    # -- serving ------------------------------------------------------------------------------------

    def _accept(self, writer: asyncio.StreamWriter) -> int:
        self.connections += 1
        self._open[self.connections] = writer
        self._bell.ring()
        return self.connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        order = 0
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                order += 1
                request = self._record(raw, number, order)
                if not await self._perform(request, reader, writer):
                    break
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.pop(number, None)
            self._tasks.discard(task)
            writer.close()
            self._bell.ring()

    def _record(self, raw: bytes, connection: int, order: int) -> Recorded:
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(n, v.strip(" \t")) for n, _, v in (line.partition(":") for line in lines)]
        request = Recorded(raw, method, target, headers, connection, order)
        request.version = self.version(request.path)
        request.serial = len(self.requests) + 1
        self.requests.append(request)
        return request

    def _script_for(self, request: Recorded) -> Script:
        for name in (request.target, request.path):
            if self._queued.get(name):
                return self._queued[name].popleft()
        for name in (request.target, request.path):
            if name in self._standing:
                return self._standing[name]
        return lambda r: self._answer(r, 200, [], None, etag=True)

    async def _perform(
        self, request: Recorded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Run the script of one request; False when the connection ended with it."""
        found = self._script_for(request)
        steps = found(request) if callable(found) else found
        self._bell.ring()
        if READ_BODY not in steps:
            await self._read_body(request, reader, writer)
        for step in steps:
            if callable(step):
                step = step(request)  # noqa: PLW2901
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Gate):
                task = asyncio.current_task()
                assert task is not None
                self._at_gate[request.connection] = task
                try:
                    await self.gate(step.name).pass_through()
                finally:
                    del self._at_gate[request.connection]
            elif step is READ_BODY:
                await self._read_body(request, reader, writer)
            elif step is HALF:
                writer.write_eof()
            elif step is RST:
                reset_transport(writer.transport)
                return False
            else:
                return False
        return request.body_complete

    async def _read_body(
        self, request: Recorded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.body_complete:
            return
        if (request.get("expect") or "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (request.get("transfer-encoding") or "").lower() == "chunked":
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await self._read_exactly(request, reader, size)
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        else:
            await self._read_exactly(request, reader, int(request.get("content-length") or 0))
        request.body_complete = True
        self._bell.ring()

    async def _read_exactly(self, request: Recorded, reader: asyncio.StreamReader, count: int) -> None:
        while count:
            piece = await reader.read(min(count, 65536))
            if not piece:
                raise EOFError
            request.body += piece
            count -= len(piece)
            self._bell.ring()

    def _answer(
        self,
        request: Recorded,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes | Callable[[Recorded], bytes] | None,
        *,
        gate: str | None = None,
        body_gate: str | None = None,
        chunked: bool = False,
        etag: bool = False,
        early: bool = False,
    ) -> Sequence[Step]:
        if body is None:
            content = self.stamp(request.path, request.version)
        else:
            content = body(request) if callable(body) else body
        fields = list(headers)
        names = {n.lower() for n, _ in fields}
        tag = f'"v{request.version}"'
        if etag and "etag" not in names:
            fields.append(("ETag", tag))
        if self.cache_control is not None and "cache-control" not in names:
            fields.append(("Cache-Control", self.cache_control))
        if self._clock is not None and "date" not in names:
            fields.append(("Date", formatdate(self._clock.now(), usegmt=True)))
        fields += [("X-Version", str(request.version)), ("X-Serial", str(request.serial))]
        before: list[Step] = [Gate(gate)] if gate else []
        offered = [t.strip().removeprefix("W/") for t in (request.get("if-none-match") or "").split(",")]
        if etag and request.method in {"GET", "HEAD", "QUERY"} and (tag in offered or "*" in offered):
            status = 304
        bodyless = status in {204, 304} or status < 200
        if chunked and not bodyless:
            fields.append(("Transfer-Encoding", "chunked"))
        elif not bodyless and "content-length" not in names:
            fields.append(("Content-Length", str(len(content))))
        steps: list[Step] = [*before, head(status, fields)]
        if body_gate:
            steps.append(Gate(body_gate))
        if request.method != "HEAD" and not bodyless:
            if not chunked:
                steps.append(content)
            elif content:
                steps += [chunk(content), chunk(b"")]
            else:
                steps.append(chunk(b""))
        return [*steps, READ_BODY] if early else steps


class _Connection(asyncio.StreamReaderProtocol):
    """A stream that tells its origin when the peer has left, whatever its handler is waiting for."""

    def __init__(self, origin: LedgerOrigin) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(asyncio.StreamReader(_HEAD_LIMIT, loop), self._handle, loop)
        self._origin = origin
        self._number = 0

    def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        self._number = self._origin._accept(writer)
        return self._origin._serve(reader, writer, self._number)

    def eof_received(self) -> bool | None:
        self._origin._peer_left(self._number)
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._origin._peer_left(self._number)
        super().connection_lost(exc)


__all__ = [
    "FIN",
    "HALF",
    "READ_BODY",
    "RST",
    "Gate",
    "LedgerOrigin",
    "Recorded",
    "chunk",
    "head",
]
