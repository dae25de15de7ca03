"""One stored answer with its body: what L1 holds and what L2 keeps as bytes (codec.py).

Rules of this file:

- What was stored is never changed: a refresh or a soft purge makes a new Entry (``copied``). ``checked``,
  ``current``, ``heads``, ``hits``, ``refined``, ``charged``, ``lent``, ``answers``, ``counted`` and ``ahead``
  are run-time marks, and ``codings`` only ever grows.
- ``epoch`` is the purge number at which the fetch (or revalidation) *started*; ``started`` the steady
  nanosecond stamp of that start. Readers compare ``epoch`` with the purges (purge.py); stores let the
  higher ``order`` win, so an older, slower fetch never overwrites a newer one.
- Small: L1 packs what it holds (packed.py), all but the entries used last. ``stored`` is the same packed or
  not, but made anew each time when packed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from itertools import chain
from sys import intern
from typing import TYPE_CHECKING, Protocol, final

from edgeproxy.store.packed import Fetched, fetched, freshness, marked, times, unpack, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.policy.stored import Freshness, Part, Stored
    from edgeproxy.store.packed import Kind, Packing

OVERHEAD = 560
"""Octets counted for an entry beside its body, its key and its packed answer: objects and slots of tables."""
CODING = 60
"""Octets counted for a coded body beside its own, with its share of what holds them."""
TAG = 70
UNPACKED = 1800
"""Octets counted for an answer that is not packed, beside its fields: objects, rendered heads."""
FIELD = 190
"""Octets counted for a field that is not packed, beside its own."""


class Answer(Protocol):
    """An answer that somebody holds ready for an entry, as long as L1 holds the entry."""

    @property
    def size(self) -> int:
        """Octets it takes."""

    @property
    def body(self) -> bytes:
        """What it sends: the entry's, one of its codings, or nothing."""

    def leave(self) -> None:
        """The entry is no more, or will not be answered from like this."""


@final
class Codings(MutableMapping[str, bytes]):
    """Coded bodies made here: coding -> octets. The body as stored is not among them. Nearly always there are
    two at most, and a dict would be twice as large as all it says."""

    __slots__ = ("_first", "_first_body", "_more", "_second", "_second_body")

    def __init__(self) -> None:
        self._first = self._second = ""
        self._first_body = self._second_body = b""
        self._more: dict[str, bytes] | None = None

    def __getitem__(self, coding: str) -> bytes:
        if coding == self._first and coding:
            return self._first_body
        if coding == self._second and coding:
            return self._second_body
        return (self._more or {})[coding]

    def __setitem__(self, coding: str, body: bytes) -> None:
        if not self._first or coding == self._first:
            self._first, self._first_body = coding, body
        elif not self._second or coding == self._second:
            self._second, self._second_body = coding, body
        else:
            if self._more is None:
                self._more = {}
            self._more[coding] = body

    def __delitem__(self, coding: str) -> None:
        raise TypeError("codings only grow")

    def __iter__(self) -> Iterator[str]:
        if self._first:
            yield self._first
        if self._second:
            yield self._second
        yield from self._more or ()

    def __len__(self) -> int:
        return bool(self._first) + bool(self._second) + len(self._more or ())

    @property
    def size(self) -> int:
        return sum(len(body) + CODING for body in self.values())


@final
class Entry:
    """``primary`` is CacheKey.primary; ``host`` and ``target`` the URL that purging sees; ``variant``
    distinguishes entries of one primary ("" when nothing varies, else store.entry.variant_id)."""

    __slots__ = (
        "__weakref__", "_codings", "_kind", "_own", "_stored", "_target", "ahead", "answers", "body",
        "charged", "checked", "counted", "current", "epoch", "heads", "hits", "host", "lent", "primary",
        "refined", "rule", "seen_as", "tags", "variant",
    )  # fmt: skip

    def __init__(
        self,
        primary: str,
        host: str,
        target: str,
        variant: str,
        stored: Stored | None,
        body: bytes,
        epoch: int,
        started: int,
        tags: tuple[str, ...] = (),
        rule: str = "none",
        codings: Codings | None = None,
        fetch_seconds: float = 0.0,
        seen_as: str = "",
    ) -> None:
        self.primary = primary
        self.host = host
        # Mostly the key ends with it.
        self._target: str | int = len(primary) - len(target) if primary.endswith(target) else target
        self.variant = variant
        self._stored: Stored | None = stored
        self._kind: Kind | None = None
        self._own: bytes | Fetched = Fetched(fetch_seconds, started, ())
        self.body = body
        self.epoch = epoch
        self.tags = tags
        self.rule = rule
        self._codings = codings
        self.checked = -1
        """The purge number this entry was last found good at."""
        self.current = False
        """L1 holds this very entry, and the same request would be given it again."""
        self.heads: dict[object, bytes] | None = None
        """Rendered constant parts of heads, by whatever the front keys them on. Not while packed."""
        self.hits = 0
        self.seen_as = seen_as
        """Scheme and host it was asked for under, where no part of the key; "" if not fetched here."""
        self.counted = 0
        """How many of ``hits`` the count of what is most wanted has."""
        self.ahead = 0.0
        """When it is to be refreshed before its time, once that was looked at."""
        self.refined: tuple[str, ...] = ()
        """Codings that have been made again at the best quality."""
        self.charged = 0
        """Octets that L1 counts it as."""
        self.lent = False
        """L1 has given it to requests that are literally for another variant."""
        self.answers: tuple[Answer, ...] = ()
        """What is held ready for it."""

    @classmethod
    def packed(
        cls, primary: str, host: str, target: str, kind: Kind, own: bytes, body: bytes, epoch: int,
        tags: tuple[str, ...], rule: str, seen_as: str, codings: Codings | None = None,
    ) -> Entry:  # fmt: skip
        """One that is packed from its beginning (Recipe), and has no variants."""
        entry = cls(
            primary, intern(host), target, "", None, body, epoch, 0, tags, intern(rule), codings, 0.0, seen_as
        )
        entry._kind, entry._own = kind, own
        return entry

    @property
    def stored(self) -> Stored:
        stored = self._stored
        if stored is None:
            assert self._kind is not None  # noqa: S101
            assert isinstance(self._own, bytes)  # noqa: S101
            stored = unpack(self._kind, self._own, len(self.body))
        return stored

    @stored.setter
    def stored(self, stored: Stored) -> None:
        self._own = self._fetched()
        self._stored, self._kind, self.heads = stored, None, None

    @property
    def is_part(self) -> bool:
        """Of a representation (206). Such are never packed."""
        return self._stored is not None and self._stored.part is not None

    @property
    def target(self) -> str:
        target = self._target
        return target if isinstance(target, str) else self.primary[target:]

    @property
    def codings(self) -> Codings:
        codings = self._codings
        if codings is None:
            codings = self._codings = Codings()
        return codings

    @property
    def coded(self) -> tuple[tuple[str, bytes], ...]:
        """As ``codings``, for looking only: nothing is made where there are none."""
        return () if self._codings is None else tuple(self._codings.items())

    @property
    def fetch_seconds(self) -> float:
        """What the fetch cost: the origin's seconds that a hit saves."""
        return self._fetched().seconds

    @property
    def started(self) -> int:
        return self._fetched().started

    @property
    def marks(self) -> tuple[int, ...]:
        """The buckets of the purge table that concern it; none until L1 has asked the table."""
        return self._fetched().marks

    def mark(self, marks: tuple[int, ...]) -> None:
        """Remember its buckets, the same for good."""
        own = self._own
        if isinstance(own, Fetched):
            self._own = Fetched(own.seconds, own.started, marks)
        else:
            self._own = marked(own, marks)

    @property
    def fresh_until(self) -> float:
        """``stored.freshness.fresh_until`` (0 when it must be validated)."""
        if self._stored is None:
            assert self._kind is not None  # noqa: S101
            assert isinstance(self._own, bytes)  # noqa: S101
            received, initial_age, lifetime = times(self._own)
            return 0.0 if self._kind.frame[6] else received - initial_age + lifetime
        freshness = self._stored.freshness
        return 0.0 if freshness.must_validate else freshness.fresh_until

    @property
    def freshness(self) -> Freshness:
        """``stored.freshness``."""
        if self._stored is None:
            assert self._kind is not None  # noqa: S101
            assert isinstance(self._own, bytes)  # noqa: S101
            return freshness(self._kind, self._own)
        return self._stored.freshness

    def exceptions(self) -> tuple[Part | None, tuple[str | None, ...]]:
        """What few have: that they are a part, and the values that select them."""
        if self._stored is None and not self.variant:
            return None, ()
        stored = self.stored
        return stored.part, stored.selecting

    def age(self, now: float) -> float:
        """``stored.freshness.age``."""
        if self._stored is None:
            assert isinstance(self._own, bytes)  # noqa: S101
            received, initial_age, _ = times(self._own)
            return max(0.0, initial_age + max(0.0, now - received))
        return self._stored.freshness.age(now)

    @property
    def order(self) -> tuple[int, int]:
        """Which fetch began later."""
        return (self.epoch, self.started)

    @property
    def size(self) -> int:
        """Octets this entry takes in L1, overhead counted."""
        total = OVERHEAD + len(self.primary) + len(self.body)
        if isinstance(self._target, str):
            total += len(self._target) + 50
        if self.variant:
            total += len(self.variant) + 50
        if self._codings is not None:
            total += self._codings.size
        if self.tags:
            total += sum(len(tag) + TAG for tag in self.tags)
        if self.answers:
            total += sum([answer.size for answer in self.answers])
        if isinstance(self._own, bytes):
            total += len(self._own)
        if self._stored is not None:
            raw = self._stored.headers.raw
            total += UNPACKED + FIELD * len(raw) + len(b"".join(chain.from_iterable(raw)))
        return total

    # -- of L1 ------------------------------------------------------------------------------------------

    @property
    def is_packed(self) -> bool:
        return self._stored is None

    def pack(self, packing: Packing) -> None:
        """Let go of all that can be made again. What cannot be packed stays as it is."""
        stored, own = self._stored, self._own
        if stored is None:
            return
        if isinstance(own, Fetched):
            if stored.length != len(self.body):
                return
            packed = packing.pack(stored, own)
            if packed is None:
                return
            self._kind, self._own = packed
            self.host, self.rule = intern(self.host), intern(self.rule)
        self._stored = None
        self.heads = None

    def values(self) -> tuple[Kind, int, list[bytes]] | None:
        """Of one that is packed: its kind, and what packed.values tells of it."""
        if self._kind is None or not isinstance(self._own, bytes):
            return None
        return self._kind, *values(self._own)

    def unpack(self) -> None:
        """Have ``stored`` at hand."""
        if self._stored is None:
            self._stored = self.stored

    def let_go(self) -> None:
        """Nothing is held ready for it any more."""
        answers, self.answers = self.answers, ()
        for answer in answers:
            answer.leave()

    def let_go_of_worse(self) -> None:
        """A coding has been made again: what sends the old octets goes."""
        good = [self.body, *(body for _, body in self.coded)]
        kept = []
        for answer in self.answers:
            if not answer.body or any(answer.body is body for body in good):
                kept.append(answer)
            else:
                answer.leave()
        self.answers = tuple(kept)

    def copied(
        self, *, stored: Stored | None = None, codings: Codings | None = None, started: int | None = None
    ) -> Entry:
        """The same but for what is given; codings are shared, what is rendered is not."""
        seconds, stamp, marks = self._fetched()
        stamp = stamp if started is None else started
        entry = Entry(
            self.primary, self.host, self.target, self.variant, stored or self.stored, self.body, self.epoch,
            stamp, self.tags, self.rule, self.codings if codings is None else codings, seconds,
            self.seen_as,
        )  # fmt: skip
        entry._own = Fetched(seconds, stamp, marks)
        entry.checked, entry.hits, entry.refined = self.checked, self.hits, self.refined
        entry.counted, entry.ahead = self.counted, self.ahead
        return entry

    def _fetched(self) -> Fetched:
        own = self._own
        return own if isinstance(own, Fetched) else fetched(own)


def codings_of(other: MutableMapping[str, bytes]) -> Codings:
    """A copy of its own."""
    codings = Codings()
    codings.update(other)
    return codings
