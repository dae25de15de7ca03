"""A8, A9: an origin that fails is left alone and tried again; what clients do is not held against it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.origin.breaker import State
from tests.scenarios.failing import NO_STORE, PASS, only, start
from tests.support.edge import running_edge
from tests.support.ledger import Gate, LedgerOrigin

if TYPE_CHECKING:
    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock


async def test_a8_open_half_open_closed(origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules) -> None:
    """Dead, then alive, three times: while it is open answers are at once, and one request tries it."""
    text = PASS + "pools: {default: {retries: {attempts: 0}}}"
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        assert (await edge.get("/a")).status == 200
        for times in range(1, 4):
            await origin.stop()
            statuses = [(await edge.get("/a")).status for _ in range(5)]
            assert statuses == [502] * 5
            breaker = only(edge).breaker
            assert (breaker.state, breaker.opens) == (State.OPEN, times)
            connects = only(edge).client.connects
            began = clock.monotonic()
            for _ in range(20):
                refused = await edge.get("/a")
                assert (refused.status, refused["Retry-After"]) == (503, str(2 ** (times - 1)))
            assert clock.monotonic() == began, "nobody waited for anything"
            assert only(edge).client.connects == connects, "and the origin was not asked"
            assert edge.traces[-1].reason == "breaker-open"
            before = origin.count("/a")
            await origin.start()
            origin.reply("/a", headers=NO_STORE, gate=f"trial {times}")
            await clock.advance(1.01)  # somebody has looked whether one can connect
            trial = start(edge, "/a")
            await origin.arrived("/a", before + 1)
            assert breaker.state is State.HALF_OPEN
            others = await asyncio.gather(*(edge.get("/a") for _ in range(20)))
            assert {a.status for a in others} == {503}
            assert origin.count("/a") == before + 1, "one trial, however many ask"
            origin.gate(f"trial {times}").open()
            assert (await trial).status == 200
            assert breaker.state.value == "closed"
            assert (await edge.get("/a")).status == 200


async def test_a8_a_trial_whose_client_leaves_decides_nothing(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(PASS)) as edge:
        await origin.stop()
        for _ in range(5):
            await edge.get("/a")
        await origin.start()
        await clock.advance(1.01)
        origin.script("/a", [Gate("never")], times=1)
        async with edge.client() as client:
            await client.start("GET", "/a")
            await origin.arrived("/a")
            client.reset()
        await edge.until(lambda: edge.worker.origin.in_flight == 0)
        assert only(edge).breaker.state is State.OPEN
        assert (await edge.get("/a")).status == 200
        assert only(edge).breaker.state is State.CLOSED


async def test_a8_open_serves_stale_at_once(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1, stale-if-error=600")])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await origin.stop()
        await clock.advance(2)
        for n in range(6):
            await edge.get(f"/other{n}")
        assert only(edge).breaker.state is State.OPEN
        answer = await edge.get("/a")
        assert (answer.status, answer["X-Cache-Status"]) == (200, "STALE")
        assert edge.traces[-1].reason == "breaker-open"
        missing = await edge.get("/never-seen")
        assert (missing.status, missing["Retry-After"]) == (503, "1")


async def test_a9_what_clients_do_is_not_held_against_the_origin(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules
) -> None:
    text = PASS + "pools: {default: {limits: {concurrent: 1, queue: 1, wait: 100ms}}}"
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        origin.reply("/404", status=404, headers=NO_STORE)
        for _ in range(100):
            assert (await edge.get("/404")).status == 404
        origin.script("/hang", [Gate("never")])
        for n in range(100):
            async with edge.client() as client:
                await client.start("GET", "/hang")
                await origin.arrived("/hang", n + 1)
                client.reset()
            await edge.until(lambda: edge.worker.origin.in_flight == 0)
        async with edge.client() as client:
            await client.start("GET", "/hang")
            await origin.arrived("/hang", 101)
            waits = start(edge, "/404")
            await edge.until(lambda: only(edge).client.queued == 1)
            for _ in range(100):
                assert (await edge.get("/404")).status == 503
            client.reset()
            assert (await waits).status == 404
        member = only(edge)
        assert (member.breaker.state, member.window.failed, member.failures) == (State.CLOSED, 0, 0)
        reasons = {t.reason for t in edge.traces}
        assert "origin-queue-full" in reasons
        assert sum(t.aborted for t in edge.traces) == 101, "the log says who ended each request"
