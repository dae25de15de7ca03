"""Both tiers behind one face: the Store that the engine asks (store/base.py).

Rules of this file:

- Whatever is read is compared with the purges, and again at the moment it goes into L1: between the two a
  purge may have returned.
- A write goes into L1 at once and into L2 behind the request's back; a purge that overtakes it on the way
  stops it there, and every later reader would notice anyway.
- A purge raises the number, makes that durable, and only then returns. It deletes nothing: its cost does not
  depend on how much is stored.
- What stands in L2, and under which keys, is records.py's affair.
- With a purge log of many nodes (cluster/bus.py), L2 is asked only while this node follows the log, and L1 is
  empty and stays so once it has not been followed for the lease.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from edgeproxy.cluster.epoch import GONE, SoftSince
from edgeproxy.key import place_of
from edgeproxy.policy.language import LANGUAGE, speaks, wants
from edgeproxy.policy.vary import variant_id
from edgeproxy.policy.vocabulary import LookupMiss, NotStored, Tier
from edgeproxy.store.base import Found
from edgeproxy.store.codec import Marker
from edgeproxy.store.dry_run import would_purge
from edgeproxy.store.entry import Entry
from edgeproxy.store.purge import PurgeReceipt
from edgeproxy.store.records import Record, Records
from edgeproxy.store.uncacheable import Uncacheable

if TYPE_CHECKING:
    from collections.abc import Callable

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

_ABSENT = Found(None, miss=LookupMiss.ABSENT)
_LANGUAGES = 4
"""Variants of a key that are looked at for their language."""
_SILENT = frozenset({LookupMiss.TIMEOUT, LookupMiss.ERROR, LookupMiss.BREAKER_OPEN})


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
        self._records = None if shared is None else Records(shared, table, clock, memory.packing, bus)
        self.open = memory.open
        self.peek = memory.peek
        """L1, synchronous: bound directly, since every request passes here."""
        self.packed = memory.packed
        self.l1_hits = self.l2_hits = self.l2_misses = 0
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
        records = self._records
        if records is None:
            return _ABSENT
        began = self._clock.monotonic()
        return self._counted(await self._ask(records, primary, select, record), began)

    def _counted(self, found: Found, began: float) -> Found:
        if found.entry is None:
            self.l2_misses += 1
        else:
            self.l2_hits += 1
        return Found(found.entry, found.tier, found.miss, found.others, self._clock.monotonic() - began)

    def lookup_now(self, primary: str, select: Select) -> Found | None:
        """As ``lookup``, where the shared store answers at once; None where that takes waiting. What it gives
        may be packed."""
        shared, records = self.shared, self._records
        if shared is None or records is None:
            return _ABSENT
        if not shared.cache.immediate or self.hooks is not None:
            return None
        record = None
        if self.bus is None:
            # Nearly always it is one small record or none.
            began = self._clock.monotonic()
            record = records.at_once(primary)
            if isinstance(record, LookupMiss):
                return self._counted(Found(None, miss=record), began)
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
        self, records: Records, primary: str, select: Select, record: Record | None = None
    ) -> Found:
        """``record``: what stands under the key, if that is known."""
        if self.bus is not None and not self.bus.ready:
            return Found(None, miss=LookupMiss.ERROR)
        until = self._clock.now() + records.budget
        if record is None:
            record = await records.read(primary, "", until)
        if isinstance(record, LookupMiss):
            return Found(None, miss=record)
        if isinstance(record, Entry):
            return await self._promote(record, select)
        miss, others = LookupMiss.ABSENT, True
        for names in record.names:
            values = select(names)
            variant = await records.read(primary, variant_id(names, values), until)
            if isinstance(variant, Entry):
                if variant.stored.vary == names and variant.stored.selecting == tuple(values):
                    found = await self._promote(variant, select)
                    if found.entry is not None:
                        return found
                    miss = LookupMiss.PURGED
                    break
            elif isinstance(variant, LookupMiss) and variant is not LookupMiss.ABSENT:
                miss = variant
                if miss in _SILENT:
                    break
        spoken = None
        if miss is not LookupMiss.PURGED:
            spoken = await self._in_language(records, primary, record, select, until)
        if spoken is not None:
            return await self._promote(spoken, select)
        if record.epoch < self.table.current:
            # What a purge of all of them concerns is not there for anybody. Their tags are not known here: to
            # read them for this would cost more than the word that tells it is worth.
            others = self.table.verdict(*place_of(primary), (), record.epoch) is not GONE
        return Found(None, miss=miss, others=others)

    async def _in_language(
        self, records: Records, primary: str, marker: Marker, select: Select, until: float
    ) -> Entry | None:
        """The variant in the language that the request wants most (policy/language.py), if there is one."""
        wanted = [
            (names, values, language)
            for names in marker.names
            if LANGUAGE in names and (language := wants(names, values := select(names))) is not None
        ]
        for variant in marker.variants[:_LANGUAGES] if wanted else ():
            entry = await records.read(primary, variant, until)
            if isinstance(entry, Entry):
                if any(speaks(entry.stored, *want) for want in wanted):
                    return entry
            elif entry in _SILENT:
                break
        return None

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
        self._uncacheable.forget(entry.primary)
        if not entry.current and self.unkept(entry.size) is not None:
            return False
        if self._records is not None:
            self._records.write(entry, new=True)
        return True

    def why_not(self, entry: Entry) -> NotStored:
        if self.overtaken(entry):
            return NotStored.PURGED
        return self.unkept(entry.size) or NotStored.OVERTAKEN

    def unkept(self, octets: int) -> NotStored | None:
        if octets < self.memory.max_bytes:
            return None
        if self.bus is not None and not self.bus.ready:
            return NotStored.UNHEARD  # records.py would not write it either
        return NotStored.TOO_LARGE if self._records is None else None

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
        if self.memory.resized(entry) and self._records is not None:
            self._records.write(entry, new=False)

    def forget(self, entry: Entry) -> None:
        self.memory.remove(entry)
        if self._records is not None:
            self._records.delete(entry)

    def note_uncacheable(self, primary: str) -> None:
        self._uncacheable.note(primary)

    def is_uncacheable(self, primary: str) -> bool:
        return primary in self._uncacheable

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
        if self.shared is None or self._records is None:
            return await self.memory.count(order)
        return await would_purge(order, self.memory, self.shared, self._records, self.table)

    # Looking at it

    def inspect(self, primary: str) -> list[Entry]:
        """The usable entries of a key in L1."""
        return self.memory.inspect(primary)

    async def inspect_shared(self, primary: str) -> list[Entry]:
        """The usable entries of a key in L2, nothing promoted."""
        records = self._records
        if records is None or (self.bus is not None and not self.bus.ready):
            return []
        record = await records.read(primary, "")
        found: list[Record] = [record]
        if isinstance(record, Marker):
            found = [await records.read(primary, variant) for variant in record.variants]
        entries = [record for record in found if isinstance(record, Entry)]
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
        shared, records = self.shared, self._records
        if shared is not None and records is not None:
            told |= {
                "l2": shared.state,
                "l2_name": shared.name,
                "l2_hits": self.l2_hits,
                "l2_misses": self.l2_misses,
                "l2_corrupt_total": records.corrupt,
                "l2_foreign_total": records.foreign,
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
