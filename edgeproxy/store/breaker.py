"""When the shared store is asked, and when it is left alone.

Rules of this file:

- LIMIT failures in a row open the breaker; nobody asks for a while then, so that a dead store costs
  nothing. After that one caller tries; each failed try makes the pause longer, up to LONGEST.
- One log line when the store is given up and one when it is back, whatever happens in between.
- A try that never reports (its caller was cancelled) is forgotten after LONGEST.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.clock import Clock

log = logging.getLogger("edgeproxy.store")

LIMIT = 5
FIRST = 0.5
LONGEST = 4.0


class Breaker:
    """``name`` is for the log; "" writes nothing there."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0
        self.opened = 0
        """How often the store was given up."""
        self.reason = ""
        """Why it is not asked; "" while it is."""

    @property
    def open(self) -> bool:
        return self._pause > 0

    def allows(self) -> bool:
        """May the store be asked now? While the breaker is open, True makes the caller the one that
        tries: it has to report."""
        if not self._pause:
            return True
        now = self._clock.now()
        if now < self._until:
            return False
        self._until = now + LONGEST
        return True

    def succeeded(self) -> None:
        self._failures = 0
        if self._pause:
            self._pause = 0.0
            self.reason = ""
            if self._name:
                log.warning("shared store %s: in use again", self._name)

    def failed(self, reason: str) -> None:
        self._failures += 1
        if self._pause:
            self._pause = min(LONGEST, self._pause * 2)
        elif self._failures >= LIMIT:
            self._pause = FIRST
            self.opened += 1
            self.reason = reason
            if self._name:
                log.warning("shared store %s: not asked for a while (%s)", self._name, reason)
        self._until = self._clock.now() + self._pause
