"""An entry as records of the shared store: written and read under its key, or its variants' behind a marker.

Rules of this file:

- Where answers vary, the primary record is a marker that lists the selecting fields and the known variants;
  the entries lie under their own keys.
- A write is made when its turn comes, and not at all if a purge has overtaken the entry by then.
- What is read is as it was written: what the purges leave of it is the caller's to ask (tiered.py). What is
  damaged, or another key's in our place, is counted and deleted.
- Large records are coded and checked in a thread (large.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from edgeproxy.cluster.epoch import GONE, logged_part
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.codec import (
    MOST_VARIANTS,
    Marker,
    coordinates,
    decode,
    encode,
    encode_marker,
    order_octets,
    other_version,
    record_key,
)
from edgeproxy.store.entry import Entry, codings_of
from edgeproxy.store.frame import Frames
from edgeproxy.store.large import LARGE, LargeEntries
from edgeproxy.store.memory import with_names
from edgeproxy.store.shared import Write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.bus import RedisBus
    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.store.packed import Packing
    from edgeproxy.store.shared import SharedStore

Record = Entry | Marker | LookupMiss
"""What stands under a key."""


class Records:
    """Those of one shared store. ``bus``: the purge log of many nodes, where there is one."""

    def __init__(
        self, shared: SharedStore, table: PurgeTable, clock: Clock, packing: Packing, bus: RedisBus | None
    ) -> None:
        self._shared = shared
        self.budget = shared.budget
        """Seconds for all that one lookup reads."""
        self._table = table
        self._clock = clock
        self._bus = bus
        self._large = LargeEntries()
        self._frames = Frames(packing)
        self.corrupt = self.foreign = 0

    # Reading

    def at_once(self, primary: str) -> Record | None:
        """What stands under the key, in a store that answers at once; it may be packed. None: that takes
        waiting, for a thread."""
        if self._large:
            return None
        namespace = self._table.incarnation
        key = record_key(namespace, primary)
        data = self._shared.get_now(key)
        if isinstance(data, LookupMiss):
            return data
        place = (namespace, primary, "")
        if len(data) >= LARGE:
            self._large.read(data, place, self._clock.now())  # whoever waits joins it
            return None
        return self._decoded(key, data, place)

    async def read(self, primary: str, variant: str, until: float | None = None) -> Record:
        """What stands under the key, which may be packed. ``until``: the time, by the clock, at which it is
        given up."""
        namespace, now = self._table.incarnation, self._clock.now()
        place = (namespace, primary, variant)
        if self._large:
            known = self._large.known(place, now)
            if known is not None:
                return known if isinstance(known, Entry) else await asyncio.shield(known)
        key = record_key(namespace, primary, variant)
        left = None if until is None else until - now
        data = await self._shared.get(key, left)
        if isinstance(data, LookupMiss):
            return data
        if len(data) < LARGE:
            return self._decoded(key, data, place)
        start = data[:8]
        reading = self._large.read(data, place, self._clock.now())
        del data  # who waits need not hold it too
        return self._usable(key, await asyncio.shield(reading), start)

    def _decoded(self, key: str, data: bytes, place: tuple[bytes, str, str]) -> Record:
        namespace, primary, variant = place
        record = decode(data, (primary, variant), namespace, self._clock.now(), self._frames)
        return self._usable(key, record, data[:8])

    def _usable(self, key: str, record: Record, start: bytes) -> Record:
        """The record; where it is none of ours, that is counted, and it goes where it is in our place."""
        if record is LookupMiss.CORRUPT:
            self.corrupt += 1
            self._delete(key)
        elif record is LookupMiss.FOREIGN:
            self.foreign += 1
            if not other_version(start):
                self._delete(key)  # under our key, so nobody else's: a copied record
        return record

    def holds(self, entry: Entry) -> bool:
        """Whether a store that answers at once has a record of this entry that no purge has made useless."""
        namespace, table = self._table.incarnation, self._table
        with contextlib.suppress(Exception):
            data = self._shared.cache.read_now(record_key(namespace, entry.primary, entry.variant))
            place = None if data is None else coordinates(data, namespace)
            return place is not None and (
                table.verdict(place.host, place.target, place.tags, place.epoch) is not GONE
            )
        return False

    # Writing

    def write(self, entry: Entry, *, new: bool) -> None:
        """Have it written behind the request's back. ``new``: it is not the one that was there, grown."""
        if new and (len(entry.body) >= LARGE or self._large):
            self._large.note(self._place(entry), entry)
        if not entry.is_packed and entry.stored.length != len(entry.body):
            return

        async def prepare(made: dict[str, bytes]) -> Sequence[Write]:
            return await self._written(entry, made)

        self._shared.enqueue(prepare, entry.size)

    def delete(self, entry: Entry) -> None:
        """Have its record deleted."""
        place = self._place(entry)
        self._large.forget(place)
        self._delete(record_key(*place))

    def _place(self, entry: Entry) -> tuple[bytes, str, str]:
        return (self._table.incarnation, entry.primary, entry.variant)

    def _delete(self, key: str) -> None:
        async def prepare(_: dict[str, bytes]) -> Sequence[Write]:
            return (Write(key, None),)

        self._shared.enqueue(prepare, 100)

    async def _written(self, entry: Entry, made: dict[str, bytes]) -> Sequence[Write]:
        """The writes of one entry, now that they are about to be made."""
        table, bus = self._table, self._bus
        ttl = entry.freshness.storage_ttl(self._clock.now())
        if ttl <= 0 or (bus is not None and not bus.ready) or table.verdict_on(entry) is GONE:
            return ()
        namespace = table.incarnation
        epoch = logged_part(entry.epoch) if bus is not None else entry.epoch
        if len(entry.body) < LARGE:
            data = encode(entry, namespace, epoch)
        else:
            # The codings may grow meanwhile: the thread gets a copy of its own.
            frozen = entry.copied(codings=codings_of(entry.codings))
            data = await asyncio.to_thread(encode, frozen, namespace, epoch)
        if data is None:
            return ()
        write = Write(record_key(namespace, entry.primary, entry.variant), data, ttl)
        if not entry.variant:
            return (write,)
        return (write, *await self._marked(entry, order_octets(epoch, entry.started), ttl, made))

    async def _marked(
        self, entry: Entry, order: bytes, ttl: float, made: dict[str, bytes]
    ) -> Sequence[Write]:
        """The marker with this variant in it, and the variant that had to go for it. ``made``: what this
        batch has made so far, by key."""
        namespace, now = self._table.incarnation, self._clock.now()
        key = record_key(namespace, entry.primary)
        data: bytes | LookupMiss | None = made.get(key)
        if data is None:
            data = await self._shared.get(key)
        there = decode(data, (entry.primary, ""), namespace, now) if isinstance(data, bytes) else data
        expires = now + ttl
        if isinstance(there, Marker):
            names = with_names(there.names, entry.stored.vary)
            known = (entry.variant, *(v for v in there.variants if v != entry.variant))
            same = names == there.names and set(known) == set(there.variants)
            if same and there.expires >= expires:
                return ()
            marker = Marker(
                entry.primary,
                names,
                known[:MOST_VARIANTS],
                max(expires, there.expires),
                max(order, there.order),
            )
            dropped = [Write(record_key(namespace, entry.primary, v), None) for v in known[MOST_VARIANTS:]]
        else:
            marker = Marker(entry.primary, (entry.stored.vary,), (entry.variant,), expires, order)
            dropped = []
        encoded = encode_marker(marker, namespace)
        return () if encoded is None else (Write(key, encoded, marker.expires - now), *dropped)
