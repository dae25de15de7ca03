"""What is held costs memory: an idle connection, an entry beside its body.

Rules of this file:

- From outside: the resident memory of the process before and after, divided by how many came in between. The
  first ones are not counted, since they also pay for what is made once.
- Beside it what the store itself charges, since its budget is kept in those octets.
- The connections are real ones, each of which has been answered, and are held while hits are served.
"""

from __future__ import annotations

import contextlib
import json
import resource
from typing import TYPE_CHECKING

from tests.bench import load, servers
from tests.bench.checks import Check
from tests.bench.origin import Origin
from tests.bench.probe import Connection, request
from tests.bench.processes import Processes, Unusable, resident
from tests.bench.scripts import header_blocks, script
from tests.bench.servers import Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.servers import Running

CONNECTION = 12 * 1024
ENTRY = 1024
WARM = 500
"""Connections before those that are counted."""
WARM_ENTRIES = 5000
"""Entries before those that are counted: compressors take megabytes, once."""
CODINGS = ("br", "gzip")


def connections(count: int, seconds: int, say: Callable[[str], None]) -> list[Check]:
    """``count`` idle ones; fewer where this process may not open so many."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - WARM - 500
    scaled = "" if count <= room else f" (of {count:,}: no more open files are allowed)"
    count = min(count, room)
    say(f"memory: {count:,} idle connections{scaled}")
    with Processes() as processes, contextlib.ExitStack() as held:
        origin = Origin(processes)
        flags = ("--keepalive", "30m", "--max-connections", str(count + WARM + 200))
        running = servers.start(processes, "edgeproxy", origin, Setup(flags=flags))
        path = processes.directory / "hot.lua"
        path.write_text(script("one", path="/1k", urls=1, stamp="", seed=1, connections=load.CONNECTIONS))
        load.wrk(running.port, path, 1)
        alone = load.wrk(running.port, path, seconds)
        whole = f"GET /1k HTTP/1.1\r\n{header_blocks()[0]}".encode()

        def hold(number: int) -> None:
            for _ in range(number):
                connection = Connection(running.port)
                held.callback(connection.close)
                if connection.ask(whole).status != 200:
                    raise Unusable("memory: a connection was not answered 200")

        hold(WARM)
        before = resident(running.pid)
        hold(count)
        each = (resident(running.pid) - before) / count
        beside = load.wrk(running.port, path, seconds)
        if beside.failed or beside.broken:
            raise Unusable("memory: not all hits were served beside the idle connections")
        say(f"  {each:,.0f} octets each")
        rate = f"{beside.rate / alone.rate:.2f} x the rate"
        return [
            Check(
                "memory", f"an idle connection, {count:,} of them held{scaled}", f"{each / 1024:.1f} KB",
                f"< {CONNECTION // 1024} KB", each < CONNECTION,
            ),
            Check("memory", "hot meanwhile, against without them", rate),
        ]  # fmt: skip


def entry_overhead(count: int, say: Callable[[str], None]) -> list[Check]:
    say(f"memory: {count:,} entries, each with {' and '.join(CODINGS)}")
    found = [_overhead(count, lane) for lane in ("on", "off")]
    (outside, charged), (without, _) = found
    say(
        f"  {outside:,.0f} octets beside the bodies ({without:,.0f} without the lane), {charged:,.0f} charged"
    )
    below = f"< {ENTRY:,} octets"
    return [
        Check(
            "memory", f"an entry beside its body and two codings, of {count:,}: resident memory",
            f"{without:,.0f} octets", below, without < ENTRY,
        ),
        Check("memory", "and with what the lane has learned of it", f"{outside:,.0f} octets"),
        Check("memory", "as the store charges it", f"{charged:,.0f} octets", below, charged < ENTRY),
    ]  # fmt: skip


def _overhead(count: int, lane: str) -> tuple[float, float]:
    """Octets for each entry beside its bodies: of resident memory, and as charged."""
    with Processes() as processes:
        origin = Origin(processes)
        running = servers.start(processes, "edgeproxy", origin, Setup(flags=("--lane", lane)))
        connection = Connection(running.port)
        _bring_in(connection, "warm", WARM_ENTRIES)
        before, charged = resident(running.pid), _store(running)
        bodies = _bring_in(connection, "all", count)
        entries, octets = (now - then for now, then in zip(_store(running), charged, strict=True))
        if entries != count:
            raise Unusable(f"memory: {entries} entries are held of {count}")
        connection.close()
        return (resident(running.pid) - before - bodies) / count, (octets - bodies) / count


def _bring_in(connection: Connection, name: str, count: int) -> int:
    """Ask for URLs in each coding, as it is and coded; octets of all those bodies."""
    total = 0
    for number in range(count):
        for coding in ("identity", *CODINGS):
            answer = connection.ask(request(f"/medium/{name}-{number:06d}", {"Accept-Encoding": coding}))
            given = answer.headers.get("content-encoding", "identity")
            if answer.status != 200 or given != coding:
                raise Unusable(f"memory: {coding} was asked for, {given} given")
            total += len(answer.body)
    return total


def _store(running: Running) -> tuple[int, int]:
    """Entries and octets in memory, as the store counts them."""
    said = json.loads(running.operate("/api/cache/stats"))["store"]
    return int(said["l1_entries"]), int(said["l1_bytes"])
