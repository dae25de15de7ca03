"""B5, D10, E12 and the thousand: one fetch for all who want it, and no more waiting than was agreed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge
from tests.support.ledger import READ_BODY, Gate, Step, chunk, head
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

MIB = 1024 * 1024


async def test_a_thousand_clients_and_one_fetch(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        asked = [asyncio.create_task(edge.get("/a")) for _ in range(1000)]  # noqa: TID251
        await edge.waiting(999)
        origin.gate("g").open()
        answers = await asyncio.gather(*asked)
        assert {a.body for a in answers} == {origin.stamp("/a", 1)}
        assert {a.status for a in answers} == {200}
        assert origin.count("/a") == 1
        assert sum(t.collapsed for t in edge.traces) == 999
        assert sum("collapsed" in a["Cache-Status"] for a in answers) == 999


async def test_followers_stream_while_the_leader_reads(origin: LedgerOrigin, clock: DrivenClock) -> None:
    part = b"p" * 70_000
    origin.script(
        "/a",
        [head(200, [("Cache-Control", "max-age=60"), ("Content-Length", "140000")]), part, Gate("g"), part],
    )
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as first, edge.client() as second:
        await first.start("GET", "/a")
        one = await first.read_head()
        await second.start("GET", "/a")
        two = await second.read_head()  # the head is here although the body is not
        origin.gate("g").open()
        assert (await first.read_body(one)).body == part + part
        assert (await second.read_body(two)).body == part + part
        assert origin.count("/a") == 1


def with_length(body: bytes) -> list[Step]:
    return [head(200, [("Cache-Control", "max-age=60"), ("Content-Length", str(len(body)))]), body]


def in_chunks(body: bytes) -> list[Step]:
    pieces = [chunk(body[i : i + MIB]) for i in range(0, len(body), MIB)]
    fields = [("Cache-Control", "max-age=60"), ("Transfer-Encoding", "chunked")]
    return [head(200, fields), *pieces, chunk(b"")]


LARGE = {"with length": with_length, "chunked": in_chunks}


@pytest.mark.parametrize("case", LARGE)
async def test_b5_larger_than_the_largest_object(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], case: str
) -> None:
    """10 MiB where 1 MiB may be stored: all of it delivered, nothing stored, and remembered."""
    body = bytes(range(256)) * (10 * MIB // 256)
    origin.script("/a", LARGE[case](body))
    directory = rules("rules: [{name: all, match: {path: '/**'}, max_object: 1MiB}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        answer = await edge.get("/a")
        assert answer.complete
        assert answer.body == body
        await edge.settle()
        assert edge.worker.store.stats()["l1_entries"] == 0
        second = await edge.get("/a")
        assert "detail=hit-for-miss" in second["Cache-Status"]
        assert second.body == body


async def test_b5_a_range_of_something_large(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Once it is known to be too large, ranges are the origin's."""
    body = bytes(range(256)) * (2 * MIB // 256)
    origin.script("/a", with_length(body), times=1)
    origin.script(
        "/a",
        [
            head(
                206,
                [
                    ("Content-Length", "5"),
                    ("Content-Range", f"bytes 0-4/{len(body)}"),
                    ("Cache-Control", "max-age=60"),
                ],
            ),
            body[:5],
        ],
    )
    directory = rules("rules: [{name: all, match: {path: '/**'}, max_object: 1MiB}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        first = await edge.get("/a", ("Range", "bytes=0-4"))
        assert first.complete
        assert (first.status, len(first.body)) in ((200, len(body)), (206, 5))
        second = await edge.get("/a", ("Range", "bytes=0-4"))
        assert (second.status, second.body) == (206, body[:5])
        assert origin.of("/a")[1].get("range") == "bytes=0-4"


async def test_d10_waiting_and_lease(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Wait 200 ms, lease 1 s, a slow leader: the waiter goes alone at 200 ms, a newcomer leads at 1 s."""
    origin.reply("/a", gate="g")
    directory = rules(
        "rules: [{name: all, match: {path: '/**'}, ttl: 1m, coalesce: {wait: 200ms, lease: 1s}}]"
    )
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        leader = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.arrived("/a", 1)
        waiter = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await edge.waiting(1)
        await clock.advance(0.19)
        assert origin.count("/a") == 1
        await clock.advance(0.02)
        await origin.arrived("/a", 2)
        await clock.advance(0.9)  # 1.11 s: past the lease
        newcomer = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.arrived("/a", 3)
        follower = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await edge.waiting(1)
        assert origin.count("/a") == 3
        origin.gate("g").open()
        for task in (leader, waiter, newcomer, follower):
            assert (await task).body == origin.stamp("/a", 1)


async def test_e12_age(origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path) -> None:
    """No Date, Age 50, a fetch of 3 s; from L1, then from L2 two seconds later."""
    fields = [("Cache-Control", "max-age=600"), ("Age", "50"), ("Content-Length", "1")]
    origin.script("/a", [Gate("g"), head(200, fields), b"x"])
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        asked = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.arrived("/a")
        await clock.advance(3)
        origin.gate("g").open()
        first = await asked
        assert int(first["Age"]) == 53
        assert "Date" in first
        await clock.advance(2)
        assert int((await edge.get("/a"))["Age"]) == 55
        await edge.settle()
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        await clock.advance(2)
        promoted = await edge.get("/a")
        assert "desc=l2" in promoted["Server-Timing"]
        assert int(promoted["Age"]) == 57
        again = await edge.get("/a")
        assert "desc=l1" in again["Server-Timing"]
        assert int(again["Age"]) == 57


async def test_uploads_stream_and_large_ones_are_refused(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.script("/up", [READ_BODY, head(201, [("Content-Length", "2")]), b"ok"])
    async with running_edge(origin.url, clock=clock, max_body="1MiB") as edge:
        body = b"u" * 700_000
        answer = await edge.request("POST", "/up", body=body)
        assert (answer.status, answer.body) == (201, b"ok")
        assert bytes(origin.of("/up")[0].body) == body
        async with RawClient("127.0.0.1", edge.worker.port) as client:
            await client.start("POST", "/up", [("Content-Length", "2000000"), ("Expect", "100-continue")])
            assert (await client.read_answer("POST")).status == 413
        assert origin.count("/up") == 1
