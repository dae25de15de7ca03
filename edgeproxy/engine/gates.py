"""What a rule says of who may ask, and how often: refused here, before the cache is looked at.

Rules of this file:

- A rule that says so is none of the lane's: its answers are not learned there (front/handler.py), and the
  short way asks here first.
- A limit is a token bucket (rules/bucket.py): asking costs a look-up. Where there are several workers they
  share the buckets (cluster/shared_buckets.py).
- One worker's own are bounded: MOST buckets in two generations. What is used stays; who makes up addresses by
  the thousand makes others start with a full bucket, never with an empty one.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Protocol

from edgeproxy.engine.exchange import FromEdge
from edgeproxy.networks import one_client
from edgeproxy.policy.vocabulary import Tier, Unsatisfied
from edgeproxy.rules.bucket import filled_later, lateness

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.observe.trace import Trace
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import RateLimit, Rule

MOST = 65_536
"""Buckets, both generations together."""
LONGEST = 256
"""Characters of a field's value that tell buckets apart."""

MOST_MADE = 1024
"""Answers that are remembered."""

_DENIED = FromEdge(403, "Not for this client", "The rule for this path does not answer this address.")


class Tokens(Protocol):
    """Where the buckets are. ``now``: clock.now()."""

    def wait(self, name: str, key: str, limit: RateLimit, now: float, *, take: bool) -> float:
        """Seconds until there is a token, 0 where there is one; ``take`` it."""


class Buckets:
    """Name and key -> when the bucket is full again, in seconds of any clock."""

    def __init__(self, most: int = MOST) -> None:
        self._half = most // 2
        self._young: dict[tuple[str, str], float] = {}
        self._old: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def wait(self, name: str, key: str, limit: RateLimit, now: float, *, take: bool) -> float:
        """As in Tokens."""
        place = (name, key)
        full = self._young.get(place)
        if full is None:
            full = self._old.get(place, now)
        late = lateness(full, now, limit)
        if late:
            return late
        if take:
            if len(self._young) >= self._half and place not in self._young:
                self._old, self._young = self._young, {}
            self._young[place] = filled_later(full, now, limit)
        return 0.0


class Gates:
    """Per worker. ``buckets``: the node's, where there are more workers."""

    def __init__(self, clock: Clock, buckets: Tokens | None = None) -> None:
        self._clock = clock
        self.buckets: Tokens = buckets or Buckets()
        self._made: dict[tuple[str, int], tuple[RateLimit, FromEdge]] = {}

    def refusal(self, rule: Rule, head: RequestHead, trace: Trace, *, take: bool = True) -> FromEdge | None:
        """Why a request is not answered; None if it is. ``take``: that costs it its token."""
        clients, limit = rule.clients, rule.rate_limit
        if clients is not None and not clients.permits(trace.client):
            trace.tier, trace.unsatisfied = Tier.EDGE, Unsatisfied.DENIED
            return _DENIED
        if limit is None:
            return None
        wait = self.buckets.wait(
            rule.name, _key(limit, head, trace.client), limit, self._clock.now(), take=take
        )
        if not wait:
            return None
        trace.tier, trace.unsatisfied = Tier.EDGE, Unsatisfied.RATE_LIMITED
        return self._too_many(rule.name, limit, max(1, ceil(wait)))

    def _too_many(self, name: str, limit: RateLimit, seconds: int) -> FromEdge:
        """The same answer for all who are to wait as long: they come by the thousand."""
        made = self._made.get((name, seconds))
        if made is None or made[0] is not limit:
            if len(self._made) >= MOST_MADE:
                self._made.clear()
            made = self._made[name, seconds] = (limit, _answer(name, limit, seconds))
        return made[1]


def _answer(name: str, limit: RateLimit, seconds: int) -> FromEdge:
    """Fields of draft-ietf-httpapi-ratelimit-headers."""
    window = max(1, ceil(limit.burst / limit.rate))
    return FromEdge(
        429,
        "Too many requests",
        f"Come back in {seconds} s.",
        (
            ("Retry-After", str(seconds)),
            ("RateLimit-Policy", f'"{name}";q={limit.burst};w={window}'),
            ("RateLimit", f'"{name}";r=0;t={seconds}'),
        ),
    )


def _key(limit: RateLimit, head: RequestHead, client: str) -> str:
    if limit.header:
        value = head.headers.get(limit.header)
        if value is not None:
            return f"={value[:LONGEST]}"
    return one_client(client) if limit.by_client else ""
