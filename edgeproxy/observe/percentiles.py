"""Latency percentiles per rule over the last minute, five minutes, hour, and hour by hour, in bounded memory.

Rules of this file:

- Requests are added to one small histogram per rule. Every STEP seconds that one is poured into the rings of
  all windows and emptied, so a request costs one lookup, one logarithm and a few additions.
- A window covers at least what its name says and at most one of its slots more. Hours are those of the
  clock (UTC); the one going on is the last in the list.
- What one worker has can be added to another's (``dump``, ``absorb``): slots are numbered by the wall clock.
- What else is told of a slot (passes, errors, octets, time saved) is no affair of a request's: it is the
  difference of what the tally had counted (``counters``), taken when a slot is poured.
- Of all rules together there is a finer ring, STEP seconds a slot, for an hour: ``recent``.
- Bounded: WINDOWS and the hours are 61 slots of BUCKETS counters of 4 octets, about 42 KiB a rule when all
  are in use, and a slot is made only for a time with requests. Beyond MAX_RULES rules share "other". The
  finer ring is 0.7 MB when every slot of the hour had requests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import log
from typing import TYPE_CHECKING, Any

from edgeproxy.observe.tally import MAX_RULES, OTHER
from edgeproxy.observe.times import BUCKETS, LEAST, MOST, OFFSET, SCALE, Counted, Times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


STEP = 5
WINDOWS: tuple[tuple[str, int, int], ...] = (("1m", 5, 13), ("5m", 30, 11), ("1h", 300, 13))
"""Name, seconds of a slot (a multiple of STEP), slots. One more than the window has: the present one."""
HOUR, HOURS = 3600, 24
RECENT = 3600 // STEP + 1
"""Slots of the ring of all rules together."""


class _Ring:
    """The last ``size`` slots of ``seconds`` each. A slot is overwritten when its place is needed."""

    __slots__ = ("seconds", "size", "slots")

    def __init__(self, seconds: int, size: int) -> None:
        self.seconds = seconds
        self.size = size
        self.slots: dict[int, tuple[int, Times]] = {}

    def pour(self, when: float, times: Times) -> None:
        number = int(when // self.seconds)
        held = self.slots.get(number % self.size)
        if held is None or held[0] != number:
            held = (number, Times())
            self.slots[number % self.size] = held
        held[1].add(times)

    def absorb(self, number: int, times: Times) -> None:
        """Add another ring's slot, unless its place is taken by a later one."""
        held = self.slots.get(number % self.size)
        if held is None or held[0] <= number:
            self.pour(number * self.seconds, times)

    def live(self, now: float) -> list[tuple[int, Times]]:
        """(number, times) of the slots that still count, oldest first."""
        oldest = int(now // self.seconds) - self.size + 1
        return sorted((h for h in self.slots.values() if h[0] >= oldest), key=lambda h: h[0])


class _Rule:
    """``counted``: by the tally, up to what is pending."""

    __slots__ = ("began", "counted", "hours", "name", "pending", "windows")

    def __init__(self, name: str, began: float, counted: Counted) -> None:
        self.name = name
        self.began = began
        self.counted = counted
        self.pending = Times()
        self.windows = [_Ring(seconds, size) for _, seconds, size in WINDOWS]
        self.hours = _Ring(HOUR, HOURS)

    def settle(self, began: float, counted: Counted, together: _Ring) -> None:
        """Pour what is pending into the rings; the next step began at ``began``."""
        pending = self.pending
        if pending.requests:
            pending.grew(self.counted, counted)
            self.counted = counted
            for ring in (*self.windows, self.hours):
                ring.pour(self.began, pending)
            # A rule that nobody asked for a while is poured late: what is there may be newer.
            together.absorb(int(self.began // STEP), pending)
            self.pending = Times()
        self.began = began


def nothing(_: str) -> Counted:
    """Where nothing else is counted."""
    return Counted()


class Percentiles:
    """``now``: Clock.now, seconds since the epoch. ``counters``: what has been counted of a rule, without the
    request that is being observed."""

    def __init__(self, now: Callable[[], float], counters: Callable[[str], Counted] = nothing) -> None:
        self._now = now
        self._counters = counters
        self._rules: dict[str, _Rule] = {}
        self._together = _Ring(STEP, RECENT)

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
            self._settle(held, now)
        pending = held.pending
        if seconds <= LEAST:
            index = 0
        elif seconds >= MOST:
            index = BUCKETS - 1
        else:
            index = int(log(seconds) * SCALE - OFFSET)
        pending.counts[index] += requests
        pending.requests += requests
        pending.hits += hits
        pending.total += seconds * requests

    def _place(self, rule: str, now: float) -> _Rule:
        name = rule if len(self._rules) < MAX_RULES else OTHER
        held = self._rules.get(name)
        if held is None:
            held = self._rules[name] = _Rule(name, now // STEP * STEP, self._counters(name))
        return held

    def _settle(self, held: _Rule, now: float) -> None:
        held.settle(now // STEP * STEP, self._counters(held.name), self._together)

    def recent(self, after: int = 0) -> list[tuple[int, Times]]:
        """Of all rules together: (number, times) of the slots of STEP seconds behind number ``after``, oldest
        first, the one going on included. A slot without requests is left out."""
        now = self._now()
        for held in self._rules.values():
            self._settle(held, now)
        return [slot for slot in self._together.live(now) if slot[0] > after]

    def within(self, window: str) -> Iterator[tuple[str, Times]]:
        """Each rule that was asked for in one of WINDOWS. Raises KeyError for another one."""
        index = {name: place for place, (name, _, _) in enumerate(WINDOWS)}[window]
        now = self._now()
        for name, held in list(self._rules.items()):
            self._settle(held, now)
            together = Times()
            for _, slot in held.windows[index].live(now):
                together.add(slot)
            if together.requests:
                yield name, together

    def dump(self, *, recent: bool = False) -> dict[str, object]:
        """JSON-ready: ``{"rules": {name: [ring, ...]}}``, a ring for each window and one for the hours; a
        ring is a list of slots, each its number and what Times.told() gives. With ``recent`` also the ring of
        all rules together."""
        now = self._now()
        told: dict[str, object] = {}
        for name, held in self._rules.items():
            self._settle(held, now)
            told[name] = [
                [[number, *times.told()] for number, times in ring.live(now)]
                for ring in (*held.windows, held.hours)
            ]
        if not recent:
            return {"rules": told}
        return {"rules": told, "recent": [[number, *times.told()] for number, times in self.recent()]}

    def absorb(self, dump: Mapping[str, Any]) -> None:
        """Add what another worker has dumped. What is no dump raises LookupError, TypeError, ValueError or
        AttributeError."""
        now = self._now()
        for name, rings in dump["rules"].items():
            held = self._rules.get(name) or self._place(name, now)
            for ring, slots in zip((*held.windows, held.hours), rings, strict=True):
                for number, *slot in slots:
                    ring.absorb(number, Times.of(slot))
        for number, *slot in dump.get("recent", ()):
            self._together.absorb(number, Times.of(slot))

    def report(self) -> dict[str, object]:
        """JSON-ready: ``{"unit": "seconds", "all": {...}, "rules": {name: {...}}}``.

        Each has one object per window, and ``hours``, oldest first. A window without requests has null for
        its times.
        """
        now = self._now()
        everything: list[_Rule] = []
        for held in self._rules.values():
            self._settle(held, now)
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
        times = Times()
        for rule in rules:
            for _, slot in rule.windows[index].live(now):
                times.add(slot)
        told[name] = times.report()
    hours: dict[int, Times] = {}
    for rule in rules:
        for number, slot in rule.hours.live(now):
            hours.setdefault(number, Times()).add(slot)
    told["hours"] = [
        {"hour": f"{datetime.fromtimestamp(number * HOUR, UTC):%Y-%m-%dT%H:00:00Z}", **hours[number].report()}
        for number in sorted(hours)
    ]
    return told
