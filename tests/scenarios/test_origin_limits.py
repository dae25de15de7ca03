"""D2: so many at a time, so many who wait, and for so long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.scenarios.failing import NO_STORE, PASS, only, start
from tests.support.edge import running_edge
from tests.support.ledger import RST, Gate, LedgerOrigin

if TYPE_CHECKING:
    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock

LIMITED = PASS + "pools: {default: {limits: {concurrent: 1, queue: 2, wait: 100ms}, breaker: {connects: 1}}}"


async def test_d2_a_place_a_queue_and_a_limit_on_waiting(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules
) -> None:
    origin.reply("/a", headers=NO_STORE, gate="a")
    async with running_edge(origin.url, clock=clock, rules=rules(LIMITED)) as edge:
        served = start(edge, "/a")
        await origin.arrived("/a")
        leaver = edge.client()
        async with leaver:
            await leaver.start("GET", "/a")
            await edge.until(lambda: only(edge).client.queued == 1)
            waits = start(edge, "/a")
            await edge.until(lambda: only(edge).client.queued == 2)
            full = await edge.get("/a")
            assert (full.status, full["Retry-After"]) == (503, "1")
            leaver.reset()
            await edge.until(lambda: only(edge).client.queued == 1)
        takes_the_place = start(edge, "/a")
        await edge.until(lambda: only(edge).client.queued == 2)
        await clock.advance(0.095)
        assert not waits.done()
        await clock.advance(0.01)
        assert ((await waits).status, edge.traces[-1].reason) == (503, "origin-queue-full")
        assert (await takes_the_place).status == 503
        origin.gate("a").open()
        assert (await served).status == 200
        assert (await edge.get("/a")).status == 200


async def test_d2_all_who_wait_are_woken_when_the_origin_turns_sick(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules
) -> None:
    text = LIMITED.replace("queue: 2, wait: 100ms", "queue: 50, wait: 60s").replace(
        "connects: 1", "requests: 1"
    )
    origin.script("/a", [Gate("break"), RST])
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        first = start(edge, "/a")
        await origin.arrived("/a")
        waiting = [start(edge, "/a") for _ in range(40)]
        await edge.until(lambda: only(edge).client.queued == 40)
        origin.gate("break").open()
        assert (await first).status == 502
        answers = await asyncio.gather(*waiting)
        # The first of them may have got the place before the failure was known.
        statuses = sorted(a.status for a in answers)
        assert (statuses[0] in (502, 503), set(statuses[1:])) == (True, {503})
        assert origin.count("/a") <= 2
        assert clock.monotonic() == 0
