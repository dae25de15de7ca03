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
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONTROL = bytes(c for c in range(32) if c != 9) + b"\x7f"
_VERSIONS = ((1, 1), (1, 0))
_DIGITS = re.compile(rb"[0-9]{1,18}")
_ANNOUNCED = re.compile(rb"\r\n(content-length|transfer-encoding):[ \t]*([^\r\n]*)", re.IGNORECASE)

_CODING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REGISTERED = frozenset({b"compress", b"deflate", b"gzip", b"trailers", b"x-compress", b"x-gzip"})
"""Transfer codings that mean something (RFC 9112 §7): a body under one of them is not what it looks like."""


class _Shape:
    """What the names of a head's fields say by themselves; the same few lists come again and again."""

    __slots__ = ("codings", "framed", "host", "lengths", "octets", "tokens")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        lowered = [name.lower() for name in names]
        joined = b"".join(names)
        self.tokens = all(names) and not joined.translate(None, _TOKEN)
        self.octets = len(joined)
        self.host = b"host" in lowered
        self.framed = not _OURS.isdisjoint(lowered)
        self.lengths = [i for i, name in enumerate(lowered) if name == b"content-length"]
        self.codings = [i for i, name in enumerate(lowered) if name == b"transfer-encoding"]


def _shape_of(headers: Headers) -> _Shape:
    names = headers.field_names
    shape: _Shape | None = names.memo.get(_Shape)
    if shape is None:
        shape = names.memo[_Shape] = _Shape(names.raw)
    return shape


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
    raw, method, target = forward.headers.raw, forward.method, forward.target
    shape = _shape_of(forward.headers)
    if not shape.tokens:
        raise ValueError("a field name of the request is not a token")
    if not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target)):
        raise ValueError(f"not a request line: {method!r} {target!r}")
    if shape.framed:
        raw = tuple(pair for pair in raw if pair[0].lower() not in _OURS)
    fields = b"\r\n".join([b": ".join(pair) for pair in raw])
    breaks = max(0, len(raw) - 1)
    if fields.count(b"\n") != breaks or fields.count(b"\r") != breaks or b"\0" in fields:
        raise ValueError("a field of the request carries a line end or NUL")
    start = f"{method} {target} HTTP/1.1\r\n".encode("latin-1")
    if not shape.host:
        start += b"Host: %b\r\n" % authority.encode("latin-1")
    if fields:
        fields += b"\r\n"
    return b"%b%b%b\r\n" % (start, fields, _framing(forward))


def _framing(forward: Forward) -> bytes:
    if forward.upgrade:
        return b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    if forward.content is not None:
        return b"Content-Length: %d\r\n" % len(forward.content)
    if forward.body is None:
        return b"" if forward.method in NO_LENGTH_NEEDED else b"Content-Length: 0\r\n"
    if forward.length is None:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % forward.length


def response_head(message: ResponseMessage, method: str, limit: int) -> tuple[ResponseHead, int | None]:
    """The answer's head and the length of its body, None where only its end tells.

    A body that cannot be there (HEAD, 1xx, 204, 304) has length 0. ``limit``: octets of all fields together.
    Raises OriginError(BAD_RESPONSE).
    """
    status, raw = message.code, message.raw_headers
    if not 100 <= status <= 999:
        raise _bad(f"status {status}")
    version = message.version
    if version not in _VERSIONS:
        raise _bad(f"version {version[0]}.{version[1]}")
    headers = Headers(raw)
    shape = _shape_of(headers)
    values = b"\t".join([value for _, value in raw])
    if not shape.tokens:
        raise _bad("a field name is not a token")
    if len(values.translate(None, _CONTROL)) != len(values):
        raise _bad("control octets in a field")
    if shape.octets + len(values) > limit:
        raise _bad(f"fields of {shape.octets + len(values)} octets")
    length: int | None = None
    if shape.lengths or shape.codings:
        length = _checked_length(raw, shape, status, version)
    if method == "HEAD" or status in {204, 304} or status < 200:
        length = 0
    return ResponseHead(status, _reason(message.reason), headers), length


def _checked_length(
    raw: tuple[RawField, ...], shape: _Shape, status: int, version: tuple[int, int]
) -> int | None:
    if shape.codings:
        # RFC 9112 §6.1: not in 1xx and 204, not by HTTP/1.0, and with Content-Length it is an attack.
        coding = raw[shape.codings[0]][1].lower()
        if shape.lengths or len(shape.codings) > 1 or not (coding == b"chunked" or _is_no_coding(coding)):
            raise _bad("Transfer-Encoding that two readers could understand differently")
        if version != (1, 1) or status < 200 or status == 204:
            raise _bad(f"Transfer-Encoding in {status} of HTTP/{version[0]}.{version[1]}")
        return None
    digits = raw[shape.lengths[0]][1]
    if len(shape.lengths) > 1 or not _DIGITS.fullmatch(digits):
        raise _bad("Content-Length that two readers could understand differently")
    length = int(digits)
    if length and (status < 200 or status == 204):
        raise _bad(f"{status} with content")
    return length


def _is_no_coding(value: bytes) -> bool:
    """Whether Transfer-Encoding is one word that names no coding there is, such as the "identity" of old:
    then the body goes on until the connection is closed (RFC 9112 §6.3), for the parser too, and is as it
    looks. Nothing that some reader might take for chunked is such a word."""
    return bool(_CODING.fullmatch(value)) and value not in _REGISTERED and b"chunk" not in value


def announced_end(octets: bytes) -> int | None:
    """Where an answer of a head and a body with one Content-Length, not 0, ends in ``octets``; else None."""
    head, mark, _ = octets.partition(b"\r\n\r\n")
    framing = _ANNOUNCED.findall(head)
    if not mark or len(framing) != 1 or framing[0][0].lower() != b"content-length":
        return None
    digits = framing[0][1].rstrip(b" \t")
    length = int(digits) if _DIGITS.fullmatch(digits) else 0
    return len(head) + len(mark) + length if length else None


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
