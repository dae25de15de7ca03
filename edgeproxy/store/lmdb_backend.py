"""L2 in a file of this machine, shared by its workers: LMDB.

Rules of this file:

- The only file that imports lmdb. Opened after the fork, once per process and path.
- Reads happen on the loop (a few microseconds while the map is in memory) and copy out of the map. Writes
  happen in one thread, a batch to a transaction: no transaction is ever open across an await, and another
  process that holds the write lock stops that thread and nothing else.
- Every record has an end; an index by end serves both sweeping and evicting: the expired go first, then what
  ends soonest. Room is made at FULL of the map, in a transaction of its own before the write, since freed
  pages can be used from the next one on and deleting itself takes pages.
- No room in spite of that (a reader holds old pages, the disk is full): the write is counted and dropped.
- A file that is not ours is renamed, not deleted, and a new one begun, under a lock of all workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import lmdb

from edgeproxy.store.backend import ByteCache
from edgeproxy.store.codec import ORDER_END, head_length, newer
from edgeproxy.store.shared import StoreUnusable, Write, Wrote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgeproxy.clock import Clock

FULL = 0.8
"""Of the map: where evicting begins."""
RELIEF = 0.6
"""Of the map: where evicting after an unexpected lack of room ends."""
END = struct.Struct(">Q")
"""Before each record: when it ends, in milliseconds since the epoch."""
_SWEEP = 256
_EVICT = 512
RECORDS, ENDS = b"records", b"ends"
"""The two databases of the file."""
Environment = lmdb.Environment
FileError = lmdb.Error
"""Raised for whatever LMDB itself finds wrong with a file."""
MapResized = lmdb.MapResizedError
_FOREIGN = (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError)
_READERS = 1024
SMALLEST = 1024 * 1024


class LmdbCache(ByteCache):
    """``path`` is a directory of its own; ``max_bytes`` what the file may take. Raises StoreUnusable."""

    NAME = "lmdb"
    immediate = True

    def __init__(self, path: Path, clock: Clock, *, max_bytes: int) -> None:
        super().__init__()
        self.path = path
        self.map_size = max(SMALLEST, max_bytes)
        self.largest = self.map_size // 8
        self._clock = clock
        self._counts = dict.fromkeys(("evictions", "expired", "map_full", "quarantined"), 0)
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with alone(path / "open.lock"):
                self._env = self._open()
                self._env.reader_check()
            self._records = self._env.open_db(RECORDS)
            self._ends = self._env.open_db(ENDS)
        except (OSError, lmdb.Error) as error:
            raise StoreUnusable(f"lmdb:{path}: {error}") from error
        self._page = self._env.stat()["psize"]
        self._map = self._env.info()["map_size"]
        self._closed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lmdb-writer")

    def _open(self) -> lmdb.Environment:
        try:
            return self._environment()
        except _FOREIGN:
            self._quarantine()
            return self._environment()

    def _environment(self) -> lmdb.Environment:
        env = lmdb.open(
            str(self.path / "data.mdb"),
            subdir=False,
            map_size=self.map_size,
            max_dbs=2,
            max_readers=_READERS,
            metasync=False,  # a power cut may take the last batch, never the file
            mode=0o600,
        )
        return _whole(env, self.path / "data.mdb")

    def _quarantine(self) -> None:
        """Out of the way, to be looked at; the newest one is kept."""
        self._counts["quarantined"] += 1
        (self.path / "data.mdb").replace(self.path / "quarantine.mdb")
        (self.path / "data.mdb-lock").unlink(missing_ok=True)

    # Reading, on the loop

    def read_now(self, key: str) -> bytes | None:
        if self._closed:
            return None
        with self._env.begin(db=self._records, buffers=True) as txn:
            raw = txn.get(key.encode())
            if raw is None or len(raw) < END.size or END.unpack_from(raw)[0] <= self._now():
                return None
            return bytes(raw[END.size :])

    async def _get(self, key: str, encoding: None, **_: object) -> bytes | None:  # noqa: ARG002
        return self.read_now(key)

    def scan(self, after: str, limit: int) -> list[tuple[str, bytes, int]]:
        found: list[tuple[str, bytes, int]] = []
        if self._closed:
            return found
        now = self._now()
        with self._env.begin(db=self._records, buffers=True) as txn:
            cursor = txn.cursor()
            more = cursor.set_range(after.encode() + b"\0") if after else cursor.first()
            while more and len(found) < limit:
                name, raw = cursor.item()
                record = raw[END.size :]
                alive = END.unpack_from(raw)[0] > now
                head = bytes(record[: head_length(record)]) if alive else b""
                found.append((bytes(name).decode(), head, len(record)))
                more = cursor.next()
        return found

    def facts(self) -> dict[str, object]:
        if self._closed:
            return dict(self._counts)
        with self._env.begin() as txn:
            entries = txn.stat(self._records)["entries"]
        return {**self._counts, "entries": entries, "bytes": self._live(), "max_bytes": self._map}

    # Writing, in the thread

    async def write(self, batch: Sequence[Write]) -> list[Wrote]:
        if self._closed:
            return [Wrote.FAILED] * len(batch)
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._commit, batch)

    def _commit(self, batch: Sequence[Write]) -> list[Wrote]:
        need = sum(len(w.data) for w in batch if w.data is not None and len(w.data) <= self.largest)
        try:
            self._make_room(need + self._page * 4, FULL)
            with self._env.begin(write=True, buffers=True) as txn:
                outcomes = [self._put(txn, write) for write in batch]
                self._counts["expired"] += self._delete_ended(txn, self._now(), _SWEEP)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)  # another worker runs with a larger map: use it
            self._map = self._env.info()["map_size"]
            return [Wrote.FAILED] * len(batch)
        except (lmdb.MapFullError, lmdb.DiskError):
            self._counts["map_full"] += 1
            with contextlib.suppress(lmdb.MapFullError, lmdb.DiskError):
                self._make_room(0, RELIEF)
            return [Wrote.FULL] * len(batch)
        return outcomes

    def _put(self, txn: lmdb.Transaction, write: Write) -> Wrote:
        name = write.key.encode()
        there = txn.get(name, db=self._records)
        # Copied at once: what the map shows may change with the next operation.
        old = None if there is None else bytes(there[: END.size + ORDER_END])
        if write.data is None:
            if old is not None:
                self._remove(txn, name, old)
            return Wrote.STORED
        if len(write.data) > self.largest:
            return Wrote.FULL
        if old is not None:
            if END.unpack_from(old)[0] > self._now() and newer(old[END.size :], write.data):
                return Wrote.OVERTAKEN
            self._remove(txn, name, old)
        end = END.pack(self._now() + int(max(0.0, write.ttl) * 1000) + 1)
        txn.put(name, end + write.data, db=self._records)
        txn.put(end + name, b"", db=self._ends)
        return Wrote.STORED

    def _remove(self, txn: lmdb.Transaction, name: bytes, old: bytes) -> None:
        txn.delete(old[: END.size] + name, db=self._ends)
        txn.delete(name, db=self._records)

    def _delete_ended(self, txn: lmdb.Transaction, before: int, limit: int) -> int:
        """Delete up to ``limit`` records that end before then, soonest first."""
        cursor = txn.cursor(self._ends)
        gone = 0
        while gone < limit and cursor.first():
            key = bytes(cursor.key())
            if END.unpack_from(key)[0] > before:
                break
            txn.delete(key[END.size :], db=self._records)
            cursor.delete()
            gone += 1
        return gone

    def _make_room(self, need: int, bound: float) -> None:
        bound_octets = int(self._map * bound)
        while self._live() + need > bound_octets:
            per_record = max(1, self._live() // max(1, self._entries()))
            enough = (self._live() + need - bound_octets) // per_record + 1
            with self._env.begin(write=True) as txn:
                gone = self._delete_ended(txn, 2**64 - 1, min(enough, _EVICT))
            if not gone:
                return
            self._counts["evictions"] += gone

    def _entries(self) -> int:
        with self._env.begin() as txn:
            entries: int = txn.stat(self._records)["entries"]
        return entries

    def _live(self) -> int:
        """Octets in pages that hold records now."""
        pages = 0
        with self._env.begin() as txn:
            for database in (self._records, self._ends):
                stat = txn.stat(database)
                pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * self._page

    def _now(self) -> int:
        return int(self._clock.now() * 1000)

    async def maintain(self) -> None:
        if not self._closed:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._maintain)

    def _maintain(self) -> None:
        self._env.reader_check()  # slots of killed workers would keep old pages from being used again
        with contextlib.suppress(lmdb.MapFullError, lmdb.DiskError), self._env.begin(write=True) as txn:
            self._counts["expired"] += self._delete_ended(txn, self._now(), _SWEEP * 4)

    async def _close(self, *_: object, **__: object) -> None:
        if self._closed:
            return
        self._closed = True
        # Behind the last batch, in its thread: closing under a running transaction ends the process.
        await asyncio.get_running_loop().run_in_executor(self._writer, self._env.close)
        self._writer.shutdown(wait=False)


def open_file(path: Path, *, write: bool = False) -> lmdb.Environment:
    """The file of a store for who looks after it beside the processes that serve from it: never made, never
    put aside, with the map size that it has. Raises FileError."""
    env = lmdb.open(
        str(path), subdir=False, create=False, readonly=not write, map_size=0, max_dbs=2, max_readers=_READERS
    )
    return _whole(env, path)


def _whole(env: lmdb.Environment, path: Path) -> lmdb.Environment:
    """Refuse a file that was cut short: reading past its end would kill the process (SIGBUS)."""
    pages = env.info()["last_pgno"] + 1
    missing = pages * env.stat()["psize"] - path.stat().st_size
    if missing > 0 and pages > 2:
        env.close()
        raise lmdb.CorruptedError(f"{missing} octets are missing")
    return env


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Alone among those that open, replace or put aside the file. Waits for its turn."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
