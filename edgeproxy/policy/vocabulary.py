"""Every word and every reason we ever give: closed enums.

Rules of this file:

- A decision that says "no" names a member of one of these enums, and the member's docstring says in one
  line what an operator should understand by it. Cache-Status, the log, the metrics and ``explain`` print
  the member's value and nothing else.
- Values are lower-case words joined by "-": they are tokens in HTTP fields and label values in metrics.
- Never reuse a value for another meaning: dashboards remember.
"""

from __future__ import annotations

from enum import StrEnum


class CacheWord(StrEnum):
    """X-Cache-Status: the seven words operators know from nginx."""

    HIT = "HIT"
    """Answered from the cache with a fresh entry."""
    MISS = "MISS"
    """Nothing stored that could be used; the origin answered."""
    EXPIRED = "EXPIRED"
    """A stored entry was no longer usable; the origin sent a new one."""
    STALE = "STALE"
    """A stale entry was served because the origin failed."""
    UPDATING = "UPDATING"
    """A stale entry was served while another request refreshes it."""
    REVALIDATED = "REVALIDATED"
    """The origin confirmed the stored entry with 304."""
    BYPASS = "BYPASS"
    """The cache was not asked."""


class Forwarded(StrEnum):
    """Why a request went to the origin: the ``fwd`` parameter of Cache-Status (RFC 9211 §2.2)."""

    BYPASS = "bypass"
    """The cache was configured not to handle this request, or hit-for-miss is remembered."""
    METHOD = "method"
    """The method's semantics require the request to be forwarded."""
    URI_MISS = "uri-miss"
    """Nothing is stored under this key."""
    VARY_MISS = "vary-miss"
    """Something is stored under this key, but for other selecting fields."""
    MISS = "miss"
    """The stored entry could not be used, and neither of the above says why."""
    REQUEST = "request"
    """The stored entry was fresh, but the request's Cache-Control did not allow its use."""
    STALE = "stale"
    """The stored entry was stale."""
    PARTIAL = "partial"
    """Only a part of the stored answer was there."""


class PassReason(StrEnum):
    """Why a request is forwarded without the cache being asked or filled."""

    METHOD = "method-not-cacheable"
    """Only GET and HEAD are answered from the cache, and what a rule's ``key: {body: ...}`` is for."""
    CONTENT_TOO_LARGE = "body-over-limit"
    """The request's body is larger than the rule reads for the key."""
    CONTENT_NOT_A_QUERY = "body-not-a-query"
    """The request's body is not surely a GraphQL query: a mutation, a batch, or not to be understood."""
    CONTENT_CONDITIONAL = "post-with-conditions"
    """A POST with If-* fields asks for something else than a stored answer (RFC 9110 §13.1)."""
    CONTENT_MEMORY = "body-memory-full"
    """As many request bodies are held in memory as may be."""
    REQUEST_BODY = "request-has-body"
    """A GET or HEAD with a body has no meaning the cache could key on (RFC 9110 §9.3.1)."""
    RULE = "rule-says-pass"
    """The rule says ``pass: true``."""
    REQUEST_NO_STORE = "request-no-store"
    """The request's Cache-Control says no-store (RFC 9111 §5.2.1.5)."""
    HIT_FOR_MISS = "hit-for-miss"
    """An earlier answer under this key was not storable; remembered for a while."""
    RANGE_TOO_COMPLEX = "range-not-served-from-cache"
    """The request asks for ranges and nothing whole is stored or may be stored."""
    UPGRADE = "upgrade"
    """The request asks to change the protocol."""
    PRECONDITION = "precondition"
    """If-Match and If-Unmodified-Since are the origin's to evaluate, never a cache's (RFC 9111 §4.3.2)."""
    PURGE_PENDING = "purge-pending"
    """A write; not every node has confirmed yet that what it changed is purged."""


class NotStored(StrEnum):
    """Why an answer was not stored."""

    METHOD = "method-not-cacheable"
    """The request method's answers are not cacheable here."""
    RESPONSE_NO_STORE = "response-no-store"
    """The answer's Cache-Control (or CDN-Cache-Control) says no-store (RFC 9111 §5.2.2.5)."""
    RESPONSE_PRIVATE = "response-private"
    """The answer's Cache-Control says private (RFC 9111 §5.2.2.7)."""
    RESPONSE_NO_CACHE = "response-no-cache"
    """The answer says no-cache and carries no validator, so that it could never be used."""
    AUTHORIZATION = "authorization"
    """The request carried Authorization and the answer does not allow sharing (RFC 9111 §3.5)."""
    SET_COOKIE = "set-cookie"
    """The answer sets a cookie; sharing it needs the rule's ``unsafe: [set_cookie]``."""
    STATUS = "status-not-cacheable"
    """The status is not heuristically cacheable and the answer names no lifetime (RFC 9111 §3)."""
    STATUS_UNKNOWN = "status-not-understood"
    """must-understand, and the status is not one we know (RFC 9111 §5.2.2.3)."""
    PARTIAL = "partial-content"
    """206: a part that was not asked for, or does not say which one it is, or comes where the whole is."""
    NOT_MODIFIED = "not-modified"
    """304 to a client's own conditional request: there is nothing to store."""
    VARY_STAR = "vary-star"
    """Vary: * never matches a later request (RFC 9110 §12.5.5)."""
    NO_LIFETIME = "no-lifetime"
    """Neither the answer nor the rule gives a lifetime, and it could not be validated either."""
    LIFETIME_ZERO = "lifetime-zero"
    """The rule or the answer gives a lifetime of zero and nothing to validate with."""
    TOO_LARGE = "too-large"
    """The body is larger than the rule's largest object, or than all that may be held."""
    RULE = "rule-says-no-store"
    """The rule does not let this answer be stored."""
    REQUEST_NO_STORE = "request-no-store"
    """The request's Cache-Control says no-store."""
    REQUEST_BODY = "request-has-body"
    """Answers to a GET with a body are never stored."""
    EVENT_STREAM = "event-stream"
    """A stream of server-sent events is one client's, and has no end."""
    PURGED = "purged-meanwhile"
    """A purge overtook the fetch."""
    OVERTAKEN = "newer-fetch-stored"
    """A fetch that began later has stored its answer already."""
    UNHEARD = "purge-log-not-followed"
    """This node hears of no purges (Redis is out of reach, or not caught up with): it keeps nothing."""
    ORIGIN_FAILED = "origin-failed"
    """The origin gave no answer."""
    SERVER_ERROR = "server-error"
    """A 5xx without explicit freshness."""
    MALFORMED = "malformed-answer"
    """The answer's head cannot be stored safely."""
    EXTENSION = "type-contradicts-extension"
    """The answer is not of a type that the path's extension stands for; see ``extension_guard``."""
    GRAPHQL_ERRORS = "graphql-errors"
    """The GraphQL answer has ``errors``, or is too large or coded, so that this cannot be seen."""


class StaleReason(StrEnum):
    """Why a stale entry was served."""

    WHILE_REVALIDATE = "stale-while-revalidate"
    """Within the stale-while-revalidate window (RFC 5861 §3)."""
    ON_ERROR = "stale-if-error"
    """The origin failed within the stale-if-error window (RFC 5861 §4)."""
    DISCONNECTED = "disconnected"
    """The origin could not be reached, and the answer does not forbid it (RFC 9111 §4.2.4)."""
    REQUEST_ALLOWS = "request-max-stale"
    """The request's Cache-Control said max-stale."""
    COOL_DOWN = "refresh-cool-down"
    """A refresh failed a moment ago; it is not tried again yet."""


class Unsatisfied(StrEnum):
    """Why the edge answered by itself with an error."""

    ONLY_IF_CACHED = "only-if-cached"
    """The request forbade forwarding and nothing usable was stored (RFC 9111 §5.2.1.7)."""
    LOOP = "loop-detected"
    """The request has passed through this edge already."""
    RATE_LIMITED = "rate-limited"
    """The client asks more often than the rule allows (429)."""
    DENIED = "client-denied"
    """The rule, or the settings, do not answer the client's address (403)."""


class OriginFailure(StrEnum):
    """How the origin failed. The status is what a client is told when nothing stale can be served."""

    DNS = "dns"
    """The origin's name did not resolve (502)."""
    REFUSED = "refused"
    """The origin could not be connected to (502)."""
    CONNECT_TIMEOUT = "connect-timeout"
    """Connecting took too long (504)."""
    TLS = "tls"
    """The TLS handshake failed (502)."""
    TLS_TIMEOUT = "tls-timeout"
    """The TLS handshake took too long (504)."""
    RESET = "reset"
    """The connection broke before an answer's head was complete (502)."""
    FIRST_BYTE_TIMEOUT = "first-byte-timeout"
    """The head of the answer did not come in time (504)."""
    READ_TIMEOUT = "read-timeout"
    """The body paused for too long (504)."""
    WHOLE_TIMEOUT = "whole-timeout"
    """The whole answer did not come in time (504)."""
    TRUNCATED = "truncated"
    """The body ended before its announced end (502)."""
    BAD_RESPONSE = "bad-response"
    """What the origin sent is not one well-framed HTTP answer (502)."""
    SERVER_ERROR = "server-error"
    """The origin answered 5xx to the fetch that this request waited for (that status)."""
    OVERLOADED = "origin-queue-full"
    """Too many requests are on their way to this origin (503)."""
    BREAKER_OPEN = "breaker-open"
    """No origin of the pool is usable: each failed so often that it is left alone for a while (503)."""
    YIELDED = "budget-spent"
    """Work that nobody waits for was not done: the origin's budget for such work is spent (503)."""
    SHED = "edge-overloaded"
    """This edge has more to do than it can, and did not ask the origin (503)."""
    REQUEST_BODY = "request-body"
    """The client's request body broke off (400)."""
    ABANDONED = "abandoned"
    """The client left and nobody else waited (499 in the log)."""

    @property
    def status(self) -> int:
        return _FAILURE_STATUS.get(self, 502)


DISCONNECTED = frozenset({
    OriginFailure.DNS, OriginFailure.REFUSED, OriginFailure.CONNECT_TIMEOUT, OriginFailure.TLS,
    OriginFailure.TLS_TIMEOUT, OriginFailure.RESET, OriginFailure.FIRST_BYTE_TIMEOUT,
    OriginFailure.READ_TIMEOUT, OriginFailure.TRUNCATED, OriginFailure.BREAKER_OPEN,
})  # fmt: skip
"""The origin could not be reached, or gave no whole answer (RFC 9111 §4.2.4)."""

_FAILURE_STATUS = {
    OriginFailure.CONNECT_TIMEOUT: 504,
    OriginFailure.TLS_TIMEOUT: 504,
    OriginFailure.WHOLE_TIMEOUT: 504,
    OriginFailure.BREAKER_OPEN: 503,
    OriginFailure.YIELDED: 503,
    OriginFailure.FIRST_BYTE_TIMEOUT: 504,
    OriginFailure.READ_TIMEOUT: 504,
    OriginFailure.OVERLOADED: 503,
    OriginFailure.SHED: 503,
    OriginFailure.REQUEST_BODY: 400,
    OriginFailure.ABANDONED: 499,
}


class LookupMiss(StrEnum):
    """Why a tier had nothing to give."""

    ABSENT = "absent"
    """Nothing under this key."""
    PURGED = "purged"
    """Stored before a purge that concerns it."""
    CORRUPT = "corrupt"
    """The stored bytes failed a check: magic, lengths, checksum or shape."""
    FOREIGN = "foreign"
    """The bytes belong to another key, namespace or format version."""
    TIMEOUT = "timeout"
    """The shared store did not answer within its budget."""
    ERROR = "error"
    """The shared store failed."""
    BREAKER_OPEN = "breaker-open"
    """The shared store failed so often that it is not asked for a while."""


class Tier(StrEnum):
    """Where an answer came from."""

    L1 = "l1"
    L2 = "l2"
    ORIGIN = "origin"
    EDGE = "edge"
    """The edge itself: errors, 504 to only-if-cached."""
