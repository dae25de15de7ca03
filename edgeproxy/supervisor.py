"""Runs the worker in this process, with signals: SIGTERM and SIGINT drain, a second one ends at once, SIGHUP
reloads the rules and reopens the access log.

Rules of this file: processes and signals; what they do to a worker is the worker's own affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from typing import TYPE_CHECKING

import uvloop

from edgeproxy.app import Worker
from edgeproxy.settings import SettingsError

if TYPE_CHECKING:
    from edgeproxy.settings import Settings

log = logging.getLogger("edgeproxy")


def run_workers(settings: Settings) -> int:
    """Serve until told to end. Raises SettingsError and RuleError before anything is served."""
    if settings.workers > 1:
        raise SettingsError("--workers: more than one worker is not supported yet; expected 1")
    _raise_descriptor_limit()
    return uvloop.run(_run(settings))


async def _run(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    worker = Worker(settings)
    stop = asyncio.Event()
    force = asyncio.Event()

    def end() -> None:
        if stop.is_set():
            force.set()
        stop.set()

    try:
        await worker.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, reload, worker)
        # What start-up made lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        log.info(
            "serving %s on %s, admin on %s, %s, store %s",
            settings.origin, settings.listen, settings.admin,
            "plain HTTP caching" if settings.rules is None else f"rules from {settings.rules}",
            redacted(settings.store),
        )  # fmt: skip
        await stop.wait()
        log.info("draining; a second signal ends at once")
        drained = asyncio.ensure_future(worker.drain())  # noqa: TID251
        forced = asyncio.ensure_future(force.wait())  # noqa: TID251
        await asyncio.wait({drained, forced}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, forced):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drained
    finally:
        await worker.close()
    return 0


def reload(worker: Worker) -> None:
    """SIGHUP."""

    async def work() -> None:
        if worker.access_log is not None:
            worker.access_log.reopen()
        await worker.operator.reload_rules()

    worker.background.spawn(work(), "reload")


def redacted(url: str) -> str:
    """A store's URL without its password."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}***@{rest.rpartition('@')[2]}" if mark and "@" in rest else url


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
