"""One contract for every store: what holds whatever L2 there is."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.cluster.redis_link import connect, nodes_of
from edgeproxy.policy.vocabulary import LookupMiss, Tier
from edgeproxy.store.open import open_store
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.store.make import NOW, asking, make_entry, same

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from edgeproxy.engine.background import Background
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.tiered import TieredStore
    from tests.support.driven import DrivenClock

KINDS = [
    "memory",
    "lmdb",
    "redis",
    "memcached",
    # Each on one worker of the test run, since its servers take seconds to agree.
    pytest.param("cluster", marks=[pytest.mark.long, pytest.mark.xdist_group("redis cluster")]),
    pytest.param("tls", marks=[pytest.mark.long, pytest.mark.xdist_group("redis tls")]),
]
SHARED = KINDS[1:]
COUNTS = ("memory", "lmdb")
"""They can tell what they hold."""

nothing = asking()


def fresh_entry(store: TieredStore, *args: Any, **kwargs: Any) -> Entry:
    """An entry whose fetch began now."""
    return make_entry(*args, epoch=store.epoch, **kwargs)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "memory":
        return "memory:"
    if kind == "lmdb":
        return f"lmdb:{tmp_path / 'store'}"
    server = request.getfixturevalue(kind)
    if kind == "tls":
        return str(server).replace("?", f"/{int(uuid.uuid4()) % 16}?")
    return f"{server.url}/{int(uuid.uuid4()) % 16}" if kind == "redis" else str(server.url)


async def caught_up(store: TieredStore) -> None:
    """Until the node follows the purge log."""
    if store.bus is not None:
        await store.bus.followed.wait()


async def opened(url: str, clock: DrivenClock, background: Background, state: Path) -> TieredStore:
    # What a store holds is asked here, not how soon: on a busy machine 20 ms are over before a server has
    # answered.
    store = await open_store(
        url,
        clock=clock,
        spawn=background.spawn,
        state_dir=state,
        l1_bytes=10_000_000,
        l2_bytes=10_000_000,
        budget=5.0,
    )
    await caught_up(store)
    return store


@pytest.fixture
async def fresh(url: str, kind: str) -> None:
    if kind in ("redis", "cluster", "tls"):
        client = connect(url, connections=1)
        for node in await nodes_of(client):
            await node.flushdb()
        await client.aclose()


@pytest.fixture
async def store(
    url: str, fresh: None, clock: DrivenClock, background: Background, tmp_path: Path
) -> AsyncIterator[TieredStore]:
    store = await opened(url, clock, background, tmp_path / "state")
    yield store
    await store.close()


@pytest.fixture
async def reopen(
    url: str, fresh: None, clock: DrivenClock, background: Background, tmp_path: Path
) -> AsyncIterator[Callable[[], Awaitable[TieredStore]]]:
    """Open the store; each call closes the one before, as a restart of the process would."""
    current: list[TieredStore] = []

    async def restart() -> TieredStore:
        while current:
            await current.pop().close()
        current.append(await opened(url, clock, background, tmp_path / "state"))
        return current[0]

    yield restart
    while current:
        await current.pop().close()


shared_only = pytest.mark.parametrize("kind", SHARED, indirect=True)


async def test_it_is_a_store(store: TieredStore) -> None:
    as_the_engine_sees_it: Store = store
    assert as_the_engine_sees_it.epoch == store.table.current


async def test_what_was_put_is_peeked(store: TieredStore) -> None:
    entry = fresh_entry(store)
    assert store.peek(entry.primary, nothing).miss is LookupMiss.ABSENT
    assert store.put(entry)
    found = store.peek(entry.primary, nothing)
    assert found.entry is entry
    assert found.tier is Tier.L1


async def test_nothing_there_is_absent(store: TieredStore) -> None:
    found = await store.lookup("http://api.example/none", nothing)
    assert (found.entry, found.miss, found.others) == (None, LookupMiss.ABSENT, False)


@shared_only
async def test_it_survives_a_restart(reopen: Callable[[], Awaitable[TieredStore]]) -> None:
    store = await reopen()
    entry = fresh_entry(store, "/ä/\udcff", b"x" * 70_000, tags=("pitches", "pitch:1"), initial_age=7.0)
    entry.codings["br"] = b"coded"
    store.put(entry)
    store = await reopen()
    assert store.peek(entry.primary, nothing).entry is None
    found = await store.lookup(entry.primary, nothing)
    assert found.tier is Tier.L2
    assert same(found.entry, entry)
    assert store.peek(entry.primary, nothing).entry is found.entry


@shared_only
async def test_age_goes_on_in_the_shared_store(
    reopen: Callable[[], Awaitable[TieredStore]], clock: DrivenClock
) -> None:
    # E12: Age counts from receipt and is not reset when an entry is promoted.
    store = await reopen()
    store.put(fresh_entry(store, initial_age=53.0, lifetime=600))
    store = await reopen()
    clock.jump(2)
    found = await store.lookup("http://api.example/a", nothing)
    assert found.entry is not None
    assert found.entry.stored.freshness.age(clock.now()) == pytest.approx(55.0)


@shared_only
async def test_variants_are_told_apart(reopen: Callable[[], Awaitable[TieredStore]]) -> None:
    store = await reopen()
    for number, language in enumerate(("de", "en", None)):
        body = (language or "none").encode()
        store.put(fresh_entry(store, body=body, vary=(("accept-language", language),), started=number + 1))
    store.put(fresh_entry(store, body=b"gz", vary=(("accept", "x"), ("accept-language", "fr")), started=9))
    for restarted in (False, True):
        if restarted:
            store = await reopen()
        for language in ("de", "en"):
            select = asking(accept_language=language)
            found = store.peek("http://api.example/a", select)
            if restarted:
                assert found.entry is None
                found = await store.lookup("http://api.example/a", select)
            assert found.entry is not None
            assert found.entry.body == language.encode()
    found = await store.lookup("http://api.example/a", asking(accept_language="it"))
    assert (found.entry, found.others) == (None, True)
    found = await store.lookup("http://api.example/a", asking(accept_language="fr", accept="x"))
    assert found.entry is not None
    assert found.entry.body == b"gz"
    assert len(await store.inspect_shared("http://api.example/a")) == 4


@shared_only
async def test_variants_are_bounded(reopen: Callable[[], Awaitable[TieredStore]]) -> None:
    store = await reopen()
    for number in range(70):
        store.put(fresh_entry(store, vary=(("accept-language", str(number)),), started=number + 1))
    assert len(store.inspect("http://api.example/a")) == 64
    store = await reopen()
    assert len(await store.inspect_shared("http://api.example/a")) == 64
    oldest = await store.lookup("http://api.example/a", asking(accept_language="0"))
    newest = await store.lookup("http://api.example/a", asking(accept_language="69"))
    assert oldest.entry is None
    assert newest.entry is not None


async def test_an_older_fetch_does_not_replace_a_newer_one(
    reopen: Callable[[], Awaitable[TieredStore]], kind: str
) -> None:
    # E9: fetch 1 is slow, fetch 2 newer and faster.
    store = await reopen()
    assert store.put(fresh_entry(store, body=b"2", started=2))
    assert not store.put(fresh_entry(store, body=b"1", started=1))
    found = store.peek("http://api.example/a", nothing)
    assert found.entry is not None
    assert found.entry.body == b"2"


@shared_only
async def test_an_older_fetch_of_another_process_does_not_replace_a_newer_one(
    reopen: Callable[[], Awaitable[TieredStore]],
) -> None:
    store = await reopen()
    for body, started in ((b"2", 2), (b"1", 1)):
        store.memory.clear()  # another worker does not have it in its L1
        store.put(fresh_entry(store, body=body, started=started))
        assert store.shared is not None
        await store.shared.flushed()
    store = await reopen()
    found = await store.lookup("http://api.example/a", nothing)
    assert found.entry is not None
    assert found.entry.body == b"2"


ORDERS = [
    PurgeOrder(PurgeKind.URL, "/a"),
    PurgeOrder(PurgeKind.URL, "/a", host="api.example"),
    PurgeOrder(PurgeKind.URL, "/else", targets=("/a",)),
    PurgeOrder(PurgeKind.TAG, "pitches"),
    PurgeOrder(PurgeKind.PREFIX, "/"),
    PurgeOrder(PurgeKind.PREFIX, "/a", host="api.example"),
    PurgeOrder(PurgeKind.PATTERN, "/*"),
    PurgeOrder(PurgeKind.ALL),
    PurgeOrder(PurgeKind.ALL, host="api.example"),
]
OTHER_ORDERS = [
    PurgeOrder(PurgeKind.URL, "/b"),
    PurgeOrder(PurgeKind.URL, "/a", host="other.example"),
    PurgeOrder(PurgeKind.TAG, "users"),
    PurgeOrder(PurgeKind.PREFIX, "/b"),
    PurgeOrder(PurgeKind.PREFIX, "/a", host="other.example"),
    PurgeOrder(PurgeKind.PATTERN, "/*/x"),
    PurgeOrder(PurgeKind.ALL, host="other.example"),
]


@pytest.mark.parametrize("order", ORDERS, ids=repr)
async def test_a_purge_reaches_both_tiers_and_fetches_in_flight(
    reopen: Callable[[], Awaitable[TieredStore]], order: PurgeOrder
) -> None:
    # E1, E10: all variants, whatever the purge goes by.
    store = await reopen()
    began = store.epoch
    language = (("accept-language", "de"),)
    entries = [make_entry(epoch=began, tags=("pitches",), vary=language)]
    entries.append(make_entry("/a", epoch=began, tags=("pitches",), vary=(("accept-language", "en"),)))
    for entry in entries:
        store.put(entry)
    if store.shared is not None:
        await store.shared.flushed()
    receipt = await store.purge(order)
    assert receipt.complete
    assert receipt.number <= store.epoch
    select = asking(accept_language="de")
    assert store.peek(entries[0].primary, select).entry is None
    assert (await store.lookup(entries[0].primary, select)).entry is None
    assert store.overtaken(entries[1])
    assert not store.put(make_entry(epoch=began, tags=("pitches",)))
    store = await reopen()
    assert (await store.lookup(entries[0].primary, select)).entry is None
    assert store.put(make_entry(body=b"v2", epoch=store.epoch, tags=("pitches",)))
    assert store.peek(entries[0].primary, select).entry is not None


@pytest.mark.parametrize("order", OTHER_ORDERS, ids=repr)
async def test_a_purge_of_something_else_does_not(
    reopen: Callable[[], Awaitable[TieredStore]], order: PurgeOrder, kind: str
) -> None:
    store = await reopen()
    entry = make_entry(tags=("pitches",), epoch=store.epoch)
    store.put(entry)
    await store.purge(order)
    assert store.peek(entry.primary, nothing).entry is entry
    if kind != "memory":
        store = await reopen()
        assert (await store.lookup(entry.primary, nothing)).entry is not None


async def test_a_soft_purge_makes_stale_and_never_lengthens(
    reopen: Callable[[], Awaitable[TieredStore]], clock: DrivenClock, kind: str
) -> None:
    store = await reopen()
    long_lived = make_entry("/a", lifetime=60, stale=30, epoch=store.epoch)
    over_soon = make_entry("/b", lifetime=1, stale=30, epoch=store.epoch)
    store.put(long_lived)
    store.put(over_soon)
    if store.shared is not None:
        await store.shared.flushed()
    clock.jump(5)
    await store.purge(PurgeOrder(PurgeKind.ALL, soft=True))
    for restarted in (False, True):
        if restarted:
            if kind == "memory":
                break
            store = await reopen()
            await store.lookup(long_lived.primary, nothing)
            await store.lookup(over_soon.primary, nothing)
        stale = store.peek(long_lived.primary, nothing).entry
        assert stale is not None
        assert stale.fresh_until == pytest.approx(clock.now(), abs=1e-3)
        assert not stale.stored.freshness.is_fresh(clock.now())
        unchanged = store.peek(over_soon.primary, nothing).entry
        assert unchanged is not None
        assert unchanged.fresh_until == NOW + 1
    assert store.put(make_entry(epoch=store.epoch, started=5, received=clock.now()))
    renewed = store.peek(long_lived.primary, nothing).entry
    assert renewed is not None
    assert renewed.stored.freshness.is_fresh(clock.now())


class _Held:
    """Holds a promotion at its sync point."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def before_promote(self) -> None:
        self.reached.set()
        await self.go_on.wait()


@shared_only
@pytest.mark.parametrize("overtaken_by", ["purge", "newer"])
async def test_a_promotion_is_fenced(reopen: Callable[[], Awaitable[TieredStore]], overtaken_by: str) -> None:
    # E6: v1 has been read from L2, and something happens before it goes into L1.
    store = await reopen()
    store.put(make_entry(body=b"v1", epoch=store.epoch))
    store = await reopen()
    store.hooks = held = _Held()
    looking = asyncio.gather(store.lookup("http://api.example/a", nothing))
    await held.reached.wait()
    if overtaken_by == "purge":
        await store.purge(PurgeOrder(PurgeKind.URL, "/a"))
    else:
        store.put(make_entry(body=b"v2", epoch=store.epoch, started=2))
    held.go_on.set()
    (found,) = await looking
    here = store.peek("http://api.example/a", nothing).entry
    if overtaken_by == "purge":
        assert found.entry is None
        assert found.miss is LookupMiss.PURGED
        assert here is None
    else:
        assert here is not None
        assert here.body == b"v2"
        assert found.entry is here


async def test_forgetting_one_variant(reopen: Callable[[], Awaitable[TieredStore]], kind: str) -> None:
    store = await reopen()
    one, other = (fresh_entry(store, vary=(("accept-language", x),), started=2) for x in ("de", "en"))
    store.put(one)
    store.put(other)
    store.forget(one)
    assert store.peek(one.primary, asking(accept_language="de")).entry is None
    assert store.peek(one.primary, asking(accept_language="en")).entry is other
    if kind != "memory":
        store = await reopen()
        assert (await store.lookup(one.primary, asking(accept_language="de"))).entry is None
        assert (await store.lookup(one.primary, asking(accept_language="en"))).entry is not None


@shared_only
async def test_a_coding_added_later_is_stored(reopen: Callable[[], Awaitable[TieredStore]]) -> None:
    store = await reopen()
    entry = fresh_entry(store, body=b"b" * 3000)
    store.put(entry)
    before = store.memory.bytes
    entry.codings["gzip"] = b"g" * 500
    store.update(entry)
    assert store.memory.bytes >= before + 500
    store = await reopen()
    found = await store.lookup(entry.primary, nothing)
    assert found.entry is not None
    assert found.entry.codings == {"gzip": b"g" * 500}


@shared_only
async def test_what_has_ended_is_not_found(
    reopen: Callable[[], Awaitable[TieredStore]], clock: DrivenClock, kind: str
) -> None:
    if kind != "lmdb":
        pytest.skip("this server has a clock of its own")
    store = await reopen()
    store.put(fresh_entry(store, lifetime=10, stale=20))
    store = await reopen()
    clock.jump(31)
    assert (await store.lookup("http://api.example/a", nothing)).miss is LookupMiss.ABSENT


async def test_uncacheable_keys_are_remembered_for_a_while(store: TieredStore, clock: DrivenClock) -> None:
    store.note_uncacheable("k")
    assert store.is_uncacheable("k")
    clock.jump(121)
    assert not store.is_uncacheable("k")
    for number in range(10_001):
        store.note_uncacheable(str(number))
    assert not store.is_uncacheable("0")
    assert store.is_uncacheable("10000")
    entry = fresh_entry(store)
    store.note_uncacheable(entry.primary)
    store.put(entry)
    assert not store.is_uncacheable(entry.primary)


async def test_counting(store: TieredStore, kind: str) -> None:
    for number in range(5):
        store.put(make_entry(f"/a/{number}", epoch=store.epoch, tags=("odd",) if number % 2 else ()))
    if store.shared is not None:
        await store.shared.flushed()
    store.memory.remove(store.inspect("http://api.example/a/1")[0])
    counted = await store.count(PurgeOrder(PurgeKind.PREFIX, "/a/"))
    if kind not in COUNTS:
        assert counted is None
        return
    lost = int(kind == "memory")
    assert counted is not None
    assert counted[0] == 5 - lost
    assert counted[1] > 0
    tagged = await store.count(PurgeOrder(PurgeKind.TAG, "odd"))
    assert tagged is not None
    assert tagged[0] == 2 - lost
    await store.purge(PurgeOrder(PurgeKind.TAG, "odd"))
    assert await store.count(PurgeOrder(PurgeKind.TAG, "odd")) == (0, 0)


async def test_health_and_statistics(store: TieredStore, kind: str) -> None:
    store.put(fresh_entry(store))
    health = await store.health()
    assert health["l1"] == "ok"
    assert health["l2"] == ("none" if kind == "memory" else "ok")
    stats = store.stats()
    assert stats["l1_entries"] == 1
    assert isinstance(stats["l1_bytes"], int)
    assert 1000 < stats["l1_bytes"] < 3000
