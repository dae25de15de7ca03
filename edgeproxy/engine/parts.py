"""Parts on their way: a stored part and what came of its rest as one body; which of two entries stays.

Rules of this file:

- What was asked for is counted: one octet more or less than the origin's Content-Range said, and the body
  breaks off. A mix is never whole.
- A whole entry stays where a part comes, and takes a part's place, unless it is older and not known to be of
  the same representation.
- Two parts that touch become one, with the purge number of the older. Of two that do not, the one that was
  asked for later stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.joining import joined, same_octets
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.store.entry import Entry

if TYPE_CHECKING:
    from edgeproxy.origin.base import AnswerBody
    from edgeproxy.policy.stored import Stored


class SplicedBody:
    """``AnswerBody``: ``before``, then ``source``, of exactly ``size`` octets, then ``after``."""

    def __init__(self, before: bytes, source: AnswerBody, size: int, after: bytes) -> None:
        self.length: int | None = len(before) + size + len(after)
        self._before = before
        self._source = source
        self._left = size
        self._after = after
        self._ended = False

    def take_all(self) -> bytes | None:
        # A body whose length was not announced is counted as it is read.
        middle = self._source.take_all() if self._source.length == self._left else None
        return None if middle is None else b"".join((self._before, middle, self._after))

    async def read(self) -> bytes:
        """Some octets, b"" at the end. Raises OriginError where the source breaks off or is not ``size``."""
        if self._before:
            before, self._before = self._before, b""
            return before
        if not self._ended:
            chunk = await self._source.read()
            self._left -= len(chunk)
            if self._left < 0 or (self._left and not chunk):
                raise OriginError(OriginFailure.BAD_RESPONSE, "a part is not what its Content-Range says")
            if chunk:
                return chunk
            self._ended = True
        after, self._after = self._after, b""
        return after

    def close(self) -> None:
        self._source.close()


def counted(stored: Stored, octets: int) -> bool:
    """Whether so many octets may be the body of ``stored``.

    A part whose length was not announced has to be what its Content-Range says: where the end of the
    connection is the end of the body, one that came too early looks like any other.
    """
    return stored.part is None or stored.length >= 0 or octets == stored.part.size


def settled(new: Entry, there: Entry | None, now: float) -> Entry | None:
    """What to store now that ``new`` is here and ``there`` is stored: None to leave that as it is."""
    if there is None or there.variant != new.variant:
        return new
    if new.stored.part is None:
        if there.stored.part is None or there.order <= new.order or there.epoch != new.epoch:
            return new
        # The part was asked for later, and says that this is still the same.
        same = same_octets(there.stored.headers, new.stored.headers)
        return new.copied(started=there.started) if same else new
    if there.stored.part is None:
        return None if there.stored.freshness.is_fresh(now) else new
    older, newer = (there, new) if there.order <= new.order else (new, there)
    both = joined(older.stored, newer.stored)
    if both is None:
        return new
    union, stored = both
    body = b"".join((older.body[: union.before], newer.body, older.body[union.after :]))
    return Entry(
        primary=newer.primary,
        host=newer.host,
        target=newer.target,
        variant=newer.variant,
        stored=stored,
        body=body,
        epoch=min(older.epoch, newer.epoch),
        started=max(older.started, newer.started),
        tags=tuple(dict.fromkeys((*newer.tags, *older.tags))),
        rule=newer.rule,
        fetch_seconds=newer.fetch_seconds,
    )
