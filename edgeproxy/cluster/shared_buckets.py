"""Token buckets that the workers of a node share: what a client took at one is missing at the others.

Rules of this file:

- A table in shared memory: of each bucket the hash of its name and the one time at which it would be full
  again, on the clock that all workers have alike. Time alone fills a bucket: who dies keeps nothing.
- Who takes a token holds the region's lock (microseconds), which the kernel takes from who dies; who only
  asks takes none, and believes nothing that was being written.
- Bounded: a bucket has one of WAYS places, by its hash. Where all are taken it gets that of the bucket that
  is full soonest: who makes up addresses by the thousand makes others start with a full bucket, never with
  an empty one.
- The hash is keyed with what nobody outside knows: nobody can choose whose place he takes.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, final

from edgeproxy.cluster.region import Region
from edgeproxy.rules.bucket import filled_later, lateness

if TYPE_CHECKING:
    from edgeproxy.rules.model import RateLimit

WAYS = 8
SETS = 8192
_SECRET, _FIRST = 0, 8
"""Words of 64 bits: the header's, then the places', two for each: hash (0: free), time."""


@final
class SharedBuckets:
    """``now`` is clock.now(): seconds on which all processes agree."""

    def __init__(self, region: Region, sets: int = SETS) -> None:
        self._region = region
        self._sets = sets
        self._words = region.octets.cast("Q")
        self._times = region.octets.cast("d")
        with region.writing():
            if not self._words[_SECRET]:
                self._words[_SECRET] = secrets.randbits(64) | 1
        self._secret = self._words[_SECRET].to_bytes(8, "little")

    @classmethod
    def open(cls, directory: str) -> SharedBuckets:
        """Raises OSError."""
        return cls(Region.file(Path(directory) / "rate-limits", cls.size(SETS)))

    @staticmethod
    def size(sets: int) -> int:
        """Octets."""
        return (_FIRST + sets * WAYS * 2) * 8

    def wait(self, name: str, key: str, limit: RateLimit, now: float, *, take: bool) -> float:
        """Seconds until there is a token, 0 where there is one; ``take`` it."""
        told = blake2b(f"{len(name)}:{name}{key}".encode(), digest_size=8, key=self._secret).digest()
        mark = int.from_bytes(told, "little") or 1
        first = _FIRST + mark % self._sets * WAYS * 2
        if not take:
            place = self._found(mark, first)
            full = now if place is None else self._times[place + 1]
            if place is not None and self._words[place] != mark:
                full = now  # it was being given to another one
            return lateness(full, now, limit)
        with self._region.writing():
            place = self._found(mark, first)
            full = now if place is None else self._times[place + 1]
            late = lateness(full, now, limit)
            if late:
                return late
            if place is None:
                place = min(range(first, first + WAYS * 2, 2), key=self._full_at)
                self._words[place] = 0  # not to be read meanwhile
            self._times[place + 1] = filled_later(full, now, limit)
            self._words[place] = mark
        return 0.0

    def _found(self, mark: int, first: int) -> int | None:
        marks = self._words[first : first + WAYS * 2].tolist()[::2]
        return first + 2 * marks.index(mark) if mark in marks else None

    def _full_at(self, place: int) -> float:
        return self._times[place + 1] if self._words[place] else 0.0

    def close(self) -> None:
        self._words.release()
        self._times.release()
        self._region.close()
