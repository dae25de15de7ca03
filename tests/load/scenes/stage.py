"""What the scenes are played on: an origin and an edge, each a real process, and what happens to them.

Rules of this file:

- The edge is `edgeproxy serve` with one rule for each scene and nothing else but what the scene says. It is
  the program's own, or somebody's that runs already; then there is no origin that could be killed.
- The edge is asked for its numbers while it works, as Prometheus would.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.origins import ROOT, edgeproxy_process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tests.load.scenes.plan import Scene
    from tests.support.origins import EdgeProcess

NUMBERS = {
    "memory": "edgeproxy_process_resident_memory_bytes",
    "descriptors": "edgeproxy_process_open_fds",
    "tasks": "edgeproxy_loop_tasks",
    "processor": "edgeproxy_process_cpu_seconds_total",
    "connections": "edgeproxy_connections_open",
}
"""What is sampled, by its metric; the workers of an edge are added up by itself."""


@dataclass(frozen=True, slots=True)
class Sample:
    """``at``: seconds since the scene began. Memory in octets, ``processor`` in seconds so far."""

    at: float
    memory: float
    descriptors: float
    tasks: float
    processor: float
    connections: float


@dataclass(slots=True)
class Edge:
    """Where clients go, and where its numbers are (None: nobody said)."""

    host: str
    port: int
    authority: str
    tls: bool = False
    admin: tuple[str, int] | None = None
    process: EdgeProcess | None = None

    def numbers(self) -> dict[str, float]:
        """Sampled now; those that it does not have are left out."""
        assert self.admin is not None
        connection = http.client.HTTPConnection(*self.admin, timeout=10)
        try:
            connection.request("GET", "/metrics")
            told = connection.getresponse().read().decode()
        finally:
            connection.close()
        wanted = {name: key for key, name in NUMBERS.items()}
        # Most of what it tells is not wanted, and to parse it all would take its time from the load.
        told = "\n".join(line for line in told.splitlines() if line.startswith(tuple(wanted))) + "\n"
        return {
            wanted[sample.name]: sample.value
            for family in text_string_to_metric_families(told)
            for sample in family.samples
            if sample.name in wanted
        }

    def purge(self) -> None:
        assert self.process is not None
        answer = self.process.admin("POST", "/api/cache/purge", b'{"all": true}')
        if answer.status != 200:
            raise RuntimeError(f"the purge was answered with {answer.status}: {answer.body!r}")


class Origin:
    """A process that is killed, stopped and brought back on its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it listens."""
        command = [sys.executable, "-m", "tests.load.scenes.origin", "--held", "--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the origin did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def happens(self, what: str) -> None:
        """As a phase's ``origin`` says."""
        if what == "killed":
            self.kill()
        elif what == "back":
            self.kill()
            self.start()
        elif self._process is not None:
            self._process.send_signal(signal.SIGSTOP if what == "stopped" else signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@contextlib.contextmanager
def our_edge(origin: str, scenes: Sequence[Scene], directory: Path) -> Iterator[Edge]:
    """An `edgeproxy serve` for these scenes, with what all of them want on its command line."""
    rules = directory / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    document = {
        "rules": [{"name": s.name, "match": {"path": f"/{s.name}/**"}, **s.rule} for s in scenes],
    }
    (rules / "scenes.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    arguments = ["--access-log", "off", *(word for scene in scenes for word in scene.edge)]
    with edgeproxy_process(origin, directory, rules=rules, arguments=arguments) as process:
        yield Edge(
            "127.0.0.1", process.port, "load.test", admin=("127.0.0.1", process.admin_port), process=process
        )


@dataclass
class Samples:
    """A thread that asks the edge for its numbers ``every`` so many seconds."""

    edge: Edge
    every: float
    taken: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.edge.admin is not None:
            self._thread = threading.Thread(target=self._take, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _take(self) -> None:
        began = time.perf_counter()
        while not self._stop.wait(self.every):
            # One that does not answer in time leaves a gap, and the figures that need it say so.
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                found = self.edge.numbers()
                at = time.perf_counter() - began
                self.taken.append(Sample(at, **{key: found.get(key, 0.0) for key in NUMBERS}))
