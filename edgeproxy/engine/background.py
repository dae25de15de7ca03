"""The only create_task: background work that is owned, named, logged when it fails, and ended at the end.

Rules of this file: no task is ever unreferenced (asyncio keeps only weak references); an exception in one is
logged with its name and never lost; ``close()`` leaves none behind, and asks again where one has taken the
first cancelling for something else (a time limit of a library's that ran out in the same moment).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logging.getLogger("edgeproxy.background")

AGAIN = 1.0
"""Seconds until what is still running is cancelled again."""


class Background:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start ``work`` now; it is kept until it ends."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work %r failed", task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def settle(self, *names: str) -> None:
        """Wait until no work whose name begins with one of ``names`` is under way."""
        while work := [t for t in self._tasks if t.get_name().startswith(names)]:
            await asyncio.gather(*work, return_exceptions=True)

    async def close(self) -> None:
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=AGAIN)
            await asyncio.sleep(0)  # done, but not yet told to us
