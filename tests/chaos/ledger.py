"""What was asked, answered, changed and broken, and whether that may be so.

Rules of this file:

- Pure: times are given. ``floor`` of a key is the newest version whose purge or write had returned and was
  complete; an answer older than the floor was when its request began is a violation.
- A request may fail only on a connection to a process that was killed: one that was opened before the kill
  and has answered nothing that was asked since.
- Of a key's version the origin is to be asked once while the answer is fresh, by the whole cluster: a fetch
  too many is one that begins while the answer before is fresh, with no purge of the key in between. A kill
  may cost one of each key that had been asked for shortly before it. While Redis is away nothing is shared,
  and each worker fetches for itself. What is left has no excuse.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

AFTER = 0.2
"""Seconds after a purge has returned in which what it purged may be fetched by who asked before."""
AT_A_TIME = 20
"""Purges and writes that may be under way together."""
UNWRITTEN = 2.0
"""Seconds that an answer may be on its way into the shared store, and dies with who fetched it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A purge or a write of these keys: from its beginning to its return, and a while after."""

    began: float
    ended: float
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Again:
    """A fetch ``at`` a time when the one ``before`` was still fresh."""

    key: str
    version: int
    before: float
    at: float

    def __str__(self) -> str:
        return f"{self.key} version {self.version} at {self.at:.3f}, and {self.at - self.before:.3f} s before"


@dataclass(frozen=True, slots=True)
class Account:
    """Of the fetches too many: ``killed``, of the ``allowed`` that kills may have cost; ``apart``, while
    Redis was away; and those without an excuse."""

    killed: int
    allowed: int
    apart: int
    unexcused: tuple[Again, ...]


@dataclass
class Ledger:
    """``fresh``: seconds that an answer is fresh for certain. ``calm``: seconds after a breakage until it is
    behind us."""

    fresh: float
    calm: float
    stale: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    answers: int = 0
    excused: int = 0
    """Requests that failed on connections of killed processes."""
    fetches: int = 0
    changes: int = 0
    incomplete: int = 0
    """Purges and writes that said themselves that they were not complete."""
    receipts: list[float] = field(default_factory=list)
    """Seconds that complete purges took while nothing was broken."""
    _floor: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _kills: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _broken: list[float] = field(default_factory=list)
    _away: list[tuple[float, float]] = field(default_factory=list)
    """From when to when Redis could not be used."""
    _fetched: dict[tuple[str, int], float] = field(default_factory=dict)
    _again: list[Again] = field(default_factory=list)
    _asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each key was fetched."""
    _changes: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))

    def floor(self, key: str) -> int:
        return self._floor[key]

    def changed(self, began: float, ended: float, versions: dict[str, int], *, complete: bool) -> None:
        """A purge or write of these keys, at these versions, has returned."""
        self.changes += 1
        change = Change(began, ended, frozenset(versions))
        for key, version in versions.items():
            self._changes[key].append(change)
            if complete:
                self._floor[key] = max(self._floor[key], version)
        if not complete:
            self.incomplete += 1
        elif self.is_calm(began):
            self.receipts.append(ended - began)

    def broke(self, now: float, killed: str = "") -> None:
        """Something was broken, or mended; ``killed``: of this node a process."""
        self._broken.append(now)
        if killed:
            self._kills[killed].append(now)

    def away(self, began: float, ended: float) -> None:
        """Redis could not be used in this time; what it knew may be gone."""
        self._away.append((began, ended + self.calm))

    @property
    def kills(self) -> int:
        return sum(map(len, self._kills.values()))

    def is_calm(self, now: float) -> bool:
        return not self._broken or now - self._broken[-1] > self.calm

    def answered(self, what: str, key: str, version: int, floor: int) -> None:
        """``floor`` of the key when the request began."""
        self.answers += 1
        if version < floor:
            self.stale.append(f"{what}: {key} version {version}, but {floor} had been purged for")

    def failed_on(self, node: str, what: str, alive: float, now: float) -> None:
        """A request failed ``now`` on a connection that was last known to live (opened, or an answer) at
        ``alive``."""
        kills = self._kills[node]
        if bisect_left(kills, alive) < bisect_left(kills, now + 0.5):
            self.excused += 1
        else:
            self.failed.append(f"{what} at {now:.3f} on {node}")

    def fetched(self, key: str, version: int, now: float) -> None:
        """The origin was asked for the key, and has answered with this version."""
        self.fetches += 1
        self._asked[key].append(now)
        before = self._fetched.get((key, version))
        self._fetched[key, version] = now
        if before is not None and now - before < self.fresh:
            self._again.append(Again(key, version, before, now))

    def account(self) -> Account:
        """At the end: a purge is known when it has returned, an outage when it is over."""
        kills = sorted(kill for kills in self._kills.values() for kill in kills)
        free = {(kill, key) for key, asked in self._asked.items() for kill in kills if _shortly(asked, kill)}
        allowed, apart = len(free), 0
        unexcused = []
        for each in self._again:
            if self._was_changed(each):
                continue
            paid = (kill for kill in kills if each.before <= kill <= min(each.at, each.before + UNWRITTEN))
            cost = next(((kill, each.key) for kill in paid if (kill, each.key) in free), None)
            if any(began <= each.at and ended >= each.before for began, ended in self._away):
                apart += 1
            elif cost is not None:
                free.remove(cost)
            else:
                unexcused.append(each)
        return Account(allowed - len(free), allowed, apart, tuple(unexcused))

    def _was_changed(self, again: Again) -> bool:
        """Whether the key was purged or written between the two."""
        changes = self._changes[again.key]  # in the order of their ends
        first = bisect_right(changes, again.before - AFTER, key=lambda change: change.ended)
        return any(change.began < again.at for change in changes[first : first + AT_A_TIME])


def _shortly(asked: list[float], kill: float) -> bool:
    """Whether one of these was on its way when it was killed."""
    at = bisect_left(asked, kill)
    return at > 0 and kill - asked[at - 1] <= UNWRITTEN
