"""A TCP proxy that can be told to misbehave, for the connection to a store or an origin.

Rules of this file:

- One toxic state at a time, set by a method, in force at once for open connections too; ``heal()`` ends it.
- What it does is what a network does: ``delay`` holds bytes back, ``hang`` accepts and swallows, ``reset``
  answers with RST, ``cut`` lets some octets of the answer through and then ends the connection,
  ``refuse`` takes the listener away (the port stays ours).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum, auto
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 65536


class Toxic(Enum):
    NONE = auto()
    DELAY = auto()
    HANG = auto()
    RESET = auto()
    CUT = auto()
    REFUSE = auto()


def reset_transport(transport: asyncio.BaseTransport) -> None:
    """Close with RST instead of FIN (SO_LINGER on, zero seconds)."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert hasattr(transport, "abort")  # uvloop's are no subclasses
    transport.abort()


class ToxicProxy:
    """``async with ToxicProxy("127.0.0.1", 6379) as proxy:``, then use ``proxy.host`` and ``.port``."""

    host = "127.0.0.1"

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()
        self.port = 0
        self.state = Toxic.NONE
        self.accepted = 0
        """Connections accepted so far."""
        self._delay = 0.0
        self._cut_after = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _set(self, state: Toxic) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def delay(self, seconds: float) -> None:
        """Hold each piece back for so many real seconds, in both directions."""
        self._delay = seconds
        self._set(Toxic.DELAY)

    def hang(self) -> None:
        """Accept connections and pass nothing on, for ever."""
        self._set(Toxic.HANG)

    def reset(self) -> None:
        """RST every connection, the open ones and those to come."""
        self._set(Toxic.RESET)
        self.drop()

    def cut(self, after: int = 0) -> None:
        """On each connection let ``after`` more octets of the answer through, then end it (FIN)."""
        self._cut_after = after
        self._set(Toxic.CUT)

    async def refuse(self) -> None:
        """Drop all connections and refuse new ones."""
        self._set(Toxic.REFUSE)
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    async def heal(self) -> None:
        """Behave again. Bytes held back by ``hang`` go through."""
        self._set(Toxic.NONE)
        await self._listen()

    def drop(self) -> None:
        """RST the connections that are open now."""
        for writer in list(self._writers):
            reset_transport(writer.transport)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            if self.state is Toxic.RESET:
                reset_transport(writer.transport)
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers.add(far_writer)
            await asyncio.gather(
                self._pipe(reader, far_writer, answer=False), self._pipe(far_reader, writer, answer=True)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            self._tasks.discard(task)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answer: bool) -> None:
        left: int | None = None
        while True:
            piece = await source.read(_CHUNK)
            while self.state is Toxic.HANG:
                await self._changed.wait()
            if self.state is Toxic.DELAY:
                await asyncio.sleep(self._delay)
            if self.state is Toxic.CUT and answer:
                left = self._cut_after if left is None else left
                sink.write(piece[:left])
                left -= len(piece)
                if left <= 0:
                    await sink.drain()
                    raise ConnectionAbortedError
                continue
            if not piece:
                if sink.can_write_eof():
                    sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()
