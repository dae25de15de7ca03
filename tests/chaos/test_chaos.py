"""The chaos itself, for most of a minute; and that its ledger finds what may not be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.chaos.__main__ import problems, told
from tests.chaos.flat import trend
from tests.chaos.ledger import Account, Ledger
from tests.chaos.run import Chaos, Report
from tests.support.servers import redis_binary

if TYPE_CHECKING:
    from pathlib import Path

KEY = "/items/0/0"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(fresh=3.0, calm=1.0)


def test_an_answer_older_than_a_purge_that_had_returned_is_found(ledger: Ledger) -> None:
    ledger.changed(1.0, 1.1, {KEY: 2}, complete=True)
    floor = ledger.floor(KEY)
    ledger.answered("here", KEY, 2, floor)
    ledger.answered("here", KEY, 3, floor)
    assert problems(Report(ledger, 5.0)) == []
    ledger.answered("here", KEY, 1, floor)
    assert problems(Report(ledger, 5.0)) == [f"stale: here: {KEY} version 1, but 2 had been purged for"]


def test_what_said_itself_that_it_was_not_complete_binds_nobody(ledger: Ledger) -> None:
    ledger.changed(1.0, 1.1, {KEY: 2}, complete=False)
    assert (ledger.floor(KEY), ledger.incomplete, ledger.receipts) == (0, 1, [])


def test_only_connections_of_killed_processes_may_fail(ledger: Ledger) -> None:
    ledger.failed_on("a", "GET", alive=1.0, now=2.0)
    assert len(ledger.failed) == 1
    ledger.broke(3.0, "a")
    ledger.failed_on("a", "GET", alive=2.9, now=3.1)
    assert (len(ledger.failed), ledger.excused) == (1, 1)
    ledger.failed_on("a", "GET", alive=3.1, now=4.0)  # it has answered since the kill
    ledger.failed_on("b", "GET", alive=2.9, now=3.1)  # another node's
    assert len(ledger.failed) == 3


def test_a_second_fetch_while_the_first_is_fresh_is_found(ledger: Ledger) -> None:
    ledger.fetched(KEY, 1, 1.0)
    ledger.fetched(KEY, 1, 4.5)  # expired
    ledger.fetched(KEY, 2, 5.0)  # another version
    ledger.fetched(KEY, 2, 5.3)  # purged in between, by a purge that has not returned yet
    ledger.changed(5.1, 5.6, {KEY: 2}, complete=True)
    assert ledger.account() == Account(0, 0, 0, ())
    ledger.fetched(KEY, 2, 5.9)
    ledger.fetched(KEY, 2, 7.6)
    assert [str(each) for each in ledger.account().unexcused] == [
        f"{KEY} version 2 at 7.600, and 1.700 s before"
    ]
    assert len(problems(Report(ledger, 5.0))) == 1


def test_a_kill_may_cost_one_fetch_of_what_had_been_asked_for_just_before(ledger: Ledger) -> None:
    ledger.fetched(KEY, 1, 10.0)
    ledger.fetched("/items/0/1", 1, 10.0)
    ledger.fetched("/items/0/2", 1, 4.0)  # long written
    ledger.broke(10.1, "a")
    ledger.fetched(KEY, 1, 10.5)
    assert ledger.account() == Account(1, 2, 0, ())
    ledger.fetched(KEY, 1, 11.0)  # one, not two
    ledger.fetched("/items/0/2", 1, 6.5)
    account = ledger.account()
    assert (account.killed, [each.at for each in account.unexcused]) == (1, [11.0, 6.5])


def test_while_redis_is_away_each_fetches_for_itself(ledger: Ledger) -> None:
    ledger.fetched(KEY, 1, 10.0)
    ledger.fetched(KEY, 1, 11.0)
    ledger.fetched(KEY, 1, 13.5)
    ledger.away(10.5, 12.0)  # and until all are back, which takes as long as a calm
    assert (ledger.account().apart, ledger.account().unexcused) == (2, ())
    ledger.fetched(KEY, 1, 14.0)
    assert [each.at for each in ledger.account().unexcused] == [14.0]


def test_what_grows_is_found_and_jumps_are_not() -> None:
    jumps = [(5.0 * n, 50.0 + (30.0 if n % 7 == 0 else n % 3)) for n in range(300)]
    found = trend(jumps, 1.0)
    assert found is not None
    assert found.flat
    assert found.middle == 51.0
    grows = [(second, value + second / 100) for second, value in jumps]
    found = trend(grows, 1.0)
    assert found is not None
    assert not found.flat
    assert found.per_hour == pytest.approx(36.0, rel=0.1)
    warming = [(5.0 * n, float(min(n, 60))) for n in range(300)]
    found = trend(warming, 1.0)
    assert found is not None
    assert found.flat, "the first quarter is warm-up"
    assert trend(jumps[:20], 1.0) is None
    much = [(second, value + second / 50) for second, value in jumps]
    report = Report(Ledger(fresh=1, calm=1), 601.0, memory=much, descriptors=jumps, tasks=jumps)
    assert problems(report) == ["memory: not flat"]
    assert "slope +72" in told(report)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.xdist_group("chaos")
async def test_nothing_old_and_nothing_lost_whatever_breaks(tmp_path: Path) -> None:
    """A failure prints the seed first, for ``python -m tests.chaos --seed``."""
    if redis_binary() is None:
        pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
    seed = int.from_bytes(os.urandom(4))
    said = [f"seed {seed}"]
    chaos = Chaos(tmp_path, seed, nodes=2, workers=2, say=said.append)
    report = await chaos.run(30.0, calm=5.0)
    ledger = report.ledger
    story = "\n".join([*said, told(report), *problems(report)])
    assert problems(report) == [], story
    assert ledger.answers > 500, story
    assert ledger.changes - ledger.incomplete > 20, story
