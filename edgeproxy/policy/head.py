"""Message heads: what a request and an answer say before their bodies.

Rules of this file:

- Bytes-exact: fields keep their order, their case, their repetition and every octet. Text is Latin-1,
  so that ``value.encode("latin-1")`` gives back the octets that came in.
- Immutable: a change makes a new Headers.
- Field names are looked up in lower case; the caller writes them so (``"cache-control"``).
"""

from __future__ import annotations

from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, final

from edgeproxy.value import value

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


@final
class FieldNames:
    """The names of a head's fields, in order, and what follows from them alone.

    Heads with the same names share one: few lists of names make up nearly all traffic. ``index``: where each
    lower-case name stands. ``memo`` is for what others derive from the names; ``shared`` says whether it
    pays to.
    """

    __slots__ = ("index", "memo", "raw", "shared")

    def __init__(self, raw: tuple[bytes, ...]) -> None:
        index: dict[str, tuple[int, ...]] = {}
        for place, name in enumerate(raw):
            low = lower(name)
            index[low] = (*index.get(low, ()), place)
        self.raw = raw
        self.index = index
        self.memo: dict[object, Any] = {}
        self.shared = sum(map(len, raw)) <= _LONG_LIST

    @classmethod
    def of(cls, fields: tuple[RawField, ...]) -> FieldNames:
        raw = tuple([name for name, _ in fields])
        names = _known.get(raw)
        if names is None:
            names = cls(raw)
            if names.shared:
                if len(_known) >= _MOST_LISTS:
                    _known.clear()
                _known[raw] = names
        return names


_LONG_LIST = 2048
"""Octets of all names together; longer lists are not remembered."""
_MOST_LISTS = 1024
_known: dict[tuple[bytes, ...], FieldNames] = {}


class Headers:
    """An ordered list of fields, repeated ones kept (RFC 9110 §5)."""

    __slots__ = ("_names", "raw")

    def __init__(self, raw: Iterable[RawField] = (), names: FieldNames | None = None) -> None:
        """``names``: of these very fields, where they are known already."""
        self.raw: tuple[RawField, ...] = tuple(raw)
        self._names = names

    @property
    def field_names(self) -> FieldNames:
        names = self._names
        if names is None:
            names = self._names = FieldNames.of(self.raw)
        return names

    def get(self, name: str) -> str | None:
        """The field's lines joined by ", " (RFC 9110 §5.3), or None where there is none."""
        places = (self._names or self.field_names).index.get(name)
        if places is None:
            return None
        if len(places) == 1:
            return self.raw[places[0]][1].decode("latin-1")
        return ", ".join([self.raw[place][1].decode("latin-1") for place in places])

    def get_all(self, name: str) -> tuple[str, ...]:
        """Each line of the field, as it came."""
        places = (self._names or self.field_names).index.get(name)
        return () if places is None else tuple([self.raw[place][1].decode("latin-1") for place in places])

    def __contains__(self, name: str) -> bool:
        return name in (self._names or self.field_names).index

    def isdisjoint(self, names: frozenset[str]) -> bool:
        """Whether none of the lower-case ``names`` is there."""
        return names.isdisjoint((self._names or self.field_names).index)

    def names(self) -> Iterable[str]:
        """Lower-case names in order of first appearance."""
        return self.field_names.index.keys()

    def without(self, names: Container[str]) -> Headers:
        """All fields but those whose lower-case name is in ``names``."""
        index = self.field_names.index
        gone = {place for name, places in index.items() if name in names for place in places}
        return Headers([f for place, f in enumerate(self.raw) if place not in gone]) if gone else self

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
        return cls([(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields])


EMPTY = Headers()


@value
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
        self.path = path  # type: ignore[misc]
        self.query = query if mark else None  # type: ignore[misc]


@value
class ResponseHead:
    """An answer without its body. ``reason`` may be empty."""

    status: int
    reason: str = ""
    headers: Headers = EMPTY
