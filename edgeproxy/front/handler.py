"""One request, from aiohttp's accepted message to the last octet out.

Rules of this file:

- It makes the Exchange, has the engine answer it, and writes the answer: everything about sockets, nothing
  about caching.
- A body that breaks off is passed on as broken: the connection is closed before its announced end.
- Whatever happens, the request's trace is finished once and shown to every observer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, cast

import orjson
from aiohttp.streams import EMPTY_PAYLOAD

from edgeproxy.engine.exchange import Exchange, FromEdge, FromEntry, FromStream
from edgeproxy.engine.prompt import BROKEN
from edgeproxy.front.doors import Terms
from edgeproxy.front.followed import Followed
from edgeproxy.front.lane import NOT_LEARNED
from edgeproxy.front.multipart import multipart_ranges
from edgeproxy.front.request import HTTP_1_1, MOST_FIELDS, REQUEST_ID, Refused, head_of
from edgeproxy.front.respond import BODILESS
from edgeproxy.front.sender import ClientGone, Sender
from edgeproxy.front.trust import FIELDS
from edgeproxy.front.websockets import Handshake, is_handshake
from edgeproxy.front.wire import BodyBroken
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.coding import choose_coding, compressible, named_coding
from edgeproxy.policy.decisions import Form
from edgeproxy.policy.lists import split_list
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure, Tier, Unsatisfied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

    from edgeproxy.clock import Clock
    from edgeproxy.engine.exchange import Answer, Reader
    from edgeproxy.engine.handle import Engine
    from edgeproxy.front.compress import Compressor
    from edgeproxy.front.lane import Lane
    from edgeproxy.front.respond import Responder
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.front.short import ShortWay
    from edgeproxy.front.traced import Sampling
    from edgeproxy.front.trust import Trust
    from edgeproxy.front.websockets import WebSockets
    from edgeproxy.front.wire import Wire
    from edgeproxy.origin.base import Tunnel
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.store.entry import Entry

log = logging.getLogger("edgeproxy.front")

NOT_PERMITTED = FromEdge(403, "Not for this client", "Requests of this address are not answered here.")
DIGITS = re.compile(r"[0-9]{1,18}")
_LEARNED = frozenset({Form.FULL, Form.NOT_MODIFIED})
"""Forms of answers that the lane may give by itself."""


class Handler:
    """Per worker. ``next_id`` gives request ids; ``observers`` see each finished trace."""

    def __init__(
        self,
        *,
        engine: Engine,
        responder: Responder,
        compressor: Compressor,
        clock: Clock,
        next_id: Callable[[], str],
        observers: Sequence[Callable[[Trace], None]],
        max_body: int,
        trust: Trust | None = None,
        followed: Followed | None = None,
        terms: Terms | None = None,
        websockets: WebSockets,
    ) -> None:
        self._engine = engine
        self.responder = responder
        self._compressor = compressor
        self.clock = clock
        self._next_id = next_id
        self.observers = list(observers)
        self._max_body = max_body
        self._trust = trust
        self.followed = followed or Followed()
        self.terms = terms or Terms()
        self.websockets = websockets
        self.rules_version = ""
        self.lane: Lane | None = None
        self.short: ShortWay | None = None
        self.sampling: Sampling | None = None
        """Chooses the requests that are recorded as spans; None: none is."""
        self.asked: Callable[[Entry], None] | None = None
        """Called with each stored entry that is answered from."""
        self.in_flight = 0
        self.draining = False

    async def serve(self, wire: Wire) -> bool:
        """Answer one message; True when the connection may be used again."""
        message, protocol = wire.message, wire.protocol
        trace = Trace(started=self.clock.monotonic(), method=message.method, client=protocol.client)
        close = message.should_close or message is protocol.last
        sender = Sender(protocol, message, self.clock, close=close)
        try:
            return await self.run(
                self._serve(wire, trace, sender),
                trace,
                sender,
                lambda: wire.exchange is not None and wire.exchange.vanished,
            )
        finally:
            if wire.exchange is not None:
                wire.exchange.content = None  # an idle connection must not hold it
                if wire.exchange.upgrade is not None:
                    wire.exchange.upgrade.leave()

    async def run(
        self, work: Awaitable[None], trace: Trace, sender: Sender, vanished: Callable[[], bool]
    ) -> bool:
        """Answer by ``work``, and see to it that the request ends well or is seen not to; True when the
        connection may be used again."""
        self.in_flight += 1
        try:
            await work
        except ClientGone:
            trace.aborted = True
            sender.keep_alive = False
        except asyncio.CancelledError:
            trace.aborted = True
            sender.keep_alive = False
            if not vanished():
                raise
        except OriginError as error:
            # The head is out already: all that is left is not to pretend that this was the end.
            trace.failure = error.failure
            trace.aborted = True
            sender.abort()
        except Exception:
            log.exception("request %s failed", trace.request_id)
            trace.aborted = sender.started
            await self._excuse(trace.method, trace, sender)
        finally:
            self.in_flight -= 1
            trace.bytes_out = sender.body_octets
            self.finish(trace)
        return sender.keep_alive

    def finish(self, trace: Trace) -> None:
        """The request is over: tell who looks on."""
        trace.seconds = self.clock.monotonic() - trace.started
        for observe in self.observers:
            observe(trace)

    async def refuse(self, protocol: EdgeProtocol, answer: FromEdge) -> None:
        """Answer what aiohttp's parser did not accept; there is no request to speak of."""
        trace = Trace(request_id=self._next_id(), started=self.clock.monotonic(), client=protocol.client)
        sender = Sender(protocol, None, self.clock, close=True)
        try:
            await self._send_problem(answer, "GET", trace, sender)
        finally:
            self.finish(trace)

    async def _serve(self, wire: Wire, trace: Trace, sender: Sender) -> None:
        message, payload = wire.message, wire.payload
        has_body = payload is not EMPTY_PAYLOAD
        trace.request_id = self._next_id()
        try:
            # A single field may be as large as the operator has said.
            most = max(MOST_FIELDS, wire.protocol.max_line_size)
            head = head_of(message, wire.protocol.scheme, has_body=has_body, most=most)
            length = self._length(message, has_body=has_body)
        except Refused as refused:
            sender.keep_alive = False
            trace.target, trace.host = message.path, ""
            await self._send_problem(
                FromEdge(refused.status, "The request was refused", refused.detail),
                message.method, trace, sender,
            )  # fmt: skip
            return
        told = wire.protocol.client
        kept = self.followed.kept(head.headers, told)
        if kept is not head.headers:
            head = replace(head, headers=kept)
        wanted = kept.get("x-request-id")
        if wanted is not None and REQUEST_ID.fullmatch(wanted) and self.followed(told):
            trace.request_id = wanted
        trace.target, trace.host = head.target, head.host
        if self._trust is not None:
            source = self._trust.source(told, head.scheme, head.headers)
            trace.client, told = source.client, source.chain
            head = replace(head, scheme=source.scheme)
            if not self.terms.permits(trace.client):
                # Of the peer itself this was asked when it connected.
                sender.keep_alive = sender.keep_alive and not has_body
                trace.tier, trace.unsatisfied = Tier.EDGE, Unsatisfied.DENIED
                await self._send_problem(NOT_PERMITTED, message.method, trace, sender)
                return
        if self.sampling is not None:
            trace.span = self.sampling.begin(head.headers, wire.segment)
        exchange = Exchange(head=head, trace=trace, length=length, client=told)
        if has_body:
            expects = "100-continue" in split_list((head.headers.get("expect") or "").lower())
            expects = expects and message.version >= HTTP_1_1
            exchange.body = self._request_body(payload, trace, sender, expects=expects)
        exchange.on_interim = sender.interim
        if message.upgrade and is_handshake(message, head):
            exchange.upgrade = Handshake(self.websockets)
        wire.exchange = exchange
        if wire.vanished:
            raise ClientGone
        if message.version < HTTP_1_1 and "Transfer-Encoding" in message.headers:
            # HTTP/1.0 knows no such field: its framing may be another's than ours (RFC 9112 §6.1).
            sender.keep_alive = False
        version = self.rules_version
        answer = await self._engine.handle(exchange)
        over = message is wire.protocol.last
        if over or not payload.is_eof() or payload.exception() is not None:
            # What is left of a body that nobody wanted is not the start of the next request, and what stands
            # behind trailers is not one to be believed.
            sender.keep_alive = False
        if isinstance(answer, FromStream) and answer.head.status == 101:
            exchange.on_vanish = None
            try:
                await self._go_on(answer, wire, trace, sender)
            finally:
                answer.body.close()
            return
        segment = wire.segment
        if segment is not None and (version != self.rules_version or not self._learnable(head, sender)):
            segment = None  # after a reload the lane must not learn what the rules before it have said
        await self.send(answer, head, trace, sender, segment)

    async def send(
        self, answer: Answer, head: RequestHead, trace: Trace, sender: Sender, segment: bytes | None
    ) -> None:
        """``segment``: the request's octets, where the lane may learn what they are answered with."""
        if isinstance(answer, FromEntry):
            await self._send_entry(answer, head.method, trace, sender, segment)
        elif isinstance(answer, FromStream):
            try:
                await self._send_stream(answer, head, trace, sender)
            finally:
                answer.body.close()
        else:
            await self._send_problem(answer, head.method, trace, sender)

    def _learnable(self, head: RequestHead, sender: Sender) -> bool:
        """Whether the lane may remember this request: what its answer depends on is in its octets and L1."""
        return (
            self.lane is not None
            and head.method == "GET"
            and sender.keep_alive
            and head.headers.isdisjoint(NOT_LEARNED)
            and (self._trust is None or head.headers.isdisjoint(FIELDS))
        )

    def _length(self, message: RawRequestMessage, *, has_body: bool) -> int | None:
        if not has_body or message.chunked:
            return None
        length = message.headers.get("Content-Length")
        if length is None:
            return None
        if int(length) > self._max_body:
            raise Refused(413, f"The request body is larger than {self._max_body} octets.")
        return int(length)

    async def _request_body(
        self, payload: StreamReader, trace: Trace, sender: Sender, *, expects: bool
    ) -> AsyncIterator[bytes]:
        """Its pieces as they are asked for; the client is held back meanwhile."""
        if expects and not payload.is_eof() and not sender.started:
            # Only now is the body wanted (RFC 9110 §10.1.1).
            sender.go_on()
        while not payload.is_eof() or payload.total_bytes > trace.bytes_in:
            chunk = await payload.readany()
            if not chunk:
                break
            trace.bytes_in += len(chunk)
            if trace.bytes_in > self._max_body:
                sender.keep_alive = False
                raise OriginError(OriginFailure.REQUEST_BODY, "too large", status=413)
            yield chunk
        # It may have broken off while nobody was reading: then it has an end, which is not its own.
        broken = payload.exception()
        if isinstance(broken, BodyBroken):
            raise broken

    async def _excuse(self, method: str, trace: Trace, sender: Sender) -> None:
        if sender.started:
            sender.abort()
            return
        sender.keep_alive = False
        try:
            await self._send_problem(BROKEN, method, trace, sender)
        except ConnectionError:
            trace.aborted = True

    # -- answers ----------------------------------------------------------------------------------------

    async def _send_entry(
        self, answer: FromEntry, method: str, trace: Trace, sender: Sender, segment: bytes | None
    ) -> None:
        entry, coding, version = answer.entry, answer.serve.coding, self.rules_version
        coded = None
        if answer.serve.form is Form.FULL and coding:
            coded = await self._compressor.coded(entry, coding)
            if version != self.rules_version:
                segment = None  # reloaded while it was coded
        head, body = self.render(answer, method, trace, segment, coded)
        await sender.whole(head, body)

    def render(
        self, answer: FromEntry, method: str, trace: Trace, segment: bytes | None, coded: bytes | None
    ) -> tuple[bytes, bytes]:
        """Head (without Connection and the empty line) and body. ``coded``: the body in the coding that the
        client is to get, None where there is none or it would be no smaller."""
        entry, serve = answer.entry, answer.serve
        coding, body = serve.coding, entry.body
        if serve.form is Form.FULL and coding:
            if coded is None:
                coding = ""
            else:
                body = coded
        head = self.responder.entry_head(entry, serve, answer.rule, coding, self.rules_version)
        if serve.form is Form.PARTIAL:
            if len(serve.ranges) == 1:
                start, stop = serve.ranges[0]
                body = body[start - serve.at : stop - serve.at]
            else:
                kind = entry.stored.headers.get("content-type")
                kind, body = multipart_ranges(kind, body, serve.ranges, token_hex(12))
                head += b"Content-Type: %b\r\n" % kind.encode("latin-1")
        elif serve.form is not Form.FULL:
            body = b""
        status = int(head[9:12])
        trace.status = status
        trace.age = serve.age
        trace.coding = coding
        if status not in BODILESS:
            length = len(body)
            if method == "HEAD" and serve.form is Form.FULL and not body:
                length = entry.stored.length  # of what GET would bring, whether its body is here or not
            head += b"Content-Length: %d\r\n" % length
        if (
            segment
            and not answer.rule.is_gated
            and self.lane is not None
            and serve.form in _LEARNED
            and trace.word is CacheWord.HIT
        ):
            self.lane.learn(segment, entry, answer.rule.name, coding, head, body, status)
        if self.asked is not None and (trace.hit or trace.stored):
            self.asked(entry)
        head += self.part(trace, serve.age)
        return head, b"" if method == "HEAD" or status in BODILESS else body

    async def _send_stream(
        self, answer: FromStream, request: RequestHead, trace: Trace, sender: Sender
    ) -> None:
        head, reader = answer.head, answer.body
        status, fields = head.status, request.headers
        bodiless = request.method == "HEAD" or status in BODILESS
        compression = answer.rule.overrides.compression
        coding = ""
        source: Reader = reader
        length = reader.length
        if bodiless:
            told = head.headers.get("content-length")
            length = int(told) if told is not None and DIGITS.fullmatch(told) and status != 204 else None
        if status == 304:
            coding = named_coding(head.headers.get("etag"), fields.get("if-none-match"), compression.codings)
        # Who has asked for parts and is sent the whole of a body on its way is sent it as it is.
        elif not (answer.shareable and "range" in fields) and compressible(
            status, head.headers, compression, length
        ):
            coding = choose_coding(fields.get("accept-encoding"), compression.codings)
            if coding and not bodiless:
                source = self._compressor.stream(reader, coding)
        trace.status = status
        trace.coding = coding
        rendered = self.responder.stream_head(head, answer.rule, coding, length, shareable=answer.shareable)
        rendered += self.part(trace, answer.age)
        if bodiless:
            if length is not None and not coding:
                rendered += b"Content-Length: %d\r\n" % length
            await sender.whole(rendered, b"")
            return
        try:
            whole = source.take_all()
            if whole is not None:
                await sender.whole(rendered + b"Content-Length: %d\r\n" % len(whole), whole)
            else:
                await sender.stream(rendered, source)
        finally:
            source.close()

    async def _go_on(self, answer: FromStream, wire: Wire, trace: Trace, sender: Sender) -> None:
        """As a WebSocket: until it ends."""
        head, tunnel = answer.head, cast("Tunnel", answer.body)
        trace.status = head.status
        rendered = self.responder.stream_head(head, answer.rule, "", None, shareable=False)
        rendered += self.part(trace, None)
        await self.websockets.serve(wire.protocol, sender, rendered, head.headers, tunnel, answer.rule, trace)

    async def _send_problem(self, answer: FromEdge, method: str, trace: Trace, sender: Sender) -> None:
        await sender.whole(*self.problem(answer, method, trace))

    def problem(self, answer: FromEdge, method: str, trace: Trace) -> tuple[bytes, bytes]:
        """As ``render``, of what the edge answers by itself."""
        trace.status = answer.status
        trace.tier = Tier.EDGE
        body = orjson.dumps(
            {
                "type": "about:blank",
                "title": answer.title,
                "status": answer.status,
                "detail": answer.detail,
                "request_id": trace.request_id,
            }
        )
        head = self.responder.problem_head(answer.status, answer.fields) + self.part(trace, None)
        head += b"Content-Length: %d\r\n" % len(body)
        return head, b"" if method == "HEAD" else body

    def part(self, trace: Trace, age: int | None) -> bytes:
        trace.seconds = self.clock.monotonic() - trace.started
        if not age and trace.tier is Tier.ORIGIN:
            age = None  # straight from the origin: there is no age to tell, unless it came with one
        return self.responder.request_part(trace, age)
