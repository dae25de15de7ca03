"""The most wanted, kept across restarts: a small JSON file in the state directory, one for each worker.

Rules of this file:

- Replaced whole, under another name first: whoever reads it reads the old one or the new one. Readable for us
  alone: targets may hold more than everybody should see.
- Untrusted when read: bounded in size and number, each record must be one that we would have written and that
  may be sent (``Again.sound``), and whatever is not is left out. A file that is no such file is no file.
- What was counted fades with the time that has passed since, by the clock that wrote it; a file from the
  future is as old as nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.warm.again import Again
from edgeproxy.warm.wanted import ROOM, Wanted, fade

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

VERSION = 1
LARGEST = 8 * 1024 * 1024
"""Octets of a file that is looked at."""
OLDEST = 86400.0
"""Seconds after which a file says nothing any more."""
MOST_FILES = 256

log = logging.getLogger("edgeproxy.warm")


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    scheme: str
    host: str
    target: str
    rule: str
    weight: float
    fields: list[tuple[str, str]] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    saved_at: float
    wanted: list[_Record]


_DECODER = msgspec.json.Decoder(_File)


def encode(wanted: Iterable[Wanted], now: float) -> bytes:
    records = [
        _Record(again.scheme, again.host, again.target, rule, round(weight, 3), list(again.fields))
        for again, rule, weight in wanted
    ]
    return msgspec.json.encode(_File(VERSION, round(now, 3), records[:ROOM]))


def decode(octets: bytes, now: float) -> list[Wanted]:
    """As of ``now``. Raises ValueError where it is no file of ours."""
    if len(octets) > LARGEST:
        raise ValueError(f"larger than {LARGEST} octets")
    try:
        told = _DECODER.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if told.version != VERSION:
        raise ValueError(f"version {told.version}, not {VERSION}")
    if not math.isfinite(told.saved_at):
        raise ValueError("no time")
    passed = max(0.0, now - told.saved_at)
    if passed > OLDEST:
        return []
    left = fade(passed)
    found: list[Wanted] = []
    for record in told.wanted[:ROOM]:
        again = Again(record.scheme, record.host, record.target, tuple(record.fields))
        if again.sound and len(record.rule) <= 64 and 0 < record.weight < 1e15:
            found.append(Wanted(again, record.rule, record.weight * left))
    return found


def merged(several: Iterable[Sequence[Wanted]]) -> list[Wanted]:
    """What several workers were asked for, added up; the most wanted first."""
    total: dict[Again, Wanted] = {}
    for wanted in several:
        for one in wanted:
            known = total.get(one.again)
            total[one.again] = one if known is None else known._replace(weight=known.weight + one.weight)
    return sorted(total.values(), key=lambda w: (-w.weight, w.again.url, w.again.fields))


class WantedFiles:
    """The files of one node for one origin: ``directory/stem.<slot>.json``."""

    def __init__(self, directory: Path, stem: str, slot: int) -> None:
        self._directory = directory
        self._stem = stem
        self.own = directory / f"{stem}.{slot}.json"

    def save(self, octets: bytes) -> None:
        """Blocks. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        fresh = self.own.with_suffix(f".{os.getpid()}.new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as stream:
                stream.write(octets)
            fresh.replace(self.own)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise

    def load_own(self, now: float) -> list[Wanted]:
        """Blocks."""
        return self._load(self.own, now)

    def load_others(self, now: float) -> list[list[Wanted]]:
        """What the other workers have saved. Blocks."""
        try:
            paths = sorted(self._directory.glob(f"{self._stem}.*.json"))[:MOST_FILES]
        except OSError:
            return []
        return [self._load(path, now) for path in paths if path != self.own]

    def _load(self, path: Path, now: float) -> list[Wanted]:
        try:
            with path.open("rb") as stream:
                octets = stream.read(LARGEST + 1)
            return decode(octets, now)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.warning("what was most wanted is not known: %s: %s", path.name, error)
            return []
