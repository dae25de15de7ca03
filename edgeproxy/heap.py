"""Memory that was let go of goes back to the system: without being asked, the C library keeps most of it.

Rules of this file:

- A large body on its way is many pieces between small entries that stay. Once it is gone the holes are free,
  but the process is as large as ever: 140 MiB where 67 are in use, measured with a store of 64.
- Every few seconds the process looks at its own size, and asks the library (glibc's ``malloc_trim``) when it
  has grown by a good part since it last did. Where that finds nothing, what is there is in use: then the next
  look that counts is when it has grown as much again.
- In a thread, since it takes a millisecond for each two that it finds. Where there is no such call (another C
  library, another system), nothing is done.
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock

EVERY = 5.0
"""Seconds between two looks."""
GROWN = 1.15
AT_LEAST = 16 * 1024 * 1024
"""Octets."""

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


class Heap:
    """``low``: the size, in octets, that counts as what is in use."""

    def __init__(self, size: Callable[[], int], trim: Callable[[], object]) -> None:
        self._size = size
        self._trim = trim
        self.low = size()

    @property
    def has_grown(self) -> bool:
        size = self._size()
        self.low = min(self.low, size)
        return size > self.low * GROWN + AT_LEAST

    def give_back(self) -> None:
        self._trim()
        self.low = self._size()


async def look_after(clock: Clock) -> None:
    """As long as the process runs."""
    trim = trimmer()
    if trim is None:
        return
    heap = Heap(own_memory, trim)
    while True:
        await clock.sleep(EVERY)
        if heap.has_grown:
            await asyncio.to_thread(heap.give_back)
