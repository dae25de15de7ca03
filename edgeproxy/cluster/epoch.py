"""The node's purge state: a fixed table in shared memory, so that a purge and a check cost the same always.

Rules of this file:

- Every purge has a number. An entry carries the number that was current when its fetch *started*, and a
  purge with a higher number that concerns the entry means that it is gone.
- URLs and tags are hashed into buckets; a bucket keeps the newest number of all that falls there. Two
  names in one bucket share their purges: a collision only ever purges more, never less. Prefixes and
  patterns (bans) are kept as they are, in a ring; a ban that falls out of it raises the floor, and whatever
  is older than the floor counts as purged.
- A soft purge also keeps *when*. A bucket knows only its newest soft purge, so an entry purged softly twice
  counts as stale since the second; it was stale all the time and never lives longer than without a purge.
- The order of writing is the promise: first what is purged, then the number. Whoever sees the number sees
  the purge; whoever sees the purge early purges early. A writer killed half-way has published nothing,
  and its number is given again.
- Readers take no lock. They remember the number they last checked at, so the usual check is one
  comparison of ``words[CURRENT]``. After it has changed, taking an uncontended mutex orders the reads that
  follow behind it on machines that reorder loads.
- ``incarnation`` names this table. Stored entries are kept under it, so that a lost table takes with it every
  entry whose purges it knew.

Numbers: of a node alone they count 1, 2, 3. With a log of many nodes (bus.py) a number is the log's
position, shifted by LOCAL_BITS; the bits below count purges that are not in the log (yet).
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from edgeproxy.cluster.region import Region
from edgeproxy.store.purge import PurgeKind, PurgeOrder, glob, octets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgeproxy.store.entry import Entry

MAGIC = int.from_bytes(b"edgepurg", "little")
VERSION = 1
BUCKETS = 2**18
BANS = 1024
LOCAL_BITS = 10

# The header: words (64 bits, native order). Everything a hot reader touches is in the first 64 octets.
_MAGIC, _SHAPE, _INCARNATION, CURRENT, _ALL_HARD, _ALL_SOFT, _ALL_SOFT_WHEN, _BANNED = range(8)
_FLOOR, _SEEN_MS, _SEEN_SEQUENCE, _NODE, _HEARD, _REBORN = range(8, 14)
_HEADER = 64

_BAN = struct.Struct("=QdBHH")
"""Number, when, flags, length of the host, length of the value; then the host and the value."""
_SLOT = 1312
_SLOTS = BANS + 1
"""One more than count, so that the oldest that counts is never the one being written over."""
_SOFT, _PATTERN, _HOST = 1, 2, 4

_RESTART_STEP = 2**20


class Fate(Enum):
    GOOD = "good"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class SoftSince:
    """Purged softly: stale since ``when`` (seconds since the epoch)."""

    when: float


GOOD: Literal[Fate.GOOD] = Fate.GOOD
GONE: Literal[Fate.GONE] = Fate.GONE

Verdict = Literal[Fate.GOOD, Fate.GONE] | SoftSince


@dataclass(frozen=True, slots=True)
class _Ban:
    number: int
    when: float
    soft: bool
    pattern: bool
    host: str | None
    value: str

    def concerns(self, host: str, target: str) -> bool:
        if self.host is not None and host not in ("", self.host):
            return False
        return glob(self.value, target) if self.pattern else target.startswith(self.value)


class PurgeTable:
    """One per worker, over memory that all workers of the node share."""

    def __init__(self, region: Region, buckets: int = BUCKETS, *, as_found: bool = False) -> None:
        self._region = region
        self._buckets = buckets
        self.words = region.octets.cast("Q")
        """The memory as words: ``words[CURRENT]`` is the current number, for hot loops."""
        tables = [self.words[_HEADER + i * buckets : _HEADER + (i + 1) * buckets] for i in range(2)]
        self._hard, self._soft = tables
        self._times = region.octets.cast("d")
        self._when = self._times[_HEADER + 2 * buckets : _HEADER + 3 * buckets]
        self._ring = region.octets[(_HEADER + 3 * buckets) * 8 :]
        self._fence = threading.Lock()
        self._bans: list[_Ban] = []
        """What the ring holds, newest first, as far as this reader has read it."""
        self._bans_read = 0
        self.path: Path | None = None
        """Of the file, if it is one."""
        if not as_found:
            self._begin()

    @staticmethod
    def size(buckets: int = BUCKETS) -> int:
        """Octets of shared memory."""
        return (_HEADER + 3 * buckets) * 8 + _SLOTS * _SLOT

    @classmethod
    def anonymous(cls, buckets: int = BUCKETS) -> PurgeTable:
        """For one process; lost with it."""
        return cls(Region.anonymous(cls.size(buckets)), buckets)

    @classmethod
    def open(cls, path: Path, buckets: int = BUCKETS) -> PurgeTable:
        """For all processes that open the same path; survives them. Raises OSError."""
        table = cls(Region.file(path, cls.size(buckets)), buckets)
        table.path = path
        return table

    @classmethod
    def snapshot(cls, path: Path, buckets: int = BUCKETS) -> PurgeTable:
        """The table as it is now, in memory of our own, for looking: the file is not changed. A purge that is
        made meanwhile may or may not be in it. Raises OSError, and ValueError if it is no purge table."""
        data = path.read_bytes()
        if len(data) != cls.size(buckets):
            raise ValueError("no purge table of this version")
        region = Region.anonymous(len(data))
        region.octets[:] = data
        table = cls(region, buckets, as_found=True)
        if table.words[_MAGIC] != MAGIC or table.words[_SHAPE] != VERSION << 32 | buckets:
            table.close()
            raise ValueError("no purge table of this version")
        return table

    def facts(self) -> dict[str, object]:
        """For people: the newest number, the name, the bans kept, and the floor."""
        return {
            "number": self.words[CURRENT],
            "incarnation": self.incarnation.hex(),
            "bans": min(self.words[_BANNED], BANS),
            "floor": self.words[_FLOOR],
        }

    def _begin(self) -> None:
        shape = VERSION << 32 | self._buckets
        words = self.words
        with self._region.writing():
            if words[_MAGIC] == MAGIC and words[_SHAPE] == shape:
                if words[_SEEN_MS] == 0:
                    # Entries may have been written with numbers whose publication a power cut undid: such
                    # a number must never be given a second time.
                    words[CURRENT] += _RESTART_STEP
                return
            words[_MAGIC] = 0
            self._region.octets[8:] = bytes(len(self._region.octets) - 8)
            words[_SHAPE] = shape
            words[_INCARNATION] = int.from_bytes(os.urandom(8), "little")
            words[_MAGIC] = MAGIC

    # Reading

    @property
    def current(self) -> int:
        """The newest purge's number."""
        return self.words[CURRENT]

    @property
    def is_shared(self) -> bool:
        """Whether other processes see it."""
        return self._region.is_file

    @property
    def incarnation(self) -> bytes:
        """8 octets that name this table (or, on many nodes, the log it follows)."""
        return self.words[_INCARNATION].to_bytes(8, "little")

    @property
    def node(self) -> bytes:
        """8 octets that name the node: those who share this table."""
        with self._region.writing():
            if not self.words[_NODE]:
                self.words[_NODE] = int.from_bytes(os.urandom(8), "little")
            return self.words[_NODE].to_bytes(8, "little")

    @property
    def heard(self) -> float:
        """clock.monotonic() up to which this node is known to have followed the log of all nodes, by any of
        its workers; 0.0: never."""
        return self._times[_HEARD]

    @heard.setter
    def heard(self, when: float) -> None:
        with self._region.writing():
            self._times[_HEARD] = when

    @property
    def reborn(self) -> float:
        """clock.monotonic() when the log that this node had followed was found lost; -inf: it was not."""
        return self._times[_REBORN] or float("-inf")

    def marks(self, host: str, target: str, tags: Iterable[str]) -> tuple[int, ...]:
        """The buckets that concern an entry: to be computed once and handed to ``judge``."""
        own = [self._bucket(b"u", host, target), self._bucket(b"U", "", target)]
        for tag in tags:
            own += (self._bucket(b"t", host, tag), self._bucket(b"T", "", tag))
        return tuple(own)

    def judge(self, marks: tuple[int, ...], host: str, target: str, epoch: int, since: int = -1) -> Verdict:
        """What the purges after ``epoch`` say of an entry with these marks. ``since``: a number at which
        this was asked before and answered, so that older bans need not be looked at again."""
        with self._fence:
            pass
        words = self.words
        if words[_BANNED] != self._bans_read:
            self._read_bans()
        if words[_ALL_HARD] > epoch or words[_FLOOR] > epoch:
            return GONE
        hard, soft = self._hard, self._soft
        when = None
        if words[_ALL_SOFT] > epoch:
            when = self._times[_ALL_SOFT_WHEN]
        for mark in marks:
            if hard[mark] > epoch:
                return GONE
            if soft[mark] > epoch and (when is None or self._when[mark] < when):
                when = self._when[mark]
        done = max(epoch, since)
        for ban in self._bans:
            if ban.number <= done:
                break
            if ban.concerns(host, target):
                if not ban.soft:
                    return GONE
                if when is None or ban.when < when:
                    when = ban.when
        return GOOD if when is None else SoftSince(when)

    def verdict(self, host: str, target: str, tags: Iterable[str], epoch: int) -> Verdict:
        return self.judge(self.marks(host, target, tags), host, target, epoch)

    def verdict_on(self, entry: Entry) -> Verdict:
        return self.verdict(entry.host, entry.target, entry.tags, entry.epoch)

    def _read_bans(self) -> None:
        """Read what the ring has got since. A slot that may be being written over meanwhile is left out:
        its writer has raised the floor above it before touching it."""
        words = self.words
        written = words[_BANNED]
        fresh: list[_Ban] = []
        for index in range(max(self._bans_read, written - BANS), written):
            slot = bytes(self._slot(index))
            if words[_BANNED] <= index + BANS:
                fresh.append(_read_slot(slot))
        fresh.reverse()
        self._bans = (fresh + self._bans)[:BANS]
        self._bans_read = written

    # Writing

    def apply(self, order: PurgeOrder, now: float, number: int | None = None) -> int:
        """Purge; when this returns, every reader of every worker sees it. ``number`` is the log's, where
        there is one: the purge gets it, or the next higher if numbers have risen past it. Blocks for
        microseconds."""
        with self._region.writing():
            return self._apply(order, now, number or 0)

    def apply_logged(self, order: PurgeOrder, now: float, position: tuple[int, int]) -> int | None:
        """Purge what stands in the log of all nodes at ``position``, once per node, whichever of its workers
        reads it first; None if it has been done. Workers hand over the log in its order."""
        with self._region.writing():
            if position <= self._seen():
                return None
            number = self._apply(order, now, number_of(position))
            self._see(position)
            return number

    def skip_to(self, position: tuple[int, int]) -> None:
        """The log up to ``position`` needs no reading: fetches that start now have its number."""
        with self._region.writing():
            self._see(max(position, self._seen()))
            self._publish(max(self.words[CURRENT], number_of(position)))

    @property
    def seen(self) -> tuple[int, int]:
        """How far this node has read the log: (milliseconds, sequence)."""
        with self._region.writing():
            return self._seen()

    def raise_floor(self, number: int) -> None:
        """Whatever is older than ``number`` counts as purged."""
        with self._region.writing():
            words = self.words
            words[_FLOOR] = max(words[_FLOOR], number)
            self._publish(max(words[CURRENT] + 1, number))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The lock of the table's writers, for what is kept beside it."""
        with self._region.writing():
            yield

    def adopt(self, incarnation: bytes, now: float, monotonic: float) -> None:
        """Follow another log: everything known so far is purged, then the name changes."""
        with self._region.writing():
            if incarnation == self.incarnation:
                return
            if self._seen() != (0, 0):
                self._times[_REBORN] = monotonic
            self._apply(PurgeOrder(PurgeKind.ALL), now, 0)
            self._see((0, 0))
            self.words[_INCARNATION] = int.from_bytes(incarnation, "little")

    def flush(self) -> None:
        """Make the table survive a power cut. Blocks; not for the event loop."""
        self._region.flush()

    def close(self) -> None:
        for view in (self._hard, self._soft, self._when, self._ring, self._times, self.words):
            view.release()
        self._region.close()

    def _apply(self, order: PurgeOrder, now: float, number: int) -> int:
        number = max(number, self.words[CURRENT] + 1)
        if order.kind in {PurgeKind.URL, PurgeKind.TAG}:
            for bucket in self._touched(order):
                if order.soft:
                    self._when[bucket] = now
                    self._soft[bucket] = number
                else:
                    self._hard[bucket] = number
        elif order.kind is PurgeKind.ALL and order.host is None:
            if order.soft:
                self._times[_ALL_SOFT_WHEN] = now
                self.words[_ALL_SOFT] = number
            else:
                self.words[_ALL_HARD] = number
        else:
            self._ban(order, now, number)
        self._publish(number)
        return number

    def _publish(self, number: int) -> None:
        with self._fence:  # orders the writes before it, on machines that reorder them
            self.words[CURRENT] = number

    def _touched(self, order: PurgeOrder) -> Iterator[int]:
        one, any_host = (b"u", b"U") if order.kind is PurgeKind.URL else (b"t", b"T")
        for value in (order.value, *order.targets):
            if order.host is None:
                yield self._bucket(any_host, "", value)
            else:
                yield self._bucket(one, order.host, value)
                yield self._bucket(one, "", value)

    def _bucket(self, salt: bytes, host: str, value: str) -> int:
        data = b"%s\0%s" % (octets(host), octets(value))
        return int.from_bytes(blake2b(data, digest_size=8, salt=salt).digest(), "little") % self._buckets

    def _ban(self, order: PurgeOrder, now: float, number: int) -> None:
        words = self.words
        written = words[_BANNED]
        if written >= BANS:
            oldest: int = _BAN.unpack_from(self._slot(written - BANS))[0]
            words[_FLOOR] = max(words[_FLOOR], oldest)
        host, value = octets(order.host or ""), octets(order.value)
        flags = (
            (_SOFT if order.soft else 0)
            | (_PATTERN if order.kind is PurgeKind.PATTERN else 0)
            | (0 if order.host is None else _HOST)
        )
        slot = _BAN.pack(number, now, flags, len(host), len(value)) + host + value
        self._slot(written)[: len(slot)] = slot
        words[_BANNED] = written + 1

    def _slot(self, index: int) -> memoryview:
        at = (index % _SLOTS) * _SLOT
        return self._ring[at : at + _SLOT]

    def _seen(self) -> tuple[int, int]:
        return (self.words[_SEEN_MS], self.words[_SEEN_SEQUENCE])

    def _see(self, position: tuple[int, int]) -> None:
        self.words[_SEEN_MS], self.words[_SEEN_SEQUENCE] = position


def number_of(position: tuple[int, int]) -> int:
    """A log position (milliseconds, sequence) as a purge number, the local bits zero."""
    milliseconds, sequence = position
    return (milliseconds << 12 | min(sequence, 0xFFF)) << LOCAL_BITS


def logged_part(number: int) -> int:
    """A number without the purges that other nodes do not know of."""
    return number >> LOCAL_BITS << LOCAL_BITS


def _read_slot(slot: bytes) -> _Ban:
    number, when, flags, host_length, value_length = _BAN.unpack_from(slot)
    host = slot[_BAN.size : _BAN.size + host_length]
    value = slot[_BAN.size + host_length : _BAN.size + host_length + value_length]
    return _Ban(
        number,
        when,
        bool(flags & _SOFT),
        bool(flags & _PATTERN),
        host.decode("utf-8", "surrogatepass") if flags & _HOST else None,
        value.decode("utf-8", "surrogatepass"),
    )
