"""What the workers of a node tell one another about origins: a small table in shared memory.

Rules of this file:

- A row for each origin of each pool: what its breaker came to last, numbered, and what each worker has spent
  of its budget. Who writes the former holds the region's lock (microseconds); readers take none: what they
  read is a hint that would be old a moment later anyway, and a row that is being written is read next time.
- Who has something to say and finds no room takes the row that has been silent for the longest, and for
  SILENT at least: that of an origin that is gone, or has nothing to say.
- The board lives in the node's own directory and as long as the node does: a worker that starts reads what
  the others know. Where there is no room or no directory each worker is alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from edgeproxy.cluster.region import Region

ORIGINS = 128
WORKERS = 64
_FIXED = 5
_ROW = _FIXED + 3 * WORKERS
_KEY, _NUMBER, _OPEN, _CONNECT, _UNTIL = range(_FIXED)
_SERIAL, _PLACED, _FIRST = 0, 1, 8
"""Words of 64 bits: the header's, then the rows'."""
_LATELY = 10.0
"""Seconds: the budget's window (window.py)."""
SILENT = 600.0
"""Seconds."""
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Said:
    """``open``: the breaker is, ``until`` then (clock.now()); ``connect``: nobody could connect."""

    number: int
    open: bool
    connect: bool
    until: float


class Board:
    """``slot``: this worker's place among the workers, from 0."""

    def __init__(self, region: Region, slot: int) -> None:
        self._region = region
        self._words = region.octets.cast("Q")
        self._times = region.octets.cast("d")
        self._slot = slot
        self._rows: dict[str, int | None] = {}
        """Name -> row, None: there is none. As long as nobody places another."""
        self._placed = -1
        self._no_room: set[str] = set()

    @classmethod
    def open(cls, directory: str, slot: int) -> Board:
        """Raises OSError."""
        return cls(Region.file(Path(directory) / "origins", (_FIRST + ORIGINS * _ROW) * 8), slot)

    @property
    def serial(self) -> int:
        """Another one than before: somebody has said something."""
        return self._words[_SERIAL]

    def read(self, name: str) -> Said | None:
        row = self._row(name)
        if row is None:
            return None
        words = self._words
        number = words[row + _NUMBER]
        said = Said(number, bool(words[row + _OPEN]), bool(words[row + _CONNECT]), self._times[row + _UNTIL])
        return said if number and words[row + _NUMBER] == number else None

    def tell(self, name: str, *, is_open: bool, connect: bool, until: float) -> int:
        """The number of what was said; 0 where there is no room."""
        row = self._row(name, make=True)
        if row is None:
            return 0
        words = self._words
        with self._region.writing():
            number = words[_SERIAL] + 1
            words[row + _NUMBER] = 0  # not to be read meanwhile
            words[row + _OPEN], words[row + _CONNECT] = int(is_open), int(connect)
            self._times[row + _UNTIL] = until
            words[row + _NUMBER] = number
            words[_SERIAL] = number
        return number

    def spent(self, name: str, now: float, used: int, asked: int) -> None:
        """What this worker has spent of the origin's budget, and what its clients asked for."""
        row = self._row(name, make=True)
        if row is not None and self._slot < WORKERS:
            at = row + _FIXED + 3 * self._slot
            self._times[at], self._times[at + 1], self._times[at + 2] = now, used, asked

    def others_spent(self, name: str, now: float) -> tuple[int, int]:
        """The same of all other workers, as far as they said so lately."""
        row, used, asked = self._row(name), 0.0, 0.0
        if row is not None:
            for slot in range(WORKERS):
                at = row + _FIXED + 3 * slot
                if slot != self._slot and self._times[at] > now - _LATELY:
                    used += self._times[at + 1]
                    asked += self._times[at + 2]
        return int(used), int(asked)

    def forget(self) -> None:
        """The origins are others now: who found no room may find some."""
        self._no_room.clear()

    def _row(self, name: str, *, make: bool = False) -> int | None:
        """The name's row. ``make`` one, where there is none yet and there is room."""
        placed = self._words[_PLACED]
        if placed != self._placed:
            self._placed = placed
            self._rows.clear()
        row = self._rows.get(name, _UNKNOWN)
        if row == _UNKNOWN or (row is None and make and name not in self._no_room):
            row = self._rows[name] = self._found(_key(name), make=make)
            if row is None and make:
                self._no_room.add(name)
        return row

    def _found(self, key: int, *, make: bool) -> int | None:
        words, rows = self._words, range(_FIRST, _FIRST + ORIGINS * _ROW, _ROW)
        with self._region.writing():
            for row in rows:
                if words[row + _KEY] == key:
                    return row
                if not words[row + _KEY]:
                    break
            else:
                row = min(rows, key=self._used)
                if max(map(self._used, rows)) - self._used(row) < SILENT:
                    return None
            if not make:
                return None
            for word in range(row, row + _ROW):
                words[word] = 0
            words[row + _KEY] = key
            words[_PLACED] += 1
            return row

    def _used(self, row: int) -> float:
        """When somebody wrote there last, or until when what was said holds."""
        spent = range(row + _FIXED, row + _ROW, 3)
        return max(self._times[row + _UNTIL], *(self._times[at] for at in spent))

    def close(self) -> None:
        self._words.release()
        self._times.release()
        self._region.close()


def _key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") or 1
