"""Leaving out the one origin of a pool that fails or is slow: what it did, and for how long it is out.

Rules of this file:

- Pure: driven by the ``now`` it is given. Whether the pool can spare it is asked of ``may_eject``.
- The n-th ejection lasts n times the base; each DECAY seconds back in service take one off.
- Who comes back is on probation: asked one request at a time until PROVEN answers were good, and out again
  after the first failure or AGAIN slow answers.
- An answer whose head was well may still break off. Such ones count in a row of their own, which good heads
  end only where they are twice as many: each of them came with one.
- Slow is relative: to the median of the others, by a factor, and by FLOOR seconds at least, after ENOUGH
  answers since it came back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.rules.pools import Ejection as Policy

DECAY = 10.0
FLOOR = 0.01
ENOUGH = 10
AGAIN = 2
PROVEN = 5


class Ejector:
    """One origin's record. ``until``: out before then, 0 when it is not; ``ejections``: how often it was."""

    __slots__ = (
        "_back", "_broken", "_heads", "_row", "_times", "ejections", "policy", "probation", "reason", "until",
    )  # fmt: skip

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.until = 0.0
        self.ejections = 0
        self.probation = False
        self.reason = ""
        self._row = 0
        self._broken = self._heads = 0
        self._times = 0
        self._back = -math.inf

    def out(self, now: float) -> bool:
        return now < self.until

    def answered(self) -> bool:
        """A good head. True: the next one matters too."""
        self._row = 0
        if self._broken:
            self._heads += 1
            if self._heads > 2 * self._broken:
                self._broken = self._heads = 0
        return self._broken > 0

    def failed(self) -> bool:
        """Count one failure. True: it deserves to be ejected."""
        self._row += 1
        return self.policy.enabled and self._row >= (1 if self.probation else self.policy.failures)

    def broke_off(self) -> bool:
        """Count an answer that did so after its head. True: it deserves to be ejected."""
        self._broken += 1
        return self.policy.enabled and self._broken >= (1 if self.probation else self.policy.failures)

    def eject(self, now: float, why: str) -> None:
        if self._times:
            self._times = max(0, self._times - int(max(0.0, now - self._back) // DECAY))
        self._times += 1
        self.ejections += 1
        self._row = self._broken = self._heads = 0
        self.probation = True
        self.reason = why
        self.until = self._back = now + min(self.policy.longest, self.policy.base * self._times)

    @property
    def row(self) -> int:
        """Failures in a row, of the one kind or the other."""
        return max(self._row, self._broken)


def may_eject(policy: Policy, members: int, out: int, usable_others: int) -> bool:
    """Whether one more of ``members`` may go, ``out`` being ejected already: never the last usable one."""
    # A pool of two may spare one, whatever the percentage (but for 0).
    most = max(1, int(members * policy.percent / 100)) if policy.percent else 0
    return policy.enabled and usable_others >= 1 and out < most


def too_slow(
    policy: Policy, mine: float, answers: int, others: Sequence[float], *, probation: bool = False
) -> bool:
    """Seconds to the head of an answer: ``mine`` beside those of the others that have answered."""
    if not policy.enabled or answers < (AGAIN if probation else ENOUGH) or not others:
        return False
    usual = _median(others)
    return mine > policy.slow * usual and mine - usual > FLOOR


def _median(values: Sequence[float]) -> float:
    """As statistics.median, which brings fractions and decimals to every start."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
