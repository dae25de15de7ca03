"""What the engine asks of the leases that keep processes from fetching the same: types only.

Rules of this file: a lease never hurts a request. Whatever goes wrong behind it means that there is none, and
then the request fetches for itself.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from edgeproxy.value import value

if TYPE_CHECKING:
    from edgeproxy.policy.vocabulary import OriginFailure


class End(IntEnum):
    """How the fetch under a lease ended."""

    LOOK = 1
    """Look into the shared store: if nothing usable is there, it is the next one's turn."""
    UNCACHEABLE = 2
    """The answer was for who fetched it alone: everybody goes at once, on their own."""
    FAILED = 3
    """The origin failed; so it has for those who waited."""


@value
class Ended:
    """The end of a fetch that another process made. ``failure`` and ``status`` (what a client is told) where
    it FAILED."""

    end: End
    failure: OriginFailure | None = None
    status: int = 0


LOOK = Ended(End.LOOK)
UNCACHEABLE = Ended(End.UNCACHEABLE)


class Lease(Protocol):
    """The right to fetch one key. ``again``: another process's fetch of it has ended since the store was
    looked into, so it is to be looked into once more."""

    again: bool

    def end(self, ended: Ended) -> None:
        """Tell those who wait. Only the first call counts; never blocks, never raises."""


class Leases(Protocol):
    """``since``: clock.monotonic() before the shared store was looked into."""

    def at_once(self, key: str, since: float) -> Lease | None:
        """The lease, if it can be had without waiting for anything and nobody has fetched meanwhile."""

    async def take(self, key: str, since: float, patience: float) -> Lease | Ended | None:
        """The lease; or how another process's fetch ended that this one waited for; or None, where neither
        came within ``patience`` seconds, or leases cannot be had: then fetch without."""
