"""Memory that was let go of goes back to the system: without being asked, the C library keeps most of it.

Rules of this file:

- A large body on its way is many pieces between small entries that stay. Once it is gone the holes are free,
  but the process is as large as ever: 140 MiB where 67 are in use, measured with a store of 64.
- Every few seconds the process looks at its own size, and asks the library (glibc's ``malloc_trim``) when it
  has grown by a good part since it last did. Where that finds nothing, what is there is in use: then the next
  look that counts is when it has grown as much again.
- In a thread, since it takes a millisecond for each two that it finds. Where there is no such call (another C
  library), that is left out; where a process is not told its size, all is.
- What has then still grown, and not by what is stored, may be cycles that the collector was told not to look
  at: it looks at everything, once (collector.py).
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import collector

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock

EVERY = 5.0
"""Seconds between two looks."""
AT_LEAST = 16 * 1024 * 1024
"""Octets that count as growth, beside a part of what was there."""
GROWN = 0.15
UNEXPLAINED = 0.5
"""The same for what is not stored: looking for cycles takes longer than looking for holes."""

_STATM = Path("/proc/self/statm")


def own_memory() -> int:
    """Octets that this process has for itself; 0 where the system does not tell."""
    try:
        _, resident, shared = _STATM.read_text().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def trimmer() -> Callable[[], object] | None:
    """Gives back what is free; None where there is no such call."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return lambda: trim(ctypes.c_size_t(0))


class Low:
    """The least that a size, in octets, has been since it was last settled: what counts as in use."""

    def __init__(self, size: int, part: float) -> None:
        self._part = part
        self.settle(size)

    def settle(self, size: int) -> None:
        self.low = size

    def is_passed(self, size: int) -> bool:
        """By a good part."""
        self.low = min(self.low, size)
        return size > self.low * (1 + self._part) + AT_LEAST


class Heap:
    """``size``: of the process; ``stored``: what of it is known to be in use; both in octets."""

    def __init__(
        self, size: Callable[[], int], trim: Callable[[], object], stored: Callable[[], int]
    ) -> None:
        self._size = size
        self._trim = trim
        self._stored = stored
        self._all = Low(size(), GROWN)
        self._rest = Low(self._beside(), UNEXPLAINED)

    @property
    def has_grown(self) -> bool:
        return self._all.is_passed(self._size())

    def give_back(self) -> None:
        self._trim()
        self._all.settle(self._size())

    @property
    def has_more_than_stored(self) -> bool:
        return self._rest.is_passed(self._beside())

    def take_for_used(self) -> None:
        """What there is beside what is stored."""
        self._rest.settle(self._beside())

    def _beside(self) -> int:
        return max(0, self._size() - self._stored())


async def look_after(clock: Clock, stored: Callable[[], int]) -> None:
    """As long as the process runs. ``stored``: octets held by L1."""
    trim = trimmer() or (lambda: None)
    if not own_memory():
        return
    heap = Heap(own_memory, trim, stored)
    while True:
        await clock.sleep(EVERY)
        if heap.has_grown:
            await asyncio.to_thread(heap.give_back)
            if heap.has_more_than_stored:
                collector.over_everything()
                await asyncio.to_thread(heap.give_back)
                heap.take_for_used()
