"""Alerts of a running edge: an origin that is killed and comes back, receivers that hang and fail."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.__main__ import main
from edgeproxy.alerting.watch import PATIENCE, Watch
from edgeproxy.settings import SettingsError
from tests.alerting.made import plan
from tests.support.driven import DrivenClock
from tests.support.edge import TOKEN, running_edge
from tests.support.leaks import no_leaks
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.edge import Edge

STEP = 15.0


@asynccontextmanager
async def watched(
    tmp_path: Path, receivers: str, origin: LedgerOrigin, more: str = ""
) -> AsyncIterator[Edge]:
    """An edge that watches, with these receivers."""
    path = tmp_path / "alerts.yaml"
    path.write_text(f"receivers: {receivers}\n{more}")
    async with running_edge(origin.url, alerts=path) as edge:
        yield edge


async def passed(edge: Edge, seconds: float, *, each: Callable[[], Any] | None = None) -> None:
    """So much time, look by look; before each of them ``each``."""
    for _ in range(int(seconds // STEP)):
        if each is not None:
            await each()
        await edge.clock.advance(STEP)
        await edge.worker.background.settle("look for alerts")


async def told(edge: Edge) -> None:
    """Until the receivers have said something."""
    async with asyncio.timeout(20):
        await edge.worker.background.settle("notice to ")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def numbers(edge: Edge) -> dict[str, int]:
    watch = edge.worker.alerts
    assert watch is not None
    return dict(watch.numbers())


async def test_an_origin_is_killed_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgeproxy.alerts")
    kept = tmp_path / "kept.jsonl"
    steps = "steps: [{after: 0s, tell: [log]}, {after: 5m, tell: [hook, log]}]"
    async with no_leaks(), LedgerOrigin() as origin, LedgerOrigin() as receiver:
        receivers = f"{{hook: 'json://{receiver.authority}/hook', log: 'file:{kept}'}}"
        async with watched(tmp_path, receivers, origin, steps) as edge:

            async def ask() -> None:
                await edge.get("/a")

            await ask()
            await passed(edge, 300)
            assert lines(kept) == []
            await origin.stop()
            for _ in range(6):
                await ask()
            await passed(edge, 60)
            assert lines(kept) == []  # it has to last a minute
            await passed(edge, 30)
            await told(edge)
            (first,) = lines(kept)
            assert (first["kind"], first["alert"]) == ("firing", "EdgeproxyOriginLeftAlone")
            assert (first["severity"], first["labels"]["origin"]) == ("critical", origin.url)
            assert f"no worker may ask {origin.url}" in first["summary"]
            assert receiver.requests == []
            assert numbers(edge)["firing"] == 1
            assert f"EdgeproxyOriginLeftAlone: {first['summary']}" in caplog.text

            await passed(edge, 300)
            await told(edge)
            assert [line["kind"] for line in lines(kept)] == ["firing", "still firing"]
            (escalated,) = receiver.of("/hook")
            assert "EdgeproxyOriginLeftAlone" in json.loads(escalated.body)["message"]
            await passed(edge, 900)
            assert len(lines(kept)) == 2  # and no word more
            await told(edge)

            await origin.start()
            await passed(edge, 150, each=ask)
            await told(edge)
            assert [line["kind"] for line in lines(kept)] == ["firing", "still firing", "resolved"]
            assert json.loads(receiver.of("/hook")[1].body)["type"] == "success"
            assert len(receiver.requests) == 2
            assert numbers(edge) == {
                "firing": 0, "notices": 5, "notices_failed": 0, "readings_failed": 0,
            }  # fmt: skip
            assert "EdgeproxyOriginLeftAlone is over" in caplog.text
            metrics = (await edge.worker.operator.metrics()).decode()
            assert "\nedgeproxy_alerts_notices_total 5.0\n" in metrics


async def test_a_receiver_that_hangs_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "kept.jsonl"
    async with no_leaks(), LedgerOrigin() as origin, LedgerOrigin() as receiver:
        receiver.reply("/hook", gate="slow", times=1)
        receivers = f"{{hook: 'json://{receiver.authority}/hook?rto=60', log: 'file:{kept}'}}"
        async with watched(tmp_path, receivers, origin) as edge:
            edge.worker.metrics.last_reload_ok = False
            await passed(edge, STEP)
            await receiver.arrived("/hook")
            assert (await edge.get("/a")).status == 200
            edge.worker.metrics.last_reload_ok = True
            await passed(edge, PATIENCE)
            await edge.worker.background.settle("notice to log")
            assert numbers(edge)["notices_failed"] == 1
            assert "receiver hook has not answered for 30 s" in caplog.text
            await passed(edge, 60)  # it is over, and hook is still silent
            await edge.worker.background.settle("notice to log")
            assert [(line["kind"], line["alert"]) for line in lines(kept)] == [
                ("firing", "EdgeproxyReloadRefused"), ("firing", "EdgeproxyNoticesFailing"),
                ("resolved", "EdgeproxyReloadRefused"),
            ]  # fmt: skip
            assert receiver.count("/hook") == 1
            receiver.gate("slow").open()
            await told(edge)
            await passed(edge, STEP)
            await told(edge)
            title = json.loads(receiver.of("/hook")[1].body)["title"]
            assert title.endswith(": 1 warning, 1 resolved")
            assert numbers(edge)["notices"] == 6
            assert (await edge.get("/a")).status == 200


async def test_a_receiver_that_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with LedgerOrigin() as origin, LedgerOrigin() as receiver:
        receiver.reply("/secret-path", status=500, times=2)
        receivers = f"{{hook: 'json://{receiver.authority}/secret-path'}}"
        async with watched(tmp_path, receivers, origin) as edge:
            edge.worker.metrics.last_reload_ok = False
            for tries, seconds in ((1, STEP), (2, STEP), (3, 2 * STEP)):
                await passed(edge, seconds)
                await told(edge)
                assert receiver.count("/secret-path") == tries
            assert json.loads(receiver.requests[2].body)["title"].endswith(": 2 warnings")
            assert numbers(edge) == {
                "firing": 2, "notices": 2, "notices_failed": 2, "readings_failed": 0,
            }  # fmt: skip
            assert "receiver hook was not told of alerts" in caplog.text
            assert "secret-path" not in caplog.text
            await passed(edge, STEP)
            await told(edge)
            assert receiver.count("/secret-path") == 3


async def test_figures_that_cannot_be_had_are_told(caplog: pytest.LogCaptureFixture) -> None:
    class Silent:
        async def metrics(self) -> bytes:
            raise OSError("no worker answers")

    clock = DrivenClock()
    tasks: list[asyncio.Task[None]] = []
    watch = Watch(plan(), {}, Silent(), clock, lambda work, _: tasks.append(_started(work)), "node")
    watch.start()
    await clock.advance(2 * STEP)
    assert watch.numbers()["readings_failed"] == 2
    assert "no alert is watched now" in caplog.text
    watch.close()
    await clock.advance(STEP)
    assert len(tasks) == 2


def _started(work: Any) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def test_the_command_and_the_api(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", TOKEN)
    kept = tmp_path / "kept.jsonl"
    async with LedgerOrigin() as origin, LedgerOrigin() as receiver:
        receiver.reply("/secret-path", status=500)
        receivers = f"{{hook: 'json://{receiver.authority}/secret-path', log: 'file:{kept}'}}"
        async with watched(tmp_path, receivers, origin) as edge:

            async def command(*words: str) -> tuple[int, str]:
                admin = ("--admin", f"127.0.0.1:{edge.worker.admin_port}")
                code = await asyncio.to_thread(main, ["alerts", *words, *admin])
                printed = capsys.readouterr()
                return code, printed.out + printed.err

            code, out = await command()
            assert (code, out.splitlines()[0]) == (0, "nothing has been looked at yet")
            code, out = await command("test")
            assert code == 1
            hook, log = out.splitlines()
            assert hook.startswith("hook (json): failed: ")
            assert log == "log (file): taken"
            assert lines(kept)[0]["kind"] == "test"
            receiver.reply("/secret-path")
            code, out = await command("test", "--json")
            assert (code, [each["ok"] for each in json.loads(out)["receivers"]]) == (0, [True, True])

            edge.worker.metrics.last_reload_ok = False
            await passed(edge, STEP)
            await told(edge)
            code, out = await command()
            assert code == 1
            assert out.startswith("warning: EdgeproxyReloadRefused, for 0 s\n  ")
            assert "receiver hook (json): told 0 s ago\n" in out
            assert "  edgeproxy check DIR names file and line." in out
            await edge.clock.advance(10)
            edge.worker.metrics.last_reload_ok = True
            await passed(edge, 75)
            code, out = await command()
            assert (code, out.splitlines()[0]) == (0, "nothing fires")
            assert "over: EdgeproxyReloadRefused (warning), lasted 1 min, " in out
            code, out = await command("--json")
            assert (code, json.loads(out)["interval"]) == (0, 15)
            assert "secret-path" not in out


async def test_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", TOKEN)
    async with LedgerOrigin() as origin, running_edge(origin.url) as edge:
        assert edge.worker.alerts is None
        assert edge.clock.pending == ()
        admin = ["--admin", f"127.0.0.1:{edge.worker.admin_port}"]
        for words in (["alerts"], ["alerts", "test"]):
            assert await asyncio.to_thread(main, [*words, *admin]) == 1
            assert "serve --alerts FILE" in capsys.readouterr().err
    async with LedgerOrigin() as origin, running_edge(origin.url, alerts="on") as edge:
        admin = ["--admin", f"127.0.0.1:{edge.worker.admin_port}"]
        assert await asyncio.to_thread(main, ["alerts", "test", *admin]) == 1
        assert "there are no receivers" in capsys.readouterr().out


async def test_what_is_wrong_with_the_file_ends_the_start(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text("receivers: {chat: 'slack://TOKEN'}")
    with pytest.raises(SettingsError, match=r"^--alerts: receiver chat: slack: is no URL") as refused:
        async with running_edge("http://127.0.0.1:9", alerts=path):
            pass
    assert "TOKEN" not in str(refused.value)
