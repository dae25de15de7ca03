"""No request can make the cache keep, for others, an answer that only its own octets brought about."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine.forward import OURS, SPOKEN_FOR
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin, Recorded

KEPT = [("Cache-Control", "max-age=600")]


async def test_a_field_that_connection_names_selects_no_variant(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """The origin is not sent it: what it answers is not the answer to that field's value."""
    origin.reply(
        "/a",
        headers=[*KEPT, ("Vary", "Origin")],
        body=lambda r: f"for {r.get('origin')}".encode(),
    )
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a", ("Origin", "https://good.test"), ("Connection", "Origin"))
        answer = await edge.get("/a", ("Origin", "https://good.test"))
        assert answer.body == b"for https://good.test"


async def test_a_field_that_connection_names_is_no_part_of_the_key(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    directory = rules("rules: [{name: all, match: {path: '/**'}, ttl: 10m, key: {headers: [x-tenant]}}]")
    origin.reply("/a", body=lambda r: f"for {r.get('x-tenant')}".encode())
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        await edge.get("/a", ("X-Tenant", "one"), ("Connection", "x-tenant"))
        assert (await edge.get("/a", ("X-Tenant", "one"))).body == b"for one"


@pytest.mark.parametrize("white", ["\xa0", "\x85"], ids=["NBSP", "NEL"])
async def test_only_what_http_calls_white_space_is_none_of_a_value(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], white: str
) -> None:
    """Python's strip() takes these off too. The origin gets them, and may answer otherwise to them."""
    directory = rules(
        "rules:\n"
        "  - {name: members, match: {path: '/**', headers: {x-plan: gold}}, ttl: 10m}\n"
        "  - {name: all, match: {path: '/**'}, ttl: 10m, key: {headers: [x-tenant], cookies: [s]}}\n"
    )
    origin.reply("/a", body=lambda r: repr([r.get(n) for n in ("x-plan", "x-tenant", "cookie")]).encode())
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        assert (await edge.get("/a", ("Host", f"example.test{white}"))).status == 400
        for name, value in (("X-Plan", "gold"), ("X-Tenant", "one"), ("Cookie", "s=one")):
            first = await edge.get("/a", (name, value + white))
            assert (await edge.get("/a", (name, value))).body != first.body


async def test_the_case_of_host_is_not_forwarded(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """It is no part of the key, and some origins mind it."""
    origin.reply("/a", headers=KEPT, body=lambda r: f"at {r.get('host')}".encode())
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a", ("Host", "ExAmPlE.test"))
        assert (await edge.get("/a", ("Host", "example.test"))).body == b"at example.test"


@pytest.mark.parametrize(
    "name", ["X_Forwarded_Host", "X-Forwarded_Host", "X_HTTP_Method_Override", "X-Host", "X-Forwarded-Ssl"]
)
async def test_who_speaks_for_the_edge_in_other_spellings(
    origin: LedgerOrigin, clock: DrivenClock, name: str
) -> None:
    """CGI and its heirs read "_" and "-" alike."""
    origin.reply("/a", headers=KEPT, body=lambda r: f"said {r.get(name)}".encode())
    async with running_edge(origin.url, clock=clock) as edge:
        assert (await edge.get("/a", (name, "evil"))).body == b"said None"


@pytest.mark.parametrize("name", sorted(SPOKEN_FOR - OURS))
async def test_who_speaks_for_the_edge_is_heard_only_where_it_is_keyed(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], name: str
) -> None:
    directory = rules(
        f"rules: [{{name: keyed, match: {{path: /keyed}}, key: {{headers: [{name}, x-forwarded-for]}}}}]"
    )
    for path in ("/keyed", "/plain"):
        origin.reply(path, headers=KEPT, body=lambda r: f"said {r.get(name)}".encode())
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for value in ("one", "two"):
            fields = [(name, value), ("X-Forwarded-For", "192.0.2.66")]
            if "-" in name:
                fields.append((name.replace("-", "_"), "three"))
            assert (await edge.get("/keyed", *fields)).body == f"said {value}".encode()
            assert (await edge.get("/plain", *fields)).body == b"said None"
    assert origin.count("/plain") == 1
    for asked in (*origin.of("/keyed"), *origin.of("/plain")):
        assert asked.get("x-forwarded-for") == "127.0.0.1"
        assert asked.get(name.replace("-", "_")) is None or "-" not in name


@pytest.mark.parametrize(
    ("status", "field"),
    [(416, ("Range", "bytes=99999999-")), (412, ("If-Match", '"none"'))],
)
@pytest.mark.parametrize("lifetime", ["answer", "rule"])
async def test_the_answer_to_ones_own_condition_is_not_kept_for_all(
    origin: LedgerOrigin,
    clock: DrivenClock,
    rules: Callable[[str], Path],
    status: int,
    field: tuple[str, str],
    lifetime: str,
) -> None:
    """A key remembered as hit-for-miss has conditions and ranges go to the origin."""

    def answer(request: Recorded) -> bytes:
        return b"own" if request.get(field[0]) else b"whole"

    directory = rules("rules: [{name: all, match: {path: '/**'}, status_ttl: {4xx: 10m}}]")
    origin.reply("/a", headers=[*KEPT, ("Set-Cookie", "a=1")], times=1)
    origin.reply("/a", status=status, headers=KEPT if lifetime == "answer" else (), body=answer, times=1)
    origin.reply("/a", headers=KEPT, body=answer)
    chosen = directory if lifetime == "rule" else None
    async with running_edge(origin.url, clock=clock, rules=chosen) as edge:
        await edge.get("/a")  # sets a cookie: hit-for-miss
        assert (await edge.get("/a", field)).status == status
        assert origin.of("/a")[1].get(field[0]) == field[1]
        assert (await edge.get("/a")).body == b"whole"


async def test_a_class_of_errors_means_what_became_of_the_resource(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """431 for one client's huge field says nothing of the next client's request."""
    directory = rules("rules: [{name: all, match: {path: '/**'}, ttl: 10m, status_ttl: {4xx: 10m}}]")
    for path, status in (("/a", 431), ("/b", 400), ("/c", 404)):
        origin.reply(path, status=status, headers=[("Cache-Control", "x")], times=1)
        origin.reply(path)
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for path in ("/a", "/b"):
            await edge.get(path, ("X-Huge", "x" * 9000))
            assert (await edge.get(path)).status == 200
        await edge.get("/c")
        assert (await edge.get("/c"))["X-Cache-Status"] == "HIT"


async def test_rules_told_apart_by_a_condition_do_not_answer_for_each_other(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """A rule for members and one for all, on one path: nothing in the key said so."""
    directory = rules(
        "rules:\n"
        "  - {name: members, match: {path: '/**', cookies: {member: 'yes'}}, ttl: 10m}\n"
        "  - {name: beta, match: {path: '/**', headers: {x-beta: true}}, ttl: 10m}\n"
        "  - {name: all, match: {path: '/**'}, ttl: 10m}\n"
    )
    origin.reply("/a", body=lambda r: f"for {r.get('cookie')} {r.get('x-beta')}".encode())
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        assert (await edge.get("/a", ("Cookie", "member=yes"))).body == b"for member=yes None"
        assert (await edge.get("/a", ("X-Beta", "1"))).body == b"for None 1"
        assert (await edge.get("/a")).body == b"for None None"
        # Each is kept, though.
        for fields in ([("Cookie", "member=yes")], [("X-Beta", "1")], []):
            assert (await edge.get("/a", *fields))["X-Cache-Status"] == "HIT"


async def test_a_head_is_rendered_by_the_rule_that_answers(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """A request under way while the rules are reloaded: its answer was rendered as the old rule says and
    remembered as the new rules' form."""
    text = "rules: [{{name: all, match: {{path: '/**'}}, ttl: 10m, cache_control: '{}'}}]"
    directory = rules(text.format("public, max-age=600"))
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        first = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await origin.gate("g").reached()
        rules(text.format("private, max-age=5"))
        assert not (await edge.worker.operator.reload_rules()).errors
        origin.gate("g").open()
        assert (await first)["Cache-Control"] == "public, max-age=600"
        hit = await edge.get("/a")
        assert (hit["X-Cache-Status"], hit["Cache-Control"]) == ("HIT", "private, max-age=5")


async def test_shipped_rules_tell_apart_who_speaks_by_a_token_field(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    from edgeproxy.settings import shipped_rules

    def said(name: str) -> Callable[[Recorded], bytes]:
        return lambda request: f"for {request.get(name)}".encode()

    fields = ("X-Auth-Token", "X-Access-Token", "X-Session-Token", "X-Api-Key", "X-User-Id")
    async with running_edge(origin.url, clock=clock, rules=shipped_rules()) as edge:
        for path in ("/api/notifications", "/api/profiles/me"):
            for name in fields:
                origin.reply(path, body=said(name))
                for user in ("one", "two"):
                    answer = await edge.get(path, ("Cookie", "theme=dark"), (name, user))
                    assert answer.body == f"for {user}".encode(), (path, name)


async def test_what_a_post_was_answered_in_a_coding_is_not_kept_for_get(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """A POST goes as it came, Accept-Encoding and all; a GET that is stored would have asked for identity."""
    said = [*KEPT, ("Content-Location", "/a"), ("Vary", "Accept-Encoding")]
    async with running_edge(origin.url, clock=clock) as edge:
        for coded in (False, True):
            fields = [*said, ("Content-Encoding", "gzip")] if coded else said
            origin.reply("/a", headers=fields, body=b"posted", times=1)
            origin.reply("/a", headers=KEPT, body=b"got")
            await edge.request("POST", "/a", [("Accept-Encoding", "gzip")], b"x")
            await edge.settle()
            assert (await edge.get("/a")).body == (b"got" if coded else b"posted")
