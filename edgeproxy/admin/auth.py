"""Who may read and who may change things on the admin port.

Rules of this file:

- Changes need ``Authorization: Bearer`` with the write token, everywhere. Reads need the read or the write
  token, except on a loopback address without a read token, where a wrong one is no worse than none. The
  probes (/healthz, /readyz) need none: they say "alive" and "ready" and no more.
- Tokens are compared in constant time.
- No CORS: another site's page can neither read nor change. A change that a browser says comes from another
  site is refused even with a token. Reads without a token are answered only to an address or ``localhost``
  in Host, so that a foreign name that was re-bound to 127.0.0.1 gets nothing.
- An address that is not loopback is not served without a token: ``check_admin_address``.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgeproxy.admin.problem import Problem

if TYPE_CHECKING:
    from aiohttp import web

_CHALLENGE = 'Bearer realm="edgeproxy admin"'
_HINT = (
    "no admin token is set, so nothing can be changed: start edgeproxy with EDGEPROXY_ADMIN_TOKEN set (or a "
    "token file) and send it as 'Authorization: Bearer TOKEN'"
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``: 127.0.0.0/8, ::1 or ``localhost``."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def check_admin_address(host: str, token: str | None) -> None:
    """Raise ValueError, one clear line, for an address that others can reach without a token."""
    if not is_loopback(host) and not token:
        raise ValueError(
            f"the admin port on {host or 'every address'} could be reached by others: set "
            "EDGEPROXY_ADMIN_TOKEN (or a token file), or use 127.0.0.1"
        )


@dataclass(frozen=True, slots=True)
class Auth:
    """``loopback``: the listener is reached from this machine only. "" counts as no token.

    Raises ValueError for a token that no header can carry.
    """

    write_token: str | None = None
    read_token: str | None = None
    loopback: bool = True

    def __post_init__(self) -> None:
        for token in (self.write_token, self.read_token):
            # RFC 6750 §2.1 allows less; what matters is that it can be sent at all.
            if token and not all("!" <= character <= "~" for character in token):
                raise ValueError("an admin token is made of visible ASCII characters without spaces")

    def check_read(self, request: web.Request) -> None:
        """Raise Problem unless the request may read."""
        is_open = self.loopback and not self.read_token
        sent = _bearer(request, strict=not is_open)
        if sent is not None and (self._is(sent, self.write_token) or self._is(sent, self.read_token)):
            return
        if not is_open:
            if sent is not None:
                raise _unauthorized("this token is not known here", error="invalid_token")
            raise _unauthorized("reading needs a token here: send 'Authorization: Bearer TOKEN'")
        if not _names_this_machine(request.headers.get("Host", "")):
            raise Problem(
                421,
                "without a token, only requests to an IP address or to localhost are answered; the Host "
                "field names something else",
            )

    def check_write(self, request: web.Request) -> None:
        """Raise Problem unless the request may change things."""
        _check_site(request)
        if not self.write_token:
            raise Problem(403, _HINT)
        sent = _bearer(request)
        if sent is None:
            raise _unauthorized("changing things needs 'Authorization: Bearer TOKEN'")
        if self._is(sent, self.write_token):
            return
        if self._is(sent, self.read_token):
            raise Problem(
                403,
                "this token may read, not change things",
                {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope"'},
            )
        raise _unauthorized("this token is not known here", error="invalid_token")

    @staticmethod
    def _is(sent: bytes, token: str | None) -> bool:
        return bool(token) and hmac.compare_digest(sent, (token or "").encode("ascii"))


def _unauthorized(detail: str, error: str = "") -> Problem:
    challenge = f'{_CHALLENGE}, error="{error}"' if error else _CHALLENGE
    return Problem(401, detail, {"WWW-Authenticate": challenge})


def _bearer(request: web.Request, *, strict: bool = True) -> bytes | None:
    """The token that was sent, as octets; None where there is none. ``strict``: refuse other schemes."""
    value = request.headers.get("Authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer":
        if not strict:
            return None
        raise _unauthorized("of the schemes of Authorization, only Bearer is taken here")
    return token.strip().encode("utf-8", "surrogateescape")


def _check_site(request: web.Request) -> None:
    """Refuse what a browser says another site began (Fetch Metadata; the Origin field of old browsers)."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Problem(403, "changes that another site's page asks for are refused")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
        raise Problem(403, "changes that another site's page asks for are refused")


def _names_this_machine(host: str) -> bool:
    """An IP literal or localhost, with or without a port."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or _address(name) is not None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
