"""What a refusal costs the edge: ``python -m tests.load.refusals``.

Rules of this file:

- Each way of refusing by itself: nearly everything that is sent in a run is refused, so the processor time
  that the edge's process has used, divided by the refusals, is the cost of one. The load's own is not in it.
- Counted are refusals that came as they should: their status with Retry-After, or the connection's end.
- Beside them a hit and a miss, for scale. Of each the least of ROUNDS: what else the machine does only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import resource
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.load.client import Pool
from tests.load.figures import processor
from tests.load.overload import apart, origin
from tests.support.origins import edgeproxy_process

WANTED = 50.0
"""Microseconds."""
ROUNDS = 3
CONNECTIONS = 32
KEPT = 200
"""Connections that the edge may have."""
REQUESTS = 64
"""That may be under way."""
RULES = """
rules:
  - {name: limited, match: {path: /limited/**}, ttl: 1h, rate_limit: {rate: 1/m, burst: 1}}
  - {name: hang, match: {path: /hang/**}, pass: true}
  - {name: objects, match: {path: /**}, ttl: 1h}
"""


def _get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: load.test\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n" % path.encode()


class Cut(asyncio.Protocol):
    """A connection that should be ended at once."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.ended.set_result(None)


async def by_answer(port: int, pid: int, path: str, status: int, seconds: float) -> float:
    """Microseconds for each answer of ``status`` to requests for ``path``, "#" a number."""
    pool = Pool(port, CONNECTIONS)
    numbers = itertools.count()

    def ask() -> bytes:
        return _get(path.replace("#", str(next(numbers))))

    await pool.saturate(seconds / 4, ask, at_once=CONNECTIONS)
    least = float("inf")
    for _ in range(ROUNDS):
        before = processor(pid)
        result = await pool.saturate(seconds, ask, at_once=CONNECTIONS)
        used = processor(pid) - before
        came = result.refused if status != 200 else result.good + result.late
        if came < 0.95 * result.offered or result.no_retry_after or result.other:
            raise SystemExit(
                f"{path}: {came} of {result.offered} were answered {status} with all that belongs to it"
            )
        least = min(least, used / came * 1e6)
    await pool.close()
    return least


async def by_door(port: int, pid: int, seconds: float) -> float:
    """Microseconds for each connection above the limit."""
    loop = asyncio.get_running_loop()
    kept = Pool(port, KEPT)
    await kept.fill()
    await asyncio.sleep(0.2)
    least = float("inf")
    for _ in range(ROUNDS):
        came, before, until = 0, processor(pid), loop.time() + seconds
        while loop.time() < until:
            flood = [Cut() for _ in range(CONNECTIONS)]
            for each in flood:
                with contextlib.suppress(OSError):
                    await loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]
            async with asyncio.timeout(20):
                await asyncio.gather(*(each.ended for each in flood))
            came += CONNECTIONS
        least = min(least, (processor(pid) - before) / came * 1e6)
    await kept.close()
    return least


async def measured(port: int, pid: int, seconds: float) -> dict[str, float]:
    found = {
        "a hit": await by_answer(port, pid, "/o/1", 200, seconds),
        "a miss": await by_answer(port, pid, "/o/#", 200, seconds),
        "429, by a rule's rate_limit": await by_answer(port, pid, "/limited/#", 429, seconds),
    }
    found["the connection's end, above --max-connections"] = await by_door(port, pid, seconds)
    hanging = Pool(port, REQUESTS)
    await hanging.offer(100 * REQUESTS, 0.2, lambda: _get("/hang/"))
    found["503, above --max-requests"] = await by_answer(port, pid, "/other/#", 503, seconds)
    await hanging.close()
    return found


def run(directory: Path, seconds: float) -> dict[str, float]:
    """Microseconds by kind."""
    rules = directory / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    arguments = [
        "--workers",
        "1",
        "--access-log",
        "off",
        "--client-connections",
        "0",
        "--max-connections",
        str(KEPT),
    ]
    arguments += ["--max-requests", str(REQUESTS)]
    with (
        origin(1) as url,
        edgeproxy_process(url, directory, rules=rules, store="memory:", arguments=arguments) as edge,
    ):
        apart(edge.process.pid)
        return uvloop.run(measured(edge.port, edge.process.pid, seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    seconds = parser.parse_args().seconds
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        found = run(Path(directory), seconds)
    for kind, micros in found.items():
        sys.stdout.write(f"| {kind} | {micros:.0f} us |\n")
    dear = [kind for kind, micros in found.items() if not kind.startswith("a ") and micros >= WANTED]
    said = f"MISSED: {', '.join(dear)}" if dear else f"good: refusals cost less than {WANTED:.0f} us"
    sys.stdout.write(f"{said}\n")
    return 1 if dear else 0


if __name__ == "__main__":
    sys.exit(main())
