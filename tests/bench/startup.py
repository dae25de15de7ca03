"""Ready with a million entries in LMDB: from the start of the process to the first answers.

Rules of this file:

- The store is filled by the product's own code, with entries as a fetch makes them; only the sockets are
  left out.
- Ready is what an orchestrator sees (``/readyz`` answers 200). The first hit from the store is shown beside
  it; that it is one, the origin's count tells.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from edgeproxy.clock import Clock
from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Freshness, LifetimeSource, Stored
from edgeproxy.store.codec import encode, record_key
from edgeproxy.store.entry import Entry
from edgeproxy.store.open import open_store
from edgeproxy.store.shared import Write
from tests.bench import servers
from tests.bench.checks import Check
from tests.bench.origin import Origin
from tests.bench.probe import HOST, ask
from tests.bench.processes import Processes, Unusable, cpu_seconds
from tests.bench.servers import MEBIBYTE, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

TARGET = 1.5
BATCH = 5_000
LIFETIME = 36_000.0
OF_EACH = 5_000
"""Octets of the map for each entry, so that nothing is evicted: one takes about 3,200, and evicting begins at
four fifths of the map."""


def startup(entries: int, rounds: int, say: Callable[[str], None]) -> list[Check]:
    say(f"startup: {entries:,} entries in LMDB")
    with Processes() as processes:
        origin = Origin(processes)
        size = max(64, entries * OF_EACH // MEBIBYTE)
        path = processes.directory / "filled"
        began = time.perf_counter()
        octets = asyncio.run(_fill(path, entries, size * MEBIBYTE))
        say(f"  filled in {time.perf_counter() - began:.0f} s, {octets / MEBIBYTE:,.0f} MiB")
        setup = Setup(flags=("--store", f"lmdb:{path}", "--store-size", f"{size}MiB"))
        ready, first, used = [], [], []
        for number in range(rounds):
            began = time.perf_counter()
            running = servers.start(processes, "edgeproxy", origin, setup)
            used.append(cpu_seconds(running.pid))
            before = origin.requests()
            answer = ask(running.port, target(entries // (number + 2)))
            first.append(time.perf_counter() - began)
            ready.append(running.started)
            if answer.status != 200 or answer.body != BODY or origin.requests() != before:
                raise Unusable("startup: what was stored is not what is answered")
            processes.stop(running.process)
        median = statistics.median(ready)
        what = f"ready with {entries:,} entries in LMDB"
        return [
            Check("startup", what, f"{median:.2f} s", f"< {TARGET} s", median < TARGET),
            Check("startup", "processor time until then", f"{statistics.median(used):.2f} s"),
            Check("startup", "and the first hit from there", f"{statistics.median(first):.2f} s"),
        ]


BODY = b'{"pitches": [' + b'{"id": 1, "title": "pitch 1", "genre": "drama"}, ' * 20 + b"{}]}"


def target(number: int) -> str:
    return f"/stored/{number:08d}"


async def _fill(path: Path, entries: int, octets: int) -> int:
    """Octets that the store says it holds."""
    clock, tasks = Clock(), set()

    def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> object:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        tasks.add(task)
        return task

    store = await open_store(f"lmdb:{path}", clock=clock, spawn=spawn, l2_bytes=octets)
    if store.shared is None:
        raise Unusable(f"startup: {store.degraded}")
    namespace, epoch, pattern = store.table.incarnation, store.epoch, _entry(clock.now())
    for at in range(0, entries, BATCH):
        batch = []
        for number in range(at, min(at + BATCH, entries)):
            primary = f"http://{HOST}{target(number)}"
            entry = Entry(primary, HOST, target(number), "", pattern.stored, BODY, epoch, 1)
            data = encode(entry, namespace)
            assert data is not None
            batch.append(Write(record_key(namespace, primary), data, LIFETIME))
        await store.shared.cache.write(batch)
    facts = store.shared.cache.facts()
    await store.close()
    for task in tasks:
        task.cancel()
    if facts["entries"] != entries:
        raise Unusable(f"startup: {facts['entries']} entries are stored of {entries}")
    held = facts["bytes"]
    return held if isinstance(held, int) else 0


def _entry(now: float) -> Entry:
    fields = (
        (b"Server", b"nginx/1.22.1"),
        (b"Date", b"Mon, 01 Jan 2024 00:00:00 GMT"),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(BODY)),
        (b"Last-Modified", b"Mon, 01 Jan 2024 00:00:00 GMT"),
        (b"ETag", b'"6592a5d0-3e8"'),
        (b"Cache-Control", b"public, max-age=36000"),
    )
    freshness = Freshness(now, 0.0, LIFETIME, source=LifetimeSource.MAX_AGE)
    stored = Stored(200, "OK", Headers(fields), freshness, len(BODY), (), (), "")
    return Entry("", HOST, "", "", stored, BODY, 0, 1)
