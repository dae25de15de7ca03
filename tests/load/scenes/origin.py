"""The origin of the scenes: ``python -m tests.load.scenes.origin --port 9000`` for an edge of your own.

Rules of this file:

- A GET of any path gets that path's body (body.py) after ``--delay`` milliseconds, or 304 where the client
  has it; ``Cache-Control`` lets it be stored for a minute.
- One request at a time on a connection, as proxies send them. It ends with SIGTERM or, held, with its
  standard input, so that it outlives nobody who holds that.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from tests.load.scenes.body import body_of, etag_of

CACHE_CONTROL = "max-age=60, stale-while-revalidate=30, stale-if-error=3600"


class Origin(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end].decode("latin-1"), self._buffer[end + 4 :]
            self._loop.call_later(self._delay, self._answer, head)

    def _answer(self, head: str) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer(head))


def answer(head: str) -> bytes:
    """To a request with this ``head``, its last empty line left out."""
    path = head.split(" ", 2)[1]
    etag = etag_of(path)
    fields = f"ETag: {etag}\r\nCache-Control: {CACHE_CONTROL}\r\n"
    if f"if-none-match: {etag}" in head.lower():
        return f"HTTP/1.1 304 Not Modified\r\n{fields}\r\n".encode()
    body = body_of(path)
    fields += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + body


class _UntilEnd(asyncio.Protocol):
    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended.set()


async def serve(port: int, delay: float, *, held: bool) -> None:
    """Print the port, and answer on it. ``delay`` in seconds; ``held``: until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Origin(delay), "127.0.0.1", port, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, ended.set)
    if held:
        await loop.connect_read_pipe(lambda: _UntilEnd(ended), sys.stdin)
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.scenes.origin", description="The origin of the load scenes."
    )
    parser.add_argument("--port", type=int, default=9000, help="where it listens, on 127.0.0.1 (%(default)s)")
    parser.add_argument(
        "--delay", type=float, default=20, metavar="MS", help="before each answer (%(default)s ms)"
    )
    parser.add_argument("--held", action="store_true", help="end when standard input ends")
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.delay / 1000, held=args.held))


if __name__ == "__main__":
    main()
