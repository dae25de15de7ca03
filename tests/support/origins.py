"""Real processes on free ports: origins that we did not write, our demo origin, and edgeproxy itself.

Rules of this file:

- Each is a context manager around one process that it started, and ends that process and its children,
  however the test ends. What the process printed is kept and is part of every complaint.
- Ready means that it answers. Waiting is a loop of attempts bounded by time; between two attempts it waits
  for the process to *end*, so one that dies at start is reported at once.
- Requests here are blocking and raw (http.client): nothing is decoded, followed, pooled or added.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
READY = 90.0
"""Seconds a process may take until it answers, on a machine that is busy with much else."""
STOP = 10.0
"""Seconds a process may take to end after SIGTERM."""
ATTEMPTS = 3
"""Times a start is tried: a free port may be taken by someone else before the process binds it."""

_PAUSE = 0.03
_TAKEN = re.compile(r"address already in use|port \d+ is in use", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UNHANDLED = ("Traceback (most recent call last)", "exception was never retrieved", "never awaited")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came: ``headers`` in order, repeated fields kept; the body without its framing."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """Give the field's value, the values of a repeated field joined by ", "."""
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        return ", ".join(values) if values else None


@dataclass(slots=True)
class Running:
    """A process that answers at ``host:port``."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log_file: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def log(self) -> str:
        """Give all that it printed, without colours."""
        return _COLOUR.sub("", self.log_file.read_text(errors="replace"))

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Answer:
        """Send one request on a connection of its own. An iterable body is sent chunked."""
        return request(self.port, method, target, headers, body)

    def get(self, target: str, **headers: str) -> Answer:
        """GET with field names written as in ``if_none_match='"a"'``."""
        return self.request("GET", target, {n.replace("_", "-"): v for n, v in headers.items()})

    def kill(self) -> None:
        """SIGKILL, to the process and its children: what a crash looks like to others."""
        _signal(self.process, signal.SIGKILL)
        self.process.wait(STOP)

    def terminate(self) -> int:
        """SIGTERM to the process alone; its exit status. Fails if it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end {STOP} s after SIGTERM\n{self.log()}") from None


@dataclass(slots=True)
class EdgeProcess(Running):
    """``edgeproxy serve``: ``port`` is where clients go."""

    admin_port: int = 0
    token: str = field(default="", repr=False)

    def admin(self, method: str, target: str, body: bytes | None = None) -> Answer:
        return request(self.admin_port, method, target, {"Authorization": f"Bearer {self.token}"}, body)


def request(
    port: int,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY)
    chunked = body is not None and not isinstance(body, bytes)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True, skip_host=_names_host(headers))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif isinstance(body, bytes):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body, encode_chunked=chunked)
        reply = connection.getresponse()
        return Answer(reply.status, tuple(reply.getheaders()), reply.read())
    finally:
        connection.close()


def free_port() -> int:
    """Give a port that nobody listens on now. Below the range that outgoing connections take theirs from."""
    for _ in range(200):
        port = 15_000 + int.from_bytes(os.urandom(2)) % 15_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port between 15000 and 30000")


@contextmanager
def datasette(directory: Path) -> Iterator[Running]:
    """Datasette over a SQLite file of 500 cities: /geo/cities.json, with ``max-age=60``."""
    directory.mkdir(parents=True, exist_ok=True)
    database = directory / "geo.db"
    rows = [(number, f"City {number}", number * 7919 % 100_000) for number in range(500)]
    connection = sqlite3.connect(database)
    try:
        with connection:
            connection.execute("CREATE TABLE cities (id INTEGER PRIMARY KEY, name TEXT, people INTEGER)")
            connection.executemany("INSERT INTO cities VALUES (?, ?, ?)", rows)
    finally:
        connection.close()
    arguments = ["-m", "datasette", "serve", str(database), "--setting", "default_cache_ttl", "60", "-p"]
    with _started(
        "datasette", directory, lambda port: [*arguments, str(port)], "/-/versions.json"
    ) as running:
        yield running


@contextmanager
def httpbin(directory: Path) -> Iterator[Running]:
    """Run httpbin on its own development server (threaded, HTTP/1.1)."""
    arguments = ["-W", "ignore", "-m", "httpbin.core", "--port"]
    with _started("httpbin", directory, lambda port: [*arguments, str(port)], "/get") as running:
        yield running


@contextmanager
def demo_origin(directory: Path, port: int | None = None) -> Iterator[Running]:
    """Run the demo origin with its data in ``directory``; on ``port``, where one is given."""
    arguments = ["-m", "edgeproxy.demo.origin", "--directory", str(directory), "--port"]
    with _started(
        "demo", directory, lambda free: [*arguments, str(port or free)], "/_demo/counts"
    ) as running:
        yield running


FEW_DESCRIPTORS = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, (%d,) * 2)
runpy.run_module("edgeproxy", run_name="__main__", alter_sys=True)
"""


@contextmanager
def edgeproxy_process(
    origin: str,
    directory: Path,
    *,
    rules: str | Path = "none",
    store: str | None = "memory:",
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    check_log: bool = True,
    descriptors: int | None = None,
) -> Iterator[EdgeProcess]:
    """Run ``edgeproxy serve`` in front of ``origin`` until /readyz says 200; ended by SIGTERM.

    One worker, unless ``arguments`` say how many. ``store`` None: the default store, in ``directory``. With
    ``check_log`` an unhandled exception in the log, or an exit status other than 0 after SIGTERM, is a
    failure (unless the test ended it itself).
    ``descriptors``: what it may open (``ulimit -n``).
    """
    token = os.urandom(12).hex()
    given = {"EDGEPROXY_ADMIN_TOKEN": token, **(environment or {})}
    admin_port = 0

    def command(port: int) -> list[str]:
        nonlocal admin_port
        admin_port = free_port()
        serve = ["-m", "edgeproxy"] if descriptors is None else ["-c", FEW_DESCRIPTORS % descriptors]
        serve += ["serve", "--origin", origin, "--rules", str(rules)]
        serve += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}"]
        serve += ["--cache-dir", str(directory / "cache")]
        if store is not None:
            serve += ["--store", store]
        if not {"--workers", "--config"}.intersection(arguments):
            serve += ["--workers", "1"]
        if "--warm-start" not in arguments:
            serve += ["--warm-start", "off"]
        return [*serve, *arguments]

    def ready(_: int) -> bool:
        return request(admin_port, "GET", "/readyz").status == 200

    with _started("edgeproxy", directory, command, ready, given) as running:
        edge = EdgeProcess(
            running.name, running.process, running.port, running.log_file, admin_port=admin_port, token=token
        )
        yield edge
        if check_log and edge.process.poll() is None:
            status = edge.terminate()
            log = edge.log()
            assert status == 0, f"edgeproxy ended with {status}\n{log}"
            assert not any(words in log for words in _UNHANDLED), log


@contextmanager
def _started(
    name: str,
    directory: Path,
    command: Callable[[int], list[str]],
    ready: str | Callable[[int], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    directory.mkdir(parents=True, exist_ok=True)
    running = _start(name, directory, command, ready, environment or {})
    try:
        yield running
    finally:
        _end(running.process)


def _start(
    name: str,
    directory: Path,
    command: Callable[[int], list[str]],
    ready: str | Callable[[int], bool],
    environment: Mapping[str, str],
) -> Running:
    # A child inherits what the tests run in, but for settings meant for another edgeproxy.
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("EDGEPROXY_")}  # noqa: TID251
    for _ in range(ATTEMPTS):
        port = free_port()
        log_file = directory / f"{name}-{port}.log"
        arguments = command(port)
        if "--port" in arguments:
            port = int(arguments[-1])
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", *arguments],
                cwd=ROOT,
                env=inherited | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(name, process, port, log_file)
        if _wait_until_ready(running, ready):
            return running
        _signal(process, signal.SIGKILL)
        process.wait(STOP)
        if not _TAKEN.search(running.log()):
            break
    raise AssertionError(f"{name} did not start: {' '.join(arguments)}\n{running.log()}")


def _wait_until_ready(running: Running, ready: str | Callable[[int], bool]) -> bool:
    clock = Clock()
    deadline = clock.monotonic() + READY
    while clock.monotonic() < deadline:
        try:
            if callable(ready):
                answered = ready(running.port)
            else:
                answered = request(running.port, "GET", ready).status == 200
        except (OSError, http.client.HTTPException):
            answered = False
        if answered:
            return running.process.poll() is None
        try:
            running.process.wait(_PAUSE)
        except subprocess.TimeoutExpired:
            continue
        return False
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process if it still runs, and whatever it left behind."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP)
    _signal(process, signal.SIGKILL)
    process.wait(STOP)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the whole process group: each process here leads its own."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _names_host(headers: Mapping[str, str] | None) -> bool:
    return any(name.lower() == "host" for name in headers or {})
