"""Packed and unpacked: the same answer to the octet, and as large as it is charged."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Freshness, LifetimeSource, Stored
from edgeproxy.store import packed
from edgeproxy.store.entry import Codings
from edgeproxy.store.packed import Fetched, Packing, fetched, marked, times, unpack
from tests.store.make import make_entry

NAME = st.sampled_from([b"ETag", b"Date", b"X-A", b"x-a", b"Content-Type", b"Content-Length", b"Set-Cookie"])
VALUE = st.one_of(st.sampled_from([b"", b"a", b"text/plain"]), st.binary(max_size=12))
SECONDS = st.floats(0, 1e9)


def as_given(*parts: Any) -> list[Any]:
    times, flags, source = parts
    return [*times, *flags, source]


STORED = st.builds(
    lambda status, reason, raw, times, flags, source, selecting, coding: Stored(
        status, reason, Headers(raw), Freshness(*as_given(times, flags, source)), 4,
        tuple(f"x-{n}" for n in range(len(selecting))), tuple(selecting), coding,
    ),
    st.integers(200, 599), st.sampled_from(["", "OK"]), st.lists(st.tuples(NAME, VALUE), max_size=8),
    st.tuples(*[SECONDS] * 7), st.tuples(st.booleans(), st.booleans()), st.sampled_from(LifetimeSource),
    st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=3), st.sampled_from(["", "gzip"]),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(STORED, min_size=1, max_size=30), st.tuples(SECONDS, st.integers(-(2**60), 2**60)))
def test_what_is_packed_comes_back_the_same(answers: list[Stored], fetch: tuple[float, int]) -> None:
    packing = Packing()
    for stored in answers:
        done = packing.pack(stored, Fetched(*fetch, ()))
        line_ends = any(b"\n" in value for _, value in stored.headers.raw) or any(
            "\n" in (value or "") for value in stored.selecting
        )
        if done is None:
            assert line_ends  # nothing else keeps an answer from being packed here
            continue
        kind, own = done
        with_marks = marked(own, (7, 2**32 - 1))
        for octets in (own, with_marks):
            assert unpack(kind, octets, 4) == stored
            assert times(octets) == (
                stored.freshness.received, stored.freshness.initial_age, stored.freshness.lifetime
            )  # fmt: skip
        assert fetched(own) == (*fetch, ())
        assert fetched(with_marks) == (*fetch, (7, 2**32 - 1))


def of(number: int, *more: tuple[str, str]) -> Stored:
    fields = (("Content-Type", "text/plain"), ("X-Id", str(number)), ("ETag", f'"{number}"'), *more)
    return Stored(200, "OK", Headers.of(fields), Freshness(1.0, 0.0, 60.0), 4)


def test_a_field_with_ever_new_values_is_no_longer_kept_for_others() -> None:
    packing = Packing()
    made = [packing.pack(of(number), Fetched(0.0, 1, ())) for number in range(500)]
    kinds = {id(done[0]): done[0] for done in made if done is not None}
    assert len(kinds) == 2
    assert max(len(kind.rows) for kind in kinds.values()) <= packed.MOST_ROWS
    last = made[-1]
    assert last is not None
    assert len(last[0].rows) == 1
    assert b"499" in last[1]
    assert b"text/plain" not in last[1]
    assert [unpack(*done, 4) for done in made if done is not None] == [of(number) for number in range(500)]


def test_what_is_shared_is_bounded() -> None:
    packing = Packing()
    for number in range(packed.MOST_KINDS + 10):
        packing.pack(of(1, (f"X-{number}", "a")), Fetched(0.0, 1, ()))
    assert len(packing._kinds) == packed.MOST_KINDS
    assert packing.pack(of(1, ("X-New", "a")), Fetched(0.0, 1, ())) is None
    assert packing.pack(of(1, ("X-1", "b")), Fetched(0.0, 1, ())) is not None
    assert packing._octets <= packed.MOST_OCTETS


def test_an_entry_says_the_same_packed() -> None:
    entry, like = (make_entry(tags=("a", "b"), vary=(("x-lang", "de"),), initial_age=2.0) for _ in range(2))
    entry.pack(Packing())
    assert entry.is_packed
    assert not like.is_packed
    for name in ("stored", "order", "fetch_seconds", "fresh_until", "target", "marks"):
        assert getattr(entry, name) == getattr(like, name)
    assert entry.age(1_700_000_033.5) == like.age(1_700_000_033.5) == 35.5
    entry.mark((1, 2, 3, 4, 5, 6))
    assert entry.stored == like.stored
    assert entry.marks == entry.copied().marks == (1, 2, 3, 4, 5, 6)
    assert entry.size < like.size


def test_one_whose_length_is_not_its_bodys_stays_as_it_is() -> None:
    draft = make_entry()
    draft.body = b""
    draft.pack(Packing())
    assert not draft.is_packed


def test_codings_are_a_mapping() -> None:
    codings = Codings()
    assert (dict(codings), len(codings)) == ({}, 0)
    for coding in ("br", "gzip", "zstd", "x"):
        codings[coding] = coding.encode()
    codings["gzip"] = b"better"
    assert dict(codings) == {"br": b"br", "gzip": b"better", "zstd": b"zstd", "x": b"x"}
    assert "" not in codings
    assert "deflate" not in codings
    assert codings.get("deflate") is None


_MEASURE = """
import gc, os
from edgeproxy.cluster.epoch import PurgeTable
from edgeproxy.store.memory import MemoryStore
from tests.store.make import make_entry

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

memory = MemoryStore(1 << 40, PurgeTable.anonymous(4096))

def fill(begin, end):
    octets = 0
    for number in range(begin, end):
        fields = (("Date", f"Sun, 06 Nov 1994 08:49:{number:05}"), ("Content-Type", "application/json"),
                  ("Cache-Control", "public, max-age=3600"), ("Server", "origin"), ("ETag", f'"{number:x}"'))
        body = b"%d" % number * 150
        entry = make_entry(f"/some/resource/{number}", body, received=number / 7, fields=fields)
        memory.put(entry)
        entry = memory.peek(entry.primary, lambda names: ()).entry
        for coding in ("br", "gzip"):
            entry.codings[coding] = b"%d" % number * 60
            memory.resized(entry)
        octets += len(entry.body) + sum(map(len, entry.codings.values()))
    return octets

fill(0, 5_000)
gc.collect()
before, charged = resident(), memory.bytes
bodies = fill(5_000, 55_000)
print((resident() - before - bodies) / 50_000, (memory.bytes - charged - bodies) / 50_000,
      (memory.bytes - charged) / (resident() - before))
"""


def test_what_is_charged_is_what_is_taken() -> None:
    """In a process of its own: resident memory of 50,000 entries with two codings each."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True, timeout=120
    )
    taken, charged, ratio = map(float, done.stdout.split())
    assert taken < 1300, done.stdout
    assert charged < 1024, done.stdout
    assert 0.8 < ratio < 1.25, done.stdout


def test_an_entry_is_small() -> None:
    entry = make_entry()
    assert sys.getsizeof(entry) < 250
    assert not hasattr(entry, "__dict__")
