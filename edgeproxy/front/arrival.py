"""What comes before HTTP on a connection: a head of the PROXY protocol, and TLS behind it.

Rules of this file:

- For listeners with the PROXY protocol. Where there is TLS alone, see handshake.py.
- A connection has its place (doors.py) and its time (heads.py) from its first octet on, so that a flood of
  heads and handshakes that never end is bounded like everything else.
- The PROXY protocol is spoken by the peers that the operator names, and by these always: of all others its
  octets are bad HTTP. Where some are named, with TLS others are refused: only they are to come.
- Exactly a head's octets are read; those behind it are TLS's or HTTP's. So reading can be paused in time for
  TLS to begin: not in ``connection_made``, but when the head's last octets have come.
- When HTTP begins, the connection is an EdgeProtocol's and nothing of this file is in its way.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.front.handshake import GOODBYE, Between, Handshake, TlsListener
from edgeproxy.front.proxy_head import (
    FIXED,
    LONGEST_LINE,
    SIGNATURE,
    NotAHead,
    client_of,
    client_of_line,
    length_of,
)

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine, Mapping

    from edgeproxy.front.server import EdgeProtocol, EdgeServer
    from edgeproxy.front.tls import Certificates
    from edgeproxy.networks import Networks

log = logging.getLogger("edgeproxy.front")


class Arrivals:
    """Those of one listener. ``proxies``: peers that speak the PROXY protocol; ``seconds`` for
    the TLS handshake."""

    def __init__(
        self,
        server: EdgeServer,
        *,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        certificates: Certificates | None,
        proxies: Networks,
        seconds: float,
    ) -> None:
        self.server = server
        self.spawn = spawn
        self.certificates = certificates
        self.proxies = proxies
        self.seconds = seconds
        self.under_way: set[Arrival | Handshake] = set()
        self.heads_refused = self.handshakes_failed = 0

    async def listen(self, sock: socket.socket, backlog: int) -> TlsListener | asyncio.Server:
        """Raises OSError."""
        certificates = self.certificates
        if certificates is not None and not self.proxies:
            listener = TlsListener(self, sock, lambda: certificates.context)
            listener.open(backlog)
            return listener
        return await asyncio.get_running_loop().create_server(
            lambda: Arrival(self), sock=sock, backlog=backlog
        )

    def close(self) -> None:
        """End those that have not come to HTTP."""
        for arrival in list(self.under_way):
            arrival.head_is_late()

    def silent(self) -> list[Handshake]:
        """Those that have not begun."""
        return [each for each in self.under_way if isinstance(each, Handshake) and each.silent]

    def numbers(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "arriving": len(self.under_way),
            "proxy_heads_refused": self.heads_refused,
            "tls_handshake_failures": self.handshakes_failed,
        }


class Arrival(asyncio.BufferedProtocol):
    """One connection, until HTTP begins."""

    head_is_missing = True
    """For heads.py: while it is here, it is."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._all = arrivals
        self._edge = arrivals.server
        self._transport: asyncio.Transport | None = None
        self._client = ""
        self._place: str | None = None
        self._buffer = bytearray(len(SIGNATURE))
        self._have = 0
        self._handshaking: asyncio.Task[None] | None = None

    # -- the connection ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) else ""
        self._place = self._edge.doors.enter(self._client)
        if self._place is None:
            transport.abort()
            return
        self._all.under_way.add(self)
        self._edge.heads.expect(self)
        if self._client not in self._all.proxies:
            if self._all.certificates is None:
                self._go_on()
            else:
                self._all.heads_refused += 1
                self.head_is_late()

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._leave()

    def head_is_late(self) -> None:
        if self._handshaking is not None:
            self._handshaking.cancel()  # uvloop does not tell it of a transport that is aborted
        elif self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        self._all.under_way.discard(self)
        self._edge.heads.forget(self)
        if self._place is not None:
            self._edge.doors.leave(self._place)
            self._place = None

    # -- the PROXY protocol -----------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Room for what is missing of the head, and for no octet more."""
        return memoryview(self._buffer)[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._have < len(self._buffer):
            return
        try:
            more = self._wanted()
        except NotAHead as error:
            self._all.heads_refused += 1
            log.info("%s is to speak the PROXY protocol: %s", self._client, error)
            self.head_is_late()
            return
        if more:
            self._buffer = self._buffer + bytes(more)  # a new one: the loop still holds the other
        else:
            self._go_on()

    def _wanted(self) -> int:
        """Octets that are still missing; where none are, the client is known. Raises NotAHead."""
        came = bytes(self._buffer)
        told: str | None
        if came.startswith(SIGNATURE):
            if len(came) < FIXED:
                return FIXED - len(came)
            missing = FIXED + length_of(came[:FIXED]) - len(came)
            if missing:
                return missing
            told = client_of(came[:FIXED], came[FIXED:])
        else:
            if came.startswith(b"PROXY ") and not came.endswith(b"\n") and len(came) < LONGEST_LINE:
                return 1  # where the line ends nobody knows before it does
            told = client_of_line(came)
        self._client = told or self._client
        return 0

    # -- on to TLS and HTTP -----------------------------------------------------------------------------

    def _go_on(self) -> None:
        transport = self._transport
        assert transport is not None  # noqa: S101
        if self._have:  # whoever it speaks for is counted now
            doors = self._edge.doors
            assert self._place is not None  # noqa: S101
            doors.leave(self._place)
            self._place = doors.enter(self._client)
            if self._place is None:
                transport.abort()
                return
        if self._all.certificates is None:
            transport.set_protocol(self._handed_over())
            self._edge_protocol.connection_made(transport)
        else:
            transport.pause_reading()
            self._handshaking = self._all.spawn(
                self._handshake(transport, self._all.certificates.context), "TLS handshake"
            )

    def _handed_over(self) -> EdgeProtocol:
        """The protocol that has our place from now on."""
        protocol = self._edge_protocol = self._edge()
        protocol.client, protocol.place = self._client, self._place
        self._place = self._transport = None
        self._leave()
        return protocol

    async def _handshake(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        between = Between()
        tls = None
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport,
                between,
                context,
                server_side=True,
                ssl_handshake_timeout=self._all.seconds,
                ssl_shutdown_timeout=GOODBYE,
            )
        except (OSError, EOFError) as error:  # ssl.SSLError is one; an EOFError where the client left
            self._all.handshakes_failed += 1
            log.debug("no TLS with %s: %s", self._client, error)
        finally:
            if tls is None or between.lost:
                transport.abort()
                self._transport = None
                self._leave()
        if tls is not None and not between.lost:
            between.hand_over(tls, self._handed_over())
