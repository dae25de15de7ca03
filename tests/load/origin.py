"""The origin of the overload program, so cheap that the edge is the narrow place: ``-m tests.load.origin``.

Rules of this file: whatever is asked for is answered with OBJECT octets, /big with as many MiB as the program
was told. It prints its port and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from email.utils import formatdate

import uvloop

OBJECT = 10 * 1024
DATE = formatdate(usegmt=True).encode()
HEAD = b"HTTP/1.1 200 OK\r\nDate: " + DATE + b"\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
PLAIN = HEAD % OBJECT + bytes(OBJECT)
SLICE = bytes(256 * 1024)
END = b"\r\n\r\n"


class Origin(asyncio.Protocol):
    """One connection. ``big``: slices of the large answer."""

    def __init__(self, big: int) -> None:
        self._big = big
        self._left = 0
        self._paused = False
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self._buffer and not self._left and data.find(END) == len(data) - 4:
            self._answer(data)
            return
        self._buffer += data
        self._next()

    def _next(self) -> None:
        while not self._left and (end := self._buffer.find(END)) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"GET /big"):
            self._left = self._big
            self._transport.write(HEAD % (self._big * len(SLICE)))
            self._send_on()
        elif not head.startswith(b"GET /hang"):
            self._transport.write(PLAIN)

    def _send_on(self) -> None:
        while self._left and not self._paused:
            self._left -= 1
            self._transport.write(SLICE)
        self._next()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_on()


class UntilEnd(asyncio.Protocol):
    """Of standard input: whoever started the process has gone."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended.set()


async def serve(big: int) -> None:
    """``big``: MiB of the large answer."""
    loop = asyncio.get_running_loop()
    slices = big * 2**20 // len(SLICE)
    server = await loop.create_server(lambda: Origin(slices), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    await loop.connect_read_pipe(lambda: UntilEnd(ended), sys.stdin)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
