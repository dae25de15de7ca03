"""Octets of answers that take no waiting, and how they go out.

Rules of this file:

- What is written is what handler.py would write, made by the same functions or by copies that are filled
  (alike.py, refusals.py). None or False: that takes waiting, or looking into it, and is handler.py's.
- An answer is written to a connection whose buffer is empty; a head that goes out in a drain says that it is
  the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.front.alike import Alike
from edgeproxy.front.refusals import Refusals
from edgeproxy.front.respond import BODILESS
from edgeproxy.front.sender import CLOSE, SLICE
from edgeproxy.policy.coding import choose_coding, compressible
from edgeproxy.policy.decisions import Form
from edgeproxy.policy.vocabulary import CacheWord, Tier

if TYPE_CHECKING:
    from edgeproxy.engine.exchange import FromEdge, FromEntry, FromStream
    from edgeproxy.front.compress import Compressor
    from edgeproxy.front.handler import Handler
    from edgeproxy.front.plans import Block
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.observe.trace import Trace
    from edgeproxy.policy.head import Headers
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.entry import Entry

LARGEST = SLICE
"""Octets of a body that are written at once."""


class AtOnce:
    """Per worker."""

    def __init__(self, handler: Handler, compressor: Compressor) -> None:
        self._handler = handler
        self._compressor = compressor
        self._clock = handler.clock
        self._alike = Alike(handler.responder)
        self._refusals = Refusals(handler)

    def stored(self, answer: FromEntry, trace: Trace, learn: bytes | None) -> tuple[bytes, bytes] | None:
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

    def streamed(self, fields: Headers, answer: FromStream, trace: Trace) -> tuple[bytes, bytes] | None:
        """As ``stored``, for an answer that is not."""
        head, body = answer.head, answer.body
        compression = answer.rule.overrides.compression
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

    def write(self, protocol: EdgeProtocol, head: bytes, body: bytes, trace: Trace) -> None:
        transport = protocol.transport
        assert transport is not None  # noqa: S101
        end = b"\r\n" if not self._handler.draining else CLOSE + b"\r\n"
        if len(body) > 4096:
            transport.writelines((head + end, body))
        else:
            transport.write(b"".join((head, end, body)))
        trace.bytes_out = len(body)

    def whole(
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
        return self.answer(protocol, head + handler.part(trace, trace.age), body, trace)

    def answer(self, protocol: EdgeProtocol, head: bytes, body: bytes, trace: Trace) -> bool:
        """What is at hand, at once: the request is over."""
        self.write(protocol, head, body, trace)
        self._handler.finish(trace)
        protocol.answered_at_once(keep_alive=not self._handler.draining)
        return True

    def refuse(self, protocol: EdgeProtocol, answer: FromEdge, trace: Trace, rule: str) -> bool:
        """Answer by ourselves, at once."""
        handler = self._handler
        trace.rule, trace.word, trace.forwarded = rule, CacheWord.BYPASS, None
        octets = self._refusals.octets(answer, trace) or handler.problem(answer, "GET", trace)
        return self.answer(protocol, *octets, trace)
