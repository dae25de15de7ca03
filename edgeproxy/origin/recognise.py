"""Answers' heads known again by their octets, without parsing them.

Rules of this file:

- The parser reads a head, and framing.py checks it, before it is known: what is recognised is, but for the
  values of the fields in OF_EACH, to the octet a head that both have accepted. Those values are visible ASCII
  with single spaces, and Content-Length is digits: nothing the checks could refuse.
- Only answers of HTTP/1.1: status, fields, and exactly as many octets of content as the one Content-Length
  says, on a connection that stays open. All else is the parser's.
- A head is learned when it comes for the second time. Bounded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, final

from edgeproxy.policy.events import streams_events
from edgeproxy.policy.head import lower
from edgeproxy.policy.known import OF_EACH, KnownHead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.http_parser import RawResponseMessage

    from edgeproxy.policy.head import ResponseHead

LONGEST = 4096
"""Octets of a head; longer ones are left to the parser."""
SHORT = 64 * 1024
"""Octets of a body that is worth waiting for a moment."""
MOST = 1024
"""Heads, known or come once."""

_END = b"\r\n\r\n"


def _spelled(name: str) -> str:
    """As fields are spelled: words in small letters, with a large one at the beginning or all large; an id
    at the end of one as anybody likes."""
    return "-".join(
        f"(?:[{word[0].upper()}{word[0]}]{re.sub('id$', '[Ii][Dd]', word[1:])}|{word.upper()})"
        for word in name.split("-")
    )


def _any_of(names: Iterable[str]) -> str:
    return "|".join(map(_spelled, sorted(names)))


_X = "x-"
_OWN = re.compile(
    "(\r\n(?:{}|[Xx]-(?:{})): )([!-~]+(?: [!-~]+)*)(?=\r\n)".format(
        _any_of({name for name in OF_EACH if not name.startswith(_X)} - {"etag"}) + "|E[Tt]ag|etag",
        _any_of(name.removeprefix(_X) for name in OF_EACH if name.startswith(_X)),
    ).encode()
)
_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,8})")
_BODILESS = frozenset({204, 304})
_LAST = frozenset({"transfer-encoding", "upgrade", "trailer"})
"""Where one of these stands, what follows the head is not simply a body."""

Octets = tuple[bytes, ...]


@final
class _Known:
    """``length``: which of the values is the Content-Length."""

    __slots__ = ("head", "length")

    def __init__(self, head: KnownHead, length: int) -> None:
        self.head = head
        self.length = length


@final
class Recognised:
    """``head``, with ``values``, and of the ``body`` all but its last ``missing`` octets."""

    __slots__ = ("body", "head", "missing", "values")

    def __init__(self, head: KnownHead, values: list[bytes], body: bytes, missing: int) -> None:
        self.head = head
        self.values = values
        self.body = body
        self.missing = missing


@final
class Heads:
    """The heads of one origin's answers. ``limit``: as response_head's."""

    def __init__(self, limit: int) -> None:
        self._longest = min(LONGEST, limit)
        self._known: dict[Octets, _Known | None] = {}

    def __len__(self) -> int:
        return sum(known is not None for known in self._known.values())

    def find(self, data: bytes) -> Recognised | None:
        """The answer that ``data`` begins with, to GET, if its head is known and nothing follows it. One of
        which more than SHORT octets are missing is left to the parser."""
        end = data.find(_END, 0, self._longest)
        if end < 0:
            return None
        octets, values = _parted(data, end)
        known = self._known.get(octets)
        if known is None:
            return None
        length = values[known.length]
        if _LENGTH.fullmatch(length) is None:
            return None
        missing = int(length) - len(data) + end + 4
        if not 0 <= missing <= SHORT:
            return None
        return Recognised(known.head, values, data[end + 4 :], missing)

    def learn(self, data: bytes, message: RawResponseMessage, head: ResponseHead) -> None:
        """``data`` began with ``head``: accepted, as ``message``, and answered whole."""
        end = data.find(_END, 0, self._longest)
        if end < 0 or message.should_close or message.version != (1, 1) or head.status in _BODILESS:
            return
        octets, values = _parted(data, end)
        if octets not in self._known:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[octets] = None  # it came once
        elif self._known[octets] is None:
            self._known[octets] = _known(head, values)


def _parted(data: bytes, end: int) -> tuple[Octets, list[bytes]]:
    """What a head, up to ``end``, has alike with others, and its own values."""
    pieces = _OWN.split(data[: end + 2])
    values = pieces[2::3]
    del pieces[2::3]
    return tuple(pieces), values


def _known(head: ResponseHead, values: list[bytes]) -> _Known | None:
    """None where the octets do not say what the parser has read there."""
    headers = head.headers
    if not headers.isdisjoint(_LAST) or streams_events(headers):
        return None
    own = tuple(place for place, (name, _) in enumerate(headers.raw) if lower(name) in OF_EACH)
    names = [lower(headers.raw[place][0]) for place in own]
    if [headers.raw[place][1] for place in own] != values or len(set(names)) != len(names):
        return None
    if "content-length" not in names or "date" not in names:
        return None  # a Date that is missing is added, each time another
    length = names.index("content-length")
    return _Known(KnownHead(head, own), length) if _LENGTH.fullmatch(values[length]) else None
