"""Hit-for-miss: keys whose answers turned out not to be storable, remembered for a while.

Rules of this file: bounded in number (the oldest note goes first) and in time, so that a wrong note costs
little and heals.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.clock import Clock

MOST = 10_000
SECONDS = 120.0


class Uncacheable:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()

    def note(self, primary: str) -> None:
        self._until[primary] = self._clock.now() + SECONDS
        self._until.move_to_end(primary)
        if len(self._until) > MOST:
            self._until.popitem(last=False)

    def forget(self, primary: str) -> None:
        self._until.pop(primary, None)

    def __contains__(self, primary: str) -> bool:
        until = self._until.get(primary)
        if until is None:
            return False
        if self._clock.now() < until:
            return True
        del self._until[primary]
        return False

    def __len__(self) -> int:
        return len(self._until)
