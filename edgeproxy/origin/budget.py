"""One origin's budget for work beyond what clients ask: repeats, refreshes, warming, prediction.

Rules of this file:

- Pure: driven by the ``now`` it is given.
- In any ten seconds, extra work that failed or is still under way comes to at most ``percent`` of what
  clients asked for (the refreshes among it that their requests called for), and ``least`` besides. What was
  answered well costs nothing: it was no load that a failing origin had to bear. So an origin that fails at
  everything sees at most the clients' own requests, a fifth of them again, and three.
- ``others`` gives what the other workers of the node have spent and been asked for; ``tell`` is told of ours.
- Who yields first: each purpose may use only its share of the budget. When the origin is slow, warming and
  prediction stop and refreshes keep to a quarter; what repeats a client's request gives way last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.base import Purpose

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.origin.window import Window
    from edgeproxy.rules.pools import Retries as Policy

SHARE = {Purpose.RETRY: 1.0, Purpose.REFRESH: 0.75, Purpose.WARM: 0.5, Purpose.PREDICT: 0.25}
SHARE_WHEN_SLOW = {Purpose.RETRY: 1.0, Purpose.REFRESH: 0.25, Purpose.WARM: 0.0, Purpose.PREDICT: 0.0}


class Budget:
    """``under_way``: extra requests not yet ended; ``refused``: how many there was nothing left for."""

    __slots__ = ("_window", "others", "policy", "refused", "tell", "under_way")

    def __init__(self, policy: Policy, window: Window) -> None:
        self.policy = policy
        self._window = window
        self.under_way = 0
        self.refused = 0
        self.others: Callable[[float], tuple[int, int]] | None = None
        self.tell: Callable[[float, int, int], None] | None = None

    def take(self, purpose: Purpose, now: float, *, slow: bool = False) -> bool:
        """Begin one; False: there is nothing left for it, and that was counted."""
        if purpose is Purpose.REFRESH:
            self._window.add(now, wanted=1)
        used, whole = self._used_and_whole(now)
        share = (SHARE_WHEN_SLOW if slow else SHARE)[purpose]
        if used >= whole * share or used + 1 > whole:
            self.refused += 1
            return False
        self.under_way += 1
        self._say(now)
        return True

    def ended(self, now: float, *, well: bool) -> None:
        """One that ``take`` allowed has ended."""
        self.under_way -= 1
        if not well:
            self._window.add(now, spent=1)
        self._say(now)

    def spend(self, now: float) -> bool:
        """One that cannot be taken back: a request resent on a connection that had died."""
        used, whole = self._used_and_whole(now)
        if used + 1 > whole:
            self.refused += 1
            return False
        self._window.add(now, spent=1)
        self._say(now)
        return True

    def _used_and_whole(self, now: float) -> tuple[int, float]:
        used, asked = self._own(now)
        if self.others is not None:
            theirs = self.others(now)
            used, asked = used + theirs[0], asked + theirs[1]
        return used, self.policy.least + self.policy.budget / 100 * asked

    def _own(self, now: float) -> tuple[int, int]:
        window = self._window
        window.roll(now)
        # What the clients asked for: extra work that failed is no ground for more of it.
        asked = max(0, window.total - window.spent) + window.wanted
        return self.under_way + window.spent, asked

    def _say(self, now: float) -> None:
        if self.tell is not None:
            self.tell(now, *self._own(now))
