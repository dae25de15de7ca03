from __future__ import annotations

import contextlib
import math
import os
import struct
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiocache.serializers import PickleSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Part
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.codec import (
    FUTURE,
    ORDER_AT,
    ORDER_END,
    VERSION,
    Marker,
    coordinates,
    decode,
    encode,
    encode_marker,
    head_length,
    order_octets,
    other_version,
    record_key,
)
from edgeproxy.store.entry import Entry, codings_of
from edgeproxy.store.frame import Frames
from edgeproxy.store.packed import Packing
from tests.store.make import NOW, make_entry, same
from tests.store.test_packed import STORED

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.policy.stored import Freshness, Stored

SPACE = b"namespac"
HEAD = 60
FRAME, OWN, CODINGS = 7, 8, 10
"""Places in the meta."""


def sealed(entry: Entry | Marker) -> bytes:
    data = encode(entry, SPACE) if isinstance(entry, Entry) else encode_marker(entry, SPACE)
    assert data is not None
    return data


def full() -> Entry:
    entry = make_entry(
        "/pitches/1?q=ä", b"the body", tags=("a", "b"), vary=(("accept", "x"), ("accept-language", None)),
        epoch=2**61, started=12345,
    )  # fmt: skip
    entry.codings.update(br=b"br body", gzip=b"gzip body!")
    freshness = replace(entry.stored.freshness, stale_if_disconnected=30.0, stale_if_error=7.0, keep=9.0)
    return entry.copied(stored=replace(entry.stored, freshness=freshness))


def key_of(entry: Entry) -> tuple[str, str]:
    return (entry.primary, entry.variant)


def read(data: bytes, entry: Entry, now: float = NOW) -> Entry | Marker | LookupMiss:
    return decode(data, key_of(entry), SPACE, now)


def resealed(data: bytes) -> bytes:
    """With a checksum that fits, as somebody who may write to the store would make it."""
    digest = blake2b(data[: HEAD - 16] + data[HEAD:], digest_size=16).digest()
    return data[: HEAD - 16] + digest + data[HEAD:]


def with_meta(data: bytes, meta: bytes, rest: bytes | None = None) -> bytes:
    length = struct.unpack_from(">I", data, 24)[0]
    tail = data[HEAD + length :] if rest is None else rest
    return resealed(data[:24] + struct.pack(">I", len(meta)) + data[28:HEAD] + meta + tail)


def test_there_and_back() -> None:
    entry = full()
    back = read(sealed(entry), entry)
    assert isinstance(back, Entry)
    assert same(back, entry)


def a_part(*part: int | None, body: bytes = b"part", status: int = 206) -> Entry:
    entry = make_entry(body=body)
    start, stop, total = part
    assert start is not None
    assert stop is not None
    return entry.copied(stored=replace(entry.stored, status=status, part=Part(start, stop, total)))


@pytest.mark.parametrize("part", [(3, 7, 10), (3, 7, None), (3, 8, 10), (0, 4, 4)])
def test_a_part_there_and_back(part: tuple[int, int, int | None]) -> None:
    entry = a_part(*part)
    back = read(sealed(entry), entry)
    assert isinstance(back, Entry)
    assert same(back, entry)


@pytest.mark.parametrize(
    "entry",
    [
        a_part(3, 7, 10, status=200),
        a_part(3, 6, 10),
        a_part(7, 3, 10),
        a_part(-4, 0, 10),
        a_part(3, 7, 6),
        a_part(3, 7, 10, body=b""),
        a_part(0, 10**18 + 1, None),
        make_entry().copied(stored=replace(make_entry().stored, status=206)),
        a_part(3, 7, 10).copied(codings=codings_of({"br": b"x"})),
    ],
)
def test_a_part_that_cannot_be_is_corrupt(entry: Entry) -> None:
    assert read(sealed(entry), entry) is LookupMiss.CORRUPT


def test_the_order_is_where_stores_look_for_it() -> None:
    entry = full()
    assert sealed(entry)[ORDER_AT:ORDER_END] == order_octets(*entry.order)
    assert order_octets(1, 2**63) < order_octets(2, 0)


def test_a_marker_there_and_back() -> None:
    marker = Marker("p", (("accept",), ("accept", "cookie")), ("v1", "v2"), NOW + 5, order_octets(3, 4))
    assert decode(sealed(marker), ("p", ""), SPACE, NOW) == marker
    assert decode(sealed(marker), ("p", "v1"), SPACE, NOW) is LookupMiss.FOREIGN
    assert decode(sealed(marker), ("q", ""), SPACE, NOW) is LookupMiss.FOREIGN


def test_coordinates_without_the_body() -> None:
    entry = full()
    data = sealed(entry)
    place = coordinates(data[: head_length(data)], SPACE)
    assert place is not None
    assert (place.host, place.target, place.tags) == (entry.host, entry.target, entry.tags)
    assert (place.epoch, place.octets) == (entry.epoch, len(data))
    assert coordinates(data, b"otherone") is None
    assert coordinates(b"", SPACE) is None


def test_every_changed_octet_is_noticed() -> None:
    # B2: magic, version, key, lengths, body, checksum; every position, several changes.
    entry = full()
    data = sealed(entry)
    for position in range(len(data)):
        for changed in (data[position] ^ 1, data[position] ^ 0x80, 0, 255):
            if changed == data[position]:
                continue
            bad = data[:position] + bytes([changed]) + data[position + 1 :]
            assert read(bad, entry) in {LookupMiss.CORRUPT, LookupMiss.FOREIGN}, position


def test_every_truncation_is_noticed() -> None:
    entry = full()
    data = sealed(entry)
    for length in range(len(data)):
        assert read(data[:length], entry) is LookupMiss.CORRUPT
        assert read(data[:length] + bytes(len(data) - length), entry) is not entry
    assert read(data + b"\0", entry) is LookupMiss.CORRUPT


def test_an_unknown_version_is_foreign_and_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = full()
    data = sealed(entry)
    newer = resealed(data[:4] + (VERSION + 1).to_bytes(2, "big") + data[6:])
    assert read(newer, entry) is LookupMiss.FOREIGN
    assert other_version(newer)
    assert not other_version(data)
    key = record_key(SPACE, "p")
    monkeypatch.setattr("edgeproxy.store.codec.VERSION", VERSION + 1)
    assert record_key(SPACE, "p") != key


def test_a_copy_under_another_key_or_namespace_is_foreign() -> None:
    # F4, and a reply that crossed to another command.
    entry = full()
    data = sealed(entry)
    assert decode(data, ("http://api.example/b", entry.variant), SPACE, NOW) is LookupMiss.FOREIGN
    assert decode(data, (entry.primary, ""), SPACE, NOW) is LookupMiss.FOREIGN
    assert decode(data, key_of(entry), b"tenant-b", NOW) is LookupMiss.FOREIGN


def test_keys_do_not_collide_by_joining() -> None:
    pairs = [(SPACE, "ab", "c"), (SPACE, "a", "bc"), (SPACE, "abc", ""), (SPACE + b"a", "b", "c")]
    keys = {record_key(*pair) for pair in pairs}
    assert len(keys) == len(pairs)
    assert all(key.isascii() and len(key) == 32 for key in keys)


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    # F1
    entry = full()
    planted = tmp_path / "planted"
    payload: bytes = PickleSerializer().dumps(_Payload(planted))
    data = sealed(entry)
    for bad in (payload, with_meta(data, payload), with_meta(data, data[HEAD:], payload)):
        assert read(bad, entry) is LookupMiss.CORRUPT
    assert not planted.exists()


BAD_FIELDS = [
    (b"X\r\nSet-Cookie", b"a"), (b"X-A", b"a\r\nSet-Cookie: b"), (b"X-A", b"a\nb"), (b"X-A", b"a\0b"),
    (b"X A", b"a"), (b"X-A:", b"a"), (b"", b"a"), (b"X-A", b"a\x7f"), (b"X-A", b"a\x1b[0m"), (b"X\n", b"a"),
    (b"Connection", b"close"), (b"TRANSFER-encoding", b"chunked"), (b"Upgrade", b"websocket"),
    (b"Content-Length", b"7"), (b"Content-Length", b"+8"), (b"content-length", b"8, 8"),
]  # fmt: skip


@pytest.mark.parametrize("field", BAD_FIELDS, ids=repr)
def test_fields_that_would_split_or_misframe_are_refused(field: tuple[bytes, bytes]) -> None:
    # F3: the checksum is right; whoever wrote this may write to the store.
    entry = full()
    good = (b"Content-Length", b"8")
    for fields in ([field], [good, field], [field, good]):
        entry.stored = replace(entry.stored, headers=Headers(fields))
        assert read(sealed(entry), entry) is LookupMiss.CORRUPT
    entry.stored = replace(entry.stored, headers=Headers([good, (b"X-Any", b"\ttab and \xff")]))
    assert isinstance(read(sealed(entry), entry), Entry)


def test_heads_and_times_not_of_this_world_are_refused() -> None:
    def bad(**changes: Any) -> Entry:
        entry = full()
        entry.stored = replace(entry.stored, **changes)
        return entry

    fresh = full().stored.freshness

    def changed(name: str, value: Any) -> Freshness:
        return replace(fresh, **{name: value})

    wrong = [bad(status=status) for status in (0, 100, 199, 600, 2**40)]
    wrong += [bad(reason="OK\r\nX: y"), bad(selecting=("x",))]
    wrong += [
        bad(freshness=changed(name, value))
        for name, value in (
            ("received", NOW + FUTURE + 1),
            ("received", -1.0), ("received", math.nan), ("received", math.inf),
            ("initial_age", -1.0), ("initial_age", math.inf), ("lifetime", math.nan), ("lifetime", math.inf),
            ("keep", -1.0), ("stale_if_error", math.nan), ("stale_if_disconnected", math.nan),
            ("stale_while_revalidate", math.inf),
        )
    ]  # fmt: skip
    for entry in wrong:
        assert read(sealed(entry), entry) is LookupMiss.CORRUPT, entry.stored
    entry = bad(freshness=replace(fresh, received=NOW + FUTURE - 1))
    assert isinstance(read(sealed(entry), entry), Entry)


def test_lengths_inside_are_checked() -> None:
    entry = full()
    data = sealed(entry)
    length = struct.unpack_from(">I", data, 24)[0]
    meta = msgspec.msgpack.decode(data[HEAD : HEAD + length])
    sizes = meta[CODINGS]
    for codings in ([], [[sizes[0][0], 2**63 - 1]], [*sizes, [b"x", 1]], [[b"br", -1], [b"gzip", 18]]):
        meta[CODINGS] = codings
        assert read(with_meta(data, msgspec.msgpack.encode(meta)), entry) is LookupMiss.CORRUPT
    meta[CODINGS] = [[b"br", 7], [b"br", 10]]
    assert read(with_meta(data, msgspec.msgpack.encode(meta)), entry) is LookupMiss.CORRUPT


@pytest.mark.parametrize(
    "meta",
    [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdc\x00\x19" + b"\x91" * 50_000,
     b"\x98" + b"\x81" * 1000, b"\xc0", b""],
    ids=lambda meta: meta[:6].hex(),
)  # fmt: skip
def test_nesting_and_huge_lengths_cost_nothing(meta: bytes) -> None:
    entry = full()
    assert read(with_meta(sealed(entry), meta), entry) is LookupMiss.CORRUPT


ENTRY = full()
DATA = sealed(ENTRY)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutations_are_a_miss_and_nothing_else(data: st.DataObject) -> None:
    # F2: cut, replaced and put in, with the checksum made to fit.
    mutated = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        until = min(len(mutated), at + data.draw(st.integers(0, 16)))
        mutated[at:until] = data.draw(st.binary(max_size=16))
    for candidate in (bytes(mutated), resealed(bytes(mutated)) if len(mutated) >= HEAD else b""):
        result = read(candidate, ENTRY)
        if isinstance(result, Entry):
            # A change that is legal: what came out is whole and belongs here.
            assert key_of(result) == key_of(ENTRY)
            assert result.stored.length == len(result.body)
            assert 200 <= result.stored.status <= 599


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_octets_are_a_miss(octets: bytes) -> None:
    assert read(octets, ENTRY) is LookupMiss.CORRUPT
    meta = with_meta(DATA, octets)
    assert read(meta, ENTRY) in {LookupMiss.CORRUPT, LookupMiss.FOREIGN}
    assert coordinates(octets, SPACE) is None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 28), json_like)
def test_wrong_types_in_any_slot_are_a_miss(slot: int, value: object) -> None:
    meta, frame = parts(DATA)
    if slot < len(meta):
        meta[slot] = value
    else:
        frame[slot - len(meta)] = value
        meta[FRAME] = msgspec.msgpack.encode(frame)
    result = read(with_meta(DATA, msgspec.msgpack.encode(meta)), ENTRY)
    assert isinstance(result, (Entry, LookupMiss))


def parts(data: bytes) -> tuple[list[Any], list[Any]]:
    length = struct.unpack_from(">I", data, 24)[0]
    meta = msgspec.msgpack.decode(data[HEAD : HEAD + length])
    return meta, msgspec.msgpack.decode(meta[FRAME])


@pytest.mark.parametrize("own", [[0, 0], [1, 0], [2], [-1], [0], [1, 2], [2**70]], ids=repr)
def test_own_values_stand_where_fields_are(own: list[int]) -> None:
    entry = make_entry()
    meta, frame = parts(sealed(entry))
    assert (frame[3], meta[OWN]) == ([1], [b'"1"'])
    frame[3], meta[FRAME] = own, None
    meta[OWN] = [b"x"] * len(own)
    with contextlib.suppress(OverflowError):
        meta[FRAME] = msgspec.msgpack.encode(frame)
    assert read(with_meta(sealed(entry), msgspec.msgpack.encode(meta)), entry) is LookupMiss.CORRUPT


@pytest.mark.parametrize("own", [[], [b"1", b"2"], [b"a\r\nb"], [b"a\0"], [1], None], ids=repr)
def test_own_values_are_as_many_as_there_are_places_and_split_nothing(own: object) -> None:
    entry = make_entry()
    meta, _ = parts(sealed(entry))
    meta[OWN] = own
    for frames in (None, Frames(), known_to(Frames(Packing()))):
        data = with_meta(sealed(entry), msgspec.msgpack.encode(meta))
        assert decode(data, key_of(entry), SPACE, NOW, frames) is LookupMiss.CORRUPT


def known_to(frames: Frames) -> Frames:
    entry = make_entry()
    for _ in range(2):
        decode(sealed(entry), key_of(entry), SPACE, NOW, frames)
    return frames


@pytest.mark.parametrize("size", [b"4", b"5", b"04", b""])
def test_a_length_of_its_own_is_the_bodys(size: bytes) -> None:
    entry = make_entry(fields=(("Content-Length", "4"),))
    frames = Frames(Packing())
    for _ in range(3):
        assert isinstance(decode(sealed(entry), key_of(entry), SPACE, NOW, frames), Entry)
    meta, frame = parts(sealed(entry))
    assert (frame[3], meta[OWN]) == ([0], [b"4"])
    meta[OWN] = [size]
    data = with_meta(sealed(entry), msgspec.msgpack.encode(meta))
    assert isinstance(decode(data, key_of(entry), SPACE, NOW, frames), Entry) is (size == b"4")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(STORED, st.booleans()), min_size=1, max_size=6))
def test_packed_or_not_it_comes_back_the_same(made: list[tuple[Stored, bool]]) -> None:
    """What is packed is written as what is not, and what comes back packed is what comes back not packed."""
    packing = Packing()
    frames = Frames(packing)
    for stored, pack in made * 3:
        entry = make_entry(tags=("a",)).copied(stored=stored)
        entry.variant = "of some" if stored.vary else ""
        entry.body = bytes(stored.length)
        entry.codings["br"] = b"coded"
        like = entry.copied()
        like.variant, like.body = entry.variant, entry.body
        if pack:
            entry.pack(packing)
        data = sealed(entry)
        for given_frames in (frames, Frames(), None):
            back = decode(data, key_of(entry), SPACE, NOW, given_frames)
            if isinstance(back, Entry):
                assert same(back, like)
            else:
                assert back is read(sealed(like), like)


def test_a_start_of_no_clock_is_refused() -> None:
    entry = make_entry(started=2**63 - 1)
    frames = known_to(Frames(Packing()))
    data = sealed(entry)
    assert isinstance(decode(data, key_of(entry), SPACE, NOW, frames), Entry)
    bad = resealed(data[: ORDER_AT + 8] + b"\x80" + data[ORDER_AT + 9 :])
    for given_frames in (frames, None):
        assert decode(bad, key_of(entry), SPACE, NOW, given_frames) is LookupMiss.CORRUPT


def test_what_comes_again_comes_packed() -> None:
    packing, other = Packing(), Packing()
    frames = Frames(other)
    for number in range(4):
        entry = make_entry(f"/{number}", fields=(("Content-Type", "text/plain"), ("ETag", f'"{number}"')))
        entry.codings["br"] = b"coded"
        like = entry.copied()
        entry.pack(packing)
        back = decode(sealed(entry), key_of(entry), SPACE, NOW, frames)
        assert isinstance(back, Entry)
        assert back.is_packed is (number > 0)
        assert same(back, like)
        assert frames.known(parts(sealed(entry))[0][FRAME]).asked


def test_what_is_known_of_frames_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.store.frame.MOST_FRAMES", 3)
    frames = Frames()
    for number in range(20):
        entry = make_entry(fields=(("X-Is", str(number)),))
        assert isinstance(decode(sealed(entry), key_of(entry), SPACE, NOW, frames), Entry)
        assert 0 < len(frames._known) <= 3
