"""Whose turn it is to try an origin that was left alone: one request at a time on the whole machine.

Rules of this file: a turn is a lock on a file in the node's own directory, which the system takes back from a
process that dies. Without a directory (one worker) it is always one's own. Nothing here blocks.
"""

from __future__ import annotations

import fcntl
import os
from hashlib import blake2b
from pathlib import Path


class Turns:
    """``directory`` None: this process is alone."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = None if directory is None else Path(directory)
        self._held: dict[str, int] = {}

    def take(self, name: str) -> bool:
        """Whether it is ours now; give it back with ``leave``."""
        if self._directory is None:
            return True
        path = self._directory / f"trial-{blake2b(name.encode(), digest_size=8).hexdigest()}"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True  # a directory that is gone must not keep an origin out
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._held[name] = lock
        return True

    def leave(self, name: str) -> None:
        lock = self._held.pop(name, None)
        if lock is not None:
            os.close(lock)

    def close(self) -> None:
        for name in list(self._held):
            self.leave(name)
