"""The process that sends the load: a job a line on standard input, what came of it on standard output.

Rules of this file:

- Requests arrive as those of many clients do who know nothing of each other (exponential gaps), by the clock:
  a phase begins when the one before is over, whether its answers have come or not.
- A request is due at its own time. What this process is late by is part of the times and told beside them.
- A second is told once all that was due in it has been answered or given up.
"""

from __future__ import annotations

import asyncio
import random
import sys
from bisect import bisect
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec
import uvloop

from tests.load.scenes.crowd import Asked, Crowd
from tests.load.scenes.record import Begun, Ended, Job, Line, Second, Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.load.scenes.plan import Phase

GRAIN = 0.001
"""Seconds: the least that the loop can wait."""
FILLING = 32
"""Requests at once that fill the cache before a scene."""


def say(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


class Urls:
    """Which URL is asked for next, by a phase's distribution."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._random = random.Random(job.scene.name)
        self._news = 0

    def known(self, phase: Phase) -> list[str]:
        """What is asked for again and again, the most wanted first."""
        if self._job.paths is not None:
            return self._job.paths[: phase.urls]
        return [f"/{self._job.scene.name}/{self._job.run}/{number}" for number in range(phase.urls)]

    def of(self, phase: Phase) -> Iterator[str]:
        """Without end."""
        paths = self.known(phase)
        weights = list(accumulate(1 / (n + 1) ** phase.zipf for n in range(len(paths))))
        draw = self._random.random
        while True:
            if draw() < phase.new:
                yield self._new(paths[0])
            else:
                yield paths[min(bisect(weights, draw() * weights[-1]), len(paths) - 1)]

    def _new(self, like: str) -> str:
        self._news += 1
        if self._job.paths is not None:
            return f"{like}{'&' if '?' in like else '?'}new={self._job.run}-{self._news}"
        return f"/{self._job.scene.name}/{self._job.run}/new-{self._news}"


class Seconds:
    """Those that are not told yet."""

    def __init__(self) -> None:
        self._open: list[Second] = []

    def begin(self, phase: int, second: int) -> Second:
        """The one that is now; those before are told when they are complete."""
        self.tell()
        begun = Second(phase, second)
        self._open.append(begun)
        return begun

    def tell(self) -> None:
        for second in [each for each in self._open if each.complete]:
            self._open.remove(second)
            say(Told(second))


async def play(job: Job) -> None:
    loop = asyncio.get_running_loop()
    first, urls, seconds = job.scene.phases[0], Urls(job), Seconds()
    crowd = Crowd(job, urls.known(first)[0])
    crowd.want(first.connections, first.per_connection)
    # Tasks without engine/background.py: this is no part of the product.
    beside = [asyncio.ensure_future(each) for each in (crowd.stay_open(), crowd.keep_deadlines())]  # noqa: TID251
    try:
        unfilled = await fill(crowd, urls.known(first)) if job.scene.filled else 0
        begun = loop.time()
        for number, phase in enumerate(job.scene.phases):
            crowd.want(phase.connections, phase.per_connection)
            say(Begun(number))
            await arrive(crowd, phase, begun, urls.of(phase), seconds, number)
            begun += phase.seconds
        while crowd.busy:  # noqa: ASYNC110 - answers come by callback, and there is a deadline
            await asyncio.sleep(0.02)
        seconds.tell()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        crowd.close()
    say(Ended(unfilled))


async def fill(crowd: Crowd, paths: list[str]) -> int:
    """Ask for each once; how many could not be had."""
    ahead = iter(paths)
    loop = asyncio.get_running_loop()
    failed = 0

    async def work() -> None:
        nonlocal failed
        for path in ahead:
            asked = Asked(path, loop.time(), None, loop.create_future())
            crowd.ask(asked)
            assert asked.answer is not None
            failed += not await asked.answer

    await asyncio.gather(*(work() for _ in range(FILLING)))
    return failed


async def arrive(
    crowd: Crowd, phase: Phase, begun: float, paths: Iterator[str], seconds: Seconds, number: int
) -> None:
    """Send the requests of one phase, which begins at ``begun``."""
    time = asyncio.get_running_loop().time
    chance = random.Random(number)
    offset, current = 0.0, seconds.begin(number, 0)
    while True:
        # Where the rate is nothing now, look again in a while.
        rate = phase.rate_at(offset)
        offset += chance.expovariate(rate) if rate else 0.05
        if offset >= phase.seconds:
            break
        due = begun + offset
        await _until(due)
        if int(offset) != current.second:
            current = seconds.begin(number, int(offset))
        current.lag = max(current.lag, round((time() - due) * 1e6))
        current.held(crowd.open)
        if rate:
            current.asked += 1
            crowd.ask(Asked(next(paths), due, current))
    await _until(begun + phase.seconds)


async def _until(moment: float) -> None:
    time = asyncio.get_running_loop().time
    while (ahead := moment - time()) > 0:  # noqa: ASYNC110 - a clock rings no bell
        await asyncio.sleep(max(ahead, GRAIN))


def main() -> None:
    for line in sys.stdin.buffer:
        uvloop.run(play(msgspec.json.decode(line, type=Job)))


if __name__ == "__main__":
    main()
