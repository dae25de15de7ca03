"""What the origin is asked: the client's head, normalised for the purpose it is sent for.

Rules of this file:

- For an answer that may be stored, the client's conditions, ranges and codings are taken off: the edge wants
  the whole thing, once, and evaluates those itself (RFC 9111 §4.3.1, §4.3.2).
- What is passed goes as it came, less what belongs to the connection (RFC 9110 §7.6.1).
- Host goes as the client sent it, in the letters that the key has too: an origin that minds its case must not
  be made to answer differently under one key. Where the operator has set another one, that goes instead.
- CGI and its heirs read "_" and "-" in a name alike. A field that they would take for one that counts (for
  the rule, for HTTP, or among those below) is not forwarded: it would say unkeyed what the other says keyed.
- TRACE is sent back as it came (RFC 9110 §9.3.8): what a client must not see, or a script of its page, is not
  in it: credentials, his own and those that the rule sets.
- A request that is recorded as a span goes on under an id of ours (traceparent); otherwise those fields are
  like any others.
- Fields by which a client could speak for the edge (X-Forwarded-*, Forwarded and those that rewrite URL or
  method) or to the framework behind it (Proxy, which CGI takes for HTTP_PROXY) are dropped unless the rule's
  key holds them, and ours are set: an origin may reflect them. Which of TOLD it gets is the operator's
  choice; no choice lets the client's through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.engine.forwarded import forwarded
from edgeproxy.origin.base import Forward
from edgeproxy.policy.cdn_loop import FIELD, has_looped, loop_member, with_member
from edgeproxy.policy.coding import with_plain_etags
from edgeproxy.policy.head import Headers
from edgeproxy.policy.header_table import forwardable_request
from edgeproxy.policy.vary import reduced_for_origin

if TYPE_CHECKING:
    from edgeproxy.engine.exchange import Exchange
    from edgeproxy.policy.head import RawField
    from edgeproxy.rules.model import Rule

SPOKEN_FOR = frozenset({
    "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
    "x-forwarded-scheme", "x-forwarded-prefix", "x-forwarded-server", "x-forwarded-ssl",
    "x-forwarded-protocol", "x-forwarded-path", "x-forwarded-uri", "x-real-ip", "x-host", "x-original-host",
    "x-original-url", "x-original-uri", "x-rewrite-url", "x-url-scheme", "front-end-https",
    "x-http-host-override", "x-http-method-override", "x-http-method", "x-method-override", "x-request-id",
    "x-forwarded", "x-forwarded-by", "x-host-override", "x-original-scheme", "x-override-url",
    "x-rewrite-uri", "x-http-destinationurl", "x-scheme", "proxy", "x-envoy-original-path",
    "x-middleware-subrequest", "x-invoke-path", "x-invoke-status", "x-accel-mapping", "x-sendfile-type",
    "client-cert", "client-cert-chain",
})  # fmt: skip
"""Not forwarded as the client sent them, nor with "_" for "-": CGI and its heirs read both alike. Where the
rule has one of them in its key (and it is none of OURS), each value has answers of its own, and it goes. The
last two are to be taken off by whoever ends TLS (RFC 9440 §2.4)."""
OURS = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-request-id"})
"""Of these: set by the edge, or saying what it sets."""
TOLD = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
"""What the origin is told of clients, unless the operator says otherwise: as most proxies have it."""


class ForwardBuilder:
    """``via``: the pseudonym in Via. ``host``: the origin gets this Host; "" leaves the client's. ``node``
    tells this node from others of that name in CDN-Loop. ``told``: of TOLD and "forwarded"."""

    def __init__(self, via: str, host: str = "", node: str = "", told: frozenset[str] = TOLD) -> None:
        self._via = f"1.1 {via}"
        self._member = loop_member(via, node)
        self._host = host.encode("latin-1")
        self._for = "x-forwarded-for" in told
        self._tells_host = "x-forwarded-host" in told
        self._proto = "x-forwarded-proto" in told
        self.with_forwarded = "forwarded" in told

    def loops(self, headers: Headers) -> bool:
        """The request has passed through this node already."""
        value = headers.get(FIELD)
        return value is not None and has_looped(value, self._member)

    def forwarded(self, exchange: Exchange, rule: Rule) -> str:
        """The value of Forwarded. The host only where the key holds it too: an origin may write it into what
        it answers."""
        head = exchange.head
        host = head.host if rule.key.host else ""
        return forwarded(exchange.client, exchange.trace.client, head.scheme, host)

    def passed(self, exchange: Exchange, rule: Rule) -> Forward:
        """As it came, body and all."""
        headers = forwardable_request(exchange.head.headers, conditionals=True, ranges=True)
        headers = _with_plain_etags(headers, rule)
        return self._finish(exchange, rule, headers, body=True)

    def whole(
        self,
        exchange: Exchange,
        rule: Rule,
        conditions: tuple[RawField, ...] = (),
        *,
        conditionals: bool = False,
    ) -> Forward:
        """For the cache: whole and plain, with the cache's own ``conditions``.

        With ``conditionals`` the client's own conditions and ranges stay (hit-for-miss: the answer is most
        likely for this client alone).
        """
        headers = forwardable_request(exchange.head.headers, conditionals=conditionals, ranges=conditionals)
        if conditionals:
            headers = _with_plain_etags(headers, rule)
        headers = reduced_for_origin(headers, rule.overrides)
        if rule.overrides.compression.enabled:
            headers = headers.setting("accept-encoding", "identity")
        if conditions:
            headers = Headers((*headers.raw, *conditions))
        return self._finish(exchange, rule, headers, body=False)

    def _finish(self, exchange: Exchange, rule: Rule, headers: Headers, *, body: bool) -> Forward:
        head = exchange.head
        via = headers.get("via")
        raw = [
            field
            for field in headers.raw
            if not ((name := field[0].lower()) in _DROPPED or (b"_" in name and _passes_for(name, rule)))
            or (rule.key.headers and name not in _OURS and name.decode("latin-1") in rule.key.headers)
        ]
        if self._host:
            raw = [(b"Host", self._host), *(field for field in raw if field[0].lower() != b"host")]
            if self._tells_host and rule.key.host and "x-forwarded-host" not in rule.key.headers:
                # Only where the key holds it too, as above.
                raw.append((b"X-Forwarded-Host", head.host.encode("latin-1")))
        raw += (
            (b"Via", (f"{via}, {self._via}" if via else self._via).encode("latin-1")),
            (b"CDN-Loop", with_member(headers.get(FIELD), self._member).encode("latin-1")),
            (b"X-Request-ID", exchange.trace.request_id.encode("latin-1")),
        )
        if self._proto:
            raw.append((b"X-Forwarded-Proto", head.scheme.encode("latin-1")))
        if exchange.trace.span is not None:
            raw = exchange.trace.span.onto(raw)
        if exchange.client and self._for:
            raw.append((b"X-Forwarded-For", exchange.client.encode("latin-1")))
        if self.with_forwarded:
            value = exchange.forwarded or self.forwarded(exchange, rule)
            raw.append((b"Forwarded", value.encode("latin-1")))
        headers = Headers(raw)
        if rule.request_headers:
            headers = rule.request_headers.apply(headers)
        if head.method == "TRACE":
            given = (*rule.request_headers.set, *rule.request_headers.add)
            headers = headers.without({*_NOT_TRACED, *(name.lower() for name, _ in given)})
        return Forward(
            method=head.method,
            target=head.target,
            headers=headers,
            body=exchange.body if body else None,
            length=exchange.length if body else None,
            content=None if exchange.content is None else exchange.content.octets,
            on_interim=exchange.on_interim,
            upgrade=body and exchange.upgrade is not None,
            read_timeout=rule.read_timeout,
            pool=rule.origin,
            key=exchange.trace.key,
            purpose=exchange.purpose,
            retry=rule.retry,
        )


def _with_plain_etags(headers: Headers, rule: Rule) -> Headers:
    """The client's conditions, with the ETags of codings made here led back to the origin's own."""
    for name in ("If-Match", "If-None-Match"):
        condition = headers.get(name.lower())
        if condition is not None:
            known = with_plain_etags(condition, rule.overrides.compression.codings)
            if known != condition:
                headers = headers.setting(name, known)
    return headers


def _passes_for(name: bytes, rule: Rule) -> bool:
    """Whether an origin may take the field ``name``, which has a "_", for another one that counts."""
    meant = name.replace(b"_", b"-")
    if meant in _DROPPED or meant in _OF_HTTP:
        return True
    changes = rule.request_headers
    counting = {
        *rule.key.headers,
        *rule.overrides.normalise,
        *(condition.name for condition in rule.match.headers),
        *changes.remove,
        *(given for given, _ in (*changes.set, *changes.add)),
    }
    return meant.decode("latin-1") in {each.lower().replace("_", "-") for each in counting}


_OF_HTTP = frozenset({
    b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control", b"content-encoding",
    b"content-language", b"content-length", b"content-range", b"content-type", b"if-match",
    b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"max-forwards",
    b"proxy-authorization", b"transfer-encoding", b"user-agent", b"x-api-key", b"x-auth-token",
    b"x-csrf-token", b"x-requested-with",
})  # fmt: skip
"""With a "-", and what origins answer may hang on them."""
_NOT_TRACED = frozenset({"authorization", "cookie"})
_DROPPED = frozenset(name.encode() for name in (*SPOKEN_FOR, "via", FIELD))
_OURS = frozenset(name.encode() for name in (*OURS, "via", FIELD))
