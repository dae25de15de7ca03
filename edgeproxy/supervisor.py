"""The parent of several workers: it owns the listening socket and the admin port, and keeps them running.

Rules of this file:

- The parent serves no client and touches no cache, so that there is little in it that could fail. With one
  worker there is no parent.
- Settings, rules and addresses are checked here first: what is wrong is one line and status 2, not N of them.
- A worker that ends is replaced, at once if it is the first in a while. Too many crashes within CRASH_SECONDS
  end the parent with the reason: whoever supervises *it* has to know.
- A worker that does not start for its settings or rules (status 2) ends the node while that is starting;
  later the others go on with what they have, and it is tried again.
- SIGUSR2 replaces all of them, one at a time (rolling.py).
- SIGTERM, SIGINT: not ready at once, all workers drain; what is left after the drain timeout and GRACE, or
  FORCE seconds after a second signal, is killed. SIGHUP: the rules are reloaded, access logs reopened.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.admin.api import make_admin
from edgeproxy.admin.control import Refused, State
from edgeproxy.admin.figures import HEALTH_LIMIT
from edgeproxy.admin.listener import AdminListener
from edgeproxy.admin.node import Node
from edgeproxy.alerting.begin import planned
from edgeproxy.app import BACKLOG
from edgeproxy.child import Child, start_child, within
from edgeproxy.clock import Clock
from edgeproxy.engine.background import Background
from edgeproxy.from_settings import (
    admin_auth,
    admin_tls,
    bind,
    check_store,
    purge_limit,
    rule_history,
    tls_of,
)
from edgeproxy.rolling import Rolling
from edgeproxy.rules.snapshot import RuleSnapshot
from edgeproxy.settings import SettingsError, environment, handed_down
from edgeproxy.store.open import parse_store_url
from edgeproxy.systemd import Manager, sockets, without
from edgeproxy.worker_process import described, run_alone, run_handed

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from edgeproxy.admin.auth import Auth
    from edgeproxy.admin.control import Replaced
    from edgeproxy.admin.team import Member
    from edgeproxy.config_copy import ConfigCopy
    from edgeproxy.settings import Settings
    from edgeproxy.systemd import Sockets

log = logging.getLogger("edgeproxy")

CRASH_SECONDS = 30.0
START_SECONDS = 60.0
"""A worker that is not ready by then is killed."""
RETRY_SECONDS = 5.0
"""Between two starts of a worker that is refused its settings."""
GRACE = 5.0
FORCE = 3.0
_SOCKET_PATH = 100
"""Octets that the path of a Unix socket may have, everywhere."""


def run_workers(config: ConfigCopy) -> int:
    """Serve until told to end. Raises SettingsError, RuleError and OSError before anything is served."""
    environ = environment()
    handed = handed_down(environ)
    if handed is not None:
        return run_handed(config.settings, handed)
    given = sockets(environ)
    try:
        if config.settings.workers == 1:
            return run_alone(given.told(config.settings), given, Manager(environ, Clock()))
        return asyncio.run(Supervisor(config, given).run())
    finally:
        given.close()


class Supervisor:
    """Keeps as many workers running as the settings say. ``given``: sockets that need not be made.
    ``command`` starts a worker: by default what started this process."""

    def __init__(self, config: ConfigCopy, given: Sockets, command: Sequence[str] | None = None) -> None:
        self._config = config
        self._given = given
        self._settings = given.told(config.settings)
        self._command = tuple(command or (sys.executable, *sys.orig_argv[1:]))
        self._clock = Clock()
        self._manager = Manager(environment(), self._clock)
        self._environ = without(environment())
        self._background = Background()
        self._rolling = Rolling(self)
        self._slots: dict[int, Child] = {}
        """The worker of each slot; none while it is being replaced after a crash."""
        self._children: set[Child] = set()
        """All that have been started and are not gone."""
        self._serial = 0
        self._complete = False
        """All were ready once."""
        self._crashes: list[float] = []
        self._crashed = self._replaced = 0
        self._ending = asyncio.Event()
        self._force = asyncio.Event()
        self._refused: str | None = None
        self._code = 0

    async def run(self) -> int:
        """Raises SettingsError and RuleError."""
        settings = self._settings
        check_store(settings)
        auth = admin_auth(settings)
        alerting = planned(settings)
        tls_of(settings)
        self._admin_tls = admin_tls(settings)
        with run_directory(settings) as directory:
            self._directory = directory
            settings = self._settings = self._given.told(self._config.take(directory))
            self._state = state_directory(settings, directory)
            self._snapshot = RuleSnapshot(settings.rules, directory, rule_history(settings))
            self._snapshot.take()
            self._node = Node(self, self._snapshot, self._clock)
            self._node.node_rules.record("start")
            alerts = alerting.begin(self._node, self._clock, self._background.spawn)
            if alerts is not None:
                self._node.watched_by(alerts)
            self._listen = self._given.listen or bind(settings.listen.host, settings.listen.port, "--listen")
            try:
                _hold(self._listen, settings)
                admin = self._given.admin or bind(settings.admin.host, settings.admin.port, "--admin")
                await self._run(auth, admin)
            finally:
                if alerts is not None:
                    alerts.close()
                self._listen.close()
                self._manager.close()
        if self._refused is not None:
            raise SettingsError(self._refused)
        log.info("stopped")
        return self._code

    async def _run(self, auth: Auth, admin_socket: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        admin = AdminListener(
            make_admin(
                self._node,
                auth,
                self._clock,
                limit=HEALTH_LIMIT,
                background=self._background,
                purges=purge_limit(self._settings),
            )
        )
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end)
            loop.add_signal_handler(signal.SIGHUP, self._spawn_reload)
            loop.add_signal_handler(signal.SIGUSR2, self._spawn_roll)
            # What it does to others' logs, SIGHUP does here; by default it would end the parent.
            loop.add_signal_handler(signal.SIGUSR1, log.warning, "SIGUSR1: SIGHUP reopens the access log")
            await admin.serve(admin_socket, self._admin_tls, self._clock)
            self._background.spawn(self._manager.keep_alive(), "watchdog")
            for slot in range(self._settings.workers):
                self._background.spawn(self._keep(slot), f"start of worker {slot + 1}")
            await self._ending.wait()
            await self._drain()
        finally:
            for child in self._children:
                child.signal(signal.SIGKILL)
            await asyncio.gather(*(child.gone.wait() for child in self._children))
            await admin.close()
            await self._background.close()

    # -- Team, for the admin port -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        if self._ending.is_set():
            return State.DRAINING
        return State.READY if self._complete and self.ready() else State.STARTING

    def ready(self) -> list[Child]:
        return [child for _, child in sorted(self._slots.items()) if child.ready]

    def describe(self) -> list[dict[str, object]]:
        return [
            {
                "worker": child.slot + 1,
                "pid": child.process.pid,
                "state": child.state,
                "generation": child.generation,
                "up_seconds": round(self._clock.monotonic() - child.since, 3),
            }
            for child in sorted(self._children, key=lambda child: (child.slot, child.serial))
        ]

    def numbers(self) -> dict[str, int]:
        return {
            "workers": self._settings.workers,
            "workers_ready": len(self.ready()),
            "crashes_total": self._crashed,
            "replacements_total": self._replaced,
            "generation": self._rolling.generation,
            "replacement_failed": int(self._rolling.last is not None and bool(self._rolling.last.why_not)),
        }

    def replacement(self) -> Mapping[str, object]:
        return self._rolling.told()

    async def replace_all(self) -> Replaced:
        if self._rolling.under_way or not self._complete or self.ending:
            raise Refused("the workers are being started or replaced already")
        self._rolling.under_way = True
        self._manager.reloading("replacing the workers")
        replaced = await self._rolling.run()
        self._manager.reloaded(self._told())
        return replaced

    def replace(self, member: Member, why: str) -> None:
        log.error("%s is replaced: %s", member.name, why)
        for child in self._children:
            if child is member:
                child.signal(signal.SIGKILL)

    # -- one worker -------------------------------------------------------------------------------------

    async def _keep(self, slot: int) -> None:
        """A worker in this slot, until it is replaced or all end."""
        while not self._ending.is_set() and slot < self._settings.workers:
            try:
                child = await self.start(slot)
            except OSError as error:
                log.error("worker %d cannot be started: %s", slot + 1, error)  # noqa: TRY400
                await within(self._ending, self._pause_after_crash(str(error)))
                continue
            if slot in self._slots or child.generation < self._rolling.generation:
                # All were replaced meanwhile: this one is of the old kind.
                child.retiring = True
                self._see_off(child)
                if slot in self._slots:
                    return
                continue
            self._slots[slot] = child
            if child.ready:
                self._has_started(child)
            if not await self._guard(child):
                return

    async def start(self, slot: int) -> Child:
        """A worker that is ready, or gone again. Raises OSError."""
        self._serial += 1
        with self._snapshot.held() as order:
            child = await start_child(
                slot,
                self._serial,
                self._rolling.generation,
                self._command,
                self._environ,
                self._listen,
                self._directory,
                self._state,
                order,
                self._config.path,
                self._clock.base,
            )
            child.since = self._clock.monotonic()
            self._children.add(child)
            self._background.spawn(self._attend(child), child.name)
            if self._ending.is_set():
                child.say("drain")
            if not await within(child.settled, START_SECONDS):
                log.error("%s is not ready after %g s", child.name, START_SECONDS)
                child.signal(signal.SIGKILL)
                await child.gone.wait()
        return child

    async def _attend(self, child: Child) -> None:
        try:
            await child.attend()
        finally:
            self._children.discard(child)
            self._node.figures.ended(child)
            with contextlib.suppress(OSError):
                (self._directory / f"worker-{child.serial}.sock").unlink()

    def _has_started(self, child: Child) -> None:
        log.info("%s is ready", child.name)
        if child.version != self._snapshot.taken.mark:
            self._background.spawn(self._tell_rules(child), f"rules for {child.name}")
        if not self._complete and len(self.ready()) == self._settings.workers:
            self._complete = True
            alone = any(child.memory_alone for child in self.ready())
            told = described(self._settings, memory_alone=alone)
            log.info("serving %s, %d workers", told, self._settings.workers)
            self._manager.ready(self._told())
        elif self._complete and not self._rolling.under_way:
            self._manager.status(self._told())

    def _told(self) -> str:
        """For who looks on from outside, in one line."""
        last = self._rolling.last
        failed = f"; the last replacement failed: {last.why_not}" if last is not None and last.why_not else ""
        ready = f"{len(self.ready())} of {self._settings.workers} workers ready"
        return f"serving on {self._settings.listen}, {ready}{failed}"

    async def _tell_rules(self, child: Child) -> None:
        await self._node.node_rules.tell(child)

    async def _guard(self, child: Child) -> bool:
        """Until the worker is gone; whether the slot needs another one."""
        was_ready = child.ready
        if was_ready and not await child.beat():
            child.hung = True
            log.error("%s hangs: it has not answered for five seconds", child.name)
            child.signal(signal.SIGUSR1)
            await within(child.gone, 0.2)
            child.signal(signal.SIGKILL)
        await child.gone.wait()
        if child.retiring or self._ending.is_set():
            return False
        if self._slots.get(child.slot) is not child:
            return False
        del self._slots[child.slot]
        self._manager.status(self._told())
        code = child.process.returncode
        if code == 2 and not was_ready:
            why = child.failed or f"{child.name} did not start"
            if not self._complete or not self.ready():
                self._refuse(why)
                return False
            log.error("%s does not start, the others go on: %s", child.name, why)
            await within(self._ending, RETRY_SECONDS)
        elif code == 0 and was_ready:
            log.warning("%s was told to end by somebody else; it is replaced", child.name)
        else:
            await within(self._ending, self._pause_after_crash(f"{child.name} {child.how}"))
        self._replaced += 1
        return not self._ending.is_set()

    def _pause_after_crash(self, what: str) -> float:
        """Seconds until the next start. Gives up where there are too many."""
        now = self._clock.monotonic()
        self._crashed += 1
        self._crashes = [*(t for t in self._crashes if t > now - CRASH_SECONDS), now]
        count = len(self._crashes)
        if count >= self._settings.crash_limit:
            log.critical("%s; that makes %d crashes within %g s: giving up", what, count, CRASH_SECONDS)
            self._code = 1
            self._ending.set()
            return 0.0
        log.error("%s; it is replaced", what)
        return 0.0 if count == 1 else min(1.0, 0.1 * 2 ** (count - 2))

    def _refuse(self, why: str) -> None:
        if self._refused is None:
            self._refused = why
        self._ending.set()

    # -- signals ----------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self._ending.is_set():
            self._force.set()
        else:
            log.info("draining; a second signal ends at once")
        self._ending.set()

    def _spawn_reload(self) -> None:
        for child in self._children:
            child.say("reopen")
        self._background.spawn(self._reload(), "reload")

    async def _reload(self) -> None:
        self._manager.reloading("reading the rules again")
        await self._node.reload_rules(how="SIGHUP")
        self._manager.reloaded(self._told())

    async def _drain(self) -> None:
        """Until all workers are gone, or have to be killed."""
        self._manager.stopping()
        if self._settings.drain_delay and not self._code and self._refused is None:
            await within(self._force, self._settings.drain_delay)
        self._listen.close()
        for child in self._children:
            child.retiring = True
            child.say("drain")
        gone = self._background.spawn(self._all_gone(), "end of the workers")
        forced = self._background.spawn(self._until_forced(), "second signal")
        limit = self._settings.drain_timeout + GRACE
        await asyncio.wait({gone, forced}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            for child in self._children:
                child.say("force")
            await asyncio.wait({gone}, timeout=FORCE)
        if not gone.done():
            log.error("%d workers did not end and are killed", len(self._children))
            self._code = 1

    async def _all_gone(self) -> None:
        while self._children:
            await next(iter(self._children)).gone.wait()
            await asyncio.sleep(0)

    async def _until_forced(self) -> None:
        await self._force.wait()

    # -- replacing all (Crew, for rolling.py) ------------------------------------------------------------

    def _spawn_roll(self) -> None:
        self._background.spawn(self._roll(), "replacement of all workers")

    async def _roll(self) -> None:
        try:
            await self.replace_all()
        except Refused as refused:
            log.warning("%s", refused)

    @property
    def ending(self) -> bool:
        return self._ending.is_set()

    def read_settings(self) -> Settings:
        return self._given.told(self._config.take(self._directory))

    def apply(self, settings: Settings) -> None:
        self._settings = settings
        logging.getLogger().setLevel(settings.log_level.upper())

    def give_back(self) -> None:
        self._settings = self._given.told(self._config.give_back())

    async def reload_rules(self) -> tuple[str, ...]:
        return (await self._node.reload_rules(how="SIGUSR2")).errors

    async def take_over(self, new: Child, old: Child | None) -> None:
        present = self._slots.get(new.slot)
        if present is not None and present is not old:
            new.retiring = True  # the old one crashed, and its slot has been filled
            self._see_off(new)
            return
        if old is not None:
            await self._node.figures.retiring(old)
            old.retiring = True
        self._slots[new.slot] = new
        self._replaced += old is not None
        self._has_started(new)
        self._background.spawn(self._guard_and_keep(new), f"watch on {new.name}")
        if old is not None:
            self._see_off(old)

    async def retire(self, old: Child) -> None:
        await self._node.figures.retiring(old)
        old.retiring = True
        if self._slots.get(old.slot) is old:
            del self._slots[old.slot]
        self._see_off(old)

    async def all_gone(self, generation: int) -> None:
        for child in list(self._children):
            if child.generation < generation or child.slot >= self._settings.workers:
                await child.gone.wait()

    async def _guard_and_keep(self, child: Child) -> None:
        if await self._guard(child):
            await self._keep(child.slot)

    def _see_off(self, child: Child) -> None:
        child.say("drain")
        self._background.spawn(self._until_gone(child), f"end of {child.name}")

    async def _until_gone(self, child: Child) -> None:
        if not await within(child.gone, self._settings.drain_timeout + GRACE):
            log.error("%s did not end and is killed", child.name)
            child.signal(signal.SIGKILL)


def _hold(listen: socket.socket, settings: Settings) -> None:
    """Listen at once, so that no other process can: until the workers serve, clients wait."""
    try:
        listen.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"--listen: {settings.listen}: {error.strerror}") from None


@contextlib.contextmanager
def run_directory(settings: Settings) -> Iterator[Path]:
    """A new directory that only we can open, removed at the end. Raises SettingsError."""
    for base in (environment().get("RUNTIME_DIRECTORY"), None, "/tmp", str(settings.cache_dir)):  # noqa: S108  # nosec B108
        try:
            directory = Path(tempfile.mkdtemp(prefix="edgeproxy-", dir=base))
        except OSError:
            continue
        try:
            if len(os.fsencode(directory / "worker-1000000.sock")) > _SOCKET_PATH:
                continue
            # A directory with a lock on it is left alone by what tidies up /tmp (tmpfiles.d(5)).
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                yield directory
            finally:
                os.close(fd)
            return
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    raise SettingsError(
        "--workers: no place for the workers' sockets; expected a temporary directory to write to"
    )


def state_directory(settings: Settings, directory: Path) -> Path:
    """Where the purge table is kept, if not beside the store. It need not outlive memory alone."""
    if parse_store_url(settings.store).kind == "memory":
        return directory
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("purges are forgotten at the end: %s: %s", settings.cache_dir, error.strerror)
        return directory
    return settings.cache_dir if os.access(settings.cache_dir, os.W_OK) else directory
