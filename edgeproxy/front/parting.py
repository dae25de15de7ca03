"""What a worker that is to end owes to its connections.

Rules of this file:

- A connection on which nothing is under way may be closed, unless octets of a request lie in its socket that
  nobody has read yet: closing it would throw them away, and the client may not be able to send them again.
- A client that was not told that its connection ends may be about to send: it has ``grace`` seconds for that,
  from when nothing was under way any more. What it sends is answered, and that it was the last is said then.
- Where a system does not tell what lies in a socket, nothing does.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport, Transport
    from collections.abc import Iterable
    from typing import Protocol

    from edgeproxy.clock import Clock

    class Connection(Protocol):
        @property
        def transport(self) -> Transport | None: ...
        def force_close(self) -> None: ...


def unheard(transport: BaseTransport | None) -> int:
    """Octets that came on a connection and were not read yet. A TLS record not yet whole counts."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        (waiting,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))
    except (OSError, ValueError):
        return 0
    return int(waiting)


class Idle:
    """Of one drain: since when which connections are idle. ``grace``: seconds."""

    def __init__(self, clock: Clock, grace: float) -> None:
        self._clock = clock
        self._grace = grace
        self._since: dict[Connection, float] = {}

    def end(self, idle: Iterable[Connection]) -> None:
        """Close those of ``idle`` that have been so for long enough; to be called again and again."""
        now = self._clock.monotonic()
        self._since = {each: self._since.get(each, now) for each in idle}
        for connection, since in self._since.items():
            if now - since >= self._grace and not unheard(connection.transport):
                connection.force_close()
