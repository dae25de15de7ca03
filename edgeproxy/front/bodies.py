"""What has come of the bodies of a connection's requests, and which request is therefore its last.

Rules of this file:

- aiohttp's C parser keeps the last field of a trailer section, and gives it to the next message as its first
  field: Authorization, Cookie, Host, whatever it was. So a request with trailers is its connection's last.
  The octets tell: chunks without trailers end with CHUNKS_END, and nothing else that is well-formed does.
- A request behind chunks in the same segment is not believed either: where they ended cannot be seen.
- The parser does not tell a body's reader that the rest of it is not well-formed; without being told, who
  reads would wait for ever, or take what is there for the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from edgeproxy.front.wire import BodyBroken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.streams import StreamReader

CHUNKS_END = b"\r\n0\r\n\r\n"


class Bodies:
    """Of one connection, from the first request that was not one whole head."""

    __slots__ = ("_body", "_chunked", "_ends", "last")

    def __init__(self) -> None:
        self._body: StreamReader = EMPTY_PAYLOAD
        """Of the newest request: what is on its way belongs to it."""
        self._chunked: RawRequestMessage | None = None
        """That request, while its chunks are on their way."""
        self._ends = b""
        """The last octets that came."""
        self.last: RawRequestMessage | None = None
        """The request whose answer is to be the connection's last."""

    def fed(self, data: bytes, came: Sequence[tuple[object, StreamReader]], *, paused: bool) -> None:
        """The parser has made ``came`` of ``data``. ``paused``: it may hold octets not looked at."""
        self._ends = data[-7:] if len(data) >= 7 else (self._ends + data)[-7:]
        bare = self._ends == CHUNKS_END and not paused
        if self._chunked is not None and self._body.is_eof():
            self._ended(self._chunked, well=bare and not came)
        for place, (message, payload) in enumerate(came, 1):
            if not isinstance(message, RawRequestMessage):
                self._break_off()
                return
            self._body = payload
            self._chunked = message if message.chunked else None
            if self._chunked is not None and payload.is_eof():
                self._ended(message, well=bare and place == len(came))

    def _ended(self, message: RawRequestMessage, *, well: bool) -> None:
        self._chunked = None
        if not well and self.last is None:
            self.last = message

    def _break_off(self) -> None:
        """A body that is under way gets no end of its own."""
        body = self._body
        if not body.is_eof():
            body.set_exception(BodyBroken("the request's body is not well-formed"))
            body.feed_eof()
