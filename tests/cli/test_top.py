"""``top`` against a real worker; its screen, and what it does when the server goes away."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import pty
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from edgeproxy.cli import top
from edgeproxy.cli.top_text import latency, screen, span
from tests.admin.shop import open_shop
from tests.support.origins import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def command(*words: str) -> int:
    """Parse and run, in a thread: the command blocks."""
    parser = argparse.ArgumentParser(prog="edgeproxy")
    top.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["top", *words])
    code: int = await asyncio.to_thread(args.run, args)
    return code


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    """A shop that has been visited, by the address of its admin port."""
    async with open_shop(directory) as shop:
        await shop.visit(2, 12)
        yield f"127.0.0.1:{shop.edge.worker.admin_port}"


async def test_once_prints_all_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(tmp_path) as admin:
        assert await command("--once", "--admin", admin) == 0
        out = capsys.readouterr().out
        assert await command("--once", "--json", "--window", "1m", "--admin", admin) == 0
        told = json.loads(capsys.readouterr().out)
    assert told["window"] == "1m"
    for row in (*told["rules"], {**told["all"], "name": "all"}):
        (line,) = [line for line in out.splitlines() if line.startswith(f"{row['name']} ")]
        assert line.split()[1] == f"{row['requests']:,}"
    assert "edgeproxy 0." in out
    assert "ready" in out
    assert "default: http://127.0.0.1" in out
    assert "GET shop.example/api/live/broken" in out
    assert "set-cookie" not in out
    assert max(map(len, out.splitlines())) <= top.WIDTH
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--admin", "127.0.0.1:1", "--once"), 1, "no answer from the admin port"),
        (("--json",), 2, "--json goes with --once"),
        (("--every", "0"), 2, "expected 0.2 to 3600"),
        (("--every", "often"), 2, "expected 0.2 to 3600"),
        ((), 2, "this is no terminal"),
    ],
)
async def test_what_cannot_be_shown_is_one_line(
    words: tuple[str, ...], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(*words) == code
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1


async def test_it_follows_in_a_terminal_until_ctrl_c(tmp_path: Path) -> None:
    async with serving(tmp_path) as admin:
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeproxy", "top", "--admin", admin, "--every", "0.2",
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
            env={"PATH": os.defpath, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            # Tests that run in the background of a shell ignore interrupts, and so would this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        os.close(theirs)
        try:
            seen = b""
            while seen.count(b"most wanted") < 3:  # it looks again and again
                seen += await asyncio.to_thread(os.read, ours, 65536)
            process.send_signal(2)
            # A terminal is read to its end: one that is full holds the process that writes into it.
            with contextlib.suppress(OSError):  # EIO: the process has closed it
                while await asyncio.to_thread(os.read, ours, 65536):
                    pass
            assert await asyncio.wait_for(process.wait(), 10) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(ours)


def shown(told: dict[str, Any], **more: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(screen(told, **more))
    return out.getvalue()


ROW = {
    "requests": 0, "hits": 0, "passes": 0, "errors": 0, "bytes": 0, "saved_seconds": 0.0, "hit_ratio": None,
    "p50": None, "p95": None, "p99": None,
}  # fmt: skip
NOTHING: dict[str, Any] = {
    "now": 100.0, "step": 5, "window": "5m", "window_seconds": 300.0, "history": [], "all": ROW, "rules": [],
    "wanted": [], "troubles": [], "origins": [],
}  # fmt: skip


def test_what_a_client_sent_is_plain_text() -> None:
    bad = {"name": "[red]\x1b[31mx", **ROW, "requests": 1}
    out = shown(
        {**NOTHING, "rules": [bad], "wanted": [{"url": "http://h/[b]\x07", "rule": "r", "weight": 1}]}
    )
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]" in out
    assert "http://h/[b]" in out


def test_nothing_yet_and_no_answer_any_more() -> None:
    assert "all" in shown(NOTHING)
    assert "no answer; is it running?" in shown(NOTHING, wrong="no answer; is it running?")


def test_the_order_is_as_asked_for() -> None:
    ratios = {"a": 0.5, "b": None, "c": 0.9}
    rules = [{**ROW, "name": name, "requests": 1, "hit_ratio": ratio} for name, ratio in ratios.items()]
    for sort, order in (("name", "abc"), ("hit_ratio", "cab")):
        lines = shown({**NOTHING, "rules": rules}, sort=sort).splitlines()
        assert "".join(line[0] for line in lines if line[1:2] == " ") == order


@pytest.mark.parametrize(
    ("told", "expected"),
    [(None, "-"), (1e-5, "10 µs"), (0.042, "42 ms"), (0.94, "940 ms"), (2.5, "2.5 s")],
)
def test_latency(told: float | None, expected: str) -> None:
    assert latency(told) == expected


@pytest.mark.parametrize(
    ("told", "expected"), [(None, "-"), (0.5, "0.5 s"), (93784, "1 d 2 h"), (61, "1 min 1 s")]
)
def test_span(told: float | None, expected: str) -> None:
    assert span(told) == expected
