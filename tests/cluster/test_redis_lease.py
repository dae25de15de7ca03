"""The lease of nodes, in a real Redis: two nodes ask for the same keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from edgeproxy.clock import Clock
from edgeproxy.cluster.base import LOOK, UNCACHEABLE, End, Ended, Lease
from edgeproxy.cluster.lease import NodeLeases
from edgeproxy.cluster.redis_lease import LIFE, ClusterLeases
from edgeproxy.cluster.redis_link import connect
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.store.breaker import Breaker
from tests.cluster.test_bus import until
from tests.support.driven import DrivenClock, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.engine.background import Background
    from tests.support.servers import Server

FAILED = Ended(End.FAILED, OriginFailure.REFUSED, 502)


class Nodes:
    def __init__(self, redis: Server, background: Background) -> None:
        self.clock: Clock = Clock()
        self._redis = redis
        self._background = background
        self.breaker = Breaker(self.clock, "redis")
        self.client: Redis = Redis.from_url(redis.url)
        self.one, self.two = self.make(), self.make()

    def make(self, clock: Clock | None = None, node: NodeLeases | None = None) -> ClusterLeases:
        link = connect(self._redis.url, connections=8)
        clock = clock or self.clock
        spawn = self._background.spawn
        return ClusterLeases(link, clock, spawn, breaker=self.breaker, budget=5.0, node=node)

    def waiting(self) -> asyncio.Task[Lease | Ended | None]:
        return asyncio.get_running_loop().create_task(self.two.take("k", 0.0, 10.0))

    async def names(self) -> list[bytes | str]:
        return list(await self.client.keys("edgeproxy:fetch:*"))

    async def word(self) -> object:
        names = await self.names()
        return await self.client.get(names[0]) if names else None


@pytest.fixture
async def nodes(redis: Server, background: Background) -> AsyncIterator[Nodes]:
    nodes = Nodes(redis, background)
    yield nodes
    await nodes.one.close()
    await nodes.two.close()
    await nodes.client.aclose()


async def held(leases: ClusterLeases, key: str = "k") -> Lease:
    lease = await leases.take(key, 0.0, 5.0)
    assert lease is not None
    assert not isinstance(lease, Ended)
    return lease


@pytest.mark.parametrize("ended", [LOOK, UNCACHEABLE, FAILED])
async def test_one_node_fetches_and_the_other_is_told(nodes: Nodes, ended: Ended) -> None:
    lease = await held(nodes.one)
    assert not lease.again
    waiting = nodes.waiting()
    await (await _after(nodes, nodes.two)).wait()
    assert not waiting.done()
    lease.end(ended)
    lease.end(LOOK)
    got = await waiting
    if ended is LOOK:
        assert not isinstance(got, Ended)
        assert got is not None
        assert got.again, "the store is to be looked into"
        got.end(LOOK)
    else:
        assert got == ended
    # A failure is for those who waited; who comes after it asks for himself.
    late = await nodes.one.take("k", 0.0, 5.0)
    assert isinstance(late, Ended) == (ended is UNCACHEABLE)


async def _after(nodes: Nodes, leases: ClusterLeases) -> asyncio.Event:
    """Set when ``leases`` has asked Redis twice: it waits."""
    asked = asyncio.Event()
    run, count = leases._run, 0

    async def counted(*arguments: object) -> None:
        nonlocal count
        await run(*arguments)  # type: ignore[arg-type]
        count += 1
        if count >= 2:
            asked.set()

    leases._run = counted  # type: ignore[method-assign,assignment]
    return asked


async def test_what_a_killed_node_held_is_free_soon(nodes: Nodes) -> None:
    await held(nodes.one)
    (name,) = await nodes.names()
    assert 0 < await nodes.client.pttl(name) <= LIFE * 1000
    nodes.one._held.clear()  # killed: nobody renews, nobody ends
    await nodes.client.pexpire(name, 50)
    lease = await held(nodes.two)
    assert not lease.again


async def test_a_long_fetch_keeps_its_lease(nodes: Nodes) -> None:
    clock = DrivenClock()
    leases = nodes.make(clock)
    await held(leases)
    (name,) = await nodes.names()
    await nodes.client.pexpire(name, 400)
    await clock.advance(LIFE)

    async def renewed() -> bool:
        return await nodes.client.pttl(name) > 1000

    while not await renewed():
        await settle()
    await leases.close()


async def test_nobody_ends_or_renews_what_is_anothers(nodes: Nodes) -> None:
    lease = await held(nodes.one)
    (name,) = await nodes.names()
    await nodes.client.set(name, b"hsomebody-else", px=5000)
    lease.end(LOOK)
    await nodes._background.settle("end of a lease")
    assert await nodes.word() == b"hsomebody-else"


async def test_redis_in_trouble_means_no_lease(nodes: Nodes, redis: Server) -> None:
    (await held(nodes.one, "other")).end(LOOK)
    name = (await nodes.names())[0]
    await nodes.client.delete(name)
    await nodes.client.lpush(name, "not a lease")  # another type under the key
    assert await nodes.one.take("other", 0.0, 5.0) is None
    nodes.one._budget = nodes.two._budget = 0.02
    redis.pause()
    assert await nodes.one.take("k", 0.0, 5.0) is None
    while not nodes.breaker.open:
        assert await nodes.two.take("k", 0.0, 5.0) is None
    assert await nodes.two.take("k", 0.0, 5.0) is None, "not asked at all"
    redis.resume()
    await until(lambda: nodes.one._under_way == 0 and nodes.two._under_way == 0)


async def test_of_a_nodes_workers_one_asks_redis(nodes: Nodes, tmp_path: Path) -> None:
    workers = [nodes.make(node=NodeLeases(tmp_path, nodes.clock)) for _ in range(2)]
    lease = await held(workers[0])
    waiting = asyncio.get_running_loop().create_task(workers[1].take("k", 0.0, 10.0))
    await settle()
    assert workers[1]._under_way == 0
    lease.end(UNCACHEABLE)
    assert await waiting == UNCACHEABLE
    assert await nodes.two.take("k", 0.0, 5.0) == UNCACHEABLE
    # What Redis says of another node's fetch, the node's other workers hear too.
    far = await held(nodes.two, "far")
    waiting = asyncio.get_running_loop().create_task(workers[0].take("far", 0.0, 10.0))
    beside = asyncio.get_running_loop().create_task(workers[1].take("far", 0.0, 10.0))
    await until(lambda: workers[0]._under_way > 0)
    far.end(FAILED)
    assert await waiting == FAILED
    assert await beside == FAILED
    for worker in workers:
        await worker.close()


async def test_without_redis_the_nodes_own_lease_is_good(nodes: Nodes, redis: Server, tmp_path: Path) -> None:
    workers = [nodes.make(node=NodeLeases(tmp_path, nodes.clock)) for _ in range(2)]
    redis.process.kill()
    redis.process.wait()
    lease = await held(workers[0])
    assert await workers[1].take("k", 0.0, 0.01) is None
    lease.end(LOOK)
    (await held(workers[1])).end(LOOK)
    for worker in workers:
        await worker.close()
