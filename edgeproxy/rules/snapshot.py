"""The rule files in force, as a copy: all workers of a node read the same octets, whenever they start.

Rules of this file:

- What is copied is what was read, checked and found right; a copy is never changed, and named by its version.
- An operator edits the files at leisure: until the next reload, a worker that has to be replaced starts with
  the rules that the others have.
- The copy before the present one is kept: a worker that was told of it a moment ago may be reading it. So is
  one that a worker is started with (``held``), however many reloads there are until it has read it.
- A candidate that is tried beside them is where the history keeps it, which is as unchanging.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from typing import TYPE_CHECKING

from edgeproxy.rules.history import InForce, Order
from edgeproxy.rules.taken import NOTHING, take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeproxy.rules.history import RuleHistory
    from edgeproxy.rules.model import RuleSet
    from edgeproxy.rules.taken import Wanted


class RuleSnapshot:
    """``source`` None: no rules, and nothing is ever copied. ``place``: a directory for the copies."""

    def __init__(self, source: Path | None, place: Path, history: RuleHistory | None = None) -> None:
        self.source = source
        self.in_force = None if source is None else InForce(source, history)
        self.taken = NOTHING
        """What is in force."""
        self.wanted: Wanted | None = None
        """The files that this was made of."""
        self.directory: Path | None = None
        """Where their copy is."""
        self.candidate: Path | None = None
        """Where the candidate's files are."""
        self._place = place
        self._before: Path | None = None
        self._held: Counter[Path] = Counter()
        self._old: set[Path] = set()
        """Copies that are to go when nobody holds them."""

    @property
    def ruleset(self) -> RuleSet:
        return self.taken.ruleset

    @property
    def order(self) -> Order | None:
        """What each worker is to be under."""
        if self.directory is None or self.wanted is None:
            return None
        return Order(self.directory, self.candidate, self.wanted.percent, self.wanted.sample)

    @contextlib.contextmanager
    def held(self) -> Iterator[Order | None]:
        """``order``, for a worker that is started with it: the copy stays for as long as this lasts."""
        order = self.order
        place = () if order is None else (order.directory,)
        self._held.update(place)
        try:
            yield order
        finally:
            self._held.subtract(place)

    def take(self) -> RuleSet:
        """Read the files, check and copy them. Blocks. Raises RuleError and OSError, and then what was in
        force still is."""
        if self.in_force is None:
            return self.ruleset
        wanted = self.in_force.wanted()
        taken = take(wanted, self.taken)
        directory = self._place / f"rules-{taken.ruleset.version}"
        if directory != self.directory:
            if not directory.exists():
                fresh = self._place / "rules.new"
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir()
                for name, octets in wanted.files:
                    (fresh / name).write_bytes(octets)
                fresh.rename(directory)
            if self._before is not None:
                self._old.add(self._before)
            self._before, self.directory = self.directory, directory
            for old in self._old - {self._before, self.directory}:
                if not self._held[old]:
                    shutil.rmtree(old, ignore_errors=True)
                    self._old.discard(old)
            self._old.discard(directory)
        history = self.in_force.history
        self.candidate = None
        if taken.candidate is not None and history is not None:
            self.candidate = history.directory(taken.candidate.version)
        self.taken, self.wanted = taken, wanted
        return self.ruleset
