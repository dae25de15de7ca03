"""A store's LMDB file, packed: what nobody will read is left out, what is left lies close together.

Rules of this file:

- Only while no other process has the store open (lmdb_file.exclusively); whoever starts meanwhile waits.
- Left out: what has ended, what is purged, and what belongs to another purge table. What is of another format
  version stays, its processes may come back; what is damaged stays for ``verify --repair`` to name.
- The new file is complete and on the disk before it takes the old one's place, in one step. Killed at any
  moment, there is one whole file; a copy that was not finished is deleted by the next run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.cluster.epoch import GONE
from edgeproxy.store.codec import claims, coordinates
from edgeproxy.store.lmdb_file import DATA, LOCK, LmdbFile, exclusively

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.store.lmdb_file import Record

COPY = "compact.mdb"
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Compacted:
    """Octets of the file before and after, records left out and kept."""

    before: int
    after: int
    left_out: int
    kept: int


def compact(
    directory: Path, opened: Callable[[], PurgeTable | None], now: float, tick: Callable[[int], None]
) -> Compacted:
    """``opened`` reads the purge table, once nobody can change it. Raises StoreUnusable, and FileError where
    the file's tree is damaged or the disk is full; the store is then as it was, or without what is over."""
    with exclusively(directory):
        copy = directory / COPY
        copy.unlink(missing_ok=True)
        table = opened()
        try:
            with LmdbFile(directory, write=True, in_turn=False) as file:
                before = file.facts()["file_octets"]
                left_out = _leave_out(file, table, now, tick)
                kept = file.facts()["records"]
                fd = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    file.copy_to(fd)
                    os.fsync(fd)
                finally:
                    os.close(fd)
            after = copy.stat().st_size
            copy.replace(directory / DATA)
            (directory / LOCK).unlink(missing_ok=True)  # its numbers are those of the old file
            _sync(directory)
        finally:
            copy.unlink(missing_ok=True)
            if table is not None:
                table.close()
    return Compacted(before, after, left_out, kept)


def _leave_out(file: LmdbFile, table: PurgeTable | None, now: float, tick: Callable[[int], None]) -> int:
    gone = 0
    over: list[Record] = []
    for number, record in enumerate(file.heads(), 1):
        tick(number)
        if _is_over(record, table, now):
            over.append(record)
        if len(over) >= _BATCH:
            gone += file.delete(over)
            over.clear()
    return gone + file.delete(over)


def _is_over(record: Record, table: PurgeTable | None, now: float) -> bool:
    if record.end is None:
        return False
    if record.end <= now:
        return True
    said = claims(record.data)
    if table is None or said is None:
        return False
    if said[0] != table.incarnation:
        return True
    place = coordinates(record.data, table.incarnation)
    return place is not None and table.verdict(place.host, place.target, place.tags, place.epoch) is GONE


def _sync(directory: Path) -> None:
    """The change of names, onto the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
