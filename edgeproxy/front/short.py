"""The short way: a plain GET answered from the connection's callback, without a task, hit or miss.

Rules of this file:

- For requests that aiohttp's parser has accepted as one whole bodyless GET with nothing unusual among its
  fields; of a header block that it has accepted before, only the target may be new, and that is looked at
  here: visible ASCII that begins with "/".
- It writes what handler.py would write, made by the same functions; what comes of a request is decided in
  engine/prompt.py. What is remembered of header blocks is in plans.py, how an answer is made and written
  at once in at_once.py, and who waits for the origin in pending.py.
- While an answer is awaited, the connection's further octets are held back (server.py): order is kept.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from edgeproxy.engine.exchange import Exchange, FromEntry
from edgeproxy.engine.prompt import Call, Whole
from edgeproxy.front.at_once import AtOnce
from edgeproxy.front.lane import END, NOT_LEARNED
from edgeproxy.front.pending import Pending, PendingWriter
from edgeproxy.front.plans import Block, Plans
from edgeproxy.front.request import HTTP_1_1, MOST_FIELDS, Refused, head_of
from edgeproxy.front.trust import FIELDS
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.cdn_loop import FIELD
from edgeproxy.policy.head import RequestHead
from edgeproxy.policy.header_table import end_to_end
from edgeproxy.policy.trace_context import TRACE
from edgeproxy.policy.vocabulary import OriginFailure, Tier, Unsatisfied

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http_parser import RawRequestMessage

    from edgeproxy.engine.background import Background
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.handle import Engine
    from edgeproxy.front.compress import Compressor
    from edgeproxy.front.handler import Handler
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.front.trust import Trust

log = logging.getLogger("edgeproxy.front")

UNUSUAL = NOT_LEARNED | {
    "if-range", "if-match", "if-unmodified-since", "expect", "te", "trailer", "transfer-encoding",
    "content-length",
}  # fmt: skip
"""Requests with one of these are answered the ordinary way. What is left, the lane may learn; and of what is
left only the rule can send a GET past the cache (decide.bypass)."""

_LOOKED_INTO = UNUSUAL | TRACE | {FIELD}
"""These, and what is usual unless it tells of a loop or comes from who is not followed."""

_TARGET = re.compile(rb"/[!\"$-~]*")
"""Visible ASCII but "#": what the parser would take as it stands."""


class ShortWay:
    """Per worker."""

    def __init__(
        self,
        *,
        handler: Handler,
        engine: Engine,
        forward: ForwardBuilder,
        authority: str,
        background: Background,
        compressor: Compressor,
        next_id: Callable[[], str],
        trust: Trust | None,
    ) -> None:
        self._handler = handler
        self._engine = engine
        self._forward = forward
        self._next_id = next_id
        self._trust = trust
        self._clock = handler.clock
        self._plans = Plans(forward, authority)
        self._at_once = AtOnce(handler, compressor)
        self._writer = PendingWriter(handler, self._at_once, background)
        self._shed = engine.prompt.shed()

    def forget_plans(self) -> None:
        """After a reload."""
        self._plans.forget()

    def known(self, protocol: EdgeProtocol, data: bytes) -> bool:
        """Take the request in ``data`` if its header block is known. The caller has seen to it that the
        connection is clean and idle, and that ``data`` is "GET ..." up to the end of a head."""
        end = data.find(END)
        block = self._plans.block(data[end + 11 :])
        if block is None or end > protocol.max_line_size or _TARGET.fullmatch(data, 4, end) is None:
            return False
        return self._try(protocol, block, data[4:end].decode("ascii"), data)

    def parsed(self, protocol: EdgeProtocol, message: RawRequestMessage, data: bytes) -> bool:
        """Take the request that the parser has made of ``data``, one whole bodyless message, and remember
        its header block when it comes again."""
        if message.method != "GET" or message.should_close or message.version != HTTP_1_1:
            return False
        try:
            most = max(MOST_FIELDS, protocol.max_line_size)
            head = head_of(message, protocol.scheme, has_body=False, most=most)
        except Refused:
            return False
        headers, sure = head.headers, True
        if not headers.isdisjoint(_LOOKED_INTO):
            if not headers.isdisjoint(UNUSUAL) or self._forward.loops(headers):
                return False
            followed = self._handler.followed
            sure = headers.isdisjoint(followed.unsure)
            headers = followed.kept(headers, protocol.client)
        if "connection" in headers:
            headers = end_to_end(headers)
        block = Block(headers, head.host, learnable=self._trust is None or headers.isdisjoint(FIELDS))
        end = data.find(END)
        if sure and data.startswith(b"GET /") and end > 0:
            self._plans.learn(data[end + 11 :], block)
        return self._try(protocol, block, head.target, data)

    def _try(self, protocol: EdgeProtocol, block: Block, target: str, data: bytes) -> bool:
        try:
            return self._take(protocol, block, target, data)
        except Exception:
            # Before anything was written or sent: the ordinary way will fail in the same way, and say so.
            log.exception("the short way failed on %r", target)
            return False

    def _take(self, protocol: EdgeProtocol, block: Block, target: str, data: bytes) -> bool:
        transport = protocol.transport
        if transport is None or transport.get_write_buffer_size():
            return False
        handler = self._handler
        scheme, client = protocol.scheme, protocol.client
        told = client
        if self._trust is not None:
            source = self._trust.source(client, scheme, block.headers)
            client, told, scheme = source.client, source.chain, source.scheme
            if not handler.terms.permits(client):
                return False
        head = RequestHead("GET", scheme, block.host, target, block.headers)
        matched = self._engine.matcher.match(head)
        overrides = matched.rule.overrides
        trace = Trace(self._next_id(), self._clock.monotonic(), "GET", block.host, target, client)
        rule, engine = matched.rule, self._engine
        gated = rule.is_gated
        if gated and (refusal := engine.gates.refusal(rule, head, trace, take=False)) is not None:
            return self._at_once.refuse(protocol, refusal, trace, rule.name)
        may_learn = block.learnable and not gated and handler.lane is not None and not handler.draining
        learn = data if may_learn else None
        manner = self._plans.manner(block, head, rule)
        if (
            manner.prefix is not None
            and manner.plain
            and not gated
            and not overrides.pass_
            and (entry := engine.prompt.packed(manner.prefix + target)) is not None
            and self._at_once.whole(protocol, block, entry, Tier.L1, rule, trace, learn)
        ):
            return True
        exchange = Exchange(head, trace, client=told)
        step: FromEntry | Whole | Call | None = engine.prompt.look(exchange, matched, manner)
        if type(step) is Whole:
            if not gated and self._at_once.whole(protocol, block, step.entry, Tier.L2, rule, trace, learn):
                return True
            step = engine.prompt.open(step)
        if step is None:
            return False
        octets = None
        if type(step) is FromEntry:
            octets = self._at_once.stored(step, trace, learn)
            if octets is None:
                return False
        # The token is taken last: from here on the request is answered, and not the ordinary way.
        if gated and (refusal := engine.gates.refusal(rule, head, trace)) is not None:
            # Another worker has taken the token meanwhile: nothing of what was looked up is told.
            trace = Trace(trace.request_id, trace.started, "GET", block.host, target, client)
            trace.unsatisfied = Unsatisfied.RATE_LIMITED
            return self._at_once.refuse(protocol, refusal, trace, rule.name)
        if type(step) is Call:
            return self._ask(protocol, block, step, learn)
        assert type(step) is FromEntry  # noqa: S101
        assert octets is not None  # noqa: S101
        step.entry.hits += 1
        return self._at_once.answer(protocol, *octets, trace)

    def _ask(self, protocol: EdgeProtocol, block: Block, call: Call, learn: bytes | None) -> bool:
        """The origin; or refuse, where there is too much to do."""
        handler, overload = self._handler, self._engine.overload
        exchange, rule = call.ask.exchange, call.ask.rule
        if handler.in_flight >= overload.mark and not overload.admits(own=0):
            exchange.trace.failure = OriginFailure.SHED
            return self._at_once.refuse(protocol, self._shed, exchange.trace, rule.name)
        pending = Pending(self._writer, protocol, call, learn, handler.rules_version, block.accepted)
        octets = self._plans.octets(block, exchange, rule, call)
        handler.in_flight += 1
        protocol.await_answer(pending)
        call.send(octets, pending)
        return True
