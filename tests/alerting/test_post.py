"""What receivers get: a real HTTP server, a real file, standard error; and those that do not take it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.alerting.escalation import Kind, Notice
from edgeproxy.alerting.message import Message, composed, trial
from edgeproxy.alerting.plan import Plan, PlanError, Receiver
from edgeproxy.alerting.post import Post, Said, posts
from tests.alerting.made import episode
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from pathlib import Path

AT = 1_700_000_000.0
MESSAGE = trial("node", AT)


def post(*urls: str) -> Post:
    return posts(Plan((Receiver("team", urls),)))["team"]


async def sent(to: Post, message: Message = MESSAGE) -> Said:
    async with asyncio.timeout(20):
        return await to.send(message)


async def test_a_receiver_over_http() -> None:
    fires = episode("Out", "critical", fired=AT - 300)
    over = episode("Slow", fired=AT - 4000)
    over.over = AT
    notices = [Notice(Kind.GOES_ON, fires, 300.0), Notice(Kind.OVER, over, 0.0)]
    async with LedgerOrigin() as receiver:
        said = await sent(post(f"json://{receiver.authority}/hook"), composed(notices, "node", AT))
        assert said == Said(ok=True)
        (got,) = receiver.of("/hook")
    told: dict[str, Any] = json.loads(got.body)
    assert told["title"] == "edgeproxy node: 1 critical, 1 resolved"
    assert told["type"] == "failure"
    assert told["message"] == (
        "Critical: node: a takes 2s\nOut. For 5 min, since 2023-11-14 22:07:20Z.\nedgeproxy stats\n\n"
        "Resolved after 1 h 7 min: node: a takes 2s"
    )


async def test_a_file_and_the_console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alerts here.jsonl"
    message = composed([Notice(Kind.FIRING, episode(fired=AT), 0.0)], "node", AT)
    assert await sent(post(f"file:{path}", "console:"), message) == Said(ok=True)
    assert await sent(post(f"file://{str(path).replace(' ', '%20')}"), MESSAGE) == Said(ok=True)
    first, second = path.read_text().splitlines()
    assert json.loads(first) == {
        "at": "2023-11-14 22:13:20Z", "kind": "firing", "instance": "node", "alert": "Slow",
        "severity": "warning", "rule": "", "labels": {"origin": "a"}, "summary": "node: a takes 2s",
        "for": 0.0, "since": "2023-11-14 22:12:20Z",
    }  # fmt: skip
    assert json.loads(second)["kind"] == "test"
    assert first in capfd.readouterr().err.splitlines()


async def test_what_is_not_taken_is_said_without_the_url(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with LedgerOrigin() as receiver:
        receiver.reply("/secret-token", status=403, body=b"secret-token is not known")
        url = f"json://user:password@{receiver.authority}/secret-token"
        said = await sent(post(url))
        assert receiver.count("/secret-token") == 1
        # of several ways each is tried
        assert not (await sent(post(url, f"file:{tmp_path / 'x'}"))).ok
        assert (tmp_path / "x").exists()
    assert not said.ok
    assert "403" in said.why
    nobody = await sent(post(url))
    assert not nobody.ok
    assert nobody.why
    assert await sent(post(f"file:{tmp_path}")) == Said(ok=False, why="Is a directory")
    for told in (said.why, nobody.why, caplog.text, repr(post(url))):
        assert "secret-token" not in told
        assert "password" not in told


async def test_one_that_hangs_holds_nobody_else(tmp_path: Path) -> None:
    async with LedgerOrigin() as receiver:
        receiver.reply("/hook", gate="slow")
        slow, other = post(f"json://{receiver.authority}/hook?rto=30"), post(f"file:{tmp_path / 'x'}")
        waiting = slow.send(MESSAGE)
        await receiver.arrived("/hook")
        assert slow.busy
        assert await sent(other) == Said(ok=True)
        assert not waiting.done()
        receiver.gate("slow").open()
        async with asyncio.timeout(20):
            assert await waiting == Said(ok=True)
        assert not slow.busy


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nosuch://TOKEN", "nosuch: is no URL that Apprise can use"),
        ("slack://TOKEN", "slack: is no URL that Apprise can use"),
        ("mailto://", "mailto: is no URL"),
        ("file:", "expected file:PATH"),
    ],
)
def test_what_apprise_does_not_know_is_refused_at_the_start(url: str, why: str) -> None:
    with pytest.raises(PlanError, match=f"receiver team: {why}") as refused:
        post(url)
    assert "TOKEN" not in str(refused.value)


def test_without_apprise_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert post("console:").kinds == ("console",)
    with pytest.raises(PlanError, match=r"pip install 'edgeproxy\[alerts\]'"):
        post("slack://TOKEN")
