"""One WebSocket: a client and its origin, and the frames between them (RFC 6455).

Rules of this file:

- A relay of octets: what one side sends goes to the other as it came (frames.py looks at it and changes
  nothing). What cannot be written is not read: memory is two write buffers, however slow a reader is.
- Frames of our own go where a frame ends: a ping for a client that is silent, a Close when the edge ends it.
  The pong to our ping goes no further.
- How it ends is what both sides learn. A Close frame passes, code and all. An origin that goes without one:
  the client is told 1011. A client that goes without one: the origin's connection ends without one too.
  Whoever breaks the protocol is told so (1002, 1009). Where no Close frame fits, since a frame is cut, the
  connection is aborted: 1006.
- Nobody waits for ever: neither for the answer to a Close nor for one who does not read (unread.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from secrets import token_bytes
from typing import TYPE_CHECKING

from edgeproxy.front.frames import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL_ERROR,
    PING,
    PONG,
    PROTOCOL_ERROR,
    Walker,
    close_frame,
    frame,
)
from edgeproxy.front.unread import FAREWELL, PATIENCE, Unread, unsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock
    from edgeproxy.observe.sockets import SocketTally
    from edgeproxy.rules.model import WebSocket

log = logging.getLogger("edgeproxy.websocket")

CLOSE_WAIT = 10.0
"""Seconds from the first sign of the end to the end."""
CLIENT, ORIGIN, EDGE = "client", "origin", "edge"


class Side(asyncio.Protocol):
    """One end: what it sends, and what is written to it. ``on_lost`` is told when its transport is gone."""

    __slots__ = (
        "_on_lost", "_relay", "_unread", "eof", "farewell", "full", "lost", "name", "octets", "peer", "sent",
        "told", "transport", "walker",
    )  # fmt: skip

    peer: Side
    transport: asyncio.Transport

    def __init__(self, relay: Relay, name: str, walker: Walker) -> None:
        self._relay = relay
        self._on_lost: Callable[[BaseException | None], object] | None = None
        self._unread: Unread | None = None
        self.name = name
        self.walker = walker
        self.octets = 0
        self.sent = 0
        self.full = False
        """Its write buffer is."""
        self.told = False
        """A Close frame of our own is out to it, or waits in ``farewell`` for the end of a frame."""
        self.farewell = b""
        self.eof = False
        self.lost = False

    def attach(self, transport: asyncio.Transport, on_lost: Callable[[BaseException | None], object]) -> None:
        self.transport = transport
        self._on_lost = on_lost

    @property
    def gone(self) -> bool:
        """Nothing more comes from it."""
        return self.eof or self.lost

    # -- called by the transport ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.octets += len(data)
        walker, peer = self.walker, self.peer
        ended, messages = walker.ended, walker.messages
        octets = walker.feed(data)
        if octets:
            peer.send(octets)
        self._relay.passed(self, len(octets), walker.messages - messages)
        if peer.farewell and walker.between:
            peer.send(peer.farewell)
            peer.farewell = b""
        if ended:
            return
        if walker.violation is not None:
            self._relay.violated(self)
        elif walker.close_code is not None:
            self._relay.close_came(self, walker.close_code)

    def eof_received(self) -> bool:
        self.eof = True
        self._relay.ended(self)
        # TLS knows no half-closed connection (and asyncio says so in the log).
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self._forget_unread()
        if self._on_lost is not None:
            self._on_lost(exc)
        self._relay.lost(self)

    def pause_writing(self) -> None:
        self.full = True
        if not self.told:
            self.peer.hold()
        self._forget_unread()
        self._unread = Unread(self._relay.clock, self.transport, PATIENCE)

    def resume_writing(self) -> None:
        self.full = False
        self._forget_unread()
        self.peer.go_on()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # -- called by the relay ----------------------------------------------------------------------------

    def send(self, octets: bytes) -> None:
        if not self.lost and not self.transport.is_closing():
            self.sent += len(octets)
            self.transport.write(octets)

    def hold(self) -> None:
        if not self.gone and not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on(self) -> None:
        if not self.gone and not self.transport.is_closing():
            self.transport.resume_reading()

    def tell(self, code: int, reason: str) -> None:
        """Close, where a frame ends; what its peer sends after that goes nowhere."""
        if self.told or self.lost or self.peer.walker.close_code is not None:
            return
        self.told = True
        walker = self.peer.walker
        walker.mute()
        octets = close_frame(code, reason, masked=self.name == ORIGIN)
        if walker.between:
            self.send(octets)
        elif self.peer.gone:
            self.transport.abort()  # it has a part of a frame, and the rest never comes
        else:
            self.farewell = octets
        if self.full:
            self.peer.go_on()  # to hear its own Close; nothing of what it sends waits for this side

    def say_no_more(self) -> None:
        """FIN, where that can be said; else the end."""
        if self.lost or self.transport.is_closing() or self.farewell:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.close()

    def close(self) -> None:
        """End it when what was written is out; at once where a frame would be left open."""
        if self.lost:
            return
        if not self.peer.walker.between:
            self.transport.abort()
            return
        if not self.transport.is_closing():
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self._forget_unread()
                self._unread = Unread(self._relay.clock, self.transport, FAREWELL)

    def abort(self) -> None:
        if not self.lost:
            self.transport.abort()


class Relay:
    """``limits``: of the rule under which it was opened. ``due``: ``clock.monotonic()`` at which ``look``
    has something to do; whoever owns it calls it then. ``done`` is set when both transports are gone."""

    def __init__(self, clock: Clock, limits: WebSocket, tally: SocketTally, *, extended: bool) -> None:
        self.clock = clock
        self.limits = limits
        self._tally = tally
        self._ping = b"edgeproxy" + token_bytes(8)
        walks = partial(Walker, extended=extended, max_frame=limits.max_frame, max_message=limits.max_message)
        self.client = Side(self, CLIENT, walks(masked=True, swallow=self._is_ours))
        self.origin = Side(self, ORIGIN, walks(masked=False))
        self.client.peer, self.origin.peer = self.origin, self.client
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: tuple[str, int] | None = None
        """Who closed it, with which code."""
        self._active = self._heard = clock.monotonic()
        self._pinged: float | None = None
        self._deadline = self._left = math.inf
        self.due = 0.0
        self._plan()

    def _is_ours(self, opcode: int, payload: bytes) -> bool:
        return opcode == PONG and payload == self._ping

    # -- what happens -----------------------------------------------------------------------------------

    def passed(self, side: Side, octets: int, messages: int) -> None:
        """Something came from ``side``, and so much of it went on."""
        now = self.clock.monotonic()
        tally = self._tally
        if octets:
            self._active = now
        if side is self.client:
            self._heard = now
            tally.bytes_in += octets
            tally.messages_in += messages
        else:
            tally.bytes_out += octets
            tally.messages_out += messages

    def close_came(self, side: Side, code: int) -> None:
        self._record(side.name, code)
        self._wait()
        client, origin = self.client, self.origin
        if client.walker.close_code is not None and (client.told or origin.walker.close_code is not None):
            # Both have said it. The server ends the connection (RFC 6455 §7.1.1); to the client that is us.
            client.close()

    def violated(self, side: Side) -> None:
        found = side.walker.violation
        assert found is not None  # noqa: S101
        log.debug("the %s's frames: %s", side.name, found.detail)
        self._record(EDGE, found.code)
        self._wait()
        side.tell(found.code, found.detail)
        if side is self.client:
            side.peer.tell(found.code, found.detail)
            side.say_no_more()
        else:
            side.peer.tell(INTERNAL_ERROR, "the origin broke the protocol")
            side.close()

    def ended(self, side: Side) -> None:
        """FIN."""
        self._wait()
        if side is self.origin:
            self._without_origin()
            side.close()
        elif side.walker.midway:
            self._record(EDGE, PROTOCOL_ERROR)
            side.tell(PROTOCOL_ERROR, "the last frame is not whole")
            side.close()
            side.peer.tell(PROTOCOL_ERROR, "the last frame is not whole")
            side.peer.close()
        elif side.told or side.peer.gone:
            side.close()
        elif side.walker.close_code is None:
            # It says no more and may still listen: what the origin has to say goes on, for a while.
            self._record(CLIENT, ABNORMAL)
            side.peer.say_no_more()

    def lost(self, side: Side) -> None:
        other = side.peer
        if other.lost:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._wait()
        if side is self.origin:
            self._without_origin()
        else:
            self._record(CLIENT, ABNORMAL)
            other.close()

    def _without_origin(self) -> None:
        """The origin is gone: tell the client, unless the two have parted already."""
        client = self.client
        if self.origin.walker.close_code is None:
            self._record(ORIGIN, ABNORMAL)
            client.tell(INTERNAL_ERROR, "the origin is gone")
        if client.farewell or client.gone or client.walker.close_code is not None:
            client.close()

    # -- what the edge does -----------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """End it in the proper way."""
        if self._deadline == math.inf:
            self._record(EDGE, code)
            self._wait()
            self.client.tell(code, reason)
            self.origin.tell(code, reason)

    def abort(self) -> None:
        """End it now."""
        self._record(EDGE, ABNORMAL)
        self.client.abort()
        self.origin.abort()

    def look(self, now: float) -> None:
        """Do what is due."""
        limits = self.limits
        if now >= self._deadline and not self._still_reads():
            self.abort()
            self.due = math.inf
            return
        if now >= self._deadline:
            self._deadline = now + CLOSE_WAIT
        if limits.idle and now - self._active >= limits.idle:
            self.close(GOING_AWAY, "idle")
        elif limits.heartbeat and self._deadline == math.inf:
            self._beat(now)
        self._plan()

    def _still_reads(self) -> bool:
        """Whether the client has taken some of what is left for it since this was last asked: it is slow, and
        what came before the Close is its as well."""
        before, self._left = self._left, 0 if self.client.lost else unsent(self.client.transport)
        return 0 < self._left < before

    def _beat(self, now: float) -> None:
        if self._pinged is not None and self._heard >= self._pinged:
            self._pinged = None
        if self._pinged is not None:
            if now - self._pinged >= self.limits.heartbeat:
                self._record(EDGE, ABNORMAL)
                self._wait()
                self.origin.tell(GOING_AWAY, "the client does not answer")
                self.client.abort()
            return
        quiet = now - max(self._active, self._heard) >= self.limits.heartbeat
        if quiet and self.origin.walker.between and not self.client.full:
            self._pinged = now
            self.client.send(frame(PING, self._ping, masked=False))

    def _plan(self) -> None:
        limits = self.limits
        due = self._deadline
        if due == math.inf:
            if limits.idle:
                due = self._active + limits.idle
            if limits.heartbeat:
                since = max(self._active, self._heard) if self._pinged is None else self._pinged
                # A beat that found no room is tried again: now, not in the past.
                due = min(due, max(since + limits.heartbeat, self.due + 1.0))
        self.due = due

    def _wait(self) -> None:
        """The end has begun: it must come."""
        if self._deadline == math.inf:
            self._deadline = self.clock.monotonic() + CLOSE_WAIT
            self.due = min(self.due, self._deadline)

    def _record(self, side: str, code: int) -> None:
        if self.closed is None:
            self.closed = (side, code)
            self._tally.closed(side, code)
