"""A6, A7: what is sent again, to whom, and how often at most."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.breaker import State
from tests.scenarios.failing import NO_STORE, PASS, only, origins
from tests.support.edge import running_edge
from tests.support.ledger import FIN, RST, LedgerOrigin, head

if TYPE_CHECKING:
    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock
    from tests.support.ledger import Step


@pytest.mark.parametrize("how", ["no octet", "some octets"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a6_a_connection_dies_as_it_is_reused(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, method: str, how: str
) -> None:
    steps: list[Step] = [RST] if how == "no octet" else [b"HTTP/1.1 200 ", FIN]
    async with running_edge(origin.url, clock=clock, rules=rules(PASS)) as edge:
        await edge.get("/before")
        origin.script("/a", steps, times=1)
        answer = await edge.request(method, "/a", body=b"x" if method == "POST" else None)
        again = method == "GET" and how == "no octet"
        assert answer.status == (200 if again else 502)
        assert origin.count("/a") == (2 if again else 1)
        assert only(edge).client.resent == again
        assert only(edge).window.spent == again, "it is drawn on the origin's budget"


async def test_a6_resends_are_drawn_on_the_budget(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules
) -> None:
    """With nothing left, a request on a connection that died is not sent again."""
    text = PASS + "pools: {default: {retries: {budget: 0, least: 1}}}"
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        for expected in (200, 502):
            await edge.get("/before")
            origin.script("/a", [RST], times=1)
            assert (await edge.get("/a")).status == expected
        await clock.advance(10)
        await edge.get("/before")
        origin.script("/a", [RST], times=1)
        assert (await edge.get("/a")).status == 200


RETRY_5XX = PASS + "pools: {default: {retries: {attempts: 3, on: [connect, reset, 5xx]}}}"


@pytest.mark.parametrize("failure", ["503", "reset"])
async def test_a7_total_failure_then_single_ones(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, failure: str
) -> None:
    if failure == "503":
        origin.reply("/a", status=503, headers=NO_STORE)
    else:
        origin.script("/a", [RST])
    asked, rounds = 0, 40
    async with running_edge(origin.url, clock=clock, rules=rules(RETRY_5XX)) as edge:
        for _ in range(rounds):
            answers = await asyncio.gather(*(edge.get("/a") for _ in range(8)))
            asked += len(answers)
            assert {a.status for a in answers} <= {502, 503}
            await clock.advance(0.1)
        assert origin.count("/a") <= 1.2 * asked + 3
        if failure == "503":
            # The last origin's own errors are passed on, and repeated as far as the budget goes.
            assert origin.count("/a") > 1.1 * asked
            assert only(edge).breaker.state is State.CLOSED
        else:
            assert only(edge).breaker.opens
        await clock.advance(60)  # phase 2
        before = origin.count("/a")
        origin.reply("/a", headers=NO_STORE)
        await edge.get("/a")
        for n in range(300):
            if n % 100 == 50:
                origin.script("/a", [RST] if failure == "reset" else [head(503), FIN], times=1)
            assert (await edge.get("/a")).status == 200, "single failures are repeated and hidden"
        assert origin.count("/a") - before == 304


async def test_a7_what_is_not_repeated(origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules) -> None:
    text = RETRY_5XX.replace("pass: true", "pass: true, retry: none").replace('"/**"}', '"/never"}')
    text = text.replace("    pass: true, retry: none", "    pass: true\n    retry: none")
    text = text.replace("pools:", '  - {name: any, match: {path: "/any"}, pass: true, retry: any}\npools:')
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        for target, method, times in (
            ("/never", "GET", 1),
            ("/any", "DELETE", 4),
            ("/else", "GET", 4),
            ("/else2", "POST", 1),
            ("/any", "POST", 1),  # with a body that is read by now
        ):
            await clock.advance(10)  # what is spent is spent for so long
            before = origin.count(target)
            origin.reply(target, status=502, headers=NO_STORE)
            assert (await edge.request(method, target, body=b"x" if method == "POST" else None)).status == 502
            assert origin.count(target) - before == times, (method, target)
        origin.reply("/any", status=200, headers=NO_STORE)
        origin.reply("/any", status=502, headers=NO_STORE, times=1)
        async with edge.client() as client:
            assert (await client.request("PATCH", "/any")).status == 200  # the rule says so, and no body
        origin.reply("/404", status=404, headers=NO_STORE)
        assert (await edge.get("/404")).status == 404
        assert origin.count("/404") == 1


async def test_a_refused_post_goes_elsewhere_where_the_rule_allows_it(
    clock: DrivenClock, rules: WriteRules
) -> None:
    """Nothing was sent: its body is still there to be read."""
    async with origins(clock, 2) as (dead, alive):
        await dead.stop()
        text = PASS.replace("pass: true", "pass: true\n    retry: any")
        async with running_edge(f"{dead.url},{alive.url}", clock=clock, rules=rules(text)) as edge:
            for _ in range(4):
                assert (await edge.request("POST", "/a", body=b"body")).status == 200
            assert [bytes(r.body) for r in alive.of("/a")] == [b"body"] * 4


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_who_leaves_while_a_repeat_is_waited_for_leaves_no_place_taken(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, lane: str
) -> None:
    text = PASS + "pools: {default: {retries: {attempts: 2, on: [connect, 5xx], backoff: 1s}}}"
    async with running_edge(
        origin.url, clock=clock, rules=rules(text), lane=lane, chance=lambda: 0.99
    ) as edge:
        await edge.get("/before")
        origin.script("/a", [head(503, [("Content-Length", "5")]), b"not"])
        for n in range(3):
            async with edge.client() as client:
                await client.start("GET", "/a")
                await origin.arrived("/a", n + 1)
                await edge.until(lambda: any(abs(left - 0.99) < 1e-6 for left in clock.pending))
            await edge.until(lambda: edge.worker.handler.in_flight == 0)
        await edge.until(lambda: edge.worker.origin.in_flight == 0)


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_an_answer_that_is_asked_for_again_was_no_dead_connection(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, lane: str
) -> None:
    text = PASS + "pools: {default: {retries: {attempts: 2, on: [connect, 5xx]}}}"
    origin.reply("/a", status=503, headers=NO_STORE)
    async with running_edge(origin.url, clock=clock, rules=rules(text), lane=lane) as edge:
        await edge.get("/before")
        for n in range(1, 4):
            answer = await edge.get("/a")
            assert (answer.status, origin.count("/a")) == (503, 3 * n)
            assert answer.get("X-Serial") == str(1 + 3 * n), "the last answer is the one that is given"
            await clock.advance(11)  # what is spent is spent for so long
        client = only(edge).client
        assert (client.resent, client.connects, only(edge).retries) == (0, 1, 6)
