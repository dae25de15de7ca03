"""LMDB: kills, garbage, a full map, a held lock (B1, B3, B4, B10)."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import pytest

import edgeproxy.store.codec as store_package
from edgeproxy.policy.vocabulary import LookupMiss, Tier
from edgeproxy.store.codec import decode, encode, record_key
from edgeproxy.store.entry import Entry
from edgeproxy.store.lmdb_backend import FULL, LmdbCache
from edgeproxy.store.lmdb_file import LmdbFile
from edgeproxy.store.open import open_store
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.store.shared import StoreUnusable, Write, Wrote
from edgeproxy.store.verify import State, Verifier
from tests.store.make import NOW, asking, make_entry
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.engine.background import Background

nothing = asking()
SPACE = b"namespac"


def write(target: str, body: bytes = b"x", ttl: float = 60.0, started: int = 1) -> Write:
    entry = make_entry(target, body, started=started)
    data = encode(entry, SPACE)
    assert data is not None
    return Write(record_key(SPACE, entry.primary), data, ttl)


@pytest.mark.parametrize(
    "garbage", [b"garbage" * 3000, b"", b"\0" * 8192, b"x"], ids=["g", "empty", "zero", "x"]
)
async def test_a_foreign_file_is_put_aside(
    tmp_path: Path, clock: DrivenClock, background: Background, garbage: bytes
) -> None:
    (tmp_path / "data.mdb").write_bytes(garbage)
    store = await open_store(f"lmdb:{tmp_path}", clock=clock, spawn=background.spawn)
    assert (await store.health())["l2"] == "ok"
    store.put(make_entry(epoch=store.epoch))
    assert store.shared is not None
    await store.shared.flushed()
    store.memory.clear()
    assert (await store.lookup("http://api.example/a", nothing)).tier is Tier.L2
    if len(garbage) > 1:
        assert (tmp_path / "quarantine.mdb").read_bytes() == garbage
    await store.close()


async def test_a_file_cut_short_is_put_aside(tmp_path: Path, clock: DrivenClock) -> None:
    cache = LmdbCache(tmp_path, clock, max_bytes=10_000_000)
    await cache.write([write(f"/{n}", b"x" * 5000) for n in range(100)])
    await cache.close()
    size = (tmp_path / "data.mdb").stat().st_size
    os.truncate(tmp_path / "data.mdb", size // 2)
    cache = LmdbCache(tmp_path, clock, max_bytes=10_000_000)
    assert cache.facts()["quarantined"] == 1
    assert cache.read_now(write("/1").key) is None
    assert await cache.write([write("/1")]) == [Wrote.STORED]
    await cache.close()


async def test_a_sound_file_is_never_put_aside(tmp_path: Path, clock: DrivenClock) -> None:
    random_sizes = random.Random(1)
    for round_ in range(12):
        cache = LmdbCache(tmp_path, clock, max_bytes=3_000_000)
        assert cache.facts()["quarantined"] == 0
        for number in range(15):
            body = b"x" * random_sizes.randrange(60_000)
            await cache.write(
                [write(f"/{number}", body, started=round_), Write(write(f"/{number - 3}").key, None)]
            )
        await cache.close()


async def test_an_unusable_path_means_memory_alone(
    tmp_path: Path, clock: DrivenClock, background: Background
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable):
        LmdbCache(tmp_path / "file", clock, max_bytes=10_000_000)
    store = await open_store(f"lmdb:{tmp_path}/file/store", clock=clock, spawn=background.spawn)
    assert (await store.health())["l2"].startswith("degraded: ")
    assert store.stats()["l2"] == "unusable"
    store.put(make_entry(epoch=store.epoch))
    assert store.peek("http://api.example/a", nothing).entry is not None
    assert (await store.lookup("http://api.example/b", nothing)).miss is LookupMiss.ABSENT
    await store.close()


@contextlib.contextmanager
def full_disk(octets: int = 0) -> Iterator[None]:
    """No file of this process may grow beyond ``octets``: what a disk that is full does to who writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_is_full_at_the_start_means_memory_alone(
    tmp_path: Path, clock: DrivenClock, background: Background
) -> None:
    # B3
    with full_disk():
        store = await open_store(f"lmdb:{tmp_path}", clock=clock, spawn=background.spawn)
        told = await store.health(), store.stats()["l2"]
    assert told[0]["l2"].startswith("degraded: ")
    assert told[1] == "unusable"
    store.put(make_entry(epoch=store.epoch))
    assert store.peek("http://api.example/a", nothing).entry is not None
    await store.purge(PurgeOrder(PurgeKind.ALL))
    assert store.peek("http://api.example/a", nothing).entry is None
    await store.close()


async def test_a_disk_that_fills_up_refuses_writes_and_they_come_back(
    tmp_path: Path, clock: DrivenClock, background: Background
) -> None:
    # B4
    store = await open_store(f"lmdb:{tmp_path}", clock=clock, spawn=background.spawn, l2_bytes=50_000_000)
    shared = store.shared
    assert shared is not None
    store.put(make_entry("/before", epoch=store.epoch))
    await shared.flushed()
    with full_disk((tmp_path / "data.mdb").stat().st_size):
        for number in range(4):
            store.put(make_entry(f"/{number}", bytes(200_000), epoch=store.epoch))
        await shared.flushed()
        store.memory.clear()
        assert (await store.lookup("http://api.example/before", nothing)).tier is Tier.L2
    assert shared.counts["write_errors"] + shared.counts["full"] > 0
    await clock.advance(120)  # it is tried again
    store.put(make_entry("/after", epoch=store.epoch, received=clock.now()))
    await shared.flushed()
    store.memory.clear()
    assert (await store.lookup("http://api.example/after", nothing)).tier is Tier.L2
    await store.close()


async def test_it_evicts_before_it_is_full(tmp_path: Path, clock: DrivenClock) -> None:
    # B4: three times the map.
    cache = LmdbCache(tmp_path, clock, max_bytes=4 * 1024 * 1024)
    for number in range(1200):
        outcome = await cache.write([write(f"/{number}", b"x" * 10_000, ttl=1000 + number)])
        assert outcome == [Wrote.STORED]
    facts = cache.facts()
    assert facts["map_full"] == 0
    assert isinstance(facts["bytes"], int)
    assert facts["bytes"] <= FULL * 4 * 1024 * 1024
    assert cache.read_now(write("/0").key) is None, "what ended soonest went first"
    assert cache.read_now(write("/1199").key) is not None
    assert (tmp_path / "data.mdb").stat().st_size <= 4 * 1024 * 1024
    assert await cache.write([write("/large", b"x" * 1024 * 1024)]) == [Wrote.FULL]
    await cache.close()


async def test_a_held_reader_fills_the_map_and_writing_comes_back(tmp_path: Path, clock: DrivenClock) -> None:
    cache = LmdbCache(tmp_path, clock, max_bytes=2 * 1024 * 1024)
    held = cache._env.begin()
    outcomes = []
    for number in range(400):
        outcomes += await cache.write([write(f"/{number}", b"x" * 20_000, ttl=1000 + number)])
    assert Wrote.FULL in outcomes, "pages that a reader may still see cannot be used again"
    assert cache.facts()["map_full"] == outcomes.count(Wrote.FULL)
    held.abort()
    for number in range(5):
        outcomes += await cache.write([write(f"/after/{number}")])
    assert outcomes[-1] is Wrote.STORED
    assert cache.read_now(write("/after/4").key) is not None
    await cache.close()


async def test_the_ended_are_swept(tmp_path: Path, clock: DrivenClock) -> None:
    cache = LmdbCache(tmp_path, clock, max_bytes=4 * 1024 * 1024)
    await cache.write([write(f"/{n}", ttl=10 if n % 2 else 100) for n in range(100)])
    clock.jump(11)
    assert cache.read_now(write("/1").key) is None
    await cache.maintain()
    facts = cache.facts()
    assert (facts["entries"], facts["expired"]) == (50, 50)
    # One that has ended does not keep a fetch that began earlier out.
    await cache.write([write("/t", ttl=1, started=9)])
    clock.jump(2)
    assert await cache.write([write("/t", started=1)]) == [Wrote.STORED]
    await cache.close()


HOLDER = """
import lmdb, sys
env = lmdb.open(sys.argv[1], subdir=False, max_dbs=2, map_size=10_000_000)
with env.begin(write=True):
    print("held", flush=True)
    sys.stdin.readline()
"""


async def test_another_process_holding_the_write_lock_stops_no_reader(
    tmp_path: Path, clock: DrivenClock, background: Background
) -> None:
    # B10
    store = await open_store(f"lmdb:{tmp_path}", clock=clock, spawn=background.spawn, l2_bytes=10_000_000)
    shared = store.shared
    assert shared is not None
    store.put(make_entry("/before", epoch=store.epoch))
    await shared.flushed()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "data.mdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        for number in range(200):
            store.put(make_entry(f"/{number}", epoch=store.epoch))
        store.memory.clear()
        assert (await store.lookup("http://api.example/before", nothing)).entry is not None
        assert not shared._idle.is_set()
        clock.jump(10)  # what waits in the queue is past its deadline when the lock is free
        holder.stdin.write("\n")
        holder.stdin.flush()
        await shared.flushed()
    assert shared.counts["write_drops"] > 100
    store.put(make_entry("/after", epoch=store.epoch, received=clock.now()))
    await shared.flushed()
    store.memory.clear()
    assert (await store.lookup("http://api.example/after", nothing)).entry is not None
    await store.close()


WRITER = """
import asyncio, hashlib, random, sys
from pathlib import Path
from edgeproxy.clock import Clock
from edgeproxy.store.lmdb_backend import LmdbCache
from tests.store.test_lmdb import stamped
async def main():
    cache = LmdbCache(Path(sys.argv[1]), Clock(), max_bytes=8 * 1024 * 1024)
    seeded = random.Random(sys.argv[2])
    while True:
        await cache.write([stamped(seeded.randrange(50), seeded) for _ in range(8)])
        print("w", flush=True)
asyncio.run(main())
"""


def stamped(number: int, seeded: random.Random) -> Write:
    """A record whose body carries its own digest."""
    body = seeded.randbytes(seeded.randrange(1024, 100_000))
    return write(f"/{number}", hashlib.sha256(body).digest() + body, ttl=1e6, started=seeded.randrange(1000))


async def test_killed_writers_leave_whole_records_and_a_usable_store(tmp_path: Path) -> None:
    # B1, shortened: what is read is a miss or byte-exact, and reader slots do not grow.
    clock = DrivenClock()
    cache = LmdbCache(tmp_path, clock, max_bytes=8 * 1024 * 1024)
    seen = 0
    for round_ in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3 + round_):
                assert writer.stdout.readline() == "w\n"
            writer.send_signal(signal.SIGKILL)
        for number in range(50):
            data = cache.read_now(write(f"/{number}").key)
            if data is not None:
                seen += 1
                body = _body(data, number)
                assert hashlib.sha256(body[32:]).digest() == body[:32]
        assert await cache.write([write("/mine", started=10**9 + round_)]) == [Wrote.STORED]
        await cache.maintain()
        assert len(cache._env.readers().splitlines()) <= 4
    assert seen > 20
    await cache.close()
    env = lmdb.open(str(tmp_path / "data.mdb"), subdir=False, readonly=True, max_dbs=2)
    assert env.stat()["entries"] == 2
    env.close()


ZYGOTE = """
import asyncio, hashlib, os, random, signal, sys
from pathlib import Path
from edgeproxy.clock import Clock
from edgeproxy.store.lmdb_backend import LmdbCache
from tests.store.test_lmdb import stamped, whole, write

async def work(seed):
    cache = LmdbCache(Path(sys.argv[1]), Clock(), max_bytes=8 * 1024 * 1024)
    seeded = random.Random(seed)
    while True:
        await cache.write([stamped(seeded.randrange(50), seeded) for _ in range(4)])
        for number in seeded.sample(range(50), 8):
            if not whole(cache.read_now(write(f"/{number}").key), number):
                os.write(1, b"damaged\\n")

def child(seed):
    pid = os.fork()
    if not pid:
        asyncio.run(work(seed))
    return pid

children = [child(number) for number in range(4)]
chosen = random.Random(1)
print("up", flush=True)
for number, line in enumerate(sys.stdin):
    place = chosen.randrange(4)
    os.kill(children[place], signal.SIGKILL)
    os.waitpid(children[place], 0)
    children[place] = child(number + 4)
    print("killed", flush=True)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def whole(data: bytes | None, number: int) -> bool:
    """A miss, or exactly what was written."""
    if data is None:
        return True
    body = _body(data, number)
    return hashlib.sha256(body[32:]).digest() == body[:32]


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_200_kills_of_one_of_four_workers(tmp_path: Path, clock: DrivenClock) -> None:
    # B1: every read a miss or byte-exact, the others write on, reader slots do not grow, a clean file.
    cache = LmdbCache(tmp_path, clock, max_bytes=8 * 1024 * 1024)
    pauses = random.Random(1)
    command = [sys.executable, "-c", ZYGOTE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        assert zygote.stdout.readline() == "up\n"
        for kill in range(200):
            await asyncio.sleep(pauses.uniform(0.0, 0.06))  # wherever they are by then
            zygote.stdin.write("\n")
            zygote.stdin.flush()
            assert zygote.stdout.readline() == "killed\n", "a worker has read what nobody wrote"
            async with asyncio.timeout(20):  # B1 says 1 s, of a machine that does nothing else
                outcome = await cache.write([write("/mine", started=10**9 + kill)])
            assert outcome in ([Wrote.STORED], [Wrote.FULL])
            number = kill % 50
            assert whole(cache.read_now(write(f"/{number}").key), number)
            await cache.maintain()
            assert len(cache._env.readers().splitlines()) <= 12
        zygote.stdin.close()
        assert zygote.wait(30) == 0
    assert cache.facts()["quarantined"] == 0
    await cache.close()
    with LmdbFile(tmp_path) as file:
        assert file.facts()["records"] > 10
        assert all(record.end is not None for record in file.records())
        found = Verifier(file, None, clock, most=10).run()  # edgeproxy store verify
        assert found.clean, found.found
        assert found.counts[State.DANGLING] == 0, found.found


def test_no_transaction_is_open_across_an_await() -> None:
    # B10: fact 10; what another process waits for must never wait for an event loop.
    seen = 0
    for path in Path(store_package.__file__ or "").parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            opens = isinstance(node, ast.With | ast.AsyncWith) and any(
                isinstance(call, ast.Attribute) and call.attr in ("begin", "_begin")
                for item in node.items
                for call in ast.walk(item.context_expr)
            )
            if opens:
                seen += 1
                waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
                assert not any(isinstance(inner, waits) for inner in ast.walk(node)), path
    assert seen > 10


def _body(data: bytes, number: int) -> bytes:
    entry = decode(data, (make_entry(f"/{number}").primary, ""), SPACE, NOW)
    assert isinstance(entry, Entry)
    return entry.body
