"""aiohttp's connection handler, ours where it has to be.

Rules of this file:

- aiohttp parses, keeps connections alive and queues pipelined requests; nothing here parses HTTP.
- Every private name of aiohttp that the front uses is in this file, in wire.py, or in Sender._drain, and
  verify() checks them at start: an upgrade that moves one is refused, loudly, before it serves.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import http_parser, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from edgeproxy.engine.exchange import FromEdge
from edgeproxy.front.bodies import Bodies
from edgeproxy.front.doors import TurnedAway
from edgeproxy.front.request import MOST_FIELDS
from edgeproxy.front.unread import FAREWELL, Unread, unsent
from edgeproxy.front.wire import Done, Wire

if TYPE_CHECKING:
    import asyncio

    from aiohttp.streams import StreamReader

    from edgeproxy.front.doors import Doors
    from edgeproxy.front.handler import Handler
    from edgeproxy.front.heads import Heads
    from edgeproxy.front.pending import Pending

log = logging.getLogger("edgeproxy.front")

HEAD_END = b"\r\n\r\n"
ONE_REQUEST = 86_400.0
"""Seconds that a request under way keeps its connection from counting as idle: no limit of its own."""
MOST_HELD = 64 * 1024
"""Octets behind a request under way; more are left to the socket."""
TOO_MANY_FIELDS = "Too many headers"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
REFUSALS = {
    400: "The request is not well-formed HTTP.",
    414: "The request target is too long.",
    431: "The request's fields are too many or too large.",
}

PRIVATE = (
    "_process_keepalive", "_handle_request", "finish_response", "handle_error", "_drain_helper",
    "_make_error_handler", "_messages", "_close", "_force_close", "_upgraded", "_request_count",
    "_message_tail", "_buffer_paused",
    "_next_keepalive_close_time", "_keepalive_timeout", "_request_in_progress",
    "_keepalive", "_keepalive_handle", "_waiter", "_parser",
)  # fmt: skip


def verify() -> None:
    """Raises RuntimeError where aiohttp is not as this file expects it."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp's C parser is missing; edgeproxy does not serve with the Python one.")
    missing = [name for name in PRIVATE if not hasattr(RequestHandler, name)]
    if missing:
        raise RuntimeError(f"this aiohttp lacks what edgeproxy uses: {', '.join(missing)}")


class EdgeProtocol(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_begun",
        "_bodies",
        "_held",
        "_held_paused",
        "answering",
        "body",
        "clean",
        "client",
        "edge",
        "last",
        "partial",
        "pending",
        "place",
        "scheme",
        "segment",
    )

    def __init__(self, server: EdgeServer, **options: Any) -> None:
        super().__init__(server, **options)
        self.edge = server
        self.client = ""
        self.scheme = "http"
        self.place: str | None = None
        """What it holds of the connections that there may be (doors.py)."""
        self.body: StreamReader | None = None
        """Of the request that came last, while it is on its way."""
        self.partial = False
        """What came last is the beginning of a head."""
        self._begun = 0
        """Octets of that."""
        self.clean = True
        """Every segment so far was one whole head that gave one message without a body: the next segment is
        the start of a request, and aiohttp's parser holds nothing that it has not told."""
        self.pending: Pending | None = None
        """A request that the short way is waiting with (pending.py)."""
        self._bodies: Bodies | None = None
        """Where the connection is not clean."""
        self._held = b""
        self._held_paused = False
        self.segment: bytes | None = None
        self.last: object = None
        """A request behind which something may have been dropped: its answer is the connection's last."""
        self.answering = False
        """A request is being answered, or the last answer was the connection's last."""

    def data_received(self, data: bytes) -> None:
        if self.pending is not None:
            self._hold(data)
            return
        if not self.clean:
            before, in_body = len(self._messages), self._in_body
            super().data_received(data)
            self._mind_the_head(before, len(data), in_body=in_body or not data)
            self._mind_the_bodies(before, data)
            if self._messages and data.find(HEAD_END) != len(data) - 4:
                self._mind_the_rest()
            return
        # aiohttp's own task may still be on its way back from the last answer; that answer is written, so
        # the next one may follow. Waiting for the task would keep a busy worker from ever using the lane.
        idle = not self._messages and not self.answering
        ends = data.endswith(HEAD_END)
        if idle and ends and data.startswith(b"GET ") and not self._close and not self._force_close:
            handler = self.edge.handler
            lane = handler.lane
            if lane is not None and lane.answer(self, data):
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                self._request_count += 1
                return
            short = handler.short
            if short is not None and short.known(self, data):
                self._request_count += 1
                return
        whole = ends and data.find(HEAD_END) == len(data) - 4
        if whole and idle:
            self._one_head(data)
            return
        before, in_body = len(self._messages), self._in_body
        super().data_received(data)
        self._mind_the_head(before, len(data), in_body=in_body or not data)
        # An error is a message with an empty payload too, but it ends the connection.
        self.clean = (
            whole
            and len(self._messages) == before + 1
            and self._messages[-1][1] is EMPTY_PAYLOAD
            and not self._upgraded
        )
        if not self.clean:
            self.segment = None
            self._mind_the_bodies(before, data)
            if not whole and len(self._messages) > before:
                self._mind_the_rest()

    @property
    def _in_body(self) -> bool:
        body = self.body
        if body is not None and body.is_eof():
            body = self.body = None
        return body is not None

    def _mind_the_head(self, before: int, octets: int, *, in_body: bool) -> None:
        """A head that has begun has to come to its end in time (heads.py), and before it is too large: the
        parser keeps what has come of it, and knows limits for a line and for how many, not for all."""
        if len(self._messages) > before:
            self.body = self._messages[-1][1]
            if self.partial:
                self.partial = False
                self.edge.heads.forget(self)
            return
        if in_body or self._upgraded:
            return
        if not self.partial:
            self.partial = True
            self._begun = 0
            if self._request_count:  # else it counts from the connection's beginning
                self.edge.heads.expect(self)
        self._begun += octets
        if self._begun > MOST_FIELDS + 2 * self.max_line_size:
            self.edge.heads.too_large += 1
            self._end_the_head(TOO_LARGE)

    @property
    def head_is_missing(self) -> bool:
        return self.partial or not self._request_count

    def head_is_late(self) -> None:
        transport = self.transport
        if not self.is_idle:
            self.edge.heads.expect(self)  # an answer is on its way, which is not to be cut
        elif transport is not None:
            self._end_the_head(TOO_LATE)

    def _end_the_head(self, answer: bytes) -> None:
        """Nobody waits for the rest of it: with ``answer``, where nothing else is on its way."""
        transport = self.transport
        if transport is None:
            return
        if self.is_idle and self.partial and not transport.get_write_buffer_size():
            transport.write(answer)
        self.force_close()

    def _mind_the_bodies(self, before: int, data: bytes) -> None:
        bodies = self._bodies
        if bodies is None:
            bodies = self._bodies = Bodies()
        came = [self._messages[place] for place in range(before, len(self._messages))]
        bodies.fed(data, came, paused=self._buffer_paused)
        if self.last is None:
            self.last = bodies.last

    def _mind_the_rest(self) -> None:
        """What comes, in one segment, behind a request that offers a protocol other than WebSocket, is
        dropped by aiohttp's parser. That request is answered, and its connection ends."""
        message = self._messages[-1][0]
        if getattr(message, "upgrade", False) and not self._upgraded and self.last is None:
            self.last = message

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Leave HTTP: from now on the connection is ``protocol``'s, which tells our connection_lost of its
        end. Gives the transport and what came behind the request that switches."""
        transport = self.transport
        assert transport is not None  # noqa: S101
        early, self._message_tail = self._message_tail, b""
        transport.set_protocol(protocol)
        if self._buffer_paused:
            transport.resume_reading()
        return transport, early

    def _one_head(self, data: bytes) -> None:
        """``data`` looks like one whole head: parsed, and answered the short way or left to aiohttp."""
        queue, self._messages = self._messages, deque()
        self.segment = data
        waiter, self._waiter = self._waiter, None  # who waits is woken only if there is something for him
        try:
            super().data_received(data)
        finally:
            came, self._messages = self._messages, queue
            if self._waiter is None:
                self._waiter = waiter
        self.clean = len(came) == 1 and came[0][1] is EMPTY_PAYLOAD and not self._upgraded
        if not self.clean:
            self.segment = None
            if came:
                self.body = came[-1][1]
        elif self._answered_without_a_task(came[0][0], data):
            self.segment = None
            if self._parser is not None:
                self._parser.message_consumed()
            return
        before = len(queue)
        self._messages.extend(came)
        if not self.clean:
            self._mind_the_bodies(before, data)
        if came and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _answered_without_a_task(self, message: object, data: bytes) -> bool:
        if not isinstance(message, RawRequestMessage) or message.should_close:
            return False
        handler = self.edge.handler
        lane, short = handler.lane, handler.short
        if lane is not None and lane.answer_parsed(self, data):
            self.answered_at_once(keep_alive=True)
            return True
        return short is not None and short.parsed(self, message, data)

    # -- the short way ----------------------------------------------------------------------------------

    def await_answer(self, pending: Pending) -> None:
        """The short way has a request under way: what comes meanwhile is held back."""
        self.pending = pending
        self._next_keepalive_close_time = self._loop.time() + ONE_REQUEST

    def answered_at_once(self, *, keep_alive: bool) -> None:
        """The short way has answered."""
        self._stay_or_end(keep_alive=keep_alive)

    def go_on(self, *, keep_alive: bool) -> None:
        """The request that was under way is answered, or will not be."""
        self.pending = None
        held, self._held = self._held, b""
        if not self._stay_or_end(keep_alive=keep_alive):
            return
        if self._held_paused and self.transport is not None:
            self._held_paused = False
            self.transport.resume_reading()
        if held:
            self.data_received(held)

    def _stay_or_end(self, *, keep_alive: bool) -> bool:
        transport = self.transport
        if transport is None or self._force_close:
            return False
        if not keep_alive or self._close:
            self.answering = True
            transport.close()
            self._see_off(transport)
            return False
        self._keepalive = True
        close_at = self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_at, self._process_keepalive)
        return True

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MOST_HELD and self.transport is not None and not self._held_paused:
            self._held_paused = True
            self.transport.pause_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        pending, self.pending = self.pending, None
        if self.place is not None:
            self.edge.doors.leave(self.place)
            self.place = None
            self.edge.heads.forget(self)
        super().connection_lost(exc)
        if pending is not None:
            pending.vanish()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.place is None:
            peer = transport.get_extra_info("peername")
            self.client = peer[0] if isinstance(peer, tuple) else ""
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
        if self.place is None:
            self.place = self.edge.doors.enter(self.client)
        if self.place is None:
            transport.abort()  # type: ignore[attr-defined]
            self._manager = None
            return
        super().connection_made(transport)
        self.edge.heads.expect(self)

    async def start(self) -> None:
        """The loop over this connection's requests; at its end aiohttp closes the transport."""
        try:
            await super().start()
        finally:
            self._see_off(self.transport)

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        self._see_off(transport)

    def _see_off(self, transport: asyncio.Transport | None) -> None:
        """A closed transport stays until its buffer is empty; where the client reads nothing, for ever."""
        if transport is not None and transport.is_closing() and unsent(transport):
            Unread(self.edge.handler.clock, transport, FAREWELL)

    @property
    def is_closing(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Nothing is being answered and nothing is waiting to be."""
        return not self._request_in_progress and not self._messages and self.pending is None

    def handle_error(
        self,
        request: Any,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> Any:
        """What aiohttp's parser refused: answered as every error is, and the connection ends."""
        return Refusal(self, status, exc)


class Refusal(Done):
    """A 400, 414 or 431, written when aiohttp asks for it."""

    __slots__ = ("_protocol", "_status")

    def __init__(self, protocol: EdgeProtocol, status: int, exc: BaseException | None) -> None:
        super().__init__(keep_alive=False)
        self._protocol = protocol
        self._status = status
        if isinstance(exc, LineTooLong):
            # The two limits differ so that the one that was passed tells where (EdgeServer).
            self._status = 414 if exc.args[1] == protocol.max_line_size else 431
        elif isinstance(exc, BadHttpMessage) and exc.message.startswith(TOO_MANY_FIELDS):
            self._status = 431

    async def write_eof(self) -> None:
        detail = REFUSALS.get(self._status, "The edge failed.")
        answer = FromEdge(self._status, "The request was refused", detail)
        await self._protocol.edge.handler.refuse(self._protocol, answer)


class EdgeServer(web.Server):
    """Makes an EdgeProtocol for each connection."""

    def __init__(self, handler: Handler, *, doors: Doors, heads: Heads, least: float, **options: Any) -> None:
        """``least``: octets a second that a client has to take of an answer; 0: any."""
        options["max_field_size"] = options["max_line_size"] + 1
        super().__init__(self._serve, request_factory=Wire, **options)  # type: ignore[arg-type]
        self.handler = handler
        self.doors = doors
        self._away = TurnedAway()
        self.heads = heads
        self.least = least

    def idle(self) -> list[EdgeProtocol]:
        """The connections on which nothing is under way, nor begun: a head has its time (heads.py), and an
        answer then."""
        return [
            each
            for each in self._connections
            if isinstance(each, EdgeProtocol) and each.is_idle and not each.partial and not each.is_closing
        ]

    async def _serve(self, wire: Wire) -> Done:
        done = Done(keep_alive=await self.handler.serve(wire))
        wire.protocol.answering = not done.keep_alive
        return done

    def __call__(self) -> EdgeProtocol:
        """A handler that will take a place, or has one."""
        return EdgeProtocol(self, loop=self._loop, **self._kwargs)

    def arrive(self) -> EdgeProtocol | TurnedAway:
        """For a connection that has come: a handler, if there is a place."""
        return self._away if self.doors.are_full() else self()
