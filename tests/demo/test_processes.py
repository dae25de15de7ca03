from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from edgeproxy.clock import Clock
from edgeproxy.demo.processes import Child, DemoError, free_ports, running

if TYPE_CHECKING:
    from pathlib import Path


def test_a_preferred_port_is_taken_if_it_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        ports = free_ports((free, busy, busy))
    assert ports[0] == free
    assert busy not in ports
    assert len(set(ports)) == 3


async def test_a_process_that_ends_at_start_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    # A directory where the database file should be: the origin cannot start.
    (tmp_path / "demo.sqlite").mkdir()
    with pytest.raises(DemoError, match=r"origin ended \(\d\)") as complaint:
        async with running(tmp_path, {"PYTHONPATH": "."}, Clock()):
            pass
    assert "demo origin: unable to open database file" in str(complaint.value)


async def test_what_was_started_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "sleeper.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec("sleep", "60", stdout=output)
    child = Child("sleeper", process, log)
    assert child.alive()
    assert child.tail() == "(it printed nothing)"
    await child.end(Clock())
    assert not child.alive()
    assert process.returncode == -15
