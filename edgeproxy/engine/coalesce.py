"""One fetch per key: flights, who leads them, who follows, and how each ends.

Rules of this file:

- A flight is the fetch of one key. Whoever begins it leads; who comes while it is in the air follows.
- It ends in a named outcome, once: Landed (an entry), Streaming (an entry in the making), Stale (the old
  entry in place of a failure), Uncacheable (everyone is released at once), Failed (the failure is shared with
  those who wait). The leader may go away; the flight goes on.
- State changes synchronously: between looking a flight up and joining it there is no await.
- A flight older than its lease no longer holds the key: one newcomer may begin another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.engine.body import SharedBody
    from edgeproxy.origin.base import OriginError
    from edgeproxy.policy.vocabulary import NotStored, StaleReason
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
    """The origin failed and ``entry``, stale, was served in its place."""

    entry: Entry
    reason: StaleReason


@dataclass(frozen=True, slots=True)
class Uncacheable:
    """The answer is for the leader alone; the others go on their own."""

    reason: NotStored


@dataclass(frozen=True, slots=True)
class Failed:
    """The origin gave nothing usable."""

    error: OriginError


Outcome = Landed | Streaming | Stale | Uncacheable | Failed


class Flight:
    """``epoch``: the purge number when it began. ``began``: clock.monotonic(). ``warming``: no client's
    request began it, so the origin is asked once only, and clients do not make its failure theirs."""

    __slots__ = ("began", "epoch", "followers", "key", "outcome", "warming")

    def __init__(self, key: str, epoch: int, began: float) -> None:
        self.key = key
        self.epoch = epoch
        self.began = began
        self.followers = 0
        self.warming = False
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class Flights:
    """All flights of this worker, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

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

    def end(self, flight: Flight) -> None:
        """Nobody may join any more. A newer flight under the same key stays."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
