from __future__ import annotations

import asyncio
from sys import getrefcount

import pytest

from edgeproxy.engine.body import LARGE, WINDOW, SharedBody, SlicedReader, pump
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure
from tests.support.driven import settle

CHUNK = b"c" * 65_536


class Source:
    """An AnswerBody that gives ``chunks`` pieces and then ends, or breaks off."""

    length: int | None = None

    def __init__(self, chunks: int, *, breaks: bool = False) -> None:
        self.left = chunks
        self.given = 0
        self.closed = False
        self._breaks = breaks

    def take_all(self) -> bytes | None:
        return None

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self.left == 0:
            if self._breaks:
                raise OriginError(OriginFailure.TRUNCATED)
            return b""
        self.left -= 1
        self.given += 1
        return CHUNK

    def close(self) -> None:
        self.closed = True


async def everything(body: SharedBody) -> bytes:
    reader = body.join()
    parts = []
    while chunk := await reader.read():
        parts.append(chunk)
    reader.close()
    return b"".join(parts)


async def test_every_reader_gets_all_at_its_own_pace() -> None:
    source, body = Source(10), SharedBody(None, keep=10**9)
    readers = asyncio.gather(*(everything(body) for _ in range(3)))
    await asyncio.sleep(0)
    await pump(source, body)
    assert await readers == [CHUNK * 10] * 3
    assert body.complete
    assert body.whole() == CHUNK * 10
    assert await everything(body) == CHUNK * 10  # one who joins after the end
    assert source.closed


async def test_a_body_that_outgrows_waits_for_the_slowest_reader() -> None:
    source, body = Source(1000), SharedBody(None, keep=CHUNK.__len__() * 2)
    fast, slow = body.join(), body.join()
    pumping = asyncio.ensure_future(pump(source, body))  # noqa: TID251
    taken = 0
    await settle()
    stalled = source.given
    assert stalled * len(CHUNK) <= 2 * WINDOW
    # The fast one alone cannot make the origin go on.
    while taken < stalled:
        assert await fast.read()
        taken += 1
    await settle()
    assert source.given == stalled
    slow.close()
    while await fast.read():
        taken += 1
    assert taken == 1000
    fast.close()
    await pumping
    assert body.outgrown
    assert sum(map(len, body._chunks)) <= 2 * WINDOW


async def test_nobody_reads_any_more_and_nothing_is_to_be_stored() -> None:
    source, body = Source(10_000), SharedBody(None, keep=1)
    reader = body.join()
    pumping = asyncio.ensure_future(pump(source, body))  # noqa: TID251
    await reader.read()
    reader.close()
    await pumping
    assert source.closed
    assert source.given < 100


async def test_a_large_body_that_is_whole_is_held_once() -> None:
    body = SharedBody(None, 10 * LARGE)
    slow, gone = body.join(), body.join()
    pieces = [bytes([number]) * (LARGE // 4) for number in range(9)]
    for piece in pieces:
        body.feed(piece)
    assert await slow.read() == pieces[0]
    before = getrefcount(pieces[5])
    whole = body.whole()
    body.finish()
    assert whole == b"".join(pieces)
    now = getrefcount(pieces[5])
    assert now == before - 1, "the piece is still held"
    left = [await slow.read() for _ in pieces[1:]]
    assert left == pieces[1:]
    assert all(memoryview(piece).obj is whole for piece in left)
    assert await slow.read() == b""
    assert [await gone.read() for _ in range(9)] == pieces
    assert body.whole() == whole


async def test_what_may_be_stored_is_read_to_its_end_without_readers() -> None:
    source, body = Source(10), SharedBody(None, keep=10**9)
    body.join().close()
    await pump(source, body)
    assert body.complete


async def test_breaking_off_is_never_a_clean_end() -> None:
    source, body = Source(2, breaks=True), SharedBody(None, keep=10**9)
    reader = body.join()
    await pump(source, body)
    assert await reader.read() == CHUNK
    assert await reader.read() == CHUNK
    with pytest.raises(OriginError, match="truncated"):
        await reader.read()


async def test_a_pump_that_is_cancelled_tells_its_readers() -> None:
    source, body = Source(10**9), SharedBody(None, keep=1)
    reader = body.join()
    pumping = asyncio.ensure_future(pump(source, body))  # noqa: TID251
    await settle()
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping
    for _ in range(source.given):
        await reader.read()
    with pytest.raises(OriginError, match="abandoned"):
        await reader.read()
    assert source.closed


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 5), (65_530, 65_540), (0, 131_072), (131_070, 131_072), (3, 3)]
)
async def test_a_slice(start: int, stop: int) -> None:
    whole = bytes(range(256)) * 512
    body = SharedBody(len(whole), keep=10**9)
    for at in range(0, len(whole), 1000):
        body.feed(whole[at : at + 1000])
    body.finish()
    reader = SlicedReader(body.join(), start, stop)
    got = b""
    while chunk := await reader.read():
        got += chunk
    assert got == whole[start:stop]
    assert reader.length == stop - start
    reader.close()
    assert body.readers == 0
