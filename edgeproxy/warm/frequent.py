"""The most frequent keys of a stream, in bounded room, the recent ones counting more.

Rules of this file:

- Misra and Gries in batches: when there are twice as many counters as room, the weight of the first one
  beyond room is taken off all, and what comes to nothing is let go. Every estimate is at most the truth and
  at least the truth less ``off``, and ``off`` is at most the sum of all that was added, divided by room + 1.
- Decay is forward: what is added later weighs more (twice as much after each half-life), nothing that is
  there is touched; so the bounds hold for decayed weights as well. ``scale`` is what one costs now.
- Adding costs a dict's lookup and an addition.
"""

from __future__ import annotations

from heapq import nlargest

HIGHEST = 64.0
"""Half-lives after which all weights are written anew, lest they outgrow a float."""


class Frequent:
    """``weights``: key -> weight, in units of ``scale``; a key's decayed count is ``weight / scale(now)``."""

    def __init__(self, room: int, half_life: float, now: float) -> None:
        self.weights: dict[str, float] = {}
        self.off = 0.0
        """What an estimate may be too low by, in the same units."""
        self._room = room
        self._half_life = half_life
        self._landmark = now

    def scale(self, now: float) -> float:
        """What one request weighs at ``now``. Before the landmark time stands still."""
        lives = max(0.0, now - self._landmark) / self._half_life
        if lives > HIGHEST:
            self._rewrite(now, lives)
            return 1.0
        return float(2.0**lives)

    def add(self, key: str, count: float, now: float) -> bool:
        """True if keys have been let go."""
        weight = count * self.scale(now)
        weights = self.weights
        held = weights.get(key)
        if held is not None:
            weights[key] = held + weight
            return False
        weights[key] = weight
        if len(weights) < 2 * self._room:
            return False
        self._prune()
        return True

    def count(self, key: str, now: float) -> float:
        """How often ``key`` came, decayed; at most the truth."""
        scale = self.scale(now)  # first: it may write the weights anew
        return self.weights.get(key, 0.0) / scale

    def top(self, n: int) -> list[str]:
        """The heaviest, heaviest first; ties by key, so that the order is one."""
        return [key for key, _ in nlargest(n, self.weights.items(), key=lambda item: (item[1], item[0]))]

    def _prune(self) -> None:
        least = nlargest(self._room + 1, self.weights.values())[-1]
        self.off += least
        self.weights = {key: weight - least for key, weight in self.weights.items() if weight > least}

    def _rewrite(self, now: float, lives: float) -> None:
        factor = 2.0**-lives if lives < 1000 else 0.0
        self.off *= factor
        self.weights = {
            key: lighter for key, weight in self.weights.items() if (lighter := weight * factor) > 0.0
        }
        self._landmark = now
