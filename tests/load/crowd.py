"""Those who stand beside the load, in a process of their own: ``-m tests.load.crowd PORT IDLE SLOW READERS``.

Rules of this file:

- *Idle* clients ask once and stay. *Slow* ones send a head an octet a second, and come back when they are
  shut out. *Readers* ask for a large answer, take a thousand octets of it a second, and come back as well.
- It costs nearly nothing: one timer for all of them, and a line for each to say.
- It prints ``idle N`` once the idle ones are there, brings the others when a line comes in, prints ``here``,
  and ends with its standard input: then it prints what became of them.
- A reader's receive buffer is small: what the kernel would swallow for it is not what a slow client takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys

import uvloop

REQUEST = b"GET /o/0 HTTP/1.1\r\nHost: load.test\r\n\r\n"
LARGE = b"GET /big HTTP/1.1\r\nHost: load.test\r\n\r\n"
AT_ONCE = 64
RATE = 1000
RECEIVE = 16 * 1024


class Idle(asyncio.Protocol):
    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.lost = True
        if not self.answered.done():
            self.answered.set_exception(ConnectionError("an idle client was not answered"))


class Dawdler:
    """A connection that is looked after once a second. ``comebacks``: times it was shut out."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self.comebacks = -1

    async def connect(self) -> None:
        self.comebacks += 1
        sock = self._socket = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        self.begin(sock)

    async def look(self) -> None:
        sock = self._socket
        if sock is not None:
            try:
                if self.go_on(sock):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            sock.close()
        try:
            await self.connect()
        except OSError:
            self._socket = None

    def begin(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def go_on(self, sock: socket.socket) -> bool:
        """False where it was shut out."""
        raise NotImplementedError


class Slow(Dawdler):
    def begin(self, sock: socket.socket) -> None:  # noqa: ARG002 - nothing yet
        self._at = 0

    def go_on(self, sock: socket.socket) -> bool:
        if self._at < len(REQUEST):
            sock.send(REQUEST[self._at : self._at + 1])
            self._at += 1
        return bool(sock.recv(4096))


class Reader(Dawdler):
    taken = 0

    def begin(self, sock: socket.socket) -> None:
        sock.send(LARGE)

    def go_on(self, sock: socket.socket) -> bool:
        came = len(sock.recv(RATE))
        self.taken += came
        return came > 0


async def crowd(port: int, idle: int, slow: int, readers: int) -> None:
    loop = asyncio.get_running_loop()
    staying: list[Idle] = []
    while len(staying) < idle:
        some = [Idle() for _ in range(min(AT_ONCE, idle - len(staying)))]
        for each in some:
            await loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.gather(*(each.answered for each in some))
        staying += some
    _say(f"idle {idle}")
    ended, told = asyncio.Event(), asyncio.Event()
    await loop.connect_read_pipe(lambda: Told(told, ended), sys.stdin)
    await told.wait()
    others: list[Dawdler] = [Slow(port) for _ in range(slow)] + [Reader(port) for _ in range(readers)]
    for number, one in enumerate(others):
        await one.look()
        if number % AT_ONCE == 0:
            await asyncio.sleep(0.01)
    _say("here")
    due = loop.time()
    while not ended.is_set():
        due += 1.0
        for number, one in enumerate(others):
            await one.look()
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), max(0.0, due - loop.time()))
    lost = sum(each.lost for each in staying)
    back = sum(one.comebacks for one in others if isinstance(one, Slow))
    broken = sum(one.comebacks for one in others if isinstance(one, Reader))
    taken = sum(one.taken for one in others if isinstance(one, Reader))
    _say(f"{lost} {back} {broken} {taken}")


class Told(asyncio.Protocol):
    """By standard input: to go on, and to end."""

    def __init__(self, told: asyncio.Event, ended: asyncio.Event) -> None:
        self._told = told
        self._ended = ended

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - any line will do
        self._told.set()

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._told.set()
        self._ended.set()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(crowd(*map(int, sys.argv[1:5])))
