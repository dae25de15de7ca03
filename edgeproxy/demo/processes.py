"""The demo's two processes, the demo origin and edgeproxy: started, waited for and ended.

Rules of this file:

- Only what was started here is ended here. What the processes print goes to files in ``directory``.
- Ready means that it answers. Nothing waits longer than READY, and a process that dies is reported at once
  with the end of what it printed.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from edgeproxy.clock import Clock

PREFERRED = (8080, 8081, 8090)
"""Ports for clients, for the administrator and of the origin, if they are free."""
READY = 30.0
"""Seconds a process may take until it answers."""
STOP = 5.0
"""Seconds a process may take to end after SIGTERM."""

_PAUSE = 0.05
_TAIL = 4_000


class DemoError(Exception):
    """A process did not start, or ended on its own; the text is for people."""


@dataclass(slots=True)
class Child:
    name: str
    process: Process
    log_file: Path

    def alive(self) -> bool:
        return self.process.returncode is None

    def tail(self) -> str:
        """Give the end of what it printed."""
        return self.log_file.read_text(errors="replace")[-_TAIL:].strip() or "(it printed nothing)"

    async def kill(self) -> None:
        """End it the hard way, as a crash would."""
        if self.alive():
            self.process.kill()
        await self.process.wait()

    async def end(self, clock: Clock) -> None:
        if self.alive():
            self.process.terminate()
        deadline = clock.monotonic() + STOP
        while self.alive() and clock.monotonic() < deadline:
            await clock.sleep(_PAUSE)
        await self.kill()


@dataclass(slots=True)
class Running:
    """Both processes, and where they answer."""

    origin: Child
    edge: Child
    origin_url: str
    url: str
    admin_url: str
    token: str


@asynccontextmanager
async def running(
    directory: Path, environment: Mapping[str, str], clock: Clock, rules: Path | None = None
) -> AsyncIterator[Running]:
    """Run both until the block ends. ``rules`` None: the rules that ``serve`` takes by itself.

    Raises DemoError where one of them does not get ready.
    """
    client_port, admin_port, origin_port = free_ports(PREFERRED)
    token = secrets.token_urlsafe(18)
    url, admin_url, origin_url = (
        f"http://127.0.0.1:{port}" for port in (client_port, admin_port, origin_port)
    )
    serve = [
        "edgeproxy", "serve", "--origin", origin_url,
        "--store", f"lmdb:{directory / 'cache' / 'store'}", "--cache-dir", str(directory / "cache"),
        "--listen", f"127.0.0.1:{client_port}", "--admin", f"127.0.0.1:{admin_port}",
    ]  # fmt: skip
    if rules is not None:
        serve += ["--rules", str(rules)]
    answer_data = ["edgeproxy.demo.origin", "--port", str(origin_port), "--directory", str(directory)]
    children: list[Child] = []
    try:
        origin = await _start("origin", answer_data, directory, environment)
        children.append(origin)
        # Settings meant for another edgeproxy on this machine are not for the demo's.
        own = {name: value for name, value in environment.items() if not name.startswith("EDGEPROXY_")}
        edge = await _start("edgeproxy", serve, directory, own | {"EDGEPROXY_ADMIN_TOKEN": token})
        children.append(edge)
        await _wait_until_ready(origin, f"{origin_url}/_demo/counts", clock)
        await _wait_until_ready(edge, f"{admin_url}/readyz", clock)
        yield Running(origin, edge, origin_url, url, admin_url, token)
    finally:
        for child in reversed(children):
            await child.end(clock)


def free_ports(preferred: Sequence[int]) -> list[int]:
    """Give one free port for each, the preferred one where nobody listens there."""
    probes: list[socket.socket] = []
    try:
        for port in preferred:
            probe = socket.socket()
            probes.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


async def _start(name: str, module: list[str], directory: Path, environment: Mapping[str, str]) -> Child:
    log_file = directory / f"{name}.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *module,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    return Child(name, process, log_file)


async def _wait_until_ready(child: Child, url: str, clock: Clock) -> None:
    deadline = clock.monotonic() + READY
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while child.alive() and clock.monotonic() < deadline:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await clock.sleep(_PAUSE)
    how = f"did not answer in {READY:g} s" if child.alive() else f"ended ({child.process.returncode})"
    raise DemoError(f"{child.name} {how}:\n{child.tail()}")
