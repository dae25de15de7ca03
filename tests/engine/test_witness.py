from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    import pytest


async def test_one_line_when_the_origin_fails_and_one_when_it_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = DrivenClock()
    async with LedgerOrigin(clock=clock) as origin, running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await origin.stop()
        for number in range(2):
            assert (await edge.get(f"/b{number}")).status == 502
        await origin.start()
        for number in range(3):
            assert (await edge.get(f"/c{number}")).status == 200
    lines = [r.getMessage() for r in caplog.records if r.name == "edgeproxy.origin"]
    assert len(lines) == 2
    assert lines[0].startswith("the origin fails: refused")
    assert lines[1].startswith("the origin answers again after 2 failures")
