"""Answers on the wire: what is not one answer is 502, stored by nobody, and its connection's last. The cases:
cases/answers.yaml.

Rules of this file:

- Each case goes three ways: to a plain GET (short.py), to one that takes a task (handler.py), to a POST.
- Behind each case another URL is asked for: it gets its own answer, and where the case was not one answer, on
  another connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.hardening.cases import answers
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import FIN, READ_BODY, LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.hardening.cases import AnswerCase
    from tests.support.ledger import Step
    from tests.support.rawclient import RawClient

CASES = answers()
WAYS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "short": ("GET", []),
    "task": ("GET", [("TE", "trailers")]),
    "passed": ("POST", []),
}
_numbers = count()


@dataclass
class Stand:
    origin: LedgerOrigin
    edge: Edge
    client: RawClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with (
        LedgerOrigin() as origin,
        running_edge(origin.url, clock=DrivenClock()) as edge,
        edge.client() as client,
    ):
        yield Stand(origin, edge, client)


async def play(stand: Stand, case: AnswerCase, way: str) -> None:
    origin, edge = stand.origin, stand.edge
    origin.forget()
    number = next(_numbers)
    method, fields = WAYS[way]
    steps: list[Step] = [READ_BODY, case.sends]
    if case.fin:
        steps.append(FIN)
    origin.script(f"/case{number}", steps, times=1)
    async with edge.client() as client:
        answer = await client.request(method, f"/case{number}", fields)
    if case.cut:
        assert answer.status == 502 or not answer.complete, answer
    elif case.refused and answer.status == 502:
        assert answer.complete
    else:
        assert case.gets is not None, f"answered {answer.status} {answer.body!r}"
        assert (answer.status, answer.body, answer.complete) == (200, case.gets, True)
    whole = answer.status == 200 and answer.complete
    first = origin.requests[0].connection
    other = await stand.client.get(f"/other{number}")
    assert other.body == f"/other{number} version 1\n".encode(), other
    again = origin.requests[-1].connection == first
    assert again is case.reused, "reused" if again else "not reused"
    if method == "GET":
        later = await stand.client.get(f"/case{number}")
        if whole:
            assert later["X-Cache-Status"] == "HIT"
        else:
            assert later.body == f"/case{number} version 1\n".encode(), "stored"
    assert not any(asked.target == "/smuggled" for asked in origin.requests)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_answer(stand: Stand, name: str) -> None:
    wrong = []
    for case in CASES[name]:
        for way in WAYS:
            try:
                await play(stand, case, way)
            except (AssertionError, ConnectionError) as error:
                wrong.append(f"{case} ({way}): {error}"[:300])
    assert not wrong, "\n".join(wrong)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_stored_outlives_what_is_no_answer(stand: Stand) -> None:
    """Stale for all of them, and after them the origin's word counts again."""
    clock = stand.edge.clock
    for cases in CASES.values():
        case = cases[0]
        if not case.refused:
            continue
        stand.origin.forget()
        path = f"/kept{next(_numbers)}"
        stand.origin.reply(path, headers=[("Cache-Control", "max-age=60, stale-if-error=600")], times=1)
        stand.origin.script(path, [case.sends, FIN], times=1)
        assert (await stand.edge.get(path)).status == 200
        await clock.advance(61)
        stale = await stand.edge.get(path)
        assert (stale.status, stale["X-Cache-Status"]) == (200, "STALE"), case
        stand.origin.bump(path)
        await clock.advance(30)
        assert (await stand.edge.get(path)).body == stand.origin.stamp(path, 2), case
