"""Redis in all the ways it is run: on a socket, behind TLS, behind sentinels, as a cluster."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from redis import Redis
from redis.exceptions import RedisError

from edgeproxy.clock import Clock
from edgeproxy.cluster.bus import _NOT_YET
from edgeproxy.cluster.redis_cluster import ClusterRedis
from edgeproxy.cluster.redis_link import connect, pipelined
from edgeproxy.policy.vocabulary import Tier
from edgeproxy.store.open import open_store, parse_store_url
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.store.redis_backend import RedisCache
from edgeproxy.store.remote_facts import remote_facts
from edgeproxy.store.shared import PartAway, Write, Wrote
from tests.store.make import asking, make_entry
from tests.support.redis_kinds import PASSWORD, USER, redis_cluster, redis_sentinels
from tests.support.servers import redis_binary, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.engine.background import Background
    from edgeproxy.store.tiered import TieredStore
    from tests.support.redis_kinds import Authority, Cluster

nothing = asking()


async def until(condition: Callable[[], bool]) -> None:
    """Real servers answer when they answer; the test's own time limit is the limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def opened(url: str, background: Background, state: Path | None = None) -> TieredStore:
    store = await open_store(url, clock=Clock(), spawn=background.spawn, state_dir=state)
    assert store.bus is not None
    await store.bus.followed.wait()
    return store


async def stored(store: TieredStore, target: str) -> None:
    store.put(make_entry(target, epoch=store.epoch, received=Clock().now()))
    assert store.shared is not None
    await store.shared.flushed()


async def tier_of(store: TieredStore, target: str) -> Tier | None:
    store.memory.clear()
    return (await store.lookup(f"http://api.example{target}", nothing)).tier


async def test_a_unix_socket_and_a_password(tmp_path: Path, background: Background) -> None:
    binary = redis_binary()
    if binary is None:
        pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
    path = tmp_path / "redis.sock"
    command = [binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--requirepass", PASSWORD]
    with running(command, 0, "redis", path):
        store = await opened(f"redis+unix::{quote(PASSWORD, safe='')}@{path}?db=3", background)
        await stored(store, "/a")
        assert await tier_of(store, "/a") is Tier.L2
        await store.close()
        facts = await remote_facts(parse_store_url(f"redis+unix::{PASSWORD}@{path}?db=3"))
        assert facts["keys"] == 4, "the entry, and the purge log with its name and its bell"
        for url in (f"redis+unix:{path}", f"redis+unix::wrong@{path}"):
            client = connect(url, connections=1)
            with pytest.raises(RedisError, match=r"(?i)authentication|invalid username-password"):
                await client.get("edgeproxy:x")
            await client.aclose()


@pytest.mark.long
@pytest.mark.xdist_group("redis tls")
async def test_tls_is_verified_both_ways(
    tls: str, authority: Authority, background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port = tls.partition("?")[0].rpartition(":")[2]
    user = f"{USER}:{quote(PASSWORD, safe='')}@"
    cert, key = authority.client
    for refused in (
        f"rediss://{user}127.0.0.1:{port}",  # the system's authorities did not sign it
        f"rediss://{user}127.0.0.1:{port}?ca={authority.ca}",  # no client certificate
        f"rediss://{user}localhost:{port}?ca={authority.ca}&cert={cert}&key={key}",  # not its name
        f"redis://{user}127.0.0.1:{port}",
        f"rediss://edge:wrong@127.0.0.1:{port}?{authority.query}",
    ):
        store = await open_store(refused, clock=Clock(), spawn=background.spawn)
        assert store.bus is not None
        bus = store.bus
        await until(lambda: bus.error != _NOT_YET)  # noqa: B023
        assert not bus.ready
        told = repr((await store.health(), store.stats(), caplog.text))
        assert PASSWORD not in told
        assert quote(PASSWORD, safe="") not in told
        await store.close()
    store = await opened(tls, background)
    await stored(store, "/a")
    found = None
    while found is None:  # on a busy machine a read may take longer than its budget
        found = await tier_of(store, "/a")
        await asyncio.sleep(0.01)
    assert found is Tier.L2
    await store.close()


@pytest.mark.long
async def test_a_failover_by_sentinels(tmp_path: Path, background: Background) -> None:
    with redis_sentinels(tmp_path) as servers:
        if servers is None:
            pytest.skip("there is no redis-server")
        store = await opened(servers.url, background)
        assert store.bus is not None
        bus = store.bus
        name = store.table.incarnation
        await stored(store, "/a")
        receipt = await store.purge(PurgeOrder(PurgeKind.URL, "/b"))
        assert receipt.complete
        replica = Redis(port=servers.replica.port, password=PASSWORD)
        primary = Redis(port=servers.primary.port, password=PASSWORD)
        assert primary.wait(1, 1000) == 1
        servers.primary.pause()  # it hangs: nobody is told that it is gone
        # Requests go on, and what is purged meanwhile holds here at once.
        assert await tier_of(store, "/a") in (None, Tier.L2)
        await until(lambda: replica.role()[0] == b"master")
        await until(lambda: bus.ready)
        assert store.table.incarnation == name, "the log has gone on: nothing had to be dropped"
        found = None
        while found is None:
            found = await tier_of(store, "/a")
            await asyncio.sleep(0.01)
        assert found is Tier.L2
        await stored(store, "/c")
        receipt = await store.purge(PurgeOrder(PurgeKind.URL, "/a"))
        assert receipt.complete
        assert await tier_of(store, "/a") is None
        # One that has become a replica refuses writes: the connection is closed, and the sentinels are asked.
        held = bus._redis.connection_pool
        old = [each._writer for each in held._available_connections if each.is_connected]
        replica.replicaof("127.0.0.1", servers.primary.port)
        receipt = await store.purge(PurgeOrder(PurgeKind.URL, "/e"))
        assert receipt.layers["l2"].startswith("not told yet")
        # (Who follows the log may have connected again meanwhile.)
        await until(
            lambda: not any(each._writer in old for each in held._available_connections if each._writer)
        )
        replica.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        await until(lambda: bus.ready)
        for client in (replica, primary):
            client.close()
        await store.close()


@pytest.mark.long
async def test_a_purge_that_a_failover_lost_still_holds(tmp_path: Path, background: Background) -> None:
    # B9: written to the primary, which is killed before the replica has heard of it.
    with redis_sentinels(tmp_path) as servers:
        if servers is None:
            pytest.skip("there is no redis-server")
        one = await opened(servers.url, background)
        absent = await opened(servers.url, background, tmp_path / "absent")
        await stored(one, "/a")
        await absent.close()
        with Redis(port=servers.primary.port, password=PASSWORD) as primary:
            assert primary.wait(1, 1000) == 1
            servers.replica.pause()
            primary.client_kill_filter(_type="replica")  # what it has received already it would still read
        receipt = await one.purge(PurgeOrder(PurgeKind.URL, "/a"))
        assert receipt.layers["l2"] == "ok"
        name = one.table.incarnation
        servers.primary.process.kill()
        servers.replica.resume()
        bus = one.bus
        assert bus is not None
        await until(lambda: one.table.incarnation != name and bus.ready)
        back = await opened(servers.url, background, tmp_path / "absent")
        for store in (one, back):
            assert await tier_of(store, "/a") is None
            await stored(store, "/b")
            assert await tier_of(store, "/b") is Tier.L2
            await store.close()


@pytest.mark.long
@pytest.mark.xdist_group("redis cluster")
async def test_commands_go_to_the_node_that_holds_their_key(cluster: Cluster) -> None:
    client = connect(cluster.url.partition(",")[0], connections=4)  # the others are learned of
    assert isinstance(client, ClusterRedis)
    keys = [f"edgeproxy:{number}" for number in range(60)]
    results = await pipelined(client, [(key, ("SET", key, key)) for key in keys])
    assert set(results) == {True}
    for key in keys:
        with Redis(port=cluster.holder(key).port) as server:
            assert server.get(key) == key.encode()
        assert await client.get(key) == key.encode()
        assert await client.eval("return redis.call('GET', KEYS[1])", 1, key) == key.encode()
    script = client.register_script("return redis.call('GET', KEYS[1]) .. ARGV[1]")
    assert await script([keys[0]], ["!"]) == keys[0].encode() + b"!"
    await client.xadd("{edgeproxy:x}:log", {"a": "b"})
    assert len(await client.xread({"{edgeproxy:x}:log": "0"}, count=1)) == 1
    assert len(await client.primaries()) == 3
    with pytest.raises(TypeError, match="primaries"):
        await client.dbsize()
    facts = await remote_facts(parse_store_url(cluster.url))
    assert facts["nodes"] == 3
    assert isinstance(facts["keys"], int)
    assert facts["keys"] >= 60
    await client.aclose()


@pytest.mark.long
@pytest.mark.xdist_group("redis cluster")
async def test_a_slot_on_its_way_to_another_node(cluster: Cluster) -> None:
    client = connect(cluster.url, connections=4)
    keys = ["{edgeproxy:move}:a", "{edgeproxy:move}:b"]
    await client.set(keys[0], "1")
    old = cluster.holder(keys[0])
    new = next(server for server in cluster.servers if server is not old)
    with Redis(port=old.port) as source, Redis(port=new.port) as target:
        slot = source.cluster("KEYSLOT", keys[0])
        ids = [node.execute_command("CLUSTER MYID") for node in (source, target)]
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        assert await client.get(keys[0]) == b"1", "it is still at the old node"
        await client.set(keys[1], "2")  # a new key is made at the new one (ASK)
        assert await client.get(keys[1]) == b"2"
        assert source.dbsize() >= 1
        source.execute_command("MIGRATE", "127.0.0.1", new.port, keys[0], 0, 1000)
        for node in (target, source):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        assert await client.get(keys[0]) == b"1", "MOVED"
        assert await pipelined(client, [(keys[1], ("GET", keys[1]))]) == [b"2"]
        stale = connect(f"redis+cluster://127.0.0.1:{old.port}", connections=1)
        assert await stale.get(keys[1]) == b"2"
        await stale.aclose()
        # Back again, for the others.
        source.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[1])
        target.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[0])
        for key in keys:
            target.execute_command("MIGRATE", "127.0.0.1", old.port, key, 0, 1000)
        for node in (source, target):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[0])
        assert await pipelined(client, [(keys[0], ("DEL", keys[0])), (keys[1], ("DEL", keys[1]))]) == [1, 1]
    await client.aclose()


@pytest.mark.long
async def test_one_node_of_a_cluster_fails_and_its_replica_takes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_cluster(tmp_path, 3, 1) as cluster:
        if cluster is None:
            pytest.skip("there is no redis-server")
        cache = RedisCache(cluster.url, clock=Clock(), named="redis+cluster")
        writes = [Write(str(number), b"EPxx%d" % number, 60.0) for number in range(60)]
        assert set(await cache.write(writes)) == {Wrote.STORED}
        here = [w.key for w in writes if cluster.holder(f"edgeproxy:{w.key}") is cluster.servers[0]]
        others = [w.key for w in writes if w.key not in here]
        with Redis(port=cluster.servers[0].port) as client:
            assert client.wait(1, 1000) == 1
        cluster.servers[0].process.kill()
        # The other nodes are asked as ever; the dead one is left alone after a few tries.
        problems: list[type[BaseException]] = []
        for key in here[:10]:
            try:
                await cache.get(key)
            except Exception as error:  # noqa: BLE001
                problems.append(type(error))
            assert await cache.get(others[0]) == b"EPxx" + others[0].encode()
        assert PartAway in problems
        outcomes = dict(zip([w.key for w in writes], await cache.write(writes), strict=True))
        assert {outcomes[key] for key in others} == {Wrote.STORED}
        assert {outcomes[key] for key in here} == {Wrote.FAILED}
        # Its replica takes over, and is found.
        found: object = None
        while found is None:
            try:
                found = await cache.get(here[0])
            except Exception:  # noqa: BLE001
                await asyncio.sleep(0.02)
        assert found == b"EPxx" + here[0].encode()
        assert set(await cache.write(writes)) == {Wrote.STORED}
        assert len([r for r in caplog.records if "not asked" in r.message]) == 1, "one line for the dead node"
        await cache.close()
