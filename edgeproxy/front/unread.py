"""Ends the connection of a client that does not read.

Rules of this file:

- One that takes nothing between two looks is gone (Unread). One that is slow may take long, but not for ever
  (Pace): each octet it has taken of an answer buys it time, at the least rate that is allowed.
- The kernel would take megabytes for a client that does not read, as fast as we can copy them: it is told to
  hold little that is not on its way (``hold_little``).
- Octets in the kernel's send buffer count too: the kernel asks for more only when a good part of it is free
  (it may hold megabytes), and a client that reads slowly must not be taken for one that does not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import WriteTransport

    from edgeproxy.clock import Clock, Timer

PATIENCE = 60.0
"""Seconds between two looks while an answer is being written."""
FAREWELL = 10.0
"""Seconds between two looks after a connection was closed with octets still unsent."""
GRACE = 20.0
"""Seconds that an answer may wait for its client, however slow that is."""


UNSENT = 256 * 1024
"""Octets of a connection that the kernel takes beyond those that are on their way."""


def hold_little(listen: socket.socket) -> None:
    """Of each connection that ``listen`` will accept: they inherit it, so none of them pays for it."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not every system has it
    if option is not None and listen.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            listen.setsockopt(socket.IPPROTO_TCP, option, UNSENT)


def unsent(transport: WriteTransport) -> int:
    """Octets handed to ``transport`` that the client has not confirmed; 0 when its own buffer is empty."""
    try:
        waiting = transport.get_write_buffer_size()
    except AttributeError:
        return 0  # asyncio's TLS transport, once it is lost
    sock = transport.get_extra_info("socket")
    if not waiting or sock is None:
        return waiting
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):
        return waiting  # not every system tells
    return waiting + int(queued)


class Unread:
    """Looks every ``seconds`` whether less is unsent than before; aborts ``transport`` where not. It ends by
    itself when the transport's buffer is empty."""

    __slots__ = ("_clock", "_seconds", "_timer", "_transport", "_unsent")

    def __init__(self, clock: Clock, transport: WriteTransport, seconds: float) -> None:
        self._clock = clock
        self._transport = transport
        self._seconds = seconds
        self._unsent = unsent(transport)
        self._timer: Timer = clock.call_later(seconds, self._look)

    def _look(self) -> None:
        before, self._unsent = self._unsent, unsent(self._transport)
        if not self._unsent:
            return
        if self._unsent >= before:
            self._transport.abort()
            return
        self._timer = self._clock.call_later(self._seconds, self._look)

    def cancel(self) -> None:
        self._timer.cancel()


class Pace:
    """Of one answer. Its client has to take ``least`` octets a second while it is waited for; 0: any."""

    __slots__ = ("_began", "_clock", "_handed", "_least", "_timer", "_transport", "_waited")

    def __init__(self, clock: Clock, least: float) -> None:
        self._clock = clock
        self._least = least
        self._waited = 0.0

    def begin(self, transport: WriteTransport, handed: int) -> None:
        """It is waited for; ``handed``: octets of the answer that the transport was given so far."""
        self._transport = transport
        self._handed = handed
        self._began = self._clock.monotonic()
        self._timer: Timer | None = None
        if self._least:
            self._timer = self._clock.call_later(max(0.0, self._left()), self._look)

    def end(self) -> None:
        """It has taken enough."""
        self._waited += self._clock.monotonic() - self._began
        if self._timer is not None:
            self._timer.cancel()

    def _left(self) -> float:
        taken = max(0, self._handed - unsent(self._transport))
        waited = self._waited + self._clock.monotonic() - self._began
        return GRACE + taken / self._least - waited

    def _look(self) -> None:
        left = self._left()
        if left <= 0:
            self._transport.abort()
        else:
            self._timer = self._clock.call_later(left, self._look)
