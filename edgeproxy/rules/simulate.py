"""A cache that holds no bodies: what requests of the access log would have met under a rule set.

Rules of this file:

- Rule, key, tags, windows and purges are those of the product's own functions; only the clock is the log's.
- What the log does not tell is counted as unknown and asked of the origin; hits are never promised:
  fields of requests (conditions and keys on them), contents, and answers whose lifetime nobody knows.
- A stored answer is there once its fetch has ended (``origin_seconds``); who asks in between waits for it.
- Bounded in octets like L1, the least recently used goes first. One small record for each key that is stored.
- Variants (Vary), purges by hand and what the request's Cache-Control asked are not in the log.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.key import build_key
from edgeproxy.policy.decide import bypass
from edgeproxy.policy.freshness import DEFAULT_KEEP
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.invalidate import invalidates
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure, PassReason, StaleReason, Tier, Unsatisfied
from edgeproxy.rules.lasting import UNKNOWN, entity_status, from_store, lasts
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.model import PLAIN
from edgeproxy.rules.possible import possible
from edgeproxy.rules.tags import invalidation_targets, tags_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.rules.model import Matched, Rule, RuleSet
    from edgeproxy.rules.seen import Seen

MEMO = 65_536

_PASSED = frozenset({
    PassReason.UPGRADE, PassReason.REQUEST_BODY, PassReason.REQUEST_NO_STORE, PassReason.RANGE_TOO_COMPLEX,
    PassReason.PRECONDITION,
})  # fmt: skip
"""Reasons that lie in the request: it passes under any rules."""
_AGED = frozenset({CacheWord.HIT, CacheWord.UPDATING, CacheWord.STALE})
"""The line's age and ttl together are the whole lifetime; else the ttl alone is."""
_FAILED = frozenset(OriginFailure) | {StaleReason.ON_ERROR, StaleReason.DISCONNECTED, StaleReason.COOL_DOWN}


@dataclass(slots=True)
class Sums:
    """What requests came to. ``waited``: for another's fetch; ``stale``: given because the origin failed."""

    requests: int = 0
    hits: int = 0
    waited: int = 0
    stale: int = 0
    origin: int = 0
    cache_bytes: int = 0
    origin_bytes: int = 0
    saved: float = 0.0
    """Origin seconds that hits did not cost, as far as the log knows what a fetch costs."""
    worst_age: float = 0.0
    unknown: int = 0
    """Requests of which the log does not tell enough; they count as asked of the origin."""

    def add(self, other: Sums) -> None:
        for name in self.__slots__:
            mine, its = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, its) if name == "worst_age" else mine + its)

    def served(self, size: int, age: float, saved: float) -> None:
        self.cache_bytes += size
        self.saved += saved
        self.worst_age = max(self.worst_age, age)

    def fetched(self, size: int) -> None:
        self.origin += 1
        self.origin_bytes += size


@dataclass(slots=True)
class _Entry:
    ready: float
    """When it is there; its age counts from then."""
    lifetime: float
    size: int
    cost: float
    tags: tuple[str, ...]
    place: tuple[str, str]
    next_ready: float = 0.0
    """When a refresh under way is done; 0: none is."""
    next_lifetime: float = 0.0


class _Decided(NamedTuple):
    """Of one method, host and target."""

    matched: Matched
    key: str
    place: tuple[str, str]
    tags: tuple[str, ...]
    passes: bool
    hazy: bool
    """The key has in it what the log does not tell."""


class Simulation:
    """One cache under one rule set. ``then``: the rules in force when the log was written, by name.
    ``memory`` and ``overhead`` (of each entry, besides its body) in octets."""

    def __init__(
        self, ruleset: RuleSet, *, memory: int, then: Mapping[str, Rule], mask: str = "", overhead: int = 0
    ) -> None:
        self.evicted = 0
        self._matcher = Matcher(ruleset)
        self._memory = memory
        self._overhead = overhead
        self._then = {**then, PLAIN.name: PLAIN}
        self._mask = mask
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._used = 0
        self._memo: dict[tuple[str, str, str, str], _Decided | None] = {}
        self._costs: OrderedDict[str, float] = OrderedDict()
        self._marks: dict[tuple[str, str, str], tuple[float, bool]] = {}
        """(kind, host, value) -> when it was purged last, and whether softly. Host "": of any host."""
        self._prefixes: set[tuple[str, str, str]] = set()

    def rule_of(self, seen: Seen) -> str:
        """The name of the rule that it falls under; "(unknown)" where that hangs on what is not logged."""
        decided = self._decided(seen)
        return "(unknown)" if decided is None else decided.matched.rule.name

    def see(self, seen: Seen, mine: Sums) -> None:
        """Take one request, in order of time, and count what becomes of it."""
        decided = self._decided(seen)
        mine.requests += 1
        if seen.tier == Tier.EDGE and (seen.reason in tuple(Unsatisfied) or not seen.reason):
            return  # the edge's own answer: no cache and no origin has part in it
        if decided is None:
            mine.unknown += 1
            mine.fetched(seen.size)
        elif decided.passes or seen.reason in _PASSED:
            mine.fetched(seen.size)
            if invalidates(seen.method, seen.status):
                self._invalidate(decided, seen)
        elif decided.hazy:
            mine.unknown += 1
            mine.fetched(seen.size)
        else:
            self._ask(decided, seen, mine)

    def _decided(self, seen: Seen) -> _Decided | None:
        asked = (seen.method, seen.host, seen.target, seen.rule)
        if asked in self._memo:
            return self._memo[asked]
        if len(self._memo) >= MEMO:
            self._memo.clear()
        decided = self._memo[asked] = self._decide(seen)
        return decided

    def _decide(self, seen: Seen) -> _Decided | None:
        """None: the rule hangs on what the log does not tell."""
        request = RequestHead(seen.method, "http", seen.host, seen.target)
        found = possible(self._matcher, request, self._mask)
        matched = found[0][1]
        if len(found) > 1:
            # What the log says it fell under then, if the rules still have it.
            named = [m for _, m in found if m.rule.name == seen.rule]
            if not named:
                return None
            matched = named[0]
        policy = matched.rule.key
        body = policy.body is not None and seen.method in policy.body.methods
        key = build_key(request, policy)
        return _Decided(
            matched, key.primary, (key.host, key.target), tags_for(matched.rule, matched.parts, Headers()),
            not body and bypass(request, matched.rule.overrides) is not None,
            body or bool(policy.headers or policy.cookies),
        )  # fmt: skip

    def _ask(self, decided: _Decided, seen: Seen, mine: Sums) -> None:
        rule, now = decided.matched.rule, seen.time
        if seen.origin_seconds:
            self._learn(decided.key, seen.origin_seconds)
        entry = self._entries.get(decided.key)
        if entry is not None:
            if entry.next_ready and now >= entry.next_ready:
                entry.ready, entry.lifetime = entry.next_ready, entry.next_lifetime
                entry.next_ready = 0.0
            if self._marks and not self._survives(entry):
                self._drop(decided.key)
                entry = None
        if entry is None:
            self._fetch(decided, seen, mine)
            return
        self._entries.move_to_end(decided.key)
        if now < entry.ready:
            if rule.coalesce.enabled:
                mine.waited += 1
                mine.cache_bytes += seen.size
            else:
                mine.fetched(seen.size)
            return
        age = now - entry.ready
        if age < entry.lifetime:
            mine.hits += 1
            mine.served(seen.size, age, entry.cost)
        elif age - entry.lifetime < (rule.overrides.stale_while_revalidate or 0.0):
            mine.hits += 1
            mine.served(seen.size, age, entry.cost)
            if not entry.next_ready:
                mine.fetched(seen.size)
                lifetime = self._lasts(decided, seen)
                if lifetime > 0:
                    entry.next_ready, entry.next_lifetime = now + entry.cost, lifetime
        elif self._fails(seen) and age - entry.lifetime < (rule.overrides.stale_if_error or 0.0):
            mine.origin += 1
            mine.stale += 1
            mine.served(seen.size, age, 0.0)
        else:
            keep = rule.overrides.keep
            held = age - entry.lifetime < (DEFAULT_KEEP if keep is None else keep)
            self._fetch(decided, seen, mine, confirmed=held and seen.word == CacheWord.REVALIDATED)

    def _fetch(self, decided: _Decided, seen: Seen, mine: Sums, *, confirmed: bool = False) -> None:
        """``confirmed``: with 304, as it was then, so that the body comes from the cache."""
        mine.fetched(0 if confirmed else seen.size)
        mine.cache_bytes += seen.size if confirmed else 0
        if seen.method == "HEAD":
            return
        lifetime = self._lasts(decided, seen)
        if lifetime == UNKNOWN:
            mine.unknown += 1
        if lifetime <= 0 or seen.size > decided.matched.rule.overrides.max_object:
            self._drop(decided.key)
            return
        cost = self._costs.get(decided.key, 0.0)
        size = seen.size + self._overhead + len(decided.key)
        old = self._entries.pop(decided.key, None)
        self._used += size - (0 if old is None else old.size)
        self._entries[decided.key] = _Entry(
            seen.time + cost, lifetime, size, cost, decided.tags, decided.place
        )
        while self._used > self._memory:
            _, gone = self._entries.popitem(last=False)
            self._used -= gone.size
            self.evicted += 1

    def _lasts(self, decided: _Decided, seen: Seen) -> float:
        if self._fails(seen) and not from_store(seen.word):
            return 0.0
        whole = None if seen.ttl is None else seen.ttl + (seen.age if seen.word in _AGED else 0.0)
        return lasts(
            decided.matched.rule,
            entity_status(seen.status, seen.word, stored=seen.stored or seen.collapsed),
            word=seen.word, reason=seen.reason, stored=seen.stored or (seen.collapsed and not seen.reason),
            logged=whole, then=self._then, under=seen.rule,
        )  # fmt: skip

    def _fails(self, seen: Seen) -> bool:
        return seen.reason in _FAILED

    def _learn(self, key: str, cost: float) -> None:
        """What a fetch of this key costs, as last seen. Bounded."""
        self._costs[key] = cost
        if len(self._costs) > 4 * MEMO:
            self._costs.popitem(last=False)

    def _drop(self, key: str) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self._used -= gone.size

    def _invalidate(self, decided: _Decided, seen: Seen) -> None:
        when = seen.time + seen.origin_seconds
        targets = invalidation_targets(decided.matched.rule, decided.matched.parts, seen.method)
        own = [(False, "url", decided.place[1]), (False, "url", seen.target)]
        for soft, kind, value in (*own, *targets):
            # An entry without a host is concerned by a purge on any.
            for name in {(kind, "", value), (kind, "" if kind == "tag" else seen.host, value)}:
                self._marks[name] = (when, soft)
                if kind == "prefix":
                    self._prefixes.add(name)

    def _survives(self, entry: _Entry) -> bool:
        """Whether no purge came after it; a soft one makes it stale."""
        host, target = entry.place
        names = [("url", host, target), *(("tag", "", tag) for tag in entry.tags)]
        names += [n for n in self._prefixes if n[1] == host and target.startswith(n[2])]
        for name in names:
            when, soft = self._marks.get(name, (-1.0, False))
            if when < entry.ready - entry.cost:
                continue
            if not soft:
                return False
            entry.lifetime = min(entry.lifetime, max(0.0, when - entry.ready))
        return True
