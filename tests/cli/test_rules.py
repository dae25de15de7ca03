"""``edgeproxy rules``, against a real admin port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.__main__ import main
from edgeproxy.admin.api import make_admin
from edgeproxy.admin.auth import Auth
from edgeproxy.admin.control import ReloadResult
from edgeproxy.cli.rules import caller
from tests.admin.control import SmallControl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pytest_aiohttp import AiohttpServer

    Run = Callable[..., Awaitable[int]]


@pytest.fixture
def control() -> SmallControl:
    return SmallControl()


@pytest.fixture
async def run(
    aiohttp_server: AiohttpServer, control: SmallControl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    server = await aiohttp_server(make_admin(control, Auth("secret")))
    for name in ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDGEPROXY_ADMIN", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    async def command(*words: str) -> int:
        def work() -> int:
            try:
                return main(["rules", *words])
            except SystemExit as left:
                return int(str(left.code))

        return await asyncio.to_thread(work)

    return command


async def test_changes(
    run: Run, control: SmallControl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("rules: []")
    assert await run("shadow", str(tmp_path), "--sample", "5") == 0
    assert await run("promote", "12.5") == 0
    assert await run("rollback") == 0
    assert await run("rollback", "3") == 0
    by = caller()
    assert control.rule_life.done == [
        ("shadow", [("a.yaml", b"rules: []")], 5, by),
        ("promote", 12.5, by),
        ("rollback", "", by),
        ("rollback", "3", by),
    ]
    assert capsys.readouterr().out == "rules version v2, 4 rules\n" * 4
    control.rule_life.result = ReloadResult("v1", 3, ("a.yaml:1: no",))
    assert await run("rollback", "3") == 1
    err = capsys.readouterr().err
    assert err.startswith("a.yaml:1: no\nedgeproxy: the rule files have 1 error")


async def test_what_is_told(run: Run, control: SmallControl, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"number": 9, "version": "abc", "at": 0.0, "how": "start", "by": "", "rules": 1, "source": "r"}
    control.rule_life.told = {
        "versions": [one, {**one, "number": 10, "how": "rollback", "by": "ada@h", "rules": 12}],
        "held": {"version": "abc", "instead_of": "def"},
        "candidate": {"version": "ghi", "percent": 10.0, "sample": 10, "by": ""},
    }
    assert await run("history") == 0
    assert capsys.readouterr().out.splitlines() == [
        "9   1970-01-01 00:00:00Z  start     -      1 rule    abc",
        "10  1970-01-01 00:00:00Z  rollback  ada@h  12 rules  abc  in force",
        "abc holds until the rule files are edited (def)",
        "ghi is tried: answers for 10 % of the keys",
    ]
    control.rule_life.differs = {
        "candidate": {"version": "ghi", "percent": 0, "sample": 10, "by": ""},
        "compared": 3,
        "differing": 1,
        "pairs": [
            {
                "old": {"name": "a", "at": "a.yaml:2"},
                "new": {"name": "b", "at": "b.yaml:3"},
                "requests": 1,
                "changes": [{"field": "ttl", "old": "1m", "new": "5m", "requests": 1}],
                "samples": ["GET h/\x1b[31m"],
            }
        ],
    }
    assert await run("shadow") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ghi: a shadow, without effect",
        "3 requests compared (one in 10), 1 decided otherwise",
        "a (a.yaml:2) -> b (b.yaml:3): 1 request",
        "  ttl: 1m -> 5m   (1)",
        "    GET h/ [31m",
    ]
    assert await run("shadow", "--json") == 0
    assert '"differing": 1' in capsys.readouterr().out


async def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    for words in (
        (), ("promote",), ("promote", "101"), ("promote", "many"), ("shadow", "/no/such"),
        ("shadow", str(tmp_path)), ("shadow", "--sample", "3"), ("shadow", str(tmp_path), "--sample", "0"),
    ):  # fmt: skip
        assert await run(*words) == 2, words
