"""The live numbers and what the page is made of, of a real worker over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from edgeproxy.__main__ import main
from edgeproxy.admin import page
from edgeproxy.admin.api import LIVE
from edgeproxy.admin.live import MOST, Live
from edgeproxy.observe.percentiles import STEP
from tests.support.edge import TOKEN, running_edge
from tests.support.ledger import FIN, LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.edge import Edge

RULES = """
rules:
  - name: items
    match: {path: "/items/**"}
    ttl: 1h
    tags: [items]
  - name: account
    match: {path: "/me"}
    pass: true
"""
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Admin:
    """The admin port of a running worker."""

    def __init__(self, edge: Edge, session: aiohttp.ClientSession) -> None:
        self.edge = edge
        self.session = session
        self.url = f"http://127.0.0.1:{edge.worker.admin_port}"

    async def json(self, path: str, status: int = 200) -> dict[str, Any]:
        async with self.session.get(f"{self.url}{path}") as answer:
            assert answer.status == status
            told: dict[str, Any] = await answer.json(content_type=None)
            return told

    @asynccontextmanager
    async def events(self, query: str = "") -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async with self.session.get(f"{self.url}/api/events{query}") as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")

            async def each() -> AsyncIterator[dict[str, Any]]:
                async for line in answer.content:
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:])

            yield each()


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as running:
        running.script("/me", [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])
        running.script("/items/broken", [FIN])
        yield running


@pytest.fixture
async def admin(origin: LedgerOrigin, tmp_path: Path) -> AsyncIterator[Admin]:
    (tmp_path / "shop.yaml").write_text(RULES)
    async with (
        running_edge(origin.url, rules=tmp_path) as edge,
        aiohttp.ClientSession() as session,
    ):
        yield Admin(edge, session)


async def test_all_there_is_to_see(admin: Admin) -> None:
    edge = admin.edge
    for target in ("/items/1", "/items/1", "/items/1", "/items/2?a=b", "/me?secret=x"):
        await edge.get(target)
    assert (await edge.get("/items/broken")).status == 502
    told = await admin.json("/api/live")
    rules = {row["name"]: row for row in told["rules"]}
    assert (rules["items"]["requests"], rules["items"]["hits"], rules["items"]["passes"]) == (5, 2, 0)
    assert (rules["items"]["hit_ratio"], rules["items"]["errors"]) == (0.4, 1)
    assert (rules["account"]["passes"], rules["account"]["hit_ratio"]) == (1, None)
    assert (told["all"]["requests"], told["all"]["errors"]) == (6, 2)
    assert [row["requests"] for row in told["history"]] == [6]
    assert told["wanted"][0]["url"].endswith("/items/1")
    assert told["origins"][0]["state"] == "usable"
    assert told["store"]["l1_entries"] == 2
    assert (told["state"], told["uptime_seconds"]) == ("ready", 0.0)
    broken, busy = told["troubles"]
    assert (broken["rule"], broken["status"], broken["reason"]) == ("items", 502, "reset")
    assert (busy["rule"], busy["status"], busy["url"]) == ("account", 503, "example.test/me")
    assert "secret" not in json.dumps(told)


async def test_what_is_served_stale_is_among_the_troubles(admin: Admin, origin: LedgerOrigin) -> None:
    fields = b"Content-Length: 2\r\nCache-Control: max-age=1, stale-if-error=60"
    origin.script("/plain", [b"HTTP/1.1 200 OK\r\n%b\r\n\r\nok" % fields], times=1)
    origin.script("/plain", [FIN])
    await admin.edge.get("/plain")
    await admin.edge.clock.advance(2)
    assert (await admin.edge.get("/plain")).status == 200
    (one,) = (await admin.json("/api/live"))["troubles"]
    assert (one["status"], one["saved_by"], one["count"]) == (200, "stale-if-error", 1)


async def test_events_begin_with_the_history_and_go_on(admin: Admin) -> None:
    clock = admin.edge.clock
    await admin.edge.get("/items/1")
    await clock.advance(10 * STEP)
    assert clock.pending == () or min(clock.pending) > 1  # nobody listens: nothing is computed
    async with admin.events("?window=1m") as events:
        first = await anext(events)
        assert (first["window"], len(first["history"])) == ("1m", 1)
        assert first["rules"][0]["requests"] == 1
        await admin.edge.get("/items/1")
        await clock.advance(1)
        second = await anext(events)
        assert "rules" not in second
        assert [row["requests"] for row in second["history"]] == [1]  # the tail: the new slot alone
        await clock.advance(1)
        third = await anext(events)
        assert third["rules"][0]["requests"] == 2
    live = listeners_of(admin)
    while live.listeners:  # it is seen to be gone when it is written to
        await clock.advance(1)
    await clock.advance(2)
    assert live._timer is None


def listeners_of(admin: Admin) -> Live:
    return admin.edge.worker.admin._runner.app[LIVE]


async def test_readers_are_bounded_and_share_the_work(admin: Admin) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(admin.events()) for _ in range(MOST)]
        for stream in streams:
            await anext(stream)
        told = await admin.json("/api/events", 503)
        assert "readers at most" in told["detail"]
        await admin.edge.clock.advance(1)
        events = [await anext(stream) for stream in streams]
        assert all(event == events[0] for event in events)


async def test_an_open_stream_does_not_hold_up_the_end(admin: Admin) -> None:
    async with admin.events() as events:
        await anext(events)
        async with asyncio.timeout(0.9):  # the listener would wait for a second
            await admin.edge.worker.admin.close()
        assert [event async for event in events] == []


async def test_a_window_that_there_is_not(admin: Admin) -> None:
    for path in ("/api/live?window=2m", "/api/events?window="):
        assert "expected one of 1m, 5m, 1h" in (await admin.json(path, 400))["detail"]


async def test_head_of_events_ends(admin: Admin) -> None:
    async with asyncio.timeout(5), admin.session.head(f"{admin.url}/api/events") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_explain_says_what_would_become_of_a_request(admin: Admin) -> None:
    told = await admin.json("/api/explain?url=/items/7&answer_header=Set-Cookie:%20a%3Db")
    assert told["explanation"]["rule"] == {"name": "items", "at": "shop.yaml:3"}
    assert told["explanation"]["reason"] == "set-cookie"
    assert "not stored: set-cookie" in told["text"]
    assert told["entry"] is None
    await admin.edge.get("/items/7")
    told = await admin.json("/api/explain?url=http://example.test/items/7")
    assert told["entry"]["variants"][0]["fresh"] is True
    passed = await admin.json("/api/explain?url=http://h/me&method=get")
    assert passed["explanation"]["decision"] == "pass"


async def test_explain_goes_by_the_last_answer_of_the_origin(admin: Admin, origin: LedgerOrigin) -> None:
    """Stored or not; ``edgeproxy explain --admin`` goes by the same one."""

    async def explained(target: str, more: str = "") -> dict[str, Any]:
        told = await admin.json(f"/api/explain?url=http://example.test{target}{more}")
        explanation: dict[str, Any] = told["explanation"]
        command = json.loads(await asyncio.to_thread(ask, target)) if not more else explanation
        for key in ("answer", "stored", "reason", "ttl", "ttl_source", "otherwise", "clients", "notes"):
            assert command[key] == explanation[key], key
        return {**explanation, "text": told["text"]}

    def ask(target: str) -> str:
        words = ["explain", f"http://example.test{target}", "--format", "json"]
        words += ["--rules", str(admin.edge.worker.settings.rules), "--admin", admin.url.partition("//")[2]]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(words) == 0
        return out.getvalue()

    told = await explained("/plain/1")
    assert told["answer"] == {"status": 200, "assumed": True, "source": "assumed", "age": None}
    assert "so a plain one is assumed" in told["notes"][0]
    assert told["reason"] == "no-lifetime"

    origin.reply("/plain/1", headers=[("Cache-Control", "max-age=90")])
    await admin.edge.get("/plain/1")
    await admin.edge.clock.advance(2)
    told = await explained("/plain/1")
    assert told["answer"] == {"status": 200, "assumed": False, "source": "stored", "age": 2.0}
    assert (told["stored"], told["ttl"], told["ttl_source"]) == (True, 90, "max-age")
    assert "answer   200 (the one that is stored, 2s ago)" in told["text"]

    # It is still stored, for validation, when the origin begins to answer otherwise.
    origin.reply("/plain/1", headers=[("Cache-Control", "max-age=90"), ("Set-Cookie", "a=b")])
    await admin.edge.clock.advance(100)
    await admin.edge.get("/plain/1")
    told = await explained("/plain/1")
    assert told["answer"] == {"status": 200, "assumed": False, "source": "refused", "age": 0.0}
    assert (told["stored"], told["reason"], told["otherwise"]["without"]) == (
        False,
        "set-cookie",
        ["set-cookie"],
    )

    told = await explained("/plain/1", "&status=404")
    assert told["answer"] == {"status": 404, "assumed": False, "source": "given", "age": None}
    told = await explained("/plain/1", "&method=POST")
    assert told["answer"]["assumed"], "what is known are answers to GET"


async def test_explain_goes_by_the_variant_that_the_request_selects(
    admin: Admin, origin: LedgerOrigin
) -> None:
    for theme, age in (("dark", 60), ("light", 90)):
        origin.reply("/plain/2", headers=[("Cache-Control", f"max-age={age}"), ("Vary", "X-Theme")])
        await admin.edge.get("/plain/2", ("X-Theme", theme))

    async def explained(theme: str) -> dict[str, Any]:
        told = await admin.json(f"/api/explain?url=http://example.test/plain/2&header=X-Theme:{theme}")
        explanation: dict[str, Any] = told["explanation"]
        return {**explanation, "text": told["text"]}

    for theme, age in (("dark", 60), ("light", 90)):
        assert (await explained(theme))["ttl"] == age

    # What others get says nothing of one that is fresh.
    await admin.edge.clock.advance(1)
    origin.reply("/plain/2", headers=[("Cache-Control", "private"), ("Vary", "X-Theme")])
    assert (await admin.edge.get("/plain/2", ("X-Theme", "red")))["X-Cache-Status"] == "MISS"
    told = await explained("dark")
    assert (told["answer"]["source"], told["stored"]) == ("stored", True)
    told = await explained("red")
    assert (told["answer"]["source"], told["reason"]) == ("refused", "response-private")


async def test_explain_says_that_another_variant_is_another(admin: Admin, origin: LedgerOrigin) -> None:
    origin.reply("/plain/3", headers=[("Cache-Control", "max-age=60"), ("Vary", "X-Theme")])
    await admin.edge.get("/plain/3", ("X-Theme", "dark"))
    told = await admin.json("/api/explain?url=http://example.test/plain/3&header=X-Theme:light")
    assert told["explanation"]["answer"]["source"] == "variant"
    assert "stored for other requests; none for this one" in told["text"]


async def test_explain_of_what_one_client_got_in_its_own_way(admin: Admin, origin: LedgerOrigin) -> None:
    """Its Authorization is not the next one's, and a 304 to its condition tells nothing of the whole."""
    origin.reply("/plain/4", headers=[("Cache-Control", "max-age=60")])
    await admin.edge.get("/plain/4", ("Authorization", "Basic YTpi"))
    told = await admin.json("/api/explain?url=http://example.test/plain/4")
    assert (told["explanation"]["answer"]["source"], told["explanation"]["stored"]) == ("refused", True)
    origin.reply("/plain/5", status=304, headers=[("ETag", '"a"')])
    own = (("Authorization", "Basic YTpi"), ("If-None-Match", '"a"'))
    assert (await admin.edge.get("/plain/5", *own)).status == 304
    told = await admin.json("/api/explain?url=http://example.test/plain/5")
    assert told["explanation"]["answer"]["source"] == "assumed"


async def test_explain_of_a_path_says_that_the_host_is_missing(admin: Admin, origin: LedgerOrigin) -> None:
    origin.reply("/plain/6", headers=[("Cache-Control", "max-age=60")])
    await admin.edge.get("/plain/6")
    told = await admin.json("/api/explain?url=/plain/6")
    assert "write the whole URL" in told["explanation"]["notes"][0]
    told = await admin.json("/api/explain?url=/plain/6&header=Host:%20example.test")
    assert told["explanation"]["answer"]["source"] == "stored"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "expected ?url="),
        ("url=ftp://x/", "expected a path"),
        ("url=/a%20b", "percent-encoded"),
        ("url=/&method=a b", "expected one such as GET"),
        ("url=/&status=99", "200 to 599"),
        ("url=/&header=nonsense", "header=Name"),
        ("url=/&header=a:%00", "header=Name"),
        ("url=/&header=a:%E2%82%AC", "'latin-1' codec"),
        ("url=/&heade=a:b", "'heade' is not known"),
    ],
)
async def test_explain_refuses_what_it_does_not_understand(admin: Admin, query: str, says: str) -> None:
    assert says in (await admin.json(f"/api/explain?{query}", 400))["detail"]


# -- the page ----------------------------------------------------------------------------------------------


async def test_browsers_get_the_page_and_others_the_list(admin: Admin) -> None:
    async with admin.session.get(admin.url, headers={"Accept": "text/html,*/*"}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
        text = await answer.text()
    assert "endpoints" in await admin.json("/")
    assert "endpoints" in await admin.json("/api")
    for name in page.FILES:
        assert (name == page.INDEX) or f"page/{name}" in text or name.endswith(".js")
        async with admin.session.get(f"{admin.url}/page/{name}") as answer:
            assert (answer.status, answer.content_type) == (200, page.FILES[name])
            assert len(await answer.read()) > 100
    assert (await admin.json("/page/__init__.py", 404))["status"] == 404


def test_the_page_is_whole_and_asks_nobody_else() -> None:
    directory = Path(page.__file__).parent
    kept = {path.name for path in directory.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}
    assert kept == set(page.FILES)
    for name in kept:
        text = (directory / name).read_text().replace("http://www.w3.org/", "")
        for strange in ("https:", "//cdn", "innerHTML", "eval(", "<style", " style=", "onclick"):
            assert strange not in text, f"{name}: {strange}"


async def test_with_a_read_token_the_page_is_open_and_its_numbers_are_not(
    origin: LedgerOrigin, tmp_path: Path
) -> None:
    secret = tmp_path / "read-token"
    secret.write_text("read\n")
    secret.chmod(0o600)
    async with (
        running_edge(origin.url, read_token_file=secret) as edge,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{edge.worker.admin_port}"
        html = {"Accept": "text/html"}
        for path in ("/", "/page/app.js"):
            async with session.get(url + path, headers=html) as answer:
                assert answer.status == 200
        for path in ("/api", "/api/live", "/api/events", "/api/explain?url=/"):
            async with session.get(url + path, headers=html) as answer:
                assert answer.status == 401, path
            async with session.head(url + path, headers=BEARER) as answer:
                assert answer.status == 200, path
        async with session.get(url) as answer:  # the list tells the version
            assert answer.status == 401
