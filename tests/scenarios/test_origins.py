"""A3, A5 to A9, D2 and what goes with them: origins fail, clients do not notice, nobody storms."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.origin.breaker import State
from tests.support.driven import settle
from tests.support.edge import running_edge
from tests.support.ledger import FIN, RST, Gate, LedgerOrigin, chunk, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from edgeproxy.origin.member import Member
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import Recorded, Step
    from tests.support.rawclient import RawAnswer

    WriteRules = Callable[[str], Path]

PASS = """
rules:
  - name: all
    match: {path: "/**"}
    pass: true
"""
NO_STORE = [("Cache-Control", "no-store")]


@contextlib.asynccontextmanager
async def origins(clock: DrivenClock, count: int) -> AsyncIterator[list[LedgerOrigin]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(LedgerOrigin(clock=clock)) for _ in range(count)]


def start(edge: Edge, target: str, method: str = "GET") -> asyncio.Task[RawAnswer]:
    body = b"x" if method == "POST" else None
    return asyncio.get_running_loop().create_task(edge.request(method, target, body=body))


def members(edge: Edge, pool: str = "default") -> list[Member]:
    return list(edge.worker.origin.pools[pool].members)


def only(edge: Edge) -> Member:
    return members(edge)[0]


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A listener whose backlog is full: it accepts nothing and refuses nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


# -- A3 ------------------------------------------------------------------------------------------------

TIMEOUTS = (
    PASS
    + "pools: {default: {timeouts: {connect: 2s, tls: 3s, first_byte: 5s, between_bytes: 7s, whole: 11s}}}"
)


async def fires_at(edge: Edge, clock: DrivenClock, asked: asyncio.Task[Any], seconds: float) -> None:
    """Within a tenth."""
    await clock.advance(seconds * 0.95)
    assert not asked.done()
    await clock.advance(seconds * 0.1)
    await asked
    assert edge.worker.origin.in_flight == 0


async def test_a3_connect(clock: DrivenClock, rules: WriteRules) -> None:
    with black_hole() as where:
        async with running_edge(f"http://{where}", clock=clock, rules=rules(TIMEOUTS)) as edge:
            asked = start(edge, "/a")
            await edge.until(lambda: edge.worker.origin.in_flight == 1)
            await fires_at(edge, clock, asked, 2)
            assert (asked.result().status, edge.traces[-1].reason) == (504, "connect-timeout")


async def test_a3_tls(clock: DrivenClock, rules: WriteRules) -> None:
    """The connection is accepted and nobody shakes hands."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        where = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with running_edge(where, clock=clock, rules=rules(TIMEOUTS)) as edge:
            asked = start(edge, "/a")
            await edge.until(lambda: edge.worker.origin.in_flight == 1)
            await fires_at(edge, clock, asked, 3)
            assert (asked.result().status, edge.traces[-1].reason) == (504, "tls-timeout")


@pytest.mark.parametrize("reused", [False, True])
async def test_a3_first_byte(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, reused: bool
) -> None:
    origin.script("/a", [Gate("never")])
    async with running_edge(origin.url, clock=clock, rules=rules(TIMEOUTS)) as edge:
        if reused:
            await edge.get("/before")
        asked = start(edge, "/a")
        await origin.arrived("/a")
        await fires_at(edge, clock, asked, 5)
        assert (asked.result().status, edge.traces[-1].reason) == (504, "first-byte-timeout")
        assert origin.connections == 1, "a timeout is not tried again at the same origin"


async def test_a3_between_bytes(origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules) -> None:
    origin.script("/a", [head(200, [("Content-Length", "9"), *NO_STORE]), b"some", Gate("never")])
    async with running_edge(origin.url, clock=clock, rules=rules(TIMEOUTS)) as edge:
        asked = start(edge, "/a")
        await origin.gate("never").reached()
        await fires_at(edge, clock, asked, 7)
        assert not asked.result().complete, "the head was out: broken off, never ended well"
        assert edge.traces[-1].reason == "read-timeout"


@pytest.mark.parametrize("case", ["drip", "many pieces of a head", "waiting for a place"])
async def test_a3_whole(origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, case: str) -> None:
    """One octet a second moves every other deadline."""
    gates = [Gate(str(n)) for n in range(30)]
    drip: list[Step] = [head(200, [("Transfer-Encoding", "chunked"), *NO_STORE])]
    drip += [step for gate in gates for step in (chunk(b"x"), gate)]
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    if case == "drip":
        origin.script("/a", drip)
    else:
        origin.script("/a", [step for gate in gates[:12] for step in (interim, gate)])
    text = TIMEOUTS
    if case == "waiting for a place":
        text = text.replace("timeouts:", "limits: {concurrent: 1, wait: 60s}, timeouts:").replace("5s", "50s")
        origin.script("/first", [Gate("never")])
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        if case == "waiting for a place":
            first = start(edge, "/first")
            await origin.arrived("/first")
            await clock.advance(1)
        asked = start(edge, "/a")
        if case == "waiting for a place":
            await edge.until(lambda: only(edge).client.queued == 1)
            await clock.advance(9.9)
            assert not first.done()
            await clock.advance(0.2)
            assert (await first).status == 504
            await clock.advance(0.8)
        else:
            await origin.arrived("/a")
            for gate in gates[:10]:
                await origin.gate(gate.name).reached()
                await clock.advance(1)
                assert not asked.done()
                origin.gate(gate.name).open()
            await clock.advance(0.9)
        assert not asked.done()
        await clock.advance(0.2)
        answer = await asked
        assert edge.traces[-1].reason == "whole-timeout"
        assert (answer.status == 504) if case != "drip" else not answer.complete
        assert edge.worker.origin.in_flight == 0


# -- A5 ------------------------------------------------------------------------------------------------


async def test_a5_a_refresh_that_fails(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1, stale-while-revalidate=15")], times=1)
    origin.reply("/a", status=503, headers=NO_STORE)
    async with running_edge(origin.url, clock=clock) as edge:
        good = (await edge.get("/a")).body
        await clock.advance(1.5)
        at: list[float] = []
        most = 0
        for _ in range(100):
            before = origin.count("/a")
            async with edge.client() as client:
                answer = await client.request("GET", "/a", headers=[("X-Body", "1")])
            assert (answer.status, answer.body) == (200, good)
            await edge.settle()
            if origin.count("/a") > before:
                at.append(clock.monotonic())
            most = max(most, origin.count("/a") - before)
            await clock.advance(0.1)
        assert most == 1, "one refresh in flight at a time"
        pauses = [b - a for a, b in pairwise(at)]
        assert len(at) <= 5
        # Doubled each time, up to half of it less by chance.
        assert all(pause >= 0.5 * 2**n for n, pause in enumerate(pauses))
        assert all(not r.body for r in origin.of("/a"))
        await clock.advance(5)  # 16.5 s: past the window, that no failure has moved
        assert (await edge.get("/a")).status == 503
        origin.bump("/a")
        origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
        answer = await edge.get("/a")
        assert (answer.status, answer.body) == (200, origin.stamp("/a", 2))


# -- A6 ------------------------------------------------------------------------------------------------


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


# -- A7 ------------------------------------------------------------------------------------------------

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


# -- A8, A9 --------------------------------------------------------------------------------------------


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


# -- D2 ------------------------------------------------------------------------------------------------

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


# -- several origins -----------------------------------------------------------------------------------


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


async def test_all_down_for_a_minute_on_a_warm_cache(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """No request for a key within its stale window fails, the origin is left alone, and is found at once."""
    fields = [("Cache-Control", "max-age=1, stale-while-revalidate=30, stale-if-error=600")]
    keys = [f"/k{n}" for n in range(20)]
    for key in keys:
        origin.reply(key, headers=fields)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for key in keys:
            await client.get(key)
        await clock.advance(2)
        await origin.stop()
        failed = asked = 0
        for step in range(240):
            for key in keys[step % 4 :: 4]:
                asked += 1
                failed += (await client.get(key)).status != 200
            await clock.advance(0.25)
        assert (asked, failed) == (1200, 0)
        assert only(edge).breaker.state is State.OPEN
        assert only(edge).failures <= 20, "requests that it had to bear; all else was answered here"
        before = len(origin.requests)
        await origin.start()
        back = clock.monotonic()
        while len(origin.requests) == before:
            for key in keys:
                assert (await client.get(key)).status == 200
            await clock.advance(0.1)
        assert clock.monotonic() - back <= 2
        await clock.advance(1)
        for key in keys:
            await client.get(key)
        await edge.settle()
        await settle()
        assert len(origin.requests) - before >= 10


async def test_refreshes_of_an_origin_that_resets_everything_keep_to_the_budget(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    fields = [("Cache-Control", "max-age=1, stale-while-revalidate=600")]
    keys = [f"/k{n}" for n in range(20)]
    for key in keys:
        origin.reply(key, headers=fields, times=1)
        origin.script(key, [RST])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for key in keys:
            await client.get(key)
        await clock.advance(2)
        before = len(origin.requests)
        for _ in range(60):
            for key in keys:
                assert (await client.get(key)).status == 200
            await clock.advance(0.5)
        assert 3 <= len(origin.requests) - before <= 3 + 0.2 * 1200
        assert len(origin.requests) - before < 150, "each key waits longer after each failure, too"


async def test_a_name_that_changes_its_address(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are asked for anew with each connection; the request that finds the old one dead is repeated."""
    address = "127.0.0.1"
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def resolve(host: str, port: int, **more: Any) -> Any:
        assert host == "origin.test"
        return await real(address, port, **more)

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    moved = LedgerOrigin(clock=clock, host="127.0.0.2")
    moved.port = origin.port
    async with (
        moved,
        running_edge(f"http://origin.test:{origin.port}", clock=clock, rules=rules(PASS)) as edge,
    ):
        assert (await edge.get("/a")).status == 200
        assert (origin.count("/a"), moved.count("/a")) == (1, 0)
        address = "127.0.0.2"
        await origin.stop()
        for _ in range(3):
            assert (await edge.get("/a")).status == 200
        assert (origin.count("/a"), moved.count("/a")) == (1, 3)


async def test_a_name_that_changes_its_address_while_the_old_one_goes_on_answering(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is always busy would be kept for ever, and the origin asked where it was."""
    address = "127.0.0.1"
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def resolve(host: str, port: int, **more: Any) -> Any:
        return await real(address, port, **more)

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    moved = LedgerOrigin(clock=clock, host="127.0.0.2")
    moved.port = origin.port
    async with (
        moved,
        running_edge(f"http://origin.test:{origin.port}", clock=clock, rules=rules(PASS)) as edge,
        edge.client() as client,
    ):
        for second in range(100):
            if second == 20:
                address = "127.0.0.2"
            answers = await asyncio.gather(client.get("/a"), edge.get("/a"))
            assert {a.status for a in answers} == {200}
            await clock.advance(1)
        assert len(origin.requests) + len(moved.requests) == 200, "no request was sent twice"
        assert origin.connections <= 2, "two, until they came of age"
        assert 40 <= len(origin.requests) < 150
        for each in moved.requests[-20:]:
            assert each.path == "/a"
        assert len(moved.requests) > 50
        assert only(edge).client.connects <= 6

    # An address cannot move: its connections are kept as long as both sides like.
    async with (
        LedgerOrigin(clock=clock) as fixed,
        running_edge(fixed.url, clock=clock, rules=rules(PASS)) as edge,
    ):
        for _ in range(30):
            assert (await edge.get("/a")).status == 200
            await clock.advance(5)
        assert fixed.connections == 1


# -- health, canary, reload ----------------------------------------------------------------------------


async def test_health_checks_take_an_origin_out_and_bring_it_back(
    clock: DrivenClock, rules: WriteRules
) -> None:
    async with origins(clock, 2) as (first, second):
        text = f"""
rules:
  - {{name: all, match: {{path: /**}}, pass: true, origin: api}}
pools:
  api:
    origins: ["{first.url}", "{second.url}"]
    health: {{path: /healthz, interval: 5s, timeout: 2s, up: 2, down: 3}}
"""
        async with running_edge("http://127.0.0.1:1", clock=clock, rules=rules(text)) as edge:
            await first.arrived("/healthz")
            first.reply("/healthz", status=500)
            await clock.advance(16)
            assert first.count("/healthz") in (3, 4)
            assert members(edge, "api")[0].state(clock.now()) == ("unhealthy", "health check: status 500")
            for _ in range(10):
                assert (await edge.get("/a")).status == 200
            assert first.count("/a") == 0
            first.reply("/healthz")
            await clock.advance(11)
            assert members(edge, "api")[0].state(clock.now())[0] == "usable"
            for _ in range(10):
                await edge.get("/a")
            assert first.count("/a") == 5

            # A check that is wrong must not take the site down.
            first.script("/healthz", [Gate("never")])
            second.reply("/healthz", status=404)
            await clock.advance(40)
            assert [m.healthy for m in members(edge, "api")] == [False, False]
            assert "whole-timeout" in members(edge, "api")[0].unhealthy_for
            assert (await edge.get("/a")).status == 200


async def test_a_canary_gets_its_keys_and_is_ended_when_it_fails(
    clock: DrivenClock, rules: WriteRules
) -> None:
    async with origins(clock, 2) as (stable, new):
        text = f"""
rules:
  - {{name: all, match: {{path: /**}}, origin: api}}
pools:
  api: {{origins: ["{stable.url}"], canary: {{origins: ["{new.url}"], percent: 30}}}}
"""
        stable.cache_control = new.cache_control = "no-store"
        async with running_edge("http://127.0.0.1:1", clock=clock, rules=rules(text)) as edge:
            for n in range(60):
                await edge.get(f"/k{n}")
            mine = {r.path for r in new.requests}
            assert 8 <= len(mine) <= 28
            for n in range(60):
                await edge.get(f"/k{n}")
            assert {r.path for r in new.requests} == mine, "a key stays on its side"
            assert len(new.requests) == 2 * len(mine)
            await clock.advance(11)
            for path in mine:
                new.reply(path, status=500)
            for n in range(120):
                await edge.get(f"/k{n % 60}")
            pool = edge.worker.origin.pools["api"]
            assert pool.canary is not None
            assert pool.canary.ended
            seen = len(new.requests)
            for n in range(60):
                assert (await edge.get(f"/k{n}")).status == 200
            assert len(new.requests) == seen


async def test_a_reload_keeps_what_it_can(clock: DrivenClock, rules: WriteRules) -> None:
    async with origins(clock, 3) as (kept, gone, new):

        def text(*urls: str, more: str = "") -> str:
            listed = ", ".join(f'"{url}"' for url in urls)
            return f"""
rules: [{{name: all, match: {{path: /**}}, pass: true, origin: api}}]
pools: {{api: {{origins: [{listed}]{more}}}}}
"""

        gone.reply("/slow", headers=NO_STORE, gate="slow")
        kept.reply("/slow", headers=NO_STORE, gate="slow")
        async with running_edge(
            "http://127.0.0.1:1", clock=clock, rules=rules(text(kept.url, gone.url))
        ) as edge:
            await edge.get("/a")
            await edge.get("/a")
            under_way = [start(edge, "/slow"), start(edge, "/slow")]
            await gone.arrived("/slow")
            await kept.arrived("/slow")
            before = members(edge, "api")
            rules(text(kept.url, new.url, more=", breaker: {connects: 9}"))
            assert not (await edge.worker.operator.reload_rules()).lines
            after = members(edge, "api")
            assert after[0] is before[0]
            assert (after[0].requests, after[0].breaker.policy.connects) == (1, 9)
            assert after[1].name == new.url
            for _ in range(4):
                await edge.get("/a")
            assert (gone.count("/a"), new.count("/a"), kept.count("/a")) == (1, 2, 3)
            for origin in (gone, kept):
                origin.gate("slow").open()
            assert [(await each).status for each in under_way] == [200, 200], "they end in peace"
            await gone.connections_are(0)
            assert kept.connections <= 2, "its connections were kept"

            rules(text("http://127.0.0.1:1", more=", fallback: nobody"))
            refused = await edge.worker.operator.reload_rules()
            assert any('no pool is called "nobody"' in line for line in refused.lines)
            assert members(edge, "api") == after
            assert (await edge.get("/a")).status == 200


async def test_what_operators_see(clock: DrivenClock, rules: WriteRules) -> None:
    async with origins(clock, 2) as (dead, alive):
        await dead.stop()
        text = PASS + "pools: {default: {retries: {attempts: 1, on: [connect]}}}"
        async with running_edge(f"{dead.url},{alive.url}", clock=clock, rules=rules(text)) as edge:
            for _ in range(20):
                assert (await edge.get("/a")).status == 200
            part = (await edge.worker.operator.health())["origin"]
            assert not part.ok
            assert f"default: {dead.url}: " in part.detail
            told: Any = await edge.worker.operator.stats()
            rows = told["origins"]["default"]
            assert rows[alive.url]["state"] == "usable"
            assert rows[dead.url]["failures"] == 5
            assert rows[dead.url]["usable"] == 0
            assert "refused" in rows[dead.url]["reason"]
            metrics = (await edge.worker.operator.metrics()).decode()
            assert f'edgeproxy_origin_usable{{origin="{dead.url}",pool="default"}} 0.0' in metrics
            assert f'edgeproxy_origin_retries_total{{origin="{alive.url}",pool="default"}} 5.0' in metrics
