"""Two nodes and a real Redis: each has a purge table of its own, the log is all they share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from edgeproxy.clock import Clock
from edgeproxy.cluster import scripts
from edgeproxy.cluster.bus import LogLost, RedisBus
from edgeproxy.cluster.epoch import GONE, GOOD, PurgeTable, SoftSince
from edgeproxy.store.open import open_store
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.engine.background import Background
    from tests.support.servers import Server

SMALL = 4096


class _Node:
    def __init__(self, server: Server, background: Background, table: PurgeTable | None = None) -> None:
        self.table = table or PurgeTable.anonymous(SMALL)
        self.bus = RedisBus(server.url, self.table, Clock(), background.spawn)
        self.bus.start()

    async def ready(self) -> _Node:
        await until(lambda: self.bus.ready)
        return self

    def gone(self, target: str, epoch: int) -> bool:
        return self.table.verdict("h", target, (), epoch) is GONE


async def until(condition: Callable[[], bool]) -> None:
    """Real processes answer when they answer; the test's own time limit is the limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def url(target: str, *, soft: bool = False) -> PurgeOrder:
    return PurgeOrder(PurgeKind.URL, target, soft=soft)


async def test_a_purge_has_one_number_on_all_nodes(redis: Server, background: Background) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    assert one.table.incarnation == other.table.incarnation
    epochs = one.table.current, other.table.current
    number, said, _ = await one.bus.publish(url("/a"))
    assert said == "ok"
    assert one.table.current == number
    assert one.gone("/a", epochs[0])
    await until(lambda: other.table.current == number)
    assert other.gone("/a", epochs[1])
    assert not other.gone("/b", epochs[1])
    soft, _, _ = await other.bus.publish(url("/s", soft=True))
    await until(lambda: one.table.current == soft)
    assert isinstance(one.table.verdict("h", "/s", (), number), SoftSince)
    for node in (one, other):
        await node.bus.close()


async def test_orders_arrive_as_they_were(redis: Server, background: Background) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    epoch = other.table.current
    await one.bus.publish(PurgeOrder(PurgeKind.URL, "/x\udcff", host="a.example", targets=("/y",)))
    await one.bus.publish(PurgeOrder(PurgeKind.PATTERN, "/p*q", host="b.example"))
    number, _, _ = await one.bus.publish(PurgeOrder(PurgeKind.TAG, "t"))
    await until(lambda: other.table.current == number)
    verdict = other.table.verdict
    assert verdict("a.example", "/x\udcff", (), epoch) is GONE
    assert verdict("a.example", "/y", (), epoch) is GONE
    assert verdict("b.example", "/y", (), epoch) is GOOD
    assert verdict("b.example", "/p/q", (), epoch) is GONE
    assert verdict("a.example", "/p/q", (), epoch) is GOOD
    assert verdict("c.example", "/", ("t",), epoch) is GONE
    for node in (one, other):
        await node.bus.close()


async def test_a_node_that_was_away_replays(redis: Server, background: Background) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    epoch = other.table.current
    await other.bus.close()
    await one.bus.publish(url("/a"))
    assert not other.gone("/a", epoch)
    back = await _Node(redis, background, other.table).ready()
    assert back.gone("/a", epoch)
    assert not back.gone("/b", epoch)
    assert back.bus.gaps == 0
    newcomer = await _Node(redis, background).ready()
    assert newcomer.gone("/a", epoch)
    assert not newcomer.gone("/b", epoch), "what others stored before is still good"
    for node in (one, back, newcomer):
        await node.bus.close()


async def test_a_trimmed_log_purges_everything_older(redis: Server, background: Background) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    epoch = other.table.current
    await other.bus.close()
    for number in range(3):
        await one.bus.publish(url(f"/{number}"))
    client = Redis.from_url(redis.url)
    await client.xtrim(one.bus._keys[1], maxlen=1, approximate=False)
    back = await _Node(redis, background, other.table).ready()
    assert back.bus.gaps == 1
    assert back.gone("/b", epoch)
    assert not back.gone("/b", back.table.current)
    newcomer = await _Node(redis, background).ready()
    assert newcomer.gone("/b", epoch)
    await client.aclose()
    for node in (one, back, newcomer):
        await node.bus.close()


async def test_a_flushed_redis_never_revives_anything(redis: Server, background: Background) -> None:
    # B9: a changed or missing incarnation means that everything stored is to be treated as purged.
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    name, epoch = one.table.incarnation, one.table.current
    client = Redis.from_url(redis.url)
    await client.flushall()
    _, said, _ = await one.bus.publish(url("/a"))
    assert said.startswith("not told yet")
    assert one.gone("/a", epoch)
    await until(lambda: one.table.incarnation != name and one.bus.ready)
    await until(lambda: other.table.incarnation == one.table.incarnation and other.bus.ready)
    for node in (one, other):
        assert node.gone("/b", epoch)
    number, said, _ = await other.bus.publish(url("/c"))
    assert said == "ok"
    await until(lambda: one.table.current >= number)
    await client.delete(one.bus._keys[1])  # evicted markers
    name = one.table.incarnation
    await until(lambda: one.table.incarnation != name and one.bus.ready)
    await client.aclose()
    for node in (one, other):
        await node.bus.close()


@pytest.mark.parametrize("since", ["nothing", "another purge"])
async def test_a_log_that_lost_its_end_is_made_anew(
    redis: Server, background: Background, since: str
) -> None:
    # B9: a replica took over that had not been told of the newest purge. One node has read it, one has not.
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    epoch, name = other.table.current, one.table.incarnation
    await other.bus.close()
    number, _, _ = await one.bus.publish(url("/a"))
    client = Redis.from_url(redis.url)
    log = one.bus._keys[1]
    newest = one.table.seen
    assert await client.xdel(log, f"{newest[0]}-{newest[1]}") == 1
    back = await _Node(redis, background, other.table).ready()
    assert not back.gone("/a", epoch), "it cannot know"
    if since == "another purge":
        await back.bus.publish(url("/b"))
    else:
        with pytest.raises(LogLost, match="lost its end"):
            await one.bus._catch_up()
    await until(lambda: one.table.incarnation != name and one.bus.ready)
    await until(lambda: back.table.incarnation == one.table.incarnation and back.bus.ready)
    assert back.gone("/a", epoch)
    assert back.gone("/any", epoch)
    number, said, _ = await back.bus.publish(url("/d"))
    assert said == "ok"
    await until(lambda: one.table.current == number)
    await client.aclose()
    for node in (one, back):
        await node.bus.close()


async def test_a_log_begun_on_a_slow_clock_is_lifted_above_the_numbers_of_its_nodes(
    redis: Server, background: Background
) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    ahead = 3_000_000_000_000
    client = Redis.from_url(redis.url)
    await client.xadd(one.bus._keys[1], {"begin": "x"}, id=f"{ahead}-0")
    await until(lambda: one.bus._table.seen[0] == ahead)
    await other.bus.close()
    fetched = one.table.current
    await client.flushall()
    name = one.table.incarnation
    with contextlib.suppress(LogLost):
        await one.bus._catch_up()
    await until(lambda: one.table.incarnation != name and one.bus.ready)
    number, said, _ = await one.bus.publish(url("/a"))
    assert said == "ok"
    newcomer = await _Node(redis, background).ready()
    assert newcomer.table.current == number
    assert newcomer.gone("/a", fetched), "what was fetched before is older than the purge, on every node"
    await client.aclose()
    for node in (one, newcomer):
        await node.bus.close()


async def test_without_redis_the_node_purges_alone_and_tells_later(
    background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    # E5
    with redis_server() as server:
        assert server is not None
        one, other = await _Node(server, background).ready(), await _Node(server, background).ready()
        port, epoch = server.port, one.table.current
    number, said, _ = await one.bus.publish(url("/a"))
    assert said.startswith("not told yet")
    assert one.gone("/a", epoch)
    assert number > epoch
    await until(lambda: not other.bus.ready)
    with redis_server(port) as server:
        assert server is not None
        await one.ready()
        await other.ready()
        await until(lambda: other.gone("/a", epoch))
        assert one.bus._untold.take() == []
        for node in (one, other):
            await node.bus.close()
    lost = [r for r in caplog.records if "lost" in r.message]
    assert len(lost) <= 2, "one line for each node's change of state"


async def test_workers_of_one_node_apply_each_purge_once(redis: Server, background: Background) -> None:
    table = PurgeTable.anonymous(SMALL)
    workers = [await _Node(redis, background, table).ready() for _ in range(2)]
    results = await asyncio.gather(*(workers[n % 2].bus.publish(url(f"/{n}")) for n in range(40)))
    numbers = [number for number, _, _ in results]
    assert len(set(numbers)) == 40
    assert table.current == max(numbers), "no purge got a second number"
    for worker in workers:
        await worker.bus.close()


async def test_a_record_that_cannot_be_read_purges_everything(redis: Server, background: Background) -> None:
    node = await _Node(redis, background).ready()
    epoch = node.table.current
    client = Redis.from_url(redis.url)
    await client.xadd(node.bus._keys[1], {"purge": b"\x93garbage"})
    await until(lambda: node.gone("/any", epoch))
    await client.aclose()
    await node.bus.close()


@pytest.mark.parametrize("what", ["name", "log", "nodes", "news", "a name that is none"])
async def test_what_is_of_another_type_at_our_keys_is_removed(
    redis: Server, background: Background, what: str
) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    name, epoch = one.table.incarnation, one.table.current
    client = Redis.from_url(redis.url)
    key = f"{{edgeproxy:purges}}:{'name' if ' ' in what else what}"
    await client.delete(key)
    if what == "a name that is none":
        await client.set(key, "x")
    else:
        await client.rpush(key, "of somebody else")
    said = ""
    while said != "ok":
        _, said, _ = await one.bus.publish(url("/a"), wait=False)
        await asyncio.sleep(0.01)
    await until(lambda: other.gone("/a", epoch))
    lost = what not in {"nodes", "news"}
    assert (one.table.incarnation != name) is lost, "a log that may have been anything is a lost one"
    assert one.gone("/any", epoch) is lost
    await client.aclose()
    for node in (one, other):
        await node.bus.close()


async def test_a_redis_that_is_full_takes_purges(redis: Server, background: Background) -> None:
    one, other = await _Node(redis, background).ready(), await _Node(redis, background).ready()
    epoch = other.table.current
    client = Redis.from_url(redis.url)
    flags = int((await client.info("server"))["redis_version"].split(".")[0]) >= 7
    await client.config_set("maxmemory", 1)
    try:
        # Reports, one after the other, and the log goes on being followed.
        for _ in range(2):
            before = one.table.heard, one.bus.heard
            await until(lambda before=before: one.bus.heard > before[1])  # type: ignore[misc]
            if flags:
                await until(lambda before=before: one.table.heard > before[0])  # type: ignore[misc]
        assert one.bus.ready, one.bus.error
        if flags:
            assert (await one.bus.publish(url("/a")))[1] == "ok"
            await until(lambda: other.gone("/a", epoch))
    finally:
        await client.config_set("maxmemory", 0)
    await client.aclose()
    for node in (one, other):
        await node.bus.close()


async def test_an_old_server_is_asked_without_what_it_does_not_know(
    redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "_ALLOWED", "#!lua of=old\n")
    monkeypatch.setattr(scripts, "_UNKNOWN", "")
    client = Redis.from_url(redis.url)
    asked = scripts.Scripts(client)
    for _ in range(2):
        assert await asked.run("return ARGV[1]", 1, "{k}", "x") == b"x"
    with pytest.raises(ResponseError):
        await asked.run("return redis.call('NONE')", 1, "{k}")
    await client.aclose()


async def test_a_healthy_start_is_no_warning(
    redis: Server, background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeproxy.bus")

    def followed() -> list[int]:
        return [record.levelno for record in caplog.records if record.message == "purge log: followed"]

    store = await open_store(redis.url, clock=Clock(), spawn=background.spawn)
    assert store.bus is not None
    await store.bus.followed.wait()
    assert followed() == [logging.INFO]
    assert (await store.health())["l2"] == "ok"
    redis.pause()
    await until(lambda: store.bus is not None and not store.bus.ready)
    health = await store.health()
    assert health["bus"].startswith("degraded: ")
    assert health["l2"].startswith("degraded: "), "what is not asked is not ok"
    redis.resume()
    await store.bus.followed.wait()
    assert followed() == [logging.INFO, logging.WARNING]
    await store.close()
