"""What was asked, answered, changed and broken, and whether that may be so.

Rules of this file:

- Pure: times are given. ``floor`` of a key is the newest version whose purge or write had returned and was
  complete; an answer older than the floor was when its request began is a violation.
- A request may fail only on a connection to a process that was killed: one that was opened before the kill
  and has answered nothing since.
- Of a key's version the origin is to be asked once while the answer is fresh. Fetches are compared with the
  one before, unless the key was purged, or something broken, in between.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

AFTER = 0.2
"""Seconds after a purge has returned in which what it purged may be fetched by who asked before."""


@dataclass(frozen=True, slots=True)
class Change:
    """A purge or a write of these keys: from its beginning to its return, and a while after."""

    began: float
    ended: float
    keys: frozenset[str]


@dataclass
class Ledger:
    """``fresh``: seconds that an answer is fresh for certain. ``calm``: seconds after a breakage until
    fetches are counted again."""

    fresh: float
    calm: float
    stale: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
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
    _fetched: dict[tuple[str, int], float] = field(default_factory=dict)
    _changes: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))

    def floor(self, key: str) -> int:
        return self._floor[key]

    def changed(self, began: float, ended: float, versions: dict[str, int], *, complete: bool) -> None:
        """A purge or write of these keys, at these versions, has returned."""
        self.changes += 1
        change = Change(began, ended, frozenset(versions))
        for key, version in versions.items():
            self._changes[key] = [*self._changes[key][-3:], change]
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
        before = self._fetched.get((key, version))
        self._fetched[key, version] = now
        if before is None or now - before >= self.fresh:
            return
        if any(change.ended + AFTER > before and change.began < now for change in self._changes[key]):
            return
        if self._broken and self._broken[-1] > before - self.calm:
            return
        self.doubled.append(f"{key} version {version} at {now:.3f}, and {now - before:.3f} s before")
