"""Both tiers behind one face: the Store that the engine asks (store/base.py).

Rules of this file:

- Whatever is read is compared with the purges, and again at the moment it goes into L1: between the two a
  purge may have returned.
- A write goes into L1 at once and into L2 behind the request's back; a purge that overtakes it on the way
  stops it there, and every later reader would notice anyway.
- A purge raises the number, makes that durable, and only then returns. It deletes nothing: its cost does not
  depend on how much is stored.
- Where answers vary, the primary record in L2 is a marker that lists the selecting fields and the known
  variants; the entries lie under their own keys.
- With a purge log of many nodes (cluster/bus.py), L2 is asked only while this node follows the log, and L1 is
  empty and stays so once it has not been followed for the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from edgeproxy.cluster.epoch import GONE, SoftSince, logged_part
from edgeproxy.policy.language import LANGUAGE, speaks, wants
from edgeproxy.policy.vary import variant_id
from edgeproxy.policy.vocabulary import LookupMiss, Tier
from edgeproxy.store.base import Found
from edgeproxy.store.codec import (
    MOST_VARIANTS,
    Coordinates,
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
from edgeproxy.store.purge import PurgeReceipt, concerns
from edgeproxy.store.shared import Write
from edgeproxy.store.uncacheable import Uncacheable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.bus import RedisBus
    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.cluster.lease import NodeLeases
    from edgeproxy.cluster.redis_lease import ClusterLeases
    from edgeproxy.policy.stored import Stored
    from edgeproxy.store.base import Select
    from edgeproxy.store.memory import MemoryStore
    from edgeproxy.store.packed import Recipe
    from edgeproxy.store.purge import NodeReceipt, PurgeOrder
    from edgeproxy.store.shared import SharedStore

Record = Entry | Marker | LookupMiss
"""What stands under a key of the shared store."""

_ABSENT = Found(None, miss=LookupMiss.ABSENT)
_LANGUAGES = 4
"""Variants of a key that are looked at for their language."""
_SILENT = frozenset({LookupMiss.TIMEOUT, LookupMiss.ERROR, LookupMiss.BREAKER_OPEN})
_SLICE = 200
"""Records of L2 counted between two pauses."""


class Hooks(Protocol):
    """Where tests may hold the store still."""

    async def before_promote(self) -> None: ...


class TieredStore:
    """``memory`` and ``table`` always; ``shared``, ``bus`` and ``leases`` where there are any. ``degraded``
    says why a configured shared store is not there ("" if nothing is wrong)."""

    def __init__(
        self,
        memory: MemoryStore,
        table: PurgeTable,
        clock: Clock,
        *,
        shared: SharedStore | None = None,
        bus: RedisBus | None = None,
        hooks: Hooks | None = None,
        degraded: str = "",
        leases: NodeLeases | ClusterLeases | None = None,
    ) -> None:
        self.memory = memory
        self.table = table
        self.shared = shared
        self.bus = bus
        self.hooks = hooks
        self.leases = leases
        self.degraded = degraded
        self._clock = clock
        self._l1_bytes = memory.max_bytes
        if bus is not None:
            self._trust(trusting=bus.trusting)
            bus.on_trust = lambda trusting: self._trust(trusting=trusting)
        self._uncacheable = Uncacheable(clock)
        self._large = LargeEntries()
        self._frames = Frames(memory.packing)
        self.open = memory.open
        self.peek = memory.peek
        """L1, synchronous: bound directly, since every request passes here."""
        self.packed = memory.packed
        self.l1_hits = self.l2_hits = self.l2_misses = self.l2_corrupt = self.l2_foreign = 0
        self.purges = 0

    def _trust(self, *, trusting: bool) -> None:
        if trusting:
            self.memory.max_bytes = self._l1_bytes
        else:
            self.memory.max_bytes = 0
            self.memory.clear()

    # The Store protocol

    @property
    def epoch(self) -> int:
        return self.table.current

    async def lookup(self, primary: str, select: Select) -> Found:
        """Ask L2, and put what it has into L1. All the reads that it takes share one budget."""
        found = await self._lookup(primary, select)
        if found.entry is not None:
            self.open(found.entry)
        return found

    async def _lookup(self, primary: str, select: Select, record: Record | None = None) -> Found:
        shared = self.shared
        if shared is None:
            return _ABSENT
        began = self._clock.monotonic()
        return self._counted(await self._ask(shared, primary, select, record), began)

    def _counted(self, found: Found, began: float) -> Found:
        if found.entry is None:
            self.l2_misses += 1
        else:
            self.l2_hits += 1
        return Found(found.entry, found.tier, found.miss, found.others, self._clock.monotonic() - began)

    def lookup_now(self, primary: str, select: Select) -> Found | None:
        """As ``lookup``, where the shared store answers at once; None where that takes waiting. What it gives
        may be packed."""
        shared = self.shared
        if shared is None:
            return _ABSENT
        if not shared.cache.immediate or self.hooks is not None:
            return None
        record = None
        if self.bus is None and not self._large:
            # Nearly always it is one small record or none.
            began = self._clock.monotonic()
            namespace = self.table.incarnation
            key = record_key(namespace, primary)
            data = shared.get_now(key)
            if isinstance(data, LookupMiss):
                return self._counted(Found(None, miss=data), began)
            place = (namespace, primary, "")
            if len(data) >= LARGE:
                self._large.read(data, place, self._clock.now())  # whoever waits joins it
                return None
            record = self._decoded(shared, key, data, place)
            if type(record) is Entry:
                return self._counted(self._promoted(record, select), began)
        looking = self._lookup(primary, select, record)
        try:
            looking.send(None)
        except StopIteration as found:
            return found.value  # type: ignore[no-any-return]
        looking.close()  # it would wait for a thread, as large records do
        return None

    async def _ask(
        self, shared: SharedStore, primary: str, select: Select, record: Record | None = None
    ) -> Found:
        """``record``: what stands under the key, if that is known."""
        if self.bus is not None and not self.bus.ready:
            return Found(None, miss=LookupMiss.ERROR)
        until = self._clock.now() + shared.budget
        if record is None:
            record = await self._read(shared, primary, "", until)
        if isinstance(record, LookupMiss):
            return Found(None, miss=record)
        if isinstance(record, Entry):
            return await self._promote(record, select)
        miss = LookupMiss.ABSENT
        for names in record.names:
            values = select(names)
            variant = await self._read(shared, primary, variant_id(names, values), until)
            if isinstance(variant, Entry):
                if variant.stored.vary == names and variant.stored.selecting == tuple(values):
                    return await self._promote(variant, select)
            elif isinstance(variant, LookupMiss) and variant is not LookupMiss.ABSENT:
                miss = variant
                if miss in _SILENT:
                    break
        spoken = await self._in_language(shared, primary, record, select, until)
        if spoken is not None:
            return await self._promote(spoken, select)
        return Found(None, miss=miss, others=True)

    async def _in_language(
        self, shared: SharedStore, primary: str, marker: Marker, select: Select, until: float
    ) -> Entry | None:
        """The variant in the language that the request wants most (policy/language.py), if there is one."""
        wanted = [
            (names, values, language)
            for names in marker.names
            if LANGUAGE in names and (language := wants(names, values := select(names))) is not None
        ]
        for variant in marker.variants[:_LANGUAGES] if wanted else ():
            entry = await self._read(shared, primary, variant, until)
            if isinstance(entry, Entry):
                if any(speaks(entry.stored, *want) for want in wanted):
                    return entry
            elif entry in _SILENT:
                break
        return None

    async def _read(
        self, shared: SharedStore, primary: str, variant: str, until: float | None = None
    ) -> Record:
        namespace, now = self.table.incarnation, self._clock.now()
        place = (namespace, primary, variant)
        if self._large:
            known = self._large.known(place, now)
            if known is not None:
                return known if isinstance(known, Entry) else await asyncio.shield(known)
        key = record_key(namespace, primary, variant)
        left = None if until is None else until - now
        data = await shared.get(key, left)
        if isinstance(data, LookupMiss):
            return data
        if len(data) < LARGE:
            return self._decoded(shared, key, data, place)
        start = data[:8]
        reading = self._large.read(data, place, self._clock.now())
        del data  # who waits need not hold it too
        return self._usable(shared, key, await asyncio.shield(reading), start)

    def _decoded(self, shared: SharedStore, key: str, data: bytes, place: tuple[bytes, str, str]) -> Record:
        namespace, primary, variant = place
        record = decode(data, (primary, variant), namespace, self._clock.now(), self._frames)
        return self._usable(shared, key, record, data[:8])

    def _usable(self, shared: SharedStore, key: str, record: Record, start: bytes) -> Record:
        """The record; where it is none of ours, that is counted, and it goes where it is in our place."""
        if record is LookupMiss.CORRUPT:
            self.l2_corrupt += 1
            self._delete(shared, key)
        elif record is LookupMiss.FOREIGN:
            self.l2_foreign += 1
            if not other_version(start):
                self._delete(shared, key)  # under our key, so nobody else's: a copied record
        return record

    async def _promote(self, entry: Entry, select: Select) -> Found:
        if self.hooks is not None:
            await self.hooks.before_promote()
        return self._promoted(entry, select)

    def _promoted(self, entry: Entry, select: Select) -> Found:
        usable = self._as_purged(entry)
        if usable is None:
            return Found(None, miss=LookupMiss.PURGED)
        if not self.memory.max_bytes:
            return Found(usable, Tier.L2)  # L1 is off: nothing goes in, and nothing newer can be there
        if not entry.current and not self.memory.put(entry):
            # Overtaken between reading and now: by a newer entry, which then is here.
            found = self.memory.peek(entry.primary, select)
            return found if found.entry is not None else Found(None, miss=LookupMiss.PURGED)
        if entry.current and entry.is_packed:
            return Found(entry, Tier.L2)
        found = self.memory.peek(entry.primary, select)
        return Found(usable if found.entry is None else found.entry, Tier.L2)  # it may be too large for L1

    def _as_purged(self, entry: Entry) -> Entry | None:
        """What the purges leave of it."""
        verdict = self.table.verdict_on(entry)
        if verdict is GONE:
            return None
        if not isinstance(verdict, SoftSince):
            return entry
        freshness = entry.stored.freshness.stale_from(verdict.when)
        return entry.copied(stored=replace(entry.stored, freshness=freshness))

    def put(self, entry: Entry) -> bool:
        if not self.memory.put(entry):
            return False
        if self.shared is not None and (len(entry.body) >= LARGE or self._large):
            self._large.note(self._place(entry), entry)
        self._uncacheable.forget(entry.primary)
        self._write(entry)
        return True

    def _place(self, entry: Entry) -> tuple[bytes, str, str]:
        return (self.table.incarnation, entry.primary, entry.variant)

    def after_writes(self, call: Callable[[], None]) -> None:
        if self.shared is None:
            call()
        else:
            self.shared.after_writes(call)

    def recipe(self, stored: Stored) -> Recipe | None:
        return self.memory.recipe(stored)

    def overtaken(self, entry: Entry) -> bool:
        return self.table.verdict_on(entry) is GONE

    def update(self, entry: Entry) -> None:
        """The entry has got a coding: charge it anew in L1 and write it to L2 again. Not so if L1 does not
        hold it any more: what was forgotten or replaced meanwhile is not brought back."""
        if self.memory.resized(entry):
            self._write(entry)

    def forget(self, entry: Entry) -> None:
        self.memory.remove(entry)
        if self.shared is not None:
            self._large.forget(self._place(entry))
            key = record_key(self.table.incarnation, entry.primary, entry.variant)
            self._delete(self.shared, key)

    def note_uncacheable(self, primary: str) -> None:
        self._uncacheable.note(primary)

    def is_uncacheable(self, primary: str) -> bool:
        return primary in self._uncacheable

    # Writing to L2

    def _delete(self, shared: SharedStore, key: str) -> None:
        async def prepare(_: dict[str, bytes]) -> Sequence[Write]:
            return (Write(key, None),)

        shared.enqueue(prepare, 100)

    def _write(self, entry: Entry) -> None:
        shared = self.shared
        if shared is None or (not entry.is_packed and entry.stored.length != len(entry.body)):
            return

        async def prepare(made: dict[str, bytes]) -> Sequence[Write]:
            return await self._records(shared, entry, made)

        shared.enqueue(prepare, entry.size)

    async def _records(self, shared: SharedStore, entry: Entry, made: dict[str, bytes]) -> Sequence[Write]:
        """The records of one entry, now that they are about to be written."""
        ttl = entry.freshness.storage_ttl(self._clock.now())
        if ttl <= 0 or (self.bus is not None and not self.bus.ready) or self.overtaken(entry):
            return ()
        namespace = self.table.incarnation
        epoch = logged_part(entry.epoch) if self.bus is not None else entry.epoch
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
        order = order_octets(epoch, entry.started)
        return (write, *await self._marker(shared, entry, order, ttl, made))

    async def _marker(
        self, shared: SharedStore, entry: Entry, order: bytes, ttl: float, made: dict[str, bytes]
    ) -> Sequence[Write]:
        """The primary record with this variant in it, and the variant that had to go for it."""
        namespace, now = self.table.incarnation, self._clock.now()
        key = record_key(namespace, entry.primary)
        data: bytes | LookupMiss | None = made.get(key)
        if data is None:
            data = await shared.get(key)
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

    # Purging

    async def purge(self, order: PurgeOrder, *, wait: bool = True) -> PurgeReceipt:
        """When this returns, no worker of the node gives out what the order concerns, fetches in flight
        included; nor does another node, where the receipt is ``complete``. ``layers`` of the receipt names
        whatever has not been told yet, ``nodes`` those that have not answered. ``wait`` False: for no other
        node; a later purge that is waited for covers this one. Raises nothing."""
        self.purges += 1
        layers = {"l1": "ok"}
        nodes: tuple[NodeReceipt, ...] = ()
        if self.bus is not None:
            number, layers["l2"], nodes = await self.bus.publish(order, wait=wait)
        else:
            number = await asyncio.to_thread(self.table.apply, order, self._clock.now())
            if self.shared is not None:
                layers["l2"] = "ok"
        try:
            await asyncio.to_thread(self.table.flush)
        except OSError as error:
            layers["l1"] = f"not on disk: {error}"
        return PurgeReceipt(number, order.kind, order.soft, layers=layers, nodes=nodes)

    async def count(self, order: PurgeOrder) -> tuple[int, int] | None:
        """Objects and octets that the order would purge; None where the shared store cannot tell. An
        entry that both tiers hold counts once."""
        shared = self.shared
        if shared is None:
            return await self.memory.count(order)
        namespace = self.table.incarnation
        objects = total = 0
        after = ""
        while True:
            try:
                records = shared.cache.scan(after, _SLICE)
            except Exception:  # noqa: BLE001  # a store that fails cannot tell
                return None
            if records is None:
                return None
            if not records:
                break
            after = records[-1][0]
            for _, head, size in records:
                place = coordinates(head, namespace)
                if place is not None and self._would_purge(order, place):
                    objects += 1
                    total += size
            await asyncio.sleep(0)
        alone = await self.memory.count(order, lambda entry: not self._in_shared(shared, entry, namespace))
        return objects + alone[0], total + alone[1]

    def _would_purge(self, order: PurgeOrder, place: Coordinates) -> bool:
        return (
            concerns(order, place.host, place.target, place.tags)
            and self.table.verdict(place.host, place.target, place.tags, place.epoch) is not GONE
        )

    def _in_shared(self, shared: SharedStore, entry: Entry, namespace: bytes) -> bool:
        """Is a usable record of this entry in a store that answers at once?"""
        with contextlib.suppress(Exception):
            data = shared.cache.read_now(record_key(namespace, entry.primary, entry.variant))
            place = None if data is None else coordinates(data, namespace)
            return place is not None and (
                self.table.verdict(place.host, place.target, place.tags, place.epoch) is not GONE
            )
        return False

    # Looking at it

    def inspect(self, primary: str) -> list[Entry]:
        """The usable entries of a key in L1."""
        return self.memory.inspect(primary)

    async def inspect_shared(self, primary: str) -> list[Entry]:
        """The usable entries of a key in L2, nothing promoted."""
        shared = self.shared
        if shared is None or (self.bus is not None and not self.bus.ready):
            return []
        record = await self._read(shared, primary, "")
        records: list[Record] = [record]
        if isinstance(record, Marker):
            records = [await self._read(shared, primary, variant) for variant in record.variants]
        entries = [record for record in records if isinstance(record, Entry)]
        return [usable for entry in entries if (usable := self._as_purged(entry)) is not None]

    def stats(self) -> dict[str, object]:
        """Plain numbers and words, for the admin pages and metrics."""
        memory = self.memory
        told: dict[str, object] = {
            "epoch": self.table.current,
            "purges": self.purges,
            "l1_entries": memory.entries,
            "l1_bytes": memory.bytes,
            "l1_max_bytes": memory.max_bytes,
            "l1_evictions": memory.evictions,
            "uncacheable": len(self._uncacheable),
            "l2": "none" if not self.degraded else "unusable",
        }
        shared = self.shared
        if shared is not None:
            told |= {
                "l2": shared.state,
                "l2_name": shared.name,
                "l2_hits": self.l2_hits,
                "l2_misses": self.l2_misses,
                "l2_corrupt_total": self.l2_corrupt,
                "l2_foreign_total": self.l2_foreign,
                "l2_breaker_opened": shared.breaker.opened,
                "l2_queued": shared.queued,
            }
            told |= {f"l2_{name}": value for name, value in shared.counts.items()}
            told |= self._backend_facts(shared)
        if self.bus is not None:
            told |= {"bus": "ok" if self.bus.ready else self.bus.error, "bus_gaps": self.bus.gaps}
        return told

    def _backend_facts(self, shared: SharedStore) -> dict[str, object]:
        try:
            return {f"l2_store_{name}": value for name, value in shared.cache.facts().items()}
        except Exception as error:  # noqa: BLE001  # statistics never fail
            return {"l2_store_error": str(error)}

    async def health(self) -> dict[str, str]:
        """Each part: "ok", "none", or "degraded: " and why."""
        told = {"l1": "ok", "l2": "none"}
        if self.degraded:
            told["l2"] = f"degraded: {self.degraded}"
        elif self.shared is not None:
            told["l2"] = "ok" if self.shared.state == "ok" else f"degraded: {self.shared.state}"
        if self.bus is not None:
            told["bus"] = "ok" if self.bus.ready else f"degraded: {self.bus.error}"
            if not self.bus.trusting:
                told["l1"] = "degraded: not served from while the purge log is not followed"
            if not self.bus.ready and told["l2"] == "ok":
                told["l2"] = "degraded: not asked while the purge log is not followed"
        return told

    async def close(self) -> None:
        """Make the writes that wait, then let go of everything. Nothing may be asked afterwards."""
        if self.shared is not None:
            await self.shared.close()
        if self.bus is not None:
            await self.bus.close()
        if self.leases is not None:
            await self.leases.close()
        self.memory.clear()
        self.table.close()
