"""L1: the entries that one worker holds in memory, least recently used out first.

Rules of this file:

- Bounded in octets with the overhead counted: what an entry takes is charged when it comes in and again
  when it grows (``resized``).
- The hot path is ``peek``: one dict lookup and one comparison of integers. An entry remembers the purge
  number it was last found good at; only when that has changed is the purge table asked.
- Nothing older replaces anything newer, and nothing that a purge has overtaken comes in. A soft purge
  replaces the entry by one that is stale since then.
- The newest answer says what a key varies on: one that varies drops one that did not, and the other way
  round. A key holds at most MOST_VARIANTS.
- Where Accept-Language selects, a request that no variant is literally for may be given the one in the
  language that it wants most (policy/language.py). Such an entry is marked as lent, and made anew when
  another variant comes in that may fit better: so nobody who remembers it (the lane) goes on giving it.
- No I/O, no awaiting: everything but ``count`` happens in one step of the loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, final

from edgeproxy.cluster.epoch import CURRENT, GONE, GOOD, SoftSince
from edgeproxy.policy.language import LANGUAGE, speaks, wants
from edgeproxy.policy.vary import variant_id
from edgeproxy.policy.vocabulary import LookupMiss, Tier
from edgeproxy.store.base import Found
from edgeproxy.store.codec import MOST_NAME_LISTS, MOST_VARIANTS
from edgeproxy.store.purge import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeproxy.cluster.epoch import PurgeTable, Verdict
    from edgeproxy.store.base import Select
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.purge import PurgeOrder

_ABSENT = Found(None, miss=LookupMiss.ABSENT)
_PURGED = Found(None, miss=LookupMiss.PURGED)
_OTHERS = Found(None, miss=LookupMiss.ABSENT, others=True)

_SLICE = 2000
"""Entries counted between two pauses."""


@final
class _Held:
    """An entry as it is held: with its charge, its buckets in the purge table and its ready answer."""

    __slots__ = ("charged", "entry", "found", "lent", "marks")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.charged = entry.size
        self.marks: tuple[int, ...] | None = None
        """Its buckets in the purge table, once a purge has come."""
        self.lent = False
        entry.current = True
        self.found = Found(entry, Tier.L1)

    def become(self, entry: Entry) -> None:
        self.entry.current = False
        entry.current = True
        self.entry = entry
        self.found = Found(entry, Tier.L1)


@final
class _Variants:
    """The entries of one key whose answers vary. ``names``: lists of selecting fields, newest first."""

    __slots__ = ("by_id", "names")

    def __init__(self) -> None:
        self.names: tuple[tuple[str, ...], ...] = ()
        self.by_id: dict[str, _Held] = {}


class MemoryStore:
    """``max_bytes`` for all entries together. The table is the node's."""

    def __init__(self, max_bytes: int, table: PurgeTable) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.entries = 0
        self.evictions = 0
        self._table = table
        self._words = table.words
        self._slots: OrderedDict[str, _Held | _Variants] = OrderedDict()

    def peek(self, primary: str, select: Select) -> Found:
        """The entry that the request selects, if it is here and no hard purge concerns it."""
        slot = self._slots.get(primary)
        if slot is None:
            return _ABSENT
        if type(slot) is _Variants:
            return self._peek_variants(primary, slot, select)
        held = slot
        if held.entry.checked != self._words[CURRENT] and not self._still_good(held):
            self._drop(primary, held)
            return _PURGED
        self._slots.move_to_end(primary)
        return held.found

    def _peek_variants(self, primary: str, slot: _Variants, select: Select) -> Found:
        for names in slot.names:
            variant = variant_id(names, select(names))
            held = slot.by_id.get(variant)
            if held is None:
                continue
            if held.entry.checked != self._words[CURRENT] and not self._still_good(held):
                self._drop(primary, held)
                return _PURGED
            self._slots.move_to_end(primary)
            del slot.by_id[variant]
            slot.by_id[variant] = held  # most recently used last
            return held.found
        for names in slot.names:
            if LANGUAGE in names and (found := self._peek_language(primary, slot, names, select(names))):
                return found
        return _OTHERS

    def _peek_language(
        self, primary: str, slot: _Variants, names: tuple[str, ...], values: Sequence[str | None]
    ) -> Found | None:
        language = wants(names, values)
        if language is None:
            return None
        for held in reversed(list(slot.by_id.values())):
            if not speaks(held.entry.stored, names, values, language):
                continue
            if held.entry.checked != self._words[CURRENT] and not self._still_good(held):
                self._drop(primary, held)
                return _PURGED
            self._slots.move_to_end(primary)
            held.lent = True
            return held.found
        return None

    def put(self, entry: Entry) -> bool:
        """False if a purge or a later fetch has overtaken the entry. One larger than the whole store is
        not held, and neither is the one it replaces."""
        current = self._words[CURRENT]
        if current != entry.epoch:  # else no purge has come since the fetch began
            verdict = self._table.verdict_on(entry)
            if verdict is GONE:
                return False
            entry = _softened(entry, verdict)
        if entry.primary in self._slots:
            if self._newer_than(entry):
                return False
            self._make_place(entry)
        entry.checked = current
        held = _Held(entry)
        if held.charged > self.max_bytes:
            entry.current = False
            return True
        self.bytes += held.charged
        self.entries += 1
        if entry.variant:
            slot = self._slots.get(entry.primary)
            if not isinstance(slot, _Variants):
                slot = self._slots[entry.primary] = _Variants()
            names = with_names(slot.names, entry.stored.vary)
            if names != slot.names and slot.names:
                # What the key varies on has changed: a request may be given another entry than before.
                for other in slot.by_id.values():
                    other.entry.current = False
            self._call_back(slot)
            slot.names = names
            slot.by_id[entry.variant] = held
        else:
            self._slots[entry.primary] = held
        self._slots.move_to_end(entry.primary)
        self._shrink()
        return True

    @staticmethod
    def _call_back(slot: _Variants) -> None:
        """What was given to requests that are literally for another variant is to be looked up again."""
        for held in slot.by_id.values():
            if held.lent:
                held.lent = False
                held.become(replace(held.entry))

    def recheck(self, entry: Entry) -> bool:
        """For who holds an entry that is ``current``: is it good at the present purge number too?"""
        held = self._held(entry.primary, entry.variant)
        if held is None or held.entry is not entry:
            return False
        if not self._still_good(held):
            self._drop(entry.primary, held)
            return False
        return held.entry is entry

    def touch(self, primary: str) -> None:
        """Count as a use of the key."""
        if primary in self._slots:
            self._slots.move_to_end(primary)

    def remove(self, entry: Entry) -> None:
        """Drop exactly this entry, if it is the one held under its key and variant."""
        held = self._held(entry.primary, entry.variant)
        if held is not None and held.entry is entry:
            self._drop(entry.primary, held)

    def resized(self, entry: Entry) -> bool:
        """The entry has grown (a coding or a rendered head was added): charge it anew. False if it is not
        held; one that a soft purge has put in its place shares its codings and counts as the same."""
        held = self._held(entry.primary, entry.variant)
        if held is None or held.entry.codings is not entry.codings:
            return False
        charge = held.entry.size
        self.bytes += charge - held.charged
        held.charged = charge
        self._shrink()
        return True

    def holds(self, primary: str, variant: str) -> Entry | None:
        """The entry under a key and variant, purged or not, without counting as a use."""
        held = self._held(primary, variant)
        return None if held is None else held.entry

    def inspect(self, primary: str) -> list[Entry]:
        """All variants that may still be used."""
        good = [h for h in _all_held(self._slots.get(primary)) if self._still_good(h)]
        return [held.entry for held in good]

    async def count(
        self, order: PurgeOrder, also: Callable[[Entry], bool] = lambda _: True
    ) -> tuple[int, int]:
        """How many entries, and octets, the order would purge, of those for which ``also`` holds. The loop
        runs on between slices."""
        objects = total = 0
        for at, primary in enumerate(list(self._slots)):
            for held in _all_held(self._slots.get(primary)):
                if matches(order, held.entry) and also(held.entry) and self._still_good(held):
                    objects += 1
                    total += held.charged
            if at % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        return objects, total

    def clear(self) -> None:
        for slot in self._slots.values():
            for held in _all_held(slot):
                held.entry.current = False
        self._slots.clear()
        self.bytes = self.entries = 0

    def _still_good(self, held: _Held) -> bool:
        """Ask the table, and remember the number it was asked at."""
        entry = held.entry
        current = self._words[CURRENT]
        if held.marks is None:
            held.marks = self._table.marks(entry.host, entry.target, entry.tags)
        verdict = self._table.judge(held.marks, entry.host, entry.target, entry.epoch, entry.checked)
        if verdict is GONE:
            return False
        softer = _softened(entry, verdict)
        if softer is not entry:
            held.become(softer)
        softer.checked = current
        return True

    def _newer_than(self, entry: Entry) -> bool:
        """Has a fetch that began later stored its answer? Another variant's fetch counts only where it
        says something else about whether the key varies."""
        slot = self._slots.get(entry.primary)
        if slot is None:
            return False
        if isinstance(slot, _Variants) and entry.variant:
            held = slot.by_id.get(entry.variant)
            return held is not None and held.entry.order > entry.order
        return any(held.entry.order > entry.order for held in _all_held(slot))

    def _make_place(self, entry: Entry) -> None:
        """Drop what the entry replaces."""
        slot = self._slots.get(entry.primary)
        if isinstance(slot, _Variants) and entry.variant:
            held = slot.by_id.get(entry.variant)
            if held is not None:
                self._uncharge(held)
                del slot.by_id[entry.variant]
            elif len(slot.by_id) >= MOST_VARIANTS:
                self._uncharge(slot.by_id.pop(next(iter(slot.by_id))))
                self.evictions += 1
            if not slot.by_id:
                del self._slots[entry.primary]
        elif slot is not None:
            for held in _all_held(slot):
                self._uncharge(held)
            del self._slots[entry.primary]

    def _held(self, primary: str, variant: str) -> _Held | None:
        slot = self._slots.get(primary)
        if isinstance(slot, _Variants):
            return slot.by_id.get(variant)
        return slot if slot is not None and slot.entry.variant == variant else None

    def _drop(self, primary: str, held: _Held) -> None:
        slot = self._slots[primary]
        if isinstance(slot, _Variants):
            del slot.by_id[held.entry.variant]
            if not slot.by_id:
                del self._slots[primary]
        else:
            del self._slots[primary]
        self._uncharge(held)

    def _uncharge(self, held: _Held) -> None:
        held.entry.current = False
        self.bytes -= held.charged
        self.entries -= 1

    def _shrink(self) -> None:
        while self.bytes > self.max_bytes and self._slots:
            primary, slot = next(iter(self._slots.items()))
            self._drop(primary, next(_all_held(slot)))
            self.evictions += 1


def with_names(lists: tuple[tuple[str, ...], ...], names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The lists of selecting fields with ``names`` as the newest; the oldest ones fall out."""
    if lists[:1] == (names,):
        return lists
    return (names, *(known for known in lists if known != names))[:MOST_NAME_LISTS]


def _all_held(slot: _Held | _Variants | None) -> Iterator[_Held]:
    """Every entry of a slot, least recently used first. What is yielded last may be dropped meanwhile."""
    if isinstance(slot, _Variants):
        yield from list(slot.by_id.values())
    elif slot is not None:
        yield slot


def _softened(entry: Entry, verdict: Verdict) -> Entry:
    """The entry as a soft purge leaves it: a new one if that changes anything."""
    if verdict is GOOD or not isinstance(verdict, SoftSince):
        return entry
    freshness = entry.stored.freshness.stale_from(verdict.when)
    if freshness == entry.stored.freshness:
        return entry
    return replace(entry, stored=replace(entry.stored, freshness=freshness), heads={})
