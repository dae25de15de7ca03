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
from typing import TYPE_CHECKING

import orjson
from aiohttp.streams import EMPTY_PAYLOAD

from edgeproxy.engine.exchange import Exchange, FromEdge, FromEntry, FromStream
from edgeproxy.front.compress import CodedReader, Compressor
from edgeproxy.front.multipart import multipart_ranges
from edgeproxy.front.request import REQUEST_ID, Refused, head_of
from edgeproxy.front.respond import BODILESS
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.coding import choose_coding, compressible
from edgeproxy.policy.decisions import Form
from edgeproxy.policy.vocabulary import OriginFailure, Tier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

    from edgeproxy.clock import Clock
    from edgeproxy.engine.exchange import Answer, Reader
    from edgeproxy.engine.handle import Engine
    from edgeproxy.front.respond import Responder
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.front.wire import Wire
    from edgeproxy.policy.head import ResponseHead

log = logging.getLogger("edgeproxy.front")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"


class ClientGone(ConnectionError):
    """The client's connection is lost; nothing more can be written."""


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
    ) -> None:
        self._engine = engine
        self._responder = responder
        self._compressor = compressor
        self._clock = clock
        self._next_id = next_id
        self.observers = list(observers)
        self._max_body = max_body
        self.rules_version = ""
        self.in_flight = 0
        self.draining = False

    async def serve(self, wire: Wire) -> bool:
        """Answer one message; True when the connection may be used again."""
        message, protocol = wire.message, wire.protocol
        trace = Trace(started=self._clock.monotonic(), method=message.method, client=protocol.client)
        sender = Sender(protocol, message, close=message.should_close or self.draining)
        self.in_flight += 1
        try:
            await self._serve(wire, trace, sender)
        except ClientGone:
            trace.aborted = True
            sender.keep_alive = False
        except asyncio.CancelledError:
            trace.aborted = True
            sender.keep_alive = False
            if wire.exchange is None or not wire.exchange.vanished:
                raise
        except OriginError as error:
            # The head is out already: all that is left is not to pretend that this was the end.
            trace.failure = error.failure
            trace.aborted = True
            sender.abort()
        except Exception:
            log.exception("request %s failed", trace.request_id)
            trace.aborted = sender.started
            await self._excuse(trace, sender)
        finally:
            self.in_flight -= 1
            trace.bytes_out = sender.body_octets
            trace.seconds = self._clock.monotonic() - trace.started
            for observe in self.observers:
                observe(trace)
        return sender.keep_alive

    async def refuse(self, protocol: EdgeProtocol, answer: FromEdge) -> None:
        """Answer what aiohttp's parser did not accept; there is no request to speak of."""
        trace = Trace(request_id=self._next_id(), started=self._clock.monotonic(), client=protocol.client)
        sender = Sender(protocol, None, close=True)
        try:
            await self._send_problem(answer, "GET", trace, sender)
        finally:
            trace.seconds = self._clock.monotonic() - trace.started
            for observe in self.observers:
                observe(trace)

    async def _serve(self, wire: Wire, trace: Trace, sender: Sender) -> None:
        message, payload = wire.message, wire.payload
        has_body = payload is not EMPTY_PAYLOAD
        trace.request_id = self._next_id()
        try:
            head = head_of(message, wire.protocol.scheme, has_body=has_body)
            length = self._length(message, has_body=has_body)
        except Refused as refused:
            sender.keep_alive = False
            trace.target, trace.host = message.path, ""
            answer: Answer = FromEdge(refused.status, "The request was refused", refused.detail)
            await self._send(answer, "GET", None, trace, sender)
            return
        wanted = head.headers.get("x-request-id")
        if wanted is not None and REQUEST_ID.fullmatch(wanted):
            trace.request_id = wanted
        trace.target, trace.host = head.target, head.host
        exchange = Exchange(head=head, trace=trace, length=length, client=wire.protocol.client)
        if has_body:
            expects = head.headers.get("expect") is not None and message.version >= (1, 1)
            exchange.body = self._request_body(payload, trace, sender, expects=expects)
        exchange.on_interim = sender.interim
        wire.exchange = exchange
        if wire.vanished:
            raise ClientGone
        answer = await self._engine.handle(exchange)
        await self._send(answer, head.method, head.headers.get("accept-encoding"), trace, sender)

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
        if expects and not payload.is_eof() and not sender.started:
            # Only now is the body wanted (RFC 9110 §10.1.1).
            sender.raw(CONTINUE)
        while not payload.is_eof() or payload.total_bytes > trace.bytes_in:
            chunk = await payload.readany()
            if not chunk:
                break
            trace.bytes_in += len(chunk)
            if trace.bytes_in > self._max_body:
                raise OriginError(OriginFailure.REQUEST_BODY, "too large", status=413)
            yield chunk

    async def _excuse(self, trace: Trace, sender: Sender) -> None:
        if sender.started:
            sender.abort()
            return
        sender.keep_alive = False
        answer = FromEdge(500, "Something went wrong in the edge", "The log has it under the request id.")
        try:
            await self._send(answer, "GET", None, trace, sender)
        except ConnectionError:
            trace.aborted = True

    # -- answers ----------------------------------------------------------------------------------------

    async def _send(
        self, answer: Answer, method: str, accepts: str | None, trace: Trace, sender: Sender
    ) -> None:
        if isinstance(answer, FromEntry):
            await self._send_entry(answer, method, trace, sender)
        elif isinstance(answer, FromStream):
            try:
                await self._send_stream(answer, method, accepts, trace, sender)
            finally:
                answer.body.close()
        else:
            await self._send_problem(answer, method, trace, sender)

    async def _send_entry(self, answer: FromEntry, method: str, trace: Trace, sender: Sender) -> None:
        entry, serve = answer.entry, answer.serve
        coding = serve.coding
        body = entry.body
        if serve.form is Form.FULL and coding:
            coded = await self._compressor.coded(entry, coding)
            if coded is None:
                coding = ""
            else:
                body = coded
        head = self._responder.entry_head(entry, serve, answer.rule, coding, self.rules_version)
        if serve.form is Form.PARTIAL:
            if len(serve.ranges) == 1:
                body = body[slice(*serve.ranges[0])]
            else:
                kind = entry.stored.headers.get("content-type")
                kind, body = multipart_ranges(kind, body, serve.ranges, trace.request_id)
                head += b"Content-Type: %b\r\n" % kind.encode("latin-1")
        elif serve.form is not Form.FULL:
            body = b""
        status = int(head[9:12])
        trace.status = status
        trace.age = serve.age
        trace.coding = coding
        # An answer straight from the origin has no age to tell, unless it came with one.
        head += self._part(trace, serve.age if serve.age or trace.tier is not Tier.ORIGIN else None)
        if status not in BODILESS:
            head += b"Content-Length: %d\r\n" % (entry.stored.length if method == "HEAD" and not body else len(body))
        await sender.whole(head, b"" if method == "HEAD" or status in BODILESS else body)

    async def _send_stream(
        self, answer: FromStream, method: str, accepts: str | None, trace: Trace, sender: Sender
    ) -> None:
        head, reader = answer.head, answer.body
        status = head.status
        bodiless = method == "HEAD" or status in BODILESS
        coding = ""
        source: Reader = reader
        compression = answer.rule.overrides.compression
        if not bodiless and not answer.shareable and compressible(
            status, head.headers, compression, reader.length
        ):
            coding = choose_coding(accepts, compression.codings)
            if coding:
                source = CodedReader(reader, coding)
        trace.status = status
        trace.coding = coding
        rendered = self._responder.stream_head(head, answer.rule, coding, shareable=answer.shareable)
        rendered += self._part(trace, answer.age)
        if bodiless:
            length = head.headers.get("content-length")
            if length is not None and length.isdigit() and status != 204:
                rendered += b"Content-Length: %b\r\n" % length.encode()
            await sender.whole(rendered, b"")
            return
        whole = source.take_all()
        if whole is not None:
            await sender.whole(rendered + b"Content-Length: %d\r\n" % len(whole), whole)
            return
        await sender.stream(rendered, source)

    async def _send_problem(self, answer: FromEdge, method: str, trace: Trace, sender: Sender) -> None:
        trace.status = answer.status
        trace.tier = Tier.EDGE
        body = orjson.dumps({
            "type": "about:blank",
            "title": answer.title,
            "status": answer.status,
            "detail": answer.detail,
            "request_id": trace.request_id,
        })
        head = self._responder.problem_head(answer.status, answer.fields) + self._part(trace, None)
        head += b"Content-Length: %d\r\n" % len(body)
        await sender.whole(head, b"" if method == "HEAD" else body)

    def _part(self, trace: Trace, age: int | None) -> bytes:
        trace.seconds = self._clock.monotonic() - trace.started
        return self._responder.request_part(trace, age)


class Sender:
    """Writes one answer to one connection; knows whether the connection survives it."""

    __slots__ = ("_http10", "_protocol", "body_octets", "keep_alive", "started")

    def __init__(self, protocol: EdgeProtocol, message: RawRequestMessage | None, *, close: bool) -> None:
        self._protocol = protocol
        self._http10 = message is not None and message.version < (1, 1)
        self.keep_alive = not close
        self.started = False
        self.body_octets = 0

    def raw(self, data: bytes) -> None:
        """An interim answer."""
        transport = self._protocol.transport
        if transport is None:
            raise ClientGone
        transport.write(data)

    def interim(self, head: ResponseHead) -> None:
        """A 1xx of the origin, passed on before the final answer (RFC 9110 §15.2)."""
        if self._http10 or self.started or head.status == 100 or self._protocol.transport is None:
            return
        fields = b"".join(b"%b: %b\r\n" % f for f in head.headers.raw)
        self.raw(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason.encode("latin-1"), fields))

    def _connection(self) -> bytes:
        if not self.keep_alive:
            return CLOSE
        return KEEP_ALIVE if self._http10 else b""

    async def whole(self, head: bytes, body: bytes) -> None:
        """One write."""
        protocol = self._protocol
        transport = protocol.transport
        if transport is None:
            raise ClientGone
        self.started = True
        head = b"%b%b\r\n" % (head, self._connection())
        if body:
            transport.writelines((head, body))
            self.body_octets += len(body)
        else:
            transport.write(head)
        if protocol.writing_paused:
            await self._drain()

    async def stream(self, head: bytes, reader: Reader) -> None:
        """Head at once, then each piece as it comes, no faster than the client reads."""
        length = reader.length
        chunked = length is None and not self._http10
        if length is not None:
            head += b"Content-Length: %d\r\n" % length
        elif chunked:
            head += b"Transfer-Encoding: chunked\r\n"
        else:
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
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
        try:
            await self._protocol._drain_helper()  # noqa: SLF001
        except ConnectionError as error:
            raise ClientGone from error

    def abort(self) -> None:
        """End the connection so that no client can take what it has for the whole."""
        self.keep_alive = False
        transport = self._protocol.transport
        if transport is not None:
            transport.abort()
