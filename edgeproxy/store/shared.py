"""L2: a store behind a budget of milliseconds, so that nothing in it can hurt a request.

Rules of this file:

- What is behind it is a ByteCache (backend.py).
- A read has a budget. When it is over, the command is *abandoned*, never cancelled: a cancelled command can
  leave its reply behind on a connection that the next command uses (CVE-2023-28858). Its own task reads the
  reply and drops it. How many commands may be under way is bounded.
- Every error and every timeout is a miss. Several in a row and the store is not asked for a while.
- Writes wait in a bounded queue and are made in batches behind the requests' backs. The oldest is dropped
  when the queue is full, and what has waited too long. Delivery never waits for a write.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.breaker import Breaker

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.store.backend import ByteCache

log = logging.getLogger("edgeproxy.store")

BUDGET = 0.05
MOST_READS = 1024
"""Reads under way or waiting for their turn; one more is a miss at once."""
MOST_COMMANDS = 48
"""Commands on their way to the store at one time."""
MOST_WRITES = 1024
MOST_WRITE_OCTETS = 64 * 1024 * 1024
WRITE_DEADLINE = 5.0
BATCH = 64
BATCH_OCTETS = 8 * 1024 * 1024
MAINTENANCE = 10.0
CLOSING = 5.0
"""Seconds that closing waits for the writes that are left."""


async def _nothing(_: dict[str, bytes]) -> tuple[()]:
    return ()


Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class StoreUnusable(Exception):  # noqa: N818  # a state, not a slip: the caller goes on without
    """The store cannot be opened; the message is one line for the operator."""


class PartAway(Exception):  # noqa: N818  # a state too
    """The part of the store that holds the key is left alone; the others are asked as ever."""


class Wrote(Enum):
    """What became of a write."""

    STORED = "stored"
    OVERTAKEN = "overtaken"
    """Something newer is there."""
    FULL = "full"
    """No room, or larger than the store takes."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Write:
    """``data`` goes under ``key`` for ``ttl`` seconds unless something newer is there; None deletes."""

    key: str
    data: bytes | None
    ttl: float = 0.0


BEHIND = 2 * BATCH
"""Writes waiting from which on nobody waits for theirs."""

Prepare = Callable[[dict[str, bytes]], Awaitable[Sequence[Write]]]
"""Makes the writes of one job when its turn comes. It is given what this batch has made so far, by key."""


@dataclass(slots=True)
class _Job:
    prepare: Prepare
    octets: int
    deadline: float
    then: Callable[[], None] | None = None


class SharedStore:
    """``cache`` behind its budget (seconds), its breaker and its write queue."""

    def __init__(
        self, cache: ByteCache, clock: Clock, spawn: Spawn, *, name: str, budget: float = BUDGET
    ) -> None:
        self.cache = cache
        self.name = name
        self.budget = budget
        self.breaker = Breaker(clock, name)
        self._clock = clock
        self._spawn = spawn
        self._commands = asyncio.Semaphore(MOST_COMMANDS)
        self._reads = 0
        self._jobs: deque[_Job] = deque()
        self._queued = 0
        self._then: list[Callable[[], None]] = []
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.counts = dict.fromkeys(
            ("reads", "timeouts", "errors", "busy", "skipped", "writes", "write_errors", "write_drops",
             "full", "overtaken"), 0,
        )  # fmt: skip
        spawn(self._maintain(), f"maintenance of {name}")

    def _may_be_asked(self) -> bool:
        may = not self._closed and self.breaker.allows()
        self.counts["reads" if may else "skipped"] += 1
        return may

    def get_now(self, key: str) -> bytes | LookupMiss:
        """As ``get``, of a cache that answers at once. Raises nothing."""
        if not self._may_be_asked():
            return LookupMiss.BREAKER_OPEN
        try:
            data = self.cache.read_now(key)
        except Exception as error:  # noqa: BLE001  # whatever a backend raises is a miss
            return self._read_failed(error)
        self.breaker.succeeded()
        return LookupMiss.ABSENT if data is None else data

    async def get(self, key: str, budget: float | None = None) -> bytes | LookupMiss:
        """The octets under the key, within the budget (seconds). Raises nothing but CancelledError."""
        if self.cache.immediate:
            return self.get_now(key)
        if not self._may_be_asked():
            return LookupMiss.BREAKER_OPEN
        if self._reads >= MOST_READS:
            self.counts["busy"] += 1
            return LookupMiss.TIMEOUT
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._reads += 1
        self._spawn(self._read(key, answer), "read of the shared store")
        try:
            if not await self._clock.wait_for(answer, self.budget if budget is None else budget):
                self.counts["timeouts"] += 1
                self.breaker.failed("no answer within its budget")
                return LookupMiss.TIMEOUT
        finally:
            if not answer.done():
                answer.cancel()  # abandoned: _read goes on and drops what it gets
        result = answer.result()
        if isinstance(result, Exception):
            return self._read_failed(result)
        self.breaker.succeeded()
        return result if isinstance(result, bytes) else LookupMiss.ABSENT

    async def _read(self, key: str, answer: asyncio.Future[object]) -> None:
        result: object
        try:
            async with self._commands:
                if answer.done():
                    return
                result = await self.cache.get(key)
        except Exception as error:  # noqa: BLE001  # the waiting side makes a miss of it
            result = error
        finally:
            self._reads -= 1
        if not answer.done():
            answer.set_result(result)

    def _read_failed(self, error: Exception) -> LookupMiss:
        self.counts["errors"] += 1
        if not isinstance(error, PartAway):
            self.breaker.failed(f"{type(error).__name__}: {error}")
        return LookupMiss.ERROR

    def enqueue(self, prepare: Prepare, octets: int) -> None:
        """Have a write made soon. ``octets`` is about what it holds on to while it waits."""
        if self._closed:
            return
        self._jobs.append(_Job(prepare, octets, self._clock.now() + WRITE_DEADLINE))
        self._queued += octets
        while len(self._jobs) > MOST_WRITES or (self._queued > MOST_WRITE_OCTETS and len(self._jobs) > 1):
            dropped = self._take()
            if dropped.then is None:
                self.counts["write_drops"] += 1
            else:
                dropped.then()
        if not self._draining:
            self._draining = True
            self._idle.clear()
            self._spawn(self._drain(), f"writes to {self.name}")

    def after_writes(self, call: Callable[[], None]) -> None:
        """Call when every write enqueued so far has been made or dropped; at once where too many wait."""
        if self._closed or not self._draining or len(self._jobs) > BEHIND:
            call()
        else:
            self._jobs.append(_Job(_nothing, 0, float("inf"), call))

    def _take(self) -> _Job:
        job = self._jobs.popleft()
        self._queued -= job.octets
        return job

    async def _drain(self) -> None:
        try:
            while self._jobs:
                batch = await self._next_batch()
                if batch:
                    await self._write(batch)
                then, self._then = self._then, []
                for call in then:
                    call()
        finally:
            self._draining = False
            self._idle.set()

    async def _next_batch(self) -> list[Write]:
        batch: list[Write] = []
        made: dict[str, bytes] = {}
        octets = 0
        while self._jobs and len(batch) < BATCH and octets < BATCH_OCTETS:
            job = self._take()
            if job.then is not None:
                self._then.append(job.then)
                continue
            if self._clock.now() > job.deadline:
                self.counts["write_drops"] += 1
                continue
            try:
                writes = await job.prepare(made)
            except Exception as error:  # noqa: BLE001  # one bad write must not end the queue
                self._write_failed(error)
                continue
            for write in writes:
                if write.data is not None:
                    made[write.key] = write.data
                    octets += len(write.data)
            batch += writes
        return batch

    async def _write(self, batch: list[Write]) -> None:
        if not self.breaker.allows():
            self.counts["write_drops"] += len(batch)
            return
        try:
            outcomes = await self.cache.write(batch)
        except Exception as error:  # noqa: BLE001  # as above
            self._write_failed(error)
            self.breaker.failed(f"{type(error).__name__}: {error}")
            return
        self.breaker.succeeded()
        self.counts["writes"] += outcomes.count(Wrote.STORED)
        self.counts["overtaken"] += outcomes.count(Wrote.OVERTAKEN)
        self.counts["full"] += outcomes.count(Wrote.FULL)
        self.counts["write_errors"] += outcomes.count(Wrote.FAILED)

    def _write_failed(self, error: Exception) -> None:
        self.counts["write_errors"] += 1
        log.debug("shared store %s: write failed: %r", self.name, error)

    async def _maintain(self) -> None:
        while not self._closed:
            await self._clock.sleep(MAINTENANCE)
            if self._closed:
                return
            try:
                await self.cache.maintain()
            except Exception as error:  # noqa: BLE001  # it is tried again
                log.debug("shared store %s: maintenance failed: %r", self.name, error)

    async def flushed(self) -> None:
        """Wait until every write enqueued so far has been made or dropped."""
        await self._idle.wait()

    @property
    def queued(self) -> int:
        return len(self._jobs)

    @property
    def state(self) -> str:
        """Why it is not used, or "ok"."""
        return self.breaker.reason or "ok"

    async def close(self) -> None:
        """Make the writes that wait, then close the backend."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(CLOSING):
                await self.flushed()
        except TimeoutError:
            log.warning("shared store %s: %d writes were not made", self.name, len(self._jobs))
        self._closed = True
        try:
            await self.cache.close()
        except Exception as error:  # noqa: BLE001  # it is going away anyway
            log.debug("shared store %s: closing failed: %r", self.name, error)
