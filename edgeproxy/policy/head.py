"""Message heads: what a request and an answer say before their bodies.

Rules of this file:

- Bytes-exact: fields keep their order, their case, their repetition and every octet. Text is Latin-1,
  so that ``value.encode("latin-1")`` gives back the octets that came in.
- Immutable: a change makes a new Headers.
- Field names are looked up in lower case; the caller writes them so (``"cache-control"``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from edgeproxy.policy.vocabulary import PassReason

RawField = tuple[bytes, bytes]


_LONG_NAME = 64
"""Octets; longer names are not remembered, lest clients fill the memory with them."""


@lru_cache(maxsize=4096)
def _remembered(name: bytes) -> str:
    return name.decode("latin-1").lower()


def lower(name: bytes) -> str:
    """A field's name as it is looked up. Few names make up nearly all traffic, and each is met often."""
    return _remembered(name) if len(name) <= _LONG_NAME else name.decode("latin-1").lower()


class Headers:
    """An ordered list of fields, repeated ones kept (RFC 9110 §5)."""

    __slots__ = ("_index", "raw")

    def __init__(self, raw: Iterable[RawField] = ()) -> None:
        self.raw: tuple[RawField, ...] = tuple(raw)
        self._index: dict[str, list[str]] | None = None

    def _indexed(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self.raw:
                index.setdefault(lower(name), []).append(value.decode("latin-1"))
            self._index = index
        return index

    def get(self, name: str) -> str | None:
        """The field's lines joined by ", " (RFC 9110 §5.3), or None where there is none."""
        lines = self._indexed().get(name)
        if lines is None:
            return None
        return lines[0] if len(lines) == 1 else ", ".join(lines)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Each line of the field, as it came."""
        return tuple(self._indexed().get(name, ()))

    def __contains__(self, name: str) -> bool:
        return name in self._indexed()

    def isdisjoint(self, names: frozenset[str]) -> bool:
        """Whether none of the lower-case ``names`` is there."""
        return names.isdisjoint(self._indexed())

    def names(self) -> Iterable[str]:
        """Lower-case names in order of first appearance."""
        return self._indexed().keys()

    def without(self, names: Container[str]) -> Headers:
        """All fields but those whose lower-case name is in ``names``."""
        return Headers(f for f in self.raw if lower(f[0]) not in names)

    def adding(self, name: str, value: str) -> Headers:
        return Headers((*self.raw, (name.encode("latin-1"), value.encode("latin-1"))))

    def setting(self, name: str, value: str) -> Headers:
        """The one field ``name``, in place of every line of it, at the end."""
        return self.without({name.lower()}).adding(name, value)

    def __iter__(self) -> Iterator[RawField]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"

    @classmethod
    def of(cls, fields: Iterable[tuple[str, str]]) -> Headers:
        """From text: ``Headers.of([("ETag", '"a"')])``."""
        return cls((n.encode("latin-1"), v.encode("latin-1")) for n, v in fields)


EMPTY = Headers()


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body.

    ``target`` is the origin-form as it came over the wire (never re-quoted); ``host`` is the authority in
    lower case, with its port where one was given; ``path`` and ``query`` are the parts of ``target``
    (``query`` without "?", and None where there is no "?").
    """

    method: str
    scheme: str
    host: str
    target: str
    headers: Headers = EMPTY
    has_body: bool = False
    content_key: str = ""
    """The name of the content, where a rule has it in the key (content.py): then the cache may answer,
    whatever the method."""
    unkeyed: PassReason | None = None
    """Why the content has no name although a rule has it in the key."""
    path: str = field(init=False)
    query: str | None = field(init=False)

    def __post_init__(self) -> None:
        path, mark, query = self.target.partition("?")
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "query", query if mark else None)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """An answer without its body. ``reason`` may be empty."""

    status: int
    reason: str = ""
    headers: Headers = EMPTY
