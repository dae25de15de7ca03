"""What an origin did in the last ten seconds: answers, failures, and work beyond what clients asked for.

``spared`` are answers that were errors (5xx) of an origin that there is nothing better than; ``wanted`` are
refreshes that clients' requests called for, whether or not they were made.

Rules of this file: pure, driven by the ``now`` it is given (clock.now(), seconds). One second is one bucket.
Nearly all outcomes are good answers: callers add those to ``current`` themselves where ``now`` is before
``end`` (a comparison and an addition), and call ``roll`` first where it is not.
"""

from __future__ import annotations

SECONDS = 10


class Window:
    """``answered`` (``spared`` among them), ``failed``, ``spent``, ``wanted``: sums over the last ten
    seconds, the current one included."""

    __slots__ = ("_answered", "_buckets", "_second", "current", "end", "failed", "spared", "spent", "wanted")

    def __init__(self) -> None:
        self._second = 0
        self._buckets = [[0, 0, 0, 0, 0] for _ in range(SECONDS)]
        self._answered = self.failed = self.spent = self.spared = self.wanted = 0
        self.current = 0
        """Good answers of this second."""
        self.end = 0.0
        """Of this second."""

    @property
    def answered(self) -> int:
        return self._answered + self.current

    @property
    def total(self) -> int:
        return self._answered + self.current + self.failed

    def roll(self, now: float) -> None:
        """Forget what is older than ten seconds."""
        if now < self.end:
            return
        self._buckets[self._second % SECONDS][0] += self.current
        self._answered += self.current
        self.current = 0
        second = int(now)
        for each in range(self._second + 1, self._second + 1 + min(second - self._second, SECONDS)):
            bucket = self._buckets[each % SECONDS]
            self._answered -= bucket[0]
            self.failed -= bucket[1]
            self.spent -= bucket[2]
            self.spared -= bucket[3]
            self.wanted -= bucket[4]
            bucket[:] = (0, 0, 0, 0, 0)
        self._second = second
        self.end = second + 1.0

    def add(
        self,
        now: float,
        *,
        answered: int = 0,
        failed: int = 0,
        spent: int = 0,
        spared: int = 0,
        wanted: int = 0,
    ) -> None:
        self.roll(now)
        self.current += answered
        bucket = self._buckets[self._second % SECONDS]
        bucket[1] += failed
        bucket[2] += spent
        bucket[3] += spared
        bucket[4] += wanted
        self.failed += failed
        self.spent += spent
        self.spared += spared
        self.wanted += wanted

    def forget(self) -> None:
        """Answers and failures are for another time; what was spent stays spent."""
        for bucket in self._buckets:
            bucket[0] = bucket[1] = bucket[3] = 0
        self._answered = self.current = self.failed = self.spared = 0
