"""A raw TCP client with a strict response parser of its own: it believes nothing.

Rules of this file:

- An answer whose head or chunk framing is not exactly what RFC 9112 allows raises MalformedAnswer.
- An answer that ends before its announced end is returned with ``complete=False``: truncation is what
  many tests look for, so it is a value and not an error.
- Nothing is decoded, joined or normalised: fields are a list of (name, value) as they came.
- Each wait has a deadline in real time, so that a test that hangs says for what.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.support.toxic import reset_transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from types import TracebackType

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e]*)?")
_DIGITS = re.compile(rb"\d{1,18}")


class MalformedAnswer(AssertionError):  # noqa: N818  (it is the finding of a test)
    """What came is not an HTTP/1.1 answer."""


@dataclass
class RawAnswer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    """Names in lower case, values in Latin-1, in order, repeated ones kept."""
    body: bytes = b""
    complete: bool = False
    """The body came to its announced end (for a close-delimited one: the connection ended with FIN)."""
    chunked: bool = False
    length: int | None = None
    version: str = "1.1"
    raw: bytes = b""
    """Every octet of it, head included."""
    interim: list[RawAnswer] = field(default_factory=list)
    """The 1xx answers before it."""

    def get(self, name: str) -> str | None:
        """The one value of a field; a repeated field is joined by ", "."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.headers if n == name.lower()]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    @property
    def keep_alive(self) -> bool:
        tokens = {t.strip().lower() for t in (self.get("connection") or "").split(",")}
        return "close" not in tokens and (self.version == "1.1" or "keep-alive" in tokens)


class RawClient:
    """One connection. ``async with RawClient(port=8080) as c: answer = await c.request("GET", "/")``."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 80,
        *,
        unix: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        receive_buffer: int | None = None,
    ) -> None:
        self.host, self.port, self.unix, self.tls = host, port, unix, tls
        self.timeout = timeout
        self._limit = receive_buffer or 2**20
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._raw = bytearray()
        self.was_reset = False

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def connect(self) -> None:
        async with asyncio.timeout(self.timeout):
            if self.unix is not None:
                self._reader, self._writer = await asyncio.open_unix_connection(self.unix, limit=self._limit)
            else:
                self._reader, self._writer = await asyncio.open_connection(
                    self.host, self.port, limit=self._limit, ssl=self.tls
                )

    async def aclose(self) -> None:
        if self._writer is not None:
            self._writer.close()
            try:
                async with asyncio.timeout(self.timeout):
                    await self._writer.wait_closed()
            except OSError:
                pass
            self._writer = None

    def reset(self) -> None:
        """Leave with RST, as a client does that died."""
        reset_transport(self.writer.transport)

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self.writer.write_eof()

    @property
    def reader(self) -> asyncio.StreamReader:
        assert self._reader is not None, "not connected"
        return self._reader

    @property
    def writer(self) -> asyncio.StreamWriter:
        assert self._writer is not None, "not connected"
        return self._writer

    async def send(self, data: bytes) -> None:
        """These octets, as they are."""
        self.writer.write(data)
        async with asyncio.timeout(self.timeout):
            await self.writer.drain()

    async def start(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        body: bytes | None = None,
        host: str | None = "example.test",
    ) -> None:
        """Send a request and do not wait. ``Host`` and ``Content-Length`` are added unless given."""
        fields = list(headers)
        names = {n.lower() for n, _ in fields}
        if host is not None and "host" not in names:
            fields.insert(0, ("Host", host))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields), "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + (body or b""))

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        body: bytes | None = None,
        host: str | None = "example.test",
    ) -> RawAnswer:
        """Send a request and read its answer."""
        await self.start(method, target, headers, body=body, host=host)
        return await self.read_answer(method)

    async def get(self, target: str, headers: Iterable[tuple[str, str]] = ()) -> RawAnswer:
        return await self.request("GET", target, headers)

    async def read_answer(self, method: str = "GET") -> RawAnswer:
        """One answer with its body, 1xx before it collected. ConnectionError when none came at all."""
        answer = await self.read_head()
        return await self.read_body(answer, method)

    async def read_head(self) -> RawAnswer:
        """The head of the next answer that is not 1xx (101 is final)."""
        interim: list[RawAnswer] = []
        while True:
            answer = await self._one_head()
            if answer.status >= 200 or answer.status == 101:
                answer.interim = interim
                return answer
            answer.complete = True
            interim.append(answer)

    async def read_body(self, answer: RawAnswer, method: str = "GET") -> RawAnswer:
        """The body of an answer whose head was read; sets ``complete``."""
        try:
            if method == "HEAD" or answer.status in {101, 204, 304}:
                answer.complete = True
            elif answer.chunked:
                await self._chunked(answer)
            elif answer.length is not None:
                answer.complete = await self._exactly(answer, answer.length)
            else:
                while piece := await self._some():
                    answer.body += piece
                answer.complete = not self.was_reset
        finally:
            answer.raw = answer.raw + bytes(self._raw)
            self._raw.clear()
        return answer

    async def read_some(self) -> bytes:
        """Some octets as they come, b"" at the end of the connection. For bodies read piece by piece."""
        piece = await self._some()
        self._raw.clear()
        return piece

    async def at_end(self) -> bool:
        """Wait for the peer to end the connection: True when nothing else came before that."""
        return not await self.read_some()

    # -- parsing ------------------------------------------------------------------------------------

    async def _some(self) -> bytes:
        try:
            async with asyncio.timeout(self.timeout):
                piece = await self.reader.read(65536)
        except ConnectionError:
            self.was_reset = True
            return b""
        self._raw += piece
        return piece

    async def _line(self) -> bytes:
        """A line without its CRLF. A bare LF is malformed. b"" without a line raises EOFError."""
        try:
            async with asyncio.timeout(self.timeout):
                line = await self.reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            self._raw += error.partial
            raise EOFError(error.partial) from None
        except ConnectionError:
            self.was_reset = True
            raise EOFError(b"") from None
        self._raw += line
        if not line.endswith(b"\r\n"):
            raise MalformedAnswer(f"a line ends without CR: {line!r}")
        return line[:-2]

    async def _exactly(self, answer: RawAnswer, count: int) -> bool:
        """Read ``count`` octets into the body; False when the connection ended first."""
        try:
            async with asyncio.timeout(self.timeout):
                piece = await self.reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            piece = error.partial
        except ConnectionError:
            self.was_reset = True
            piece = b""
        self._raw += piece
        answer.body += piece
        return len(piece) == count

    async def _one_head(self) -> RawAnswer:
        self._raw.clear()
        try:
            line = await self._line()
        except EOFError as error:
            raise ConnectionError(f"the connection ended before an answer: {error.args[0]!r}") from None
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise MalformedAnswer(f"not a status line: {line!r}")
        answer = RawAnswer(
            int(found[2]), found[3].decode("latin-1"), [], version="1." + found[1].decode("ascii")
        )
        try:
            while line := await self._line():
                pair = _FIELD.fullmatch(line)
                if pair is None:
                    raise MalformedAnswer(f"not a field line: {line!r}")
                answer.headers.append((pair[1].decode("ascii").lower(), pair[2].decode("latin-1")))
        except EOFError:
            raise ConnectionError("the connection ended inside a head") from None
        self._framing(answer)
        answer.raw = bytes(self._raw)
        self._raw.clear()
        return answer

    @staticmethod
    def _framing(answer: RawAnswer) -> None:
        lengths, codings = answer.all("content-length"), answer.all("transfer-encoding")
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise MalformedAnswer(f"ambiguous framing: {lengths} {codings}")
        if lengths:
            if not _DIGITS.fullmatch(lengths[0].encode("latin-1")):
                raise MalformedAnswer(f"not a length: {lengths[0]!r}")
            answer.length = int(lengths[0])
        if codings:
            if codings[0].lower() != "chunked":
                raise MalformedAnswer(f"unknown transfer coding: {codings[0]!r}")
            answer.chunked = True

    async def _chunked(self, answer: RawAnswer) -> None:
        try:
            while True:
                line = await self._line()
                found = _CHUNK_SIZE.fullmatch(line)
                if found is None:
                    raise MalformedAnswer(f"not a chunk size: {line!r}")
                size = int(found[1], 16)
                if size == 0:
                    break
                if not await self._exactly(answer, size):
                    return
                if await self._line() != b"":
                    raise MalformedAnswer("a chunk is longer than its size")
            while trailer := await self._line():
                if _FIELD.fullmatch(trailer) is None:
                    raise MalformedAnswer(f"not a trailer field: {trailer!r}")
            answer.complete = True
        except EOFError:
            return
