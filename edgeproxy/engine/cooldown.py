"""After a failed refresh: how long the origin is left alone about this key.

Rules of this file: the pause doubles with each failure in a row, with jitter so that keys do not come back
together; a success ends it. The table is bounded: what is forgotten is merely tried again.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from edgeproxy.policy.vocabulary import OriginFailure

FIRST = 1.0
LONGEST = 30.0
NOT_ASKED = frozenset({OriginFailure.BREAKER_OPEN, OriginFailure.YIELDED})
"""Failures that did not reach the origin."""
ROOM = 10_000


class CoolDown:
    """Times in seconds, by clock.monotonic()."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, tuple[float, float, OriginFailure]] = OrderedDict()

    def failed(self, key: str, now: float, failure: OriginFailure) -> None:
        before = self._until.pop(key, None)
        pause = FIRST / 2 if before is None else before[1]
        # Where the origin was not even asked the pause is a short one, and the next is as long as it would
        # have been: it may be back soon.
        asked = failure not in NOT_ASKED
        pause = min(LONGEST, pause * 2) if asked else pause
        wait = pause if asked else FIRST
        # Full pauses would send all keys that failed in one outage back at the same moment.
        self._until[key] = (now + wait * random.uniform(0.5, 1.0), pause, failure)  # noqa: S311
        if len(self._until) > ROOM:
            self._until.popitem(last=False)

    def succeeded(self, key: str) -> None:
        self._until.pop(key, None)

    def active(self, key: str, now: float) -> OriginFailure | None:
        """How the last attempt failed, where it is too early for another."""
        last = self._until.get(key)
        return last[2] if last is not None and now < last[0] else None
