"""The octets of a stored part and of its rest as one body, and which of two entries stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeproxy.engine.parts import SplicedBody, counted, settled
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.stored import Part
from edgeproxy.store.entry import Entry
from tests.policy.make import NOW
from tests.policy.make import stored as whole_stored
from tests.policy.test_parts import FRESH, part

BODY = b"0123456789"


class Source:
    def __init__(self, *pieces: bytes, length: int | None = None) -> None:
        self.pieces = list(pieces)
        self.length = length
        self.closed = False

    def take_all(self) -> bytes | None:
        return b"".join(self.pieces)

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.closed = True


async def read_all(body: SplicedBody) -> bytes:
    pieces = []
    while piece := await body.read():
        pieces.append(piece)
    assert await body.read() == b""
    return b"".join(pieces)


@pytest.mark.parametrize(("before", "after"), [(b"01", b"89"), (b"01", b""), (b"", b"89"), (b"", b"")])
async def test_spliced(before: bytes, after: bytes) -> None:
    source = Source(b"234", b"567")
    body = SplicedBody(before, source, 6, after)
    assert body.length == 6 + len(before) + len(after)
    assert body.take_all() is None, "its length was not announced"
    assert await read_all(body) == before + b"234567" + after
    body.close()
    assert source.closed
    assert SplicedBody(before, Source(b"234567", length=6), 6, after).take_all() == before + b"234567" + after


@pytest.mark.parametrize("pieces", [(b"234",), (b"234", b"5678"), (b"234567", b"8"), ()])
async def test_a_source_of_another_length_breaks_off(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(OriginError):
        await read_all(SplicedBody(b"01", Source(*pieces), 6, b"89"))


def test_parts_are_counted() -> None:
    stored = part(0, 5, 10, FRESH)
    assert counted(stored, 3)
    unannounced = replace(stored, length=-1)
    assert counted(unannounced, 5)
    assert not counted(unannounced, 3)
    assert counted(replace(whole_stored(FRESH), length=-1), 3)


def entry(
    start: int, stop: int, *, epoch: int = 1, started: int = 1, tag: str = "a", variant: str = ""
) -> Entry:
    given = {**FRESH, "ETag": f'"{tag}"'}
    body = BODY[start:stop] if tag == "a" else BODY[::-1][start:stop]
    whole = (start, stop) == (0, 10)
    stored = whole_stored(given, length=10) if whole else part(start, stop, 10, given)
    return Entry("k", "h", "/a", variant, stored, body, epoch, started, tags=(f"t{started}",))


def test_two_parts_become_one() -> None:
    made = settled(entry(3, 8, epoch=2, started=2), entry(0, 5), NOW)
    assert made is not None
    assert (made.body, made.stored.part, made.order) == (BODY[:8], Part(0, 8, 10), (1, 2))
    assert set(made.tags) == {"t1", "t2"}
    complete = settled(entry(8, 10, started=3), made, NOW)
    assert complete is not None
    assert (complete.body, complete.stored.part, complete.stored.status) == (BODY, None, 200)
    # The one that came last may be the one that was asked for first.
    other = settled(entry(0, 5), entry(3, 8, epoch=2, started=2), NOW)
    assert other is not None
    assert (other.body, other.order) == (BODY[:8], (1, 2))


def test_what_does_not_fit_stays_apart() -> None:
    new = entry(5, 8, started=2)
    assert settled(new, None, NOW) is new
    assert settled(new, entry(0, 4), NOW) is new
    assert settled(new, entry(0, 5, tag="b"), NOW) is new
    assert settled(new, entry(0, 5, variant="v"), NOW) is new


def test_a_whole_entry_stays() -> None:
    new = entry(0, 5, started=2)
    assert settled(new, entry(0, 10), NOW) is None
    assert settled(new, entry(0, 10), NOW + 1000) is new


def test_a_whole_entry_takes_a_parts_place() -> None:
    new, later = entry(0, 10), entry(0, 5, started=2)
    assert settled(new, entry(0, 10, started=2), NOW) is new
    assert settled(new, entry(0, 5), NOW) is new
    lifted = settled(new, later, NOW)
    assert lifted is not None
    assert (lifted.body, lifted.order) == (BODY, later.order)
    # What was asked for later is of something else, or a purge lies between them: the store decides.
    assert settled(new, entry(0, 5, started=2, tag="b"), NOW) is new
    assert settled(new, entry(0, 5, epoch=2), NOW) is new
