"""Several workers of one node: one breaker's worth of failures, one watch, one budget."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.base import OriginError, Purpose
from edgeproxy.origin.board import ORIGINS, SILENT, Board
from edgeproxy.origin.breaker import State
from edgeproxy.origin.neighbours import EVERY
from edgeproxy.origin.pools import Pools
from edgeproxy.origin.turns import Turns
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.rules.load import load_text
from edgeproxy.rules.pools import Given
from tests.origin.conftest import forward, read_all, spawn
from tests.support.ledger import RST, LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.origin.member import Member
    from tests.support.driven import DrivenClock

pytestmark = pytest.mark.usefixtures("nothing_left")
LOOK = EVERY + 0.01


@contextlib.asynccontextmanager
async def workers(
    url: str, directory: Path, clock: DrivenClock, count: int, text: str = ""
) -> AsyncIterator[list[Pools]]:
    """As many as a node's, each with all of its own but the directory."""
    specs = Given((url,)).completed(load_text(text).pools if text else ())
    boards = [Board.open(str(directory), slot) for slot in range(count)]
    made = [
        Pools(specs, clock=clock, spawn=spawn, turns=Turns(str(directory)), chance=lambda: 0.0, board=board)
        for board in boards
    ]
    try:
        yield made
    finally:
        for pools, board in zip(made, boards, strict=True):
            await pools.aclose()
            board.close()


def only(pools: Pools) -> Member:
    (member,) = pools.pools["default"].members
    return member


async def failed(pools: Pools) -> OriginFailure:
    with pytest.raises(OriginError) as caught:
        await pools.fetch(forward())
    return caught.value.failure


async def test_one_opens_and_all_know(tmp_path: Path, clock: DrivenClock) -> None:
    async with LedgerOrigin() as origin, workers(origin.url, tmp_path, clock, 3) as (a, b, c):
        for pools in (a, b, c):
            await read_all(await pools.fetch(forward()))
        await origin.stop()
        for _ in range(3):  # and each of them once more
            assert await failed(a) is OriginFailure.REFUSED
        assert only(a).breaker.state is State.OPEN
        await clock.advance(LOOK)
        for pools in (b, c):
            assert await failed(pools) is OriginFailure.BREAKER_OPEN
            assert only(pools).state(clock.now()) == ("breaker open", "another worker's requests failed")
            assert only(pools).failures == 0, "it cost the origin nothing"

        # A worker that starts now knows it too.
        async with workers(origin.url, tmp_path, clock, 1) as (late,):
            await clock.advance(0)
            assert await failed(late) is OriginFailure.BREAKER_OPEN

        # The pause grows with each trial in vain. One of them finds it back all the same; whoever has a
        # request then makes the trial, and all are closed with it.
        for pools, pause in ((b, 1.1), (c, 2.1), (a, 4.1)):
            await clock.advance(pause)
            assert await failed(pools) is OriginFailure.REFUSED

        await origin.start()
        connections = origin.connections
        await clock.advance(1.01)
        await origin.connections_are(1)
        await clock.advance(1.01 + LOOK)
        assert origin.connections - connections == 1, "one watch for the node"
        assert await read_all(await c.fetch(forward())) == origin.stamp("/a", 1)
        await clock.advance(LOOK)
        assert [only(pools).breaker.state for pools in (a, b, c)] == [State.CLOSED] * 3


async def test_a_trial_in_vain_postpones_everybodys(tmp_path: Path, clock: DrivenClock) -> None:
    """An origin that takes connections and breaks them: one trial for each pause, not one for each worker."""
    text = """
pools:
  default: {breaker: {requests: 4}, retries: {attempts: 0}, fallback: other}
  other: {origins: ["http://127.0.0.1:1"], breaker: {connects: 1}}
"""
    async with LedgerOrigin() as origin, workers(origin.url, tmp_path, clock, 4, text) as four:
        origin.script("/a", [RST])
        for _ in range(4):
            await failed(four[0])
        before = origin.count("/a")
        for _ in range(160):
            for pools in four:
                await failed(pools)
            await clock.advance(0.1)
        assert 3 <= origin.count("/a") - before <= 16, "not even one a second"


async def test_one_budget(tmp_path: Path, clock: DrivenClock) -> None:
    """Three besides a fifth of what clients ask: of the node, not of each worker."""
    async with LedgerOrigin() as origin, workers(origin.url, tmp_path, clock, 2) as (a, b):
        origin.script("/a", [RST])
        refresh = forward(purpose=Purpose.REFRESH)
        came = []
        for pools in (a, b, a, b, a, b):
            with pytest.raises(OriginError) as caught:
                await pools.fetch(refresh)
            came.append(caught.value.failure)
        assert came.count(OriginFailure.RESET) <= 3
        assert came[-1] is OriginFailure.YIELDED
        assert origin.count("/a") <= 3
        await clock.advance(20)  # long ago by now
        with pytest.raises(OriginError) as caught:
            await b.fetch(refresh)
        assert caught.value.failure is OriginFailure.RESET


def test_a_board_that_is_full_leaves_the_others_alone(tmp_path: Path) -> None:
    one, other = Board.open(str(tmp_path), 0), Board.open(str(tmp_path), 1)
    for n in range(ORIGINS):
        assert one.tell(f"pool http://{n}", is_open=True, connect=n % 2 == 0, until=float(n))
    said = other.read("pool http://7")
    assert said is not None
    assert (said.open, said.connect, said.until) == (True, False, 7.0)
    assert other.read("pool http://more") is None
    assert not other.tell("pool http://more", is_open=True, connect=True, until=1.0)
    other.spent("pool http://more", 1.0, 1, 1)
    assert one.others_spent("pool http://more", 1.0) == (0, 0)
    one.spent("pool http://7", 100.0, 2, 30)
    assert other.others_spent("pool http://7", 105.0) == (2, 30)
    assert one.others_spent("pool http://7", 105.0) == (0, 0)
    assert other.others_spent("pool http://7", 110.0) == (0, 0), "as old as the window"
    one.close()
    other.close()


def test_a_row_of_an_origin_that_is_gone_is_found_room_in(tmp_path: Path) -> None:
    one, other = Board.open(str(tmp_path), 0), Board.open(str(tmp_path), 1)
    for n in range(ORIGINS):
        one.spent(f"pool http://{n}", 10_000.0 + n, 1, 10)
    one.spent("pool http://3", 10_000.0 + SILENT, 1, 10)  # all others may be gone
    assert other.others_spent("pool http://0", 10_001.0) == (1, 10)
    assert other.read("pool http://new") is None
    number = other.tell("pool http://new", is_open=True, connect=False, until=10_700.0)
    assert number
    said = one.read("pool http://new")
    assert said is not None
    assert (said.number, said.open, said.until) == (number, True, 10_700.0)
    for board in (one, other):
        assert board.others_spent("pool http://0", 10_001.0) == (0, 0), "the oldest had to go"
    assert other.others_spent("pool http://3", 10_000.0 + SILENT) == (1, 10)
    one.close()
    other.close()
