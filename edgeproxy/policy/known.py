"""A head that has come before, but for the values that are each answer's own.

Rules of this file:

- An origin's answers are mostly one head over and over, with another Date, ETag, Last-Modified, Expires and
  Content-Length, and an id or a time for whoever looks for it in a log. All else of a KnownHead is the same
  to the octet, so what follows from it is worked out once and kept in its ``memo``.
- Who gives the values has seen to it that the head with them would have been accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from edgeproxy.policy.head import Headers, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

FOR_LOGS = frozenset({
    "x-request-id", "x-correlation-id", "x-trace-id", "x-runtime", "x-response-time", "x-process-time",
    "x-amzn-requestid", "x-amzn-trace-id", "x-amz-request-id", "x-amz-cf-id", "x-cloud-trace-context",
    "x-envoy-upstream-service-time", "x-b3-traceid", "x-timer", "cf-ray",
})  # fmt: skip
"""Fields that frameworks and clouds put another value into each time, and that nothing here looks at."""
OF_EACH = frozenset({"date", "etag", "last-modified", "expires", "content-length"}) | FOR_LOGS
"""The fields whose values are each answer's own."""


@final
class KnownHead:
    """``own``: where the values of each answer stand among the fields, in order. ``memo`` is for what others
    derive from the head, by keys of theirs; they see to its size."""

    __slots__ = ("_names", "_raw", "_reason", "memo", "own", "status")

    def __init__(self, head: ResponseHead, own: tuple[int, ...]) -> None:
        self.status = head.status
        self.own = own
        self.memo: dict[object, Any] = {}
        self._reason = head.reason
        self._raw = head.headers.raw
        self._names = head.headers.field_names

    def head(self, values: Sequence[bytes]) -> ResponseHead:
        """With these ``values`` at ``own``."""
        raw = list(self._raw)
        for place, value in zip(self.own, values, strict=True):
            raw[place] = (raw[place][0], value)
        return ResponseHead(self.status, self._reason, Headers(raw, self._names))
