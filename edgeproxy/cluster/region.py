"""A fixed piece of memory that the workers of a node share, with a lock for its writers.

Rules of this file:

- A file mapped by every worker: what one has written the others see at once, and the kernel keeps it when a
  process is killed at any moment. Without a path: private memory of one process.
- The file's blocks are reserved when it is made. A sparse file on a full disk would kill whoever touches
  its holes (SIGBUS).
- A mapped file is never truncated, for the same reason: one of another size is unlinked and made anew.
- The kernel releases the lock (flock) of a process that dies, so a killed writer blocks nobody. Readers take
  no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Region:
    """``octets`` is the whole of it. ``fresh``: it was made by this call (all zero)."""

    def __init__(self, mapped: mmap.mmap, fd: int | None) -> None:
        self._mapped = mapped
        self._fd = fd
        self._threads = threading.Lock()
        self.octets = memoryview(mapped)

    @classmethod
    def anonymous(cls, size: int) -> Region:
        return cls(mmap.mmap(-1, size), None)

    @classmethod
    def file(cls, path: Path, size: int) -> Region:
        """Open or make the file. Raises OSError where that cannot be done."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if not _is_at(fd, path):
                    os.close(fd)  # somebody replaced it while we waited
                    continue
                length = os.fstat(fd).st_size
                if length not in (0, size):
                    path.unlink()
                    os.close(fd)
                    continue
                if length == 0:
                    _reserve(fd, size)
                mapped = mmap.mmap(fd, size)
                fcntl.flock(fd, fcntl.LOCK_UN)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.close(fd)
                raise
            return cls(mapped, fd)

    @property
    def is_file(self) -> bool:
        return self._fd is not None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One writer at a time, of all threads of all processes. Blocks; held for microseconds."""
        with self._threads:
            if self._fd is None:
                yield
                return
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def flush(self) -> None:
        """Onto the disk (against power loss; a killed process loses nothing without it). Blocks."""
        if self._fd is not None:
            self._mapped.flush()

    def close(self) -> None:
        self.octets.release()
        self._mapped.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_at(fd: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)


def _reserve(fd: int, size: int) -> None:
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.pwrite(fd, bytes(size), 0)
    except OSError:
        # Nobody has mapped it yet: we hold the lock and its length was 0.
        os.ftruncate(fd, 0)
        raise
