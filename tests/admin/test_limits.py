"""Wrong tokens, too many purges, and the log of changes, over real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgeproxy.admin.api import make_admin
from edgeproxy.admin.auth import Auth
from edgeproxy.rules.model import RateLimit
from tests.admin.control import SmallControl
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from aiohttp.test_utils import TestClient
    from aiohttp.web import Application, Request
    from pytest_aiohttp import AiohttpClient

    Client = TestClient[Request, Application]

PURGE = "/api/cache/purge"
RIGHT = {"Authorization": "Bearer secret"}
READER = {"Authorization": "Bearer reader"}
WRONG = {"Authorization": "Bearer guess"}
BODY = b'{"tag": "a"}'


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
def control() -> SmallControl:
    return SmallControl()


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, control: SmallControl, clock: DrivenClock) -> Client:
    limit = RateLimit(rate=1, burst=3)
    return await aiohttp_client(make_admin(control, Auth("secret", "reader"), clock, purges=limit))


async def status(client: Client, headers: dict[str, str], path: str = PURGE) -> int:
    return (await client.post(path, data=BODY, headers=headers)).status


async def test_wrong_tokens_have_to_wait_and_so_does_the_right_one(
    client: Client, clock: DrivenClock
) -> None:
    assert [await status(client, WRONG) for _ in range(11)] == [401] * 10 + [429]
    refused = await client.post(PURGE, data=BODY, headers=RIGHT)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "10")
    assert (await client.get("/api/rules", headers=RIGHT)).status == 429
    assert (await client.get("/healthz")).status == 200
    await clock.advance(10)
    assert await status(client, RIGHT) == 200
    assert await status(client, WRONG) == 401
    assert await status(client, RIGHT) == 429


async def test_right_tokens_and_none_never_have_to(client: Client) -> None:
    for _ in range(15):
        assert (await client.get("/api/rules", headers=RIGHT)).status == 200
        assert (await client.get("/api/rules")).status == 401
        assert await status(client, READER) == 403


async def test_purges_have_a_rate(client: Client, clock: DrivenClock, control: SmallControl) -> None:
    assert [await status(client, RIGHT) for _ in range(4)] == [200, 200, 200, 429]
    dry = await client.post(PURGE, data=b'{"tag": "a", "dry_run": true}', headers=RIGHT)
    assert dry.status == 200, "it changes nothing"
    await clock.advance(1)
    assert await status(client, RIGHT) == 200
    assert len(control.purged) == 4


async def test_changes_are_told(client: Client, clock: DrivenClock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "edgeproxy.audit"):
        await client.post(PURGE, data=b'{"tag": "a\\u0022\\u2028", "soft": true}', headers=RIGHT)
        await client.post(PURGE, data=b"nonsense", headers=RIGHT)
        await client.post(PURGE, data=BODY, headers=WRONG)
        await client.post("/api/rules/reload", headers=RIGHT | {"User-Agent": "curl/8\t" + "x" * 300})
        await client.get("/api/rules", headers=RIGHT)
    lines = [record.message for record in caplog.records if record.name == "edgeproxy.audit"]
    assert all(line.isprintable() or "\u2028" in line for line in lines)
    told = [json.loads(line) for line in lines]
    kept = (await (await client.get("/api/audit", headers=READER)).json())["changes"]
    assert kept == told[::-1]
    purge, bad, stranger, reload = told
    assert purge["time"] == "2023-11-14T22:13:20.000+00:00"
    assert purge["client"] == "127.0.0.1"
    assert (purge["request"], purge["status"]) == ("POST /api/cache/purge", 200)
    assert (purge["kind"], purge["value"], purge["soft"]) == ("tag", 'a"\u2028', True)
    assert purge["number"] == "1"
    assert [each["status"] for each in (bad, stranger, reload)] == [400, 401, 200]
    assert len(reload["agent"]) == 200
    assert "secret" not in "".join(lines)
    assert "guess" not in "".join(lines)
