"""A small shop under way: rules, an origin that takes its time, and clients, all in driven time.

Rules of this file: everything but the clock is real, and everything drawn comes from one seed, so that two
runs show the same numbers.
"""

from __future__ import annotations

import math
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edgeproxy.observe.percentiles import STEP
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.edge import Edge

HOST = "shop.example"
RULES = """
rules:
  - name: pitches
    match: {path: "/api/pitches/**"}
    ttl: 60s
    stale_if_error: 1h
    tags: [pitches]
  - name: search
    match: {path: "/api/search"}
    ttl: 10s
  - name: live
    match: {path: "/api/live/**"}
    ttl: 5s
  - name: account
    match: {path: "/api/account/**"}
    pass: true
  - name: never-asked
    match: {path: "/old/**"}
    ttl: 1d
"""


class TickingClock(DrivenClock):
    """Driven, and a little later each time that somebody measures: what takes no time is no picture."""

    chance = random.Random(3)

    def monotonic(self) -> float:
        self.jump(self.chance.lognormvariate(-10.8, 0.7))
        return super().monotonic()


@asynccontextmanager
async def open_shop(directory: Path, **flags: Any) -> AsyncIterator[Shop]:
    """A worker in front of the shop's origin."""
    (directory / "shop.yaml").write_text(RULES)
    shop = Shop(TickingClock(1_795_330_000.0))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", shop.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with running_edge(
            f"http://127.0.0.1:{runner.addresses[0][1]}", rules=directory, clock=shop.clock, **flags
        ) as shop.edge:
            yield shop
    finally:
        await runner.cleanup()


class Shop:
    edge: Edge

    def __init__(self, clock: DrivenClock) -> None:
        self.clock = clock
        self.chance = random.Random(7)

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.edge.worker.admin_port}/"

    async def answer(self, request: web.Request) -> web.Response:
        """The origin's: the time that it takes is the clock's."""
        self.clock.jump(self.chance.lognormvariate(-3.3, 0.8))
        if request.path == "/api/live/broken":
            return web.Response(status=503, text="busy")
        fields = {"Set-Cookie": "a=b"} if request.path == "/api/pitches/77" else {}
        return web.Response(text="x" * self.chance.randint(500, 9000), headers=fields)

    def target(self) -> str:
        kind, number = self.chance.random(), int(self.chance.paretovariate(0.9))
        if kind < 0.6:
            return f"/api/pitches/{number % 200}"
        if kind < 0.8:
            return f"/api/search?q={number % 40}"
        if kind < 0.92:
            return f"/api/live/{number % 9}"
        return "/api/account/me"

    async def visit(self, slots: int, busy: int) -> None:
        """Clients ask for ``slots`` slots of STEP seconds; ``busy`` times in each, give or take."""
        async with self.edge.client() as client:
            for slot in range(slots):
                for _ in range(int(busy * (1 + 0.5 * math.sin(slot / 8)))):
                    await client.request("GET", self.target(), headers=[("Host", HOST)])
                await self.clock.advance(STEP - self.clock.now() % STEP + 0.01)
            await client.request("GET", "/api/live/broken", headers=[("Host", HOST)])
            await client.request("GET", "/api/pitches/77", headers=[("Host", HOST)])
