"""A stored answer in few octets: what is equal between answers is kept once, the rest in one string.

Rules of this file:

- An origin's answers say mostly the same. What the policy found (windows, status, selecting fields), the
  fields' names and the values that come again are a Kind, shared by all answers that are alike; the times and
  the values of one answer alone are one byte string. No object of an entry's own but that string, so that
  neither the memory nor the collector's work grows with every field.
- Packing is paid for by every miss: one look into a table for the Kind, one for the values, a few joins. A
  Kind that meets ever new values takes the fields they stand in for fields of each answer, once.
- ``unpack(pack(x)) == x`` to the octet, or ``pack`` says None and the answer stays as it is: more Kinds than
  MOST_KINDS, a value that the string cannot hold, a part of an answer.
- Bounded: MOST_ROWS lists of values for a Kind, of up to LONGEST_ROW octets, and all together MOST_OCTETS;
  later ones stand in the answers' own strings.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, final

from edgeproxy.policy.head import Headers
from edgeproxy.policy.known import OF_EACH
from edgeproxy.policy.stored import Freshness, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.policy.head import RawField
    from edgeproxy.policy.stored import LifetimeSource

MOST_KINDS = 2048
MOST_ROWS = 64
LONGEST_ROW = 2048
MOST_OCTETS = 4 * 1024 * 1024

_TIMES = struct.Struct("<ddddq")
"""Received, initial age, lifetime, the fetch's seconds, the stamp of its start."""
_PLAIN = struct.Struct("<ddddqBB")
"""The same, how many marks follow (none, until a purge has come), and the row, which stands behind them."""
_FETCH = struct.Struct("<dq")
_FETCH_AT = 24
_MARKS_AT = _TIMES.size
MOST_MARKS = 250
_NO_ROW = 255
"""All values stand in the answer's own string."""
USUAL = frozenset(name.encode() for name in OF_EACH)
"""Fields whose values come again too seldom to be kept for others."""
_SOME = 16
"""Different values of a field, from which on it is one of those."""

_name, _value = itemgetter(0), itemgetter(1)


class Fetched(NamedTuple):
    """What an entry knows of its fetch beside the answer: seconds it took, steady stamp of its start, and the
    buckets of the purge table that concern it (epoch.py), once they have been asked for."""

    seconds: float
    started: int
    marks: tuple[int, ...]


Frame = tuple[int, str, float, float, float, float, bool, bool, "LifetimeSource", tuple[str, ...], str]
"""Status, reason; stale-while-revalidate, -if-error, -if-disconnected, keep; must_validate, never_stale;
source, vary, coding: what the policy found, as far as it is the same for many answers."""


@final
class Kind:
    """``own``: where in the list of fields those stand whose values are each answer's; ``rows``: the values
    of the others, as many answers have them."""

    __slots__ = ("_others", "_places", "frame", "names", "own", "records", "rows")

    def __init__(self, frame: Frame, names: tuple[bytes, ...], own: frozenset[int]) -> None:
        self.frame = frame
        self.names = names
        self.own = tuple(sorted(own))
        self._others = [at for at in range(len(names)) if at not in own]
        self.rows: list[list[RawField]] = []
        self._places: dict[tuple[bytes, ...], int] = {}
        self.records: dict[int, bytes] = {}
        """Row -> the part of a record in L2 that its answers have alike (frame.py)."""

    def places(self, row: int) -> tuple[int, ...]:
        """Of which fields an answer's own string tells the values."""
        return tuple(range(len(self.names))) if row == _NO_ROW else self.own

    def model(self, row: int) -> Stored:
        """What all answers of ``row`` have in common, the rest empty. Not of one that varies."""
        empty = [b""] * len(self.places(row))
        return unpack(self, Recipe(self, row, ()).octets(0.0, 0.0, 0.0, 0.0, 0, empty), 0)

    def place(self, values: list[bytes]) -> int | None:
        """The row with these values of the fields that are not ``own``; None where there is none yet."""
        return self._places.get(tuple([values[at] for at in self._others]))

    def add(self, values: list[bytes]) -> int:
        row = list(zip(self.names, values, strict=True))
        for at in self.own:
            row[at] = (self.names[at], b"")
        self.rows.append(row)
        place = self._places[tuple([values[at] for at in self._others])] = len(self.rows) - 1
        return place

    def has(self, row: int) -> bool:
        """Whether ``row`` is one of values that others have too."""
        return row != _NO_ROW

    def changing(self) -> frozenset[int]:
        """``own``, and the fields that have had many values."""
        seen = {at: len({row[at][1] for row in self.rows}) for at in self._others}
        return frozenset(self.own) | {at for at, count in seen.items() if count >= _SOME}


class Packing:
    """One worker's Kinds."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], Kind] = {}
        self._octets = 0

    def pack(self, stored: Stored, fetched: Fetched) -> tuple[Kind, bytes] | None:
        """The answer as its Kind and its own octets; None where it has to stay as it is. The body's length is
        not in there: whoever unpacks knows it."""
        if stored.part is not None:
            return None
        fresh = stored.freshness
        raw = stored.headers.raw
        names = tuple(map(_name, raw))
        key = (
            names, stored.status, stored.reason, fresh.stale_while_revalidate, fresh.stale_if_error,
            fresh.stale_if_disconnected, fresh.keep, fresh.must_validate, fresh.never_stale,
            fresh.source._value_, stored.vary, stored.coding,
        )  # fmt: skip
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._new(key, stored, names)
            if kind is None:
                return None
        values = list(map(_value, raw))
        row = kind.place(values)
        if row is None:
            kind, row = self._row(key, kind, values)
        own = values if row == _NO_ROW else [values[at] for at in kind.own]
        if stored.vary:
            own += [
                b"-" if value is None else b"=" + value.encode("utf-8", "surrogatepass")
                for value in stored.selecting
            ]
        rest = b"\n".join(own)
        if own and rest.count(b"\n") != len(own) - 1:
            return None
        marks = fetched.marks
        octets = _PLAIN.pack(
            fresh.received, fresh.initial_age, fresh.lifetime, fetched.seconds, fetched.started, 0, row
        )
        octets += rest
        return kind, marked(octets, marks) if marks else octets

    def recipe(self, stored: Stored) -> Recipe | None:
        """How answers are packed that differ from this one in times and in values of ``Recipe.own`` only."""
        packed = self.pack(stored, Fetched(0.0, 0, ()))
        if packed is None or stored.vary:
            return None
        kind, octets = packed
        row = octets[_MARKS_AT + 1]
        return Recipe(kind, row, kind.places(row))

    def _new(self, key: tuple[object, ...], stored: Stored, names: tuple[bytes, ...]) -> Kind | None:
        if len(self._kinds) >= MOST_KINDS or self._octets >= MOST_OCTETS:
            return None
        fresh = stored.freshness
        frame: Frame = (
            stored.status, stored.reason, fresh.stale_while_revalidate, fresh.stale_if_error,
            fresh.stale_if_disconnected, fresh.keep, fresh.must_validate, fresh.never_stale, fresh.source,
            stored.vary, stored.coding,
        )  # fmt: skip
        self._octets += 1000 + sum(map(len, names)) + 100 * len(names)
        own = frozenset(at for at, name in enumerate(names) if name.lower() in USUAL)
        kind = self._kinds[key] = Kind(frame, names, own)
        return kind

    def _row(self, key: tuple[object, ...], kind: Kind, values: list[bytes]) -> tuple[Kind, int]:
        """A place for values that were not met before."""
        octets = sum(map(len, values)) + 150 * len(values)
        if octets > LONGEST_ROW + 150 * len(values) or self._octets + octets > MOST_OCTETS:
            return kind, _NO_ROW
        if len(kind.rows) >= MOST_ROWS:
            own = kind.changing()
            if len(own) == len(kind.own):
                return kind, _NO_ROW
            # Who was packed with the Kind as it was goes on with that one.
            kind = self._kinds[key] = Kind(kind.frame, kind.names, own)
            known = kind.place(values)
            if known is not None:
                return kind, known
        self._octets += octets
        return kind, kind.add(values)


@final
class Recipe:
    """``own``: the places, among the answer's fields, of the values that ``octets`` takes, in order."""

    __slots__ = ("_row", "kind", "own")

    def __init__(self, kind: Kind, row: int, own: tuple[int, ...]) -> None:
        self.kind = kind
        self.own = own
        self._row = row

    def octets(
        self, received: float, initial_age: float, lifetime: float, seconds: float, started: int,
        values: Iterable[bytes],
    ) -> bytes:  # fmt: skip
        """As ``pack`` would make them. No value holds a line end."""
        return _PLAIN.pack(received, initial_age, lifetime, seconds, started, 0, self._row) + b"\n".join(
            values
        )


def unpack(kind: Kind, own: bytes, length: int) -> Stored:
    """The answer that was packed; ``length`` of its body."""
    frame = kind.frame
    (row, rest), names = values(own), kind.names
    if row == _NO_ROW:
        raw = list(zip(names, rest, strict=False))
        told = len(names)
    else:
        raw = kind.rows[row].copy()
        told = len(kind.own)
        for place, value in zip(kind.own, rest, strict=False):
            raw[place] = (names[place], value)
    selecting: tuple[str | None, ...] = ()
    if frame[9]:
        selecting = tuple(
            None if value == b"-" else value[1:].decode("utf-8", "surrogatepass") for value in rest[told:]
        )
    return Stored(
        frame[0], frame[1], Headers(raw), freshness(kind, own), length, frame[9], selecting, frame[10]
    )


def freshness(kind: Kind, own: bytes) -> Freshness:
    """That of the answer that was packed."""
    received, initial_age, lifetime, _, _ = _TIMES.unpack_from(own)
    _, _, revalidating, on_error, disconnected, keep, must_validate, never_stale, source, _, _ = kind.frame
    return Freshness(
        received, initial_age, lifetime, revalidating, on_error, disconnected, keep,
        must_validate, never_stale, source,
    )  # fmt: skip


def values(own: bytes) -> tuple[int, list[bytes]]:
    """The row, and the values that stand in the answer's own octets."""
    at = _MARKS_AT + 1 + 4 * own[_MARKS_AT]
    return own[at], own[at + 1 :].split(b"\n")


def marked(own: bytes, marks: tuple[int, ...]) -> bytes:
    """The octets of an answer without marks, with these; without any where there are too many."""
    if len(marks) > MOST_MARKS:
        return own
    packed = struct.pack(f"<B{len(marks)}I", len(marks), *marks)
    return b"".join((own[:_MARKS_AT], packed, own[_MARKS_AT + 1 :]))


def fetched(own: bytes) -> Fetched:
    seconds, started = _FETCH.unpack_from(own, _FETCH_AT)
    count = own[_MARKS_AT]
    return Fetched(seconds, started, struct.unpack_from(f"<{count}I", own, _MARKS_AT + 1) if count else ())


def times(own: bytes) -> tuple[float, float, float]:
    """Received, initial age and lifetime."""
    received, initial_age, lifetime, _, _ = _TIMES.unpack_from(own)
    return received, initial_age, lifetime
