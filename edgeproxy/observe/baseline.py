"""How rules do on a usual day, in a file, and whether they do worse now.

Rules of this file:

- What is kept: P50 P75 P90 P95 P99 (seconds), success rate and hit ratio (0 to 1; null where no request asked
  the cache), of each rule with LEAST requests or more. Fewer say little, then or now.
- The file is JSON with a format number; what is not as expected is refused, with the place.
- Thresholds are made from it by thresholds.py, here and in Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from edgeproxy.observe import thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
LEAST = 100
"""Requests within the window."""


class Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule. Times in seconds."""

    requests: int
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    success: float
    hit_ratio: float | None = None

    @property
    def normal(self) -> thresholds.Normal:
        return thresholds.Normal(p95=self.p95, p99=self.p99, hit_ratio=self.hit_ratio or 0.0)


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``at``: seconds since the epoch; ``window``: what it was taken over, 1m, 5m or 1h."""

    format: int
    at: float
    window: str
    rules: dict[str, Recorded]

    @property
    def normals(self) -> dict[str, thresholds.Normal]:
        return {name: rule.normal for name, rule in self.rules.items()}


@dataclass(frozen=True, slots=True)
class Breach:
    """``what``: p95, p99, success or hit_ratio. ``value`` is worse than ``threshold``."""

    rule: str
    what: str
    severity: str
    value: float
    threshold: float


def recorded(
    performance: Mapping[str, Any], live: Mapping[str, Any], window: str, at: float, least: int = LEAST
) -> Baseline:
    """Of what /api/performance and /api/live told over ``window``; rules with fewer than ``least`` requests
    are left out. Raises LookupError or TypeError for what is not theirs."""
    rules: dict[str, Recorded] = {}
    for row in live["rules"]:
        name, requests = row["name"], row["requests"]
        times = performance["rules"].get(name, {}).get(window)
        if requests < least or times is None or not times["requests"]:
            continue
        rules[name] = Recorded(
            requests=requests,
            **{key: times[key] for key in ("p50", "p75", "p90", "p95", "p99")},
            success=round(1 - row["errors"] / requests, 6),
            hit_ratio=row["hit_ratio"],
        )
    return Baseline(FORMAT, round(at, 3), window, dict(sorted(rules.items())))


def encode(baseline: Baseline) -> bytes:
    return msgspec.json.format(msgspec.json.encode(baseline), indent=2) + b"\n"


def decode(octets: bytes) -> Baseline:
    """Raises ValueError, with what was expected and where."""
    try:
        found = msgspec.json.decode(octets, type=Baseline)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    if found.format != FORMAT:
        raise ValueError(f"format {found.format}; this version reads {FORMAT}")
    return found


def breaches(usual: Baseline, now: Baseline) -> Iterator[Breach]:
    """What is worse now than its threshold, of the rules in both; the most urgent of each number."""
    for name, before in usual.rules.items():
        rule = now.rules.get(name)
        if rule is None:
            continue
        told = thresholds.of(before.normal)
        if rule.p95 > told.p95_critical:
            yield Breach(name, "p95", "critical", rule.p95, told.p95_critical)
        elif rule.p95 > told.p95_warning:
            yield Breach(name, "p95", "warning", rule.p95, told.p95_warning)
        if rule.p99 > told.p99_critical:
            yield Breach(name, "p99", "critical", rule.p99, told.p99_critical)
        for severity, least in (("critical", told.success_critical), ("warning", told.success_warning)):
            if rule.success < least:
                yield Breach(name, "success", severity, rule.success, least)
                break
        if before.hit_ratio is not None and rule.hit_ratio is not None and rule.hit_ratio < told.hit_ratio:
            yield Breach(name, "hit_ratio", "warning", rule.hit_ratio, told.hit_ratio)
