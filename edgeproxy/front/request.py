"""What aiohttp's strict parser accepted -> a RequestHead, or the reason why it is refused.

Rules of this file:

- Octets stay octets: the target and the fields are Latin-1 views of what came over the wire.
- The authority is decided here, once: an absolute-form target's wins over Host (RFC 9112 §3.2.2); exactly
  one Host is required of HTTP/1.1 (§3.2). Two meanings of one request are refused, not resolved.
- The parser takes a list of transfer codings that ends in chunked. What comes before chunked would be lost on
  the way to the origin, and an empty field is one that others may read otherwise: 501 (RFC 9112 §6.1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.lists import OWS

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
CHUNKED = "chunked"
MOST_HOPS = 24
"""Members of Via: who comes through so many proxies goes round in circles."""
HTTP_1_0 = (1, 0)
HTTP_1_1 = (1, 1)
MOST_FIELDS = 64 * 1024
"""Octets of all fields of a request together."""


class Refused(Exception):  # noqa: N818 - it is what happened
    """The request is well-framed but cannot be served; ``status`` and a line for the client."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def head_of(
    message: RawRequestMessage, scheme: str, *, has_body: bool, most: int = MOST_FIELDS
) -> RequestHead:
    """``most``: octets of all fields together. Raises Refused."""
    if message.version < HTTP_1_0:
        raise Refused(400, "The request line names no HTTP version that is spoken here.")
    if message.version > HTTP_1_1:
        raise Refused(505, "The request line names an HTTP version that is not spoken here.")
    if sum([len(name) + len(value) + 4 for name, value in message.raw_headers]) > most:
        raise Refused(431, f"The request's fields are larger than {most} octets together.")
    if message.method == "CONNECT":
        raise Refused(501, "CONNECT is for forward proxies; this is a reverse proxy.")
    headers = Headers(message.raw_headers)
    codings = headers.get_all("transfer-encoding")
    if codings and (len(codings) > 1 or codings[0].lower() != CHUNKED):
        raise Refused(501, "The only transfer coding that is spoken here is chunked, once and alone.")
    via = headers.get("via")
    if via is not None and via.count(",") >= MOST_HOPS:
        raise Refused(508, f"The request has passed more than {MOST_HOPS} proxies: it is in a loop.")
    target = message.path
    if not target.isascii():
        target = target.encode("utf-8", "surrogateescape").decode("latin-1")
    hosts = headers.get_all("host")
    if len(hosts) > 1:
        raise Refused(400, "The request has more than one Host field.")
    host = hosts[0].strip(OWS).lower() if hosts else None
    if host:
        _check_host(host)  # RFC 9112 §3.2: one that is overruled, too
    if target[:1] != "/":
        target, authority = _absolute(target, message.method)
        if authority is not None:
            host = authority.lower()
            headers = headers.setting("Host", authority)
    if host is None:
        if message.version >= HTTP_1_1:
            raise Refused(400, "An HTTP/1.1 request needs a Host field.")
        host = ""
    else:
        _check_host(host)
    if "#" in target:
        raise Refused(400, "A request target has no fragment.")
    return RequestHead(message.method, scheme, host, target, headers, has_body)


def _check_host(host: str) -> None:
    if not HOST.fullmatch(host):
        raise Refused(400, "The Host field is not a host with an optional port.")


def _absolute(target: str, method: str) -> tuple[str, str | None]:
    """Origin-form and authority of an absolute-form target; "*" stays as it is for OPTIONS."""
    if target == "*" and method == "OPTIONS":
        return target, None
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise Refused(400, "The request target is neither a path nor an http URL.")
    end = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not authority or "@" in authority:
        raise Refused(400, "The request target's authority is not a host with an optional port.")
    if not path and method == "OPTIONS":
        return "*", authority  # RFC 9112 §3.2.4
    return (path if path.startswith("/") else f"/{path}"), authority
