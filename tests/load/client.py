"""Load by the clock: requests are sent when they are due, whether the ones before have come back or not.

Rules of this file:

- An open loop, as a crowd of clients is one: a server that gets slow is not asked less. What finds no idle
  connection within the pool counts as not answered.
- Only the head of an answer is looked at, as far as status and length go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.005
DEADLINE = 1.0
"""Seconds within which an answer is of use."""
REFUSED = frozenset({429, 503})


@dataclass
class Result:
    """Of one step. ``good``: 200 in time; ``refused``: 429 and 503; ``late``: 200 later than DEADLINE; times
    in seconds; ``offered_by`` and ``good_by``: by the second in which a request was due."""

    offered: int = 0
    good: int = 0
    refused: int = 0
    late: int = 0
    other: int = 0
    seconds: float = 0.0
    begun: float = 0.0
    times: list[float] = field(default_factory=list)
    refusal_times: list[float] = field(default_factory=list)
    no_retry_after: int = 0
    offered_by: list[int] = field(default_factory=list)
    good_by: list[int] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        return self.good / self.seconds

    @property
    def summary(self) -> str:
        return (
            f"{self.offered} offered, {self.good} good, {self.refused} refused, {self.late} late,"
            f" {self.other} otherwise"
        )

    def recovered_after(self, share: float) -> float:
        """Seconds from the step's beginning until ``share`` of what is offered is answered, for good."""
        after = len(self.offered_by)
        while after and self.good_by[after - 1] >= share * self.offered_by[after - 1]:
            after -= 1
        return float(after) if after < len(self.offered_by) else float("inf")


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] if times else 0.0


class Connection(asyncio.Protocol):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.transport: asyncio.Transport | None = None
        self._sent = 0.0
        self._head = b""
        self._missing = -1
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, octets: bytes, now: float) -> None:
        self._sent, self._head, self._missing = now, b"", -1
        assert self.transport is not None
        self.transport.write(octets)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[: end + 2]
            at = head.find(b"Content-Length: ") + 16
            length = int(head[at : head.find(b"\r", at)])
            self._missing = length - (len(self._head) - end - 4)
            self._status = int(head[9:12])
            if self._status in REFUSED and b"Retry-After: " not in head:
                self._pool.result.no_retry_after += 1
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            self._pool.done(self, self._status, self._sent)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._pool.lost(self)


class Pool:
    """``most`` connections to an edge."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._most = most
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self.result = Result()
        self.now = asyncio.get_running_loop().time
        self._closing = False
        self._next: Callable[[], bytes] | None = None
        """While set, whoever has its answer asks again at once."""

    async def fill(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._all) < self._most:
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
            self._all.add(connection)
            self._idle.append(connection)

    def done(self, connection: Connection, status: int, sent: float) -> None:
        result, now = self.result, self.now()
        seconds = now - sent
        if status == 200:
            if seconds > DEADLINE:
                result.late += 1
            else:
                result.good += 1
                result.times.append(seconds)
                if result.good_by:
                    result.good_by[int(sent - result.begun)] += 1
        elif status in REFUSED:
            result.refused += 1
            result.refusal_times.append(seconds)
        else:
            result.other += 1
        if self._next is None:
            self._idle.append(connection)
        else:
            result.offered += 1
            connection.send(self._next(), now)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._closing:
            self.result.other += 1

    async def offer(self, rate: float, seconds: float, next_request: Callable[[], bytes]) -> Result:
        """``rate`` requests a second."""
        await self.fill()
        begun = self.now()
        result = self.result = Result(seconds=seconds, begun=begun)
        result.offered_by = [0] * (int(seconds) + 1)
        result.good_by = [0] * (int(seconds) + 1)
        while (now := self.now()) < begun + seconds:
            due = int((now - begun) * rate) - result.offered
            result.offered += due
            result.offered_by[int(now - begun)] += due
            for _ in range(min(due, len(self._idle))):
                self._idle.pop().send(next_request(), now)
            await asyncio.sleep(TICK)
        return result

    async def settle(self) -> None:
        """Until all that was sent has come back."""
        async with asyncio.timeout(30):
            while len(self._idle) < len(self._all):  # noqa: ASYNC110 - what comes back comes by callback
                await asyncio.sleep(TICK)

    async def saturate(self, seconds: float, next_request: Callable[[], bytes], at_once: int = 32) -> Result:
        """As much as ``at_once`` clients get that wait for each answer: the capacity."""
        await self.fill()
        result = self.result = Result(seconds=seconds)
        self._next = next_request
        for _ in range(at_once):
            result.offered += 1
            self._idle.pop().send(next_request(), self.now())
        await asyncio.sleep(seconds)
        self._next = None
        await self.settle()
        return result

    async def close(self) -> None:
        self._closing = True
        for connection in list(self._all):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.05)
