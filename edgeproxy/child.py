"""One worker as its parent sees it: started as a fresh interpreter, spoken to, watched until it is gone.

Rules of this file:

- A worker gets the listening socket, one end of the channel and nothing else; it reads code, flags and
  the settings file anew. Its words and ours are in worker_process.py.
- Nothing here decides what happens to the others, or when the next one starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.worker_link import WorkerLink
from edgeproxy.settings import HandedDown
from edgeproxy.starved import is_starved, use_of

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from edgeproxy.rules.history import Order

log = logging.getLogger("edgeproxy")

BEAT = 1.0
"""Seconds between two questions whether the worker is alive."""
BEAT_PATIENCE = 1.6
MISSES = 3
"""So many unanswered, one after the other, are a hang: about five seconds."""
MISSES_STARVED = 20
"""For a worker that is given no processor: about half a minute."""
SLEPT = 1.0
"""Seconds that a question may take beyond its time. More: it is we who slept, and nobody missed anything."""


class Child:
    def __init__(
        self, slot: int, serial: int, generation: int, process: Process, channel: Channel, link: WorkerLink
    ) -> None:
        self.slot = slot
        self.serial = serial
        self.generation = generation
        """How often all workers had been replaced when it was started, from 1."""
        self.process = process
        self.link = link
        self.ready = False
        self.retiring = False
        """It was told to end; it is not missed."""
        self.version = ""
        """Of the rules that it started with."""
        self.memory_alone = False
        """It could not open the store."""
        self.failed: str | None = None
        """Why it did not start, as it says."""
        self.since = 0.0
        """When it was started, by the parent's clock."""
        self.hung = False
        """Its loop does not turn; it is being ended."""
        self.settled = asyncio.Event()
        """It is ready or gone."""
        self.gone = asyncio.Event()
        self._channel = channel

    @property
    def name(self) -> str:
        return f"worker {self.slot + 1} (pid {self.process.pid})"

    @property
    def state(self) -> str:
        if self.gone.is_set():
            return "gone"
        if self.hung:
            return "hanging"
        if self.retiring:
            return "retiring"
        return "ready" if self.ready else "starting"

    @property
    def how(self) -> str:
        """How it ended, for people."""
        code = self.process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    async def attend(self) -> None:
        """Until it is gone, and let go of what we had of it."""
        try:
            told = await self._channel.hear()
            if "ready" in told:
                self.version = str(told["ready"])
                self.memory_alone = bool(told.get("memory_alone"))
                self.ready = True
                self.settled.set()
            self.failed = told.get("failed")
            await self.process.wait()
        finally:
            self.ready = False
            self.gone.set()
            self.settled.set()
            self._channel.close()
            await self.link.close()

    async def beat(self) -> bool:
        """Until it is gone or told to end; False as soon as it hangs."""
        clock = asyncio.get_running_loop().time
        pid, misses = self.process.pid, 0
        before, since = use_of(pid), clock()
        while not self.gone.is_set() and not self.retiring:
            asked = clock()
            async with _least(BEAT if misses == 0 else BEAT_PATIENCE, self.gone):
                answered = await self.link.alive(BEAT_PATIENCE)
            now = clock()
            if answered:
                misses, before, since = 0, use_of(pid), now
            elif now - asked < BEAT_PATIENCE + SLEPT:
                misses += 1
            if misses < MISSES or self.gone.is_set() or self.retiring:
                continue
            if misses >= MISSES_STARVED or not is_starved(before, use_of(pid), now - since):
                return False
            if misses == MISSES:
                log.warning(
                    "%s is given no processor: this machine does too much, or stands still", self.name
                )
        return True

    def say(self, word: str) -> None:
        self._channel.say(word)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Channel:
    """The parent's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hear(self) -> dict[str, Any]:
        """The one thing that a worker says; {} if it ends without a word."""
        try:
            line = await self._reader.readline()
            told = json.loads(line) if line else {}
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def say(self, word: str) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(f"{word}\n".encode())

    def close(self) -> None:
        self._writer.close()


async def start_child(
    slot: int,
    serial: int,
    generation: int,
    command: Sequence[str],
    environ: Mapping[str, str],
    listen: socket.socket,
    directory: Path,
    state: Path,
    rules: Order | None,
    config: Path | None,
    clock: float,
) -> Child:
    """Raises OSError."""
    control = directory / f"worker-{serial}.sock"
    ours, theirs = socket.socketpair()
    handed = HandedDown(
        name=f"worker {slot + 1}",
        listen=listen.fileno(),
        channel=theirs.fileno(),
        directory=str(directory),
        control=str(control),
        state=str(state),
        rules=None if rules is None else str(rules.directory),
        candidate=None if rules is None or rules.candidate is None else str(rules.candidate),
        percent=0.0 if rules is None else rules.percent,
        sample=0 if rules is None else rules.sample,
        config=None if config is None else str(config),
        clock=clock,
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            env={**environ, **handed.variables()},
            pass_fds=(handed.listen, handed.channel),
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    return Child(slot, serial, generation, process, Channel(reader, writer), WorkerLink(control))


@contextlib.asynccontextmanager
async def _least(seconds: float, gone: asyncio.Event) -> AsyncIterator[None]:
    """What happens inside takes at least so long, unless the worker goes."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    yield
    await within(gone, until - loop.time())


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happens within so many seconds."""
    if event.is_set() or seconds <= 0:
        return event.is_set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
