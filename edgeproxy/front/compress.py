"""Codings made at the edge: once per entry, off the event loop when large, better later when hot.

Rules of this file:

- The identity body is kept; each coding is stored beside it, once. Which coding a client gets is policy
  (policy/coding.py); this file only makes it.
- Small bodies are coded in place: a thread costs more. Larger ones go to a worker thread (Brotli and zlib
  release the GIL), and who asks meanwhile shares that one run.
- A coding that does not make the body smaller is not used.
"""

from __future__ import annotations

import asyncio
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import brotli

from edgeproxy.front.coded import coded_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.engine.background import Background
    from edgeproxy.engine.exchange import Reader
    from edgeproxy.store.entry import Entry

INLINE = 16 * 1024
"""Octets up to which a body is coded on the loop (about 0.3 ms of Brotli at quality 5)."""
HOT = 10
"""Hits after which an entry is coded again, better, in the background."""
BEST = 2 * 1024 * 1024
"""Octets up to which the best quality is worth its seconds of a core."""


def encode(coding: str, data: bytes, *, best: bool = False) -> bytes:
    """``data`` in ``coding`` ("br" or "gzip")."""
    if coding == "br":
        return brotli.compress(data, quality=11 if best else 5)  # type: ignore[no-any-return]
    packer = zlib.compressobj(9 if best else 6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


class Compressor:
    """Per worker. ``update`` tells the store that an entry has grown a coding."""

    def __init__(self, background: Background, update: Callable[[Entry], None]) -> None:
        self._background = background
        self._update = update
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="compress")
        self._patient = ThreadPoolExecutor(1, thread_name_prefix="refine")
        """The best quality takes seconds: nobody who waits for a first coding shall wait for that."""
        self._running: dict[tuple[int, str], tuple[Entry, asyncio.Future[bytes]]] = {}
        """By identity; the entry is held, lest another be given its identity meanwhile."""
        self._closed = False

    async def coded(self, entry: Entry, coding: str) -> bytes | None:
        """The entry's body in ``coding``; None where that would not be smaller."""
        if self.at_once(entry, coding):
            return self.coded_now(entry, coding)
        key = (id(entry), coding)
        running = self._running.get(key)
        if running is None:
            loop = asyncio.get_running_loop()
            running = (entry, loop.run_in_executor(self._threads, encode, coding, entry.body))
            self._running[key] = running
            running[1].add_done_callback(lambda _: self._running.pop(key, None))
        return self._keep(entry, coding, await asyncio.shield(running[1]))

    @staticmethod
    def at_once(entry: Entry, coding: str) -> bool:
        """Whether ``coded_now`` can be asked: the coding is there, or made as fast as a thread is told to."""
        return coding in entry.codings or len(entry.body) <= INLINE

    def coded_now(self, entry: Entry, coding: str) -> bytes | None:
        """As ``coded``, without waiting."""
        body = entry.codings.get(coding)
        if body is None:
            return self._keep(entry, coding, encode(coding, entry.body))
        self.hot(entry, coding)
        return body or None

    def _keep(self, entry: Entry, coding: str, body: bytes) -> bytes | None:
        if coding not in entry.codings:
            entry.codings[coding] = body if len(body) < len(entry.body) else b""
            self._update(entry)
        return entry.codings[coding] or None

    def hot(self, entry: Entry, coding: str) -> None:
        """The entry is being hit in this coding: is it worth coding it better, once?"""
        if entry.hits < HOT or coding in entry.refined or len(entry.body) > BEST or not entry.codings[coding]:
            return
        entry.refined += (coding,)
        self._background.spawn(self._refine(entry, coding), "better coding")

    async def _refine(self, entry: Entry, coding: str) -> None:
        loop = asyncio.get_running_loop()
        better = await loop.run_in_executor(self._patient, lambda: encode(coding, entry.body, best=True))
        if len(better) < len(entry.codings[coding]):
            entry.codings[coding] = better
            self._update(entry)

    def stream(self, reader: Reader, coding: str) -> Reader:
        """A body on its way in ``coding``: what to read instead of ``reader``. Close both."""
        return coded_reader(reader, coding, self._background, self._piece)

    async def _piece(self, code: Callable[[bytes], bytes], piece: bytes) -> bytes:
        if len(piece) <= INLINE or self._closed:
            return code(piece)
        return await asyncio.get_running_loop().run_in_executor(self._threads, code, piece)

    def close(self) -> None:
        self._closed = True
        for threads in (self._threads, self._patient):
            threads.shutdown(wait=False, cancel_futures=True)
