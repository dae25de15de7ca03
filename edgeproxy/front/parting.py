"""What a worker that is to end owes to its connections.

Rules of this file:

- A connection on which nothing is under way may be closed, unless octets of a request lie in its socket that
  nobody has read yet: closing it would throw them away, and the client may not be able to send them again.
- Where a system does not tell what lies in a socket, nothing does.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport


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
