"""Entries and vary markers as octets, and back. What comes back from a shared store is untrusted.

Rules of this file:

- One fixed head, then the meta (msgpack), the body, the coded bodies. Nothing is taken from the data
  before the lengths agree with each other and the checksum with everything else.
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

import math
import re
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Freshness, LifetimeSource, Part, Stored
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.entry import Codings, Entry
from edgeproxy.store.purge import octets

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"\x89EPX"
VERSION = 3

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
_LONGEST = 1e10
_FARTHEST = 10**18
"""Octets of the largest representation that a part is of."""
MOST_NAME_LISTS = 8
MOST_VARIANTS = 64

_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"}
    | {b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)

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
    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    vary: tuple[bytes, ...]
    selecting: tuple[bytes | None, ...]
    coding: bytes
    codings: tuple[tuple[bytes, int], ...]
    received: float
    initial_age: float
    lifetime: float
    stale_while_revalidate: float
    stale_if_error: float
    stale_if_disconnected: float
    keep: float
    must_validate: bool
    never_stale: bool
    source: LifetimeSource
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
    stored = entry.stored
    fresh = stored.freshness
    coded_bodies = entry.coded
    meta = _encoder.encode(
        _Meta(
            namespace,
            octets(entry.primary),
            octets(entry.host),
            octets(entry.target),
            octets(entry.variant),
            octets(entry.rule),
            _all_octets(entry.tags),
            stored.status,
            octets(stored.reason),
            stored.headers.raw,
            _all_octets(stored.vary),
            tuple(None if value is None else octets(value) for value in stored.selecting),
            octets(stored.coding),
            tuple((octets(coding), len(coded)) for coding, coded in coded_bodies),
            fresh.received,
            fresh.initial_age,
            fresh.lifetime,
            fresh.stale_while_revalidate,
            fresh.stale_if_error,
            fresh.stale_if_disconnected,
            fresh.keep,
            fresh.must_validate,
            fresh.never_stale,
            fresh.source,
            entry.fetch_seconds,
            None if stored.part is None else (stored.part.start, stored.part.stop, stored.part.total),
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


def decode(data: bytes, key: Key, namespace: bytes, now: float) -> Entry | Marker | LookupMiss:
    """What the octets hold, if they hold what belongs under ``key`` (a variant is "" for the primary
    record, which alone may be a marker). CORRUPT or FOREIGN otherwise; raises nothing."""
    try:
        return _decode(data, key, namespace, now)
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
            _text(meta.primary),
            _text(meta.variant),
            _text(meta.host),
            _text(meta.target),
            tuple(map(_text, meta.tags)),
            int.from_bytes(order[:8], "big"),
            _HEAD.size + meta_length + body + coded,
            _text(meta.rule),
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
            return marker.namespace, (_text(marker.primary), "")
        meta = _entry_meta.decode(raw)
        return meta.namespace, (_text(meta.primary), _text(meta.variant))
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


def _decode(data: bytes, key: Key, namespace: bytes, now: float) -> Entry | Marker | LookupMiss:
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
    return _entry(_entry_meta.decode(meta), order, data[meta_end:], body_length, (key, namespace, now))


def _marker(meta: _MarkerMeta, order: bytes, key: Key, namespace: bytes) -> Marker | LookupMiss:
    primary, variant = key
    if meta.namespace != namespace or _text(meta.primary) != primary or variant:
        return LookupMiss.FOREIGN
    if (
        not 1 <= len(meta.names) <= MOST_NAME_LISTS
        or not all(meta.names)
        or len(meta.variants) > MOST_VARIANTS
        or not 0 <= meta.expires <= _LONGEST
    ):
        return LookupMiss.CORRUPT
    names = tuple(tuple(map(_text, names)) for names in meta.names)
    return Marker(primary, names, tuple(map(_text, meta.variants)), meta.expires, order)


def _entry(
    meta: _Meta, order: bytes, rest: bytes, length: int, expected: tuple[Key, bytes, float]
) -> Entry | LookupMiss:
    (primary, variant), namespace, now = expected
    if meta.namespace != namespace or _text(meta.primary) != primary or _text(meta.variant) != variant:
        return LookupMiss.FOREIGN
    if bool(variant) != bool(meta.vary) or not (_well_formed(meta, length) and _plausible(meta, now)):
        return LookupMiss.CORRUPT
    codings = Codings() if meta.codings else None
    at = length
    for coding, size in meta.codings:
        if codings is None or not coding or not 0 <= size <= len(rest) - at:
            return LookupMiss.CORRUPT
        codings[_text(coding)] = rest[at : at + size]
        at += size
    if at != len(rest) or len(codings or ()) != len(meta.codings):
        return LookupMiss.CORRUPT
    freshness = Freshness(
        meta.received,
        meta.initial_age,
        meta.lifetime,
        meta.stale_while_revalidate,
        meta.stale_if_error,
        meta.stale_if_disconnected,
        meta.keep,
        meta.must_validate,
        meta.never_stale,
        meta.source,
    )
    stored = Stored(
        meta.status,
        _text(meta.reason),
        Headers(meta.fields),
        freshness,
        length,
        tuple(map(_text, meta.vary)),
        tuple(None if value is None else _text(value) for value in meta.selecting),
        _text(meta.coding),
        None if meta.part is None else Part(*meta.part),
    )
    epoch, started = struct.unpack(">QQ", order)
    return Entry(
        primary,
        _text(meta.host),
        _text(meta.target),
        variant,
        stored,
        rest[:length] if codings else rest,
        epoch,
        started,
        tuple(map(_text, meta.tags)),
        _text(meta.rule),
        codings,
        meta.fetch_seconds,
    )


def _well_formed(meta: _Meta, length: int) -> bool:
    """Can this be sent as an answer's head without splitting or mis-framing anything?"""
    if not 200 <= meta.status <= 599 or _CONTROL.search(meta.reason) or len(meta.vary) != len(meta.selecting):
        return False
    if not _part_fits(meta, length):
        return False
    if not meta.fields:
        return True
    names = b"\n".join([name for name, _ in meta.fields])
    if not _NAMES.fullmatch(names) or names.count(b"\n") != len(meta.fields) - 1:
        return False
    if _CONTROL.search(b" ".join([value for _, value in meta.fields])):
        return False
    for name, value in meta.fields:
        lower = name.lower()
        if lower in _HOP_BY_HOP or (lower == b"content-length" and value != b"%d" % length):
            return False
    return True


def _part_fits(meta: _Meta, length: int) -> bool:
    """Is a part marked as one, and does it say of its octets what can be?"""
    if meta.part is None:
        return meta.status != 206
    start, stop, total = meta.part
    return (
        meta.status == 206
        and 0 <= start < stop <= _FARTHEST
        and (total is None or stop <= total <= _FARTHEST)
        and 0 < length <= stop - start
        and not meta.codings
    )


def _plausible(meta: _Meta, now: float) -> bool:
    """Are the times numbers, and of this world? (A NaN fails every comparison.)"""
    if not (0 <= meta.received <= now + FUTURE and -_LONGEST <= meta.lifetime <= _LONGEST):
        return False
    spans = (
        meta.initial_age,
        meta.stale_while_revalidate,
        meta.stale_if_error,
        meta.stale_if_disconnected,
        meta.keep,
        meta.fetch_seconds,
    )
    return min(spans) >= 0 and max(spans) <= _LONGEST and not any(map(math.isnan, spans))


def _all_octets(texts: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(octets, texts))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
