"""Both ends of a WebSocket, octet by octet: what no library would send.

Rules of this file: frames are written and read here by hand, by nothing of the product's. The origin makes
the handshake and then belongs to the test; every wait has an end.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.support.rawclient import RawClient
from tests.support.toxic import reset_transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from types import TracebackType

    from tests.support.edge import Edge
    from tests.support.rawclient import RawAnswer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x01\x02\x03\x04"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The pair of RFC 6455 §1.3."""
HANDSHAKE = (
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)
PATIENCE = 10.0


def made(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    wide: int = 0,
) -> bytes:
    """A frame. ``wide``: octets of extended length, as short as possible where 0."""
    size = len(payload)
    wide = wide or (0 if size < 126 else 2 if size < 65536 else 8)
    length = {0: size, 2: 126, 8: 127}[wide]
    head = bytes([(0x80 if fin else 0) | reserved | opcode, length | (0x80 if masked else 0)])
    head += size.to_bytes(wide) if wide else b""
    return head + (MASK + masks(payload, MASK) if masked else payload)


def masks(payload: bytes, key: bytes) -> bytes:
    whole = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)])
    return (int.from_bytes(payload) ^ whole).to_bytes(len(payload)) if payload else b""


def closing(code: int, reason: bytes = b"", *, masked: bool = True) -> bytes:
    return made(CLOSE, code.to_bytes(2) + reason, masked=masked)


def accept_of(key: str) -> str:
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - RFC 6455
    return base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    fin: bool
    masked: bool

    @property
    def code(self) -> int:
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2])


async def read_frame(reader: asyncio.StreamReader, patience: float = PATIENCE) -> Frame:
    """Raises IncompleteReadError or ConnectionError at the end of the connection."""
    async with asyncio.timeout(patience):
        first, second = await reader.readexactly(2)
        length = second & 127
        if length > 125:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        key = await reader.readexactly(4) if second & 128 else b""
        payload = await reader.readexactly(length)
    return Frame(first & 15, masks(payload, key) if key else payload, bool(first & 128), bool(key))


async def at_end(reader: asyncio.StreamReader) -> bool:
    """Nothing else comes, and the connection ends (with FIN or RST)."""
    try:
        async with asyncio.timeout(PATIENCE):
            return not await reader.read(1)
    except ConnectionError:
        return True


@dataclass
class OriginEnd:
    """One connection at the origin, after the handshake."""

    head: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    async def frame(self) -> Frame:
        return await read_frame(self.reader)

    def reset(self) -> None:
        reset_transport(self.writer.transport)


class RawSocketOrigin:
    """Accepts each handshake with ``fields`` added, and ``behind`` in the same segment."""

    def __init__(
        self,
        fields: Iterable[tuple[str, str]] = (),
        behind: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.fields, self.behind, self.tls = list(fields), behind, tls
        self._ends: asyncio.Queue[OriginEnd] = asyncio.Queue()
        self._all: list[OriginEnd] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for end in self._all:
            end.writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        key = next(
            (line[19:] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key: ")), ""
        )
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        fields += [("Sec-WebSocket-Accept", accept_of(key)), *self.fields]
        lines = ["HTTP/1.1 101 Switching Protocols", *(f"{n}: {v}" for n, v in fields), "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + self.behind)
        end = OriginEnd(head, reader, writer)
        self._all.append(end)
        self._ends.put_nowait(end)

    async def end(self) -> OriginEnd:
        """The next connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._ends.get()


class SocketClient(RawClient):
    """A raw client that has shaken hands."""

    @classmethod
    async def open(
        cls, edge: Edge, target: str = "/ws", fields: Iterable[tuple[str, str]] = (), behind: bytes = b""
    ) -> tuple[Self, RawAnswer]:
        """``behind`` comes in the same segment as the handshake."""
        client = cls("127.0.0.1", edge.worker.port)
        await client.connect()
        await client.start("GET", target, [*HANDSHAKE, *fields], body=None)
        if behind:
            client.writer.write(behind)
        answer = await client.read_head()
        return client, answer

    async def frame(self) -> Frame:
        return await read_frame(self.reader)
