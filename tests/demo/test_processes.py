from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING

import pytest

from edgeproxy.clock import Clock
from edgeproxy.demo import processes
from edgeproxy.demo.processes import PREFERRED, Child, DemoError, Places, free_ports, running, why_not_free
from edgeproxy.settings import Address, environment

if TYPE_CHECKING:
    from collections.abc import Sequence
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
        async with running(tmp_path, environment(), Clock()):
            pass
    assert "demo origin: unable to open database file" in str(complaint.value)


@pytest.mark.long
async def test_places_that_are_given(tmp_path: Path) -> None:
    """Also what would be another one's preferred port."""
    places = Places(Address("0.0.0.0", 0), Address("127.0.0.1", free_ports([0])[0]))
    assert places.admin is not None
    async with running(tmp_path, environment(), Clock(), _rules(tmp_path), places) as both:
        assert both.admin_url == f"http://{places.admin}"
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]+", both.url)
        assert why_not_free(places.admin) == "address already in use"
    assert why_not_free(places.admin) == ""


def test_a_given_port_is_nobody_elses(tmp_path: Path) -> None:
    places = Places(admin=Address("127.0.0.1", PREFERRED[0]))
    start = processes._Start(tmp_path, {}, Clock(), places)
    listen, admin = start._free(PREFERRED[:2])
    assert admin == places.admin
    assert listen.port not in (0, PREFERRED[0])


@pytest.mark.long
async def test_a_port_taken_since_it_was_found_free_costs_one_more_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(processes, "free_ports", _Late(taken.getsockname()[1]))
        async with running(tmp_path, environment(), Clock(), rules=_rules(tmp_path)) as both:
            # The one that runs, not the one that could not.
            assert both.origin.alive()
            assert both.edge.alive()
    assert not both.origin.alive()
    assert not both.edge.alive()


class _Late:
    """free_ports as if someone took every port of the first answer to each question right after it."""

    def __init__(self, taken: int) -> None:
        self._taken = taken

    def __call__(self, preferred: Sequence[int]) -> list[int]:
        return [
            self._taken if port else found
            for port, found in zip(preferred, free_ports([0] * len(preferred)), strict=True)
        ]


def _rules(directory: Path) -> Path:
    made = directory / "rules"
    made.mkdir()
    (made / "all.yaml").write_text('rules: [{name: all, match: {path: "/**"}, ttl: 1m}]\n')
    return made


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
