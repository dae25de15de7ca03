"""The demo's two processes, the demo origin and edgeproxy: started, waited for and ended.

Rules of this file:

- Only what was started here is ended here. What the processes print goes to files in ``directory``.
- Ready means that it said so itself or knows the token it was given: whatever answers on a port may be
  someone else's. Nothing waits longer than READY, and a process that dies is reported at once with the end
  of what it printed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from edgeproxy.settings import Address

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from edgeproxy.clock import Clock

PREFERRED = (8080, 8081, 8090)
"""Ports for clients, for the administrator and of the origin, if they are free."""
LOOPBACK = "127.0.0.1"
READY = 30.0
"""Seconds a process may take until it answers."""
STOP = 5.0
"""Seconds a process may take to end after SIGTERM."""

_PAUSE = 0.05
_TAIL = 4_000
_ORIGIN_LINE = re.compile(r"^demo origin on (http://\S+)$", re.MULTILINE)
_TAKEN = re.compile("address already in use", re.IGNORECASE)


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


@dataclass(frozen=True, slots=True)
class Places:
    """Where they listen: clients' and the administrator's side of edgeproxy, and the origin. None: on the
    preferred port or, where that is taken, another one."""

    listen: Address | None = None
    admin: Address | None = None
    origin: Address | None = None


ANYWHERE = Places()


@asynccontextmanager
async def running(
    directory: Path,
    environment: Mapping[str, str],
    clock: Clock,
    rules: Path | None = None,
    places: Places = ANYWHERE,
) -> AsyncIterator[Running]:
    """Run both until the block ends. ``rules`` None: the rules that ``serve`` takes by itself.

    Raises DemoError where one of them does not get ready.
    """
    # Settings meant for another edgeproxy on this machine are not for the demo's.
    inherited = {name: value for name, value in environment.items() if not name.startswith("EDGEPROXY_")}
    start = _Start(directory, inherited, clock, places)
    try:
        origin, origin_url = await start.origin()
        edge, url, admin_url, token = await start.edge(origin_url, rules)
        yield Running(origin, edge, origin_url, url, admin_url, token)
    finally:
        for child in reversed(start.children):
            await child.end(clock)


class _Start:
    """Starts both. A port that someone else took since it was found free costs one more attempt."""

    def __init__(self, directory: Path, environment: Mapping[str, str], clock: Clock, places: Places) -> None:
        self.children: list[Child] = []
        self._places = places
        self._directory = directory
        self._environment = environment
        self._clock = clock

    async def origin(self) -> tuple[Child, str]:
        """Start the demo origin; it and its URL."""
        directory = str(self._directory)
        given = self._places.origin
        for port in (*free_ports(self._ungiven(PREFERRED[2:])), 0) if given is None else (given.port,):
            command = ["edgeproxy.demo.origin", "--port", str(port), "--directory", directory]
            child = await self._child("origin", command, {})

            async def ready(printed: Child = child) -> bool:
                return _ORIGIN_LINE.search(printed.tail()) is not None

            if await self._gets_ready(child, ready):
                break
        found = _ORIGIN_LINE.search(child.tail())
        if found is None:
            raise _failure(child)
        return child, found[1]

    async def edge(self, origin_url: str, rules: Path | None) -> tuple[Child, str, str, str]:
        """Start edgeproxy; it, its URL for clients, the one for the administrator, and the token."""
        token = secrets.token_urlsafe(18)
        cache = self._directory / "cache"
        for preferred in (PREFERRED[:2], (0, 0)):
            listen, admin = self._free(preferred)
            url, admin_url = _url(listen), _url(admin)
            command = [
                "edgeproxy", "serve", "--origin", origin_url,
                "--listen", str(listen), "--admin", str(admin),
                "--store", f"lmdb:{cache / 'store'}", "--cache-dir", str(cache), "--workers", "1",
            ]  # fmt: skip
            if rules is not None:
                command += ["--rules", str(rules)]
            child = await self._child("edgeproxy", command, {"EDGEPROXY_ADMIN_TOKEN": token})

            async def ready(admin_url: str = admin_url) -> bool:
                return await _is_ready(admin_url, token)

            if await self._gets_ready(child, ready):
                return child, url, admin_url, token
        raise _failure(child)

    def _free(self, preferred: Sequence[int]) -> list[Address]:
        """For clients and the administrator: what was given, else one of these, else any that is free."""
        wanted = (self._places.listen, self._places.admin)
        found = free_ports(self._ungiven(preferred))
        return [
            Address(LOOPBACK, port) if place is None else place if place.port else Address(place.host, port)
            for place, port in zip(wanted, found, strict=True)
        ]

    def _ungiven(self, preferred: Sequence[int]) -> list[int]:
        """These, but for what is meant for another of the three."""
        places = (self._places.listen, self._places.admin, self._places.origin)
        given = {place.port for place in places if place is not None}
        return [0 if port in given else port for port in preferred]

    async def _child(self, name: str, module: list[str], environment: Mapping[str, str]) -> Child:
        log_file = self._directory / f"{name}.log"
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *module, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**self._environment, **environment},
            )  # fmt: skip
        child = Child(name, process, log_file)
        self.children.append(child)
        return child

    async def _gets_ready(self, child: Child, ready: Callable[[], Awaitable[bool]]) -> bool:
        """Wait for it; False where its port turned out to be taken. Raises DemoError."""
        deadline = self._clock.monotonic() + READY
        while self._clock.monotonic() < deadline:
            if await ready():
                return True
            if not child.alive():
                break
            await self._clock.sleep(_PAUSE)
        if child.alive() or not _TAKEN.search(child.tail()):
            raise _failure(child)
        return False


def _failure(child: Child) -> DemoError:
    how = f"did not get ready in {READY:g} s" if child.alive() else f"ended ({child.process.returncode})"
    return DemoError(f"{child.name} {how}:\n{child.tail()}")


async def _is_ready(admin_url: str, token: str) -> bool:
    """Whether it is ready, and is the one that was given this token: another may have the port."""
    everything: dict[str, object] = {"all": True, "dry_run": True}
    fields = {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            async with session.get(f"{admin_url}/readyz") as answer:
                if answer.status != 200:
                    return False
            async with session.post(
                f"{admin_url}/api/cache/purge", json=everything, headers=fields
            ) as answer:
                return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _url(place: Address) -> str:
    """Where it is reached from here: what listens everywhere, on the loopback."""
    everywhere = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104
    return f"http://{Address(everywhere.get(place.host, place.host), place.port)}"


def why_not_free(place: Address) -> str:
    """What keeps a server from listening there; "" where nothing does."""
    try:
        family, kind, protocol, _, found = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


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
