"""Writes one answer to one client connection, and knows whether the connection survives it.

Rules of this file:

- A whole answer is one write, a large one several: what a client that does not read costs is one SLICE. A
  stream is its head at once, then each piece as it comes. Neither goes faster than the client reads, and a
  client that reads nothing, or too slowly, is not waited for (unread.py).
- Framing is decided here: Content-Length where the length is known, chunks for HTTP/1.1, the end of the
  connection for HTTP/1.0 (RFC 9112 §6.3).
- An answer that cannot be finished ends the connection before its announced end: no client may take a part
  for the whole.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from edgeproxy.front.unread import PATIENCE, Pace, Unread
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.header_table import forwardable_answer
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

    from edgeproxy.clock import Clock
    from edgeproxy.engine.exchange import Reader
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.policy.head import ResponseHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends RST."""
SLICE = 256 * 1024
"""Octets of a whole body that are handed to the transport at once."""


class ClientGone(ConnectionError):  # noqa: N818 - it is what happened
    """The client's connection is lost; nothing more can be written."""


class Sender:
    """``message`` None: the request could not be parsed. ``keep_alive`` may be taken away until the head is
    out, and is by a drain: what a client was told of its connection is not taken back behind it."""

    __slots__ = (
        "_clock", "_close_delimited", "_http10", "_pace", "_protocol", "body_octets", "keep_alive", "started",
    )  # fmt: skip

    def __init__(
        self, protocol: EdgeProtocol, message: RawRequestMessage | None, clock: Clock, *, close: bool
    ) -> None:
        self._protocol = protocol
        self._clock = clock
        self._http10 = message is not None and message.version < (1, 1)
        self.keep_alive = not close
        self.started = False
        self.body_octets = 0
        self._close_delimited = False
        self._pace: Pace | None = None

    def go_on(self) -> None:
        """100 Continue: the client may send its body."""
        self._raw(CONTINUE)

    def interim(self, head: ResponseHead) -> None:
        """A 1xx of the origin, passed on before the final answer (RFC 9110 §15.2)."""
        if self._http10 or self.started or head.status == 100 or self._protocol.transport is None:
            return
        headers = forwardable_answer(head.headers).without({"content-length"})
        fields = b"".join(b"%b: %b\r\n" % f for f in headers.raw)
        self._raw(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason.encode("latin-1"), fields))

    def _raw(self, data: bytes) -> None:
        transport = self._protocol.transport
        if transport is None:
            raise ClientGone
        transport.write(data)

    def _connection(self) -> bytes:
        if not self.keep_alive:
            return CLOSE
        return KEEP_ALIVE if self._http10 else b""

    async def whole(self, head: bytes, body: bytes) -> None:
        """One write, or several. ``head`` without its Connection field and its empty line."""
        protocol = self._protocol
        transport = protocol.transport
        if transport is None:
            raise ClientGone
        self.started = True
        if protocol.edge.handler.draining:
            self.keep_alive = False
        head = b"%b%b\r\n" % (head, self._connection())
        if len(body) > SLICE:
            transport.write(head)
            await self._slices(body)
            return
        if body:
            transport.writelines((head, body))
            self.body_octets += len(body)
        else:
            transport.write(head)
        if protocol.writing_paused:
            await self._drain()

    async def _slices(self, body: bytes) -> None:
        protocol = self._protocol
        view = memoryview(body)
        for start in range(0, len(body), SLICE):
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise ClientGone
            piece = view[start : start + SLICE]
            transport.write(piece)
            self.body_octets += len(piece)
            if protocol.writing_paused:
                await self._drain()

    async def stream(self, head: bytes, reader: Reader) -> None:
        """Head at once, then each piece as it comes. Raises OriginError where the body broke off."""
        length = reader.length
        chunked = length is None and not self._http10
        if length is not None:
            head += b"Content-Length: %d\r\n" % length
        elif chunked:
            head += b"Transfer-Encoding: chunked\r\n"
        else:
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
            self._close_delimited = True
        await self.whole(head, b"")
        protocol = self._protocol
        while chunk := await reader.read():
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise ClientGone
            if chunked:
                transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
            else:
                transport.write(chunk)
            self.body_octets += len(chunk)
            if protocol.writing_paused:
                await self._drain()
        if length is not None and self.body_octets != length:
            raise OriginError(OriginFailure.TRUNCATED, f"{self.body_octets} of {length} octets")
        if chunked and (transport := protocol.transport) is not None:
            transport.write(b"0\r\n\r\n")

    async def _drain(self) -> None:
        """Wait until the client has read enough. A body on its way holds a place at the origin, so one who
        reads nothing is not waited for."""
        transport = self._protocol.transport
        if transport is None:
            raise ClientGone
        unread = Unread(self._clock, transport, PATIENCE)
        if self._pace is None:
            self._pace = Pace(self._clock, self._protocol.edge.least)
        self._pace.begin(transport, self.body_octets)
        try:
            await self._protocol._drain_helper()  # noqa: SLF001 - server.py, verify()
        except ConnectionError as error:
            raise ClientGone from error
        finally:
            unread.cancel()
            self._pace.end()
        if self._protocol.transport is None:
            raise ClientGone

    def abort(self) -> None:
        """End the connection so that no client can take what it has for the whole."""
        self.keep_alive = False
        transport = self._protocol.transport
        if transport is None:
            return
        if self._close_delimited:
            # The proper end of the connection would be the proper end of the body.
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()
