"""A listener on which every connection begins with a TLS handshake.

Rules of this file:

- Connections are accepted here and given to the loop with TLS from their first octet on. A loop that is given
  them without may read the client's first octets before TLS can begin on them (uvloop does, paused or not).
- A connection has its place (doors.py) and its time (heads.py) from the beginning: a flood of handshakes that
  never end is bounded like everything else. Who finds no place is cut off.
- Who begins with a letter speaks HTTP without TLS, and is told so; of TLS nothing begins with one.
- Where no descriptor is left, nothing is accepted for PAUSE: the system holds who is waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.front.arrival import Arrivals
    from edgeproxy.front.server import EdgeProtocol

log = logging.getLogger("edgeproxy.front")

GOODBYE = 5.0
"""Seconds for the end of a TLS connection."""
AT_ONCE = 128
"""Connections that are accepted in one turn of the loop."""
PAUSE = 1.0
"""Seconds."""
MOST_READ = 64 * 1024
"""Octets at a time."""
LINGER = 2.0
"""Seconds that a request without TLS is read for, and dropped, when it has been answered."""
_SAYS = (
    b'{"type":"about:blank","title":"The request was refused","status":400,'
    b'"detail":"This port speaks HTTPS: write https:// in place of http://."}'
)
NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_SAYS), _SAYS)
)
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class TlsListener:
    """Accepts on ``sock``, which it closes in the end. ``context`` gives the certificates of the moment."""

    def __init__(
        self, arrivals: Arrivals, sock: socket.socket, context: Callable[[], ssl.SSLContext]
    ) -> None:
        self.arrivals = arrivals
        self.context = context
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._resuming: asyncio.TimerHandle | None = None

    def open(self, backlog: int) -> None:
        """Raises OSError."""
        self._sock.setblocking(False)  # noqa: FBT003
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("nothing is accepted for %.0f s: %s", PAUSE, error)  # noqa: TRY400 - no bug of ours
                self._loop.remove_reader(self._sock)
                self._resuming = self._loop.call_later(PAUSE, self._resume)
                return
            sock.setblocking(False)  # noqa: FBT003
            Handshake(self, sock, peer[0] if isinstance(peer, tuple) else "")

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._sock, self._accept)


class Handshake:
    """One connection, until HTTP begins."""

    head_is_missing = True
    """For heads.py: while it is here, it is."""

    def __init__(self, listener: TlsListener, sock: socket.socket, client: str) -> None:
        self._all = listener.arrivals
        self._context = listener.context
        self._client = client
        self.silent = True
        """Nothing has come."""
        self.transport: asyncio.Transport | None = None
        edge = self._all.server
        self._place = edge.doors.enter(client)
        if self._place is None:
            sock.close()
            return
        self._all.under_way.add(self)
        edge.heads.expect(self)
        self._task = self._all.spawn(self._shake_hands(sock), "TLS handshake")

    def head_is_late(self) -> None:
        self._task.cancel()

    force_close = head_is_late

    async def _shake_hands(self, sock: socket.socket) -> None:
        between = Between()
        tls = None
        try:
            began = await _first_octets(sock)
            self.silent = False
            if began.startswith(b"PROXY "):
                sock.close()
                raise ssl.SSLError("it is the PROXY protocol, which --proxy-protocol names who speaks")
            if began[:1].isalpha():
                await _tell(sock, began)
                raise ssl.SSLError("it is HTTP")
            tls, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: between,
                sock,
                ssl=self._context(),
                ssl_handshake_timeout=self._all.seconds,
                ssl_shutdown_timeout=GOODBYE,
            )
        except (OSError, EOFError) as error:  # ssl.SSLError is one; an EOFError where the client left
            self._all.handshakes_failed += 1
            log.debug("no TLS with %s: %s", self._client, error)
        finally:
            self._all.under_way.discard(self)
            self._all.server.heads.forget(self)
            if tls is None or between.lost:  # the loop, to which it was given, has closed it
                assert self._place is not None  # noqa: S101
                self._all.server.doors.leave(self._place)
        if tls is not None and not between.lost:
            protocol = self._all.server()
            protocol.client, protocol.place = self._client, self._place
            between.hand_over(tls, protocol)


async def _first_octets(sock: socket.socket) -> bytes:
    """Some of what came first, and stays where it is; b"" where the client has left. Raises OSError. Where it
    fails or is cancelled, ``sock`` is closed."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            came: asyncio.Future[None] = loop.create_future()
            try:
                return sock.recv(8, socket.MSG_PEEK)
            except BlockingIOError:
                loop.add_reader(sock, _set, came)
                try:
                    await came
                finally:
                    loop.remove_reader(sock)
    except BaseException:
        sock.close()
        raise


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _tell(sock: socket.socket, began: bytes) -> None:
    """To who speaks HTTP here; and end the connection, when the client has had time to read it: octets of its
    request that come to a closed socket take the answer along."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError), sock:
        head, _, body = NOT_TLS.partition(b"\r\n\r\n")
        sock.send(head + b"\r\n\r\n" + (b"" if began.startswith(b"HEAD ") else body))
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER):
            while await loop.sock_recv(sock, MOST_READ):
                pass


class Between(asyncio.Protocol):
    """Holds what comes between the handshake's end and HTTP's beginning, a turn of the loop later."""

    def __init__(self) -> None:
        self._came: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self._came.append(data)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.lost = True

    def hand_over(self, tls: Any, protocol: EdgeProtocol) -> None:
        """HTTP begins."""
        tls.set_protocol(protocol)
        protocol.connection_made(tls)
        for octets in self._came:
            protocol.data_received(octets)
