"""Latency percentiles per rule over the last minute, five minutes, hour, and hour by hour, in bounded memory.

Rules of this file:

- A time falls into one of BUCKETS buckets whose bounds grow by GROWTH; a bucket is told by its geometric
  middle, so a percentile is at most 5 % off (within 10 µs to 5 min; outside it is told as the nearest end).
- Requests are added to one small histogram per rule. Every STEP seconds that one is poured into the rings of
  all windows and emptied, so a request costs one lookup, one logarithm and a few additions.
- A window covers at least what its name says and at most one of its slots more. Hours are those of the
  clock (UTC); the one going on is the last in the list.
- What one worker has can be added to another's (``dump``, ``absorb``): slots are numbered by the wall clock.
- Bounded: WINDOWS and the hours are 61 slots of BUCKETS counters of 4 octets, about 42 KiB a rule when all
  are in use, and a slot is made only for a time with requests. Beyond MAX_RULES rules share "other".
"""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from math import exp, log, sqrt
from typing import TYPE_CHECKING, Any

from edgeproxy.observe.tally import MAX_RULES, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

GROWTH = 1.1
LEAST = 1e-5
MOST = 300.0
_SCALE = 1.0 / log(GROWTH)
_OFFSET = log(LEAST) * _SCALE
BUCKETS = int(log(MOST) * _SCALE - _OFFSET) + 2
_MIDDLES = [exp((i + _OFFSET) / _SCALE) * sqrt(GROWTH) for i in range(BUCKETS)]

STEP = 5
WINDOWS: tuple[tuple[str, int, int], ...] = (("1m", 5, 13), ("5m", 30, 11), ("1h", 300, 13))
"""Name, seconds of a slot (a multiple of STEP), slots. One more than the window has: the present one."""
HOUR, HOURS = 3600, 24
PERCENTILES = (50, 75, 90, 95, 99)


class _Times:
    """One histogram of durations, with what else is told of the same requests."""

    __slots__ = ("counts", "hits", "requests", "total")

    def __init__(self) -> None:
        self.counts = array("I", bytes(4 * BUCKETS))
        self.requests = 0
        self.hits = 0
        self.total = 0.0

    def add(self, other: _Times) -> None:
        counts = self.counts
        for index, count in enumerate(other.counts):
            if count:
                counts[index] += count
        self.requests += other.requests
        self.hits += other.hits
        self.total += other.total

    def percentile(self, percent: int) -> float:
        """Seconds within which ``percent`` of the requests were answered."""
        rank = -(-self.requests * percent // 100)  # the nearest rank, rounded up
        running = 0
        for index, count in enumerate(self.counts):
            running += count
            if running >= rank > 0:
                return _MIDDLES[index]
        return 0.0

    def report(self) -> dict[str, object]:
        if not self.requests:
            return {"requests": 0, "hits": 0, "mean": None, **{f"p{p}": None for p in PERCENTILES}}
        return {
            "requests": self.requests,
            "hits": self.hits,
            "mean": round(self.total / self.requests, 6),
            **{f"p{p}": round(self.percentile(p), 6) for p in PERCENTILES},
        }


class _Ring:
    """The last ``size`` slots of ``seconds`` each. A slot is overwritten when its place is needed."""

    __slots__ = ("seconds", "size", "slots")

    def __init__(self, seconds: int, size: int) -> None:
        self.seconds = seconds
        self.size = size
        self.slots: dict[int, tuple[int, _Times]] = {}

    def pour(self, when: float, times: _Times) -> None:
        number = int(when // self.seconds)
        held = self.slots.get(number % self.size)
        if held is None or held[0] != number:
            held = (number, _Times())
            self.slots[number % self.size] = held
        held[1].add(times)

    def absorb(self, number: int, times: _Times) -> None:
        """Add another ring's slot, unless its place is taken by a later one."""
        held = self.slots.get(number % self.size)
        if held is None or held[0] <= number:
            self.pour(number * self.seconds, times)

    def live(self, now: float) -> list[tuple[int, _Times]]:
        """(number, times) of the slots that still count, oldest first."""
        oldest = int(now // self.seconds) - self.size + 1
        return sorted((h for h in self.slots.values() if h[0] >= oldest), key=lambda h: h[0])


class _Rule:
    __slots__ = ("began", "hours", "pending", "windows")

    def __init__(self, began: float) -> None:
        self.began = began
        self.pending = _Times()
        self.windows = [_Ring(seconds, size) for _, seconds, size in WINDOWS]
        self.hours = _Ring(HOUR, HOURS)

    def settle(self, began: float) -> None:
        """Pour what is pending into the rings; the next step began at ``began``."""
        if self.pending.requests:
            for ring in (*self.windows, self.hours):
                ring.pour(self.began, self.pending)
            self.pending = _Times()
        self.began = began


class Percentiles:
    """``now``: Clock.now, seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rules: dict[str, _Rule] = {}

    def set_rules(self, names: Iterable[str]) -> None:
        """Forget the rules that are gone, so that the rules to come find a place."""
        keep = {"none", OTHER, *names}
        self._rules = {name: rule for name, rule in self._rules.items() if name in keep}

    def observe(self, rule: str, seconds: float, hit: bool) -> None:  # noqa: FBT001 - a value, not a switch
        """One request under ``rule`` took ``seconds``."""
        self.observe_many(rule, seconds, 1, 1 if hit else 0)

    def observe_many(self, rule: str, seconds: float, requests: int, hits: int) -> None:
        """``requests`` requests, ``hits`` of them hits, took ``seconds`` each (the hit lane's sums)."""
        now = self._now()
        held = self._rules.get(rule) or self._place(rule, now)
        if now >= held.began + STEP or now < held.began:
            held.settle(now // STEP * STEP)
        pending = held.pending
        if seconds <= LEAST:
            index = 0
        elif seconds >= MOST:
            index = BUCKETS - 1
        else:
            index = int(log(seconds) * _SCALE - _OFFSET)
        pending.counts[index] += requests
        pending.requests += requests
        pending.hits += hits
        pending.total += seconds * requests

    def _place(self, rule: str, now: float) -> _Rule:
        name = rule if len(self._rules) < MAX_RULES else OTHER
        held = self._rules.get(name)
        if held is None:
            held = self._rules[name] = _Rule(now // STEP * STEP)
        return held

    def dump(self) -> dict[str, object]:
        """JSON-ready: ``{"rules": {name: [ring, ...]}}``, a ring for each window and one for the hours; a
        ring is a list of slots, ``[number, requests, hits, seconds, {bucket: count}]``."""
        now = self._now()
        told: dict[str, object] = {}
        for name, held in self._rules.items():
            held.settle(now // STEP * STEP)
            told[name] = [
                [
                    [number, t.requests, t.hits, t.total, {i: c for i, c in enumerate(t.counts) if c}]
                    for number, t in ring.live(now)
                ]
                for ring in (*held.windows, held.hours)
            ]
        return {"rules": told}

    def absorb(self, dump: Mapping[str, Any]) -> None:
        """Add what another worker has dumped. What is no dump raises LookupError, TypeError, ValueError or
        AttributeError."""
        now = self._now()
        for name, rings in dump["rules"].items():
            held = self._rules.get(name) or self._place(name, now)
            for ring, slots in zip((*held.windows, held.hours), rings, strict=True):
                for number, requests, hits, total, counts in slots:
                    times = _Times()
                    times.requests, times.hits, times.total = requests, hits, total
                    for index, count in counts.items():
                        times.counts[int(index)] += count
                    ring.absorb(number, times)

    def report(self) -> dict[str, object]:
        """JSON-ready: ``{"unit": "seconds", "all": {...}, "rules": {name: {...}}}``.

        Each has one object per window, and ``hours``, oldest first. A window without requests has null for
        its times.
        """
        now = self._now()
        step = now // STEP * STEP
        everything: list[_Rule] = []
        for held in self._rules.values():
            held.settle(step)
            everything.append(held)
        return {
            "unit": "seconds",
            "precision": 0.05,
            "all": _report(everything, now),
            "rules": {name: _report([held], now) for name, held in self._rules.items()},
        }


def _report(rules: list[_Rule], now: float) -> dict[str, object]:
    told: dict[str, object] = {}
    for index, (name, _, _) in enumerate(WINDOWS):
        times = _Times()
        for rule in rules:
            for _, slot in rule.windows[index].live(now):
                times.add(slot)
        told[name] = times.report()
    hours: dict[int, _Times] = {}
    for rule in rules:
        for number, slot in rule.hours.live(now):
            hours.setdefault(number, _Times()).add(slot)
    told["hours"] = [
        {"hour": f"{datetime.fromtimestamp(number * HOUR, UTC):%Y-%m-%dT%H:00:00Z}", **hours[number].report()}
        for number in sorted(hours)
    ]
    return told
