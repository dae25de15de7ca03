"""When a worker has more to do than it can, what needs the origin is refused first, early and in part.

Rules of this file:

- What is answered from the cache is always answered; so are operators. A request that would have to go to the
  origin is refused with 503 and Retry-After before anything was done for it, or gets what is stale.
- Two signs: more than ``most`` requests are under way; or the loop comes ``lag`` seconds late to a timer, on
  average over WINDOW looks, while BUSY requests are under way (with fewer of them it is not we who are late).
- By the second a *share* is let through, which falls by a factor while the loop is late and comes back by
  steps: what is refused must not be more than what is too much.
- Work that nobody waits for (refreshes, warm-ups) is left first, wholly.
- A worker that is not busy looks at no timer and pays one comparison a request.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeproxy.clock import Clock

BUSY = 64
TICK = 0.1
"""Seconds between two looks."""
WINDOW = 5
FALL = 0.8
RISE = 0.05
LEAST = 0.05

log = logging.getLogger("edgeproxy.engine")


class Overload:
    """``most``: requests under way; ``lag``: seconds, 0: not looked at."""

    def __init__(self, clock: Clock, *, most: int = 1_000_000, lag: float = 0.0) -> None:
        self._clock = clock
        self._most = most
        self._lag = lag
        self.mark = min(most, BUSY) if lag else most
        """With fewer requests under way there is nothing to ask."""
        self.in_flight: Callable[[], int] = int
        """How many are under way."""
        self.share = 1.0
        self.shed = self.dropped = 0
        """Requests refused; refreshes left."""
        self._credit = 0.0
        self._lags: deque[float] = deque(maxlen=WINDOW)
        self._ticking = False

    @property
    def shedding(self) -> bool:
        return self.share < 1.0 or self.in_flight() >= self._most

    def admits(self, own: int = 1) -> bool:
        """Whether a request that needs the origin is taken on. ``own``: it is one of those in flight."""
        under_way = self.in_flight() - own
        if under_way >= self._most:
            self.shed += 1
            return False
        if under_way >= self.mark and self._lag and not self._ticking:
            self._ticking = True
            self._clock.call_later(TICK, self._tick, self._clock.monotonic() + TICK)
        if self.share >= 1.0:
            return True
        self._credit += self.share
        if self._credit >= 1.0:
            self._credit -= 1.0
            return True
        self.shed += 1
        return False

    def drops(self) -> bool:
        """Whether work that nobody waits for is left; then it is counted."""
        if self.shedding:
            self.dropped += 1
            return True
        return False

    def _tick(self, due: float) -> None:
        now = self._clock.monotonic()
        self.look(max(0.0, now - due))
        if self.share < 1.0 or self.in_flight() >= self.mark:
            self._clock.call_later(TICK, self._tick, now + TICK)
        else:
            self._ticking = False
            self._lags.clear()

    def look(self, late: float) -> None:
        """The loop came ``late`` seconds late."""
        self._lags.append(late)
        if (
            len(self._lags) == WINDOW
            and sum(self._lags) / WINDOW > self._lag
            and self.in_flight() >= self.mark
        ):
            if self.share == 1.0:
                log.warning("overloaded: a part of the requests that need the origin gets 503")
            self.share = max(LEAST, self.share * FALL)
        elif self.share < 1.0:
            self.share = min(1.0, self.share + RISE)
            if self.share == 1.0:
                log.info("no longer overloaded; %d requests were refused since the start", self.shed)

    def numbers(self) -> Mapping[str, float]:
        """For the metrics."""
        return {
            "requests": self.in_flight(),
            "admitted_share": round(self.share, 3),
            "shed_total": self.shed,
            "refreshes_dropped": self.dropped,
        }


def overloaded() -> OriginError:
    """What a request is refused with."""
    return OriginError(OriginFailure.SHED, "this edge has more to do than it can")
