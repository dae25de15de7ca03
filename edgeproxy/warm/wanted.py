"""What this worker is most asked for, with what it takes to ask again.

Rules of this file:

- Entries are counted, not requests: every way of answering adds to ``Entry.hits``, and what was added since
  the entry was last looked at is taken over here when an answer of the ordinary way is rendered, and for the
  lane when it renders a head anew, about once a second. No hit pays for it.
- Bounded: ROOM entries are told apart (frequent.py), the last hour counts. How to ask again is worked out
  only for those that are among the most wanted when somebody wants to know.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.warm.again import LONGEST, again_of, leads_to
from edgeproxy.warm.frequent import Frequent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.clock import Clock
    from edgeproxy.rules.match import Matcher
    from edgeproxy.store.entry import Entry
    from edgeproxy.warm.again import Again, Named

ROOM = 1024
"""Entries that are surely told apart; twice as many counters."""
HALF_LIFE = 1200.0
"""Seconds after which a request counts half: an hour later an eighth of it is left."""
SAMPLE = 8
"""Of so many entries that come for the first time one is counted, for all, once ROOM others are known."""
BATCH = 16
"""Entries looked at between two turns of the loop."""


class Wanted(NamedTuple):
    """``weight``: how often it was asked for, decayed."""

    again: Again
    rule: str
    weight: float


@dataclass(frozen=True, slots=True)
class _Selected:
    """Of a stored answer, what selects it."""

    vary: tuple[str, ...]
    selecting: tuple[str | None, ...]


_ANY = _Selected((), ())


@dataclass(slots=True)
class _Seen:
    """Of an entry, what is needed to ask again: the entry itself must be free to go. ``made``: how, and under
    which rules that was worked out."""

    primary: str
    host: str
    target: str
    variant: str
    seen_as: str
    rule: str
    stored: _Selected
    made: tuple[Matcher, Again | None] | None = None

    def again(self, matcher: Matcher) -> Again | None:
        if self.made is None or self.made[0] is not matcher:
            self.made = (matcher, again_for(self, matcher))
        return self.made[1]


class MostWanted:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._frequent = Frequent(ROOM, HALF_LIFE, clock.now())
        self._seen: dict[str, _Seen] = {}
        self._first_times = 0
        self._kept: list[Wanted] = []
        """From before the start, as it was ..."""
        self._kept_at = 0.0
        """... then."""

    def __len__(self) -> int:
        return len(self._frequent.weights)

    def asked(self, entry: Entry) -> None:
        """The entry was answered from at least once since this was last called with it."""
        count = entry.hits - entry.counted
        if not count and len(self._frequent.weights) >= ROOM:
            # Where there are many, nearly all that come for the first time never matter: one speaks for some.
            self._first_times += 1
            if self._first_times % SAMPLE:
                return
            count = SAMPLE
        entry.counted = entry.hits
        # Answers that are on their way into the store count as one: their hits come later.
        key = f"{entry.primary}\0\0{entry.variant}" if entry.variant else entry.primary
        if self._frequent.add(key, count if count > 0 else 1, self._clock.now()):
            self._seen = {k: seen for k, seen in self._seen.items() if k in self._frequent.weights}
        seen = self._seen.get(key)
        if (seen is None or (entry.seen_as and not seen.seen_as)) and key in self._frequent.weights:
            self._remember(key, entry)

    def _remember(self, key: str, entry: Entry) -> None:
        if len(entry.primary) > 2 * LONGEST or len(entry.target) > LONGEST:
            return  # too long to be asked for again
        selected = _ANY
        if entry.variant:
            stored = entry.stored
            selected = _Selected(stored.vary, stored.selecting)
        self._seen[key] = _Seen(
            entry.primary,
            entry.host,
            entry.target,
            entry.variant,
            entry.seen_as,
            entry.rule,
            selected,
        )

    async def work_out(self, matcher: Matcher) -> None:
        """How to ask again for all that is known, a few at a time, so that ``top`` takes no time."""
        for number, seen in enumerate(list(self._seen.values())):
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            seen.again(matcher)

    def keep(self, wanted: Iterable[Wanted]) -> None:
        """What was most wanted before the start goes on counting, as much as it does now."""
        self._kept = list(wanted)[:ROOM]
        self._kept_at = self._clock.now()

    def top(self, n: int, matcher: Matcher) -> list[Wanted]:
        """The ``n`` most wanted that can be asked for again under the rules in force."""
        now = self._clock.now()
        scale = self._frequent.scale(now)
        faded = fade(now - self._kept_at)
        found = {w.again: w._replace(weight=w.weight * faded) for w in self._kept}
        taken = 0
        for key in self._frequent.top(len(self._frequent.weights)):
            if taken >= n:
                break
            seen = self._seen.get(key)
            again = None if seen is None else seen.again(matcher)
            if seen is None or again is None:
                continue
            before = found[again].weight if again in found else 0.0
            found[again] = Wanted(again, seen.rule, before + self._frequent.weights[key] / scale)
            taken += 1
        return sorted(found.values(), key=lambda w: (-w.weight, w.again.url, w.again.fields))[:n]


def fade(seconds: float) -> float:
    """What is left after so long of a count of 1."""
    return float(2.0 ** -(max(0.0, seconds) / HALF_LIFE))


def again_for(entry: Named, matcher: Matcher) -> Again | None:
    """How to ask for ``entry`` again, where the rules lead that to it."""
    again = again_of(entry)
    return again if again is not None and leads_to(matcher, again.head(), entry) else None
