"""Many short runs of the ``edgeproxy`` command, each in a process of its own, for the price of one start.

Rules of this file: one Python imports what ``serve`` works with, and forks for each command; it has neither
threads nor a loop by then. What a start itself does is for those tests that start ``python -m edgeproxy``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy import settings
from tests.support.origins import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAM = """
import json, os, signal, sys, tempfile
import edgeproxy.supervisor
from edgeproxy.__main__ import main
for line in sys.stdin:
    words, cache = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            signal.alarm(30)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.environ["XDG_CACHE_HOME"] = cache
            try:
                code = main(words)
            except SystemExit as left:
                code = left.code
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        print(json.dumps([os.waitstatus_to_exitcode(status), out.read(), err.read()]), flush=True)
"""


class Ended(NamedTuple):
    """``code`` is negative where a signal ended it."""

    code: int
    out: str
    err: str


class Zygote:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *words: str, cache: Path) -> Ended:
        """Until it ends; after 30 s it is killed. ``cache`` is its XDG_CACHE_HOME."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, str(cache)]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def zygote() -> Iterator[Zygote]:
    """In an environment without settings."""
    environment = {n: v for n, v in settings.environment().items() if not n.startswith("EDGEPROXY_")}
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield Zygote(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
