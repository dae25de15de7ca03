"""aiohttp's view of one request and its answer, as thin as aiohttp lets it be.

Rules of this file: Wire stands where aiohttp expects a BaseRequest, Done where it expects a StreamResponse.
The handler has written the answer by itself when Done comes back; aiohttp only asks whether the connection
goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.http_writer import StreamWriter
    from aiohttp.streams import StreamReader

    from edgeproxy.engine.exchange import Exchange
    from edgeproxy.front.server import EdgeProtocol


class BodyBroken(ValueError):  # noqa: N818 - it is what happened
    """A request's body that cannot be parsed."""


class Wire:
    __slots__ = ("_task", "exchange", "message", "payload", "protocol", "segment", "vanished")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: EdgeProtocol,
        _writer: StreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        self.message = message
        self.payload = payload
        self.protocol = protocol
        self.exchange: Exchange | None = None
        self.vanished = False
        self.segment = protocol.segment
        """The octets this request came in, where it came alone and whole (front/lane.py)."""
        protocol.segment = None
        protocol.answering = True
        self._task = task

    def _finish(self) -> None:
        """aiohttp: the handler has returned."""

    def _cancel(self, exc: BaseException) -> None:
        """aiohttp: the connection is lost while the handler runs."""
        self.vanished = True
        self.payload.set_exception(exc)
        if self.exchange is not None:
            self.exchange.vanish()


class Done:
    """The answer is out. ``keep_alive``: the connection may be used again."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, _request: Any) -> None:
        """Written already."""

    async def write_eof(self) -> None:
        """Written already."""
