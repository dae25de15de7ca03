"""The short way: a plain GET answered from the connection's callback, without a task, hit or miss.

Rules of this file:

- For requests that aiohttp's parser has accepted as one whole bodyless GET with nothing unusual among its
  fields; of a header block that it has accepted before, only the target may be new, and that is looked at
  here: visible ASCII that begins with "/".
- It writes what handler.py would write, made by the same functions; what comes of a request is decided in
  engine/prompt.py. Whatever takes waiting goes on in a task of its own, the ordinary way.
- While an answer is awaited, the connection's further octets are held back (server.py): order is kept.
- What is remembered of a header block (its fields; under each rule, the octets the origin is sent) depends on
  its octets and the rule alone, and is forgotten at a reload. Bounded, in number and in octets: clients
  make up what blocks they like.
"""

from __future__ import annotations

import logging
import re
from secrets import token_hex
from typing import TYPE_CHECKING, final

from edgeproxy.engine.exchange import Exchange, FromEdge, FromEntry, FromStream
from edgeproxy.engine.mould import is_plain
from edgeproxy.engine.overload import overloaded
from edgeproxy.engine.prompt import BROKEN, Call, Manner, Whole
from edgeproxy.front.alike import Alike
from edgeproxy.front.cast import Casts
from edgeproxy.front.lane import END, NOT_LEARNED
from edgeproxy.front.refusals import Refusals
from edgeproxy.front.request import HTTP_1_1, MOST_FIELDS, Refused, head_of
from edgeproxy.front.respond import BODILESS
from edgeproxy.front.seen import Seen
from edgeproxy.front.sender import CLOSE, SLICE, Sender
from edgeproxy.front.template import Template
from edgeproxy.front.trust import FIELDS
from edgeproxy.key import plain_prefix
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.framing import request_head
from edgeproxy.policy.cdn_loop import FIELD
from edgeproxy.policy.coding import choose_coding, compressible
from edgeproxy.policy.decisions import Form
from edgeproxy.policy.events import wants_events
from edgeproxy.policy.head import RequestHead
from edgeproxy.policy.header_table import end_to_end
from edgeproxy.policy.trace_context import TRACE
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure, Tier, Unsatisfied

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http_parser import RawRequestMessage

    from edgeproxy.engine.background import Background
    from edgeproxy.engine.exchange import Answer
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.handle import Engine
    from edgeproxy.engine.mould import Cast
    from edgeproxy.front.compress import Compressor
    from edgeproxy.front.handler import Handler
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.front.trust import Trust
    from edgeproxy.policy.head import Headers
    from edgeproxy.rules.model import Matched, Rule
    from edgeproxy.store.entry import Entry

log = logging.getLogger("edgeproxy.front")

MOST_BLOCKS = 4096
MOST_OCTETS = 16 * 1024 * 1024
"""Of all blocks, and of what the origin is sent under them."""
LONGEST = 8 * 1024
"""Octets of a block that is remembered."""
MOST_SEEN = 65_536
MOST_PLANS = 16
"""Rules under which one block's octets for the origin are remembered."""
LARGEST = SLICE
"""Octets of a body that are written at once."""

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


@final
class Block:
    """A header block: its fields, its host, and per rule the octets that the origin is sent and the manner in
    which it is answered."""

    __slots__ = (
        "accepted",
        "events",
        "headers",
        "host",
        "learnable",
        "manners",
        "plain",
        "plans",
    )

    def __init__(self, headers: Headers, host: str, *, learnable: bool) -> None:
        self.headers = headers
        self.accepted = headers.get("accept-encoding")
        self.plain = is_plain(headers)
        self.events = wants_events(headers)
        self.manners: dict[object, tuple[Rule, Manner]] = {}
        self.host = host
        self.learnable = learnable
        self.plans: dict[object, _Plan] = {}


@final
class _Plan:
    """``filled`` gives the pieces of a request's head under one rule, with target, request id, client's
    address and Forwarded put in. The rule is held, so that its id stays its own."""

    __slots__ = ("filled", "octets", "rule")

    def __init__(self, rule: Rule, template: Template, octets: int) -> None:
        self.rule = rule
        self.octets = octets
        self.filled = template.filled


@final
class Pending:
    """A request of the short way that waits for the origin, and its connection meanwhile."""

    __slots__ = ("_short", "accepted", "call", "learn", "protocol", "version")

    def __init__(
        self,
        short: ShortWay,
        protocol: EdgeProtocol,
        call: Call,
        learn: bytes | None,
        version: str,
        accepted: str | None,
    ) -> None:
        self._short = short
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
            self._short.done(self)

    def answered(self, answer: Answer) -> None:
        try:
            self._short.write(self, answer)
        except Exception:
            log.exception("request %s failed", self.call.ask.exchange.trace.request_id)
            self._short.wait(self, BROKEN)

    def cast(self, cast: Cast) -> None:
        try:
            self._short.write_cast(self, cast)
        except Exception:
            log.exception("request %s failed", self.call.ask.exchange.trace.request_id)
            self._short.wait(self, BROKEN)

    def unfinished(self) -> None:
        self._short.wait(self, None)


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
        self._authority = authority
        self._background = background
        self._compressor = compressor
        self._next_id = next_id
        self._trust = trust
        self._clock = handler.clock
        self._casts = Casts(handler.responder)
        self._alike = Alike(handler.responder)
        self._refusals = Refusals(handler)
        self._shed = engine.prompt.fetcher.failure(Trace(), overloaded())
        self._blocks: dict[bytes, Block] = {}
        self._octets = 0
        self._seen = Seen(MOST_SEEN)

    def forget_plans(self) -> None:
        """After a reload. What the parser made of a header block has nothing to do with rules, and stays."""
        for block in self._blocks.values():
            block.plans.clear()
            block.manners.clear()
        self._octets = sum(map(len, self._blocks))

    # -- requests ---------------------------------------------------------------------------------------

    def known(self, protocol: EdgeProtocol, data: bytes) -> bool:
        """Take the request in ``data`` if its header block is known. The caller has seen to it that the
        connection is clean and idle, and that ``data`` is "GET ..." up to the end of a head."""
        end = data.find(END)
        block = self._blocks.get(data[end + 11 :])
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
        if sure and data.startswith(b"GET /") and end > 0 and len(data) - end - 11 <= LONGEST:
            self._learn(data[end + 11 :], block)
        return self._try(protocol, block, head.target, data)

    def _learn(self, octets: bytes, block: Block) -> None:
        if self._seen.before(octets):
            self._hold(len(octets))
            self._blocks[octets] = block

    def _hold(self, octets: int) -> None:
        """So many more are held; where that is too much, all that were are let go of."""
        self._octets += octets
        if self._octets > MOST_OCTETS or len(self._blocks) >= MOST_BLOCKS:
            self._blocks.clear()
            self._octets = octets

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
            return self._refuse(protocol, refusal, trace, rule.name)
        may_learn = block.learnable and not gated and handler.lane is not None and not handler.draining
        learn = data if may_learn else None
        manner = self._manner(block, head, rule)
        if (
            manner.prefix is not None
            and manner.plain
            and not gated
            and not overrides.pass_
            and (entry := engine.prompt.packed(manner.prefix + target)) is not None
            and self._whole(protocol, block, entry, Tier.L1, rule, trace, learn)
        ):
            return True
        exchange = Exchange(head, trace, client=told)
        step: FromEntry | Whole | Call | None = engine.prompt.look(exchange, matched, manner)
        if type(step) is Whole:
            if not gated and self._whole(protocol, block, step.entry, Tier.L2, rule, trace, learn):
                return True
            step = engine.prompt.open(step)
        if step is None:
            return False
        octets = None
        if type(step) is FromEntry:
            octets = self._entry_octets(step, trace, learn)
            if octets is None:
                return False
        # The token is taken last: from here on the request is answered, and not the ordinary way.
        if gated and (refusal := engine.gates.refusal(rule, head, trace)) is not None:
            # Another worker has taken the token meanwhile: nothing of what was looked up is told.
            trace = Trace(trace.request_id, trace.started, "GET", block.host, target, client)
            trace.unsatisfied = Unsatisfied.RATE_LIMITED
            return self._refuse(protocol, refusal, trace, rule.name)
        if type(step) is Call:
            if handler.in_flight >= engine.overload.mark and not engine.overload.admits(own=0):
                trace.failure = OriginFailure.SHED
                return self._refuse(protocol, self._shed, trace, rule.name)
            pending = Pending(self, protocol, step, learn, handler.rules_version, block.accepted)
            plan = self._plan(block, exchange, matched, step)
            values = (target.encode("latin-1"), trace.request_id.encode(), told.encode("latin-1"), b"")
            if self._forward.with_forwarded:
                values = (*values[:3], self._forward.forwarded(exchange, rule).encode("latin-1"))
            handler.in_flight += 1
            protocol.await_answer(pending)
            step.send(b"".join(plan.filled(values)), pending)
            return True
        assert type(step) is FromEntry  # noqa: S101
        assert octets is not None  # noqa: S101
        step.entry.hits += 1
        return self._answer(protocol, *octets, trace)

    def _whole(
        self,
        protocol: EdgeProtocol,
        block: Block,
        entry: Entry,
        tier: Tier,
        rule: Rule,
        trace: Trace,
        learn: bytes | None,
    ) -> bool:
        """Answer with what is stored, as it lies, packed. False: that takes looking into it."""
        if len(entry.body) > LARGEST:
            return False
        made = self._alike.head(entry, rule, block.accepted)
        if made is None:
            return False
        handler, now, body = self._handler, self._clock.now(), entry.body
        head, trace.status = made
        trace.rule, trace.key = rule.name, entry.primary
        trace.word, trace.tier, trace.hit = CacheWord.HIT, tier, True
        trace.saved_seconds = entry.fetch_seconds
        trace.ttl = entry.fresh_until - now
        trace.age = int(entry.age(now))
        entry.hits += 1
        if trace.status in BODILESS:
            body = b""
        else:
            head += b"Content-Length: %d\r\n" % len(body)
        if learn is not None and handler.lane is not None:
            handler.lane.learn(learn, entry, rule.name, "", head, body, trace.status)
        if handler.asked is not None:
            handler.asked(entry)
        return self._answer(protocol, head + handler.part(trace, trace.age), body, trace)

    def _answer(self, protocol: EdgeProtocol, head: bytes, body: bytes, trace: Trace) -> bool:
        """What is at hand, at once: the request is over."""
        self._send(protocol, head, body, trace)
        self._handler.finish(trace)
        protocol.answered_at_once(keep_alive=not self._handler.draining)
        return True

    def _refuse(self, protocol: EdgeProtocol, answer: FromEdge, trace: Trace, rule: str) -> bool:
        """Answer by ourselves, at once."""
        handler = self._handler
        trace.rule, trace.word, trace.forwarded = rule, CacheWord.BYPASS, None
        octets = self._refusals.octets(answer, trace) or handler.problem(answer, "GET", trace)
        return self._answer(protocol, *octets, trace)

    @staticmethod
    def _manner(block: Block, head: RequestHead, rule: Rule) -> Manner:
        key = (id(rule), head.scheme)
        known = block.manners.get(key)
        if known is not None:
            return known[1]
        if len(block.manners) >= MOST_PLANS:
            block.manners.clear()
        manner = Manner(block.plain, block.events, plain_prefix(head, rule.key))
        block.manners[key] = (rule, manner)  # the rule is held, so that its id stays its own
        return manner

    # -- what the origin is sent ------------------------------------------------------------------------

    def _plan(self, block: Block, exchange: Exchange, matched: Matched, call: Call) -> _Plan:
        rule, head = matched.rule, exchange.head
        key = (id(rule), call.passed, call.alone, head.scheme, bool(exchange.client))
        plan = block.plans.get(key)
        if plan is None:
            if len(block.plans) >= MOST_PLANS:
                block.plans.clear()
            plan = self._made(exchange, rule, call)
            self._hold(plan.octets)
            block.plans[key] = plan
        return plan

    def _made(self, exchange: Exchange, rule: Rule, call: Call) -> _Plan:
        """The octets as forward.py and framing.py make them, with marks where a request's own values go."""
        mark = token_hex(16)
        marks = (f"/{mark}t", f"{mark}i", f"{mark}c", f"{mark}f")
        head = exchange.head
        model = Exchange(
            head=RequestHead("GET", head.scheme, head.host, marks[0], head.headers),
            trace=Trace(request_id=marks[1]),
            client=marks[2] if exchange.client else "",
            forwarded=marks[3],
        )
        if call.passed:
            forward = self._forward.passed(model, rule)
        else:
            forward = self._forward.whole(model, rule, conditionals=call.alone)
        octets = request_head(forward, self._authority)
        return _Plan(rule, Template(octets, [text.encode() for text in marks]), len(octets))

    # -- answers ----------------------------------------------------------------------------------------

    def _entry_octets(
        self, answer: FromEntry, trace: Trace, learn: bytes | None
    ) -> tuple[bytes, bytes] | None:
        """Head and body, or None where that takes waiting."""
        entry, serve = answer.entry, answer.serve
        coded = None
        if serve.form is Form.FULL:
            if len(entry.body) > LARGEST:
                return None
            if serve.coding:
                if not self._compressor.at_once(entry, serve.coding):
                    return None
                coded = self._compressor.coded_now(entry, serve.coding)
        return self._handler.render(answer, "GET", trace, learn, coded)

    def _stream_octets(
        self, pending: Pending, answer: FromStream, trace: Trace
    ) -> tuple[bytes, bytes] | None:
        """As ``_entry_octets``, for an answer that is not stored."""
        head, body = answer.head, answer.body
        compression = answer.rule.overrides.compression
        fields = pending.call.ask.exchange.head.headers
        status = head.status
        if status in BODILESS or body.length is None or body.length > LARGEST:
            return None
        if compressible(status, head.headers, compression, body.length) and choose_coding(
            fields.get("accept-encoding"), compression.codings
        ):
            return None
        whole = body.take_all()
        if whole is None:
            return None
        trace.status = status
        responder = self._handler.responder
        octets = responder.stream_head(head, answer.rule, "", len(whole), shareable=answer.shareable)
        octets += self._handler.part(trace, answer.age)
        return octets + b"Content-Length: %d\r\n" % len(whole), whole

    def _send(self, protocol: EdgeProtocol, head: bytes, body: bytes, trace: Trace) -> None:
        transport = protocol.transport
        assert transport is not None  # noqa: S101
        end = b"\r\n" if not self._handler.draining else CLOSE + b"\r\n"
        if len(body) > 4096:
            transport.writelines((head + end, body))
        else:
            transport.write(b"".join((head, end, body)))
        trace.bytes_out = len(body)

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
                octets = self._entry_octets(answer, trace, learn)
            elif isinstance(answer, FromStream):
                octets = self._stream_octets(pending, answer, trace)
        if octets is None:
            self.wait(pending, answer)
            return
        self._send(protocol, *octets, trace)
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
        self._send(protocol, head, cast.body, trace)
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
