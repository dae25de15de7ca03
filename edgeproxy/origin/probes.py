"""Finding out that an origin's host is gone, on a connection where silence means nothing.

Rules of this file: the kernel asks (TCP keep-alive), and a host that does not answer for about two minutes
ends the connection with a reset. Where the system has no such options it is as if this file were not here.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

IDLE, EVERY, PROBES = 60, 15, 4
"""Seconds of silence, seconds between two probes, and how many."""


def keep_asking(transport: asyncio.BaseTransport | None) -> None:
    """Have the kernel look after ``transport``'s peer."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, EVERY)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
