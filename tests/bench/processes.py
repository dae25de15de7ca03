"""The processes that a run starts, where they run, what they use, and that none of them is left behind.

Rules of this file:

- What is measured has core 0 for itself; the load, the origin and this program share core 1. On a machine
  with one core nothing is pinned and the report says so.
- Every process is started through ``Processes`` and ends with it, on Ctrl-C and SIGTERM too: each is the
  head of a session of its own, and the whole session is ended.
- Figures come from /proc, of a process and all below it, so that a manager and its workers count as one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.bytecode import keep_bytecode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
DESCRIPTORS = 200_000
"""Open files wanted: 10,000 connections have two ends on this machine."""


class Unusable(Exception):  # noqa: N818  # a state of the machine, not a slip
    """Something a run needs is missing or does not come up; the message is one line."""


class Processes:
    """A directory and the processes of one part of a run; both are gone at its end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="edgeproxy-bench-"))
        self.directory.chmod(0o755)  # nginx and Varnish change to users of their own
        self._running: list[subprocess.Popen[bytes]] = []
        self.pinned = len(os.sched_getaffinity(0)) > 1 or (os.cpu_count() or 1) > 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            self._end(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(
        self, argv: Sequence[str], *, core: int, name: str, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Output goes to ``name``.out in the directory."""
        pin = ["taskset", "-c", str(core)] if self.pinned else []
        with (self.directory / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                [*pin, *argv], stdout=out, stderr=out, env=environment, start_new_session=True
            )
        self._running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        self._end(process)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the children of a manager that has gone first, too
        process.wait()

    def said(self, name: str) -> str:
        """The last lines of a process's output."""
        path = self.directory / f"{name}.out"
        return "\n".join(path.read_text(errors="replace").splitlines()[-12:]) if path.exists() else ""


def prepare_this_process() -> None:
    """Onto core 1, with enough descriptors for the clients' ends of the connections; SIGTERM unwinds too."""
    keep_bytecode()
    if (os.cpu_count() or 1) > 1:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {1})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def unwind(number: int, frame: object) -> None:
        # Once: a second one (timeout(1) sends two) must not end the cleaning up half-way.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, unwind)
    signal.signal(signal.SIGINT, unwind)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, seconds: float) -> float:
    """Wait until ``ready``; how long that took, in seconds. Raises Unusable."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        with contextlib.suppress(OSError):
            if ready():
                return time.perf_counter() - began
        if process.poll() is not None:
            raise Unusable(f"{what} ended with status {process.returncode}")
        time.sleep(0.005)  # a foreign process: there is no event to wait for
    raise Unusable(f"{what} is not ready after {seconds:.0f} s")


def listening(port: int) -> Callable[[], bool]:
    def ready() -> bool:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    return ready


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # names are all that is wanted
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, ahead = [], [pid]
    while ahead:
        one = ahead.pop()
        found.append(one)
        ahead += children.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree, ended children included."""
    total = 0
    for each in tree(pid):
        fields = _stat(each)
        if fields:
            total += sum(map(int, fields[11:15]))
    return total / TICK


def resident(pid: int) -> int:
    """Octets of memory in use by the tree (RSS; pages that several map count for each)."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * PAGE
    return total


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (the name may hold spaces); [] if it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
