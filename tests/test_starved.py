"""A process that was given no processor is told from one that hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from edgeproxy.starved import Use, is_starved, use_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(use_of(os.getpid()) is None, reason="this system does not tell")

BUSY = "print(flush=True)\nwhile True: pass"
WAITING = "print(flush=True)\nimport time\ntime.sleep(600)"


@contextmanager
def running(program: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def used(pid: int) -> Use:
    use = use_of(pid)
    assert use is not None
    return use


def test_one_that_another_leaves_nothing() -> None:
    core = {min(os.sched_getaffinity(0))}
    with running(BUSY) as poor, running(BUSY) as rich:
        for pid in (poor, rich):
            os.sched_setaffinity(pid, core)
        os.sched_setscheduler(poor, os.SCHED_IDLE, os.sched_param(0))
        before, start = used(poor), used(rich).seconds
        while (spent := used(rich).seconds - start) < 0.3:
            pass
        assert is_starved(before, used(poor), spent)


def test_one_that_computes_for_ever_has_what_it_asks_for() -> None:
    with running(BUSY) as busy:
        before = used(busy)
        while (spent := used(busy).seconds - before.seconds) < 0.2:
            pass
        assert not is_starved(before, used(busy), spent)


def test_one_that_waits_asks_for_nothing() -> None:
    with running(WAITING) as waiting:
        while use_of(waiting) is not None and used(waiting).runnable:
            pass
        assert not is_starved(used(waiting), used(waiting), 10.0)


def test_one_that_is_gone() -> None:
    with running(WAITING) as pid:
        before = used(pid)
    assert use_of(pid) is None
    assert not is_starved(before, use_of(pid), 10.0)
