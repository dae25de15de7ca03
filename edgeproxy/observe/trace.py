"""One Trace per request: what happened, as data. Many readers, one writer (the flow).

Rules of this file: plain slots, no behaviour beyond small sums; Cache-Status, Server-Timing, X-Cache-Status,
metrics, the access log and the tests all read it and nothing else. Times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.policy.vocabulary import CacheWord, Tier

if TYPE_CHECKING:
    from edgeproxy.policy.trace_context import Span
    from edgeproxy.policy.vocabulary import (
        Forwarded,
        LookupMiss,
        NotStored,
        OriginFailure,
        PassReason,
        StaleReason,
        Unsatisfied,
    )


@dataclass(slots=True)
class Trace:
    request_id: str = ""
    started: float = 0.0
    """clock.monotonic() when the request's head was complete."""
    method: str = ""
    host: str = ""
    target: str = ""
    client: str = ""
    rule: str = "none"
    rule_at: str = ""
    key: str = ""
    word: CacheWord = CacheWord.BYPASS
    tier: Tier = Tier.ORIGIN
    hit: bool = False
    """Answered from the cache without waiting for the origin."""
    forwarded: Forwarded | None = None
    forwarded_status: int = 0
    """The origin's status; 304 where it confirmed what is stored, whatever we send."""
    pass_reason: PassReason | None = None
    not_stored: NotStored | None = None
    stale_reason: StaleReason | None = None
    unsatisfied: Unsatisfied | None = None
    failure: OriginFailure | None = None
    lookup_miss: LookupMiss | None = None
    stored: bool = False
    collapsed: bool = False
    """Waited for another request's fetch."""
    ttl: float | None = None
    """Seconds of freshness left; negative when stale."""
    age: int | None = None
    coding: str = ""
    l2_seconds: float = 0.0
    origin_seconds: float = 0.0
    """From sending the request to the head of the answer."""
    queue_seconds: float = 0.0
    """Waiting for another request's fetch, or for a place at the origin."""
    saved_seconds: float = 0.0
    """What the fetch of the served entry had cost."""
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    """Body octets sent to the client."""
    seconds: float = 0.0
    """Whole time, set when the answer is out."""
    closed: str = ""
    """Of a WebSocket: which side closed it, and the code ("client 1000")."""
    purpose: str = ""
    """"" for clients; "warm" where the edge asked for itself."""
    aborted: bool = False
    """The answer did not reach its end."""
    span: Span | None = None
    """Where it stands in a distributed trace; None: it is not recorded."""

    @property
    def reason(self) -> str:
        """The named reason why this answer is not a plain hit, or ""."""
        for value in (
            self.failure, self.unsatisfied, self.stale_reason, self.pass_reason, self.not_stored,
        ):  # fmt: skip
            if value is not None:
                return value.value
        return ""
