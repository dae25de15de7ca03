"""Entries and vary markers as octets, and back. What comes back from a shared store is untrusted.

Rules of this file:

- One fixed head, then the meta (msgpack; what many have alike is one string in it, frame.py), the body, the
  coded bodies. Nothing is taken from the data before the lengths agree with each other and the checksum with
  everything else.
- ``order`` (epoch and start of the fetch, 16 octets, big-endian) stands at a fixed offset: a store
  compares it without decoding, octet by octet.
- The full key and the namespace stand inside and are compared: a reply that belongs to another key (a
  crossed reply, a copy) is FOREIGN, as is an unknown format version.
- Any other doubt is CORRUPT. ``decode`` returns one of the two and raises nothing, whatever it is given.
- Never pickle, never a type chosen by the data: msgspec decodes into the types written here, strictly.
- A change of the format gets a new VERSION. Versions have different keys (record_key), so that old and new
  processes share a store without deleting each other's records.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.policy.stored import Part
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.entry import Codings, Entry
from edgeproxy.store.frame import FAR, Frames, framed
from edgeproxy.store.purge import octets, text

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"\x89EPX"
VERSION = 4

_HEAD = struct.Struct(">4sHBx16sIQQ16s")
"""Magic, version, kind, order, lengths of meta, body and coded bodies, checksum."""
_CHECKSUM_AT = _HEAD.size - 16
ORDER_AT = 8
"""Where the 16 octets of the order begin (and 8 + 16 is where they end)."""
ORDER_END = ORDER_AT + 16

_ENTRY, _MARKER = 1, 2

LONGEST_META = 1024 * 1024
FUTURE = 60.0
"""Seconds that an entry may have been received ahead of now (clocks of nodes differ)."""
_FARTHEST = 10**18
"""Octets of the largest representation that a part is of."""
MOST_NAME_LISTS = 8
MOST_VARIANTS = 64

Key = tuple[str, str]
"""The full key: (primary, variant)."""


class _Meta(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    namespace: bytes
    primary: bytes
    host: bytes
    target: bytes
    variant: bytes
    rule: bytes
    tags: tuple[bytes, ...]
    frame: bytes
    own: tuple[bytes, ...]
    selecting: tuple[bytes | None, ...]
    codings: tuple[tuple[bytes, int], ...]
    received: float
    initial_age: float
    lifetime: float
    fetch_seconds: float
    part: tuple[int, int, int | None] | None


class _MarkerMeta(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    namespace: bytes
    primary: bytes
    names: tuple[tuple[bytes, ...], ...]
    variants: tuple[bytes, ...]
    expires: float


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands under a primary key whose answers vary: ``names`` are the lists of selecting fields,
    newest first; ``variants`` the ids known to be stored, newest first; ``expires`` when the last of them
    does (seconds since the epoch)."""

    primary: str
    names: tuple[tuple[str, ...], ...]
    variants: tuple[str, ...]
    expires: float
    order: bytes = bytes(16)

    @property
    def epoch(self) -> int:
        """The purge number at which the fetch of the newest began."""
        return int.from_bytes(self.order[:8], "big")


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What purging knows of a stored record, read without its body."""

    primary: str
    variant: str
    host: str
    target: str
    tags: tuple[str, ...]
    epoch: int
    octets: int
    rule: str


_encoder = msgspec.msgpack.Encoder()
_entry_meta = msgspec.msgpack.Decoder(_Meta)
_marker_meta = msgspec.msgpack.Decoder(_MarkerMeta)


def record_key(namespace: bytes, primary: str, variant: str = "") -> str:
    """The short name of a record in a shared store: 32 ASCII characters."""
    text = b"%d\0%d\0%s%d\0%s%s" % (
        VERSION, len(namespace), namespace, len(octets(primary)), octets(primary), octets(variant),
    )  # fmt: skip
    return blake2b(text, digest_size=16).hexdigest()


def order_octets(epoch: int, started: int) -> bytes:
    return struct.pack(">QQ", epoch, max(0, started))


def encode(entry: Entry, namespace: bytes, epoch: int | None = None) -> bytes | None:
    """An entry as octets; None if its meta is larger than may be stored. ``epoch`` replaces the entry's
    own (see ``logged_part``)."""
    frame, own = framed(entry)
    coded_bodies = entry.coded
    part, selecting = entry.exceptions()
    fresh = entry.freshness
    meta = _encoder.encode(
        _Meta(
            namespace,
            octets(entry.primary),
            octets(entry.host),
            octets(entry.target),
            octets(entry.variant),
            octets(entry.rule),
            _all_octets(entry.tags),
            frame,
            tuple(own),
            tuple([None if value is None else octets(value) for value in selecting]),
            tuple([(octets(coding), len(coded)) for coding, coded in coded_bodies]),
            fresh.received,
            fresh.initial_age,
            fresh.lifetime,
            entry.fetch_seconds,
            None if part is None else (part.start, part.stop, part.total),
        )
    )
    order = order_octets(entry.epoch if epoch is None else epoch, entry.started)
    return _seal(_ENTRY, order, meta, entry.body, [coded for _, coded in coded_bodies])


def encode_marker(marker: Marker, namespace: bytes) -> bytes | None:
    meta = _encoder.encode(
        _MarkerMeta(
            namespace,
            octets(marker.primary),
            tuple(_all_octets(names) for names in marker.names),
            _all_octets(marker.variants),
            marker.expires,
        )
    )
    return _seal(_MARKER, marker.order, meta, b"", ())


def decode(
    data: bytes, key: Key, namespace: bytes, now: float, frames: Frames | None = None
) -> Entry | Marker | LookupMiss:
    """What the octets hold, if they hold what belongs under ``key`` (a variant is "" for the primary
    record, which alone may be a marker). CORRUPT or FOREIGN otherwise; raises nothing. With ``frames`` that
    pack, an entry is packed where it can be."""
    try:
        return _decode(data, key, namespace, now, frames or Frames())
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, struct.error):
        return LookupMiss.CORRUPT


def newer(there: bytes, data: bytes) -> bool:
    """Does what is there (its first ORDER_END octets suffice) come from a later fetch than ``data``?"""
    return there[: len(MAGIC)] == MAGIC and there[ORDER_AT:ORDER_END] > data[ORDER_AT:ORDER_END]


def coordinates(data: bytes, namespace: bytes) -> Coordinates | None:
    """For counting: what a record's head and meta say, its checksum not looked at. None for markers and
    for whatever is not an entry of this namespace. ``data`` may end after the meta."""
    try:
        magic, version, kind, order, meta_length, body, coded, _ = _HEAD.unpack_from(data)
        if magic != MAGIC or version != VERSION or kind != _ENTRY or meta_length > LONGEST_META:
            return None
        meta = _entry_meta.decode(data[_HEAD.size : _HEAD.size + meta_length])
        if meta.namespace != namespace:
            return None
        return Coordinates(
            text(meta.primary),
            text(meta.variant),
            text(meta.host),
            text(meta.target),
            _texts(meta.tags),
            int.from_bytes(order[:8], "big"),
            _HEAD.size + meta_length + body + coded,
            text(meta.rule),
        )
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, struct.error):
        return None


def claims(data: bytes) -> tuple[bytes, Key] | None:
    """Whose record it says it is: the namespace and the full key. None if it does not say. Nothing else is
    looked at; ``data`` may end after the meta."""
    try:
        magic, version, kind, _, meta_length, _, _, _ = _HEAD.unpack_from(data)
        if magic != MAGIC or version != VERSION or meta_length > LONGEST_META:
            return None
        raw = data[_HEAD.size : _HEAD.size + meta_length]
        if kind == _MARKER:
            marker = _marker_meta.decode(raw)
            return marker.namespace, (text(marker.primary), "")
        meta = _entry_meta.decode(raw)
        return meta.namespace, (text(meta.primary), text(meta.variant))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, struct.error):
        return None


def version_of(data: bytes) -> int | None:
    """The format version that a record says it has; None for what is no record."""
    if data[: len(MAGIC)] != MAGIC or len(data) < len(MAGIC) + 2:
        return None
    return int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "big")


def other_version(data: bytes) -> bool:
    """Written by a process of another format version."""
    return data[: len(MAGIC)] == MAGIC and data[4:6] != VERSION.to_bytes(2, "big")


def head_length(data: bytes | memoryview) -> int:
    """Octets of the head and meta of a record, at most; for reading no more than ``coordinates`` needs."""
    if len(data) < _HEAD.size:
        return len(data)
    meta_length: int = _HEAD.unpack_from(data)[4]
    return min(len(data), _HEAD.size + min(meta_length, LONGEST_META))


def _seal(kind: int, order: bytes, meta: bytes, body: bytes, coded: Sequence[bytes]) -> bytes | None:
    if len(meta) > LONGEST_META:
        return None
    lengths = (len(meta), len(body), sum(map(len, coded)))
    head = _HEAD.pack(MAGIC, VERSION, kind, order, *lengths, bytes(16))[:_CHECKSUM_AT]
    digest = blake2b(head, digest_size=16)
    for part in (meta, body, *coded):
        digest.update(part)
    return b"".join((head, digest.digest(), meta, body, *coded))


def _decode(
    data: bytes, key: Key, namespace: bytes, now: float, frames: Frames
) -> Entry | Marker | LookupMiss:
    if len(data) < _HEAD.size:
        return LookupMiss.CORRUPT
    magic, version, kind, order, meta_length, body_length, coded_length, checksum = _HEAD.unpack_from(data)
    if magic != MAGIC:
        return LookupMiss.CORRUPT
    if version != VERSION:
        return LookupMiss.FOREIGN
    meta_end = _HEAD.size + meta_length
    if meta_length > LONGEST_META or meta_end + body_length + coded_length != len(data):
        return LookupMiss.CORRUPT
    view = memoryview(data)
    digest = blake2b(view[:_CHECKSUM_AT], digest_size=16)
    digest.update(view[_HEAD.size :])
    if digest.digest() != checksum:
        return LookupMiss.CORRUPT
    meta = view[_HEAD.size : meta_end]
    if kind == _MARKER:
        if body_length or coded_length:
            return LookupMiss.CORRUPT
        return _marker(_marker_meta.decode(meta), order, key, namespace)
    if kind != _ENTRY:
        return LookupMiss.CORRUPT
    told = _entry_meta.decode(meta)
    if told.namespace != namespace or text(told.primary) != key[0] or text(told.variant) != key[1]:
        return LookupMiss.FOREIGN
    if not _plausible(told, now) or bool(told.variant) != bool(told.selecting):
        return LookupMiss.CORRUPT
    rest = data[meta_end:]
    codings = _codings(told, rest, body_length)
    if codings is None:
        return LookupMiss.CORRUPT
    body = rest[:body_length] if codings else rest
    return _entry(told, order, body, codings, key, frames) or LookupMiss.CORRUPT


def _marker(meta: _MarkerMeta, order: bytes, key: Key, namespace: bytes) -> Marker | LookupMiss:
    primary, variant = key
    if meta.namespace != namespace or text(meta.primary) != primary or variant:
        return LookupMiss.FOREIGN
    if (
        not 1 <= len(meta.names) <= MOST_NAME_LISTS
        or not all(meta.names)
        or len(meta.variants) > MOST_VARIANTS
        or not 0 <= meta.expires <= FAR
    ):
        return LookupMiss.CORRUPT
    names = tuple(map(_texts, meta.names))
    return Marker(primary, names, _texts(meta.variants), meta.expires, order)


def _entry(
    meta: _Meta, order: bytes, body: bytes, codings: Codings, key: Key, frames: Frames
) -> Entry | None:
    """None: these parts do not belong to each other."""
    known, own, length = frames.known(meta.frame), meta.own, len(body)
    if (
        not known.fits(own, length)
        or len(known.frame.vary) != len(meta.selecting)
        or not _part_fits(meta, known.frame.status, length)
    ):
        return None
    epoch, started = struct.unpack(">QQ", order)
    if started >> 63:
        return None  # of a clock that nobody has
    host, target, rule, tags = text(meta.host), text(meta.target), text(meta.rule), _texts(meta.tags)
    recipe = known.recipe
    if recipe is not None and meta.part is None:
        packed = recipe.octets(
            meta.received, meta.initial_age, meta.lifetime, meta.fetch_seconds, started, own
        )
        return Entry.packed(
            key[0], host, target, recipe.kind, packed, body, epoch, tags, rule, "", codings or None
        )
    stored = known.stored(
        own,
        (meta.received, meta.initial_age, meta.lifetime),
        length,
        tuple([None if value is None else text(value) for value in meta.selecting]),
        None if meta.part is None else Part(*meta.part),
    )
    if not known.asked and frames.packing is not None:
        known.learn_recipe(frames.packing, stored)
    return Entry(
        key[0], host, target, key[1], stored, body, epoch, started, tags, rule, codings or None,
        meta.fetch_seconds,
    )  # fmt: skip


def _codings(meta: _Meta, rest: bytes, length: int) -> Codings | None:
    """The coded bodies, behind so many octets of body; None where lengths or names do not agree."""
    codings, at = Codings(), length
    for coding, size in meta.codings:
        if not coding or not 0 <= size <= len(rest) - at:
            return None
        codings[text(coding)] = rest[at : at + size]
        at += size
    return codings if at == len(rest) and len(codings) == len(meta.codings) else None


def _part_fits(meta: _Meta, status: int, length: int) -> bool:
    """Is a part marked as one, and does it say of its octets what can be?"""
    if meta.part is None:
        return status != 206
    start, stop, total = meta.part
    return (
        status == 206
        and 0 <= start < stop <= _FARTHEST
        and (total is None or stop <= total <= _FARTHEST)
        and 0 < length <= stop - start
        and not meta.codings
    )


def _plausible(meta: _Meta, now: float) -> bool:
    """Are the times numbers, and of this world? (A NaN fails every comparison.)"""
    return (
        0 <= meta.received <= now + FUTURE
        and -FAR <= meta.lifetime <= FAR
        and 0 <= meta.initial_age <= FAR
        and 0 <= meta.fetch_seconds <= FAR
    )


def _all_octets(texts: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(octets, texts))


def _texts(data: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(map(text, data)) if data else ()
