"""All origins down under load: a real edgeproxy, real time, a warm cache, 500 requests a second.

Rules of this file:

- Two pools, each with all of its origins down at once: one refuses connections, the other takes them and
  breaks them. What is asked of each is counted where it arrives.
- The load keeps its schedule as well as the machine lets it; nothing here is judged by how fast it was, but
  for the two seconds in which an origin that is back has to be found.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from edgeproxy.clock import Clock
from tests.support.ledger import RST, LedgerOrigin, head
from tests.support.origins import edgeproxy_process
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.ledger import Recorded, Step
    from tests.support.origins import EdgeProcess
    from tests.support.rawclient import RawAnswer

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

RATE = 500
CLIENTS = 20
KEYS = 100
"""Of each pool."""
DOWN = 60.0
"""Seconds."""

RULES = """
rules:
  - {name: dead, match: {path: "/dead/**"}, origin: dead, ttl: 1s, stale_if_error: 10m}
  - {name: broken, match: {path: "/broken/**"}, origin: broken, ttl: 1s, stale_while_revalidate: 1s,
     stale_if_error: 10m}
  - {name: cold, match: {path: "/cold/**"}, origin: dead, pass: true}
pools:
  dead: {origins: ["DEAD"], fallback: direct}
  direct: {origins: ["DIRECT"]}
  broken: {origins: ["BROKEN"]}
"""


class Site:
    """One pool's origin, and the paths that lead to it. ``down`` breaks each request."""

    def __init__(self, origin: LedgerOrigin, prefix: str) -> None:
        self.origin = origin
        self.paths = [f"/{prefix}/{n}" for n in range(KEYS)]
        self.down = False
        self.version = 1
        for path in self.paths:
            origin.script(path, self._script)

    def _script(self, _: Recorded) -> Sequence[Step]:
        if self.down:
            return [RST]
        body = b"version %d" % self.version
        return [head(200, [("Content-Length", str(len(body)))]) + body]


class Load:
    """RATE requests a second in all, over CLIENTS connections, until ``ended``."""

    def __init__(self, edge: EdgeProcess, clock: Clock) -> None:
        self._edge = edge
        self._clock = clock
        self.asked = 0
        self.failed: Counter[str] = Counter()
        self.first: dict[tuple[str, bytes], float] = {}
        """(pool, body) -> when it was first seen."""
        self.ended = False

    async def run(self, paths: Sequence[str]) -> None:
        await asyncio.gather(*(self._client(n, paths) for n in range(CLIENTS)))

    async def _client(self, number: int, paths: Sequence[str]) -> None:
        """A connection that breaks is a failed request, and replaced."""
        clock, due = self._clock, self._clock.monotonic() + number / RATE
        turn = number * 7
        while not self.ended:
            async with RawClient("127.0.0.1", self._edge.port) as client:
                try:
                    while not self.ended:
                        due += CLIENTS / RATE
                        wait = due - clock.monotonic()
                        if wait > 0:
                            await clock.sleep(wait)
                        elif wait < -1:
                            due = clock.monotonic()  # too slow a machine: no burst to make up for it
                        turn += 1
                        self._judge(paths[turn % len(paths)], await client.get(paths[turn % len(paths)]))
                except OSError as error:
                    self.asked += 1
                    self.failed[type(error).__name__] += 1

    def _judge(self, path: str, answer: RawAnswer) -> None:
        self.asked += 1
        pool = path.split("/")[1]
        if answer.status != 200 or not answer.complete or not answer.body.startswith(b"version "):
            self.failed[f"{pool} {answer.status}"] += 1
        else:
            self.first.setdefault((pool, answer.body), self._clock.monotonic())


async def until(clock: Clock, condition: Callable[[], bool], patience: float) -> None:
    end = clock.monotonic() + patience
    while not condition() and clock.monotonic() < end:
        await clock.sleep(0.02)


async def rows(edge: EdgeProcess) -> dict[str, Any]:
    answer = await asyncio.to_thread(edge.admin, "GET", "/api/cache/stats")
    found: dict[str, Any] = orjson.loads(answer.body)["origins"]
    return found


async def test_all_pools_down_on_a_warm_cache(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    clock = Clock()
    async with AsyncExitStack() as stack:
        dead, direct, broken = [await stack.enter_async_context(LedgerOrigin()) for _ in range(3)]
        sites = [Site(dead, "dead"), Site(broken, "broken")]
        (tmp_path / "rules").mkdir()
        text = RULES.replace("DEAD", dead.url).replace("DIRECT", direct.url).replace("BROKEN", broken.url)
        (tmp_path / "rules" / "rules.yaml").write_text(text)
        processes = stack.enter_context(ExitStack())
        running = edgeproxy_process(dead.url, tmp_path, rules=tmp_path / "rules")
        edge = await asyncio.to_thread(processes.enter_context, running)
        # Its end must be waited for in a thread: the origins run in this one.
        stack.push_async_callback(asyncio.to_thread, processes.close)

        paths = [path for site in sites for path in site.paths]
        load = Load(edge, clock)
        async with RawClient("127.0.0.1", edge.port) as client:
            for path in paths:
                assert (await client.get(path)).status == 200
        loading = asyncio.get_running_loop().create_task(load.run(paths))
        await clock.sleep(3)

        # -- down --
        await dead.stop()
        await direct.stop()
        sites[1].down = True
        before = (await rows(edge))["dead"][dead.url]["failures"]
        borne_before, asked_before = len(broken.requests), load.asked
        await clock.sleep(DOWN / 2)
        half_way = len(broken.requests)
        await clock.sleep(DOWN / 2)
        during = await rows(edge)
        asked = load.asked - asked_before
        refused = during["dead"][dead.url]["failures"] - before
        bore, probed = half_way - borne_before, len(broken.requests) - half_way
        cold = await asyncio.to_thread(edge.get, "/cold/1")

        # -- back --
        sites[0].version = sites[1].version = 2
        sites[1].down = False
        await dead.start()
        back = clock.monotonic()
        new = [("dead", b"version 2"), ("broken", b"version 2")]
        await until(clock, lambda: all(one in load.first for one in new), 10)
        found = [round(load.first.get(one, back + 99) - back, 2) for one in new]
        await clock.sleep(3)
        load.ended = True
        await loading

        report = {
            "asked": asked, "failed": dict(load.failed), "refused": refused, "broken": (bore, probed),
            "found": found,
        }  # fmt: skip
        for name, value in report.items():
            record_property(name, value)
        print(report)  # noqa: T201 - what CI shows of it
        assert asked > RATE * DOWN / 3, "the machine is too slow for this to say anything"
        assert not load.failed
        assert cold.status == 503
        assert cold.get("Retry-After")
        # Five failures to connect opened the breaker, with what was under way by then, and then each pause is
        # twice as long.
        assert refused <= 5 + CLIENTS + 5
        # Here half of what it was asked for in ten seconds had to break: as much as it had answered before.
        # From then on it is one request every second and a half.
        trials = DOWN / 2 / 1.35 + 1
        assert bore <= borne_before + CLIENTS + trials
        assert probed <= trials
        assert during["dead"][dead.url]["state"] == "breaker open"
        assert max(found) <= 2.0
        after = await rows(edge)
        assert after["dead"][dead.url]["state"] == after["broken"][broken.url]["state"] == "usable"
