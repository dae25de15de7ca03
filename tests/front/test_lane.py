"""The lane against the ordinary way: the same octets, or no lane."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.front import blocks as blocks_file
from edgeproxy.front import lane as lane_file
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.engine.exchange import Answer, Exchange
    from edgeproxy.observe.trace import Trace

BODY = b'{"pitches": [' + b'{"id": 1, "title": "a quiet city"},' * 60 + b"{}]}"


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as ledger:
        fields = [
            ("Cache-Control", "max-age=60, stale-while-revalidate=30"),
            ("Content-Type", "application/json"),
            ("ETag", '"e1"'),
            ("Server-Timing", "db;dur=5"),
            ("Surrogate-Key", "t1"),
        ]
        ledger.reply("/a", headers=fields, body=BODY)
        ledger.reply("/none", status=404, headers=fields, body=b"no")
        ledger.reply(
            "/vary", headers=[*fields, ("Vary", "X-Lang")], body=lambda r: (r.get("x-lang") or "-").encode()
        )
        yield ledger


def comparable(raw: bytes) -> bytes:
    """Without what differs from run to run: the id, the origin's serial, and the milliseconds of a miss."""
    raw = re.sub(rb"X-(Request-ID|Serial): [^\r]*\r\n", b"", raw)
    return re.sub(rb"dur=[0-9.]+", b"dur=", raw)


async def raw_answers(edge: Edge, segments: list[bytes], times: int = 5) -> list[bytes]:
    """Each segment ``times`` times on one connection."""
    answers = []
    async with edge.client() as client:
        for segment in segments:
            for _ in range(times):
                await client.send(segment)
                answers.append(comparable((await client.read_answer()).raw))
    return answers


def request(target: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: e.test", *fields, "", ""]).encode()


SEGMENTS = {
    "plain": request("/a"),
    "brotli": request("/a", "Accept-Encoding: gzip, br"),
    "gzip": request("/a", "Accept-Encoding: gzip"),
    "304": request("/a", 'If-None-Match: "e1"'),
    "304 coded": request("/a", "Accept-Encoding: br", 'If-None-Match: "e1-br"'),
    "404": request("/none"),
    "one variant": request("/vary", "X-Lang: de"),
    "another": request("/vary", "X-Lang: fr"),
}
ORDINARY = {
    "no-cache": request("/a", "Cache-Control: no-cache"),
    "range": request("/a", "Range: bytes=0-4"),
    "an id of its own": request("/a", "X-Request-ID: mine"),
    "authorization": request("/a", "Authorization: Bearer x"),
    "close": request("/a", "Connection: close"),
}


async def lane_hits(edge: Edge) -> int:
    lane = edge.worker.handler.lane
    assert lane is not None
    lane.fold()
    return lane.hits


@pytest.mark.parametrize("name", SEGMENTS)
async def test_both_ways_give_the_same_octets(origin: LedgerOrigin, name: str) -> None:
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), lane=lane) as edge:
            answers = await raw_answers(edge, [SEGMENTS[name]])
            await edge.clock.advance(7)
            got.append(answers + await raw_answers(edge, [SEGMENTS[name]]))
            if lane == "on":
                # Learned at the third at the latest: fetched, seen, seen again.
                assert await lane_hits(edge) >= 6
                stats = await edge.worker.operator.stats()
                assert stats["hits"] == 9  # the lane's hits are counted as all hits are
    assert got[0] == got[1]


@pytest.mark.parametrize("name", [n for n in ORDINARY if n != "close"])
async def test_requests_that_the_lane_leaves_alone(origin: LedgerOrigin, name: str) -> None:
    async with running_edge(origin.url, clock=DrivenClock()) as edge:
        await raw_answers(edge, [ORDINARY[name]])
        assert await lane_hits(edge) == 0


async def test_hits_are_counted_in_the_class_of_their_status(origin: LedgerOrigin) -> None:
    """A stored 404 or 500 that is hot is no success."""
    origin.reply("/broken", status=500, headers=[("Cache-Control", "max-age=60")], body=b"no")
    async with running_edge(origin.url) as edge:
        segments = [request("/a"), SEGMENTS["304"], request("/none"), request("/broken")]
        await raw_answers(edge, segments, times=10)
        assert await lane_hits(edge) >= 20
        told = edge.worker.metrics.snapshot()["responses"]
        assert told == {"other": 0, "1xx": 0, "2xx": 10, "3xx": 10, "4xx": 10, "5xx": 10}


async def test_the_lane_ends_with_freshness_purge_and_reload(origin: LedgerOrigin) -> None:
    clock = DrivenClock()
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:

        async def ask() -> str:
            await client.send(SEGMENTS["plain"])
            return (await client.read_answer())["X-Cache-Status"]

        assert [await ask() for _ in range(5)] == ["MISS", "HIT", "HIT", "HIT", "HIT"]
        hits = await lane_hits(edge)
        assert hits >= 2
        await edge.worker.store.purge(PurgeOrder(PurgeKind.TAG, "other"))
        assert await ask() == "HIT"
        assert await lane_hits(edge) == hits + 1  # a purge of something else costs a look, not the lane
        await edge.worker.store.purge(PurgeOrder(PurgeKind.TAG, "t1"))
        assert [await ask() for _ in range(4)] == ["MISS", "HIT", "HIT", "HIT"]
        await edge.worker.store.purge(PurgeOrder(PurgeKind.URL, "/a", soft=True))
        assert await ask() == "UPDATING"
        await edge.settle()
        assert [await ask() for _ in range(3)] == ["HIT"] * 3
        await clock.advance(61)
        assert await ask() == "UPDATING"
        await edge.settle()
        assert [await ask() for _ in range(3)] == ["HIT"] * 3
        hits = await lane_hits(edge)
        assert edge.worker.handler.lane is not None
        edge.worker.handler.lane.forget()
        assert await ask() == "HIT"
        assert await lane_hits(edge) == hits


async def test_a_reload_costs_the_lane_one_request_or_nothing(origin: LedgerOrigin, tmp_path: Path) -> None:
    text = """rules: [{name: all, match: {path: "/**"}, ttl: 1m, cache_control: "max-age=%d"}]"""
    (tmp_path / "rules.yaml").write_text(text % 1)
    async with (
        running_edge(origin.url, clock=DrivenClock(), rules=tmp_path) as edge,
        edge.client() as client,
    ):

        async def by_the_lane(expected: str) -> bool:
            before = await lane_hits(edge)
            await client.send(SEGMENTS["plain"])
            assert (await client.read_answer())["Cache-Control"] == expected
            return await lane_hits(edge) > before

        assert [await by_the_lane("max-age=1") for _ in range(4)][-1]
        matcher = edge.worker.engine.matcher
        (tmp_path / "rules.yaml").write_text(text % 1)
        assert not (await edge.worker.operator.reload_rules()).errors
        assert edge.worker.engine.matcher is matcher
        assert await by_the_lane("max-age=1")
        (tmp_path / "rules.yaml").write_text(text % 2)
        assert not (await edge.worker.operator.reload_rules()).errors
        assert [await by_the_lane("max-age=2") for _ in range(2)] == [False, True]


async def test_an_answer_under_way_during_a_reload_is_not_learned(
    origin: LedgerOrigin, tmp_path: Path
) -> None:
    """What the rules before it have said must not be said by the lane after it."""
    text = """rules: [{name: all, match: {path: "/**"}, ttl: 1m, cache_control: "max-age=%d"}]"""
    (tmp_path / "rules.yaml").write_text(text % 1)
    async with running_edge(origin.url, clock=DrivenClock(), rules=tmp_path) as edge:
        edge.worker.handler.short = None
        handle = edge.worker.engine.handle
        held, go = asyncio.Event(), asyncio.Event()

        async def holding(exchange: Exchange) -> Answer:
            answer = await handle(exchange)
            held.set()
            await go.wait()
            return answer

        async with edge.client() as client, edge.client() as other:
            for _ in range(2):
                await client.send(SEGMENTS["plain"])
                assert (await client.read_answer())["Cache-Control"] == "max-age=1"
            edge.worker.engine.handle = holding  # type: ignore[method-assign]
            await client.send(SEGMENTS["plain"])
            await held.wait()
            edge.worker.engine.handle = handle  # type: ignore[method-assign]
            (tmp_path / "rules.yaml").write_text(text % 2)
            assert not (await edge.worker.operator.reload_rules()).errors
            await other.send(SEGMENTS["plain"])  # the block has been seen
            assert (await other.read_answer())["Cache-Control"] == "max-age=2"
            go.set()
            assert (await client.read_answer())["Cache-Control"] == "max-age=1"
            hits = await lane_hits(edge)
            for _ in range(4):
                await client.send(SEGMENTS["plain"])
                assert (await client.read_answer())["Cache-Control"] == "max-age=2"
            assert await lane_hits(edge) > hits


async def test_a_connection_that_was_not_clean_never_uses_the_lane(origin: LedgerOrigin) -> None:
    """A head in two pieces leaves aiohttp's parser with bytes that nobody sees."""
    async with running_edge(origin.url, clock=DrivenClock()) as edge:
        await raw_answers(edge, [SEGMENTS["plain"]])
        hits = await lane_hits(edge)
        for first in (SEGMENTS["plain"][:10], SEGMENTS["plain"] + b"G", SEGMENTS["plain"] * 2):
            async with edge.client() as client:
                rest = (SEGMENTS["plain"] * 2)[len(first) :]
                await client.send(first)
                await edge.clock.advance(0)
                await client.send(rest)
                for _ in range(2):
                    assert (await client.read_answer()).status == 200
                await client.send(SEGMENTS["plain"])
                assert (await client.read_answer()).status == 200
            assert await lane_hits(edge) == hits
        async with edge.client() as client:
            # A body whose octets are a remembered request is a body.
            smuggled = SEGMENTS["plain"]
            await client.send(request("/a", f"Content-Length: {len(smuggled)}", method="POST"))
            await edge.clock.advance(0)
            await client.send(smuggled)
            assert (await client.read_answer("POST"))["X-Cache-Status"] == "BYPASS"
        assert await lane_hits(edge) == hits


async def test_memory_is_bounded(origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_file, "MOST_BLOCKS", 8)
    monkeypatch.setattr(lane_file, "MOST_ANSWERS", 20)
    monkeypatch.setattr(blocks_file, "MOST_SEEN", 16)
    monkeypatch.setattr(blocks_file, "MOST_TABLES", 12)
    async with running_edge(origin.url, clock=DrivenClock()) as edge:
        await raw_answers(edge, [request("/a", f"X-Number: {n}") for n in range(50)], 3)
        lane = edge.worker.handler.lane
        assert lane is not None
        blocks = lane._blocks
        assert 0 < len(blocks.known) <= 8
        assert 0 < len(blocks._seen) <= 16
        assert 0 < len(blocks._tables) <= 12
        (entry,) = edge.worker.store.inspect("http://e.test/a")
        assert 0 < len(entry.answers) <= 20


FIELD = st.sampled_from([
    "Accept: */*", "accept-encoding: br", "Accept-Encoding: gzip;q=0", 'If-None-Match: W/"e1"',
    "If-None-Match: *", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", "X-Lang: de", "x-lang: de",
    "Cookie: a=b", "X : bad", "Connection: keep-alive", "Content-Length: 0", "X-Obs:\tfold", "TE: trailers",
    "Host: other.test", "Transfer-Encoding: identity", "X-High: \u00e9", "Expect: nothing",
    "Accept-Encoding: br;q=0.5, identity;q=1",
])  # fmt: skip
TARGET = st.sampled_from(["/a", "/a?", "/vary", "//a", "/none", "/a#b"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(FIELD, max_size=5), target=st.sampled_from(["/a", "/a?", "/vary", "//a", "/none", "/a#b"])
)
async def test_any_header_block(origin: LedgerOrigin, fields: list[str], target: str) -> None:
    """Whatever the block: answered the same, refused the same, three times in a row."""
    segment = "\r\n".join([f"GET {target} HTTP/1.1", "Host: e.test", *fields, "", ""]).encode("latin-1")
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), lane=lane) as edge:
            answers = []
            for _ in range(4):
                async with edge.client() as client:
                    await client.send(segment)
                    answers.append(problem_free(comparable((await client.read_answer()).raw)))
            got.append(answers)
    assert got[0] == got[1]


def problem_free(raw: bytes) -> bytes:
    """A problem's body names the request id."""
    return re.sub(rb'"request_id":"[^"]*"', b"", raw)


async def test_blocks_never_seen_before(origin: LedgerOrigin) -> None:
    """Every request another cookie: parsed, and answered by the lane as those before it were."""
    segments = [request("/a", f"Cookie: sid={number}", "Accept-Encoding: br") for number in range(30)]
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), lane=lane) as edge:
            await raw_answers(edge, [request("/a", "Cookie: sid=x", "Accept-Encoding: br")], 3)
            got.append(await raw_answers(edge, segments, 1))
            if lane == "on":
                assert await lane_hits(edge) >= 30
                ours = edge.worker.handler.lane
                assert ours is not None
                known = len(ours._blocks.known)
                await raw_answers(edge, segments[:5], 1)
                assert len(ours._blocks.known) == known + 5  # what comes again is not parsed again
                async with edge.client() as client:
                    for other in ("Cookie: a=b, Accept-Encoding: identity", "Connection: close"):
                        await client.send(request("/a", *other.split(", ")))
                        assert "Content-Encoding" not in await client.read_answer()
    assert got[0] == got[1]


async def test_a_request_right_behind_an_answer_may_use_the_lane(origin: LedgerOrigin) -> None:
    """A busy client sends the next request before aiohttp's own task is back from the last one. Were that
    not idle, a connection that has left the lane once would never come back while it is busy."""
    async with running_edge(origin.url, clock=DrivenClock()) as edge:
        await raw_answers(edge, [SEGMENTS["plain"]])
        hits = await lane_hits(edge)
        async with edge.client() as client:
            loop = asyncio.get_running_loop()

            def behind(_: Trace) -> None:
                edge.worker.handler.observers.remove(behind)
                (connection,) = edge.worker.server.connections
                # Runs after the handler's last step and before the task that waits for it.
                loop.call_soon(connection.data_received, SEGMENTS["plain"])

            edge.worker.handler.observers.append(behind)
            await client.send(SEGMENTS["404"])
            assert (await client.read_answer()).status == 404
            assert (await client.read_answer()).status == 200
        assert await lane_hits(edge) == hits + 1


async def test_the_access_log_says_what_it_would_have_said(origin: LedgerOrigin, tmp_path: Path) -> None:
    """Of each request, lane or not, but for what differs from run to run."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text("rules: [{name: all, match: {path: /a}, key: {host: false}}]")
    told = []
    for lane in ("on", "off"):
        log = tmp_path / lane
        async with running_edge(
            origin.url, clock=DrivenClock(), lane=lane, rules=rules, access_log=str(log)
        ) as edge:
            await raw_answers(edge, list(SEGMENTS.values()))
            if lane == "on":
                assert await lane_hits(edge) > 10
        lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
        for line in lines:
            for name in ("id", "request_id", "duration_ms", "ts", "time", "client", "origin_ms", "saved_ms"):
                line.pop(name, None)
        told.append(lines)
    assert told[0] == told[1]
