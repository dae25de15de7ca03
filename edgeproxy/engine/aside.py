"""Long work of Python's own, done in a thread while the loop goes on answering.

Rules of this file:

- Only one thread runs Python at a time, and by default one that computes lets the others wait 5 ms for each
  turn; the loop needs one after each wait for its sockets. While something is done here, a turn is TURN long.
- The collector's whole round looks at every object there is, and what is done here makes many: it has to wait
  until the end. The small rounds go on.
- Both belong to the process, so who is in is counted: the first sets them, the last restores them.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

TURN = 0.0002
"""Seconds that the loop may have to wait for its turn."""
SMALL_ROUND = 2000
"""Objects made between two of the collector's small rounds."""
SLICE = 100
"""Objects let go without a chance for the loop in between."""
_NEVER = 1_000_000

_inside: list[tuple[float, tuple[int, int, int]]] = []
"""For each who is in: what was set when the first came."""


@contextmanager
def considerate() -> Iterator[None]:
    """Short turns, and no whole round of the collector. To be entered and left by the loop's thread."""
    _inside.append(_inside[0] if _inside else (sys.getswitchinterval(), gc.get_threshold()))
    interval, threshold = _inside[0]
    sys.setswitchinterval(TURN)
    gc.set_threshold(SMALL_ROUND, threshold[1], _NEVER)
    try:
        yield
    finally:
        _inside.pop()
        if not _inside:
            sys.setswitchinterval(interval)
            gc.set_threshold(*threshold)


async def aside(work: Callable[[], T]) -> T:
    """The result of ``work()``, done in a thread."""
    with considerate():
        return await asyncio.to_thread(work)


async def let_go(things: list[object]) -> None:
    """Empty ``things`` bit by bit: what many objects take to go, nobody should have to wait for."""
    await aside(lambda: _let_go(things))


def _let_go(things: list[object]) -> None:
    while things:
        del things[-SLICE:]
