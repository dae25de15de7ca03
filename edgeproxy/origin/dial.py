"""Where the origin is, and how a connection to it is opened.

Rules of this file:

- An address is checked once, at start: a wrong one is a ValueError with one clear line.
- Names are resolved when connecting, never before and never remembered: an origin that moves is followed, as
  soon as connections to where it was have come of age (pool.py).
  All its addresses are tried, the families in turn, the next one beginning before the last has failed
  (RFC 8305; uvloop's own create_connection would wait for each).
- Every way of failing has its own OriginFailure; that we have no descriptor left is none of the origin's.
- The connect timeout covers name, TCP and TLS together, unless TLS has one of its own; both run on the given
  clock.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohappyeyeballs

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock, Timer

    _AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

P = TypeVar("P", bound=asyncio.Protocol)

_NEXT_ADDRESS_AFTER = 0.25
"""Seconds until the next address is tried beside the last (RFC 8305 §5: 250 ms)."""
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """An origin: TCP ``host`` and ``port``, or the path of a Unix socket."""

    host: str
    port: int
    tls: bool
    unix: str | None
    authority: str
    """What Host says when the client named none."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """``http://host[:port]``, ``https://host[:port]`` or ``unix:/path``. Raises ValueError."""
        expected = "expected http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH"
        if url.startswith("unix:"):
            path = url.removeprefix("unix:")
            if not path.startswith("/"):
                raise ValueError(f"origin {url!r}: {expected}")
            return cls("", 0, tls=False, unix=path, authority="localhost")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"origin {url!r}: {error}; {expected}") from None
        if parts.scheme not in _DEFAULT_PORT or not host or "@" in parts.netloc or not url.isascii():
            raise ValueError(f"origin {url!r}: {expected}")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError(f"origin {url!r}: the target comes from the request; {expected}")
        return cls(
            host, port or _DEFAULT_PORT[parts.scheme],
            tls=parts.scheme == "https", unix=None, authority=parts.netloc,
        )  # fmt: skip

    @property
    def is_name(self) -> bool:
        """Whether it has to be looked up, and may be found elsewhere the next time."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return self.unix is None
        return False


def _failure(error: OSError) -> OriginFailure:
    """Of connecting."""
    ours = error.errno in (errno.EMFILE, errno.ENFILE)
    return OriginFailure.OVERLOADED if ours else OriginFailure.REFUSED


def default_tls() -> ssl.SSLContext:
    """Verified against the system's authorities, HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Deadline:
    """What of connecting is due, and what it is called when it is late."""

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._timer: Timer | None = None
        self.scope: asyncio.Timeout | None = None
        self.failure = OriginFailure.CONNECT_TIMEOUT

    def set(self, seconds: float, failure: OriginFailure) -> None:
        self.cancel()
        self.failure = failure
        self._timer = self._clock.call_later(seconds, self._ring)

    def _ring(self) -> None:
        if self.scope is not None:
            self.scope.reschedule(self._loop.time())

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Dialer:
    """``tls_timeout`` None: the handshake is part of ``timeout``. ``server_name``: the name in SNI and in the
    certificate, the URL's host unless given."""

    def __init__(
        self,
        address: Address,
        clock: Clock,
        timeout: float,
        tls_timeout: float | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        self._address = address
        self._clock = clock
        self._timeout = timeout
        self._tls_timeout = tls_timeout
        self._tls = (tls or default_tls()) if address.tls else None
        self._server_name = (server_name or address.host) if address.tls else None

    async def connect(self, factory: Callable[[], P]) -> P:
        """A connected protocol. Raises OriginError: DNS, REFUSED, CONNECT_TIMEOUT, TLS, TLS_TIMEOUT."""
        loop = asyncio.get_running_loop()
        deadline = _Deadline(self._clock, loop)
        try:
            # asyncio.timeout is driven by the loop's clock; ours ends it by moving its deadline to now.
            async with asyncio.timeout(None) as scope:
                deadline.scope = scope
                deadline.set(self._timeout, OriginFailure.CONNECT_TIMEOUT)
                try:
                    return await self._open(loop, factory, deadline)
                finally:
                    deadline.cancel()
        except TimeoutError as error:  # ours, or the system's own ETIMEDOUT
            raise OriginError(deadline.failure, str(error)) from error

    async def _open(
        self, loop: asyncio.AbstractEventLoop, factory: Callable[[], P], deadline: _Deadline
    ) -> P:
        address = self._address
        if address.unix is not None:
            try:
                _, protocol = await loop.create_unix_connection(factory, address.unix)
            except OSError as error:
                raise OriginError(_failure(error), str(error)) from error
            return protocol
        found = await self._resolve(loop)
        try:
            sock = await aiohappyeyeballs.start_connection(
                found, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, interleave=1, loop=loop
            )
        except TimeoutError:
            raise
        except OSError as error:
            raise OriginError(_failure(error), str(error)) from error
        if self._tls is not None and self._tls_timeout is not None:
            deadline.set(self._tls_timeout, OriginFailure.TLS_TIMEOUT)
        try:
            _, protocol = await loop.create_connection(
                factory, sock=sock, ssl=self._tls, server_hostname=self._server_name
            )
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):  # SSLError is one
                failure = OriginFailure.REFUSED if self._tls is None else OriginFailure.TLS
                raise OriginError(failure, str(error)) from error
            raise
        return protocol

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[_AddrInfo]:
        host, port = self._address.host, self._address.port
        try:
            family = socket.AF_INET if ipaddress.ip_address(host).version == 4 else socket.AF_INET6
        except ValueError:
            try:
                return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                raise OriginError(OriginFailure.DNS, f"{host}: {error}") from error
        sockaddr = (host, port) if family is socket.AF_INET else (host, port, 0, 0)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr)]
