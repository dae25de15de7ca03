"""Our own conformance cases: data in ``cases/``, one file for each RFC; cases.py says what they can say."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.conformance.cases import Said, Stage, load
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CASES: list[Any] = [
    pytest.param(
        case,
        id=name,
        marks=[pytest.mark.xfail(reason=case["known"], raises=AssertionError)] if "known" in case else [],
    )
    for name, case in load()
]
_hosts = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[tuple[LedgerOrigin, Edge]]:
    clock = DrivenClock()
    async with LedgerOrigin(clock=clock) as origin, running_edge(origin.url, clock=clock) as edge:
        yield origin, edge


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES)
async def test_case(case: Said, shared: tuple[LedgerOrigin, Edge], tmp_path: Path) -> None:
    host = f"case{next(_hosts)}.test"
    if not case.get("apart") and "rules" not in case:
        origin, edge = shared
        origin.forget()
        await Stage(edge.clock, origin, edge, host).play(case)
        return
    clock, rules = DrivenClock(), None
    if "rules" in case:
        rules = tmp_path
        (rules / "rules.yaml").write_text(case["rules"])
    async with (
        LedgerOrigin(clock=clock) as origin,
        running_edge(origin.url, clock=clock, rules=rules) as edge,
    ):
        await Stage(clock, origin, edge, host).play(case)
