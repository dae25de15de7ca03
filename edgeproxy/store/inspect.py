"""What a store's LMDB file holds, for people: totals, and the variants of what is asked for.

Rules of this file:

- Pure reading. Bodies are never told, nor fields; values of selecting fields that are credentials neither.
- ``purged`` is the purge table's word, as serving goes by it; without a table nobody knows, and it is None.
- A record of another purge table (its namespace differs) is never read by who serves, so it counts apart.
- Plain dicts come out, ready for JSON. Times are seconds, sizes octets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeproxy.cluster.epoch import GONE, PurgeTable, SoftSince
from edgeproxy.key import SECRET
from edgeproxy.store.codec import VERSION, claims, coordinates, decode, version_of
from edgeproxy.store.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.store.codec import Coordinates
    from edgeproxy.store.lmdb_file import LmdbFile, Record

_LONG = 80


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for. ``host`` None is any; ``target`` is what purging goes by."""

    host: str | None = None
    target: str = ""
    prefix: bool = False
    key: str = ""

    def takes(self, place: Coordinates) -> bool:
        if self.key:
            return place.primary.replace("\0", " | ") == self.key.replace("\0", " | ")
        if self.host is not None and place.host not in ("", self.host):
            return False
        return place.target.startswith(self.target) if self.prefix else place.target == self.target


def purge_table(directory: Path) -> tuple[PurgeTable | None, str]:
    """A picture of the table beside the file, and "ok" or why there is none."""
    try:
        return PurgeTable.snapshot(directory / "purges"), "ok"
    except FileNotFoundError:
        return None, "missing"
    except OSError as error:
        return None, error.strerror or str(error)
    except ValueError as error:
        return None, str(error)


def namespace_of(record: Record, table: PurgeTable | None) -> bytes | None:
    """The namespace that counts for it: the table's, or where there is none the record's own."""
    if table is not None:
        return table.incarnation
    said = claims(record.data)
    return None if said is None else said[0]


def totals(
    file: LmdbFile, table: PurgeTable | None, now: float, by: str, tick: Callable[[int], None]
) -> dict[str, Any]:
    """Counts over all records, and for each host or rule (``by``) its usable entries and their octets."""
    counts = dict.fromkeys(
        ("entries", "octets", "markers", "expired", "purged", "soft_purged", "other_table", "unreadable"), 0
    )
    versions: dict[str, int] = {}
    groups: dict[str, dict[str, int]] = {}
    for number, record in enumerate(file.heads(), 1):
        tick(number)
        version = version_of(record.data)
        if version is not None:
            versions[str(version)] = versions.get(str(version), 0) + 1
        namespace = namespace_of(record, table)
        place = None if namespace is None else coordinates(record.data, namespace)
        if place is None:
            said = claims(record.data)
            if said is None:
                counts["unreadable"] += version is None or version == VERSION
            elif said[0] != namespace:
                counts["other_table"] += 1
            else:
                counts["markers"] += 1
            continue
        if record.end is None or record.end <= now:
            counts["expired"] += 1
            continue
        verdict = None if table is None else table.verdict(place.host, place.target, place.tags, place.epoch)
        if verdict is GONE:
            counts["purged"] += 1
            continue
        counts["soft_purged"] += isinstance(verdict, SoftSince)
        counts["entries"] += 1
        counts["octets"] += place.octets
        group = groups.setdefault(place.rule if by == "rule" else place.host, {"entries": 0, "octets": 0})
        group["entries"] += 1
        group["octets"] += place.octets
    ordered = sorted(groups.items(), key=lambda item: -item[1]["octets"])
    return {**counts, "versions": versions, f"by_{by}": dict(ordered)}


def variants(
    file: LmdbFile,
    table: PurgeTable | None,
    now: float,
    wanted: Wanted,
    limit: int,
    tick: Callable[[int], None],
) -> tuple[list[dict[str, Any]], int]:
    """The first ``limit`` entries asked for, and how many there are. What has ended is not among them."""
    chosen: list[tuple[bytes, Coordinates, bytes]] = []
    count = 0
    for number, record in enumerate(file.heads(), 1):
        tick(number)
        if record.end is None or record.end <= now:
            continue
        namespace = namespace_of(record, table)
        place = None if namespace is None else coordinates(record.data, namespace)
        if namespace is None or place is None or not wanted.takes(place):
            continue
        count += 1
        if len(chosen) < limit:
            chosen.append((record.name, place, namespace))
    told = []
    for name, place, namespace in chosen:
        whole = file.get((name,)).get(name)  # one at a time: each may be large
        if whole is None:
            count -= 1  # deleted meanwhile
            continue
        entry = decode(whole.data, (place.primary, place.variant), namespace, now)
        if isinstance(entry, Entry):
            told.append(_told(entry, whole, table, now))
        else:
            told.append({"key": _shown(place.primary), "record": name.decode(), "problem": "damaged"})
    return told, count


def _told(entry: Entry, record: Record, table: PurgeTable | None, now: float) -> dict[str, Any]:
    stored = entry.stored
    verdict = None if table is None else table.verdict_on(entry)
    soft = isinstance(verdict, SoftSince)
    freshness = (
        stored.freshness.stale_from(verdict.when) if isinstance(verdict, SoftSince) else stored.freshness
    )
    purged = None if table is None else "hard" if verdict is GONE else "soft" if soft else "no"
    return {
        "key": _shown(entry.primary),
        "record": record.name.decode("ascii", "backslashreplace"),
        "host": entry.host,
        "target": entry.target,
        "varies_on": {
            name: _selecting(name, value) for name, value in zip(stored.vary, stored.selecting, strict=True)
        },
        "status": stored.status,
        "rule": entry.rule,
        "age": round(freshness.age(now), 3),
        "fresh_for": round(freshness.fresh_until - now, 3),
        "must_validate": freshness.must_validate,
        "stale_while_revalidate": freshness.stale_while_revalidate,
        "stale_if_error": freshness.stale_if_error,
        "stale_if_disconnected": freshness.stale_if_disconnected,
        "keep": freshness.keep,
        "stored_for": None if record.end is None else round(record.end - now, 3),
        "tags": list(entry.tags),
        "coding": stored.coding,
        "body_octets": stored.length,
        "codings": {coding: len(body) for coding, body in entry.codings.items()},
        "octets": record.octets,
        "purged": purged,
    }


def _selecting(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if name in SECRET:
        return "(not shown)"
    return value if len(value) <= _LONG else f"{value[:_LONG]}…"


def _shown(primary: str) -> str:
    return primary.replace("\0", " | ")
