"""E11, D9: what one user gets no other gets, and what may not be shared makes nobody wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin, Recorded

PRIVATE = {
    "private": [("Cache-Control", "private, max-age=60")],
    "no-store": [("Cache-Control", "no-store")],
    "set-cookie": [("Cache-Control", "max-age=60"), ("Set-Cookie", "sid=1")],
    "vary-cookie": [("Cache-Control", "max-age=60"), ("Vary", "Cookie")],
    "vary-star": [("Cache-Control", "max-age=60"), ("Vary", "X-A, *")],
}


def own_body(request: Recorded) -> bytes:
    return f"for {request.get('cookie')} {request.get('authorization')}".encode()


@pytest.mark.parametrize("case", PRIVATE)
async def test_e11_each_user_gets_his_own(origin: LedgerOrigin, clock: DrivenClock, case: str) -> None:
    """50 users with cookies, concurrent and cold, then again, then by HEAD."""
    origin.reply("/me", headers=PRIVATE[case], body=own_body, gate="g")

    async def ask(edge: Edge, user: int) -> None:
        answer = await edge.get("/me", ("Cookie", f"sid={user}"))
        assert answer.body == f"for sid={user} None".encode()

    async with running_edge(origin.url, clock=clock) as edge:
        asked = [asyncio.create_task(ask(edge, user)) for user in range(50)]  # noqa: TID251
        await origin.gate("g").reached()
        origin.gate("g").open()
        await asyncio.gather(*asked)
        for user in (3, 4):
            await ask(edge, user)
        head = await edge.request("HEAD", "/me", [("Cookie", "sid=99")])
        assert head.status == 200
        assert origin.of("/me")[-1].get("cookie") == "sid=99"


async def test_e11_authorization_is_not_shared(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/me", headers=[("Cache-Control", "max-age=60")], body=own_body)
    async with running_edge(origin.url, clock=clock) as edge:
        for user in range(5):
            answer = await edge.get("/me", ("Authorization", f"Bearer {user}"))
            assert answer.body == f"for None Bearer {user}".encode()
        assert edge.traces[-1].not_stored == "authorization"
        # One that the origin allows to be shared is (RFC 9111 §3.5).
        origin.reply("/me", headers=[("Cache-Control", "public, max-age=60")], body=b"for all")
        await edge.get("/me", ("Authorization", "Bearer 1"))
        assert (await edge.get("/me", ("Authorization", "Bearer 2")))["X-Cache-Status"] == "HIT"


async def test_e11_stale_if_error_serves_nobody_anothers(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply(
        "/me", headers=[("Cache-Control", "private, max-age=1, stale-if-error=60")], body=own_body, times=1
    )
    origin.reply("/me", status=503)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/me", ("Cookie", "sid=1"))
        await clock.advance(5)
        assert (await edge.get("/me", ("Cookie", "sid=2"))).status == 503


async def test_d9_uncacheable_answers_release_all_at_once(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """100 wait for one fetch; its answer turns out private; the others go in parallel, not in a row."""
    origin.reply("/a", headers=[("Cache-Control", "private")], gate="first", times=1)
    origin.reply("/a", headers=[("Cache-Control", "private")], gate="rest")
    async with running_edge(origin.url, clock=clock) as edge:
        asked = [asyncio.create_task(edge.get("/a")) for _ in range(100)]  # noqa: TID251
        await origin.gate("first").reached()
        await edge.waiting(99)
        origin.gate("first").open()
        await origin.gate("rest").reached(99)  # all of them at the origin at the same time
        origin.gate("rest").open()
        answers = await asyncio.gather(*asked)
        assert {a.status for a in answers} == {200}
        assert origin.count("/a") == 100

        # Remembered: the next do not wait for one another, and say why.
        origin.gate("rest").close()
        two = [asyncio.create_task(edge.get("/a")) for _ in range(2)]  # noqa: TID251
        await origin.gate("rest").reached(2)
        origin.gate("rest").open()
        assert "detail=hit-for-miss" in (await two[0])["Cache-Status"]
        await two[1]

        # A later answer that may be stored is.
        origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
        await edge.get("/a")
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"
