"""The answer in the language that a client wants most serves it, whatever else it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin, Recorded

VARIES = [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")]


def in_german(origin: LedgerOrigin, path: str = "/a") -> None:
    origin.reply(path, headers=[*VARIES, ("Content-Language", "de")], body=asked_for)


def asked_for(request: Recorded) -> bytes:
    return f"for {request.get('accept-language')}".encode()


async def ask(edge: Edge, wants: str) -> tuple[str, bytes]:
    answer = await edge.get("/a", ("Accept-Language", wants))
    await edge.settle()
    return answer["X-Cache-Status"], answer.body


async def test_the_language_wanted_most_selects(origin: LedgerOrigin, clock: DrivenClock) -> None:
    in_german(origin)
    async with running_edge(origin.url, clock=clock) as edge:
        assert await ask(edge, "en, de") == ("MISS", b"for en, de")
        assert await ask(edge, "fr;q=0.5, de;q=1.0") == ("HIT", b"for en, de")
        for other in ("fr", "de, fr", "de-AT", "fr, de;q=0.9"):
            assert await ask(edge, other) == ("MISS", f"for {other}".encode())


async def test_what_is_stored_for_the_very_same_field_goes_first(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """Also where the lane has learned to give the other one."""
    in_german(origin)
    wants = ("Accept-Language", "de")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await ask(edge, "en, de")
        for _ in range(4):
            assert (await client.request("GET", "/a", headers=[wants])).body == b"for en, de"
        lane = edge.worker.handler.lane
        assert lane is not None
        lane.fold()
        assert lane.hits > 0
        await client.request("GET", "/a", headers=[wants, ("Cache-Control", "no-cache")])
        assert (await client.request("GET", "/a", headers=[wants])).body == b"for de"
        assert await ask(edge, "en, de") == ("HIT", b"for en, de")


async def test_all_other_fields_select_as_ever(origin: LedgerOrigin, clock: DrivenClock) -> None:
    both = [
        ("Cache-Control", "max-age=60"),
        ("Vary", "Accept-Language, X-Tenant"),
        ("Content-Language", "de"),
    ]
    origin.reply("/a", headers=both, body=lambda r: f"of {r.get('x-tenant')}".encode())
    async with running_edge(origin.url, clock=clock) as edge:
        for wants, tenant, word in (
            ("en, de", "1", "MISS"),
            ("de", "2", "MISS"),
            ("de, en;q=0.1", "1", "HIT"),
        ):
            answer = await edge.get("/a", ("Accept-Language", wants), ("X-Tenant", tenant))
            assert (answer["X-Cache-Status"], answer.body) == (word, f"of {tenant}".encode())


async def test_a_purge_holds_for_it(origin: LedgerOrigin, clock: DrivenClock) -> None:
    in_german(origin)
    async with running_edge(origin.url, clock=clock) as edge:
        await ask(edge, "en, de")
        assert await ask(edge, "de") == ("HIT", b"for en, de")
        await edge.worker.store.purge(PurgeOrder(PurgeKind.URL, "/a"))
        assert await ask(edge, "de") == ("MISS", b"for de")


@pytest.mark.parametrize("wants", ["de", "de, fr;q=0.2"])
async def test_from_the_shared_store_too(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path, wants: str
) -> None:
    in_german(origin)
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store, cache_dir=tmp_path) as edge:
        assert await ask(edge, "en, de") == ("MISS", b"for en, de")
    async with running_edge(origin.url, clock=clock, store=store, cache_dir=tmp_path) as edge:
        answer = await edge.get("/a", ("Accept-Language", wants))
        assert (answer["X-Cache-Status"], answer.body) == ("HIT", b"for en, de")
        assert "tier;desc=l2" in answer["Server-Timing"]
