"""What goes wrong behind the shared store stays there (B2, B6, B7, B8, B12, F1, F4)."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from aiocache.serializers import PickleSerializer
from redis.asyncio import Redis

from edgeproxy.clock import Clock
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.backend import ByteCache
from edgeproxy.store.breaker import LIMIT, LONGEST
from edgeproxy.store.codec import encode, record_key
from edgeproxy.store.open import open_store
from edgeproxy.store.redis_backend import RedisCache
from edgeproxy.store.shared import (
    MOST_READS,
    MOST_WRITES,
    WRITE_DEADLINE,
    SharedStore,
    Write,
    Wrote,
)
from tests.store.make import NOW, asking, make_entry
from tests.support.driven import DrivenClock, settle
from tests.support.toxic import ToxicProxy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeproxy.engine.background import Background
    from edgeproxy.store.tiered import TieredStore
    from tests.support.servers import Server

nothing = asking()


class _Gated(ByteCache):
    """Holds every command until it is let go."""

    NAME = "gated"

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.asked = 0
        self.cancelled = 0
        self.batches: list[list[Write]] = []

    async def _get(self, key: str, encoding: None, **_: object) -> bytes | None:  # noqa: ARG002
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return key.encode()

    async def write(self, batch: Sequence[Write]) -> list[Wrote]:
        await self.gate.wait()
        self.batches.append(list(batch))
        if self.error is not None:
            raise self.error
        return [Wrote.STORED] * len(batch)


@pytest.fixture
def gated() -> _Gated:
    return _Gated()


@pytest.fixture
async def shared(gated: _Gated, clock: DrivenClock, background: Background) -> SharedStore:
    return SharedStore(gated, clock, background.spawn, name="test", budget=0.05)


async def test_a_read_over_its_budget_is_a_miss_and_is_not_cancelled(
    shared: SharedStore, gated: _Gated, clock: DrivenClock, background: Background
) -> None:
    reading = asyncio.gather(shared.get("k"))
    await clock.advance(0.049)
    assert not reading.done()
    await clock.advance(0.001)
    assert (await reading)[0] is LookupMiss.TIMEOUT
    cancelled = asyncio.gather(shared.get("k2"))
    await settle()
    cancelled.cancel()
    await settle()
    assert gated.asked == 2
    gated.gate.set()
    await settle()
    assert gated.cancelled == 0
    assert shared._reads == 0
    assert await shared.get("k3") == b"k3"


async def test_the_breaker_opens_tries_once_and_closes(
    shared: SharedStore, gated: _Gated, clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    gated.gate.set()
    gated.error = ConnectionError("gone")
    for _ in range(LIMIT):
        assert await shared.get("k") is LookupMiss.ERROR
    asked = gated.asked
    for _ in range(100):
        assert await shared.get("k") is LookupMiss.BREAKER_OPEN
    assert gated.asked == asked
    assert "ConnectionError" in shared.state
    for _ in range(6):
        await clock.advance(LONGEST)
        results = await asyncio.gather(*(shared.get("k") for _ in range(10)))
        assert results.count(LookupMiss.ERROR) == 1, "one tries, the others do not wait"
    gated.error = None
    await clock.advance(LONGEST)
    assert await shared.get("k") == b"k"
    assert shared.state == "ok"
    assert len(caplog.records) == 2, "one line for each change of state"


async def test_reads_under_way_are_bounded(shared: SharedStore, clock: DrivenClock, gated: _Gated) -> None:
    reading = [asyncio.gather(shared.get(str(number))) for number in range(MOST_READS)]
    await settle()
    assert await shared.get("one more") is LookupMiss.TIMEOUT
    assert shared.counts["busy"] == 1
    assert gated.asked <= 48
    gated.gate.set()
    await asyncio.gather(*reading)


async def test_the_write_queue_is_bounded_and_the_oldest_goes(
    shared: SharedStore, gated: _Gated, clock: DrivenClock
) -> None:
    # B12
    def enqueue(number: int, octets: int = 10) -> None:
        async def prepare(_: dict[str, bytes]) -> Sequence[Write]:
            return (Write(str(number), b"x", 10.0),)

        shared.enqueue(prepare, octets)

    enqueue(-1)
    await settle()  # the first is on its way and stays there
    for number in range(MOST_WRITES + 10):
        enqueue(number)
    assert shared.queued == MOST_WRITES
    assert shared.counts["write_drops"] == 10
    gated.gate.set()
    await shared.flushed()
    written = [write.key for batch in gated.batches for write in batch]
    assert written == ["-1", *(str(number) for number in range(10, MOST_WRITES + 10))]
    gated.gate.clear()
    enqueue(1)
    await settle()
    enqueue(2)
    clock.jump(WRITE_DEADLINE + 1)
    enqueue(3)
    gated.gate.set()
    await shared.flushed()
    assert [write.key for write in gated.batches[-1]] == ["3"], "what waited too long is not written"
    for _ in range(3):
        gated.gate.clear()
        enqueue(4, 60_000_000)
    await settle()
    assert shared._queued <= 64 * 1024 * 1024
    gated.gate.set()


async def toxic_store(proxy: ToxicProxy, clock: Clock, background: Background, state: Path) -> TieredStore:
    store = await open_store(
        f"redis://{proxy.host}:{proxy.port}", clock=clock, spawn=background.spawn, state_dir=state
    )
    assert store.bus is not None
    await store.bus.followed.wait()
    return store


async def test_a_redis_that_hangs_or_is_gone_costs_no_more_than_the_budget(
    redis: Server, background: Background, tmp_path: Path
) -> None:
    # B6, B7
    clock = Clock()
    async with ToxicProxy(redis.host, redis.port) as proxy:
        store = await toxic_store(proxy, clock, background, tmp_path)
        shared = store.shared
        assert shared is not None
        store.put(make_entry(received=clock.now(), epoch=store.epoch))
        await shared.flushed()
        for trouble in (proxy.hang, proxy.reset, proxy.refuse):
            done = trouble()
            if done is not None:
                await done
            for _ in range(30):
                began = clock.monotonic()
                store.memory.clear()
                assert (await store.lookup("http://api.example/a", nothing)).entry is None
                # Redis' own client would wait for five seconds; a busy machine adds to our 50 ms.
                assert clock.monotonic() - began < shared.budget + 3
            assert shared.breaker.open or not store.bus or not store.bus.ready
            await proxy.heal()
            found = None
            began = clock.monotonic()
            while found is None:
                store.memory.clear()
                found = (await store.lookup("http://api.example/a", nothing)).entry
                await asyncio.sleep(0.01)
            assert clock.monotonic() - began < 30
        assert len(background) < 10
        await store.close()


async def test_no_reply_ever_goes_to_another_command(redis: Server, background: Background) -> None:
    # B8: 1,000 reads of distinct keys through a slow line, given up at random.
    seeded = random.Random(8)
    client = Redis.from_url(redis.url)
    await client.mset({f"edgeproxy:{number}": f"value of {number}" for number in range(1000)})
    async with ToxicProxy(redis.host, redis.port) as proxy:
        cache = RedisCache(f"redis://{proxy.host}:{proxy.port}")
        shared = SharedStore(cache, Clock(), background.spawn, name="slow", budget=0.1)
        shared.breaker.failed = lambda _: None  # type: ignore[method-assign,assignment]  # keep asking
        proxy.delay(0.02)
        mixed = answered = 0

        async def read(number: int) -> None:
            nonlocal mixed, answered
            data = await shared.get(str(number), seeded.choice([0.03, 0.05, 0.2, 2.0]))
            if isinstance(data, bytes):
                answered += 1
                mixed += data != b"value of %d" % number

        reads = [asyncio.ensure_future(read(number)) for number in range(1000)]  # noqa: TID251  # to be cancelled
        for _ in range(200):
            await asyncio.sleep(0.001)
            seeded.choice(reads).cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        assert mixed == 0
        assert answered > 100
        await shared.close()
    await client.aclose()


@pytest.mark.parametrize(
    "plant", ["corrupt", "cut short", "nothing", "pickle", "copy", "wrong type", "marker key"]
)
async def test_what_others_planted_is_a_miss_and_removed(
    redis: Server, background: Background, clock: DrivenClock, tmp_path: Path, plant: str
) -> None:
    # B2, F1, F4 in a real Redis.
    client = Redis.from_url(redis.url)
    await client.flushall()
    store = await open_store(redis.url, clock=clock, spawn=background.spawn)
    assert store.bus is not None
    await store.bus.followed.wait()
    shared = store.shared
    assert shared is not None
    space = store.table.incarnation
    entry, other = make_entry(epoch=store.epoch), make_entry("/b", epoch=store.epoch)
    key = "edgeproxy:" + record_key(space, entry.primary)
    data = encode(entry, space)
    copied = encode(other, space)
    assert data is not None
    assert copied is not None
    if plant == "wrong type":
        await client.rpush(key, "x")
    else:
        planted = {
            "corrupt": data[:-1] + b"?",
            "cut short": data[: len(data) // 2],
            "nothing": b"",
            "pickle": PickleSerializer().dumps({"body": b"x"}),
            "copy": copied,
            "marker key": data[:6] + b"\x02" + data[7:],
        }[plant]
        await client.set(key, planted)
    for asked in range(2):
        found = await store.lookup(entry.primary, nothing)
        assert found.entry is None
        assert found.miss is (LookupMiss.ABSENT if asked else
                              LookupMiss.FOREIGN if plant == "copy" else LookupMiss.CORRUPT)  # fmt: skip
        await shared.flushed()
    assert await client.exists(key) == 0
    told = store.stats()
    assert (told["l2_corrupt_total"], told["l2_foreign_total"]) == ((0, 1) if plant == "copy" else (1, 0))
    store.put(entry)
    await shared.flushed()
    store.memory.clear()
    assert (await store.lookup(entry.primary, nothing)).entry is not None
    await client.aclose()
    await store.close()


async def test_a_full_redis_refuses_writes_and_goes_on_reading(
    redis: Server, background: Background, clock: DrivenClock
) -> None:
    client = Redis.from_url(redis.url)
    store = await open_store(redis.url, clock=clock, spawn=background.spawn)
    assert store.bus is not None
    await store.bus.followed.wait()
    assert store.shared is not None
    store.put(make_entry(epoch=store.epoch, received=NOW))
    await store.shared.flushed()
    await client.config_set("maxmemory", 1)
    try:
        store.put(make_entry("/b", epoch=store.epoch))
        await store.shared.flushed()
        assert store.shared.counts["full"] == 1
        store.memory.clear()
        assert (await store.lookup("http://api.example/a", nothing)).entry is not None
    finally:
        await client.config_set("maxmemory", 0)
        await client.aclose()
        await store.close()
