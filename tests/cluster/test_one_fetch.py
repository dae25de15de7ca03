"""One fetch per key among nodes and among workers: what clients and the origin see of the leases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeproxy.cluster.lease import NodeLeases
from edgeproxy.cluster.redis_lease import ClusterLeases
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import RST, Gate, LedgerOrigin, head
from tests.support.origins import edgeproxy_process
from tests.support.rawclient import RawClient
from tests.support.threads import threaded_origin
from tests.test_workers import pids

if TYPE_CHECKING:
    from tests.cluster.two import Two
    from tests.support.rawclient import RawAnswer


async def test_nodes_fetch_a_key_once(two: Two) -> None:
    two.origin.reply("/a", gate="g")
    first = asyncio.gather(*(two.one.get("/a") for _ in range(3)))
    await two.origin.arrived("/a", 1)
    others = asyncio.gather(*(two.other.get("/a") for _ in range(3)))
    await two.through(two.other.waiting(2))
    two.origin.gate("g").open()
    answers = [*await two.through(first), *await two.through(others)]
    assert two.origin.count("/a") == 1
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    told = [trace for trace in two.other.traces if trace.target == "/a"]
    assert [trace.collapsed for trace in told] == [True] * 3
    assert (await two.other.get("/a")).get("X-Cache-Status") == "HIT"


async def test_what_may_not_be_shared_lets_all_go_at_once(two: Two) -> None:
    two.origin.reply("/a", headers=[("Cache-Control", "private")], gate="g")
    first = asyncio.gather(two.one.get("/a"))
    await two.origin.arrived("/a", 1)
    others = asyncio.gather(*(two.other.get("/a") for _ in range(3)))
    await two.through(two.other.waiting(2))
    two.origin.gate("g").open()
    answers = [*await two.through(first), *await two.through(others)]
    assert two.origin.count("/a") == 4
    assert len({answer.get("X-Serial") for answer in answers}) == 4


async def test_a_failure_is_shared_among_nodes(two: Two) -> None:
    two.origin.script("/a", [Gate("g"), head(503, [("Content-Length", "0")])])
    first = asyncio.gather(two.one.get("/a"))
    await two.origin.arrived("/a", 1)
    leases = two.other.worker.store.leases
    assert isinstance(leases, ClusterLeases)
    told: list[object] = []
    ask = leases._eval

    async def asked(script: str, name: str, *arguments: bytes | int) -> object:
        told.append(await ask(script, name, *arguments))
        return told[-1]

    leases._eval = asked  # type: ignore[method-assign]
    others = asyncio.gather(two.other.get("/a"))
    await two.through(two.other.until(lambda: bool(told)))  # that another one fetches: it waits from now on
    two.origin.gate("g").open()
    answers = [*await two.through(first), *await two.through(others)]
    assert [answer.status for answer in answers] == [503, 503]
    assert two.origin.count("/a") == 1


async def test_a_refresh_is_made_once(two: Two) -> None:
    fields = [("Cache-Control", "max-age=10, stale-while-revalidate=60")]
    two.origin.reply("/a", headers=fields)
    await two.through(two.one.get("/a"))
    await two.through(two.one.settle())
    await two.through(two.other.get("/a"))
    await two.clock.advance(15)
    two.origin.reply("/a", headers=fields, gate="g")
    for node in (two.one, two.other):
        assert (await two.through(node.get("/a"))).get("X-Cache-Status") == "UPDATING"
    await two.origin.arrived("/a", 2)
    await two.clock.advance(0.1)
    two.origin.gate("g").open()
    for node in (two.one, two.other):
        await two.through(node.settle())
        assert (await two.through(node.get("/a"))).get("X-Cache-Status") == "HIT"
    assert two.origin.count("/a") == 2


async def test_a_refresh_that_failed_keeps_nobody_from_the_next(two: Two) -> None:
    """How a fetch ended is told to who came while it lasted, and to nobody who comes later."""
    fields = [("Cache-Control", "max-age=10, stale-while-revalidate=600")]
    two.origin.reply("/a", headers=fields)
    await two.through(two.one.get("/a"))
    await two.clock.advance(15)
    two.origin.script("/a", [RST], times=2)  # on the connection that was kept, and on a new one
    assert (await two.through(two.one.get("/a"))).get("X-Cache-Status") == "UPDATING"
    await two.through(two.one.settle())
    assert two.origin.count("/a") == 3
    await two.clock.advance(60)  # the key has cooled down
    assert (await two.through(two.one.get("/a"))).get("X-Cache-Status") == "UPDATING"
    await two.through(two.one.settle())
    assert two.origin.count("/a") == 4
    assert (await two.through(two.one.get("/a"))).get("X-Cache-Status") == "HIT"


async def test_nor_does_one_of_a_worker_of_the_same_node(tmp_path: Path) -> None:
    clock = DrivenClock()
    async with (
        LedgerOrigin() as origin,
        running_edge(origin.url, clock=clock, store=f"lmdb:{tmp_path / 's'}") as edge,
    ):
        origin.reply("/a", headers=[("Cache-Control", "max-age=10, stale-while-revalidate=600")])
        leases = NodeLeases(tmp_path, clock)
        edge.worker.engine.prompt.leases = leases
        edge.worker.engine._lead.__self__._leases = leases  # type: ignore[attr-defined]
        await edge.get("/a")
        await edge.settle()
        await clock.advance(15)
        origin.script("/a", [RST], times=2)
        assert (await edge.get("/a")).get("X-Cache-Status") == "UPDATING"
        await edge.settle()
        await clock.advance(60)
        assert (await edge.get("/a")).get("X-Cache-Status") == "UPDATING"
        await edge.settle()
        assert (await edge.get("/a")).get("X-Cache-Status") == "HIT"
        await leases.close()


# -- E8: processes --------------------------------------------------------------------------------------


async def _cold(port: int, target: str, count: int) -> list[RawAnswer | None]:
    """``count`` requests at once, each on a connection of its own; None where it was broken."""

    async def ask() -> RawAnswer | None:
        try:
            async with RawClient("127.0.0.1", port) as client:
                return await client.request("GET", target)
        except (OSError, EOFError):
            return None

    return await asyncio.gather(*(ask() for _ in range(count)))


def _owner(port: int, pids: list[int]) -> int:
    """Which of these processes has the TCP socket with this local port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    (inode,) = (fields[9] for fields in map(str.split, lines) if int(fields[1].split(":")[1], 16) == port)
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(fd.readlink()) == f"socket:[{inode}]":
                    return pid
    raise AssertionError("it is nobody's")


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.xdist_group("workers")
async def test_workers_ask_the_origin_once(tmp_path: Path) -> None:
    with (
        threaded_origin() as origin,
        edgeproxy_process(origin.url, tmp_path, store=None, arguments=["--workers", "4"]) as edge,
    ):
        ledger = origin.ledger
        ledger.reply("/cold", gate="g")
        requests = asyncio.ensure_future(_cold(edge.port, "/cold", 400))  # noqa: TID251
        await asyncio.to_thread(origin.run, ledger.arrived("/cold", 1))
        await asyncio.sleep(0.3)  # what the origin takes: enough for every worker to have been asked
        origin.open("g")
        answers = await requests
        assert ledger.count("/cold") == 1
        assert None not in answers
        assert {answer.body for answer in answers if answer is not None} == {ledger.stamp("/cold", 1)}

        # And again, and the worker that fetches is killed.
        ledger.reply("/killed", gate="h")
        requests = asyncio.ensure_future(_cold(edge.port, "/killed", 400))  # noqa: TID251
        fetch = await asyncio.to_thread(origin.run, ledger.arrived("/killed", 1))
        await asyncio.sleep(0.3)
        port: int = ledger._open[fetch.connection].get_extra_info("peername")[1]
        os.kill(_owner(port, await asyncio.to_thread(pids, edge)), signal.SIGKILL)
        await asyncio.to_thread(origin.run, ledger.arrived("/killed", 2))
        origin.open("h")
        answers = await requests
        assert ledger.count("/killed") == 2
        good = [answer for answer in answers if answer is not None and answer.complete]
        assert {answer.body for answer in good} == {ledger.stamp("/killed", 1)}
        assert len(good) >= 200, "only the killed worker's connections may break"
