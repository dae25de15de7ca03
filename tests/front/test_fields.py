"""The fields that the edge adds: what they say for each outcome, and that each can be turned off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import http_sf
import pytest

from tests.support.edge import running_edge
from tests.support.ledger import head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawAnswer

WINDOWS = [("Cache-Control", "max-age=10, stale-while-revalidate=20, stale-if-error=600"), ("ETag", '"v1"')]


def cache_status(answer: RawAnswer) -> list[tuple[str, dict[str, Any]]]:
    """The members of Cache-Status, parsed as RFC 9211 says they can be."""
    members: Any = http_sf.parse(answer["Cache-Status"].encode("latin-1"), tltype="list")
    return [
        (
            str(name),
            {key: value if isinstance(value, bool | int) else str(value) for key, value in said.items()},
        )
        for name, said in members
    ]


def ours(answer: RawAnswer) -> dict[str, Any]:
    """The parameters of the last member, which is ours."""
    name, said = cache_status(answer)[-1]
    assert name == "edgeproxy"
    return said


async def test_the_seven_words(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """MISS, HIT, UPDATING, STALE, REVALIDATED, EXPIRED and BYPASS, each with its Cache-Status."""
    origin.reply("/a", headers=WINDOWS, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        miss = await edge.get("/a")
        assert miss["X-Cache-Status"] == "MISS"
        assert ours(miss) == {"fwd": "uri-miss", "fwd-status": 200, "ttl": 10, "stored": True}

        await clock.advance(3)
        hit = await edge.get("/a")
        assert hit["X-Cache-Status"] == "HIT"
        assert ours(hit) == {"hit": True, "ttl": 7}
        assert hit["Age"] == "3"

        await clock.advance(9)
        updating = await edge.get("/a")
        assert updating["X-Cache-Status"] == "UPDATING"
        assert ours(updating) == {"hit": True, "ttl": -2, "detail": "stale-while-revalidate"}
        assert updating["Age"] == "12"
        await edge.settle()
        assert (await edge.get("/a"))["Age"] == "0"

        await clock.advance(31)
        await origin.stop()
        stale = await edge.get("/a")
        assert stale["X-Cache-Status"] == "STALE"
        assert ours(stale)["fwd"] == "stale"
        assert ours(stale)["detail"] == "refused"
        await origin.start()

        await clock.advance(31)  # past the cool-down too
        revalidated = await edge.get("/a")
        assert revalidated["X-Cache-Status"] == "REVALIDATED"
        assert ours(revalidated) == {"fwd": "stale", "fwd-status": 304, "ttl": 10, "stored": True}

        await clock.advance(31)
        origin.reply("/a", headers=[("Cache-Control", "max-age=10")])
        expired = await edge.get("/a")
        assert expired["X-Cache-Status"] == "EXPIRED"
        assert ours(expired) == {"fwd": "stale", "fwd-status": 200, "ttl": 10, "stored": True}

        bypass = await edge.request("POST", "/a", body=b"x")
        assert bypass["X-Cache-Status"] == "BYPASS"
        assert ours(bypass) == {"fwd": "method", "fwd-status": 200, "detail": "method-not-cacheable"}


async def test_cache_status_names_the_rule_and_why_nothing_was_stored(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/a", headers=[("Cache-Control", "private")])
    directory = rules("rules: [{name: everything, match: {path: '/**'}}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        said = ours(await edge.get("/a"))
        assert said["rule"] == "everything"
        assert said["detail"] == "response-private"
        assert "stored" not in said
        assert ours(await edge.get("/a"))["detail"] == "hit-for-miss"


async def test_what_caches_before_us_said_is_kept_in_order(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """RFC 9211 §2: the first member is the cache nearest to the origin."""
    origin.reply(
        "/a", headers=[("Cache-Status", "Inner; hit"), ("Via", "1.1 inner"), ("X-Cache-Status", "INNER")]
    )
    async with running_edge(origin.url, clock=clock, name="outer") as edge:
        for _ in range(2):
            answer = await edge.get("/a")
            assert [name for name, _ in cache_status(answer)] == ["Inner", "outer"]
            assert answer["Via"] == "1.1 inner, 1.1 outer"
            assert answer.all("X-Cache-Status") in (["MISS"], ["HIT"])


async def test_server_timing_keeps_the_origins_entries(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[("Server-Timing", 'db;dur=53;desc="the database"')], gate="g", times=1)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("GET", "/a")
        await origin.gate("g").reached()
        await clock.advance(0.25)
        origin.gate("g").open()
        miss = await client.read_answer()
        assert miss.all("Server-Timing")[0] == 'db;dur=53;desc="the database"'
        assert miss.all("Server-Timing")[1] == "tier;desc=origin, origin;dur=250.00"
        hit = await edge.get("/a")
        assert hit.all("Server-Timing")[-1] == "tier;desc=l1"
    async with running_edge(origin.url, clock=clock, hide_fields="server-timing") as edge:
        origin.reply("/b", headers=[("Server-Timing", "db;dur=1")])
        assert (await edge.get("/b"))["Server-Timing"] == "db;dur=1"


async def test_server_timing_tells_of_waiting_for_another_fetch(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as one, edge.client() as two:
        await one.start("GET", "/a")
        await origin.gate("g").reached()
        await two.start("GET", "/a")
        await clock.advance(0.1)
        origin.gate("g").open()
        await one.read_answer()
        second = await two.read_answer()
        assert "queue;dur=100.00" in second["Server-Timing"]
        assert ours(second)["collapsed"] is True


SANE = ["abc-123", "9f8e7d6c", "a" * 128, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
NOT_SANE = ["a" * 129, "two words", "x\x80y", "<script>", 'a"b', ""]


@pytest.mark.parametrize("given", SANE)
async def test_a_sane_request_id_is_kept_and_forwarded(
    origin: LedgerOrigin, clock: DrivenClock, given: str
) -> None:
    async with running_edge(origin.url, clock=clock, trace_from="all") as edge:
        for method in ("GET", "POST"):
            answer = await edge.request(method, "/a", [("X-Request-ID", given)])
            assert answer.all("X-Request-ID") == [given]
            assert origin.of("/a")[-1].all("X-Request-ID") == [given]


@pytest.mark.parametrize("given", NOT_SANE)
async def test_another_request_id_is_replaced(origin: LedgerOrigin, clock: DrivenClock, given: str) -> None:
    origin.reply("/a", headers=[("X-Request-ID", "the-origins")])
    async with running_edge(origin.url, clock=clock, trace_from="all") as edge:
        answer = await edge.get("/a", ("X-Request-ID", given))
        (told,) = answer.all("X-Request-ID")
        assert re.fullmatch("[0-9a-f]{28}", told)
        assert origin.of("/a")[0].all("X-Request-ID") == [told]


async def test_two_request_ids_are_none(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock, trace_from="all") as edge:
        answer = await edge.get("/a", ("X-Request-ID", "one"), ("X-Request-ID", "two"))
        assert answer["X-Request-ID"] not in ("one", "two", "one, two")


async def test_ids_differ_on_hits_of_one_connection(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        ids = {(await client.request("GET", "/a"))["X-Request-ID"] for _ in range(6)}
        assert len(ids) == 6


async def test_location_is_told_when_there_is_one(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        assert "X-Edge-Location" not in await edge.get("/a")
    async with running_edge(origin.url, clock=clock, location="fra-1") as edge:
        for _ in range(2):
            assert (await edge.get("/a"))["X-Edge-Location"] == "fra-1"


async def test_response_time_is_off_until_asked_for(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        assert "X-Response-Time" not in await edge.get("/a")
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, clock=clock, show_fields="x-response-time") as edge:
        async with edge.client() as client:
            await client.start("GET", "/a")
            await origin.gate("g").reached()
            await clock.advance(0.0305)
            origin.gate("g").open()
            assert (await client.read_answer())["X-Response-Time"] == "30.5ms"
        for _ in range(4):
            assert (await edge.get("/a"))["X-Response-Time"] == "0.0ms"


HIDEABLE = {
    "x-cache-status": "X-Cache-Status",
    "cache-status": "Cache-Status",
    "server-timing": "Server-Timing",
    "x-request-id": "X-Request-ID",
    "x-edge-location": "X-Edge-Location",
    "age": "Age",
    "via": "Via",
}


async def _hit(edge: Edge) -> RawAnswer:
    """One from the cache, on a connection that has had some: hidden from the lane too."""
    async with edge.client() as client:
        for _ in range(5):
            answer = await client.request("GET", "/a")
    return answer


@pytest.mark.parametrize("name", HIDEABLE)
async def test_each_field_can_be_turned_off(origin: LedgerOrigin, clock: DrivenClock, name: str) -> None:
    async with running_edge(origin.url, clock=clock, hide_fields=name, location="x") as edge:
        answer = await _hit(edge)
        for field in HIDEABLE.values():
            assert (field in answer) == (field != HIDEABLE[name]), field


async def test_all_of_them_can(origin: LedgerOrigin, clock: DrivenClock) -> None:
    names = ",".join([*HIDEABLE, "x-response-time"])
    async with running_edge(
        origin.url, clock=clock, hide_fields=names, show_fields="x-response-time", location="x"
    ) as edge:
        names_told = {name for name, _ in (await _hit(edge)).headers}
        assert names_told == {
            "cache-control", "content-length", "date", "etag", "x-serial", "x-version",
        }  # fmt: skip


async def test_age_of_what_came_with_an_age(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """One Age, and it counts what the answer was old already; a passed answer's stays as it came."""
    origin.reply("/a", headers=[("Age", "20"), ("Cache-Control", "max-age=60")])
    origin.reply("/p", headers=[("Age", "20"), ("Cache-Control", "private, max-age=60")])
    async with running_edge(origin.url, clock=clock) as edge:
        assert (await edge.get("/a")).all("Age") == ["20"]
        await clock.advance(5)
        assert (await edge.get("/a")).all("Age") == ["25"]
        for _ in range(2):
            assert (await edge.get("/p")).all("Age") == ["20"]
        assert (await edge.request("POST", "/a", body=b"")).all("Age") == ["20"]


async def test_interim_answers_pass_without_the_fields_of_the_connection(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    hints = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"
    )
    origin.script("/a", [hints, head(200, [("Content-Length", "2"), ("Cache-Control", "no-store")]), b"ok"])
    async with running_edge(origin.url, clock=clock) as edge:
        answer = await edge.get("/a")
        assert (answer.status, answer.body) == (200, b"ok")
        (early,) = answer.interim
        assert (early.status, early.headers) == (103, [("link", "</a.css>; rel=preload")])
        # A client of HTTP/1.0 would take it for the answer.
        async with edge.client() as client:
            await client.send(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n")
            old = await client.read_answer()
            assert (old.status, old.interim) == (200, [])
