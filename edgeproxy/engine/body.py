"""The tee: one reader of the origin's body, many readers of what it has read.

Rules of this file:

- The pump (one background task) reads the origin's body; every client, the first one too, reads from the
  chunks it has left behind, each at its own pace. So a slow client never slows another.
- While the body may still be stored, all chunks are kept (bounded by the largest object). Once it has
  outgrown that, chunks that every reader has had are dropped, nobody may join any more, and the pump waits
  for the slowest reader: back-pressure reaches the origin. It does not wait for ever while others starve: a
  reader that takes nothing for PATIENCE seconds is left behind, and its body breaks off.
- Once it is whole, a large one is held once: what is stored and what slow readers still have to be sent are
  the same octets.
- A body that broke off breaks off for every reader: OriginError, never a clean end.
- The same body in a content coding is a shared body as well (``coded``), pumped from a reader of this one; it
  is kept whole no longer than this one is.
"""

from __future__ import annotations

import asyncio
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.origin.base import AnswerBody

WINDOW = 1024 * 1024
"""Octets the pump may be ahead of the slowest reader of a body that will not be stored."""
LARGE = 256 * 1024
"""Octets from which on a whole body takes the place of its chunks."""
PATIENCE = 10.0
"""Seconds that readers who have read all there is wait for one who does not read."""


class SharedBody:
    """``keep``: the largest body, in octets, that is kept whole. Without a clock nobody is left behind."""

    def __init__(self, length: int | None, keep: int, clock: Clock | None = None) -> None:
        self.length = length
        self.size = 0
        self.error: OriginError | None = None
        self.complete = False
        self.outgrown = False
        self._keep = keep
        self._chunks: list[bytes] = []
        self._dropped = 0
        self._held = 0
        self._positions: dict[int, int] = {}
        self._readers = 0
        self._news = asyncio.Event()
        self._clock = clock
        self._room: asyncio.Future[object] | None = None
        self._source: SharedBody | None = None
        self.coded: dict[str, SharedBody] = {}
        """This body in the codings that some of its readers wanted."""

    def derived(self) -> SharedBody:
        """An empty body of unknown length, to be fed with what is made of this one."""
        body = SharedBody(None, self._keep, self._clock)
        body._source = self
        return body

    @property
    def joinable(self) -> bool:
        return not self.outgrown and self.error is None

    @property
    def readers(self) -> int:
        return len(self._positions)

    @property
    def ended(self) -> bool:
        return self.complete or self.error is not None

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.size += len(chunk)
        self._held += len(chunk)
        if not self.outgrown and self.size > self._keep:
            self.outgrown = True
        self._wake()

    def finish(self, error: OriginError | None = None) -> None:
        if error is None:
            self.complete = True
        else:
            self.error = error
        self._wake()

    def whole(self) -> bytes:
        """The whole body; only while nothing has been dropped."""
        assert not self.outgrown  # noqa: S101
        chunks = self._chunks
        if self.size < LARGE or len(chunks) == 1:
            return b"".join(chunks)
        together, ends = BytesIO(), [0]
        for place, chunk in enumerate(chunks):
            ends.append(ends[-1] + together.write(chunk))
            chunks[place] = b""  # let go at once: the two are never here both in full
        whole = together.getvalue()
        view = memoryview(whole)
        # Whoever writes octets takes views of them as well, so the types need not tell them apart.
        chunks[:] = [cast("bytes", view[start:end]) for start, end in pairwise(ends)]
        return whole

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def join(self) -> SharedReader:
        """A reader from the first octet. Call it in the same step that found the body joinable."""
        assert self._dropped == 0  # noqa: S101
        self._readers += 1
        self._positions[self._readers] = 0
        return SharedReader(self, self._readers)

    async def room(self) -> bool:
        """Wait until the slowest reader is near enough. False when nobody reads any more."""
        if self._source is not None and self._source.outgrown:
            self.outgrown = True  # however small it is: the origin is to be held back
        if not self.outgrown:
            return True
        while self._positions:
            slowest = min(self._positions.values())
            while self._dropped < slowest:
                self._held -= len(self._chunks[self._dropped])
                self._chunks[self._dropped] = b""
                self._dropped += 1
            if self._held <= WINDOW:
                return True
            room = self._room = asyncio.get_running_loop().create_future()
            if self._clock is None:
                await room
            elif not await self._clock.wait_for(room, PATIENCE):
                self._leave_behind(slowest)
        return False

    def _leave_behind(self, slowest: int) -> None:
        """Go on without those who have read least, if others have read all there is."""
        if max(self._positions.values(), default=0) == len(self._chunks) > slowest:
            self._positions = {r: p for r, p in self._positions.items() if p > slowest}

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def next_chunk(self, reader: int) -> bytes:
        if reader not in self._positions:
            raise OriginError(OriginFailure.ABANDONED, "too slow for the others")
        position = self._positions[reader]
        while position >= len(self._chunks):
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            await self._news.wait()
        chunk = self._chunks[position]
        self._positions[reader] = position + 1
        if self.outgrown:
            self._make_room()
        return chunk

    def stands_at_start(self, reader: int) -> bool:
        return self._positions.get(reader) == 0

    def leave(self, reader: int) -> None:
        self._positions.pop(reader, None)
        self._make_room()


class SharedReader:
    """One client's place in a shared body."""

    def __init__(self, body: SharedBody, number: int) -> None:
        self._body = body
        self._number = number
        self.length = body.length

    @property
    def unread_body(self) -> SharedBody | None:
        """The body, while nothing of it was read here: until then it can be joined."""
        return self._body if self._body.stands_at_start(self._number) else None

    def take_all(self) -> bytes | None:
        """Shared bodies are streamed."""
        return None

    async def read(self) -> bytes:
        """Some octets, b"" at the proper end; OriginError where the origin's body broke off."""
        return await self._body.next_chunk(self._number)

    def close(self) -> None:
        self._body.leave(self._number)


async def pump(source: AnswerBody, into: SharedBody) -> None:
    """Read ``source`` to its end. The last thing it does is to close the source."""
    try:
        while chunk := await source.read():
            into.feed(chunk)
            if not await into.room():
                into.finish(OriginError(OriginFailure.ABANDONED))
                return
        into.finish()
    except OriginError as error:
        into.finish(error)
    finally:
        if not into.ended:
            into.finish(OriginError(OriginFailure.ABANDONED, "the edge is shutting down"))
        source.close()


class SlicedReader:
    """The octets [start, stop) of another reader's body."""

    def __init__(self, reader: SharedReader, start: int, stop: int) -> None:
        self._reader = reader
        self._skip = start
        self._left = stop - start
        self.length: int | None = stop - start

    def take_all(self) -> bytes | None:
        return None

    async def read(self) -> bytes:
        while self._left:
            chunk = await self._reader.read()
            if not chunk:
                return b""
            if self._skip >= len(chunk):
                self._skip -= len(chunk)
                continue
            chunk = chunk[self._skip : self._skip + self._left]
            self._skip = 0
            self._left -= len(chunk)
            return chunk
        return b""

    def close(self) -> None:
        self._reader.close()
