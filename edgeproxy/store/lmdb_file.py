"""A store's LMDB file, looked at and put in order from outside, beside the processes that serve from it.

Rules of this file:

- Nothing is made and nothing is put aside: what is not there or is no store is StoreUnusable, in one line.
- A transaction is short (SLICE records or SLICE_OCTETS): a reader that stays keeps the pages of all it could
  see from being used again. So a walk is no picture of one moment.
- What is read is copied out before the transaction ends.
- A record is deleted only if it is still the one that was looked at.
- Whoever has the file open holds a lock of LMDB's own on the first octet of the lock file, and nobody opens
  without a turn at ``open.lock``. With that turn, and that octet found free, we are the only one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from edgeproxy.store.codec import head_length
from edgeproxy.store.lmdb_backend import END, ENDS, RECORDS, FileError, MapResized, alone, open_file
from edgeproxy.store.shared import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgeproxy.store.lmdb_backend import Environment

SLICE = 64
SLICE_OCTETS = 4 * 1024 * 1024
_HEADS = 1024
"""Records to a transaction where their bodies are not read."""
DATA, LOCK, OPENING = "data.mdb", "data.mdb-lock", "open.lock"


class StoreOpen(Exception):  # noqa: N818  # a state, not a slip
    """Another process has it open."""


@dataclass(frozen=True, slots=True)
class Record:
    """``name`` is its key in the file; ``end`` when it ends, seconds since the epoch (None: it does not say);
    ``data`` its octets after that, or their head and meta; ``octets`` how many it has in all."""

    name: bytes
    end: float | None
    data: bytes
    octets: int
    raw_end: bytes = b""


class LmdbFile:
    """``directory`` is the store's; ``in_turn`` False for who has the turn already (``exclusively``). Raises
    StoreUnusable, and FileError where the file's tree is damaged."""

    def __init__(self, directory: Path, *, write: bool = False, in_turn: bool = True) -> None:
        path = directory / DATA
        try:
            if not path.is_file():
                raise StoreUnusable(f"{directory}: no store is there (no {DATA})")
            if not path.stat().st_size:
                raise StoreUnusable(f"{path}: the file is empty")  # LMDB would begin a new one in it
            with _turn(directory) if in_turn else contextlib.nullcontext():
                self._env: Environment = open_file(path, write=write)
            try:
                self._records = self._env.open_db(RECORDS, create=False)
                self._ends = self._env.open_db(ENDS, create=False)
            except FileError:
                self._env.close()
                raise
        except (OSError, FileError) as error:
            raise StoreUnusable(f"{path}: {_one_line(error, path)}") from error
        self._path = path
        self._largest = self._env.info()["map_size"]

    def close(self) -> None:
        self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def records(self) -> Iterator[Record]:
        """All records, whole, in order of their names."""
        for batch in self._slices(self._records, SLICE, self._whole):
            yield from batch

    def heads(self) -> Iterator[Record]:
        """All records without their bodies."""
        for batch in self._slices(self._records, _HEADS, self._head):
            yield from batch

    def slices(self) -> Iterator[list[Record]]:
        """As ``records``, a transaction's worth at a time."""
        return self._slices(self._records, SLICE, self._whole)

    def index(self) -> Iterator[list[Record]]:
        """What the index by end holds: records without data."""
        return self._slices(self._ends, _HEADS, self._indexed)

    def get(self, names: Iterable[bytes]) -> dict[bytes, Record]:
        """Those of the names that are there, as of one moment."""
        found = {}
        with self._begin() as txn:
            for name in names:
                raw = txn.get(name, db=self._records)
                if raw is not None:
                    found[name] = self._whole(name, raw)
        return found

    def present(self, names: Iterable[bytes]) -> set[bytes]:
        """Which of the names are there, as of one moment."""
        with self._begin() as txn:
            return {name for name in names if txn.get(name, db=self._records) is not None}

    def indexed(self, records: Iterable[Record]) -> set[bytes]:
        """The names of those that the index by end has; in one moment with whether they are still there:
        what has been replaced or deleted since counts as indexed."""
        names = set()
        with self._begin() as txn:
            for record in records:
                raw = txn.get(record.name, db=self._records)
                same = raw is not None and bytes(raw[: END.size]) == record.raw_end
                if not same or txn.get(record.raw_end + record.name, db=self._ends) is not None:
                    names.add(record.name)
        return names

    def _slices(self, database: Any, most: int, made: Any) -> Iterator[list[Record]]:
        after = b""
        while True:
            batch: list[Record] = []
            octets = 0
            with self._begin() as txn:
                cursor = txn.cursor(database)
                more = cursor.set_range(after) if after else cursor.first()
                while more and len(batch) < most and octets < SLICE_OCTETS:
                    name, raw = cursor.item()
                    if name != after:
                        batch.append(made(bytes(name), raw))
                        octets += len(batch[-1].data)
                    more = cursor.next()
            if batch:
                after = _full_name(batch[-1]) if database is self._ends else batch[-1].name
                yield batch
            if not more:
                return

    def _whole(self, name: bytes, raw: memoryview) -> Record:
        # A length beyond the map is damage; touching it would kill the process.
        octets = len(raw)
        return _record(name, raw, octets if octets <= self._largest else 0)

    def _head(self, name: bytes, raw: memoryview) -> Record:
        octets = len(raw)
        if octets > self._largest:
            return _record(name, raw, 0)
        return _record(name, raw, END.size + head_length(raw[END.size :]))

    @staticmethod
    def _indexed(key: bytes, _: memoryview) -> Record:
        raw_end = key[: END.size]
        end = END.unpack(raw_end)[0] / 1000 if len(raw_end) == END.size else None
        return Record(key[END.size :], end, b"", 0, raw_end)

    def _begin(self, *, write: bool = False) -> Any:
        try:
            return self._env.begin(write=write, buffers=True)
        except MapResized:
            self._env.set_mapsize(0)  # a process with a larger map has written meanwhile
            self._largest = self._env.info()["map_size"]
            return self._env.begin(write=write, buffers=True)

    def facts(self) -> dict[str, int]:
        """Octets of the file, of the map, in pages in use, and free of the map; records; readers."""
        page = self._env.stat()["psize"]
        pages = 0
        with self._begin() as txn:
            for database in (self._records, self._ends):
                stat = txn.stat(database)
                pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            records = txn.stat(self._records)["entries"]
        info = self._env.info()
        return {
            "records": records,
            "file_octets": self._path.stat().st_size,
            "map_octets": info["map_size"],
            "used_octets": pages * page,
            "free_octets": max(0, info["map_size"] - pages * page),
        }

    # Writing

    def delete(self, records: Iterable[Record]) -> int:
        """Delete those that are still as they were looked at, with their place in the index."""
        gone = 0
        waiting = list(records)
        for at in range(0, len(waiting), SLICE):
            with self._begin(write=True) as txn:
                for record in waiting[at : at + SLICE]:
                    raw = txn.get(record.name, db=self._records)
                    if raw is None or not self._same(raw, record):
                        continue
                    if len(record.raw_end) == END.size:
                        txn.delete(record.raw_end + record.name, db=self._ends)
                    txn.delete(record.name, db=self._records)
                    gone += 1
        return gone

    def _same(self, raw: memoryview, record: Record) -> bool:
        if len(raw) != record.octets:
            return False
        return len(raw) > self._largest or bytes(raw[: END.size + len(record.data)]) == (
            record.raw_end + record.data
        )

    def unindex(self, places: Iterable[Record]) -> int:
        """Delete places of the index that have no record."""
        gone = 0
        waiting = list(places)
        for at in range(0, len(waiting), SLICE):
            with self._begin(write=True) as txn:
                for place in waiting[at : at + SLICE]:
                    raw = txn.get(place.name, db=self._records)
                    if raw is None or bytes(raw[: END.size]) != place.raw_end:
                        gone += txn.delete(_full_name(place), db=self._ends)
        return gone

    def unplaced(self, places: Iterable[Record]) -> list[Record]:
        """Those places of the index that have no record now."""
        found = []
        with self._begin() as txn:
            for place in places:
                raw = txn.get(place.name, db=self._records) if place.name else None
                there = txn.get(_full_name(place), db=self._ends) is not None
                if there and (raw is None or bytes(raw[: END.size]) != place.raw_end):
                    found.append(place)
        return found

    def copy_to(self, fd: int) -> None:
        """All that is in use, packed, into an open, empty file."""
        self._env.copyfd(fd, compact=True)


@contextlib.contextmanager
def exclusively(directory: Path) -> Iterator[None]:
    """The only one with the store, and whoever would open it waits. Raises StoreOpen or StoreUnusable."""
    if not (directory / DATA).is_file():
        raise StoreUnusable(f"{directory}: no store is there (no {DATA})")
    try:
        with alone(directory / OPENING):
            if _is_open(directory / LOCK):
                raise StoreOpen(f"{directory}: another process has the store open; stop edgeproxy first")
            yield
    except OSError as error:
        raise StoreUnusable(f"{directory}: {error.strerror or error}") from error


def _is_open(lock: Path) -> bool:
    """Does another process have the environment open?"""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """Not while somebody opens, replaces or compacts the file."""
    try:
        fd = os.open(directory / OPENING, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # a copy of the file alone: nobody serves from it
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def _record(name: bytes, raw: memoryview, upto: int) -> Record:
    head = bytes(raw[: min(upto, END.size)])
    end = END.unpack(head)[0] / 1000 if len(head) == END.size else None
    return Record(name, end, bytes(raw[END.size : upto]) if end is not None else b"", len(raw), head)


def _full_name(place: Record) -> bytes:
    return place.raw_end + place.name


def _one_line(error: Exception, path: Path) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.removeprefix(f"{path}: ").split())
