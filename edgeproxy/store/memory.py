"""L1: the entries that one worker holds in memory, least recently used out first.

Rules of this file:

- Bounded in octets with the overhead counted: what an entry takes is charged when it comes in and again
  when it grows or shrinks.
- Answers are packed (packed.py), all but the few that the ordinary way has used last.
- The hot path is ``peek``: one dict lookup and one comparison of integers. An entry remembers the purge
  number it was last found good at; only when that has changed is the purge table asked.
- Nothing older replaces anything newer, and nothing that a purge has overtaken comes in. A soft purge
  replaces the entry by one that is stale since then.
- The newest answer says what a key varies on: one that varies drops one that did not, and the other way
  round. A key holds at most MOST_VARIANTS.
- Where Accept-Language selects, a request that no variant is literally for may be given the one in the
  language that it wants most (policy/language.py). Such an entry is marked as lent, and made anew when
  another variant comes in that may fit better: so nobody who remembers it (the lane) goes on giving it.
- A large body that is being sent is not evicted before others: that would free nothing, and whoever asks for
  it next would bring in a second one. So the budget holds for what is on its way to slow readers as well.
- No I/O, no awaiting: everything but ``count`` happens in one step of the loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from sys import getrefcount
from typing import TYPE_CHECKING, final

from edgeproxy.cluster.epoch import CURRENT, GONE, GOOD, SoftSince
from edgeproxy.policy.language import LANGUAGE, speaks, wants
from edgeproxy.policy.vary import variant_id
from edgeproxy.policy.vocabulary import LookupMiss, Tier
from edgeproxy.store.base import Found
from edgeproxy.store.codec import MOST_NAME_LISTS, MOST_VARIANTS
from edgeproxy.store.packed import Packing
from edgeproxy.store.purge import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeproxy.cluster.epoch import PurgeTable, Verdict
    from edgeproxy.policy.stored import Stored
    from edgeproxy.store.base import Select
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.packed import Recipe
    from edgeproxy.store.purge import PurgeOrder

_ABSENT = Found(None, miss=LookupMiss.ABSENT)
_PURGED = Found(None, miss=LookupMiss.PURGED)
_OTHERS = Found(None, miss=LookupMiss.ABSENT, others=True)
_PURGED_ONE = Found(None, miss=LookupMiss.PURGED, others=True)

_SLICE = 2000
"""Entries counted between two pauses."""
LARGE = 1024 * 1024
"""Octets of a body of which it matters who else holds it."""
MOST_SPARED = 16
"""Entries that one making of room passes over."""
_HELD_ONCE = 2
"""References to an attribute's value: the attribute's, and that of who counts them."""
MOST_OPEN = 1024
"""Entries that are not packed, at most: those that the ordinary way has used last."""
MOST_YOUNG = 64
SHARE_OPEN = 64 * 1024
"""Octets of the budget for each of them: a small store packs all."""


@final
class _Variants:
    """The entries of one key whose answers vary. ``names``: lists of selecting fields, newest first."""

    __slots__ = ("by_id", "names")

    def __init__(self) -> None:
        self.names: tuple[tuple[str, ...], ...] = ()
        self.by_id: dict[str, Entry] = {}


class MemoryStore:
    """``max_bytes`` for all entries together. The table is the node's."""

    def __init__(self, max_bytes: int, table: PurgeTable) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.entries = 0
        self.evictions = 0
        self._table = table
        self._words = table.words
        self._slots: OrderedDict[str, Entry | _Variants] = OrderedDict()
        self.packing = Packing()
        self._open: OrderedDict[Entry, Found] = OrderedDict()
        """Entries that are not packed, with their ready answers; the oldest is packed next."""
        self._most_open = min(MOST_OPEN, max_bytes // SHARE_OPEN)
        self._young: OrderedDict[Entry, None] = OrderedDict()
        """Entries that came in last, not asked for yet. Packed while the processor has them at hand."""
        self._most_young = min(MOST_YOUNG, self._most_open)

    def peek(self, primary: str, select: Select) -> Found:
        """The entry that the request selects, if it is here and no hard purge concerns it."""
        entry = self._slots.get(primary)
        if entry is None:
            return _ABSENT
        if type(entry) is _Variants:
            return self._peek_variants(primary, entry, select)
        if entry.checked != self._words[CURRENT]:
            good = self._still_good(entry)
            if good is None:
                return _PURGED
            entry = good
        self._slots.move_to_end(primary)
        return self._open.get(entry) or self._opened(entry)

    def packed(self, primary: str) -> Entry | None:
        """The entry of a key that does not vary, where it is here, packed, and known to be good: it stays
        packed. None: ``peek`` knows."""
        entry = self._slots.get(primary)
        if entry is None or type(entry) is _Variants or not entry.is_packed:
            return None
        if entry.checked != self._words[CURRENT]:
            return None
        self._slots.move_to_end(primary)
        return entry

    def _peek_variants(self, primary: str, slot: _Variants, select: Select) -> Found:
        for names in slot.names:
            variant = variant_id(names, select(names))
            entry = slot.by_id.get(variant)
            if entry is None:
                continue
            good = self._good(entry)
            if good is None:
                return _PURGED_ONE if self._has_good(slot) else _PURGED
            self._slots.move_to_end(primary)
            del slot.by_id[variant]
            slot.by_id[variant] = good  # most recently used last
            return self._open.get(good) or self._opened(good)
        for names in slot.names:
            if LANGUAGE in names and (found := self._peek_language(primary, slot, names, select(names))):
                return found
        return _OTHERS if self._has_good(slot) else _PURGED

    def _has_good(self, slot: _Variants) -> bool:
        """Whether any variant is left that no purge concerns: what nobody will be given is not there."""
        while slot.by_id:
            if self._good(next(reversed(slot.by_id.values()))) is not None:
                return True
        return False

    def _peek_language(
        self, primary: str, slot: _Variants, names: tuple[str, ...], values: Sequence[str | None]
    ) -> Found | None:
        language = wants(names, values)
        if language is None:
            return None
        for entry in reversed(list(slot.by_id.values())):
            if not speaks(entry.stored, names, values, language):
                continue
            good = self._good(entry)
            if good is None:
                return _PURGED_ONE if self._has_good(slot) else _PURGED
            self._slots.move_to_end(primary)
            good.lent = True
            return self._open.get(good) or self._opened(good)
        return None

    def put(self, entry: Entry) -> bool:
        """False if a purge or a later fetch has overtaken the entry. One larger than the whole store is
        not held, and neither is the one it replaces."""
        current = self._words[CURRENT]
        # Nothing can have overtaken what was begun at the present number: the table need not be asked.
        verdict = GOOD if entry.epoch == current else self._judge(entry, -1)
        if verdict is GONE:
            return False
        entry = _softened(entry, verdict)
        if entry.primary in self._slots:
            if self._newer_than(entry):
                return False
            self._make_place(entry)
        entry.checked = current
        if not self._most_open:
            entry.pack(self.packing)
        entry.charged = entry.size
        if entry.charged > self.max_bytes:
            return True
        entry.current = True
        self.bytes += entry.charged
        self.entries += 1
        if entry.variant:
            slot = self._slots.get(entry.primary)
            if not isinstance(slot, _Variants):
                slot = self._slots[entry.primary] = _Variants()
            names = with_names(slot.names, entry.stored.vary)
            if names != slot.names and slot.names:
                # What the key varies on has changed: a request may be given another entry than before.
                for other in slot.by_id.values():
                    other.current = False
            self._call_back(slot)
            slot.names = names
            slot.by_id[entry.variant] = entry
        else:
            self._slots[entry.primary] = entry
        self._slots.move_to_end(entry.primary)
        if self._most_young and not entry.is_packed:
            self._young[entry] = None
            if len(self._young) > self._most_young:
                oldest = self._young.popitem(last=False)[0]
                oldest.pack(self.packing)
                self._charge(oldest)
        self._shrink()
        return True

    def recipe(self, stored: Stored) -> Recipe | None:
        """See ``Store.recipe``."""
        return self.packing.recipe(stored)

    def _call_back(self, slot: _Variants) -> None:
        """What was given to requests that are literally for another variant is to be looked up again."""
        for entry in list(slot.by_id.values()):
            if entry.lent:
                entry.lent = False
                self._exchange(entry, entry.copied())

    def selecting(self, primary: str) -> tuple[tuple[str, ...], ...]:
        """Lists of the fields that tell the entries of a key apart; () where nothing does."""
        slot = self._slots.get(primary)
        return slot.names if isinstance(slot, _Variants) else ()

    def recheck(self, entry: Entry) -> bool:
        """For who holds an entry that is ``current``: is it good at the present purge number too?"""
        return self._held(entry.primary, entry.variant) is entry and self._still_good(entry) is entry

    def touch(self, primary: str) -> None:
        """Count as a use of the key."""
        if primary in self._slots:
            self._slots.move_to_end(primary)

    def remove(self, entry: Entry) -> None:
        """Drop exactly this entry, if it is the one held under its key and variant."""
        if self._held(entry.primary, entry.variant) is entry:
            self._drop(entry)

    def resized(self, entry: Entry) -> bool:
        """The entry has got a coding, or a better one: charge it anew, and let nobody go on with the
        answers made before. False if it is not held; one that a soft purge has put in its place shares its
        codings and counts as the same."""
        held = self._held(entry.primary, entry.variant)
        if held is None or held.codings is not entry.codings:
            return False
        if held.answers:
            held.let_go_of_worse()
        self._charge(held)
        self._shrink()
        return True

    def grown(self, entry: Entry) -> None:
        """An answer is held ready for an entry that is ``current``: charge it anew."""
        self._charge(entry)
        self._shrink()

    def holds(self, primary: str, variant: str) -> Entry | None:
        """The entry under a key and variant, purged or not, without counting as a use."""
        return self._held(primary, variant)

    def inspect(self, primary: str) -> list[Entry]:
        """All variants that may still be used."""
        slot = self._slots.get(primary)
        return [good for entry in _all_held(slot) if (good := self._still_good(entry)) is not None]

    async def count(
        self, order: PurgeOrder, also: Callable[[Entry], bool] = lambda _: True
    ) -> tuple[int, int]:
        """How many entries, and octets, the order would purge, of those for which ``also`` holds. The loop
        runs on between slices."""
        objects = total = 0
        for at, primary in enumerate(list(self._slots)):
            for entry in _all_held(self._slots.get(primary)):
                if matches(order, entry) and also(entry) and (good := self._still_good(entry)) is not None:
                    objects += 1
                    total += good.charged
            if at % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        return objects, total

    def clear(self) -> None:
        for slot in self._slots.values():
            for entry in _all_held(slot):
                entry.current = False
                entry.let_go()
        self._slots.clear()
        self._open.clear()
        self._young.clear()
        self.bytes = self.entries = 0

    def open(self, entry: Entry) -> None:
        """Have what it stores at hand, of one that may be held here."""
        if self._held(entry.primary, entry.variant) is entry:
            self._opened(entry)
        else:
            entry.unpack()

    def _opened(self, entry: Entry) -> Found:
        """The entry ready to be answered from, unpacked for a while."""
        found = self._open.get(entry)
        if found is not None:
            return found
        found = Found(entry, Tier.L1)
        if self._most_open:
            if entry.is_packed:
                entry.unpack()
                self._charge(entry)
            else:
                self._young.pop(entry, None)
            self._open[entry] = found
            if len(self._open) > self._most_open:
                oldest = self._open.popitem(last=False)[0]
                oldest.pack(self.packing)
                self._charge(oldest)
        return found

    def _good(self, entry: Entry) -> Entry | None:
        return entry if entry.checked == self._words[CURRENT] else self._still_good(entry)

    def _still_good(self, entry: Entry) -> Entry | None:
        """Ask the table, and remember the number it was asked at. What it is now, if it may be used; dropped
        where it may not."""
        current = self._words[CURRENT]
        verdict = self._judge(entry, entry.checked)
        if verdict is GONE:
            self._drop(entry)
            return None
        softer = _softened(entry, verdict)
        if softer is not entry:
            self._exchange(entry, softer)
        softer.checked = current
        return softer

    def _judge(self, entry: Entry, since: int) -> Verdict:
        marks = entry.marks
        if not marks:
            marks = self._table.marks(entry.host, entry.target, entry.tags)
            entry.mark(marks)
            if entry.charged:
                self._charge(entry)
        return self._table.judge(marks, entry.host, entry.target, entry.epoch, since)

    def _exchange(self, old: Entry, new: Entry) -> None:
        """Have ``new`` in the place of ``old``."""
        slot = self._slots[old.primary]
        if isinstance(slot, _Variants):
            slot.by_id[old.variant] = new
        else:
            self._slots[old.primary] = new
        self._uncharge(old)
        new.current = True
        new.charged = new.size
        self.bytes += new.charged
        self.entries += 1
        self._opened(new)
        if not self._most_open:
            new.pack(self.packing)
            self._charge(new)

    def _newer_than(self, entry: Entry) -> bool:
        """Has a fetch that began later stored its answer? Another variant's fetch counts only where it
        says something else about whether the key varies."""
        slot = self._slots.get(entry.primary)
        if slot is None:
            return False
        if isinstance(slot, _Variants) and entry.variant:
            held = slot.by_id.get(entry.variant)
            return held is not None and held.order > entry.order
        return any(held.order > entry.order for held in _all_held(slot))

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

    def _held(self, primary: str, variant: str) -> Entry | None:
        slot = self._slots.get(primary)
        if isinstance(slot, _Variants):
            return slot.by_id.get(variant)
        return slot if slot is not None and slot.variant == variant else None

    def _drop(self, entry: Entry) -> None:
        slot = self._slots[entry.primary]
        if isinstance(slot, _Variants):
            del slot.by_id[entry.variant]
            if not slot.by_id:
                del self._slots[entry.primary]
        else:
            del self._slots[entry.primary]
        self._uncharge(entry)

    def _charge(self, entry: Entry) -> None:
        """Anew, of one that is held."""
        charge = entry.size
        self.bytes += charge - entry.charged
        entry.charged = charge

    def _uncharge(self, entry: Entry) -> None:
        """It is held no more."""
        entry.current = False
        self.bytes -= entry.charged
        self.entries -= 1
        entry.charged = 0
        self._young.pop(entry, None)
        self._open.pop(entry, None)
        if entry.answers:
            entry.let_go()

    def _shrink(self) -> None:
        spared = 0
        while self.bytes > self.max_bytes and self._slots:
            primary, slot = next(iter(self._slots.items()))
            entry = next(_all_held(slot))
            if len(entry.body) >= LARGE and spared < MOST_SPARED and is_being_read(entry):
                spared += 1
                self._slots.move_to_end(primary)
                continue
            self._drop(entry)
            self.evictions += 1


def is_being_read(entry: Entry) -> bool:
    """Somebody besides the entry holds its body: it is being sent to a client, or written."""
    return getrefcount(entry.body) > _HELD_ONCE


def with_names(lists: tuple[tuple[str, ...], ...], names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The lists of selecting fields with ``names`` as the newest; the oldest ones fall out."""
    if lists[:1] == (names,):
        return lists
    return (names, *(known for known in lists if known != names))[:MOST_NAME_LISTS]


def _all_held(slot: Entry | _Variants | None) -> Iterator[Entry]:
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
    return entry.copied(stored=replace(entry.stored, freshness=freshness))
