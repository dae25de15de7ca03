"""Connections to all origins of a worker together: no more than its descriptors allow.

Rules of this file:

- Each origin has limits of its own (pool.py); a process has one number of descriptors, and what operators and
  the store need of them is not for origins to take.
- Asked when a connection is opened: an exchange on one that is open costs nothing here.
- Where there is no room, a connection that waits for reuse elsewhere makes some; where none does, the request
  is one too many (OVERLOADED), which is no fault of the origin's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, final
from weakref import WeakSet

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Iterable


class Holder(Protocol):
    """Holds connections of one origin."""

    @property
    def held(self) -> int:
        """Open ones and those being opened."""

    def let_one_go(self) -> bool:
        """Close the one that has waited for reuse longest; False where none does."""


@final
class Descriptors:
    """``most``: connections."""

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._holders: WeakSet[Holder] = WeakSet()
        self.refused = 0

    def join(self, holder: Holder) -> None:
        self._holders.add(holder)

    def make_room(self) -> None:
        """For one more connection. Raises OriginError(OVERLOADED)."""
        if self._most == math.inf:
            return
        holders: Iterable[Holder] = list(self._holders)
        if sum(holder.held for holder in holders) >= self._most and not any(
            holder.let_one_go() for holder in holders
        ):
            self.refused += 1
            raise OriginError(OriginFailure.OVERLOADED, "no descriptor is left for another connection")
