"""What nodes ask of one Redis, and where it would break first: measured unit costs, then a model of a fleet.

    python -m tests.bench.sizing [--nodes 100] [--rate 1000000] ...

Rules of this file:

- Unit costs are measured: two whole workers of edgeproxy and a real Redis, whose own counters (commands,
  octets in and out, memory) are read before and after so many of the same. Processor time is that of a Redis
  that is busy (redis-benchmark: a GET of an entry, and our script that writes one), since an idle one spends
  most of it on waking up; ASKED says how many of the two each thing takes.
- The fleet is a model: requests by Zipf's law, a lifetime, a memory tier of so many entries (least recently
  used; Che's approximation), each key fetched once per lifetime by whoever asks first. It is checked against
  a small simulation of single requests, and both are printed.
- Nothing is rounded in our favour: each worker follows the purge log by itself; replies cost octets too.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import shutil
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, cast

from redis import Redis

from edgeproxy.clock import Clock
from edgeproxy.store.codec import MAGIC
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.store.redis_backend import PUT_IF_NEWER
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin
from tests.support.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.driven import DrivenClock

KEEP = [("Cache-Control", "max-age=3600")]
ASKED = {"miss": (1, 3), "hit": (1, 0), "purge": (3, 1), "told": (2, 0), "idle": (2, 1)}
"""Commands like a GET, and scripts; without what receipts of purges take."""
PURGES = 50
"""Each is waited for: its receipt has a line for each node."""
NETWORK = 10e9 / 8
"""Octets a second of a 10 Gbit/s interface, each way."""


@dataclass(frozen=True)
class Cost:
    """Of one of a kind, at Redis. ``into`` and ``out`` in octets, ``cpu`` in seconds of its one thread."""

    commands: float
    into: float
    out: float
    cpu: float

    def __mul__(self, count: float) -> Cost:
        return Cost(self.commands * count, self.into * count, self.out * count, self.cpu * count)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.commands + other.commands, self.into + other.into, self.out + other.out, self.cpu + other.cpu
        )


@dataclass(frozen=True)
class Units:
    miss: Cost
    """Commands within scripts count, as Redis counts them."""
    hit: Cost
    purge: Cost
    """With one node that is told."""
    told: Cost
    """Each further worker that is told."""
    idle: Cost
    """A second of a worker that follows the log."""
    entry: float
    """Octets of memory for an entry."""


async def measured(body: int, count: int = 500) -> Units:
    """By two workers and a Redis of its own. Raises RuntimeError where there is no redis-server."""
    with redis_server() as server:
        if server is None:
            raise RuntimeError("there is no redis-server")
        clock = cast("DrivenClock", Clock())
        client = Redis(port=server.port)

        def read() -> tuple[Cost, int]:
            said = client.info()
            commands = said["total_commands_processed"]
            net = said["total_net_input_bytes"], said["total_net_output_bytes"]
            return Cost(commands, *net, 0.0), said["used_memory"]

        async def spent(work: Callable[[], Awaitable[object]], beside: Cost | None = None) -> Cost:
            """What ``work`` costs, without ``beside`` for each second of it."""
            first, began = read()[0], clock.monotonic()
            await work()
            cost = read()[0] + first * -1 + look * -1
            return cost if beside is None else cost + beside * -(clock.monotonic() - began)

        looks = [read()[0] for _ in range(21)]
        look = (looks[-1] + looks[0] * -1) * (1 / 20)
        by_itself = await spent(lambda: asyncio.sleep(4)) * 0.25
        async with LedgerOrigin(clock=clock) as origin:
            for number in range(count + 50):
                origin.reply(f"/{number}", headers=KEEP, body=random.Random(number).randbytes(body))
            one_of = running_edge(origin.url, clock=clock, store=server.url, store_budget="2s")
            other = running_edge(origin.url, clock=clock, store=server.url, store_budget="2s")
            async with one_of as edge:
                store = edge.worker.store
                shared, bus = store.shared, store.bus
                assert shared is not None
                assert bus is not None
                await bus.followed.wait()

                async def ask(first: int, last: int) -> None:
                    for number in range(first, last):
                        assert (await edge.get(f"/{number}")).status == 200
                    await shared.flushed()

                async def purge() -> None:
                    for _ in range(PURGES):
                        await store.purge(PurgeOrder(PurgeKind.URL, "/nothing"))

                idle = await spent(lambda: asyncio.sleep(8), by_itself) * 0.125
                beside = by_itself + idle
                await ask(count, count + 50)  # connections are made
                memory = read()[1]
                miss = await spent(lambda: ask(0, count), beside)
                entry = (read()[1] - memory) / count
                store.memory.clear()
                hit = await spent(lambda: ask(0, count), beside)
                assert sum(trace.hit for trace in edge.traces) >= count
                alone = await spent(purge, by_itself)
                async with other as second:
                    follower = second.worker.store.bus
                    assert follower is not None
                    await follower.followed.wait()
                    both = await spent(purge, by_itself)
        client.close()
        busy = await asyncio.to_thread(processor, server.port, body)
        each = 1 / count
        told = (both + alone * -1) * (1 / PURGES)
        costs = {
            "miss": miss * each,
            "hit": hit * each,
            "purge": alone * (1 / PURGES),
            "told": told,
            "idle": idle,
        }
        timed = {
            name: replace(cost, cpu=sum(n * each for n, each in zip(ASKED[name], busy, strict=True)))
            for name, cost in costs.items()
        }
        return Units(entry=entry, **timed)


def processor(port: int, body: int, count: int = 30_000) -> tuple[float, float]:
    """Seconds of processor time that a busy Redis takes for a GET of an entry and for the script that writes
    one. Raises RuntimeError where there is no redis-benchmark."""
    binary = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if binary is None:
        raise RuntimeError("there is no redis-benchmark")
    data = "x" * (body + 300)
    took = []
    with Redis(port=port) as client:
        sha = client.script_load(PUT_IF_NEWER)
        client.set("edgeproxy:bench", data)
        for command in (
            ["GET", "edgeproxy:bench"],
            ["EVALSHA", sha, "1", "edgeproxy:__rand_int__", data, "600000", data[: len(MAGIC)]],
        ):
            before = client.info("cpu")
            load = [binary, "-p", str(port), "-c", "50", "-n", str(count), "-r", "1000", "-q", *command]
            subprocess.run(load, check=True, capture_output=True)
            after = client.info("cpu")
            kinds = "used_cpu_sys", "used_cpu_user"
            took.append(sum(after[kind] - before[kind] for kind in kinds) / count)
    return took[0], took[1]


@dataclass(frozen=True)
class Fleet:
    """``rate``: requests a second of all nodes. ``memory``: entries that a node's L1 holds."""

    nodes: int
    workers: int
    rate: float
    keys: int
    skew: float
    lifetime: float
    memory: int
    purges: float


@dataclass(frozen=True)
class Asked:
    """A second of the fleet: fetches from the origin, hits in Redis, the share of L1."""

    misses: float
    hits: float
    l1: float


def modelled(fleet: Fleet) -> Asked:
    memories = fleet.nodes * fleet.workers
    weights = [1 / rank**fleet.skew for rank in range(1, fleet.keys + 1)]
    scale = fleet.rate / sum(weights)
    # Keys of about the same rank are taken together: a thousand groups are as good as a million keys.
    groups: list[tuple[float, int]] = []
    first = 0
    while first < fleet.keys:
        last = min(fleet.keys, max(first + 1, int(first * 1.01)))
        groups.append((scale * sum(weights[first:last]) / (last - first), last - first))
        first = last
    stay = _stays(groups, memories, fleet)
    misses = hits = 0.0
    for rate, count in groups:
        here = rate / memories
        # A key is fetched once for a lifetime and the pause until somebody asks again.
        fetched = rate / (1 + rate * fleet.lifetime)
        # Each memory but the fetcher's reads it once in that time, and all again where they had to evict it.
        again = here * max(0.0, fleet.lifetime - stay) * math.exp(-here * stay)
        reads = min(here * fleet.lifetime, 1 - math.exp(-here * fleet.lifetime) + again)
        misses += count * fetched
        hits += count * fetched * ((memories - 1) * reads + again)
    return Asked(misses, hits, 1 - (misses + hits) / fleet.rate)


def _stays(groups: list[tuple[float, int]], memories: int, fleet: Fleet) -> float:
    """Seconds that an entry nobody asks for stays in L1 (Che): the lifetime at most."""
    low, high = 0.0, fleet.lifetime
    for _ in range(60):
        middle = (low + high) / 2
        held = sum(count * (1 - math.exp(-rate / memories * middle)) for rate, count in groups)
        low, high = (middle, high) if held < fleet.memory else (low, middle)
    return high


def simulated(fleet: Fleet, seconds: float, seed: int = 1) -> Asked:
    """The same, request by request."""
    chance = random.Random(seed)
    weights = list(accumulate(1 / rank**fleet.skew for rank in range(1, fleet.keys + 1)))
    memories: list[OrderedDict[int, float]] = [OrderedDict() for _ in range(fleet.nodes * fleet.workers)]
    shared: dict[int, float] = {}
    misses = hits = counted = 0
    total = int(fleet.rate * seconds)
    for number in range(total):
        now = number / fleet.rate
        (key,) = chance.choices(range(fleet.keys), cum_weights=weights)
        memory = memories[chance.randrange(len(memories))]
        late = now > seconds / 3  # warm by then
        counted += late
        if memory.get(key, 0.0) > now:
            memory.move_to_end(key)
            continue
        if shared.get(key, 0.0) > now:
            hits += late
        else:
            misses += late
            shared[key] = now + fleet.lifetime
        memory[key] = shared[key]
        memory.move_to_end(key)
        if len(memory) > fleet.memory:
            memory.popitem(last=False)
    took = seconds * 2 / 3
    return Asked(misses / took, hits / took, 1 - (misses + hits) / counted)


def demanded(fleet: Fleet, units: Units, asked: Asked) -> dict[str, Cost]:
    """What of it Redis spends on what."""
    followers = fleet.nodes * fleet.workers
    return {
        "misses": units.miss * asked.misses,
        "hits in L2": units.hit * asked.hits,
        "purges": (units.purge + units.told * (followers - 1)) * fleet.purges,
        "following": units.idle * followers,
    }


def report(fleet: Fleet, units: Units, asked: Asked, body: int) -> str:
    rows = [
        f"One Redis, bodies of {body:,} octets.",
        "",
        "| one | commands | octets in | octets out | CPU us |",
    ]
    rows.append("| --- | --- | --- | --- | --- |")
    kinds = {
        "miss (look, lease, store, end of the lease)": units.miss,
        "hit in L2": units.hit,
        "purge, with one worker that hears of it": units.purge,
        "each further worker that hears of a purge": units.told,
        "second of a worker that follows the purge log": units.idle,
    }
    for name, cost in kinds.items():
        rows.append(
            f"| {name} | {cost.commands:.1f} | {cost.into:,.0f} | {cost.out:,.0f} | {cost.cpu * 1e6:.0f} |"
        )
    rows += [f"| entry held | | | | {units.entry:,.0f} octets of memory |", ""]
    rows.append(
        f"{fleet.nodes} nodes of {fleet.workers} workers, {fleet.rate:,.0f} requests/s, {fleet.keys:,} keys "
        f"(Zipf {fleet.skew}), lifetime {fleet.lifetime:g} s, {fleet.memory:,} entries in each worker's "
        f"memory, {fleet.purges:g} purges/s: L1 answers {asked.l1:.2%}; a second has "
        f"{asked.misses:,.0f} misses and {asked.hits:,.0f} hits in L2."
    )
    rows += [
        "",
        "| of Redis, a second | commands | MB in | MB out | CPU |",
        "| --- | --- | --- | --- | --- |",
    ]
    parts = demanded(fleet, units, asked)
    whole = Cost(0, 0, 0, 0)
    for cost in parts.values():
        whole += cost
    for name, cost in {**parts, "all": whole}.items():
        octets = f"{cost.into / 1e6:,.1f} | {cost.out / 1e6:,.1f}"
        rows.append(f"| {name} | {cost.commands:,.0f} | {octets} | {cost.cpu:.0%} |")
    log = parts["purges"] + parts["following"]
    loads = {
        "its one thread": whole.cpu,
        "10 Gbit/s out": whole.out / NETWORK,
        "10 Gbit/s in": whole.into / NETWORK,
    }
    first, load = max(loads.items(), key=lambda one: one[1])
    spread = max(loads["its one thread"] - log.cpu, (whole.out - log.out) / NETWORK)
    rows += [
        "",
        (
            f"Breaks first: {first} ({load:.1f} of one; memory {fleet.keys * units.entry / 1e9:,.1f} GB). "
            f"Entries spread over a cluster: {math.ceil(spread / 0.6)} primaries at 60 %; the purge log does "
            f"not, and takes {max(log.cpu, log.out / NETWORK):.0%} of the one that holds it."
        ),
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.sizing", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4, help="of each node")
    parser.add_argument("--rate", type=float, default=1_000_000, help="requests a second of all nodes")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--skew", type=float, default=0.9, help="of Zipf's law")
    parser.add_argument("--lifetime", type=float, default=300, help="seconds")
    parser.add_argument("--memory", type=int, default=50_000, help="entries in the memory of each worker")
    parser.add_argument("--purges", type=float, default=10, help="a second")
    parser.add_argument("--body", type=int, default=4096, help="octets")
    args = vars(parser.parse_args())
    body = args.pop("body")
    fleet = Fleet(**args)
    try:
        units = asyncio.run(measured(body))
    except RuntimeError as error:
        print(f"sizing: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(report(fleet, units, modelled(fleet), body))  # noqa: T201
    small = Fleet(5, 2, 4000, 20_000, fleet.skew, 10, 1000, 0)
    model, simulation = modelled(small), simulated(small, 40)
    print(  # noqa: T201
        f"\nThe model against a simulation of {small.rate * 40:,.0f} requests (5 nodes of 2 workers): misses "
        f"{model.misses:.0f} and {simulation.misses:.0f} a second, hits in L2 {model.hits:.0f} and "
        f"{simulation.hits:.0f}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
