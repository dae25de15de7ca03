"""What came of a scene in figures: of each second, of each phase, and of all that is judged.

Rules of this file:

- Times are kept in HDR histograms (three digits from a microsecond to a minute), so that seconds and phases
  add up to what their requests had together; percentiles are never averaged.
- A figure that cannot be known is None, never nought.
"""

from __future__ import annotations

import statistics
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hdrh.histogram import HdrHistogram

from tests.load.scenes.record import SUCCESS, Outcome, Second

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.load.scenes.plan import Scene
    from tests.load.scenes.stage import Sample

HITS = frozenset({"HIT", "STALE", "UPDATING"})
"""Answers for which nobody waited for the origin."""
UNASKED = frozenset({"BYPASS", "NONE"})
"""The cache was not asked, or does not tell."""
FEWEST_SAMPLES = 20
"""With fewer nothing is said of growth."""


def histogram() -> HdrHistogram:
    return HdrHistogram(1, 60_000_000, 3)


@dataclass
class Figures:
    """Of some seconds. ``lag``: microseconds that the sender was late by, at most."""

    seconds: float = 0.0
    times: HdrHistogram = field(default_factory=histogram)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    connections: int | None = None
    lag: int = 0

    def count(self, second: Second) -> None:
        for micros in second.times:
            self.times.record_value(micros)
        self.outcomes.update(second.outcomes)
        self.statuses.update(second.statuses)
        self.words.update(second.words)
        self.octets += second.octets
        self.lag = max(self.lag, second.lag)
        self._held(second.connections)

    def add(self, other: Figures) -> None:
        self.seconds += other.seconds
        self.times.add(other.times)
        self.outcomes.update(other.outcomes)
        self.statuses.update(other.statuses)
        self.words.update(other.words)
        self.octets += other.octets
        self.lag = max(self.lag, other.lag)
        self._held(other.connections)

    def _held(self, connections: int | None) -> None:
        if connections is not None:
            known = self.connections
            self.connections = connections if known is None else min(known, connections)

    @property
    def requests(self) -> int:
        return self.outcomes.total()

    @property
    def succeeded(self) -> int:
        return sum(self.outcomes[outcome] for outcome in SUCCESS)

    @property
    def success(self) -> float | None:
        """Percent."""
        return 100 * self.succeeded / self.requests if self.requests else None

    @property
    def rate(self) -> float:
        """Successes a second."""
        return self.succeeded / self.seconds if self.seconds else 0.0

    @property
    def hits(self) -> float | None:
        """Percent of what asked the cache."""
        asked = sum(count for word, count in self.words.items() if word not in UNASKED)
        return 100 * sum(self.words[word] for word in HITS) / asked if asked else None

    def percentile(self, share: float) -> float | None:
        """Milliseconds."""
        return self.times.get_value_at_percentile(share) / 1000 if self.requests else None


@dataclass(frozen=True, slots=True)
class Point:
    """One second of a scene, for the plots. ``at``: seconds since its beginning; times in milliseconds."""

    at: float
    rate: float
    failed: float
    p50: float | None
    p95: float | None
    p99: float | None
    hits: float | None


@dataclass
class Played:
    """A scene that has been played, or is."""

    scene: Scene
    phases: list[Figures]
    points: list[Point] = field(default_factory=list)
    samples: Sequence[Sample] = ()
    unfilled: int = 0

    @classmethod
    def begin(cls, scene: Scene) -> Played:
        return cls(scene, [Figures(seconds=phase.seconds) for phase in scene.phases])

    def take(self, second: Second) -> None:
        """In any order: what waits long for its answers is told late."""
        phase = self.scene.phases[second.phase]
        one = Figures(seconds=min(1.0, phase.seconds - second.second))
        one.count(second)
        begins = begin_of_each(self.scene)
        point = Point(
            begins[second.phase] + second.second,
            one.rate,
            (one.requests - one.succeeded) / one.seconds,
            one.percentile(50),
            one.percentile(95),
            one.percentile(99),
            one.hits,
        )
        insort(self.points, point, key=lambda point: point.at)
        one.seconds = 0.0  # the phase's own are known, those without a request among them
        self.phases[second.phase].add(one)

    @property
    def judged(self) -> Figures:
        """All of what the targets are for."""
        total = Figures()
        for phase, figures in zip(self.scene.phases, self.phases, strict=True):
            if phase.judged:
                total.add(figures)
        return total

    def growth(self, key: str) -> tuple[float, float] | None:
        """A sampled number over the second fifth of the judged time, and over the last: medians."""
        begins = begin_of_each(self.scene)
        since = min(b for b, phase in zip(begins, self.scene.phases, strict=True) if phase.judged)
        values = [getattr(sample, key) for sample in self.samples if sample.at >= since]
        if len(values) < FEWEST_SAMPLES:
            return None
        fifth = len(values) // 5
        return statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])


def begin_of_each(scene: Scene) -> list[float]:
    """Seconds since the scene's beginning at which each phase begins."""
    begins, at = [], 0.0
    for phase in scene.phases:
        begins.append(at)
        at += phase.seconds
    return begins
