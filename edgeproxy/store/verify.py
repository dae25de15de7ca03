"""Every record of a store's LMDB file, decoded as serving would decode it, and what is wrong with it.

Rules of this file:

- A record is one thing: DAMAGED before OTHER_VERSION before OTHER_TABLE before EXPIRED before PURGED before
  DANGLING before SOUND. Only DAMAGED is an error: the rest ages out by itself, and serving reads none of it.
- DANGLING is a variant that no marker leads to, a marker none of whose variants is there, and a place in the
  index by end without a record. Others write meanwhile, so each is looked at again at one moment.
- Repairing deletes what is damaged, and what dangles: a cache may forget, it may not answer wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from edgeproxy.cluster.epoch import GONE
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.codec import VERSION, Marker, claims, decode, record_key, version_of
from edgeproxy.store.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.store.lmdb_file import LmdbFile, Record


class State(StrEnum):
    SOUND = "sound"
    DAMAGED = "damaged"
    OTHER_VERSION = "other version"
    OTHER_TABLE = "other purge table"
    EXPIRED = "expired"
    PURGED = "purged"
    DANGLING = "dangling"


@dataclass(frozen=True, slots=True)
class Finding:
    """``record`` is the name in the file; ``key`` what it says its key is ("" if it does not)."""

    state: State
    record: str
    key: str
    why: str
    octets: int


@dataclass(slots=True)
class Report:
    """``found`` names what is damaged or dangles, up to as many as were asked for."""

    records: int = 0
    octets: int = 0
    counts: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    found: list[Finding] = field(default_factory=list)
    deleted: int = 0

    @property
    def clean(self) -> bool:
        return not self.counts[State.DAMAGED]


@dataclass(slots=True)
class Verifier:
    """One walk. ``most`` bounds the findings that are named; ``tick`` is told how many were looked at."""

    file: LmdbFile
    table: PurgeTable | None
    clock: Clock
    most: int
    repair: bool = False
    tick: Callable[[int], None] = lambda _: None
    report: Report = field(default_factory=Report)

    def run(self) -> Report:
        """Raises FileError where the tree of the file is damaged or nothing can be written."""
        for slice_ in self.file.slices():
            self._slice(slice_)
        self._places()
        return self.report

    def _slice(self, records: list[Record]) -> None:
        indexed = self.file.indexed(records)
        bad = []
        for record in records:
            self.report.records += 1
            self.report.octets += record.octets
            self.tick(self.report.records)
            state, why = self._judge(record, indexed)
            self.report.counts[state] += 1
            if state in (State.DAMAGED, State.DANGLING):
                bad.append(record)
                said = claims(record.data)
                self._name(record, state, why, "" if said is None else said[1][0])
        if self.repair and bad:
            self.report.deleted += self.file.delete(bad)

    def _name(self, record: Record, state: State, why: str, key: str) -> None:
        if len(self.report.found) < self.most:
            name = record.name.decode("ascii", "backslashreplace")
            self.report.found.append(Finding(state, name, key.replace("\0", " | "), why, record.octets))

    def _judge(self, record: Record, indexed: set[bytes]) -> tuple[State, str]:
        if record.end is None:
            return State.DAMAGED, "too short"
        version = version_of(record.data)
        if version not in (None, VERSION):
            return State.OTHER_VERSION, f"version {version}"
        said = claims(record.data)
        if said is None:
            return State.DAMAGED, "no head that can be read"
        namespace, key = said
        now = self.clock.now()
        held = decode(record.data, key, namespace, now)
        if isinstance(held, LookupMiss):
            return State.DAMAGED, "lengths, checksum or contents do not agree"
        if record_key(namespace, *key).encode() != record.name:
            return State.DAMAGED, "under another's key"
        if record.name not in indexed:
            return State.DAMAGED, "not in the index by end, so it would stay for ever"
        if self.table is not None and namespace != self.table.incarnation:
            return State.OTHER_TABLE, ""
        if record.end <= now:
            return State.EXPIRED, ""
        if isinstance(held, Entry) and self.table is not None and self.table.verdict_on(held) is GONE:
            return State.PURGED, ""
        why = self._dangles(record, held, namespace)
        return (State.DANGLING, why) if why else (State.SOUND, "")

    def _dangles(self, record: Record, held: Entry | Marker, namespace: bytes) -> str:
        """Why nothing leads to it, or it leads nowhere, as of one moment; "" if that is not so."""
        if isinstance(held, Marker):
            names = [record_key(namespace, held.primary, v).encode() for v in held.variants]
            there = self.file.present((record.name, *names))
            return "none of its variants is there" if there == {record.name} else ""
        if not held.variant:
            return ""
        primary = record_key(namespace, held.primary).encode()
        there_now = self.file.get((record.name, primary))
        if record.name not in there_now:
            return ""
        found = there_now.get(primary)
        marker = (
            None if found is None else decode(found.data, (held.primary, ""), namespace, self.clock.now())
        )
        if isinstance(marker, Marker) and held.stored.vary in marker.names:
            return ""
        return "no marker leads to this variant"

    def _places(self) -> None:
        """The index by end, the other way round."""
        for places in self.file.index():
            lost = self.file.unplaced(places)
            for place in lost:
                self.report.counts[State.DANGLING] += 1
                self._name(place, State.DANGLING, "in the index by end without a record", "")
            if self.repair and lost:
                self.report.deleted += self.file.unindex(lost)
