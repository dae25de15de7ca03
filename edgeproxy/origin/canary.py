"""A part of the keys goes to new origins, until these turn out worse than the stable ones.

Rules of this file: pure. A key always falls on the same side. Once the canary was ended it stays so until the
rules give it anew: coming and going would show clients both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.balance import part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.origin.window import Window
    from edgeproxy.rules.pools import Canary as Policy

_FLOOR = 0.005
"""Seconds that do not matter."""


class Canary:
    """``ended``: why, "" while it goes on."""

    __slots__ = ("_salt", "ended", "policy")

    def __init__(self, policy: Policy, pool: str) -> None:
        self.policy = policy
        self.ended = ""
        self._salt = f"canary {pool}"

    def takes(self, key: str) -> bool:
        return not self.ended and part(key, self._salt) * 100 < self.policy.percent

    def judge(
        self, mine: Iterable[tuple[Window, float]], stable: Iterable[tuple[Window, float]], now: float
    ) -> bool:
        """Compare both sides, given as (window, latency in seconds) of each origin. True: it ends here."""
        bad, total, mean = _sum(mine, now)
        if self.ended or total < self.policy.requests:
            return False
        stable_bad, stable_total, stable_mean = _sum(stable, now)
        more = 100 * (bad / total - (stable_bad / stable_total if stable_total else 0.0))
        if more > self.policy.errors:
            self.ended = f"{bad} of {total} failed, {stable_bad} of {stable_total} at the stable origins"
        elif stable_mean and mean > self.policy.slow * stable_mean and mean - stable_mean > _FLOOR:
            self.ended = f"{mean * 1000:.0f} ms to an answer, {stable_mean * 1000:.0f} at the stable origins"
        return bool(self.ended)


def _sum(side: Iterable[tuple[Window, float]], now: float) -> tuple[int, int, float]:
    """Bad answers, all answers, and the mean of the latencies by their number."""
    bad = total = 0
    weighted = 0.0
    for window, latency in side:
        window.roll(now)
        bad += window.failed + window.spared
        total += window.total
        weighted += latency * window.total
    return bad, total, weighted / total if total else 0.0
