"""A1, A2, A4, A10, A11, A13: what an origin can do wrong, and what clients must not notice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.vocabulary import StaleReason
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.edge import running_edge
from tests.support.ledger import FIN, RST, Gate, Step, chunk, head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

CACHEABLE = ("Cache-Control", "max-age=60")
HALF = b"x" * 500
BROKEN: dict[str, list[Step]] = {
    "short length": [head(200, [CACHEABLE, ("Content-Length", "1000")]), HALF, FIN],
    "no last chunk": [head(200, [CACHEABLE, ("Transfer-Encoding", "chunked")]), chunk(HALF), FIN],
    "reset, length": [head(200, [CACHEABLE, ("Content-Length", "1000")]), HALF, Gate("rst"), RST],
    "reset, chunked": [
        head(200, [CACHEABLE, ("Transfer-Encoding", "chunked")]),
        chunk(HALF),
        Gate("rst"),
        RST,
    ],
    "reset, to the end": [head(200, [CACHEABLE]), HALF, Gate("rst"), RST],
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a1_a_body_that_breaks_off(
    origin: LedgerOrigin, clock: DrivenClock, case: str, method: str
) -> None:
    """The client sees an aborted message, nothing is stored, the next GET fetches again."""
    origin.script("/a", BROKEN[case], times=1)
    origin.reply("/a", headers=[CACHEABLE])
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.start(method, "/a", body=b"" if method == "POST" else None)
            answer = await client.read_head()
            origin.gate("rst").open()
            answer = await client.read_body(answer, method)
            assert not answer.complete
        await edge.settle()
        assert edge.worker.store.stats()["l1_entries"] == 0
        assert edge.traces[-1].aborted
        again = await edge.get("/a")
        assert (again.status, again.body, again["X-Cache-Status"]) == (200, origin.stamp("/a", 1), "MISS")


@pytest.mark.parametrize("case", ["refused", "garbage", "silent", "503"])
@pytest.mark.parametrize("stale", [False, True])
async def test_a2_one_failure_for_all_who_wait(
    origin: LedgerOrigin, clock: DrivenClock, case: str, stale: bool
) -> None:
    """50 coalesced requests get the same error, or stale; the origin saw one try."""
    async with running_edge(origin.url, clock=clock, first_byte_timeout="10s") as edge:
        before = 0
        if stale:
            origin.reply("/a", headers=[("Cache-Control", "max-age=1, stale-if-error=600")], times=1)
            await edge.get("/a")
            await clock.advance(5)
            before = 1
        if case == "garbage":
            origin.script("/a", [Gate("g"), b"SMTP 220 hello\r\n\r\n", FIN])
        elif case == "503":
            origin.reply("/a", status=503, gate="g", headers=[("Cache-Control", "no-cache")])
        else:
            origin.script("/a", [Gate("g"), RST])
        asked = [asyncio.create_task(edge.get("/a")) for _ in range(50)]  # noqa: TID251
        await origin.arrived("/a", before + 1)
        await edge.waiting(49)
        if case == "silent":
            await clock.advance(10.1)
        else:
            origin.gate("g").open()
        answers = await asyncio.gather(*asked)
        expected = {"refused": 502, "garbage": 502, "silent": 504, "503": 503}[case]
        if stale:
            assert {(a.status, a["X-Cache-Status"]) for a in answers} == {(200, "STALE")}
            assert {a.body for a in answers} == {origin.stamp("/a", 1)}
        else:
            assert {a.status for a in answers} == {expected}
        # A refused request on a fresh connection may be tried once more; never 50 times.
        assert origin.count("/a") - before <= 2


FAILURES = ["refuse", "timeout", "500", "502", "503", "504", "truncated head", "reset"]


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize(
    ("cache_control", "served"),
    [
        ("max-age=1, stale-if-error=60", True),
        ("max-age=1, stale-if-error=60, must-revalidate", False),
        ("no-cache, stale-if-error=60", False),
        ("max-age=1, stale-if-error=2", False),
        ("max-age=1", None),
        ("max-age=1, must-revalidate", False),
    ],
)
async def test_a4_stale_if_error(
    origin: LedgerOrigin, clock: DrivenClock, case: str, cache_control: str, served: bool | None
) -> None:
    """``served`` None: by default, for half a minute, where the origin could not be reached."""
    received = case.isdigit()
    served = not received if served is None else served
    origin.reply("/a", headers=[("Cache-Control", cache_control)], etag=True, times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(10)
        if case == "refuse":
            await origin.stop()
        elif case == "truncated head":
            origin.script("/a", [b"HTTP/1.1 200 OK\r\nContent-Le", FIN])
        elif case == "reset":
            origin.script("/a", [RST])
        elif case == "timeout":
            origin.script("/a", [Gate("never")])
        else:
            origin.reply("/a", status=int(case), body=b"failed")
        asked = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        if case == "timeout":
            await origin.arrived("/a", 2)
            await clock.advance(10.1)
        answer = await asked
        if served:
            assert (answer.status, answer.body) == (200, origin.stamp("/a", 1))
            assert answer["X-Cache-Status"] == "STALE"
            assert "detail=" in answer["Cache-Status"]
            assert int(answer["Age"]) >= 10
        elif received:
            assert answer.status == int(case)
        else:
            # RFC 9111 §5.2.2.2: a disconnected cache tells that it must not answer with what it has.
            forbidden = "must-revalidate" in cache_control or case == "timeout"
            assert answer.status == (504 if forbidden else 502)


async def test_a4_disconnected(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """RFC 9111 §4.2.4: a copy goes out while nothing is known of the origin; a 5xx is known of it."""
    directory = rules(
        "rules:\n"
        "- {name: long, match: {path: /long}, stale_if_disconnected: 5m}\n"
        "- {name: off, match: {path: /off}, stale_if_disconnected: 0}\n"
    )
    short = [("Cache-Control", "max-age=1")]
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for path in ("/long", "/off", "/plain", "/soft"):
            origin.reply(path, headers=short, times=1)
            await edge.get(path)
        await edge.worker.store.purge(PurgeOrder(PurgeKind.URL, "/soft", soft=True))
        await clock.advance(10)
        origin.reply("/plain", status=503)
        for _ in range(2):  # the second while it cools down, which is because of the 503 and nothing else
            assert (await edge.get("/plain")).status == 503
        await origin.stop()
        answers = {path: await edge.get(path) for path in ("/long", "/off", "/soft")}
        assert {path: answer.status for path, answer in answers.items()} == {
            "/long": 200, "/off": 502, "/soft": 200,
        }  # fmt: skip
        assert "detail=refused" in answers["/long"]["Cache-Status"]
        told = {trace.target: trace.stale_reason for trace in edge.traces}
        assert told["/long"] == told["/soft"] == StaleReason.DISCONNECTED
        await clock.advance(60)
        assert (await edge.get("/long")).status == 200
        # Past its window; by now the origin's breaker is open.
        assert ((await edge.get("/soft")).status, edge.traces[-1].reason) == (503, "breaker-open")


@pytest.mark.parametrize("failure", ["reset", "503"])
async def test_a4_who_follows_is_given_what_its_own_request_allows(
    origin: LedgerOrigin, clock: DrivenClock, failure: str
) -> None:
    """The one that led took a stale answer; who said max-age gets none because nobody could be reached."""
    explicit = ", stale-if-error=60" if failure == "503" else ""
    origin.reply("/a", headers=[("Cache-Control", f"max-age=1{explicit}")], times=1)
    origin.script("/a", [Gate("g"), *([RST] if failure == "reset" else [head(503), FIN])])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(5)
        leader = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.arrived("/a", 2)
        asks = [(), (("Cache-Control", "max-age=2"),)]
        others = [asyncio.create_task(edge.get("/a", *fields)) for fields in asks]  # noqa: TID251
        await edge.waiting(2)
        origin.gate("g").open()
        assert ((await leader).status, (await leader)["X-Cache-Status"]) == (200, "STALE")
        statuses = [(await other).status for other in others]
        # Who gave a stale-if-error has said that errors are worse than age (RFC 5861 §4).
        assert statuses == [200, 502 if failure == "reset" else 200]


@pytest.mark.parametrize("framing", [("Content-Length", "5"), ("Transfer-Encoding", "FOO")])
async def test_a12_what_is_framed_oddly_is_delivered_and_stored_as_one_body(
    origin: LedgerOrigin, clock: DrivenClock, framing: tuple[str, str]
) -> None:
    """Octets past the announced end are nobody's; a coding that is none ends with the connection."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    origin.script("/a", [head(200, [CACHEABLE, framing]) + b"exact" + evil, FIN], times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        whole = b"exact" + (b"" if framing[0] == "Content-Length" else evil)
        for word in ("MISS", "HIT"):
            answer = await edge.get("/a")
            assert (answer.status, answer.body, answer["X-Cache-Status"]) == (200, whole, word)
            assert "transfer-encoding" not in dict(answer.headers) or answer["Transfer-Encoding"] == "chunked"
            await edge.settle()
        assert (await edge.get("/b")).body == origin.stamp("/b", 1)
        assert origin.connections == 2


@pytest.mark.parametrize("said", ["no-cache", "private"])
async def test_a_304_brings_the_one_who_asked_what_is_not_stored(
    origin: LedgerOrigin, clock: DrivenClock, said: str
) -> None:
    """RFC 9111 §5.2.2.4, §5.2.2.7: a qualified field is for the request that was validated, and no other."""
    short = ("Cache-Control", f'max-age=5, {said}="x-own"')
    origin.reply("/a", headers=[short, ("ETag", '"a"'), ("X-Own", "1")], times=1)
    origin.script("/a", [head(304, [short, ("ETag", '"a"'), ("X-Own", "2")])], times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        seen = []
        for wait in (0, 6, 0, 0, 0):
            await clock.advance(wait)
            async with edge.client() as client:
                answer = await client.request("GET", "/a")
            seen.append((answer["X-Cache-Status"], answer.get("X-Own"), answer.body))
        body = origin.stamp("/a", 1)
        hits = [("HIT", None, body)] * 3
        assert seen == [("MISS", "1", body), ("REVALIDATED", "2", body), *hits]


@pytest.mark.parametrize("status", [404, 410])
async def test_a4_not_found_is_an_answer(origin: LedgerOrigin, clock: DrivenClock, status: int) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1, stale-if-error=60")], times=1)
    origin.reply("/a", status=status, headers=[CACHEABLE])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(10)
        assert (await edge.get("/a")).status == status
        hit = await edge.get("/a")
        assert (hit.status, hit["X-Cache-Status"]) == (status, "HIT")


async def test_a4_a_5xx_never_replaces_a_good_copy(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1, stale-if-error=600")], times=1)
    origin.reply("/a", status=500, headers=[("Cache-Control", "max-age=600")], times=1)
    origin.reply("/a", headers=[CACHEABLE])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(10)
        assert (await edge.get("/a"))["X-Cache-Status"] == "STALE"
        # Cooling down: not one try per request.
        again = await edge.get("/a")
        assert again["X-Cache-Status"] == "STALE"
        assert "detail=refresh-cool-down" in again["Cache-Status"]
        assert origin.count("/a") == 2
        await clock.advance(31)
        assert (await edge.get("/a"))["X-Cache-Status"] == "EXPIRED"


@pytest.mark.parametrize("case", ["unconditional", "other etag", "evicted"])
async def test_a10_304_that_fits_nothing(origin: LedgerOrigin, clock: DrivenClock, case: str) -> None:
    """Never an empty 200, never a 304 to a client that did not ask; one unconditional fetch."""
    etag = [("ETag", '"other"')] if case == "other etag" else []
    async with running_edge(origin.url, clock=clock) as edge:
        if case == "unconditional":
            origin.script("/a", [head(304, [CACHEABLE])], times=1)
        else:
            origin.reply("/a", headers=[("Cache-Control", "max-age=1")], etag=True, times=1)
            await edge.get("/a")
            await clock.advance(5)
            if case == "other etag":
                origin.script("/a", [head(304, [CACHEABLE, *etag])], times=1)
            else:
                origin.script("/a", [Gate("g"), head(304, [CACHEABLE])], times=1)
        origin.reply("/a", headers=[CACHEABLE], etag=True)
        asked = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        if case == "evicted":
            await origin.gate("g").reached()
            for entry in edge.worker.store.inspect("http://example.test/a"):
                edge.worker.store.forget(entry)
            origin.gate("g").open()
        answer = await asked
        assert (answer.status, answer.body) == (200, origin.stamp("/a", 1))
        if case != "evicted":
            assert origin.of("/a")[-1].get("if-none-match") is None


async def test_a10_304_with_a_content_length(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=1")], etag=True, times=1)
    origin.script("/a", [head(304, [CACHEABLE, ("ETag", '"v1"'), ("Content-Length", "7")])], times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(5)
        answer = await edge.get("/a")
        assert (answer.status, answer.body, answer.complete) == (200, origin.stamp("/a", 1), True)
        assert answer["X-Cache-Status"] == "REVALIDATED"


async def test_a11_an_unfinished_body_is_never_confirmed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Fetch 1 streams slowly with an ETag; another request asks anew meanwhile; then fetch 1 fails."""
    fields = [CACHEABLE, ("ETag", '"v1"'), ("Content-Length", "1000")]
    origin.script("/a", [head(200, fields), HALF, Gate("g"), RST], times=1)
    origin.reply("/a", headers=[CACHEABLE], etag=True)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("GET", "/a")
        first = await client.read_head()
        second = await edge.get("/a", ("Cache-Control", "no-cache"), ("If-None-Match", '"v0"'))
        assert (second.status, second.body) == (200, origin.stamp("/a", 1))
        assert origin.of("/a")[1].get("if-none-match") is None
        follower = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        assert (await follower).complete
        origin.gate("g").open()
        assert not (await client.read_body(first)).complete
        await edge.settle()
        assert (await edge.get("/a")).body == origin.stamp("/a", 1)


@pytest.mark.parametrize("followers", [0, 5])
@pytest.mark.parametrize("when", ["before the head", "after the head"])
async def test_a13_the_leader_leaves(
    origin: LedgerOrigin, clock: DrivenClock, followers: int, when: str
) -> None:
    """The fetch goes on, is stored, and those who wait complete."""
    where = {"gate": "g"} if when == "before the head" else {"body_gate": "g"}
    origin.reply("/a", headers=[CACHEABLE], **where)  # type: ignore[arg-type]
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as leader:
            await leader.start("GET", "/a")
            await origin.gate("g").reached()
            asked = [asyncio.create_task(edge.get("/a")) for _ in range(followers)]  # noqa: TID251
            if when == "before the head":
                await edge.waiting(followers)
            else:
                await leader.read_head()
            leader.reset()
        origin.gate("g").open()
        for answer in await asyncio.gather(*asked):
            assert (answer.body, answer.complete) == (origin.stamp("/a", 1), True)
        await edge.until(lambda: edge.worker.store.stats()["l1_entries"] == 1)
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"
        assert origin.count("/a") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a13_a_pass_ends_with_its_client(origin: LedgerOrigin, clock: DrivenClock, method: str) -> None:
    """Nobody else waits for it: the origin's place is free as soon as the client is gone."""
    origin.script(
        "/a", [head(200, [("Cache-Control", "no-store"), ("Content-Length", "9")]), b"x", Gate("never")]
    )
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.start(method, "/a", body=b"" if method == "POST" else None)
            await client.read_head()
            client.reset()
        await edge.until(lambda: not edge.worker.origin.in_flight)
        assert edge.traces[-1].aborted
