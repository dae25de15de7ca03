"""What an answer of the edge's own making says of itself: our member of Proxy-Status (RFC 9209).

Rules of this file:

- Only for answers that the edge makes in the origin's place. They have no member in Cache-Status: an
  intermediary "SHOULD NOT" add one to what it generates without a stored response (RFC 9211 §2).
- ``error`` is a type of the RFC's registry (§2.3), ``details`` the named reason that the log has too.
- Never where the origin is: ``next-hop`` and its kin are for operators' eyes, and these are clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.policy.vocabulary import OriginFailure, PassReason, Unsatisfied

if TYPE_CHECKING:
    from edgeproxy.observe.trace import Trace

ERRORS: dict[str, bytes] = {
    OriginFailure.DNS: b"dns_error",
    OriginFailure.REFUSED: b"connection_refused",
    OriginFailure.CONNECT_TIMEOUT: b"connection_timeout",
    OriginFailure.TLS: b"tls_protocol_error",
    OriginFailure.TLS_TIMEOUT: b"connection_timeout",
    OriginFailure.RESET: b"connection_terminated",
    OriginFailure.FIRST_BYTE_TIMEOUT: b"http_response_timeout",
    OriginFailure.READ_TIMEOUT: b"connection_read_timeout",
    OriginFailure.WHOLE_TIMEOUT: b"http_response_timeout",
    OriginFailure.TRUNCATED: b"http_response_incomplete",
    OriginFailure.BAD_RESPONSE: b"http_protocol_error",
    OriginFailure.OVERLOADED: b"connection_limit_reached",
    OriginFailure.BREAKER_OPEN: b"destination_unavailable",
    OriginFailure.YIELDED: b"destination_unavailable",
    OriginFailure.SHED: b"connection_limit_reached",
    OriginFailure.REQUEST_BODY: b"http_request_error",
    OriginFailure.ABANDONED: b"http_request_error",
    Unsatisfied.ONLY_IF_CACHED: b"proxy_internal_response",
    Unsatisfied.LOOP: b"proxy_loop_detected",
    Unsatisfied.RATE_LIMITED: b"http_request_denied",
    Unsatisfied.DENIED: b"http_request_denied",
    PassReason.UPGRADE: b"http_request_denied",
}


def proxy_status(name: bytes, trace: Trace) -> bytes:
    """``name`` is ours. "" where there is nothing to be said."""
    reason = trace.reason
    if not reason:
        return b""
    if trace.failure is OriginFailure.SERVER_ERROR:  # told to those who waited with the one who got it
        return b'%b; received-status=%d; details="%b"' % (name, trace.status, reason.encode())
    error = ERRORS.get(reason, b"proxy_internal_response")
    return b'%b; error=%b; details="%b"' % (name, error, reason.encode())
