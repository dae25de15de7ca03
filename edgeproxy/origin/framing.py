"""Heads on the wire: how a request's is written, and whether an answer's may be believed.

Rules of this file:

- A request's head is one join of the fields as given; what frames the message is written here and nowhere
  else, so a field that would frame it a second way is taken out (RFC 9112 §6). Line ends and NUL inside a
  head are refused: no head ever becomes two.
- The parser that read an answer is lenient. What it let through is looked at again, and whatever two
  readers could frame differently is not an answer: BAD_RESPONSE.
- Pure: octets and values in, octets and values out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.head import Headers, ResponseHead
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.origin.base import Forward
    from edgeproxy.policy.head import RawField

NO_LENGTH_NEEDED = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})
"""Methods that anticipate no content: all others say ``Content-Length: 0`` (RFC 9110 §8.6)."""

_OURS = frozenset({
    b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"upgrade",
})  # fmt: skip
_OURS_IN_HEAD = tuple(b"\r\n" + name + b":" for name in sorted(_OURS))
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONTROL = bytes(c for c in range(32) if c != 9) + b"\x7f"
_DIGITS = re.compile(rb"[0-9]{1,18}")


class ResponseMessage(Protocol):
    """What the parser says about an answer (aiohttp's RawResponseMessage)."""

    @property
    def code(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def raw_headers(self) -> tuple[RawField, ...]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


def request_head(forward: Forward, authority: str) -> bytes:
    """The octets of the request's head, empty line included.

    ``authority`` goes into Host where the request has none. Raises ValueError where the head could not be
    sent as one: such a head comes from our own side, never from a strictly parsed request.
    """
    lines = [b": ".join(pair) for pair in forward.headers.raw]
    joined = b"\r\n".join(lines)
    if joined.count(b"\n") != max(0, len(lines) - 1) or joined.count(b"\r") != max(0, len(lines) - 1):
        raise ValueError("a field of the request carries a line end")
    if b"\0" in joined:
        raise ValueError("a field of the request carries NUL")
    known = _METHOD.fullmatch(forward.method) and _TARGET.fullmatch(forward.target)
    if not known:
        raise ValueError(f"not a request line: {forward.method!r} {forward.target!r}")
    start = f"{forward.method} {forward.target} HTTP/1.1".encode("latin-1")
    found = b"\r\n" + joined.lower()
    for name in _OURS_IN_HEAD:
        if name in found:
            lines = [line for line in lines if line.partition(b":")[0].strip().lower() not in _OURS]
            joined = b"\r\n".join(lines)
            break
    if b"\r\nhost:" not in found:
        start += b"\r\nHost: " + authority.encode("latin-1")
    end = _framing(forward)
    return b"%b\r\n%b%b\r\n\r\n" % (start, joined, end) if joined else b"%b%b\r\n\r\n" % (start, end)


def _framing(forward: Forward) -> bytes:
    if forward.body is None:
        return b"" if forward.method in NO_LENGTH_NEEDED else b"\r\nContent-Length: 0"
    if forward.length is None:
        return b"\r\nTransfer-Encoding: chunked"
    return b"\r\nContent-Length: %d" % forward.length


def response_head(message: ResponseMessage, method: str, limit: int) -> tuple[ResponseHead, int | None]:
    """The answer's head and the length of its body, None where only its end tells.

    A body that cannot be there (HEAD, 1xx, 204, 304) has length 0. ``limit``: octets of all fields together.
    Raises OriginError(BAD_RESPONSE).
    """
    status, raw = message.code, message.raw_headers
    if not 100 <= status <= 999:
        raise _bad(f"status {status}")
    version = message.version
    if version not in {(1, 1), (1, 0)}:
        raise _bad(f"version {version[0]}.{version[1]}")
    names = b"".join([name for name, _ in raw])
    values = b"\t".join([value for _, value in raw])
    if names.translate(None, _TOKEN):
        raise _bad("a field name is not a token")
    if len(values.translate(None, _CONTROL)) != len(values):
        raise _bad("control octets in a field")
    if len(names) + len(values) > limit:
        raise _bad(f"fields of {len(names) + len(values)} octets")
    length: int | None = None
    lowered = names.lower()  # one look for both; a name that merely contains them costs a second look
    if b"content-length" in lowered or b"transfer-encoding" in lowered:
        length = _checked_length(raw, status, version)
    if method == "HEAD" or status in {204, 304} or status < 200:
        length = 0
    return ResponseHead(status, _reason(message.reason), Headers(raw)), length


def _checked_length(raw: tuple[RawField, ...], status: int, version: tuple[int, int]) -> int | None:
    lengths = [value for name, value in raw if name.lower() == b"content-length"]
    codings = [value for name, value in raw if name.lower() == b"transfer-encoding"]
    if codings:
        # RFC 9112 §6.1: not in 1xx and 204, not by HTTP/1.0, and with Content-Length it is an attack.
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise _bad("Transfer-Encoding that two readers could understand differently")
        if version != (1, 1) or status < 200 or status == 204:
            raise _bad(f"Transfer-Encoding in {status} of HTTP/{version[0]}.{version[1]}")
        return None
    if not lengths:
        return None
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise _bad("Content-Length that two readers could understand differently")
    length = int(lengths[0])
    if length and (status < 200 or status == 204):
        raise _bad(f"{status} with content")
    return length


def _reason(reason: str) -> str:
    if reason.isascii() and reason.isprintable():
        return reason
    # The parser decodes as UTF-8 what may be anything.
    text = reason.encode("utf-8", "surrogateescape")
    if len(text.translate(None, _CONTROL)) != len(text):
        raise _bad("control octets in the reason")
    return text.decode("latin-1")


def _bad(detail: str) -> OriginError:
    return OriginError(OriginFailure.BAD_RESPONSE, detail)
