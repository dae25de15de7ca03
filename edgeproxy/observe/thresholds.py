"""From when on it is an alert: by default, and by a baseline of one's own.

Rules of this file:

- One table for both who watch: the rules written for Prometheus and the alerts inside.
- Times in seconds, shares and ratios from 0 to 1.
- Without a baseline the latencies are compared with what a cache should reach anyway (TARGET), and the hit
  ratio with HIT_RATIO; with one each rule is compared with itself.
"""

from __future__ import annotations

from dataclasses import dataclass

P95_WARNING, P95_CRITICAL, P99_CRITICAL = 2.0, 3.0, 3.0
"""Times the baseline's."""
LEAST_LATENCY = 0.001
"""Seconds that a baseline's latencies count as at least: three times a hit in memory is no trouble."""
SUCCESS_WARNING, SUCCESS_CRITICAL = 0.99, 0.95
"""Share of answers that are no 5xx."""
HIT_RATIO = 0.70
"""Of the requests that ask the cache; with a baseline, of the ratio that it has."""
LEAST_RATE = 1.0
"""Requests a second below which a share says nothing."""


@dataclass(frozen=True, slots=True)
class Normal:
    """How a rule does on a usual day."""

    p95: float
    p99: float
    hit_ratio: float = 1.0


TARGET = Normal(p95=0.1, p99=0.2)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Of one rule, or of all together."""

    p95_warning: float
    p95_critical: float
    p99_critical: float
    hit_ratio: float
    success_warning: float = SUCCESS_WARNING
    success_critical: float = SUCCESS_CRITICAL


def of(normal: Normal) -> Thresholds:
    """What follows from a usual day."""
    p95, p99 = max(normal.p95, LEAST_LATENCY), max(normal.p99, LEAST_LATENCY)
    return Thresholds(
        p95_warning=round(p95 * P95_WARNING, 6),
        p95_critical=round(p95 * P95_CRITICAL, 6),
        p99_critical=round(p99 * P99_CRITICAL, 6),
        hit_ratio=round(normal.hit_ratio * HIT_RATIO, 4),
    )


DEFAULT = of(TARGET)
