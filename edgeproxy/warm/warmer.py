"""Warm-ups: URLs in, a result for each, at a bounded rate and so many at a time, giving way to clients.

Rules of this file:

- A job's URLs are known before the first is asked for; each gets one result, in the order in which they
  ended.
- Before each request the job waits for its turn (``rate``) and for leave: while ``may_begin`` says no, it
  asks again every PAUSE seconds. After PATIENCE of that the URL has failed, and the next one waits anew. So
  it is with what the origin's budget refuses, every YIELD_PAUSE seconds.
- A job ends once: done, cancelled, or failed with the reason. Cancelling begins no more; what is under way
  goes on by itself, since clients may be waiting for it. Ended jobs are remembered, MOST_ENDED of them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypedDict

from edgeproxy.origin.base import Purpose
from edgeproxy.policy.vocabulary import OriginFailure, StaleReason
from edgeproxy.warm.asking import Result
from edgeproxy.warm.tally import Came

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from edgeproxy.clock import Clock
    from edgeproxy.warm.again import Again
    from edgeproxy.warm.asking import Asker
    from edgeproxy.warm.tally import Source, WarmTally

    MayBegin = Callable[[Purpose], bool]
    """Whether the origin has room for work of the edge's own."""

RATE = 20.0
"""URLs a second."""
CONCURRENCY = 4
MOST_RUNNING = 4
"""Jobs at a time."""
MOST_ENDED = 8
MOST_URLS = 50_000
PAUSE = 0.1
PATIENCE = 30.0
YIELD_PAUSE = 0.5
YIELDED = OriginFailure.YIELDED.value
COOLING = StaleReason.COOL_DOWN.value


log = logging.getLogger("edgeproxy.warm")


class State(StrEnum):
    PREPARING = "preparing"
    """The URLs are being gathered."""
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = frozenset({State.DONE, State.CANCELLED, State.FAILED})


class Busy(Exception):  # noqa: N818 - it is what is the matter
    """So many jobs run already."""


class Pace(TypedDict, total=False):
    """How fast; what is not said is RATE and CONCURRENCY."""

    rate: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Plan:
    """URLs to ask for, and results that are known without asking."""

    urls: Sequence[Again] = ()
    known: Sequence[Result] = ()


@dataclass(slots=True)
class Job:
    """``total``: how many results there will be; 0 while preparing. Times by clock.now()."""

    id: str
    what: str
    source: Source
    rate: float
    concurrency: int
    began: float
    state: State = State.PREPARING
    why: str = ""
    ended: float | None = None
    total: int = 0
    results: list[Result] = field(default_factory=list)
    counts: dict[Came, int] = field(default_factory=lambda: dict.fromkeys(Came, 0))
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self) -> dict[str, object]:
        """For JSON, without the results."""
        return {
            "id": self.id,
            "what": self.what,
            "source": self.source.value,
            "state": self.state.value,
            "why": self.why,
            "total": self.total,
            "done": len(self.results),
            "results": {came.value: count for came, count in self.counts.items()},
            "rate": self.rate,
            "concurrency": self.concurrency,
            "began_at": round(self.began, 3),
            "ended_at": None if self.ended is None else round(self.ended, 3),
        }


class Warmer:
    """One worker's jobs."""

    def __init__(
        self,
        *,
        clock: Clock,
        asker: Asker,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        may_begin: MayBegin,
        tally: WarmTally,
    ) -> None:
        self._clock = clock
        self._asker = asker
        self._spawn = spawn
        self._may_begin = may_begin
        self._tally = tally
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.jobs: dict[str, Job] = {}
        """By id, in the order of their beginning."""

    def begin(
        self,
        what: str,
        source: Source,
        prepare: Callable[[], Awaitable[Plan]],
        *,
        rate: float = RATE,
        concurrency: int = CONCURRENCY,
    ) -> Job:
        """Start a job. ``prepare`` may raise ValueError with one line. Raises Busy."""
        if len(self._tasks) >= MOST_RUNNING:
            raise Busy(f"{MOST_RUNNING} warm-ups are running; wait for one to end, or cancel it")
        job = Job(secrets.token_hex(6), what, source, rate, concurrency, self._clock.now())
        self.jobs[job.id] = job
        ended = [each for each in self.jobs.values() if each.state in ENDED]
        for old in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self.jobs[old.id]
        self._tally.running += 1
        self._tasks[job.id] = self._spawn(self._run(job, prepare), f"warm-up {job.id}")
        return job

    def cancel(self, job: Job) -> None:
        """It ends now; what has ended stays as it is."""
        task = self._tasks.get(job.id)
        if task is not None:
            task.cancel()
            # A task that has not run yet would end without a word.
            self._end(job, State.CANCELLED)

    async def _run(self, job: Job, prepare: Callable[[], Awaitable[Plan]]) -> None:
        try:
            plan = await prepare()
            job.total = len(plan.urls) + len(plan.known)
            job.state = State.RUNNING
            for result in plan.known:
                self._came(job, result)
            await self._ask_all(job, plan.urls)
            self._end(job, State.DONE)
        except ValueError as error:
            self._end(job, State.FAILED, str(error))
        except asyncio.CancelledError:
            self._end(job, State.CANCELLED)
            raise
        except Exception:
            self._end(job, State.FAILED, "something went wrong in the edge; the log has it")
            raise

    async def _ask_all(self, job: Job, urls: Sequence[Again]) -> None:
        waiting = iter(urls)
        turns = _Turns(self._clock, job.rate)

        async def work() -> None:
            for again in waiting:
                await turns.take()
                if await self._leave():
                    await asyncio.shield(self._spawn(self._ask(job, again), f"warm {again.url}"))
                else:
                    self._came(job, Result(again.url, Came.FAILED, "clients kept the origin busy"))

        count = min(job.concurrency, len(urls))
        workers = [self._spawn(work(), f"warm-up {job.id} {number}") for number in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

    async def _leave(self) -> bool:
        """Wait until there is room for it at the origin; False where there was none for too long."""
        until = self._clock.monotonic() + PATIENCE
        if self._may_begin(Purpose.WARM):
            return True
        self._tally.waited += 1
        while self._clock.monotonic() < until:
            await self._clock.sleep(PAUSE)
            if self._may_begin(Purpose.WARM):
                return True
        return False

    async def _ask(self, job: Job, again: Again) -> None:
        until = self._clock.monotonic() + PATIENCE
        result = await self._asker.ask(again)
        refused = result.reason == YIELDED
        while refused and result.came is Came.FAILED and result.reason in (YIELDED, COOLING):
            if self._clock.monotonic() >= until or job.state in ENDED:
                break
            # The origin's budget for work of the edge's own is spent for now.
            self._tally.waited += 1
            await self._clock.sleep(YIELD_PAUSE)
            result = await self._asker.ask(again)
        self._came(job, result)

    def _came(self, job: Job, result: Result) -> None:
        if job.state in ENDED:
            return
        job.results.append(result)
        job.counts[result.came] += 1
        self._tally.warmed[job.source, result.came] += 1
        _ring(job)

    def _end(self, job: Job, state: State, why: str = "") -> None:
        if self._tasks.pop(job.id, None) is None:
            return
        self._tally.running -= 1
        job.state, job.why, job.ended = state, why, self._clock.now()
        told = ", ".join(f"{count} {came.value}" for came, count in job.counts.items() if count)
        log.info("warm-up of %s %s: %s", job.what, state.value, why or told or "nothing to do")
        _ring(job)


def _ring(job: Job) -> None:
    job.news.set()
    job.news = asyncio.Event()


class _Turns:
    """One every 1/rate seconds, in order; what was not taken is not made up for."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock = clock
        self._step = 1.0 / rate if rate > 0 else 0.0
        self._next = 0.0

    async def take(self) -> None:
        now = self._clock.monotonic()
        mine = max(now, self._next)
        self._next = mine + self._step
        if mine > now:
            await self._clock.sleep(mine - now)
