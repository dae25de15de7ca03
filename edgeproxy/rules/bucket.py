"""A token bucket as the one time at which it would be full again (ITU-T I.371's GCRA): two sums, no timer.

Rules of this file: a bucket that is full is as good as none, and may be forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.rules.model import RateLimit


def lateness(full: float, now: float, limit: RateLimit) -> float:
    """Seconds until there is a token, 0 where there is one. ``full``: when the bucket is full again."""
    interval = 1 / limit.rate
    late = max(full - now, 0.0) - (limit.burst - 1) * interval
    return late if late > interval * 1e-6 else 0.0


def filled_later(full: float, now: float, limit: RateLimit) -> float:
    """When it is full again once a token is taken."""
    return max(full, now) + 1 / limit.rate
