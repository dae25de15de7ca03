"""What an origin may take for something else: fields by their spelling, paths by their coding; and TRACE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin, Recorded


def as_cgi(asked: Recorded) -> bytes:
    """The page of an origin that reads its fields as CGI names them, the last of a name."""
    read = {name.upper().replace("-", "_"): value for name, value in asked.headers}
    wanted = ("X_PLAN", "X_ROLE", "ACCEPT_LANGUAGE", "X_FORWARDED_HOST", "API_KEY")
    return repr({name: read[name] for name in wanted if name in read}).encode()


@pytest.mark.parametrize("lane", ["on", "off"])
@pytest.mark.parametrize("name", ["X_Plan", "x_role", "Accept_Language", "X_FORWARDED-Host"])
async def test_a_field_that_passes_for_one_that_counts_is_not_forwarded(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], name: str, lane: str
) -> None:
    directory = rules(
        "rules:\n"
        "  - {name: all, match: {path: '/**'}, ttl: 1m, key: {headers: [x-plan]},"
        " request_headers: {set: {x-role: guest}}}\n"
    )
    origin.reply("/a", headers=[("Vary", "Accept-Language")], body=as_cgi)
    origin.reply("/b", body=as_cgi)
    async with running_edge(origin.url, clock=clock, rules=directory, lane=lane) as edge:
        for _ in range(3):
            answer = await edge.get("/a", (name, "evil"))
            assert answer.body == b"{'X_ROLE': 'guest'}"
        assert (await edge.get("/a")).body == b"{'X_ROLE': 'guest'}"
        answer = await edge.request("POST", "/b", [(name, "evil"), ("Api_Key", "mine")], b"x")
        assert b"'API_KEY': 'mine'" in answer.body
        assert b"evil" not in answer.body


@pytest.mark.parametrize(
    "path", ["/%61ccount", "/account%2fx", "//account", "/account;x.css", "/%2561ccount", "\\account"]
)
async def test_a_page_that_a_rule_keeps_out_is_not_kept_under_another_spelling(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], path: str
) -> None:
    """The victim is led to a spelling that the rule for /account does not see and the origin decodes."""
    path = path if path.startswith("/") else f"/{path}"
    directory = rules(
        "rules:\n"
        "  - {name: account, match: {path: '/account/**'}, pass: true}\n"
        "  - {name: rest, match: {path: '/**'}, ttl: 10m}\n"
    )
    origin.cache_control = None
    origin.reply(path, body=lambda asked: f"page of {asked.get('cookie')}".encode())
    origin.reply("/other%20page", body=b"page of all")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for user in ("ann", "ben", "ann"):
            answer = await edge.get(path, ("Cookie", f"user={user}"))
            assert answer.body == f"page of user={user}".encode()
            assert answer["X-Cache-Status"] == "BYPASS"
        words = [(await edge.get("/other%20page"))["X-Cache-Status"] for _ in range(2)]
        assert words == ["MISS", "HIT"]


async def test_trace_shows_no_credentials(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Neither those that the edge adds nor those that a script of the client's page must not read."""
    directory = rules(
        "rules:\n"
        "  - {name: all, match: {path: '/**'}, request_headers: {remove: [x-admin],"
        " set: {authorization: 'Bearer of-the-edge'}, add: {X-Key: of-the-edge}}}\n"
    )
    origin.reply("/a", body=lambda asked: bytes(asked.raw_head))
    fields = [("Cookie", "sid=secret"), ("Authorization", "Basic secret"), ("X-Admin", "1"), ("X-Mine", "1")]
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        answer = await edge.request("TRACE", "/a", fields)
        assert answer.status == 200
        assert b"X-Mine: 1" in answer.body
        for gone in (b"secret", b"of-the-edge", b"X-Admin"):
            assert gone not in answer.body
        assert b"of-the-edge" in (await edge.request("OPTIONS", "/a", fields)).body
