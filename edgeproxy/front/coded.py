"""Bodies on their way, coded as they pass: once for each client, or once for all who share one.

Rules of this file:

- Each piece is flushed: an event must not wait for the next.
- A body that many are reading is coded once per coding: one task reads it as one more client and feeds a
  shared body of its own, which everybody who wants that coding reads from its first octet. It breaks off
  where the plain one does, is held back by its slowest reader where the plain one is, and who comes too late
  for it codes for himself.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

import brotli

from edgeproxy.engine.body import SharedReader, pump

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.engine.background import Background
    from edgeproxy.engine.exchange import Reader

    Beside = Callable[[Callable[[bytes], bytes], bytes], Awaitable[bytes]]
    """Codes a piece, off the loop where it is large."""


class _Packer(Protocol):
    def process(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def finish(self) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._z = zlib.compressobj(6, zlib.DEFLATED, 31)

    def process(self, data: bytes) -> bytes:
        return self._z.compress(data)

    def flush(self) -> bytes:
        return self._z.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._z.flush()


class CodedReader:
    """Another reader's body in ``coding``. ``beside`` None: on the loop."""

    def __init__(self, reader: Reader, coding: str, beside: Beside | None = None) -> None:
        self._reader = reader
        self._packer: _Packer = brotli.Compressor(quality=4) if coding == "br" else _Gzip()
        self._beside = beside
        self._done = False
        self.length: int | None = None

    def take_all(self) -> bytes | None:
        whole = self._reader.take_all()
        if whole is None:
            return None
        self._done = True
        return self._packer.process(whole) + self._packer.finish()

    async def read(self) -> bytes:
        while not self._done:
            chunk = await self._reader.read()
            if not chunk:
                self._done = True
                return self._packer.finish()
            coded = self._code(chunk) if self._beside is None else await self._beside(self._code, chunk)
            if coded:
                return coded
        return b""

    def _code(self, chunk: bytes) -> bytes:
        return self._packer.process(chunk) + self._packer.flush()

    def close(self) -> None:
        self._reader.close()


def coded_reader(reader: Reader, coding: str, background: Background, beside: Beside) -> Reader:
    """What to read instead of ``reader``, of which nothing has been read yet. Close both."""
    body = reader.unread_body if isinstance(reader, SharedReader) else None
    if body is None:
        return CodedReader(reader, coding)
    coded = body.coded.get(coding)
    if coded is None:
        coded = body.coded[coding] = body.derived()
        work = pump(CodedReader(body.join(), coding, beside), coded)
        background.spawn(work, f"code {coding}")
    elif not coded.joinable:
        return CodedReader(reader, coding)
    joined = coded.join()
    reader.close()  # it would hold the others back
    return joined
