"""From an Answer to the octets of a head, in ordered steps.

Rules of this file:

- Steps, always in this order: status line; the answer's own fields; what the rule tells clients; the edge's
  constant fields; framing; then, per request, Age, the cache's words, timing and the request's id.
- What does not change from hit to hit is rendered once and kept with the entry (``Entry.heads``): a hit
  parses nothing and joins two byte strings.
- The trace is read here and nowhere changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from math import ceil, floor
from typing import TYPE_CHECKING

from edgeproxy.front.proxy_status import proxy_status
from edgeproxy.policy.coding import coded_etag, compressible
from edgeproxy.policy.decisions import Form
from edgeproxy.policy.head import Headers
from edgeproxy.policy.header_table import forwardable_answer
from edgeproxy.policy.http_date import format_http_date
from edgeproxy.policy.joining import content_range
from edgeproxy.policy.stored import Part
from edgeproxy.policy.vocabulary import Tier

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.observe.trace import Trace
    from edgeproxy.policy.decisions import Serve
    from edgeproxy.policy.head import RawField, ResponseHead
    from edgeproxy.policy.stored import Stored
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.entry import Entry

REASONS = {s.value: s.phrase.encode() for s in HTTPStatus}
BODILESS = frozenset({204, 304})
OURS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"age"})
"""Never copied from an answer: framing is ours, and Age is computed."""
LIFETIME = frozenset({b"cache-control", b"cdn-cache-control", b"surrogate-control", b"expires", b"pragma"})
"""Left out of a 416: they are about the stored answer; a cache below would keep the error as long."""
REPRESENTATION = frozenset({b"content-type", b"content-encoding", b"content-language", b"content-range"})
"""Left out of a 304: they describe a body that is not there (RFC 9110 §15.4.5)."""

NOT_OF_A_PART = frozenset({b"content-range", b"content-digest", b"content-md5"})
"""Left out of a 206: they describe the octets of another message."""


@dataclass(frozen=True, slots=True)
class EdgeFields:
    """Which fields the edge adds. ``name`` is ours in Cache-Status and Via; ``location`` names this edge."""

    name: str = "edgeproxy"
    location: str = ""
    x_cache_status: bool = True
    cache_status: bool = True
    proxy_status: bool = True
    server_timing: bool = True
    x_request_id: bool = True
    x_edge_location: bool = True
    x_response_time: bool = False
    age: bool = True
    via: bool = True


class Responder:
    def __init__(self, fields: EdgeFields, clock: Clock) -> None:
        self._clock = clock
        self._fields = fields
        skipped = set(OURS)
        if fields.x_cache_status:
            skipped.add(b"x-cache-status")
        if fields.x_request_id:
            skipped.add(b"x-request-id")
        self._skipped = frozenset(skipped)
        lines = []
        if fields.via:
            lines.append(b"Via: 1.1 %b\r\n" % fields.name.encode("latin-1"))
        if fields.x_edge_location and fields.location:
            lines.append(b"X-Edge-Location: %b\r\n" % fields.location.encode("latin-1"))
        self._constant = b"".join(lines)
        self._name = fields.name.encode("latin-1")

    # -- whole answers ----------------------------------------------------------------------------------

    def entry_head(self, entry: Entry, serve: Serve, rule: Rule, coding: str, version: str) -> bytes:
        """The constant part of the head for this form and coding, without Content-Length.

        ``version`` is the rule set's: a reload may change what clients are told. Of one version each rule has
        its own: two may answer under one key, and a request under way during a reload is answered by the old.
        """
        if serve.form is Form.PARTIAL or serve.form is Form.NOT_SATISFIABLE:
            return self.stored_head(entry.stored, serve, rule, coding)
        key = (serve.form, coding, version, id(rule))
        heads = entry.heads
        if heads is None:
            if entry.is_packed:
                return self.stored_head(entry.stored, serve, rule, coding)
            heads = entry.heads = {}
        rendered = heads.get(key)
        if rendered is None:
            if len(heads) >= 8:
                heads.clear()  # forms of rule sets that are gone
            rendered = heads[key] = self.stored_head(entry.stored, serve, rule, coding)
        return rendered

    def stored_head(self, stored: Stored, serve: Serve, rule: Rule, coding: str) -> bytes:
        """As ``entry_head``, rendered anew."""
        headers = self._told(stored.headers, stored.status, rule, shareable=True)
        status, reason, skipped = stored.status, stored.reason, self._skipped
        extra: list[RawField] = []
        if serve.form is Form.NOT_MODIFIED:
            status, reason, skipped = 304, "", skipped | REPRESENTATION
        elif serve.form is Form.PARTIAL:
            status, reason, skipped = 206, "", skipped | NOT_OF_A_PART
            if len(serve.ranges) == 1:
                part = Part(*serve.ranges[0], stored.complete_length)
                extra.append((b"Content-Range", content_range(part).encode()))
            else:
                skipped = skipped | {b"content-type"}
        elif serve.form is Form.NOT_SATISFIABLE:
            status, reason, skipped = 416, "", skipped | REPRESENTATION | LIFETIME
            extra.append((b"Content-Range", b"bytes */%d" % (stored.complete_length or 0)))
            extra.append((b"Cache-Control", b"no-store"))
        if coding:
            etag = headers.get("etag")
            if etag is not None:
                headers = headers.setting("ETag", coded_etag(etag, coding))
            if serve.form is Form.FULL:
                extra.append((b"Content-Encoding", coding.encode()))
        whole = 200 if stored.part is not None else stored.status
        if compressible(whole, stored.headers, rule.overrides.compression, stored.complete_length):
            headers = varying(headers)
        return self._head(status, reason, headers, skipped, extra)

    # -- answers on their way ---------------------------------------------------------------------------

    def stream_head(
        self, head: ResponseHead, rule: Rule, coding: str, length: int | None, *, shareable: bool
    ) -> bytes:
        """The head of a passed or streaming answer, without framing. ``length``: of its body, if known."""
        headers = self._told(forwardable_answer(head.headers), head.status, rule, shareable=shareable)
        extra: list[RawField] = []
        if coding:
            etag = headers.get("etag")
            if etag is not None:
                headers = headers.setting("ETag", coded_etag(etag, coding))
            if head.status != 304:
                extra.append((b"Content-Encoding", coding.encode()))
        if coding or compressible(head.status, head.headers, rule.overrides.compression, length):
            headers = varying(headers)
        # A passed answer keeps the age it came with: whoever stores it below must count that in.
        skipped = self._skipped if shareable else self._skipped - {b"age"}
        return self._head(head.status, head.reason, headers, skipped, extra)

    def problem_head(self, status: int, fields: tuple[tuple[str, str], ...]) -> bytes:
        """The head of an answer that the edge makes by itself."""
        headers = Headers.of(
            (
                ("Date", format_http_date(self._clock.now())),
                ("Content-Type", "application/problem+json"),
                ("Cache-Control", "no-store"),
                *fields,
            )
        )
        return self._head(status, "", headers, self._skipped, [])

    # -- the parts --------------------------------------------------------------------------------------

    @staticmethod
    def _told(headers: Headers, status: int, rule: Rule, *, shareable: bool) -> Headers:
        """What the rule tells clients and the caches below: of good answers only, lest a 404 that is kept
        for a minute be told to live for a week."""
        if shareable and status < 400:
            if rule.client_cache_control is not None:
                headers = headers.without({"expires", "pragma"}).setting(
                    "Cache-Control", rule.client_cache_control
                )
            if rule.cdn_cache_control is not None:
                headers = headers.setting("CDN-Cache-Control", rule.cdn_cache_control)
        if rule.response_headers:
            headers = rule.response_headers.apply(headers)
        return headers

    def _head(
        self, status: int, reason: str, headers: Headers, skipped: frozenset[bytes], extra: list[RawField]
    ) -> bytes:
        lines = [
            b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("latin-1") or REASONS.get(status, b"")),
        ]
        names = headers.field_names
        kept = names.memo.get(skipped)
        if kept is None:
            kept = [place for place, name in enumerate(names.raw) if name.lower() not in skipped]
            names.memo[skipped] = kept
        raw = headers.raw
        lines += [b"%b: %b\r\n" % raw[place] for place in kept]
        lines += [b"%b: %b\r\n" % f for f in extra]
        lines.append(self._constant)
        return b"".join(lines)

    @property
    def sends_request_id(self) -> bool:
        return self._fields.x_request_id

    @property
    def sends_response_time(self) -> bool:
        return self._fields.x_response_time

    def request_part(self, trace: Trace, age: int | None) -> bytes:
        """What is said of this request alone."""
        part = self.stable_part(trace, age)
        if self._fields.x_response_time:
            part += b"X-Response-Time: %.1fms\r\n" % (trace.seconds * 1000)
        if self._fields.x_request_id:
            part += b"X-Request-ID: %b\r\n" % trace.request_id.encode("latin-1")
        return part

    def stable_part(self, trace: Trace, age: int | None) -> bytes:
        """What is the same for every hit on one entry within a second."""
        fields = self._fields
        lines = []
        if age is not None and fields.age:
            lines.append(b"Age: %d\r\n" % age)
        if fields.x_cache_status:
            lines.append(b"X-Cache-Status: %b\r\n" % trace.word.value.encode())
        if trace.tier is Tier.EDGE:
            if fields.proxy_status and (said := proxy_status(self._name, trace)):
                lines.append(b"Proxy-Status: %b\r\n" % said)
        elif fields.cache_status and (trace.hit or trace.forwarded is not None or trace.reason):
            # Nothing of a request that was refused unread: that is no cache's doing (RFC 9211 §2).
            lines.append(b"Cache-Status: %b\r\n" % self.cache_status(trace))
        if fields.server_timing:
            lines.append(b"Server-Timing: %b\r\n" % server_timing(trace))
        return b"".join(lines)

    def cache_status(self, trace: Trace) -> bytes:
        """Our member of Cache-Status (RFC 9211 §2)."""
        parts = [self._name]
        if trace.hit:
            parts.append(b"hit")
            if trace.ttl is not None:
                parts.append(b"ttl=%d" % whole(trace.ttl))
        elif trace.forwarded is not None:
            parts.append(b"fwd=%b" % trace.forwarded.value.encode())
            if trace.forwarded_status:
                parts.append(b"fwd-status=%d" % trace.forwarded_status)
            if trace.stored:
                if trace.ttl is not None:
                    parts.append(b"ttl=%d" % whole(trace.ttl))
                parts.append(b"stored")
            if trace.collapsed:
                parts.append(b"collapsed")
        if trace.rule != "none":
            parts.append(b'rule="%b"' % trace.rule.encode("latin-1", "replace"))
        reason = trace.reason
        if reason:
            parts.append(b"detail=%b" % reason.encode())
        return b"; ".join(parts)


def whole(ttl: float) -> int:
    """Seconds away from zero: neither what is fresh nor what is stale is ever told 0 (RFC 9211 §2.4)."""
    return ceil(ttl) if ttl > 0 else floor(ttl)


def server_timing(trace: Trace) -> bytes:
    """Our members of Server-Timing: the tier, and milliseconds spent on L2, the origin and waiting."""
    parts = [b"tier;desc=%b" % trace.tier.value.encode()]
    if trace.l2_seconds:
        parts.append(b"l2;dur=%.2f" % (trace.l2_seconds * 1000))
    if trace.origin_seconds or trace.tier is Tier.ORIGIN:
        parts.append(b"origin;dur=%.2f" % (trace.origin_seconds * 1000))
    if trace.queue_seconds:
        parts.append(b"queue;dur=%.2f" % (trace.queue_seconds * 1000))
    return b", ".join(parts)


def varying(headers: Headers) -> Headers:
    """With Accept-Encoding among the selecting fields: the coding depends on it, sent coded or not."""
    vary = headers.get("vary")
    if vary is None:
        return headers.adding("Vary", "Accept-Encoding")
    names = {n.strip().lower() for n in vary.split(",")}
    if "*" in names or "accept-encoding" in names:
        return headers
    return headers.setting("Vary", f"{vary}, Accept-Encoding")
