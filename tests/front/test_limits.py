"""Limits on connections, and clients that are slow on purpose (SCENARIOS D1, D6, C8)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.descriptors import Shares, shared_out
from edgeproxy.engine.patience import GRACE
from edgeproxy.front.doors import Doors, Terms
from edgeproxy.networks import Networks, networks_in
from edgeproxy.policy.vocabulary import Tier, Unsatisfied
from edgeproxy.rules.model import RateLimit
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawClient

HEAD = b"GET /slow HTTP/1.1\r\nHost: example.test\r\n"


@contextlib.asynccontextmanager
async def connected(edge: Edge, count: int) -> AsyncIterator[list[RawClient]]:
    before = edge.worker.doors.open + edge.worker.doors.full
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(edge.client()) for _ in range(count)]
        doors = edge.worker.doors
        await edge.until(lambda: doors.open + doors.full + doors.crowded + doors.denied >= before + count)
        yield clients


# -- how many ---------------------------------------------------------------------------------------------


async def test_refused_above_the_limit_and_taken_again_below_it(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """D1, small: what is above the limit is refused, and costs those who are served nothing."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with running_edge(origin.url, clock=clock, max_connections=10) as edge:
        doors = edge.worker.doors
        async with connected(edge, 15) as clients:
            assert (doors.open, doors.full) == (10, 5)
            answers = [await client.get("/a") for client in clients[:10]]
            assert {answer.status for answer in answers} == {200}
            assert all([await client.at_end() for client in clients[10:]])
            for client in clients[:6]:
                await client.aclose()
            await edge.until(lambda: doors.open == 4)
            async with connected(edge, 6) as more:
                assert [(await client.get("/a")).status for client in more] == [200] * 6
        await edge.until(lambda: doors.open == 0)
        numbers = edge.worker.metrics.render().decode()
        assert "edgeproxy_connections_full_refused_total 5.0" in numbers
        assert "edgeproxy_connections_open 0.0" in numbers


async def test_one_client_has_so_many_connections_and_no_more(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with (
        running_edge(origin.url, clock=clock, client_connections=3, unlimited_clients="") as edge,
        connected(edge, 4) as clients,
    ):
        assert (edge.worker.doors.open, edge.worker.doors.crowded) == (3, 1)
        assert await clients[3].at_end()
        assert (await clients[0].get("/a")).status == 200
        await clients[0].aclose()
        await edge.until(lambda: edge.worker.doors.open == 2)
        assert (await edge.get("/a")).status == 200


def test_what_counts_as_one_client() -> None:
    doors = Doors(Terms(each=2, exempt=Networks(networks_in("10.0.0.0/8"))))
    places = [doors.enter(peer) for peer in ("2001:db8::1", "2001:db8::2", "2001:db8::3")]
    assert places == ["2001:db8::/64", "2001:db8::/64", None]
    assert doors.enter("2001:db8:0:1::1") is not None
    assert [doors.enter("10.1.2.3") for _ in range(5)] == [""] * 5, "a trusted proxy speaks for many"
    assert [doors.enter(peer) for peer in ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1")] == [
        "192.0.2.1", "192.0.2.1", None,
    ]  # fmt: skip
    doors.leave("192.0.2.1")
    assert doors.enter("192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("lists", "served"),
    [({"deny": "127.0.0.0/8"}, False), ({"deny": "192.0.2.0/24"}, True), ({"allow": "127.0.0.1"}, True),
     ({"allow": "192.0.2.0/24,::1"}, False), ({"allow": "127.0.0.0/8", "deny": "127.0.0.1"}, False)],
)  # fmt: skip
async def test_who_is_let_in(
    origin: LedgerOrigin, clock: DrivenClock, lists: dict[str, Any], served: bool
) -> None:  # fmt: skip
    async with running_edge(origin.url, clock=clock, **lists) as edge, connected(edge, 1) as (client,):
        assert edge.worker.doors.denied == (not served)
        if served:
            assert (await client.get("/a")).status == 200
        else:
            assert await client.at_end()


def test_descriptors_are_kept_for_origins_the_store_and_operators() -> None:
    assert shared_out(10_000, 256, 1_048_576) == Shares(10_000, 256, 1_038_512)
    assert shared_out(10_000, 256, None) == Shares(10_000, 256, math.inf)
    assert shared_out(10_000, 256, 1024) == Shares(704, 256, 256)
    assert shared_out(10_000, 256, 128) == Shares(64, 24, 24), "half, where nothing is left"
    assert shared_out(50, 256, 128) == Shares(50, 38, 38)
    assert shared_out(10_000, 256, 32) == Shares(16, 1, 1)


# -- how long: D6 -----------------------------------------------------------------------------------------


async def test_a_connection_that_says_nothing_is_closed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock, head_timeout="5s") as edge:
        async with connected(edge, 20) as clients:
            await clock.advance(4.9)
            assert edge.worker.doors.open == 20
            await clock.advance(0.2)
            assert all([await client.at_end() for client in clients])
            assert edge.worker.heads.timeouts == 20
        assert clock.pending == ()


async def test_a_head_has_to_be_whole_in_time_however_often_a_piece_of_it_comes(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with (
        running_edge(origin.url, clock=clock, head_timeout="5s") as edge,
        connected(edge, 20) as slow,
        edge.client() as other,
    ):
        for octet in HEAD[:6]:
            for client in slow:
                await client.send(bytes([octet]))
            assert (await other.get("/a")).status == 200, "nobody else waits"
            await clock.advance(0.99)
        for client in slow:
            answer = await client.read_answer()
            assert (answer.status, answer.keep_alive, await client.at_end()) == (408, False, True)
        assert (await other.get("/a")).status == 200
        assert origin.count("/slow") == 0


@pytest.mark.parametrize("used", [False, True])
async def test_a_head_that_does_not_end_is_not_kept_for_ever(
    origin: LedgerOrigin, clock: DrivenClock, used: bool
) -> None:
    """Each field is as long as one may be, and there are no more than there may be."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        if used:
            assert (await client.get("/a")).status == 200
        await client.send(HEAD)
        with contextlib.suppress(ConnectionError):
            for number in range(100):
                await client.send(b"X-%d: %b\r\n" % (number, b"a" * 8_000))
        answer = await client.read_answer()
        assert (answer.status, answer.keep_alive) == (431, False)
        assert await client.at_end()
        assert edge.worker.heads.too_large == 1
        assert "edgeproxy_connections_heads_too_large_total 1.0" in edge.worker.metrics.render().decode()


async def test_a_head_that_has_begun_is_answered_at_a_drain(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with (
        running_edge(origin.url, clock=clock, head_timeout="5s", drain_timeout="60s") as edge,
        edge.client() as begun,
        edge.client() as idle,
    ):
        await begun.get("/a")
        await idle.get("/a")
        await begun.send(HEAD)
        connections = edge.worker.server.connections
        await edge.until(lambda: any(getattr(each, "partial", False) for each in connections))
        draining = asyncio.ensure_future(edge.worker.drain(grace=1.0))  # noqa: TID251
        await clock.advance(2)
        assert await idle.at_end()
        await begun.send(b"\r\n")
        answer = await begun.read_answer()
        assert (answer.status, answer.keep_alive) == (200, False)
        assert await begun.at_end()
        await clock.advance(1)
        await draining


async def test_the_next_head_of_a_connection_has_its_own_time(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with (
        running_edge(origin.url, clock=clock, head_timeout="5s", keepalive="60s") as edge,
        edge.client() as client,
    ):
        for _ in range(4):
            assert (await client.get("/a")).status == 200
            await clock.advance(4)  # idle: the keep-alive timeout's
            await client.send(HEAD[:20])
            await clock.advance(4)
            await client.send(HEAD[20:] + b"\r\n")
            assert (await client.read_answer()).status == 200
        await client.send(HEAD)
        await clock.advance(4.9)
        assert edge.worker.doors.open == 1
        await clock.advance(0.2)
        assert (await client.read_answer()).status == 408
        assert await client.at_end()


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_follows_a_body_is_no_late_head(
    origin: LedgerOrigin, clock: DrivenClock, chunked: bool
) -> None:  # fmt: skip
    """An idle connection is not taken for a slow one because its last request had a body."""
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 8"
    pieces = (b"4\r\nbody\r\n", b"4\r\nmore\r\n0\r\n\r\n") if chunked else (b"body", b"more")
    async with (
        running_edge(origin.url, clock=clock, head_timeout="5s", keepalive="60s") as edge,
        edge.client() as client,
    ):
        for together in (True, False):
            await client.send(b"POST /p HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing.encode())
            for piece in (b"".join(pieces),) if together else pieces:
                await client.send(piece)
                await clock.advance(1)
            assert (await client.read_answer("POST")).status == 200
            await clock.advance(20)
            assert edge.worker.heads.timeouts == 0
        assert (await client.get("/a")).status == 200


async def test_an_answer_on_its_way_is_not_cut_by_a_head_that_waits_behind_it(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/gated", gate="g")
    async with (
        running_edge(origin.url, clock=clock, head_timeout="5s") as edge,
        edge.client() as client,
    ):
        await client.send(b"POST /gated HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await origin.gate("g").reached()
        await client.send(b"GET /next HT")
        await clock.advance(8)
        assert edge.worker.doors.open == 1
        origin.gate("g").open()
        assert (await client.read_answer()).status == 200
        await clock.advance(5)
        assert (await client.read_answer()).status == 408


async def test_a_body_that_comes_too_slowly_is_given_up(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """One octet a second is within every timeout between two pieces."""
    async with (
        running_edge(origin.url, clock=clock, min_rate=100) as edge,
        edge.client() as slow, edge.client() as steady,
    ):  # fmt: skip
        await slow.start("POST", "/p", [("Content-Length", "1000")])
        await steady.start("POST", "/q", [("Content-Length", "6000")])
        await edge.until(lambda: edge.worker.handler.in_flight == 2)
        for second in range(int(GRACE) + 5):
            if second < GRACE:
                await slow.send(b"x")
            await steady.send(bytes(200))
            await clock.advance(1)
        answer = await slow.read_answer("POST")
        assert (answer.status, answer.keep_alive) == (408, False)
        await steady.send(bytes(6000 - 200 * (int(GRACE) + 5)))
        assert (await steady.read_answer("POST")).status == 200


async def test_other_clients_are_served_while_many_are_slow(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """D6, small: 12 heads, 5 bodies and 5 silent ones."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=3600")])
    async with (
        running_edge(origin.url, clock=clock, min_rate=500, head_timeout="10s") as edge,
        edge.client() as other,
        connected(edge, 12) as heads, connected(edge, 5) as bodies, connected(edge, 5),
    ):  # fmt: skip
        for client in bodies:
            await client.start("POST", "/p", [("Content-Length", "1000")])
        for second in range(24):
            for client in heads if second < 10 else ():
                await client.send(HEAD[second : second + 1])
            for client in bodies if second < GRACE else ():
                await client.send(b"x")
            await clock.advance(1)
            assert (await other.get("/a")).status == 200
        await edge.until(lambda: edge.worker.doors.open <= 1 + 5 and edge.worker.handler.in_flight == 0)
        assert edge.worker.heads.timeouts == 12 + 5
        assert sum(trace.status == 408 for trace in edge.traces) == 5


async def test_few_descriptors(
    origin: LedgerOrigin, clock: DrivenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """C8: the settings ask for more than the process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        async with running_edge(origin.url, clock=clock, max_connections=9999) as edge:
            assert edge.worker.doors.terms.most == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "this process may open 400 files" in caplog.text


async def test_a_token_that_another_worker_takes_meanwhile(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way asks, looks, and then takes: between the two the bucket, the node's, may have emptied."""
    directory = rules("rules: [{name: a, match: {path: '/**'}, ttl: 1m, rate_limit: {rate: 1/m, burst: 2}}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge, edge.client() as client:
        assert (await client.get("/a")).status == 200
        engine = edge.worker.engine
        look, limit = engine.prompt.look, RateLimit(1 / 60, 2)

        def looking(*asked: Any) -> Any:
            assert engine.gates.buckets.wait("a", "127.0.0.1", limit, clock.now(), take=True) == 0.0
            return look(*asked)

        monkeypatch.setattr(engine.prompt, "look", looking)
        answer = await client.get("/a")
        assert (answer.status, answer["Retry-After"]) == (429, "60")
        refused = edge.traces[-1]
        assert (refused.hit, refused.tier, refused.unsatisfied) == (
            False,
            Tier.EDGE,
            Unsatisfied.RATE_LIMITED,
        )
