"""What a test leaves behind: tasks and open descriptors.

Rules of this file: compare before and after; give the loop a bounded number of turns to close what is
being closed; name what is left. ``async with no_leaks():`` around the code, or the ``leak_free`` fixture
(``from tests.support.leaks import leak_free  # noqa: F401``) around a whole test.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_FD_DIR = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
_TURNS = 300


def open_fds() -> dict[int, str]:
    """Each open descriptor with what it is, but not those that event loops keep for themselves.

    Those are unnamed socket pairs (their self-pipe) and /dev/null (libuv's spare for EMFILE).
    """
    found: dict[int, str] = {}
    for name in os.listdir(_FD_DIR):  # noqa: PTH208  (the paths themselves are not wanted)
        fd = int(name)
        try:
            what = _what(fd)
        except OSError:  # the descriptor of this very listing
            continue
        if what not in {"/dev/null", _PAIR}:
            found[fd] = what
    return found


_PAIR = "socket pair"


def _what(fd: int) -> str:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        try:
            return os.readlink(_FD_DIR / str(fd))  # noqa: PTH115
        except OSError:
            return "a file or pipe"
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            peer = sock.getpeername()
        except OSError:
            peer = "nobody"
        if sock.family == socket.AF_UNIX and not sock.getsockname() and not peer:
            return _PAIR
        return f"{sock.family.name} {sock.getsockname()} to {peer}"


@dataclass(frozen=True)
class Snapshot:
    tasks: frozenset[asyncio.Task[object]]
    fds: frozenset[tuple[int, str]]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(frozenset(asyncio.all_tasks()), frozenset(open_fds().items()))

    def left_since(self, before: Snapshot) -> list[str]:
        """One line for each task and descriptor that is here now and was not then."""
        tasks = [f"task {t!r}" for t in self.tasks - before.tasks if t is not asyncio.current_task()]
        return sorted(tasks) + [f"descriptor {fd} -> {what}" for fd, what in sorted(self.fds - before.fds)]


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Fail when tasks or descriptors made inside are still there at the end."""
    before = Snapshot.take()
    yield
    left: list[str] = []
    for _ in range(_TURNS):
        left = Snapshot.take().left_since(before)
        if not left:
            return
        await asyncio.sleep(0)
    raise AssertionError("left behind:\n  " + "\n  ".join(left))


@pytest.fixture
async def leak_free() -> AsyncIterator[None]:
    """Name it as the first fixture of a test, so that it is set up first and checked last."""
    async with no_leaks():
        yield
