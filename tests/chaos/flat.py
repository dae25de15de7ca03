"""Whether what was sampled during a run stayed where it was: a slope, and a verdict.

Rules of this file:

- Pure. The first quarter of the samples is warm-up and does not count.
- The slope is the median of the slopes between all pairs (Theil and Sen): processes that are killed and start
  again make jumps, which must not count for growth.
- Flat: what the slope makes of the time that was looked at is no more than a tenth of the median, or than the
  slack, in units of what was sampled. Less is as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST = 20
"""Samples after the warm-up; with fewer there is no verdict."""
MOST_GROWTH = 0.1
MOST_SAMPLES = 400
"""That pairs are made of."""


@dataclass(frozen=True, slots=True)
class Trend:
    """``middle`` is the median, ``per_hour`` the slope, ``growth`` what it made of the time looked at."""

    middle: float
    per_hour: float
    growth: float
    flat: bool


def trend(samples: Sequence[tuple[float, float]], slack: float) -> Trend | None:
    """Of (second, value), in order; None where there are too few."""
    counted = samples[len(samples) // 4 :]
    if len(counted) < FEWEST:
        return None
    some = counted[:: -(-len(counted) // MOST_SAMPLES)]
    slope = median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(some, 2) if b[0] > a[0])
    middle = median(value for _, value in counted)
    growth = slope * (counted[-1][0] - counted[0][0])
    return Trend(middle, slope * 3600, growth, growth <= max(slack, middle * MOST_GROWTH))
