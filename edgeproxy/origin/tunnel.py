"""A connection to the origin that has left HTTP with a 101 (RFC 9110 §7.8, RFC 6455 §4).

Rules of this file:

- Only what accepts this very handshake is a 101: another protocol, or a Sec-WebSocket-Accept that is not
  made of the client's key, is BAD_RESPONSE. Else a client could get past HTTP, and what is checked there, at
  an origin that has not agreed to it.
- Its place at the origin is given back when it is made: sockets that stay open for hours must not keep
  requests waiting. How many there are is bounded by who takes over.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.lists import split_list
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.origin.connection import Connection
    from edgeproxy.policy.head import Headers

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""


def accept_of(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (§4.2.2)."""
    octets = key.encode("latin-1") + GUID
    return base64.b64encode(hashlib.sha1(octets, usedforsecurity=False).digest()).decode()


def check_accepted(request: Headers, answer: Headers) -> None:
    """Raise OriginError(BAD_RESPONSE) where a 101 is not one to this handshake."""
    if split_list((answer.get("upgrade") or "").lower()) != ["websocket"]:
        raise OriginError(OriginFailure.BAD_RESPONSE, "101 to another protocol than asked for")
    accepts = answer.get_all("sec-websocket-accept")
    if [a.strip() for a in accepts] != [accept_of((request.get("sec-websocket-key") or "").strip())]:
        raise OriginError(OriginFailure.BAD_RESPONSE, "101 that does not accept this handshake")


class SwitchedConnection:
    """``Tunnel`` of origin/base.py."""

    __slots__ = ("_connection", "_transport", "length")

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._transport: asyncio.Transport | None = None
        self.length: int | None = None

    def take_all(self) -> bytes | None:
        """It is no body."""
        return None

    async def read(self) -> bytes:
        """It is no body: b""."""
        return b""

    def take_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        connection = self._connection
        if connection is None:
            raise OriginError(OriginFailure.RESET, "closed behind its 101")
        self._transport, early = connection.hand_over(protocol)
        return self._transport, early

    def lost(self, error: BaseException | None) -> None:
        connection, self._connection = self._connection, None
        self._transport = None
        if connection is not None:
            connection.connection_lost(error)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        elif self._connection is not None:
            self._connection.drop()
            self._connection = None
