"""The tour's steps that show what others cannot check for them: how many waited, and which coding came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from edgeproxy.clock import Clock
from edgeproxy.demo.probe import Probe, Seen
from edgeproxy.demo.processes import running
from edgeproxy.demo.tour import CLIENTS, MOST, coalesced, compressed, is_collapsed, print_seen
from edgeproxy.settings import environment
from tests.support.origins import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("told", "holds"),
    [
        ('edgeproxy; fwd=uri-miss; fwd-status=200; ttl=300; stored; rule="search"', False),
        ('edgeproxy; fwd=uri-miss; collapsed; ttl=300; rule="search"', True),
        ('edgeproxy; hit; ttl=300; rule="search"', False),
        ('edgeproxy; hit; rule="collapsed"', False),
    ],
)
def test_who_waited_is_read_from_cache_status(told: str, holds: bool) -> None:
    fields = CIMultiDictProxy(CIMultiDict({"Cache-Status": told}))
    assert is_collapsed(Seen("GET /", 200, fields, b"", 0.0)) is holds


# It takes the fixed ports where it can: not beside others that say who has them.
@pytest.mark.xdist_group("demo")
async def test_most_clients_wait_for_one_fetch_and_the_coding_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Seen] = []
    clock = Clock()
    async with running(tmp_path, environment(), clock, ROOT / "rules") as both, Probe(both, clock) as probe:
        told = await coalesced(probe, seen.append)
        await compressed(probe, print_seen)
    assert is_collapsed(seen[0])
    waited = int(told.partition("): ")[2].split()[0])
    assert MOST <= waited < CLIENTS
    assert "Content-Encoding: br\n" in capsys.readouterr().out
