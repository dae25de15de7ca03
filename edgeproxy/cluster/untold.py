"""Purges that the other nodes have not been told of: kept until the log can be reached again.

Rules of this file:

- Beside a purge table that is a file they are kept in a file, so that a killed worker's are told by another,
  and a killed node's after its next start. Else in memory.
- Who tells takes the file aside first and removes it when all is told: one that is killed half-way leaves it
  to the others. A purge told twice does no harm; one forgotten would.
- Bounded: what is too much, or cannot be read, is a purge of everything.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

MOST = 1000
"""Records in memory; one more and they become one that purges everything."""
LARGEST = 256 * 1024
"""Octets of the file; the same."""
_LENGTH = struct.Struct("<I")


class Untold:
    """``table`` is the path of the node's purge table, ``writing`` the lock of its writers; ``everything``
    the record that purges everything."""

    def __init__(
        self, table: Path | None, writing: Callable[[], AbstractContextManager[None]], everything: bytes
    ) -> None:
        self._path = None if table is None else table.with_name(f"{table.name}-untold")
        self._writing = writing
        self._everything = everything
        self._here: list[bytes] = []

    def keep(self, record: bytes) -> None:
        """Blocks for microseconds. Raises nothing."""
        if self._path is not None:
            with contextlib.suppress(OSError), self._writing(), self._path.open("ab") as file:
                if file.tell() + len(record) > LARGEST:
                    file.truncate(0)
                    record = self._everything
                file.write(_LENGTH.pack(len(record)) + record)
                return
        self._here = [*self._here, record] if len(self._here) < MOST else [self._everything]

    def take(self) -> list[tuple[Path | None, list[bytes]]]:
        """What there is to be told: of each place its records, oldest first. ``done`` after each."""
        taken: list[tuple[Path | None, list[bytes]]] = []
        if self._path is not None:
            aside = self._path.with_name(f"{self._path.name}-{os.urandom(4).hex()}")
            with contextlib.suppress(OSError), self._writing():
                self._path.rename(aside)
            for path in sorted(self._path.parent.glob(f"{self._path.name}-*")):
                with contextlib.suppress(FileNotFoundError):  # another worker has told it meanwhile
                    taken.append((path, self._records(path.read_bytes())))
        if self._here:
            taken.append((None, list(self._here)))
        return taken

    def done(self, place: Path | None, count: int) -> None:
        """The ``count`` records of a place have been told."""
        if place is None:
            del self._here[:count]
        else:
            place.unlink(missing_ok=True)

    def _records(self, data: bytes) -> list[bytes]:
        records = []
        at = 0
        while at < len(data):
            end = at + _LENGTH.size
            if end > len(data):
                return [self._everything]
            length = _LENGTH.unpack_from(data, at)[0]
            if end + length > len(data):
                return [self._everything]
            records.append(data[end : end + length])
            at = end + length
        return records
