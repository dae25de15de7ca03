"""One fetch per key: flights, who leads them, who follows, and how each ends.

Rules of this file:

- A flight is the fetch of one key. Whoever begins it leads; who comes while it is in the air follows.
- It ends in a named outcome, once: Landed (an entry), Streaming (an entry in the making), Stale (the old
  entry in place of a failure), Uncacheable (everyone is released at once), Failed. The leader may go away;
  the flight goes on.
- A failure is shared with those who wait. An answer that the leader's own fields may have brought about is
  shared only when DOUBTS of them have got it, one after the other: they are many, and the origin is one.
- State changes synchronously: between looking a flight up and joining it there is no await.
- A flight older than its lease no longer holds the key: one newcomer may begin another.
- Where other processes fetch too, a flight holds the key's lease (cluster/base.py), and lets go of it when it
  has its outcome: at once where there is nothing to share, else when the shared store has what was stored.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.cluster.base import LOOK, UNCACHEABLE, End, Ended
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.cluster.base import Lease
    from edgeproxy.engine.body import SharedBody
    from edgeproxy.origin.base import OriginError
    from edgeproxy.policy.vocabulary import NotStored
    from edgeproxy.store.entry import Entry


@dataclass(frozen=True, slots=True)
class Landed:
    """``entry`` is whole. Whether a purge has overtaken it, followers ask the store."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Streaming:
    """``draft`` has the head and an empty body; ``body`` is being read."""

    draft: Entry
    body: SharedBody


@dataclass(frozen=True, slots=True)
class Stale:
    """The origin failed with ``error``, and ``entry``, stale, was served in its place to the one who led.
    Whether a follower may be given it too, its own request says."""

    entry: Entry
    error: OriginError


@dataclass(frozen=True, slots=True)
class Uncacheable:
    """The answer is for the leader alone; the others go on their own. ``reason``: None where another process
    found it so."""

    reason: NotStored | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The origin gave nothing usable."""

    error: OriginError

    @property
    def is_doubtful(self) -> bool:
        """Whether the request that led may have brought it about, by a field that is no part of the key: the
        others may fare better. It was answered, with an error; 503 and 504 are said of the origin."""
        error = self.error
        return error.failure is OriginFailure.SERVER_ERROR and error.status not in (503, 504)


DOUBTS = 3

Outcome = Landed | Streaming | Stale | Uncacheable | Failed


class Flight:
    """``epoch``: the purge number when it began. ``began``: clock.monotonic(). ``warming``: no client's
    request began it, so the origin is asked once only, and clients do not make its failure theirs.
    ``lease``: where other processes fetch too."""

    __slots__ = ("began", "epoch", "followers", "key", "lease", "outcome", "warming")

    def __init__(self, key: str, epoch: int, began: float) -> None:
        self.key = key
        self.epoch = epoch
        self.began = began
        self.followers = 0
        self.warming = False
        self.lease: Lease | None = None
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class Flights:
    """All flights of this worker, by key. ``stored`` calls back when the shared store has what was put."""

    def __init__(self, stored: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._flights: dict[str, Flight] = {}
        self._stored = stored

    def __len__(self) -> int:
        return len(self._flights)

    def all(self) -> list[Flight]:
        """Those that may be joined now."""
        return list(self._flights.values())

    def find(self, key: str, now: float, lease: float) -> Flight | None:
        """The flight to follow, unless it has outlived its lease without an outcome."""
        flight = self._flights.get(key)
        if flight is None or (now - flight.began > lease and not flight.outcome.done()):
            return None
        return flight

    def begin(self, key: str, epoch: int, now: float) -> Flight:
        flight = Flight(key, epoch, now)
        self._flights[key] = flight
        return flight

    def resolve(self, flight: Flight, outcome: Outcome) -> None:
        """Tell everyone. A Streaming flight stays joinable until ``end``."""
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)
            if flight.lease is not None and type(outcome) is not Streaming:
                self._let_go(flight.lease, _told(outcome, warming=flight.warming))

    def end(self, flight: Flight) -> None:
        """Nobody may join any more. A newer flight under the same key stays."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if flight.lease is not None:
            self._let_go(flight.lease, LOOK)

    def _let_go(self, lease: Lease, ended: Ended) -> None:
        if ended is LOOK and self._stored is not None:
            self._stored(lambda: lease.end(LOOK))
        else:
            lease.end(ended)


_OURS = frozenset({OriginFailure.ABANDONED, OriginFailure.YIELDED, OriginFailure.OVERLOADED})
"""Failures that say nothing of the origin: another process may fare better."""


def _told(outcome: Outcome, *, warming: bool) -> Ended:
    """An outcome as other processes are told it."""
    match outcome:
        case Uncacheable():
            return UNCACHEABLE
        case Failed(error) if not warming and error.failure not in _OURS and not outcome.is_doubtful:
            return Ended(End.FAILED, error.failure, error.status)
        case Stale() if not warming:
            # They look whether they have something stale, too.
            return Ended(End.FAILED, OriginFailure.SERVER_ERROR, OriginFailure.SERVER_ERROR.status)
        case _:
            return LOOK
