"""How often an answer changes, from looks at it: some found it changed, some did not.

Rules of this file:

- Each look is an interval since the look before it and whether something was new. Intervals are counted by
  BOUNDS, two lists of ints and two of seconds, so that years of them take no more room.
- Changes are taken to come at a steady rate. The rate is the most likely one for intervals of unlike length
  (Cho and Garcia-Molina, "Estimating frequency of change", 2003): the root of one decreasing function.
- Where nothing ever changed, the rate is at most 3 in all that time (the "rule of three", 95 %); where
  something always did, half a look is taken to have found nothing, or the rate would be endless.
- The ttl that is suggested keeps the share of answers that are out of date under OUT_OF_DATE.
"""

from __future__ import annotations

from bisect import bisect_left
from math import exp, expm1
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BOUNDS = tuple(2.0**k for k in range(-1, 23))
"""Seconds: half a second to seven weeks."""
OUT_OF_DATE = 0.05
LEAST_LOOKS = 20
"""Fewer suggest nothing."""
NICE = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800)


class Intervals:
    """What the looks at the answers of one rule have found."""

    __slots__ = ("changed", "changed_seconds", "same", "same_seconds")

    def __init__(self) -> None:
        self.same = [0] * (len(BOUNDS) + 1)
        self.changed = [0] * (len(BOUNDS) + 1)
        self.same_seconds = [0.0] * (len(BOUNDS) + 1)
        self.changed_seconds = [0.0] * (len(BOUNDS) + 1)

    def look(self, seconds: float, *, changed: bool) -> None:
        place = bisect_left(BOUNDS, seconds)
        if changed:
            self.changed[place] += 1
            self.changed_seconds[place] += seconds
        else:
            self.same[place] += 1
            self.same_seconds[place] += seconds

    def told(self) -> dict[str, list[float]]:
        """Plain data, which may be added up element by element."""
        return {name: list(getattr(self, name)) for name in self.__slots__}


def rate_of_change(told: Mapping[str, list[float]]) -> float | None:
    """Changes a second, from Intervals.told; None without a look."""
    same, changed = sum(told["same"]), sum(told["changed"])
    idle, busy = sum(told["same_seconds"]), sum(told["changed_seconds"])
    if not same + changed or idle + busy <= 0:
        return None
    if not changed:
        return 3 / idle
    if not same:
        idle = 0.5 * busy / changed
    means = [(n, s / n) for n, s in zip(told["changed"], told["changed_seconds"], strict=True) if n and s]
    low, high = 1e-12, 1e6
    for _ in range(200):
        middle = (low * high) ** 0.5
        # What a changed look says of the rate, against the time in which nothing changed.
        if sum(n * mean / expm1(min(700.0, middle * mean)) for n, mean in means) > idle:
            low = middle
        else:
            high = middle
    return float((low * high) ** 0.5)


def suggested_ttl(told: Mapping[str, list[float]]) -> float | None:
    """Seconds, a round number; None where there is too little to go by."""
    looks = sum(told["same"]) + sum(told["changed"])
    rate = rate_of_change(told) if looks >= LEAST_LOOKS else None
    if rate is None:
        return None
    low, high = 1e-3, 1e9
    for _ in range(100):
        middle = (low * high) ** 0.5
        if _out_of_date(rate * middle) > OUT_OF_DATE:
            high = middle
        else:
            low = middle
    return float(max((nice for nice in NICE if nice <= low), default=NICE[0]))


def _out_of_date(changes: float) -> float:
    """The share of answers that are out of date, where ``changes`` are expected within the ttl."""
    if changes < 1e-6:
        return changes / 2
    return 1 - (1 - exp(-changes)) / changes
