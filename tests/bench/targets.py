"""What the figures are held against, and whether they reach it.

Rules of this file: one table. A target names what it is compared with; where that was not measured, or a row
is marked, there is no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.throughput import Row

FASTEST = "the fastest"
LOWEST = "the lowest"
PEERS = ("nginx", "haproxy", "varnish")


@dataclass(frozen=True, slots=True)
class Target:
    """``times`` the rate of ``than`` at least; ``cpu``: processor time a request no higher than that."""

    times: float
    than: str
    cpu: bool = False

    def __str__(self) -> str:
        return "CPU <= the lowest" if self.cpu else f">= {self.times:.1f} x {self.than}"


_FULL = (Target(1.0, FASTEST), Target(1.0, LOWEST, cpu=True))
_MANY = (Target(1.0, "nginx"), Target(0.9, FASTEST))
_NGINX = (Target(1.0, "nginx"),)

TARGETS: dict[str, tuple[Target, ...]] = {
    "hit1k": _FULL,
    "hot": _FULL,
    "hit10k": _MANY,
    "hit100k": _MANY,
    "size10k": _MANY,
    "size100k": _MANY,
    "br": _NGINX,
    "conditional": _NGINX,
    "mixed": (Target(1.3, "nginx"), Target(0.8, "haproxy")),
    "miss": (Target(1.0, "nginx"), Target(1.5, "varnish")),
    "pass": (Target(0.6, "nginx"), Target(1.5, "varnish")),
    "newheads": (Target(0.5, "nginx"),),
    "l2": (Target(0.5, "nginx"),),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reached`` is what was got in the target's terms; None where it cannot be said."""

    target: Target
    reached: float | None
    ok: bool

    def __str__(self) -> str:
        if self.reached is None:
            return f"{self.target}: not measured"
        unit = " us" if self.target.cpu else ""
        return f"{self.target}: {'ok' if self.ok else 'missed'} ({self.reached:.2f}{unit})"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Of the rows of one workload."""
    by_server = {row.server: row for row in rows if row.valid}
    ours = by_server.get("edgeproxy")
    return [_verdict(target, ours, by_server) for target in TARGETS[rows[0].workload]] if rows else []


def _verdict(target: Target, ours: Row | None, by_server: dict[str, Row]) -> Verdict:
    names = PEERS if target.than in {FASTEST, LOWEST} else (target.than,)
    peers = [by_server[name] for name in names if name in by_server]
    if ours is None or not peers:
        return Verdict(target, None, ok=False)
    if target.cpu:
        return Verdict(target, ours.cpu, ours.cpu <= min(peer.cpu for peer in peers))
    reached = ours.rate / max(peer.rate for peer in peers)
    return Verdict(target, reached, reached >= target.times)
