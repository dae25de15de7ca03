"""Warm-ups at their times.

Rules of this file:

- One timer, for the one that is due next. What is due while the last run of the same is still under way is
  left out, not made up for.
- A reload keeps the times of what stays as it was: else frequent reloads would put off ``every`` for ever.
- Times of day are UTC.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgeproxy.clock import Clock, Timer
    from edgeproxy.rules.model import WarmUp

DAY = 86400
LONGEST = 3600.0
"""Seconds that a timer is set for at most: a machine may sleep, and a clock be set right."""


def next_time(up: WarmUp, after: float) -> float:
    """When it is due next, in seconds since 1970, later than ``after``."""
    if up.daily is None:
        return after + (up.every or DAY)
    today = after - after % DAY + up.daily
    return today if today > after else today + DAY


class Schedule:
    """``run`` starts one; False if its last run is still under way."""

    def __init__(self, clock: Clock, run: Callable[[WarmUp], bool]) -> None:
        self._clock = clock
        self._run = run
        self._due: dict[WarmUp, float] = {}
        self._timer: Timer | None = None
        self.skipped = 0

    def set(self, ups: Iterable[WarmUp]) -> None:
        """These, from now on."""
        now = self._clock.now()
        before = {replace(up, at=""): due for up, due in self._due.items()}
        self._due = {up: before.get(replace(up, at=""), next_time(up, now)) for up in ups}
        self._set_timer()

    def stop(self) -> None:
        self._due = {}
        self._set_timer()

    @property
    def due(self) -> dict[str, float]:
        """When each is due next, by where it stands."""
        return {up.at: due for up, due in self._due.items()}

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            wait = min(self._due.values()) - self._clock.now()
            self._timer = self._clock.call_later(min(max(0.0, wait), LONGEST), self._tick)

    def _tick(self) -> None:
        now = self._clock.now()
        for up, due in self._due.items():
            if due <= now:
                self._due[up] = next_time(up, now)
                self.skipped += not self._run(up)
        self._set_timer()
