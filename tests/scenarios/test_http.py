"""What RFC 9110 and RFC 9111 ask of a cache beyond hit and miss, from socket to socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

CC = "Cache-Control"


@pytest.mark.parametrize("directive", ["no-cache", "private"])
async def test_withheld_fields_reach_the_one_who_asked(
    origin: LedgerOrigin, clock: DrivenClock, directive: str
) -> None:
    """RFC 9111 §5.2.2.4, §5.2.2.7: not sent again, but not taken from the answer that they came with."""
    said = [(CC, f'max-age=60, {directive}="set-cookie, x-who"'), ("Set-Cookie", "a=1"), ("X-Who", "me")]
    origin.reply("/a", headers=[*said, ("X-All", "1")], etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        first = await edge.get("/a")
        assert (first["Set-Cookie"], first["X-Who"], first["X-All"]) == ("a=1", "me", "1")
        assert first.body == origin.stamp("/a", 1)
        await edge.settle()
        again = await edge.get("/a")
        assert again["X-Cache-Status"] == "HIT"
        assert again.get("Set-Cookie") is None
        assert again.get("X-Who") is None
        assert again["X-All"] == "1"


async def test_a_head_answer_updates_what_is_stored(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """RFC 9111 §4.3.5."""
    origin.reply("/a", headers=[(CC, "max-age=10"), ("ETag", '"v"'), ("X", "1")], times=1)
    origin.reply("/a", headers=[(CC, "max-age=60"), ("ETag", '"v"'), ("X", "2")])
    async with running_edge(origin.url, clock=clock) as edge:
        body = (await edge.get("/a")).body
        await clock.advance(20)
        asked = await edge.request("HEAD", "/a")
        assert (asked.status, asked["X"], asked.body) == (200, "2", b"")
        hit = await edge.get("/a")
        assert (hit["X-Cache-Status"], hit["X"], hit.body) == ("HIT", "2", body)


CREATED = [(CC, "max-age=60"), ("Content-Location", "/a")]


async def test_a_posts_answer_is_reused_for_get(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """RFC 9110 §9.3.3; but a POST is always forwarded, and its answer is the origin's own."""
    origin.reply("/a", headers=CREATED, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        posted = await edge.request("POST", "/a", [("If-None-Match", "*")], b"x")
        assert (posted.status, posted.body) == (200, origin.stamp("/a", 1))
        await edge.settle()
        hit = await edge.get("/a")
        assert (hit["X-Cache-Status"], hit.body) == ("HIT", posted.body)
        assert (await edge.request("POST", "/a", [], b"x"))["X-Cache-Status"] == "BYPASS"
        assert origin.count("/a") == 2


@pytest.mark.parametrize(("written", "word"), [("/a", "MISS"), ("/b", "HIT")])
async def test_a_posts_answer_that_another_write_overtook_is_not_kept(
    origin: LedgerOrigin, clock: DrivenClock, written: str, word: str
) -> None:
    origin.reply("/a", headers=CREATED, gate="g", times=1)
    origin.reply("/a")
    origin.reply("/b")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/a", body=b"x")
        await origin.gate("g").reached()
        await edge.request("PUT", written, [], b"x")
        origin.gate("g").open()
        await client.read_answer()
        await edge.settle()
        assert (await edge.get("/a"))["X-Cache-Status"] == word


@pytest.mark.parametrize("fields", [[("Authorization", "Basic x")], [(CC, "no-store")]])
async def test_a_posts_answer_that_may_not_be_shared_is_not_kept(
    origin: LedgerOrigin, clock: DrivenClock, fields: list[tuple[str, str]]
) -> None:
    origin.reply("/a", headers=CREATED)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.request("POST", "/a", fields, b"x")
        await edge.settle()
        assert (await edge.get("/a"))["X-Cache-Status"] == "MISS"
