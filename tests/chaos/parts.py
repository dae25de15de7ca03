"""What the chaos is made in: an origin in this process, a Redis, and nodes of edgeproxy.

Rules of this file: each ends with what it started, however the run ends; a node and the Redis keep their
ports and directories when they are killed and started again. Nothing here decides what is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from tests.support.origins import ROOT, free_port, request
from tests.support.servers import redis_binary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.origins import Answer

FRESH = 4
"""Seconds that the origin's answers are fresh."""
START = 90
"""Seconds, about, that a node may take to start."""
RULES = """
rules:
  - name: items
    match: {{path: "/items/{{group}}/*"}}
    tags: ["group-{{group}}"]
    # {number}
"""


class Origin:
    """Answers ``/items/GROUP/NAME`` with the item's version; PUT makes the next one.
    ``fetched(key, version)`` hears of each GET."""

    def __init__(self, fetched: Callable[[str, int], None]) -> None:
        self.versions: dict[str, int] = {}
        self._fetched = fetched
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def bump(self, key: str) -> int:
        self.versions[key] = self.versions.get(key, 1) + 1
        return self.versions[key]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, key, _ = head.split(" ", 2)
                for line in head.split("\r\n"):
                    name, _, value = line.partition(":")
                    if name.lower() == "content-length":
                        await reader.readexactly(int(value))
                version = self.bump(key) if method == "PUT" else self.versions.get(key, 1)
                if method == "GET":
                    self._fetched(key, version)
                await asyncio.sleep(0.002)  # what an origin takes
                body = f"{key} {version}\n".encode()
                fields = (
                    f"Cache-Control: max-age={FRESH}\r\nX-Version: {version}\r\nContent-Length: {len(body)}"
                )
                writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()


class Redis:
    """Writes everything to a file, so that it forgets nothing when it is killed; ``lose`` is for that."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self._process is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [
            redis_binary() or "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "yes", "--appendfsync", "no", "--dir", str(self._directory),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose(self) -> None:
        """Killed, and what it knew is gone."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


class Node:
    """``edgeproxy serve`` with its workers. ``up``: it takes requests, as far as we know."""

    def __init__(self, name: str, directory: Path, origin: str, store: str, workers: int) -> None:
        self.name = name
        self.port, self.admin_port = free_port(), free_port()
        self.up = False
        self._token = os.urandom(12).hex()
        self._directory = directory
        self._rules = directory / "rules"
        self._rules.mkdir(parents=True)
        self._number = 0
        self.write_rules()
        self._command = [
            sys.executable, "-m", "edgeproxy", "serve", "--origin", origin, "--rules", str(self._rules),
            "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}",
            "--cache-dir", str(directory / "cache"), "--store", store, "--workers", str(workers),
            "--node", name, "--l1-lease", "1s", "--purge-wait", "3s", "--store-budget", "1s",
            "--crash-limit", "1000000", "--warm-start", "off", "--access-log", "off", "--drain-grace", "1s",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def write_rules(self) -> None:
        self._number += 1
        (self._rules / "items.yaml").write_text(RULES.format(number=self._number))

    def start(self) -> None:
        kept = {n: v for n, v in os.environ.items() if not n.startswith("EDGEPROXY_")}  # noqa: TID251
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**kept, "EDGEPROXY_ADMIN_TOKEN": self._token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Until all workers serve. Raises RuntimeError where that never comes to be."""
        for _ in range(START * 20):
            with contextlib.suppress(OSError):
                if (await asyncio.to_thread(request, self.admin_port, "GET", "/readyz")).status == 200:
                    break
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended:\n{self.log()[-2000:]}")
            await asyncio.sleep(0.05)
        else:
            raise RuntimeError(f"{self.name} did not start:\n{self.log()[-2000:]}")
        self.up = True

    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    def admin(self, method: str, target: str, body: bytes | None = None) -> Answer:
        return request(self.admin_port, method, target, {"Authorization": f"Bearer {self._token}"}, body)

    def workers(self) -> list[int]:
        told: dict[str, Any] = json.loads(self.admin("GET", "/api/cache/stats").body)
        return [each["pid"] for each in told["node"]["each"] if each["state"] == "ready"]

    def signal(self, number: signal.Signals) -> None:
        """To the parent."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """The parent and all workers."""
        self.up = False
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def resources(self) -> list[tuple[int, int]]:
        """Octets resident and descriptors open, of each of its processes."""
        found = []
        for process in _group(self._process.pid) if self._process is not None else ():
            with contextlib.suppress(OSError):
                octets = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                found.append((octets, len(list((process / "fd").iterdir()))))
        return found

    def uses_redis(self) -> bool:
        """Each of its workers, as the node says."""
        with contextlib.suppress(OSError, EOFError, ValueError, HTTPException):
            parts = json.loads(request(self.admin_port, "GET", "/readyz").body).get("parts", {})
            return bool(parts.get("bus") == parts.get("l2") == "ok")
        return False

    def tasks(self) -> float | None:
        """Of one of its workers, on the average; None where it does not say."""
        told: dict[str, float] = {}
        with contextlib.suppress(OSError, EOFError, ValueError, HTTPException):
            for line in self.admin("GET", "/metrics").body.decode().splitlines():
                name, _, value = line.partition(" ")
                if name in ("edgeproxy_loop_tasks", "edgeproxy_node_workers_ready"):
                    told[name] = float(value)
        tasks, workers = told.get("edgeproxy_loop_tasks"), told.get("edgeproxy_node_workers_ready")
        return tasks / workers if tasks is not None and workers else None


def _group(leader: int) -> list[Path]:
    """The processes of a group, as /proc has them."""
    from pathlib import Path

    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((process / "stat").read_text().rpartition(")")[2].split()[2]) == leader:
                found.append(process)
    return found
