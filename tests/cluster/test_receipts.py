"""What a purge says of the other nodes, and what a node does that hears of no purge any more: nodes on a real
Redis, each behind a connection that can be made to fail."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest
from redis.asyncio import Redis

from edgeproxy.clock import Clock
from edgeproxy.cluster.bus import RedisBus
from edgeproxy.cluster.epoch import PurgeTable
from edgeproxy.cluster.untold import LARGEST, MOST, Untold
from edgeproxy.policy.vocabulary import NotStored
from edgeproxy.store.purge import NodeReceipt, PurgeKind, PurgeOrder
from tests.cluster.test_bus import SMALL, until, url
from tests.support.edge import TOKEN, running_edge
from tests.support.ledger import LedgerOrigin
from tests.support.toxic import ToxicProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.engine.background import Background
    from tests.support.driven import DrivenClock
    from tests.support.servers import Server

LEASE = 0.8


class Node:
    """One worker's bus; ``link`` is its way to Redis, ``trusted`` what it was told of its memory."""

    def __init__(
        self,
        name: str,
        link: ToxicProxy,
        background: Background,
        table: PurgeTable | None = None,
        wait: float = 5.0,
        lease: float = LEASE,
    ) -> None:
        self.name = name
        self.link = link
        self.table = table or PurgeTable.anonymous(SMALL)
        self.trusted: list[bool] = []
        self.bus = RedisBus(
            f"redis://{link.host}:{link.port}",
            self.table,
            Clock(),
            background.spawn,
            name=name,
            lease=lease,
            wait=wait,
        )
        self.bus.on_trust = self.trusted.append
        self.bus.start()


class Cluster:
    def __init__(self, stack: AsyncExitStack, redis: Server, background: Background) -> None:
        self._stack = stack
        self._redis = redis
        self._background = background
        self.nodes: list[Node] = []

    async def add(
        self, name: str, table: PurgeTable | None = None, wait: float = 5.0, lease: float = LEASE
    ) -> Node:
        link = await self._stack.enter_async_context(ToxicProxy(self._redis.host, self._redis.port))
        node = Node(name, link, self._background, table, wait, lease)
        self.nodes.append(node)
        await node.bus.followed.wait()
        return node


@pytest.fixture
async def cluster(redis: Server, background: Background) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack, redis, background)
        yield cluster
        for node in cluster.nodes:
            await node.bus.close()


def said(receipts: tuple[NodeReceipt, ...]) -> dict[str, str]:
    return {receipt.name: receipt.said for receipt in receipts}


async def test_a_purge_returns_when_every_node_has_applied_it(cluster: Cluster) -> None:
    nodes = [await cluster.add(f"node-{n}") for n in range(3)]
    for order in (url("/a"), PurgeOrder(PurgeKind.TAG, "t"), PurgeOrder(PurgeKind.ALL)):
        number, layer, receipts = await nodes[0].bus.publish(order)
        assert layer == "ok"
        assert said(receipts) == {"node-0": "ok", "node-1": "ok", "node-2": "ok"}
        assert all(receipt.number >= number for receipt in receipts)
        assert all(node.table.current >= number for node in nodes), "at once, without waiting"
    assert nodes[0].trusted == [True]


async def test_many_purges_at_once_share_their_looks(cluster: Cluster) -> None:
    nodes = [await cluster.add(f"node-{n}") for n in range(2)]
    results = await asyncio.gather(*(nodes[n % 2].bus.publish(url(f"/{n}")) for n in range(40)))
    assert all(said(receipts) == {"node-0": "ok", "node-1": "ok"} for _, _, receipts in results)


async def test_who_waits_is_woken_and_asks_nothing_in_between(cluster: Cluster, redis: Server) -> None:
    one, other = await cluster.add("one", lease=60.0), await cluster.add("other", lease=60.0)
    client = Redis.from_url(redis.url)

    async def looks() -> int:
        told = await client.info("commandstats")
        return int(told.get("cmdstat_hgetall", {"calls": 0})["calls"])

    before = await looks()
    other.link.delay(0.04)  # each way: what it hears, reads and says takes a while
    _, _, receipts = await one.bus.publish(url("/a"))
    made = await looks() - before
    await other.link.heal()
    await client.aclose()
    assert said(receipts) == {"one": "ok", "other": "ok"}
    assert made == 1, "when it begins"


async def test_where_no_news_can_be_had_it_is_looked_for(cluster: Cluster) -> None:
    one, other = await cluster.add("one"), await cluster.add("other")
    client = Redis(host="127.0.0.1", port=1)
    reads = one.bus._registry._listener._redis
    one.bus._registry._listener._redis = client
    _, _, receipts = await one.bus.publish(url("/a"))
    assert said(receipts) == {"one": "ok", "other": "ok"}
    one.bus._registry._listener._redis = reads
    _, _, receipts = await one.bus.publish(url("/b"))
    assert said(receipts) == {"one": "ok", "other": "ok"}
    assert other.table.current == one.table.current


async def test_a_node_that_is_cut_off_is_waited_for_until_its_lease_is_over(cluster: Cluster) -> None:
    # E4
    one, other = await cluster.add("one"), await cluster.add("other")
    other.link.hang()
    clock = Clock()
    began = clock.monotonic()
    _, layer, receipts = await one.bus.publish(url("/a"))
    assert layer == "ok"
    assert said(receipts) == {"one": "ok", "other": "cut off"}
    assert clock.monotonic() - began > LEASE / 4
    assert other.trusted == [True, False], "by then it trusts its memory no more"
    assert not other.bus.trusting
    epoch = other.table.current
    # Healed: it has caught up before it trusts its memory again.
    seen: list[bool] = []
    other.bus.on_trust = lambda trusting: seen.append(trusting and other.table.current > epoch)
    await other.link.heal()
    await until(lambda: other.bus.trusting)
    assert seen == [True]
    _, _, receipts = await one.bus.publish(url("/b"))
    assert said(receipts) == {"one": "ok", "other": "ok"}


async def test_a_node_that_does_not_answer_in_time_is_named(cluster: Cluster) -> None:
    one, other = await cluster.add("one", wait=0.05), await cluster.add("other")
    other.link.hang()
    number, layer, receipts = await one.bus.publish(url("/a"))
    assert layer == "ok"
    assert said(receipts) == {"one": "ok", "other": "no answer"}
    (silent,) = (receipt for receipt in receipts if receipt.name == "other")
    assert silent.number < number
    assert silent.at > 1_700_000_000
    await other.link.heal()


async def test_workers_of_a_node_speak_for_each_other(cluster: Cluster) -> None:
    table = PurgeTable.anonymous(SMALL)
    first, second = await cluster.add("one", table), await cluster.add("one", table)
    other = await cluster.add("other")
    first.link.hang()  # hangs, or is killed
    _, _, receipts = await other.bus.publish(url("/a"))
    assert said(receipts) == {"one": "ok", "other": "ok"}
    await until(lambda: not first.bus.ready)
    assert first.bus.trusting, "the other worker reads the log for both"
    assert second.bus.trusting
    await first.link.heal()


async def test_a_node_that_ends_is_not_waited_for(cluster: Cluster) -> None:
    one, other = await cluster.add("one"), await cluster.add("other")
    await other.bus.close()
    _, _, receipts = await one.bus.publish(url("/a"))
    assert said(receipts) == {"one": "ok"}


async def test_after_the_log_was_lost_nobody_says_that_all_know(cluster: Cluster, redis: Server) -> None:
    one = await cluster.add("one", wait=0.05)
    name = one.table.incarnation
    client = Redis.from_url(redis.url)
    await client.flushall()
    await until(lambda: one.table.incarnation != name and one.bus.ready)
    _, layer, receipts = await one.bus.publish(url("/a"))
    assert layer == "ok"
    assert "not known yet" in said(receipts).values()
    one.bus._wait = 5.0
    _, _, receipts = await one.bus.publish(url("/a"))
    assert said(receipts) == {"one": "ok"}, "whoever followed the old log trusts nothing of it any more"
    await client.aclose()


async def test_what_somebody_else_wrote_among_the_reports_is_removed(cluster: Cluster, redis: Server) -> None:
    one = await cluster.add("one")
    client = Redis.from_url(redis.url)
    key = one.bus._registry._keys.reports
    await client.hset(key, mapping={"x": "", "y/z": "1 2", "old/1": "1000 5 0 1000 old"})
    _, _, receipts = await one.bus.publish(url("/a"))
    assert said(receipts) == {"one": "ok"}
    assert await client.hlen(key) == 1
    await client.aclose()


async def test_a_node_that_is_cut_off_answers_nothing_from_memory(redis: Server) -> None:
    async with (
        LedgerOrigin() as origin,
        ToxicProxy(redis.host, redis.port) as link,
        running_edge(origin.url, store=f"redis://{link.host}:{link.port}", store_budget="60s") as edge,
    ):
        store = edge.worker.store
        bus = store.bus
        assert bus is not None
        assert bus.trusting, "it has followed the log before it serves"

        async def words() -> list[str | None]:
            return [(await edge.get("/a")).get("X-Cache-Status") for _ in range(2)]

        assert await words() == ["MISS", "HIT"]
        await edge.settle()
        await edge.worker.background.settle("end of a lease")
        link.reset()
        await until(lambda: not bus.ready)
        assert await words() == ["HIT", "HIT"], "for the lease"
        await edge.clock.advance(31)
        assert not bus.trusting
        assert await words() == ["MISS", "MISS"]
        assert store.memory.entries == 0
        assert (await store.health())["l1"].startswith("degraded: ")
        await link.heal()
        async with asyncio.timeout(20):
            while not bus.trusting:
                await edge.clock.advance(0.1)
                await asyncio.sleep(0.005)
        assert (await words())[1] == "HIT"
        assert (await store.health())["l1"] == "ok"


# -- purges that could not be told ----------------------------------------------------------------------


async def test_what_a_killed_worker_could_not_tell_another_tells(
    cluster: Cluster, redis: Server, background: Background, tmp_path: Path
) -> None:
    one, other = (
        await cluster.add("one", PurgeTable.open(tmp_path / "purges", SMALL)),
        await cluster.add("other"),
    )
    epoch = other.table.current
    one.link.hang()
    await until(lambda: not one.bus.ready)
    number, layer, _ = await one.bus.publish(url("/a"))
    assert layer.startswith("not told yet")
    assert one.table.current == number
    one.bus._closed = True  # killed: it will never say a word
    successor = await cluster.add("one", PurgeTable.open(tmp_path / "purges", SMALL))
    await until(lambda: other.table.current > epoch)
    assert str(other.table.verdict("h", "/a", (), epoch)) == "Fate.GONE"
    assert successor.bus._untold.take() == []
    await one.link.heal()


def table_lock(path: Path) -> PurgeTable:
    return PurgeTable.open(path, SMALL)


def test_untold_purges_are_kept_in_order_and_told_once(tmp_path: Path) -> None:
    table = table_lock(tmp_path / "purges")
    one = Untold(table.path, table.writing, b"all")
    two = Untold(table.path, table.writing, b"all")
    one.keep(b"first")
    two.keep(b"second")
    ((place, records),) = one.take()
    assert records == [b"first", b"second"]
    two.keep(b"third")  # while those are being told
    places = two.take()
    assert sorted(record for _, records in places for record in records) == [b"first", b"second", b"third"]
    one.done(place, 2)
    for place, records in places:
        two.done(place, len(records))
    assert one.take() == []
    table.close()


def test_too_many_untold_purges_become_one_of_everything(tmp_path: Path) -> None:
    table = table_lock(tmp_path / "purges")
    untold = Untold(table.path, table.writing, b"all")
    for _ in range(2):
        untold.keep(b"x" * (LARGEST // 2))
    ((_, records),) = untold.take()
    assert records == [b"all"]
    here = Untold(None, table.writing, b"all")
    for number in range(MOST + 1):
        here.keep(b"%d" % number)
    assert here.take() == [(None, [b"all"])]
    here.keep(b"later")
    here.done(None, 1)
    assert here.take() == [(None, [b"later"])]
    table.close()


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_what_cannot_be_read_is_a_purge_of_everything(tmp_path: Path, cut: int) -> None:
    table = table_lock(tmp_path / "purges")
    untold = Untold(table.path, table.writing, b"all")
    untold.keep(b"first")
    path = tmp_path / "purges-untold"
    path.write_bytes(path.read_bytes()[:-cut] if cut < 5 else path.read_bytes()[:2])
    ((_, records),) = untold.take()
    assert records == [b"all"]
    table.close()


def test_a_directory_that_is_gone_keeps_them_in_memory(tmp_path: Path) -> None:
    table = table_lock(tmp_path / "purges")
    untold = Untold(tmp_path / "gone" / "purges", table.writing, b"all")
    untold.keep(b"first")
    assert untold.take() == [(None, [b"first"])]
    table.close()


async def test_the_admin_port_tells_numbers_that_javascript_reads_exactly(redis: Server) -> None:
    """Those of a log have 19 digits; all numbers are doubles there, as they are in jq."""

    def as_javascript(text: str) -> Any:
        return json.loads(text, parse_int=float)

    clock = cast("DrivenClock", Clock())  # the answer waits for what Redis says
    async with (
        LedgerOrigin(clock=clock) as origin,
        running_edge(origin.url, clock=clock, store=redis.url, store_budget="60s") as edge,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
    ):
        origin.reply("/a", headers=[("Cache-Control", "max-age=600")])
        table = edge.worker.store.table
        assert edge.worker.store.bus is not None
        await edge.worker.store.bus.followed.wait()

        async def told(method: str, path: str, body: object = None) -> Any:
            url = f"http://127.0.0.1:{edge.worker.admin_port}/api/{path}"
            async with session.request(method, url, json=body) as answer:
                return await answer.json(loads=as_javascript)

        receipt = await told("POST", "cache/purge", {"url": "/a"})
        number = table.current
        assert number > 2**53
        assert receipt["number"] == str(number)
        assert [node["number"] for node in receipt["nodes"]] == [str(number)]
        assert (await told("GET", "audit"))["changes"][0]["number"] == str(number)
        await edge.get("/a")
        (variant,) = (await told("GET", "cache/entry?url=http://example.test/a"))["variants"]
        assert variant["purge_number"] == str(number)
        for path in ("cache/stats", "live"):
            assert (await told("GET", path))["store"]["epoch"] == str(number), path


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_what_a_node_that_is_cut_off_does_not_keep_is_not_told_as_stored(
    redis: Server, lane: str
) -> None:
    async with (
        LedgerOrigin() as origin,
        ToxicProxy(redis.host, redis.port) as link,
        running_edge(
            origin.url, store=f"redis://{link.host}:{link.port}", store_budget="60s", lane=lane
        ) as edge,
        edge.client() as client,
    ):
        origin.reply("/long", body=bytes(2 * 1024 * 1024), headers=[("Cache-Control", "max-age=60")])
        bus = edge.worker.store.bus
        assert bus is not None

        async def told(target: str) -> str:
            answer = await client.request("GET", target)
            await edge.worker.background.settle("fill ", "end of a lease")
            return answer["Cache-Status"]

        assert [await told(target) for target in ("/a", "/b", "/a", "/long")] == [
            "edgeproxy; fwd=uri-miss; fwd-status=200; ttl=60; stored",
            "edgeproxy; fwd=uri-miss; fwd-status=200; ttl=60; stored",
            "edgeproxy; hit; ttl=60",
            "edgeproxy; fwd=uri-miss; fwd-status=200; ttl=60; stored",
        ]
        await edge.settle()
        link.reset()
        await until(lambda: not bus.ready)
        assert (await told("/c")).endswith("; stored"), "in memory, which is trusted for the lease"
        await edge.clock.advance(31)
        assert not bus.trusting
        for target in ("/a", "/b", "/new", "/new", "/long"):
            assert await told(target) == (
                "edgeproxy; fwd=uri-miss; fwd-status=200; detail=purge-log-not-followed"
            ), target
        assert edge.worker.metrics.tally.not_stored[NotStored.UNHEARD] == 5
        assert [trace.not_stored for trace in edge.traces[-5:]] == [NotStored.UNHEARD] * 5
        await link.heal()
        async with asyncio.timeout(20):
            while not bus.trusting:
                await edge.clock.advance(0.1)
                await asyncio.sleep(0.005)
        assert (await told("/new")).endswith("; stored")
        assert (await told("/new")).startswith("edgeproxy; hit")


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_what_memory_alone_has_no_room_for_is_not_told_as_stored(lane: str) -> None:
    async with (
        LedgerOrigin() as origin,
        running_edge(origin.url, memory="0", lane=lane) as edge,
        edge.client() as client,
    ):
        for _ in range(3):
            answer = await client.request("GET", "/a")
            assert answer["Cache-Status"] == "edgeproxy; fwd=uri-miss; fwd-status=200; detail=too-large"
        # What a POST brings for GET (RFC 9110 §9.3.3).
        brought = [("Cache-Control", "max-age=60"), ("Content-Location", "/a")]
        origin.reply("/a", headers=brought)
        answer = await client.request("POST", "/a", body=b"x")
        assert "stored" not in answer["Cache-Status"]


async def test_an_answer_that_is_sent_as_it_comes_needs_room_for_more_than_its_body() -> None:
    body = bytes(1024 * 1024 - 200)
    async with (
        LedgerOrigin() as origin,
        running_edge(origin.url, memory="1MiB") as edge,
        edge.client() as client,
    ):
        origin.reply("/a", body=body, headers=[("Cache-Control", "max-age=60")])
        for _ in range(2):
            answer = await client.request("GET", "/a")
            assert answer["Cache-Status"] == "edgeproxy; fwd=uri-miss; fwd-status=200; detail=too-large"
            await edge.settle()
