"""A request of the short way that waits for the origin, and what is done when its answer is here.

Rules of this file:

- The answer is written where the origin's octets came in, in their callback (at_once.py). Whatever takes
  waiting goes on in a task of its own, the ordinary way: Sender and handler.py.
- Each request is counted as under way, and is over, once: ``done`` or Handler.run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

from edgeproxy.engine.exchange import FromEntry, FromStream
from edgeproxy.engine.prompt import BROKEN
from edgeproxy.front.at_once import LARGEST
from edgeproxy.front.cast import Casts
from edgeproxy.front.sender import Sender

if TYPE_CHECKING:
    from edgeproxy.engine.background import Background
    from edgeproxy.engine.exchange import Answer
    from edgeproxy.engine.mould import Cast
    from edgeproxy.engine.prompt import Call
    from edgeproxy.front.at_once import AtOnce
    from edgeproxy.front.handler import Handler
    from edgeproxy.front.server import EdgeProtocol

log = logging.getLogger("edgeproxy.front")


@final
class Pending:
    """A request of the short way that waits for the origin, and its connection meanwhile."""

    __slots__ = ("_writer", "accepted", "call", "learn", "protocol", "version")

    def __init__(
        self,
        writer: PendingWriter,
        protocol: EdgeProtocol,
        call: Call,
        learn: bytes | None,
        version: str,
        accepted: str | None,
    ) -> None:
        self._writer = writer
        self.accepted = accepted
        self.protocol = protocol
        self.call = call
        self.learn = learn
        self.version = version

    def vanish(self) -> None:
        """The client has left."""
        exchange = self.call.ask.exchange
        exchange.vanish()
        if exchange.on_vanish is None and self.call.vanish():
            exchange.trace.aborted = True
            self._writer.done(self)

    def answered(self, answer: Answer) -> None:
        try:
            self._writer.write(self, answer)
        except Exception:
            log.exception("request %s failed", self.call.ask.exchange.trace.request_id)
            self._writer.wait(self, BROKEN)

    def cast(self, cast: Cast) -> None:
        try:
            self._writer.write_cast(self, cast)
        except Exception:
            log.exception("request %s failed", self.call.ask.exchange.trace.request_id)
            self._writer.wait(self, BROKEN)

    def unfinished(self) -> None:
        self._writer.wait(self, None)


class PendingWriter:
    """Per worker."""

    def __init__(self, handler: Handler, at_once: AtOnce, background: Background) -> None:
        self._handler = handler
        self._at_once = at_once
        self._background = background
        self._clock = handler.clock
        self._casts = Casts(handler.responder)

    def write(self, pending: Pending, answer: Answer) -> None:
        """The answer is here: write it, or have it written the ordinary way."""
        protocol, trace = pending.protocol, pending.call.ask.exchange.trace
        transport = protocol.transport
        if transport is None or transport.is_closing():
            trace.aborted = True
            if isinstance(answer, FromStream):
                answer.body.close()
            self.done(pending)
            return
        octets = None
        if not transport.get_write_buffer_size():
            if isinstance(answer, FromEntry):
                learn = pending.learn if pending.version == self._handler.rules_version else None
                octets = self._at_once.stored(answer, trace, learn)
            elif isinstance(answer, FromStream):
                fields = pending.call.ask.exchange.head.headers
                octets = self._at_once.streamed(fields, answer, trace)
        if octets is None:
            self.wait(pending, answer)
            return
        self._at_once.write(protocol, *octets, trace)
        self.done(pending)

    def write_cast(self, pending: Pending, cast: Cast) -> None:
        """As ``write``, where a mould made the answer."""
        protocol, trace, entry = pending.protocol, pending.call.ask.exchange.trace, cast.entry
        transport, handler = protocol.transport, self._handler
        head = None
        if (
            transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
            and len(cast.body) <= LARGEST
        ):
            head = self._casts.head(cast, trace, pending.accepted)
        if head is None:
            self.write(pending, pending.call.uncast(cast))
            return
        if handler.asked is not None and trace.stored and entry is not None:
            handler.asked(entry)
        self._at_once.write(protocol, head, cast.body, trace)
        self.done(pending)

    def done(self, pending: Pending) -> None:
        handler = self._handler
        handler.in_flight -= 1
        handler.finish(pending.call.ask.exchange.trace)
        pending.protocol.go_on(keep_alive=not handler.draining)

    # -- the ordinary way -------------------------------------------------------------------------------

    def wait(self, pending: Pending, answer: Answer | None) -> None:
        """Go on in a task: with ``answer``, or with the rest of the call."""
        trace = pending.call.ask.exchange.trace
        self._background.spawn(self._in_task(pending, answer), f"answer {trace.request_id}")

    async def _in_task(self, pending: Pending, answer: Answer | None) -> None:
        handler, protocol, call = self._handler, pending.protocol, pending.call
        exchange = call.ask.exchange
        sender = Sender(protocol, None, self._clock, close=False)
        keep_alive = False
        handler.in_flight -= 1  # run() counts it from here on
        try:
            keep_alive = await handler.run(
                self._rest(pending, answer, sender), exchange.trace, sender, lambda: exchange.vanished
            )
        finally:
            protocol.go_on(keep_alive=keep_alive)

    async def _rest(self, pending: Pending, answer: Answer | None, sender: Sender) -> None:
        call, handler = pending.call, self._handler
        exchange = call.ask.exchange
        exchange.on_interim = sender.interim
        if call.alone or (isinstance(answer, FromStream) and not answer.shareable):
            exchange.leave_with_client()
        if answer is None:
            answer = await call.rest()
        learn = pending.learn if pending.version == handler.rules_version else None
        await handler.send(answer, exchange.head, exchange.trace, sender, learn)
