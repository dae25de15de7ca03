"""Large entries are read from L2 once and held once, however many ask: L1 here is too small for any."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.vocabulary import LookupMiss, Tier
from edgeproxy.store.large import LARGE
from edgeproxy.store.memory import LARGE as LARGE_IN_MEMORY
from edgeproxy.store.memory import is_being_read
from edgeproxy.store.open import open_store
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.store.make import asking, make_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.engine.background import Background
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.tiered import TieredStore
    from tests.support.driven import DrivenClock

BODY = bytes(range(256)) * (LARGE // 256 + 1)
PRIMARY = "http://api.example/large"
nothing = asking()


@pytest.fixture
async def store(clock: DrivenClock, background: Background, tmp_path: Path) -> AsyncIterator[TieredStore]:
    store = await open_store(
        f"lmdb:{tmp_path / 'store'}", clock=clock, spawn=background.spawn, state_dir=tmp_path / "state",
        l1_bytes=LARGE // 2, l2_bytes=16 * 2**20, budget=5.0,
    )  # fmt: skip
    yield store
    await store.close()


async def stored(store: TieredStore, target: str = "/large", body: bytes = BODY) -> None:
    assert store.shared is not None
    assert store.put(make_entry(target, body, epoch=store.epoch))
    await store.shared.flushed()
    gc.collect()


def reads(store: TieredStore) -> int:
    assert store.shared is not None
    return store.shared.counts["reads"]


async def looked_up(store: TieredStore) -> Entry:
    found = await store.lookup(PRIMARY, nothing)
    assert found.entry is not None
    assert found.tier is Tier.L2
    return found.entry


async def test_all_who_ask_at_once_are_given_one(store: TieredStore) -> None:
    await stored(store)
    entries = await asyncio.gather(*(looked_up(store) for _ in range(20)))
    assert reads(store) == 1
    assert all(entry is entries[0] for entry in entries)
    assert entries[0].body == BODY


async def test_who_asks_while_it_is_in_use_is_given_the_same(store: TieredStore) -> None:
    await stored(store)
    first, again = await looked_up(store), await looked_up(store)
    same = first is again
    assert same
    assert reads(store) == 1
    del first, again
    await asyncio.sleep(0)  # the loop's own step holds what woke this test
    gc.collect()
    await looked_up(store)
    assert reads(store) == 2


async def test_who_leaves_while_it_is_read_takes_it_from_nobody(store: TieredStore) -> None:
    await stored(store)
    leaves = asyncio.ensure_future(looked_up(store))  # noqa: TID251 - a client that will leave
    stays = asyncio.ensure_future(looked_up(store))  # noqa: TID251 - and one that will not
    await asyncio.sleep(0)
    leaves.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaves
    assert (await stays).body == BODY
    assert reads(store) == 1


async def test_what_cannot_wait_leaves_a_reading_that_others_join(store: TieredStore) -> None:
    await stored(store)
    assert store.lookup_now(PRIMARY, nothing) is None
    assert (await looked_up(store)).body == BODY
    assert reads(store) == 1


async def test_purged_while_it_is_in_use(store: TieredStore) -> None:
    await stored(store)
    held = await looked_up(store)
    await store.purge(PurgeOrder(PurgeKind.ALL, ""))
    found = await store.lookup(PRIMARY, nothing)
    assert found.entry is None
    assert found.miss in (LookupMiss.PURGED, LookupMiss.ABSENT)
    assert held.body == BODY


async def test_what_is_newer_takes_its_place(store: TieredStore) -> None:
    await stored(store)
    old = await looked_up(store)
    await stored(store, body=BODY[::-1])
    assert (await looked_up(store)).body == BODY[::-1]
    await stored(store, body=b"small")
    assert (await looked_up(store)).body == b"small"
    assert old.body == BODY


async def test_what_is_stale_is_looked_for_in_l2_again(store: TieredStore, clock: DrivenClock) -> None:
    """Another worker may have stored a newer one there."""
    await stored(store)
    held = await looked_up(store)
    await clock.advance(61)
    await store.lookup(PRIMARY, nothing)
    assert reads(store) == 2
    assert held.body == BODY


async def test_l1_spares_what_is_being_sent(
    clock: DrivenClock, background: Background, tmp_path: Path
) -> None:
    """Evicting it would free nothing, and the next to ask would bring in a second one."""
    store = await open_store(
        "memory:", clock=clock, spawn=background.spawn, state_dir=tmp_path, l1_bytes=3 * LARGE_IN_MEMORY,
        l2_bytes=0, budget=5.0,
    )  # fmt: skip
    try:
        body = bytes(LARGE_IN_MEMORY)
        store.put(make_entry("/large", body, epoch=store.epoch))
        store.put(make_entry("/other", bytes(LARGE_IN_MEMORY), epoch=store.epoch))
        sending = memoryview(body)
        del body
        for number in range(40):
            store.put(make_entry(f"/{number}", bytes(100_000), epoch=store.epoch))
        entry = store.peek(PRIMARY, nothing).entry
        assert entry is not None
        assert is_being_read(entry)
        assert store.peek("http://api.example/other", nothing).entry is None
        assert store.memory.bytes <= 3 * LARGE_IN_MEMORY
        del sending
        assert not is_being_read(entry)
        for number in range(40):
            store.put(make_entry(f"/{number}", bytes(100_000), epoch=store.epoch))
        assert store.peek(PRIMARY, nothing).entry is None
    finally:
        await store.close()
