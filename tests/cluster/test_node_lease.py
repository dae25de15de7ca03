"""The lease that workers of a node take before they ask the origin: two of them in one process, as two would
be, and one in a process that is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeproxy.cluster.base import LOOK, UNCACHEABLE, End, Ended
from edgeproxy.cluster.lease import LONGEST_PAUSE, NodeLeases, Notes, number_of
from edgeproxy.cluster.region import Region
from edgeproxy.policy.vocabulary import OriginFailure
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FAILED = Ended(End.FAILED, OriginFailure.REFUSED, 502)


class Pair:
    """Two workers' leases over one directory."""

    def __init__(self, directory: Path) -> None:
        self.clock = DrivenClock()
        self.one, self.two = NodeLeases(directory, self.clock), NodeLeases(directory, self.clock)

    def waiting(self, patience: float = 10.0) -> asyncio.Task[object]:
        loop = asyncio.get_running_loop()
        return loop.create_task(self.two.take("k", self.clock.monotonic(), patience))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    await pair.one.close()
    await pair.two.close()


async def test_one_has_it_and_the_other_has_not(pair: Pair) -> None:
    lease = pair.one.at_once("k", 0.0)
    assert lease is not None
    assert pair.two.at_once("k", 0.0) is None
    assert pair.one.at_once("k", 0.0) is None, "not twice in one worker either"
    assert await pair.one.take("k", 0.0, 5.0) is None, "a fetch that has outlived its time holds nobody up"
    other = pair.two.at_once("other", 0.0)
    assert other is not None
    await pair.clock.advance(1.0)
    lease.end(LOOK)
    lease.end(UNCACHEABLE)  # only the first word counts
    assert pair.two.at_once("k", 0.5) is None, "a fetch has ended since it looked: it is to look again"
    await pair.clock.advance(1.0)
    again = pair.two.at_once("k", pair.clock.monotonic())
    assert again is not None
    assert not again.again


async def test_who_waits_is_told_how_it_ended(pair: Pair) -> None:
    for ended, told in ((LOOK, None), (UNCACHEABLE, UNCACHEABLE), (FAILED, FAILED)):
        await pair.clock.advance(1.0)
        lease = pair.one.at_once("k", pair.clock.monotonic())
        assert lease is not None
        waiting = pair.waiting()
        await pair.clock.advance(1.0)
        assert not waiting.done()
        lease.end(ended)
        await pair.clock.advance(LONGEST_PAUSE)
        got = await waiting
        if told is not None:
            assert got == told
            continue
        assert not isinstance(got, Ended)
        assert got is not None
        assert got.again, "the store is to be looked into again"  # type: ignore[attr-defined]
        got.end(LOOK)  # type: ignore[attr-defined]


async def test_nobody_waits_longer_than_he_likes(pair: Pair) -> None:
    lease = pair.one.at_once("k", 0.0)
    waiting = pair.waiting(patience=0.3)
    await pair.clock.advance(0.29)
    assert not waiting.done()
    await pair.clock.advance(0.02)
    assert await waiting is None
    assert lease is not None


async def test_who_waits_does_not_run_hot(pair: Pair) -> None:
    lease = pair.one.at_once("k", 0.0)
    assert lease is not None
    tries = 0
    ask = pair.two._lock

    def counted(number: int) -> bool:
        nonlocal tries
        tries += 1
        return ask(number)

    pair.two._lock = counted  # type: ignore[method-assign]
    waiting = pair.waiting()
    for _ in range(100):
        await pair.clock.advance(0.01)
    assert tries < 1.0 / LONGEST_PAUSE + 8
    lease.end(UNCACHEABLE)
    await pair.clock.advance(LONGEST_PAUSE)
    assert await waiting == UNCACHEABLE


async def test_a_closed_one_gives_everything_back(pair: Pair) -> None:
    lease = pair.one.at_once("k", 0.0)
    assert lease is not None
    await pair.one.close()
    lease.end(LOOK)  # too late, and no harm
    assert pair.two.at_once("k", 0.0) is not None
    assert pair.one.at_once("k", 0.0) is None
    assert await pair.one.take("k", 0.0, 1.0) is None


HOLDER = """
import sys
from pathlib import Path
from edgeproxy.clock import Clock
from edgeproxy.cluster.lease import NodeLeases
leases = NodeLeases(Path(sys.argv[1]), Clock())
assert leases.at_once("k", 0.0) is not None
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_killed_process_keeps_nothing(tmp_path: Path) -> None:
    leases = NodeLeases(tmp_path, DrivenClock())
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert leases.at_once("k", 0.0) is None
        holder.kill()
        holder.wait()
        lease = leases.at_once("k", 0.0)
        assert lease is not None
        assert not lease.again, "it has left no word, so nothing is to be looked up"
    await leases.close()


def test_notes_are_for_their_key_and_time() -> None:
    notes = Notes(Region.anonymous(Notes.size()))
    number = number_of("k")
    assert notes.read(number, 0.0) is None
    for ended in (
        LOOK,
        UNCACHEABLE,
        *(Ended(End.FAILED, failure, failure.status) for failure in OriginFailure),
    ):
        notes.write(number, ended, 5.0)
        assert notes.read(number, 5.0) == ended
        assert notes.read(number, 5.1) is None
        assert notes.read(number + 1, 0.0) is None
    notes.close()


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        NodeLeases(tmp_path / "file", DrivenClock())
