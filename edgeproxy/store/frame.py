"""What records of L2 have alike: one string of octets in each, looked into once for all of them.

Rules of this file:

- An origin's answers say mostly the same. A record is its Frame (status, fields, windows: whatever many
  answers have in common) and its own values (``Frame.own`` tells of which fields). What is packed in L1
  (packed.py) is written from there and comes back packed, without a field of it being looked at.
- What comes from a shared store is untrusted. A frame is checked whole before it is known: nothing in it may
  split an answer or mis-frame it. The own values are checked by who decodes a record (codec.py).
- Bounded: MOST_FRAMES of them, MOST_OCTETS together; then all are forgotten, and learned again.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, final

import msgspec

from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Freshness, LifetimeSource, Stored
from edgeproxy.store.packed import USUAL
from edgeproxy.store.purge import octets, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.policy.head import RawField
    from edgeproxy.policy.stored import Part
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.packed import Kind, Packing, Recipe

MOST_FRAMES = 4096
MOST_OCTETS = 4 * 1024 * 1024
FAR = 1e10
"""Seconds of the longest window."""
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no field's value holds."""

_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"}
    | {b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


class Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    """``own``: where in ``fields`` those stand whose values are each answer's; here they are empty."""

    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    own: tuple[int, ...]
    vary: tuple[bytes, ...]
    coding: bytes
    stale_while_revalidate: float
    stale_if_error: float
    stale_if_disconnected: float
    keep: float
    must_validate: bool
    never_stale: bool
    source: LifetimeSource


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def framed(entry: Entry) -> tuple[bytes, Sequence[bytes]]:
    """The octets of an entry's frame, and its own values."""
    packed = entry.values()
    if packed is not None:
        kind, row, values = packed
        told = kind.places(row)
        if len(values) == len(told):
            known = kind.records.get(row)
            if known is None:
                known = kind.records[row] = _of_kind(kind, row, told)
            return known, values
    stored = entry.stored
    raw = stored.headers.raw
    own = tuple([at for at, (name, _) in enumerate(raw) if name.lower() in USUAL])
    return _encoded(stored, _blank(raw, own), own), [raw[at][1] for at in own]


def _of_kind(kind: Kind, row: int, own: tuple[int, ...]) -> bytes:
    model = kind.model(row)
    return _encoded(model, tuple(model.headers.raw), own)


def _blank(raw: Sequence[RawField], own: tuple[int, ...]) -> tuple[RawField, ...]:
    fields = list(raw)
    for at in own:
        fields[at] = (fields[at][0], b"")
    return tuple(fields)


def _encoded(stored: Stored, fields: tuple[RawField, ...], own: tuple[int, ...]) -> bytes:
    fresh = stored.freshness
    return _encoder.encode(
        Frame(
            stored.status,
            octets(stored.reason),
            fields,
            own,
            tuple(map(octets, stored.vary)),
            octets(stored.coding),
            fresh.stale_while_revalidate,
            fresh.stale_if_error,
            fresh.stale_if_disconnected,
            fresh.keep,
            fresh.must_validate,
            fresh.never_stale,
            fresh.source,
        )
    )


@final
class Known:
    """A frame that was checked. ``recipe``: how its answers are packed, once that was asked for."""

    __slots__ = (
        "_lengths", "_own_lengths", "_reason", "_vary", "asked", "coding", "frame", "recipe",
    )  # fmt: skip

    def __init__(self, frame: Frame) -> None:
        """Raises ValueError where the frame is none that may be sent."""
        if not _well_formed(frame):
            raise ValueError("not a head that may be sent")
        self.frame = frame
        self.coding = text(frame.coding)
        self._reason = text(frame.reason)
        self._vary = tuple(map(text, frame.vary))
        lengths = [at for at, (name, _) in enumerate(frame.fields) if name.lower() == b"content-length"]
        self._lengths = [frame.fields[at][1] for at in lengths if at not in frame.own]
        self._own_lengths = [frame.own.index(at) for at in lengths if at in frame.own]
        self.recipe: Recipe | None = None
        self.asked = False

    def fits(self, own: Sequence[bytes], length: int) -> bool:
        """Whether these may be its own values, of an answer with so many octets of body."""
        if len(own) != len(self.frame.own) or CONTROL.search(b" ".join(own)):
            return False
        if self._lengths or self._own_lengths:
            said = {*self._lengths, *[own[at] for at in self._own_lengths]}
            return said == {b"%d" % length}
        return True

    def stored(
        self, own: Sequence[bytes], times: tuple[float, float, float], length: int,
        selecting: tuple[str | None, ...], part: Part | None,
    ) -> Stored:  # fmt: skip
        """The answer. ``times``: received, initial age, lifetime."""
        frame = self.frame
        fields = list(frame.fields)
        for at, value in zip(frame.own, own, strict=True):
            fields[at] = (fields[at][0], value)
        freshness = Freshness(
            *times, frame.stale_while_revalidate, frame.stale_if_error, frame.stale_if_disconnected,
            frame.keep, frame.must_validate, frame.never_stale, frame.source,
        )  # fmt: skip
        return Stored(
            frame.status, self._reason, Headers(fields), freshness, length, self._vary, selecting,
            self.coding, part,
        )  # fmt: skip

    def learn_recipe(self, packing: Packing, stored: Stored) -> None:
        """``stored``: one of its answers. There is a recipe where what is each answer's own is so both here
        and there."""
        self.asked = True
        recipe = packing.recipe(stored)
        if recipe is not None and recipe.own == self.frame.own:
            self.recipe = recipe


class Frames:
    """One worker's. ``packing``: L1's, where there is one."""

    def __init__(self, packing: Packing | None = None) -> None:
        self.packing = packing
        self._known: dict[bytes, Known] = {}
        self._octets = 0

    def known(self, data: bytes) -> Known:
        """Raises msgspec.MsgspecError and ValueError where the octets are no frame."""
        known = self._known.get(data)
        if known is None:
            known = Known(_decoder.decode(data))
            self._octets += 1000 + 2 * len(data)
            if len(self._known) >= MOST_FRAMES or self._octets > MOST_OCTETS:
                self._known.clear()
                self._octets = 0
            self._known[data] = known
        return known


def _well_formed(frame: Frame) -> bool:
    """Can this be sent as an answer's head without splitting or mis-framing anything, and are its windows
    numbers of this world? (A NaN fails every comparison.)"""
    if not 200 <= frame.status <= 599 or CONTROL.search(frame.reason):
        return False
    windows = (
        frame.stale_while_revalidate, frame.stale_if_error, frame.stale_if_disconnected, frame.keep,
    )  # fmt: skip
    if min(windows) < 0 or max(windows) > FAR or any(map(math.isnan, windows)):
        return False
    fields, own = frame.fields, frame.own
    if list(own) != sorted(set(own)) or (own and not 0 <= own[0] <= own[-1] < len(fields)):
        return False
    if any(fields[at][1] for at in own):
        return False
    if not fields:
        return True
    names = b"\n".join([name for name, _ in fields])
    if not _NAMES.fullmatch(names) or names.count(b"\n") != len(fields) - 1:
        return False
    if CONTROL.search(b" ".join([value for _, value in fields])):
        return False
    return not any(name.lower() in _HOP_BY_HOP for name, _ in fields)
