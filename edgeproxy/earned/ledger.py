"""What is learned of the rules when answers are stored: off the hot path, in plain ints.

Rules of this file:

- Nothing here is called for a hit. For each answer that comes from the origin: some additions; what costs
  more (digests of bodies, what expires unread) is for BUDGET of them a second.
- Whether an object was read before it expired is known of those that are watched: bounded, by key, holding
  no entry. It is settled when the object is replaced, or after it has expired, when the next is watched.
- An answer that replaces one that was there is a look at it: how long after the last one, and whether
  something was new (intervals.py). A purge takes the old one away: what is purged counts for nothing here.
- What was not stored, and why, is remembered for the last few keys, with the fields that decided it: never
  the value of a cookie.
- By rule name; bounded by MOST_RULES, what is beyond counts as "other".
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from edgeproxy.earned.intervals import Intervals
from edgeproxy.earned.splits import COOKIE, FIELD, QUERY, Splits
from edgeproxy.key import all_cookies
from edgeproxy.policy.vocabulary import CacheWord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeproxy.clock import Clock
    from edgeproxy.earned.splits import Part
    from edgeproxy.engine.ask import Ask
    from edgeproxy.policy.head import ResponseHead
    from edgeproxy.policy.vocabulary import NotStored
    from edgeproxy.store.entry import Entry

BUDGET = 64
"""Answers a second that are looked at closely."""
MOST_WATCHED = 4096
MOST_RULES = 1000
MOST_REFUSED = 512
LARGEST = 1024 * 1024
"""Octets of a body whose digest is taken."""
AT_ONCE = 1.25
"""New within so many lifetimes: it had changed while it was served."""
OTHER = "other"

_DECIDE = frozenset({
    "cache-control", "cdn-cache-control", "expires", "pragma", "vary", "last-modified", "content-type", "age",
    "date", "etag",
})  # fmt: skip
"""Fields of an answer that say whether it may be stored."""


class RuleLedger:
    """Of one rule. ``looks``: answers that came where one was there; of these ``confirmed`` by a 304, with
    ``confirmed_bytes`` not sent, ``same`` sent again with the same body, ``changed``, and of those
    ``at_once`` in little more than a lifetime. ``read`` and ``unread``: watched objects by whether they were,
    before they expired. ``authorized``: stored for requests with Authorization, for all."""

    __slots__ = (
        "at_once", "authorized", "changed", "confirmed", "confirmed_bytes", "intervals", "looks", "read",
        "same", "stored", "unread",
    )  # fmt: skip

    def __init__(self) -> None:
        self.stored = self.looks = self.confirmed = self.confirmed_bytes = self.same = self.changed = 0
        self.at_once = self.read = self.unread = self.authorized = 0
        self.intervals = Intervals()

    def told(self) -> dict[str, Any]:
        """Plain data, which may be added up."""
        numbers = {name: getattr(self, name) for name in self.__slots__ if name != "intervals"}
        return {**numbers, "intervals": self.intervals.told()}


class Refusal(NamedTuple):
    """``when``: seconds since 1970; ``fields``: those that decided it."""

    when: float
    rule: str
    reason: str
    status: int
    fields: tuple[tuple[str, str], ...]


class _Watched(NamedTuple):
    rule: str
    started: int


class Ledger:
    """Per worker (engine/evidence.py, Evidence). ``held`` gives the entry under a key and variant, if it is
    in memory."""

    def __init__(self, clock: Clock, held: Callable[[str, str], Entry | None]) -> None:
        self._clock = clock
        self._held = held
        self._left = BUDGET
        self._refilling = False
        self._rules: dict[str, RuleLedger] = {}
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._due: list[tuple[float, str, str]] = []
        self._refused: OrderedDict[str, Refusal] = OrderedDict()
        self.splits = Splits()

    # -- Evidence ---------------------------------------------------------------------------------------

    def stored(self, ask: Ask, before: Entry | None, entry: Entry) -> None:
        row = self._rules.get(entry.rule) or self._row(entry.rule)
        row.stored += 1
        if "authorization" in ask.exchange.head.headers and not ask.rule.key.headers:
            row.authorized += 1
        if before is not None:
            self._look(row, ask, before, entry)
        if self._left > 0:
            self._spend()
            self._watch(entry)
            self._compare(ask, entry)

    def refused(self, ask: Ask, head: ResponseHead, reason: NotStored) -> None:
        if self._left <= 0:
            return
        self._spend()
        fields = [
            (name.decode("latin-1"), value.decode("latin-1")[:500])
            for name, value in head.headers.raw
            if name.lower().decode("latin-1") in _DECIDE
        ]
        if "set-cookie" in head.headers:
            fields.append(("Set-Cookie", "..."))
        primary = ask.key.primary
        self._refused.pop(primary, None)
        self._refused[primary] = Refusal(
            self._clock.now(), ask.rule.name, reason.value, head.status, tuple(fields)
        )
        if len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)

    # -- what is told -----------------------------------------------------------------------------------

    def refusal(self, primary: str) -> Refusal | None:
        """Why the key's last answer, of those remembered, was not stored."""
        return self._refused.get(primary)

    def told(self) -> dict[str, Any]:
        """Plain data, which may be added up."""
        self._settle()
        return {
            "rules": {name: row.told() for name, row in self._rules.items()},
            "splits": self.splits.told(),
        }

    # -- small parts ------------------------------------------------------------------------------------

    def _row(self, rule: str) -> RuleLedger:
        if len(self._rules) >= MOST_RULES:
            rule = OTHER
        return self._rules.setdefault(rule, RuleLedger())

    def _spend(self) -> None:
        self._left -= 1
        if not self._refilling:
            self._refilling = True
            self._clock.call_later(1.0, self._refill)

    def _refill(self) -> None:
        self._refilling = False
        self._left = BUDGET

    def _look(self, row: RuleLedger, ask: Ask, before: Entry, entry: Entry) -> None:
        watched = self._watched.pop((entry.primary, entry.variant), None)
        if watched is not None and watched.started == before.started:
            row.read += before.hits > 0  # if not, it was asked for again all the same: that is for the ttl
        old, new = before.stored, entry.stored
        if old.part is not None or new.part is not None or old.status != new.status:
            return
        row.looks += 1
        seconds = max(0.0, new.freshness.received - old.freshness.received)
        changed = False
        if ask.exchange.trace.word is CacheWord.REVALIDATED:
            row.confirmed += 1
            row.confirmed_bytes += len(entry.body)
        elif before.body == entry.body:
            row.same += 1
        else:
            changed = True
            row.changed += 1
            row.at_once += seconds <= old.freshness.lifetime * AT_ONCE
        row.intervals.look(seconds, changed=changed)

    @staticmethod
    def _count_read(row: RuleLedger, entry: Entry) -> None:
        if entry.hits:
            row.read += 1
        else:
            row.unread += 1

    def _watch(self, entry: Entry) -> None:
        self._settle()
        key = (entry.primary, entry.variant)
        if entry.fresh_until <= self._clock.now() or (
            len(self._watched) >= MOST_WATCHED and key not in self._watched
        ):
            return
        self._watched[key] = _Watched(entry.rule, entry.started)
        if len(self._due) < 2 * MOST_WATCHED:
            heappush(self._due, (entry.fresh_until, *key))

    def _settle(self) -> None:
        """Those that have expired."""
        now = self._clock.now()
        while self._due and self._due[0][0] <= now:
            _, primary, variant = heappop(self._due)
            watched = self._watched.get((primary, variant))
            if watched is None:
                continue
            held = self._held(primary, variant)
            if held is not None and held.started == watched.started:
                if held.fresh_until > now:
                    continue  # it is another, later one that has this key's place in the heap
                self._count_read(self._rules.get(watched.rule) or self._row(watched.rule), held)
            # Else it was let go or purged: nobody knows.
            del self._watched[primary, variant]

    def _compare(self, ask: Ask, entry: Entry) -> None:
        stored = entry.stored
        if stored.status != 200 or stored.part is not None or not 0 < len(entry.body) <= LARGEST:
            return
        path, _, query = entry.target.partition("?")
        where = f"{entry.host}{path}"
        body = hash((entry.body, len(entry.body)))
        parts = list(_parts(ask, query, stored.vary, stored.selecting))
        if parts:
            self.splits.stored(entry.rule, where, parts, body, self._clock.monotonic())
        else:
            self.splits.bare(where, body, self._clock.monotonic())


def _parts(ask: Ask, query: str, vary: Sequence[str], selecting: Sequence[str | None]) -> Iterator[Part]:
    for parameter in query.split("&"):
        if parameter:
            name, _, value = parameter.partition("=")
            yield QUERY, unquote(name, encoding="latin-1"), value
    fields = ask.exchange.head.headers
    for name, selected in zip(vary, selecting, strict=True):
        if name != "accept-encoding":
            yield FIELD, name, selected
    policy = ask.rule.key
    for name in policy.headers:
        if name not in vary:
            yield FIELD, name, fields.get(name)
    if policy.cookies:
        jar = all_cookies(ask.exchange.head)
        for name in policy.cookies:
            yield COOKIE, name, ";".join(jar[name]) if name in jar else None
