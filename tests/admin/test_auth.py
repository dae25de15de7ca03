"""Who may read and change: the whole table, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.admin.api import ROUTES, Access, make_admin
from edgeproxy.admin.auth import Auth, check_admin_address, is_loopback
from tests.admin.control import SmallControl

if TYPE_CHECKING:
    from pytest_aiohttp import AiohttpClient

    from edgeproxy.admin.api import Route

WRITE = {"Authorization": "Bearer w-token"}
READ = {"Authorization": "Bearer r-token"}
WRONG = {"Authorization": "Bearer nope"}
BASIC = {"Authorization": "Basic dXNlcjpwYXNz"}
NONE: dict[str, str] = {}

ALONE = Auth()
"""Loopback, no token at all."""
USUAL = Auth("w-token")
BOTH = Auth("w-token", "r-token")
PUBLIC = Auth("w-token", loopback=False)
PUBLIC_BOTH = Auth("w-token", "r-token", loopback=False)

STATS, PURGE = ("GET", "/api/cache/stats"), ("POST", "/api/cache/purge")


@pytest.mark.parametrize(
    ("auth", "request_line", "headers", "status"),
    [
        (ALONE, STATS, NONE, 200),
        (ALONE, STATS, WRONG, 200),
        (ALONE, STATS, BASIC, 200),
        (ALONE, PURGE, NONE, 403),
        (ALONE, PURGE, {"Authorization": "Bearer "}, 403),
        (USUAL, STATS, NONE, 200),
        (USUAL, STATS, WRITE, 200),
        (USUAL, STATS, WRONG, 200),
        (USUAL, STATS, BASIC, 200),
        (BOTH, STATS, WRONG, 401),
        (BOTH, STATS, BASIC, 401),
        (PUBLIC, STATS, WRONG, 401),
        (USUAL, PURGE, NONE, 401),
        (USUAL, PURGE, WRONG, 401),
        (USUAL, PURGE, BASIC, 401),
        (USUAL, PURGE, {"Authorization": "Bearer "}, 401),
        (USUAL, PURGE, {"Authorization": "Bearer w-toke"}, 401),
        (USUAL, PURGE, {"Authorization": "Bearer w-tökén"}, 401),
        (USUAL, PURGE, {"Authorization": "bearer  w-token "}, 200),
        (USUAL, PURGE, WRITE, 200),
        (BOTH, STATS, NONE, 401),
        (BOTH, STATS, READ, 200),
        (BOTH, STATS, WRITE, 200),
        (BOTH, PURGE, READ, 403),
        (BOTH, PURGE, WRITE, 200),
        (PUBLIC, STATS, NONE, 401),
        (PUBLIC, STATS, WRITE, 200),
        (PUBLIC, PURGE, NONE, 401),
        (PUBLIC, PURGE, WRITE, 200),
        (PUBLIC_BOTH, STATS, READ, 200),
        (PUBLIC_BOTH, PURGE, READ, 403),
    ],
)
async def test_who_may(
    aiohttp_client: AiohttpClient,
    auth: Auth,
    request_line: tuple[str, str],
    headers: dict[str, str],
    status: int,
) -> None:
    control = SmallControl()
    client = await aiohttp_client(make_admin(control, auth))
    answer = await client.request(*request_line, headers=headers, data=b'{"all": true}')
    assert answer.status == status
    assert (len(control.purged) == 1) == (request_line == PURGE and status == 200)
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
    if status >= 400:
        assert answer.content_type == "application/problem+json"
        assert "w-token" not in await answer.text()


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
async def test_only_the_probes_need_no_token_on_a_public_address(
    aiohttp_client: AiohttpClient, route: Route
) -> None:
    client = await aiohttp_client(make_admin(SmallControl(), PUBLIC))
    for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
        answer = await client.request(method, route.path.replace("{job}", "w1").replace("{name}", "app.js"))
        assert answer.status == (200 if route.access is Access.PROBE else 401)


async def test_without_any_token_the_hint_names_the_variable(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_admin(SmallControl(), ALONE))
    answer = await client.post("/api/rules/reload")
    assert "EDGEPROXY_ADMIN_TOKEN" in (await answer.json())["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9090", 200),
        ("127.0.0.1", 200),
        ("localhost:9090", 200),
        ("LocalHost", 200),
        ("[::1]:9090", 200),
        ("192.0.2.1:80", 200),
        ("evil.example", 421),
        ("evil.example:9090", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("[evil.example]:9090", 421),
    ],
)
async def test_a_rebound_name_reads_nothing(aiohttp_client: AiohttpClient, host: str, status: int) -> None:
    client = await aiohttp_client(make_admin(SmallControl(), USUAL))
    assert (await client.get("/api/cache/stats", headers={"Host": host})).status == status
    assert (await client.get("/api/cache/stats", headers={"Host": host, **WRONG})).status == status
    assert (await client.get("/api/cache/stats", headers={"Host": host, **WRITE})).status == 200
    assert (await client.get("/readyz", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://admin.example:9090"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
async def test_another_sites_page_changes_nothing(
    aiohttp_client: AiohttpClient, fields: dict[str, str], status: int
) -> None:
    control = SmallControl()
    client = await aiohttp_client(make_admin(control, USUAL))
    headers = {"Host": "admin.example:9090", **WRITE, **fields}
    answer = await client.post("/api/cache/purge", data=b'{"all": true}', headers=headers)
    assert answer.status == status
    assert len(control.purged) == (status == 200)


async def test_no_cors(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_admin(SmallControl(), USUAL))
    fields = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await client.options("/api/cache/purge", headers=fields)
    assert answer.status == 405
    for got in (answer, await client.get("/metrics", headers={"Origin": "https://evil.example"})):
        assert not [name for name in got.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("admin.internal", False),
    ],
)
def test_addresses_that_others_reach_need_a_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    check_admin_address(host, "token")
    for nothing in (None, ""):
        if loopback:
            check_admin_address(host, nothing)
        else:
            with pytest.raises(ValueError, match="EDGEPROXY_ADMIN_TOKEN") as refused:
                check_admin_address(host, nothing)
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize("token", ["with space", "tökén", "line\nbreak", " "])
def test_a_token_can_be_sent_in_a_header(token: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        Auth(token)
    with pytest.raises(ValueError, match="visible ASCII"):
        Auth("ok", token)


async def test_an_empty_token_is_none(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_admin(SmallControl(), Auth("", "")))
    assert (await client.get("/api/cache/stats")).status == 200
    empty = {"Authorization": "Bearer "}
    assert (await client.post("/api/rules/reload", headers=empty)).status == 403
