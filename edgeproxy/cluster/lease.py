"""One fetch per key on a node: a lock that no dead worker keeps, and a note of how the last fetch ended.

Rules of this file:

- A lease is a lock on one octet of a file that all workers have open; which octet, the key says. The kernel
  takes it back from a process that dies, however it dies. The file stays empty.
- The locks belong to the open file (OFD), where the system has such locks, so that nothing else this process
  does with the file lets go of them.
- Who ends a lease first writes how (Notes, in memory that the workers share), then unlocks: whoever gets the
  lock next reads it. Notes are overwritten by others; one that is gone means "look into the store".
- Taking one that is free is a system call and a look at the notes. Who waits tries again after a pause that
  grows with the time waited: never hot, and late by at most a part of what the fetch took.
"""

from __future__ import annotations

import fcntl
import os
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, final

from edgeproxy.cluster.base import LOOK, End, Ended
from edgeproxy.cluster.region import Region
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.clock import Clock

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.025
"""Seconds between two tries of who waits; each pause is twice the one before."""

SLOTS = 32_768
_SET = getattr(fcntl, "F_OFD_SETLK", None)
_FLOCK = struct.Struct("@hhqqi4x")
"""Type, whence, start, length, process: Linux's, on machines of 64 bits."""
_FAILURES = tuple(OriginFailure)


def number_of(key: str) -> int:
    """Where the key's lock lies: 62 bits, so that two keys hardly ever share one."""
    octets = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "little") >> 2


class Notes:
    """How fetches ended, newest per slot. A note is two words: the key's number, and when and how."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._words = region.octets.cast("Q")

    @classmethod
    def size(cls) -> int:
        return SLOTS * 16

    def write(self, number: int, ended: Ended, now: float) -> None:
        """``now``: clock.monotonic()."""
        how = int(ended.end) if ended.failure is None else 16 + _FAILURES.index(ended.failure)
        at = number % SLOTS * 2
        words = self._words
        words[at + 1] = 0  # a reader in between takes it for no note
        words[at] = number
        words[at + 1] = (int(now * 1e6) & 2**46 - 1) << 18 | how << 10 | (ended.status & 0x3FF)

    def read(self, number: int, since: float) -> Ended | None:
        """How the key's last fetch ended, if that was after ``since``. A note that two writers have mixed up
        says at worst that an answer could not be shared, or that it failed a moment ago."""
        at = number % SLOTS * 2
        words = self._words
        if words[at] != number:
            return None
        word = words[at + 1]
        if word >> 18 < int(since * 1e6) or not word:
            return None
        how, status = word >> 10 & 0xFF, word & 0x3FF
        if how >= 16:
            return Ended(End.FAILED, _FAILURES[how - 16], status) if how - 16 < len(_FAILURES) else LOOK
        return Ended(End(how)) if how in (End.LOOK, End.UNCACHEABLE) else LOOK

    def close(self) -> None:
        self._words.release()
        self._region.close()


@final
class NodeLease:
    """Implements Lease."""

    __slots__ = ("_leases", "_number", "again")

    def __init__(self, leases: NodeLeases, number: int, *, again: bool) -> None:
        self._leases: NodeLeases | None = leases
        self._number = number
        self.again = again

    def end(self, ended: Ended) -> None:
        leases, self._leases = self._leases, None
        if leases is not None:
            leases.release(self._number, ended)


class NodeLeases:
    """Implements Leases, for the workers that share ``directory``. Raises OSError."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._clock = clock
        self._notes = Notes(Region.file(directory / "fetches", Notes.size()))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(directory / "leases", flags, 0o600)
        self._held: set[int] = set()
        self._closed = False

    def at_once(self, key: str, since: float) -> NodeLease | None:
        number = number_of(key)
        if not self._lock(number):
            return None
        if self._notes.read(number, since) is None:
            return NodeLease(self, number, again=False)
        self._unlock(number)
        return None

    async def take(self, key: str, since: float, patience: float) -> NodeLease | Ended | None:
        number = number_of(key)
        until = self._clock.monotonic() + patience
        pause = FIRST_PAUSE
        # One of our own is there where a fetch has outlived its time: then somebody has to go on.
        while not self._closed and number not in self._held:
            if self._lock(number):
                note = self._notes.read(number, since)
                if note is None or note.end is End.LOOK:
                    return NodeLease(self, number, again=note is not None)
                self._unlock(number)
                return note
            left = until - self._clock.monotonic()
            if left <= 0:
                break
            await self._clock.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE)
        return None

    def release(self, number: int, ended: Ended) -> None:
        if not self._closed:
            self._notes.write(number, ended, self._clock.monotonic())
            self._unlock(number)

    def _lock(self, number: int) -> bool:
        if self._closed or number in self._held:
            return False
        try:
            self._set(fcntl.F_WRLCK, number)
        except OSError:
            return False
        self._held.add(number)
        return True

    def _unlock(self, number: int) -> None:
        self._held.discard(number)
        self._set(fcntl.F_UNLCK, number)

    def _set(self, kind: int, number: int) -> None:
        if _SET is not None:
            fcntl.fcntl(self._fd, _SET, _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0))
        else:
            what = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._fd, what, 1, number, os.SEEK_SET)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._fd)
            self._notes.close()
