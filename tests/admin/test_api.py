"""Each endpoint over real sockets."""

from __future__ import annotations

import asyncio
import json
import types
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin.api import LARGEST_BODY, ROUTES, make_admin
from edgeproxy.admin.auth import Auth
from edgeproxy.admin.control import Kind, PartHealth, PurgeRequest, State, WarmRequest
from edgeproxy.admin.health import KEPT, HealthBoard, word
from edgeproxy.observe.metrics import CONTENT_TYPE
from tests.admin.control import SmallControl
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from aiohttp.test_utils import TestClient
    from aiohttp.web import Application, Request
    from pytest_aiohttp import AiohttpClient

    Client = TestClient[Request, Application]

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def control() -> SmallControl:
    return SmallControl()


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, control: SmallControl, clock: DrivenClock) -> Client:
    return await aiohttp_client(make_admin(control, Auth("secret"), clock))


async def purge(client: Client, body: bytes | str) -> tuple[int, dict[str, Any]]:
    answer = await client.post("/api/cache/purge", data=body, headers=TOKEN)
    return answer.status, await answer.json(content_type=None)


async def test_alive_asks_nobody(client: Client, control: SmallControl) -> None:
    for state in State:
        control.state = state
        answer = await client.get("/healthz")
        assert (answer.status, await answer.json()) == (200, {"status": "alive"})
    assert control.checks == 0


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING])
async def test_not_ready_is_said_at_once(client: Client, control: SmallControl, state: State) -> None:
    assert (await client.get("/readyz")).status == 200
    control.state = state
    control.gate = asyncio.Event()  # never opened: asking a part would hang
    answer = await client.get("/readyz")
    assert (answer.status, await answer.json()) == (503, {"status": state.value})
    assert control.checks == 1


async def test_a_drain_that_begins_during_a_check_counts(client: Client, control: SmallControl) -> None:
    control.gate = asyncio.Event()
    asking = asyncio.gather(client.get("/readyz"))
    await control.asking.wait()
    control.state = State.DRAINING
    control.gate.set()
    (answer,) = await asking
    assert answer.status == 503


async def test_dead_parts_are_degraded_not_unready(client: Client, control: SmallControl) -> None:
    control.parts["origin"] = PartHealth(ok=False, detail="10.0.0.5:8000 refused")
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {"status": "degraded", "parts": {"store": "ok", "origin": "failing"}}
    told = await (await client.get("/api/health")).json()
    assert told["status"] == "degraded"
    assert told["state"] == "ready"
    assert told["parts"]["origin"] == {"ok": False, "detail": "10.0.0.5:8000 refused"}
    assert told["parts"]["store"]["ok"] is True


async def test_how_the_last_reload_went(client: Client, control: SmallControl) -> None:
    async def told() -> list[object]:
        return [
            (await (await client.get(path)).json())["last_reload"] for path in ("/api/rules", "/api/health")
        ]

    assert await told() == [None, None]
    await control.reload_rules()
    assert await told() == [{"result": "ok", "lines": []}] * 2
    control.errors = ("a.yaml:2: wrong",)
    await control.reload_rules()
    assert await told() == [{"result": "error", "lines": ["a.yaml:2: wrong"]}] * 2
    control.errors, control.missing = (), ("worker 1: hangs",)
    await control.reload_rules()
    assert await told() == [{"result": "error", "lines": ["worker 1: hangs"]}] * 2


async def test_nothing_stored_says_how_to_ask(client: Client, control: SmallControl) -> None:
    control.stored = None
    answer = await client.get("/api/cache/entry?url=/a")
    assert answer.status == 404
    assert "give the URL as clients use it, with its host" in (await answer.json())["detail"]


async def test_checks_are_kept_ten_seconds(client: Client, control: SmallControl, clock: DrivenClock) -> None:
    await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
    assert control.checks == 1
    control.parts["store"] = PartHealth(ok=False)
    clock.jump(KEPT - 0.1)
    assert (await (await client.get("/readyz")).json())["status"] == "ready"
    clock.jump(0.2)
    assert (await (await client.get("/readyz")).json())["status"] == "degraded"
    assert control.checks == 2


async def test_a_check_that_hangs_is_given_up(control: SmallControl, clock: DrivenClock) -> None:
    board = HealthBoard(control, clock, limit=0.01)
    assert word(await board.parts()) == "ok"
    clock.jump(KEPT)
    control.gate = asyncio.Event()
    parts = await board.parts()
    assert set(parts) == {"store", "origin"}
    assert word(parts) == "degraded"
    assert "0.01 s" in parts["store"].detail


async def test_a_check_that_breaks_is_degraded(
    client: Client, control: SmallControl, caplog: pytest.LogCaptureFixture
) -> None:
    control.fault = RuntimeError("secret detail")
    answer = await client.get("/readyz")
    assert (answer.status, (await answer.json())["status"]) == (200, "degraded")
    assert "secret detail" not in await (await client.get("/api/health")).text()
    assert "secret detail" in caplog.text


async def test_metrics(client: Client) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8" == CONTENT_TYPE
    assert await answer.text() == "edgeproxy_requests_total 1\n"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/cache/stats", {"requests": 12}),
        ("/api/cache/status", {"requests": 12}),
        ("/api/performance", {"unit": "seconds"}),
        ("/api/performance/metrics", {"unit": "seconds"}),
        (
            "/api/rules",
            {"version": "v1", "rules": [{"name": "pitches", "at": "a.yaml:2"}], "last_reload": None},
        ),
    ],
)
async def test_what_control_tells_is_told(client: Client, path: str, body: dict[str, object]) -> None:
    answer = await client.get(path)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert await answer.json() == body


async def test_whatever_control_tells_becomes_json(client: Client, control: SmallControl) -> None:
    control.numbers = {
        "set": frozenset({"b", "a"}),
        "map": types.MappingProxyType({404: 30.0}),
        "state": State.READY,
        "bytes": b"x",
        "text": "\udcff",
    }
    told = await (await client.get("/api/cache/stats")).json()
    assert told == {
        "set": ["a", "b"],
        "map": {"404": 30.0},
        "state": "ready",
        "bytes": "b'x'",
        "text": "\udcff",
    }


async def test_entry(client: Client, control: SmallControl) -> None:
    asked = [("url", "http://api.example/a?b=1&c"), ("header", "Accept: x/y"), ("header", "X-A:b:c")]
    answer = await client.get("/api/cache/entry", params=asked)
    assert (answer.status, await answer.json()) == (
        200, {"status": 200, "age": 7, "refused": None}
    )  # fmt: skip
    assert control.asked == 2 * [("http://api.example/a?b=1&c", [("Accept", "x/y"), ("X-A", "b:c")])]
    control.stored = None
    assert (await client.get("/api/cache/entry", params={"url": "/a"})).status == 404
    for wrong in ("", "?url=", "?url=/a&header=nocolon", "?url=/a&header=:v"):
        assert (await client.get(f"/api/cache/entry{wrong}")).status == 400


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ('{"url": "/a?b=%20"}', PurgeRequest(Kind.URL, "/a?b=%20")),
        ('{"tag": "pitch:1", "soft": true}', PurgeRequest(Kind.TAG, "pitch:1", soft=True)),
        ('{"prefix": "/api/"}', PurgeRequest(Kind.PREFIX, "/api/")),
        ('{"pattern": "/b*"}', PurgeRequest(Kind.PATTERN, "/b*")),
        ('{"all": true}', PurgeRequest(Kind.ALL)),
        ('{"tag": "caf\u00e9"}', PurgeRequest(Kind.TAG, "caf\u00e9")),
    ],
)
async def test_purge(client: Client, control: SmallControl, body: str, request_: PurgeRequest) -> None:
    status, receipt = await purge(client, body)
    assert status == 200
    assert control.purged == [request_]
    assert receipt == {
        "number": "1",
        "kind": request_.kind.value,
        "value": request_.value,
        "soft": request_.soft,
        "dry_run": False,
        "objects": 3,
        "bytes": 3000,
        "layers": {"l1": "ok", "l2": "ok"},
    }


async def test_a_dry_run_counts_and_purges_nothing(client: Client, control: SmallControl) -> None:
    status, receipt = await purge(client, '{"prefix": "/a", "dry_run": true}')
    assert status == 200
    assert (receipt["number"], receipt["objects"], receipt["bytes"]) == (None, 3, "unknown")
    assert receipt["dry_run"] is True
    assert control.purged == []
    assert control.counted == [PurgeRequest(Kind.PREFIX, "/a", dry_run=True)]


async def test_a_layer_that_was_not_told_is_no_success(client: Client, control: SmallControl) -> None:
    control.layers = {"l1": "ok", "l2": "redis: connection refused"}
    status, receipt = await purge(client, '{"all": true}')
    assert status == 503
    assert receipt["layers"]["l2"] == "redis: connection refused"
    assert receipt["number"] == "1"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "truncated"),
        ("nonsense", "malformed"),
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ("{}", "none of them"),
        ('{"url": "/a", "tag": "b"}', "url and tag"),
        ('{"url": 5}', "Expected `str`"),
        ('{"url": ""}', "is empty"),
        ('{"url": "/a b"}', "space or a control"),
        ('{"tag": "a\\u0000"}', "space or a control"),
        ('{"url": "/a", "sotf": true}', "unknown field `sotf`"),
        ('{"url": "/a", "soft": "yes"}', "Expected `bool`"),
        ('{"url": "/a", "dry_run": 1}', "Expected `bool`"),
        ('{"all": false}', "can only be true"),
        ('{"all": 1}', "Expected `bool`"),
        ('{"prefix": "/%s"}' % ("a" * 9000), "longer than"),
        (b'{"url": "\xff"}', ""),
        ('{"url": null}', "Expected `str`"),
    ],
)
async def test_a_wrong_purge_says_what_was_expected(
    client: Client, control: SmallControl, body: str | bytes, says: str
) -> None:
    status, said = await purge(client, body)
    assert (status, said["status"], said["title"], said["type"]) == (400, 400, "Bad Request", "about:blank")
    assert says in said["detail"]
    assert 'expected a JSON object with one of {"url": …}' in said["detail"]
    assert control.purged == control.counted == []


async def test_what_control_refuses_is_400(client: Client) -> None:
    status, said = await purge(client, '{"url": "relative"}')
    assert (status, said["detail"]) == (400, "a URL to purge begins with http:// or /")


async def test_a_body_that_is_too_large(client: Client, control: SmallControl) -> None:
    status, said = await purge(client, b" " * (LARGEST_BODY + 1))
    assert (status, said["status"]) == (413, 413)
    assert control.purged == []


async def test_reload(client: Client, control: SmallControl) -> None:
    answer = await client.post("/api/rules/reload", headers=TOKEN)
    assert (answer.status, await answer.json()) == (200, {"version": "v2", "rules": 4})
    control.errors = ("a.yaml:3: ttl: expected a duration such as 15m",)
    answer = await client.post("/api/rules/reload", headers=TOKEN)
    said = await answer.json()
    assert (answer.status, answer.content_type) == (422, "application/problem+json")
    assert said["errors"] == list(control.errors)
    assert said["version"] == "v1"
    assert said["detail"] == "the rule files have 1 error; the rules loaded before go on"


async def test_a_worker_that_did_not_take_the_rules_is_no_success(
    client: Client, control: SmallControl
) -> None:
    control.missing = ("worker 2 (pid 7): no answer within 60 s",)
    answer = await client.post("/api/rules/reload", headers=TOKEN)
    said = await answer.json()
    assert (answer.status, said["version"], said["errors"]) == (503, "v2", list(control.missing))


async def test_without_auth_whoever_can_connect_may_do_everything(
    aiohttp_client: AiohttpClient, control: SmallControl, clock: DrivenClock
) -> None:
    client = await aiohttp_client(make_admin(control, None, clock))
    assert (await client.post("/api/cache/purge", data=b'{"all": true}')).status == 200
    assert (await client.get("/api/rules", headers={"Host": "worker"})).status == 200


async def test_errors_are_problems_and_tell_no_more_than_they_should(
    client: Client, control: SmallControl, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/nowhere<script>")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")
    answer = await client.delete("/api/cache/purge", headers=TOKEN)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    answer = await client.get("/api/cache/purge")
    assert answer.status == 405
    control.fault = RuntimeError("secret detail")
    answer = await client.get("/api/cache/stats")
    assert (answer.status, answer.content_type) == (500, "application/problem+json")
    assert "secret detail" not in await answer.text()
    assert "secret detail" in caplog.text


async def test_octets_that_are_no_text_are_an_answer(client: Client) -> None:
    assert client.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"GET /\xff\xfe?\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert raw.split(b" ", 2)[1] in {b"400", b"404"}


async def test_nothing_is_cached_framed_or_read_by_others(client: Client, control: SmallControl) -> None:
    control.fault = RuntimeError()
    for path in ("/healthz", "/metrics", "/nowhere", "/api/cache/stats"):
        fields = (await client.get(path)).headers
        assert fields["Cache-Control"] == "no-store"
        assert "default-src 'none'" in fields["Content-Security-Policy"]
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Cross-Origin-Resource-Policy"] == "same-origin"
        assert fields["Server"] == "edgeproxy"


async def test_the_index_lists_every_route(client: Client) -> None:
    told = await (await client.get("/")).json()
    assert len(told["endpoints"]) == len(ROUTES)


async def test_head_is_answered_like_get_without_the_body(client: Client) -> None:
    answer = await client.head("/readyz")
    assert (answer.status, await answer.read()) == (200, b"")


async def test_a_warm_up_is_begun_and_looked_at(client: Client, control: SmallControl) -> None:
    answer = await client.post("/api/cache/warm", data=b'{"urls": ["http://h/1"], "rate": 5}', headers=TOKEN)
    assert (answer.status, answer.headers["Location"]) == (202, "/api/cache/warm/w1")
    assert control.warmed == [WarmRequest(("http://h/1",), rate=5)]
    assert (await (await client.get("/api/cache/warm")).json()) == {"jobs": [{"id": "w1"}]}
    told = await (await client.get("/api/cache/warm/w1?after=0&wait=99")).json()
    assert (told["state"], told["news"][0]["url"], control.waits[-1]) == ("done", "http://h/1", 10.0)
    assert (await client.get("/api/cache/warm/w1?after=x")).status == 400
    assert (await client.get("/api/cache/warm/none")).status == 404
    assert (await client.delete("/api/cache/warm/none", headers=TOKEN)).status == 404
    assert (await client.delete("/api/cache/warm/w1")).status == 401
    assert (await client.delete("/api/cache/warm/w1", headers=TOKEN)).status == 200
    assert control.cancelled == ["none", "w1"]


async def test_a_warm_up_as_a_stream(client: Client) -> None:
    fields = {**TOKEN, "Accept": "application/x-ndjson"}
    answer = await client.post("/api/cache/warm", data=b'{"urls": ["/1", "/2"]}', headers=fields)
    assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in (await answer.read()).splitlines()]
    assert [(line.get("url"), line.get("done"), line.get("total")) for line in lines[1:-1]] == [
        ("/1", 1, 2), ("/2", 2, 2),
    ]  # fmt: skip
    assert (lines[0]["job"]["state"], lines[-1]["job"]["state"]) == ("running", "done")
    again = await client.get("/api/cache/warm/w1", headers={"Accept": "application/x-ndjson"})
    assert len((await again.read()).splitlines()) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"urls": []}', b'{"urls": "x"}', b'{"urls": ["/"], "most_wanted": 1}',
        b'{"most_wanted": 0}', b'{"most_wanted": 1001}', b'{"most_wanted": 5, "headers": {"a": "b"}}',
        b'{"urls": ["/"], "rate": 0}', b'{"urls": ["/"], "concurrency": 65}', b'{"urls": ["/"], "rtae": 1}',
        b'{"sitemap": ""}', b"\xff", b'{"urls": ["refused"]}',
    ],
)  # fmt: skip
async def test_a_wrong_warm_up_is_refused(client: Client, control: SmallControl, body: bytes) -> None:
    answer = await client.post("/api/cache/warm", data=body, headers=TOKEN)
    assert answer.status == 400
    assert "expected" in (await answer.json(content_type=None))["detail"]
    assert control.warmed == []


async def test_a_long_list_may_be_warmed(client: Client, control: SmallControl) -> None:
    urls = [f"http://api.example/{n:0100}" for n in range(10_000)]
    answer = await client.post(
        "/api/cache/warm", data=BytesIO(json.dumps({"urls": urls}).encode()), headers=TOKEN
    )
    assert answer.status == 202
    assert len(control.warmed[0].urls) == 10_000
    answer = await client.post("/api/cache/warm", data=BytesIO(b" " * (17 * 1024 * 1024)), headers=TOKEN)
    assert answer.status == 413
