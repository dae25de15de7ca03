"""One trial at a time on the machine: who holds a turn, and who gets it when its process dies."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from edgeproxy.origin.turns import Turns

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from edgeproxy.origin.turns import Turns
turns = Turns(sys.argv[1])
print(turns.take("http://a"), flush=True)
sys.stdin.read()
"""


def test_alone_it_is_always_ones_own() -> None:
    turns = Turns()
    assert turns.take("http://a")
    assert turns.take("http://a")
    turns.leave("http://a")


def test_between_processes(tmp_path: Path) -> None:
    mine, other = Turns(str(tmp_path)), Turns(str(tmp_path))
    assert mine.take("http://a")
    assert not other.take("http://a")
    assert other.take("http://b")
    mine.leave("http://a")
    assert other.take("http://a")
    other.close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert not mine.take("http://a")
        process.kill()
    assert mine.take("http://a"), "the system takes it back from who is dead"
    mine.close()


def test_a_directory_that_is_gone_keeps_nobody_out(tmp_path: Path) -> None:
    assert Turns(str(tmp_path / "gone")).take("http://a")
