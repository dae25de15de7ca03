"""``edgeproxy demo`` as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeproxy.clock import Clock
from edgeproxy.demo.tour import STEPS, tour
from edgeproxy.settings import environment
from tests.support.origins import ROOT, request

if TYPE_CHECKING:
    from pathlib import Path

# The demo prefers fixed ports: one at a time, so that each test run sees the same.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("demo")]

COMMAND = [sys.executable, "-u", "-m", "edgeproxy", "demo"]


def test_the_tour_shows_what_it_should() -> None:
    done = subprocess.run(
        [*COMMAND, "--once"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for title, _ in STEPS:
        assert f"\n{title}\n" in done.stdout
    assert f"All {len(STEPS)} steps showed what they should." in done.stdout


async def test_a_step_that_does_not_show_what_it_should_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without the shipped rules search has no lifetime: nothing is stored, so 50 clients are 50 requests.
    assert await tour(environment(), tmp_path, Clock()) == 1
    printed = capsys.readouterr().out
    assert "NOT AS IT SHOULD BE: requests at the origin: expected 1, saw 50" in printed
    assert "Not as it should be: 50 clients, one fetch." in printed


def test_by_hand_it_runs_until_ctrl_c() -> None:
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        printed = "".join(lines)
        ports = [int(port) for port in re.findall(r"^\S.*http://127\.0\.0\.1:(\d+)$", printed, re.MULTILINE)]
        assert len(ports) == 3, printed
        client_port, admin_port, origin_port = ports
        words = [request(client_port, "GET", "/api/pitches/2").get("X-Cache-Status") for _ in range(2)]
        assert words == ["MISS", "HIT"]
        assert request(admin_port, "GET", "/readyz").status == 200
        # As a terminal does it: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, ""), rest
        for port in (client_port, admin_port, origin_port):
            with pytest.raises(ConnectionRefusedError):
                request(port, "GET", "/")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
