"""What a purge would concern, counted without purging.

Rules of this file: an entry that both tiers hold counts once. What a purge before it has made useless does
not count. Between SLICE records others have their turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.cluster.epoch import GONE
from edgeproxy.store.codec import coordinates
from edgeproxy.store.purge import concerns

if TYPE_CHECKING:
    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.store.memory import MemoryStore
    from edgeproxy.store.purge import PurgeOrder
    from edgeproxy.store.records import Records
    from edgeproxy.store.shared import SharedStore

SLICE = 200


async def would_purge(
    order: PurgeOrder, memory: MemoryStore, shared: SharedStore, records: Records, table: PurgeTable
) -> tuple[int, int] | None:
    """Objects and octets; None where the shared store cannot tell."""
    objects = total = 0
    after = ""
    while True:
        try:
            found = shared.cache.scan(after, SLICE)
        except Exception:  # noqa: BLE001  # a store that fails cannot tell
            return None
        if found is None:
            return None
        if not found:
            break
        after = found[-1][0]
        for _, head, size in found:
            place = coordinates(head, table.incarnation)
            if (
                place is not None
                and concerns(order, place.host, place.target, place.tags)
                and table.verdict(place.host, place.target, place.tags, place.epoch) is not GONE
            ):
                objects += 1
                total += size
        await asyncio.sleep(0)
    alone = await memory.count(order, lambda entry: not records.holds(entry))
    return objects + alone[0], total + alone[1]
