"""``explain --admin``, ``savings`` and ``doctor``, against a real admin port."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.__main__ import main
from edgeproxy.admin.api import make_admin
from edgeproxy.admin.auth import Auth
from edgeproxy.rules.load import load_rules
from tests.admin.control import SmallControl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pytest_aiohttp import AiohttpServer

    Run = Callable[..., Awaitable[tuple[int, str]]]

RULES = 'rules: [{name: api, match: {path: "/api/**"}, ttl: 15m}]\n'
VARIANT: dict[str, Any] = {
    "status": 200, "age": 3.2, "ttl": 896.8, "fresh": True, "must_validate": False, "hits": 12,
    "length": 2048, "rule": "api", "tags": ["items"], "vary": {"x-lang": "de"},
    "headers": [["Cache-Control", "max-age=60"], ["Content-Type", "text/plain"]],
}  # fmt: skip


@pytest.fixture
def control() -> SmallControl:
    return SmallControl()


@pytest.fixture
async def run(
    aiohttp_server: AiohttpServer,
    control: SmallControl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    server = await aiohttp_server(make_admin(control, Auth("secret")))
    for name in ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_CACHE_DIR", "EDGEPROXY_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text(RULES)

    async def command(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, [*words, "--admin", f"127.0.0.1:{server.port}"])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


async def test_what_is_stored_is_explained(run: Run, control: SmallControl, tmp_path: Path) -> None:
    control.stored = {
        "variants": [VARIANT, {**VARIANT, "fresh": False, "ttl": -61.0, "vary": {}, "tags": []}]
    }
    words = ("explain", "http://h/api/1?x", "-H", "X-Lang: de", "--rules", str(tmp_path))
    code, out = await run(*words)
    assert code == 0
    assert set(map(str, control.asked)) == {str(("http://h/api/1?x", [("X-Lang", "de")]))}
    assert "answer   200 (the one that is stored)" in out
    assert "clients  Cache-Control: max-age=60" in out
    *_, first, second, third = out.splitlines()
    assert first == (
        "live     stored 200, 3s old, fresh for 14m57s more, 12 hits, 2.0 KiB, rule api, tags items, "
        "for x-lang: de"
    )
    assert second.startswith("         stored 200, 3s old, stale for 1m1s, ")
    assert third.startswith("         under other rules: version v1")
    told = json.loads((await run(*words, "--format", "json"))[1])
    assert told["live"]["variants"][0]["hits"] == 12
    assert told["rule"] == {"name": "api", "at": "a.yaml:1"}


async def test_of_a_path_what_is_stored_is_told_only_where_it_is_for_any_host(
    run: Run, control: SmallControl, tmp_path: Path
) -> None:
    control.stored = {"variants": [VARIANT]}
    words = ("explain", "/api/1?x", "--rules", str(tmp_path))
    code, out = await run(*words)
    assert code == 0
    assert "answer   200 (assumed)" in out
    assert (
        "live     not known: the key has the host in it; write the whole URL, such as "
        "http://api.example/api/1?x\n"
    ) in out
    live = json.loads((await run(*words, "--format", "json"))[1])["live"]
    assert (live["variants"], live["refused"]) == ([], None)
    assert "whole URL" in live["not_asked"]
    assert "live     stored 200" in (await run(*words, "-H", "Host: h"))[1]
    (tmp_path / "a.yaml").write_text(RULES.replace("ttl", "key: {host: false}, ttl"))
    assert "live     stored 200" in (await run(*words))[1]


async def test_the_rules_are_those_of_who_is_asked(
    run: Run, control: SmallControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they can be read from here; given ones go first."""
    monkeypatch.delenv("EDGEPROXY_RULES", raising=False)
    there = tmp_path / "there"
    there.mkdir()
    (there / "a.yaml").write_text(RULES.replace("15m", "7m"))

    async def rules() -> dict[str, object]:
        return {"version": load_rules(there).version, "source": str(there), "rules": []}

    control.stored = {"variants": []}
    monkeypatch.setattr(control, "rules", rules)
    code, out = await run("explain", "http://h/api/1", "--format", "json")
    told = json.loads(out)
    assert (code, told["rule"]) == (0, {"name": "api", "at": "a.yaml:1"})
    assert told["live"]["rules"]["version"] == load_rules(there).version
    _, out = await run("explain", "http://h/api/1")
    assert "7m" in out
    assert "other rules" not in out
    _, out = await run("explain", "http://h/api/1", "--rules", "none")
    assert "under other rules" in out


async def test_what_was_not_stored_says_what_it_would_take(
    run: Run, control: SmallControl, tmp_path: Path
) -> None:
    control.stored = None
    words = ("explain", "http://h/api/1", "--rules", str(tmp_path))
    out = (await run(*words))[1]
    assert "live     nothing stored" in out
    assert "note     no answer of the origin to it is known here, so a plain one is assumed" in out
    control.refused = {
        "rule": "api", "reason": "set-cookie", "age": 12.0, "status": 200, "headers": [["Set-Cookie", "..."]],
    }  # fmt: skip
    out = (await run(*words))[1]
    assert "not stored: set-cookie" in out
    assert "would be stored for 15m without it; to store it all the same: unsafe: [set_cookie]" in out
    assert "live     the last answer was not stored: set-cookie (12s ago)" in out
    assert "answer   200 (the last one, which was not stored, 12s ago)" in out
    # What came before it and is still stored says less.
    control.stored = {"variants": [{**VARIANT, "since": 900.0, "fresh": False}]}
    out = (await run(*words))[1]
    assert "answer   200 (the last one, which was not stored, 12s ago)" in out
    assert "live     stored 200, 3s old" in out
    assert "         the last answer was not stored: set-cookie (12s ago)" in out
    control.stored = {"variants": [{**VARIANT, "since": 3.0}]}
    out = (await run(*words))[1]
    assert "answer   200 (the one that is stored, 3s ago)" in out
    assert "set-cookie" not in out


async def test_savings(run: Run, control: SmallControl) -> None:
    busy = {
        "at": "a.yaml:2", "requests": 2500, "passes": 500, "hits": 1500, "hit_ratio": 0.75,
        "saved_seconds": 12.345, "saved_bytes": 4096,
        "looks": 101, "changed": 1, "read": 20, "unread": 30,
        "suggestions": [{"was": "ttl: 15m", "line": "ttl: 1h", "why": "100 of 101 looks ..."}],
    }  # fmt: skip
    idle: dict[str, Any] = {
        "at": None,
        "requests": 1,
        "passes": 1,
        "hits": 0,
        "hit_ratio": None,
        "saved_seconds": 0,
        "saved_bytes": 0,
        "suggestions": [],
    }
    control.saved = {"rules": {"none": idle, "api": busy}}
    code, out = await run("savings")
    assert code == 0
    assert out.splitlines() == [
        "rule  requests  passed   hits  hit ratio  origin time saved  from cache  nothing new    unread",
        "api      2,500     500  1,500      75.0%             12.3 s     4.0 KiB   100 of 101  30 of 50",
        "none         1       1      0          -              0.0 s         0 B            -         -",
        "api (a.yaml:2): ttl: 15m -> 1h: 100 of 101 looks ...",
    ]
    assert json.loads((await run("savings", "--json"))[1]) == control.saved


async def test_savings_of_an_older_instance(run: Run, control: SmallControl) -> None:
    row: dict[str, Any] = {
        "at": None, "requests": 1, "hits": 0, "saved_seconds": 0, "saved_bytes": 0, "suggestions": [],
    }  # fmt: skip
    control.saved = {"rules": {"none": row}}
    code, out = await run("savings")
    assert code == 0
    assert out.splitlines()[1].split() == ["none", "1", "-", "0", "-", "0.0", "s", "0", "B", "-", "-"]


async def test_doctor(run: Run, control: SmallControl) -> None:
    assert await run("doctor") == (
        0, "nothing found that splits the cache for nothing (as far as traffic has shown since the start)\n"
    )  # fmt: skip
    control.found = {
        "findings": [
            {
                "rule": {"name": "api", "at": "a.yaml:2"}, "kind": "query", "names": ["ref"],
                "pairs": {"ref": 12}, "line": "key: {query: {ignore: [ref]}}",
            }
        ]
    }  # fmt: skip
    code, out = await run("doctor")
    assert code == 1
    assert out.splitlines() == [
        "api (a.yaml:2): query parameters that made no difference: ref (12 pairs)",
        "  key: {query: {ignore: [ref]}}",
    ]
    assert json.loads((await run("doctor", "--json"))[1]) == control.found


async def test_check_asks_what_was_shared(run: Run, control: SmallControl, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "rules: [{name: all, match: {path: /a}, ttl: 1m, unsafe: [authorization], key: {headers: []}}]"
    )
    control.saved = {"rules": {"all": {"authorized": 3}, "other": {}}}
    code, out = await run("check", str(tmp_path), "--strict")
    assert code == 1
    assert out.startswith(
        f"{tmp_path}/a.yaml:1: warning: all: unsafe: [authorization] gives all clients one "
    )
    assert "answer, and 3 requests" in out
