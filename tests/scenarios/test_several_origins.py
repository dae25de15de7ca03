"""Origins that die, come back, are slow or err, beside others that do not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.breaker import State
from tests.scenarios.failing import NO_STORE, PASS, members, origins, start
from tests.support.edge import running_edge
from tests.support.ledger import Gate, LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock
    from tests.support.ledger import Recorded, Step
    from tests.support.rawclient import RawAnswer


async def test_one_killed_of_two_nobody_notices(clock: DrivenClock, rules: WriteRules) -> None:
    """Killed and back, at any moment: no client sees a failure, and the load goes where somebody is."""
    async with origins(clock, 2) as pair:
        text = PASS + "pools: {default: {retries: {on: [connect, reset]}}}"
        async with running_edge(",".join(o.url for o in pair), clock=clock, rules=rules(text)) as edge:
            for n in range(200):
                if n % 40 == 20:
                    await pair[0].stop()
                if n % 40 == 0 and n:
                    await pair[0].start()
                assert (await edge.get("/a")).status == 200
                await clock.advance(0.05)
            assert pair[0].count("/a") > 30
            assert pair[1].count("/a") > 80


async def test_flapping_every_second(clock: DrivenClock, rules: WriteRules) -> None:
    """Two origins take turns at being dead, with requests under way: none of them fails."""
    async with origins(clock, 2) as pair:
        text = (
            PASS + "pools: {default: {retries: {attempts: 2, on: [connect, reset]}, breaker: {connects: 2}}}"
        )
        async with running_edge(",".join(o.url for o in pair), clock=clock, rules=rules(text)) as edge:
            await pair[1].stop()
            failed = 0
            for second in range(12):
                for _ in range(10):
                    answers = await asyncio.gather(*(edge.get("/a") for _ in range(3)))
                    failed += sum(a.status != 200 for a in answers)
                    await clock.advance(0.1)
                # The other one is up before this one goes.
                await pair[1 - second % 2].start()
                await clock.advance(1.1)
                await pair[second % 2].stop()
            assert failed == 0


def taking(origin: LedgerOrigin, clock: DrivenClock, seconds: float) -> Callable[[Recorded], Sequence[Step]]:
    """Answers after so long on the driven clock."""

    def script(request: Recorded) -> Sequence[Step]:
        gate = f"{origin.port} {request.serial}"
        clock.call_later(seconds, origin.gate(gate).open)
        return [Gate(gate), head(200, [("Content-Length", "2"), *NO_STORE]), b"ok"]

    return script


@pytest.mark.parametrize("balance", ["round_robin", "least_outstanding", "latency"])
async def test_one_of_three_is_slow_by_ten(clock: DrivenClock, rules: WriteRules, balance: str) -> None:
    """After a while p99 is that of the healthy two; the slow one is looked at again now and then."""
    async with origins(clock, 3) as three:
        for origin, seconds in zip(three, (0.01, 0.01, 0.1), strict=True):
            origin.script("/a", taking(origin, clock, seconds))
        text = PASS + f"pools: {{default: {{balance: {balance}}}}}"
        where = ",".join(o.url for o in three)
        async with running_edge(where, clock=clock, rules=rules(text)) as edge:
            asked: list[asyncio.Task[RawAnswer]] = []
            for _ in range(500):
                asked.append(start(edge, "/a"))
                await clock.advance(0.005)
            await clock.advance(0.2)
            assert {(await each).status for each in asked} == {200}
            later = sorted(t.seconds for t in edge.traces if t.started > 1.25)
            assert len(later) > 220
            assert later[int(len(later) * 0.99)] <= 0.015
            slow = members(edge)[2]
            if balance != "latency":
                assert slow.ejector.ejections
                assert "ms to an answer" in slow.ejector.reason
            assert three[2].count("/a") < 60
            assert min(three[0].count("/a"), three[1].count("/a")) > 200


async def test_a_5xx_of_one_is_repeated_at_another_and_ejects_it(
    clock: DrivenClock, rules: WriteRules
) -> None:
    async with origins(clock, 2) as (bad, good):
        bad.reply("/a", status=500, headers=NO_STORE)
        text = PASS + "pools: {default: {retries: {on: [connect, 5xx]}}}"
        async with running_edge(f"{bad.url},{good.url}", clock=clock, rules=rules(text)) as edge:
            statuses = [(await edge.get("/a")).status for _ in range(30)]
            assert statuses.count(500) <= 2, "what the good one's budget has room for is repeated"
            assert members(edge)[0].state(clock.now())[0] == "ejected"
            assert bad.count("/a") == 5
            good.reply("/a", status=500, headers=NO_STORE)
            assert {(await edge.get("/a")).status for _ in range(30)} == {500}
            assert members(edge)[1].state(clock.now())[0] == "usable", "the last one never is"
            await clock.advance(1)
            bad.reply("/a", headers=NO_STORE)
            good.reply("/a", headers=NO_STORE)
            assert {(await edge.get("/a")).status for _ in range(30)} == {200}
            assert bad.count("/a") > 15


async def test_the_fallback_answers_while_the_pool_is_out(clock: DrivenClock, rules: WriteRules) -> None:
    async with origins(clock, 2) as (fast, direct):
        text = f"""
rules:
  - {{name: api, match: {{path: /api/**}}, origin: fast}}
pools:
  fast: {{origins: ["{fast.url}"], fallback: default}}
"""
        async with running_edge(direct.url, clock=clock, rules=rules(text)) as edge:
            await edge.get("/api/1")
            assert (fast.count("/api/1"), direct.count("/api/1")) == (1, 0)
            await edge.get("/else")
            assert direct.count("/else") == 1
            await fast.stop()
            for n in range(20):
                answer = await edge.get(f"/api/x{n}")
                assert (answer.status, answer.body) == (200, direct.stamp(f"/api/x{n}", 1))
            assert members(edge, "fast")[0].breaker.state is State.OPEN
            hit = await edge.get("/api/1")
            assert hit["X-Cache-Status"] == "HIT", "the key says nothing of who answered"
            await fast.start()
            await clock.advance(1.01)
            await edge.get("/api/back")
            assert fast.count("/api/back") == 1
