"""How long requests took, as one histogram, with what else is told of the same requests.

Rules of this file:

- A time falls into one of BUCKETS buckets whose bounds grow by GROWTH; a bucket is told by its geometric
  middle, so a percentile is at most 5 % off (within 10 µs to 5 min; outside it is told as the nearest end).
  The bucket of a time is ``int(log(seconds) * SCALE - OFFSET)``, which percentiles.py works out in place.
- Sums of them are as good as the whole: rings, windows and other workers' are added (``add``).
"""

from __future__ import annotations

from array import array
from math import exp, log, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

GROWTH = 1.1
LEAST = 1e-5
MOST = 300.0
SCALE = 1.0 / log(GROWTH)
OFFSET = log(LEAST) * SCALE
BUCKETS = int(log(MOST) * SCALE - OFFSET) + 2
_MIDDLES = [exp((i + OFFSET) / SCALE) * sqrt(GROWTH) for i in range(BUCKETS)]
PERCENTILES = (50, 75, 90, 95, 99)


class Counted(NamedTuple):
    """What the tally has counted of a rule since the start, beside what comes with each request."""

    passes: int = 0
    """Requests that did not ask the cache."""
    errors: int = 0
    """Answers of status 5xx."""
    octets: int = 0
    """Of bodies, to clients."""
    saved: float = 0.0
    """Seconds that hits spared the origin."""


class Times:
    """One histogram of durations, with what else is told of the same requests."""

    __slots__ = ("counts", "errors", "hits", "octets", "passes", "requests", "saved", "total")

    def __init__(self) -> None:
        self.counts = array("I", bytes(4 * BUCKETS))
        self.requests = 0
        self.hits = 0
        self.total = 0.0
        self.passes = self.errors = self.octets = 0
        self.saved = 0.0

    def add(self, other: Times) -> None:
        counts = self.counts
        for index, count in enumerate(other.counts):
            if count:
                counts[index] += count
        self.requests += other.requests
        self.hits += other.hits
        self.total += other.total
        self.passes += other.passes
        self.errors += other.errors
        self.octets += other.octets
        self.saved += other.saved

    def grew(self, before: Counted, now: Counted) -> None:
        """Between the two. What has become less was counted anew, from nothing."""
        self.passes = now.passes - before.passes if now.passes >= before.passes else now.passes
        self.errors = now.errors - before.errors if now.errors >= before.errors else now.errors
        self.octets = now.octets - before.octets if now.octets >= before.octets else now.octets
        self.saved = now.saved - before.saved if now.saved >= before.saved else now.saved

    @property
    def hit_ratio(self) -> float | None:
        """Hits among the requests that asked the cache; None where there were none."""
        asked = self.requests - self.passes
        return min(1.0, self.hits / asked) if asked > 0 else None

    def told(self) -> list[object]:
        """JSON-ready; ``of`` reads it."""
        return [
            self.requests, self.hits, self.total, self.passes, self.errors, self.octets, self.saved,
            {i: c for i, c in enumerate(self.counts) if c},
        ]  # fmt: skip

    @classmethod
    def of(cls, told: Sequence[Any]) -> Times:
        """What ``told`` gave, through JSON or not. Raises LookupError, TypeError, ValueError or
        AttributeError."""
        times = cls()
        (times.requests, times.hits, times.total, times.passes, times.errors, times.octets, times.saved,
         counts) = told  # fmt: skip
        for index, count in counts.items():
            times.counts[int(index)] += count
        return times

    def percentiles(self, *percents: int) -> list[float]:
        """Seconds within which each of ``percents`` (growing) of the requests were answered."""
        ranks = [-(-self.requests * percent // 100) for percent in percents]  # nearest rank, rounded up
        found: list[float] = []
        running = 0
        for index, count in enumerate(self.counts):
            running += count
            while len(found) < len(ranks) and running >= ranks[len(found)] > 0:
                found.append(_MIDDLES[index])
            if len(found) == len(ranks):
                break
        return found + [0.0] * (len(ranks) - len(found))

    def report(self) -> dict[str, object]:
        if not self.requests:
            return {"requests": 0, "hits": 0, "mean": None, **{f"p{p}": None for p in PERCENTILES}}
        return {
            "requests": self.requests,
            "hits": self.hits,
            "mean": round(self.total / self.requests, 6),
            **{
                f"p{p}": round(seconds, 6)
                for p, seconds in zip(PERCENTILES, self.percentiles(*PERCENTILES), strict=True)
            },
        }
