"""What the log says of the origin: one line when it begins to fail, one when it answers again.

Rules of this file: a line per change of state, never per request; failures that are the client's own, or of a
request that nobody waited for any more, say nothing of the origin.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.origin.base import OriginError

log = logging.getLogger("edgeproxy.origin")

NOT_THE_ORIGINS = frozenset({
    OriginFailure.REQUEST_BODY, OriginFailure.ABANDONED, OriginFailure.OVERLOADED,
    OriginFailure.BREAKER_OPEN, OriginFailure.YIELDED,
})  # fmt: skip


class Witness:
    """``failing_since``: clock.monotonic() of the first failure in a row, None while the origin answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.failing_since: float | None = None
        self._failures = 0

    def failed(self, error: OriginError) -> None:
        if error.failure in NOT_THE_ORIGINS:
            return
        self._failures += 1
        if self.failing_since is None:
            self.failing_since = self._clock.monotonic()
            log.warning("the origin fails: %s", error)

    def answered(self) -> None:
        if self.failing_since is not None:
            seconds = self._clock.monotonic() - self.failing_since
            log.warning("the origin answers again after %d failures in %.1f s", self._failures, seconds)
            self.failing_since = None
            self._failures = 0
