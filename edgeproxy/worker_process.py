"""One worker in this process, with its signals.

Rules of this file:

- Alone: SIGTERM and SIGINT drain, a second one ends at once, SIGHUP reloads the rules and reopens the
  access log; SIGUSR2, which replaces workers where there are several, does nothing but say so.
- With a parent the words come over the channel, a socket that is the parent's word and its life: ``drain``,
  ``force``, ``reopen``, one a line; when it ends, the parent has died, and the worker drains. SIGTERM drains
  and does no more, however often it comes; SIGINT, SIGHUP and SIGUSR2 go to the parent, who tells us.
- The worker tells the parent one line of JSON: ``{"ready": VERSION, "memory_alone": BOOL}`` once it serves,
  with the version of its rules and whether the store could not be opened, or ``{"failed": TEXT}`` before it
  ends with status 2.
- SIGUSR1 prints where every thread is: what the parent asks of a worker that hangs before it ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import faulthandler
import json
import logging
import os
import resource
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from edgeproxy import collector, heap
from edgeproxy.app import Worker
from edgeproxy.clock import Clock
from edgeproxy.operate import NOBODY
from edgeproxy.rules.problems import RuleError
from edgeproxy.settings import SettingsError
from edgeproxy.store.open import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.settings import HandedDown, Settings
    from edgeproxy.systemd import Manager, Sockets

log = logging.getLogger("edgeproxy")

RULES_REFUSED = "the rules are refused:\n{}"


def run_alone(settings: Settings, given: Sockets, manager: Manager) -> int:
    """Serve until told to end. Raises SettingsError, RuleError and OSError before anything is served."""
    _prepare()
    return uvloop.run(_alone(settings, given, manager))


def run_handed(settings: Settings, handed: HandedDown) -> int:
    """Be one of several. 2: did not start, and the parent knows why."""
    _prepare()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(handed.channel)
    os.set_inheritable(handed.listen, False)  # noqa: FBT003
    rules = None if handed.rules is None else Path(handed.rules)
    try:
        return uvloop.run(_handed(dataclasses.replace(settings, rules=rules), handed, channel))
    except (SettingsError, OSError) as error:
        channel.tell({"failed": str(error)})
    except RuleError as error:
        channel.tell({"failed": RULES_REFUSED.format(error)})
    finally:
        if channel.ended:
            _clean_up(handed)
    return 2


class Channel:
    """The worker's end."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)  # noqa: FBT003
        os.set_inheritable(fd, False)  # noqa: FBT003
        self._read = b""
        self.ended = False
        """The parent has died."""

    def listen(self, loop: asyncio.AbstractEventLoop, on: Callable[[str], None]) -> None:
        """Call ``on`` with each word; at the end with ``drain``."""
        loop.add_reader(self._socket.fileno(), self._receive, loop, on)

    def _receive(self, loop: asyncio.AbstractEventLoop, on: Callable[[str], None]) -> None:
        try:
            octets = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            loop.remove_reader(self._socket.fileno())
            self.ended = True
            log.error("the parent process is gone")
            on("drain")
            return
        *words, self._read = (self._read + octets).split(b"\n")
        for word in words:
            on(word.decode())

    def tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps(message).encode() + b"\n")


async def _alone(settings: Settings, given: Sockets, manager: Manager) -> int:
    loop = asyncio.get_running_loop()
    worker = Worker(settings, listen=given.listen, admin=given.admin)
    stop, force = asyncio.Event(), asyncio.Event()

    def end() -> None:
        if stop.is_set():
            force.set()
        stop.set()

    def ready() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, reload, worker, manager)
        loop.add_signal_handler(signal.SIGUSR2, log.warning, "SIGUSR2: %s", NOBODY)
        log.info("serving %s", described(settings, memory_alone=worker.memory_alone))
        manager.ready(f"serving on {settings.listen}")
        worker.background.spawn(manager.keep_alive(), "watchdog")

    def draining() -> None:
        log.info("draining; a second signal ends at once")
        manager.stopping()

    try:
        await _serve(worker, stop, force, ready, draining, delay=settings.drain_delay)
    finally:
        manager.close()
    log.info("stopped")
    return 0


async def _handed(settings: Settings, handed: HandedDown, channel: Channel) -> int:
    loop = asyncio.get_running_loop()
    worker = Worker(
        settings, clock=Clock(handed.clock), listen=socket.socket(fileno=handed.listen), handed=handed
    )
    stop, force = asyncio.Event(), asyncio.Event()

    def told(word: str) -> None:
        match word:
            case "drain":
                stop.set()
            case "force":
                force.set()
            case "reopen":
                reopen(worker)

    # From the beginning: a worker that is told to end while it starts must not be deaf.
    channel.listen(loop, told)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await _serve(
        worker,
        stop,
        force,
        lambda: channel.tell({"ready": worker.handler.rules_version, "memory_alone": worker.memory_alone}),
        lambda: None,
    )
    return 0


async def _serve(
    worker: Worker,
    stop: asyncio.Event,
    force: asyncio.Event,
    ready: Callable[[], None],
    draining: Callable[[], None],
    *,
    delay: float = 0.0,
) -> None:
    """From start to end. ``ready`` and ``draining`` are called when it comes to that. ``delay``: as of
    ``drain``; where there is a parent, it is the parent's."""
    try:
        await worker.start()
        ready()
        collector.keep_short()
        memory = worker.store.memory
        worker.background.spawn(heap.look_after(worker.clock, lambda: memory.bytes), "memory that is free")
        await stop.wait()
        draining()
        drained = worker.background.spawn(worker.drain(worker.settings.drain_grace, delay), "drain")
        forced = worker.background.spawn(_until(force), "second signal")
        await asyncio.wait({drained, forced}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await worker.close()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def reload(worker: Worker, manager: Manager) -> None:
    """SIGHUP, alone."""

    async def work() -> None:
        manager.reloading("reading the rules again")
        await worker.operator.reload_rules(how="SIGHUP")
        manager.reloaded(f"serving on {worker.settings.listen}")

    reopen(worker)
    worker.background.spawn(work(), "reload")


def reopen(worker: Worker) -> None:
    if worker.telemetry.access_log is not None:
        worker.telemetry.access_log.reopen()


def described(settings: Settings, *, memory_alone: bool) -> str:
    """What is served where, in one line without secrets. ``memory_alone``: the store cannot be used."""
    store = parse_store_url(settings.store).shown
    rules = "plain HTTP caching" if settings.rules is None else f"rules from {settings.rules}"
    return (
        f"{settings.origin} on {settings.listen}, admin on {settings.admin}, {rules}, "
        f"{f'memory alone ({store} cannot be used)' if memory_alone else f'store {store}'}"
    )


def _prepare() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(ValueError, OSError, RuntimeError):  # no standard error to print to
        faulthandler.register(signal.SIGUSR1, all_threads=True)


def _clean_up(handed: HandedDown) -> None:
    """What the parent would have done: the last of its workers removes the directory."""
    directory = Path(handed.directory)
    with contextlib.suppress(OSError):
        if not any(path.suffix == ".sock" for path in directory.iterdir()):
            shutil.rmtree(directory, ignore_errors=True)
