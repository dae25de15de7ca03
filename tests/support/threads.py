"""A ledger origin beside tests that block: it runs on a loop of its own, in a thread of its own.

Rules of this file: what touches the origin's gates, connections or barriers is run on its loop (``run``);
setting scripts and reading the ledger need no loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tests.support.ledger import LedgerOrigin
from tests.support.origins import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
_PATIENCE = 20.0


@dataclass
class ThreadedOrigin:
    """``ledger`` is the origin itself."""

    ledger: LedgerOrigin
    loop: asyncio.AbstractEventLoop
    threads: ThreadPoolExecutor

    @property
    def url(self) -> str:
        return self.ledger.url

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run ``work`` on the origin's loop; its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE)

    def open(self, gate: str) -> None:
        self.loop.call_soon_threadsafe(self.ledger.gate(gate).open)

    def reached(self, gate: str, n: int = 1) -> None:
        self.run(self.ledger.gate(gate).reached(n))

    def aside(self, call: Callable[[], T]) -> Future[T]:
        """Make a blocking call in another thread."""
        return self.threads.submit(call)


@contextlib.contextmanager
def threaded_origin(*, started: bool = True) -> Iterator[ThreadedOrigin]:
    """``started`` False: it has a port, and nobody listens there until ``run(ledger.start())``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="ledger origin")
    thread.start()
    origin = ThreadedOrigin(LedgerOrigin(), loop, ThreadPoolExecutor(8))
    try:
        if started:
            origin.run(origin.ledger.start())
        else:
            origin.ledger.port = free_port()
        yield origin
    finally:
        origin.run(origin.ledger.stop())
        origin.threads.shutdown()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
