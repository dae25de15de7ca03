"""Places at the origin, and the connections that wait for reuse.

Rules of this file:

- A request holds a place from before it connects until its answer's body is done, or its connection leaves
  HTTP (tunnel.py). There are
  ``max_connections`` places; the next ``max_queued`` requests wait in order, for ``queue_timeout`` seconds at
  most; all others are refused at once.
- A new connection is opened only when none is idle, so open connections never outnumber the places.
- The newest idle connection is used first, so that the others may expire.
- A connection is used again for ``max_age`` seconds at most, up to a third less by turns, so that those made
  together do not all go together.
- Every change to shared state is synchronous; whoever is told, is told after.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.connection import Connection
from edgeproxy.origin.descriptors import Descriptors
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.origin.connection import Limits
    from edgeproxy.origin.dial import Dialer


class Pool:
    def __init__(
        self,
        dialer: Dialer,
        clock: Clock,
        limits: Limits,
        *,
        max_connections: int,
        max_queued: int,
        queue_timeout: float,
        max_age: float = math.inf,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._dialer = dialer
        self._clock = clock
        self._limits = limits
        self._max = max_connections
        self._max_queued = max_queued
        self._queue_timeout = queue_timeout
        self._max_age = max_age
        self._descriptors = descriptors or Descriptors()
        self._descriptors.join(self)
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._all_lost: asyncio.Future[None] | None = None
        self.closed = False
        self._retired = False
        self.in_flight = 0
        """Places taken."""
        self.connects = 0
        """Connections opened so far."""

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def held(self) -> int:
        """Connections that are open or being opened."""
        return len(self._open) + self._opening

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    # -- places -------------------------------------------------------------------------------------

    def try_enter(self) -> bool:
        """Take a place now, if one is free and nobody waits for it."""
        if self.in_flight < self._max and not self._waiting and not self.closed:
            self.in_flight += 1
            return True
        return False

    async def enter(self) -> None:
        """Take a place, waiting for it. Raises OriginError(OVERLOADED)."""
        if self.closed:
            raise OriginError(OriginFailure.OVERLOADED, "closing")
        if len(self._waiting) >= self._max_queued:
            raise OriginError(OriginFailure.OVERLOADED, f"{len(self._waiting)} requests wait already")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        timer = self._clock.call_later(self._queue_timeout, self._too_long, place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # the place was given in the same turn in which we were cancelled
            elif place in self._waiting:
                self._waiting.remove(place)
            raise
        finally:
            timer.cancel()

    def _too_long(self, place: asyncio.Future[None]) -> None:
        if not place.done():
            self._waiting.remove(place)
            place.set_exception(
                OriginError(OriginFailure.OVERLOADED, f"no place within {self._queue_timeout:g} s")
            )

    def leave(self) -> None:
        """Give the place back: to the first who waits, if anybody does."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.in_flight -= 1

    # -- connections --------------------------------------------------------------------------------

    def take_idle(self) -> Connection | None:
        """A connection to reuse, or None.

        The socket itself is asked whether anything has arrived on it: what an origin sent after the end of
        its last answer would be read as the answer to the next request, and its FIN would cost a resend.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and not connection.stirs():
                return connection
            connection.drop()
        return None

    async def connect(self) -> Connection:
        """A new connection. Raises OriginError."""
        self._descriptors.make_room()
        loop = asyncio.get_running_loop()
        self._opening += 1
        try:
            connection = await self._dialer.connect(
                lambda: Connection(loop, self._clock, self._limits, self._lost)
            )
        finally:
            self._opening -= 1
        if self.closed:
            connection.drop()
        self._open.add(connection)
        self.connects += 1
        # Multiples of the golden ratio fall evenly however many there are.
        connection.of_age = self._clock.monotonic() + self._max_age * (1 - self.connects * 0.618 % 1 / 3)
        if connection.transport is None or connection.transport.is_closing():
            self._open.discard(connection)
            raise OriginError(OriginFailure.RESET, "closed as soon as it was open")
        return connection

    def give_back(self, connection: Connection) -> None:
        """An exchange on it ended well: keep it if it may be reused."""
        if connection.reusable and not self.closed and not self._retired:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.drop()

    def let_one_go(self) -> bool:
        """Close the connection that has waited for reuse longest, for others to have its descriptor."""
        if not self._idle:
            return False
        connection = self._idle.pop(0)
        self._open.discard(connection)
        connection.drop()
        return True

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._open and self._all_lost is not None and not self._all_lost.done():
            self._all_lost.set_result(None)

    def refuse_waiting(self, failure: OriginFailure, why: str) -> None:
        """Whoever waits for a place is told at once that there will be none."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(OriginError(failure, why))

    def retire(self) -> None:
        """Keep no connection from now on; those in use end with their exchange."""
        self._retired = True
        while self._idle:
            self._idle.pop().drop()

    async def aclose(self) -> None:
        """End every connection, refuse whoever waits; returns when no descriptor is left."""
        self.closed = True
        self.refuse_waiting(OriginFailure.OVERLOADED, "closing")
        self._idle.clear()
        for connection in list(self._open):
            connection.drop()
        if self._open:
            self._all_lost = asyncio.get_running_loop().create_future()
            await self._all_lost
