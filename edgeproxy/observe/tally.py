"""What is counted of each request: plain numbers, one slot object per rule.

Rules of this file:

- On the path of a request there are additions to ints and nothing else. No locks: one thread, the loop's.
- The number of slots is bounded: the rules of the rule set, "none" and "other". Where there are more rules
  than MAX_RULES, the rest share "other".
- Counters only grow. A rule that leaves the rule set takes its counters along; the sum over all rules
  keeps them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from edgeproxy.observe.catalogue import BOUNDS
from edgeproxy.observe.times import Counted
from edgeproxy.policy.vocabulary import (
    CacheWord,
    LookupMiss,
    NotStored,
    OriginFailure,
    PassReason,
    StaleReason,
    Unsatisfied,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.observe.trace import Trace

MAX_RULES = 256
NO_RULE = "none"
OTHER = "other"
CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Classes of status, at the index of their first digit."""


class Histogram:
    """Counts by BOUNDS, with the sum of what was observed, in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: Histogram) -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class RuleTally:
    """The counters of one rule.

    ``lane_*`` are for the hit lane, which holds the slot and adds to them directly: one hit is three
    additions. They are folded into the others when somebody reads.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "classes",
        "duration",
        "hit_bytes",
        "hits",
        "lane_bytes",
        "lane_hits",
        "lane_not_modified",
        "lane_saved",
        "lane_seconds",
        "saved",
        "words",
    )  # fmt: skip

    def __init__(self) -> None:
        self.words: dict[CacheWord, int] = dict.fromkeys(CacheWord, 0)
        self.classes = [0] * len(CLASSES)
        self.duration = Histogram()
        self.hits = 0
        self.hit_bytes = 0
        """Of ``bytes_out``, what came from the cache."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.saved = 0.0
        self.lane_hits = 0
        self.lane_not_modified = 0
        """How many of ``lane_hits`` were 304."""
        self.lane_bytes = 0
        self.lane_seconds = 0.0
        self.lane_saved = 0.0

    @property
    def requests(self) -> int:
        return sum(self.words.values())

    @property
    def hit_ratio(self) -> float | None:
        """Hits among the requests that asked the cache (all but BYPASS); None where there were none."""
        asked = self.requests - self.words[CacheWord.BYPASS]
        return self.hits / asked if asked else None

    def fold_lane(self) -> None:
        hits = self.lane_hits
        if not hits:
            return
        self.words[CacheWord.HIT] += hits
        self.hits += hits
        self.classes[2] += hits - self.lane_not_modified
        self.classes[3] += self.lane_not_modified
        self.bytes_out += self.lane_bytes
        self.hit_bytes += self.lane_bytes
        # Each took microseconds: only their mean is known, and it belongs to the first buckets.
        self.duration.counts[bisect_left(BOUNDS, self.lane_seconds / hits)] += hits
        self.duration.total += self.lane_seconds
        self.saved += self.lane_saved
        self.lane_hits = self.lane_not_modified = self.lane_bytes = 0
        self.lane_seconds = self.lane_saved = 0.0

    def add(self, other: RuleTally) -> None:
        other.fold_lane()
        for word, count in other.words.items():
            self.words[word] += count
        self.classes = [a + b for a, b in zip(self.classes, other.classes, strict=True)]
        self.duration.add(other.duration)
        self.hits += other.hits
        self.hit_bytes += other.hit_bytes
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.saved += other.saved


class Tally:
    """All counters of one worker."""

    def __init__(self, rules: Iterable[str] = ()) -> None:
        self.other = RuleTally()
        self.rules: dict[str, RuleTally] = {}
        self.retired = RuleTally()
        """What the rules that are gone had counted."""
        self.passes: dict[PassReason, int] = dict.fromkeys(PassReason, 0)
        self.not_stored: dict[NotStored, int] = dict.fromkeys(NotStored, 0)
        self.stale: dict[StaleReason, int] = dict.fromkeys(StaleReason, 0)
        self.failures: dict[OriginFailure, int] = dict.fromkeys(OriginFailure, 0)
        self.misses: dict[LookupMiss, int] = dict.fromkeys(LookupMiss, 0)
        self.unsatisfied: dict[Unsatisfied, int] = dict.fromkeys(Unsatisfied, 0)
        self.stored = 0
        self.collapsed = 0
        self.aborted = 0
        self.origin = Histogram()
        self.lookups = Histogram()
        self.set_rules(rules)

    def set_rules(self, names: Iterable[str]) -> None:
        """The rules in force, in order. Rules that stay keep their counters."""
        kept: dict[str, RuleTally] = {}
        for name in (NO_RULE, *names):
            if len(kept) > MAX_RULES:
                break
            if name != OTHER and name not in kept:
                kept[name] = self.rules.get(name) or RuleTally()
        for name, slot in self.rules.items():
            if kept.get(name) is not slot and slot is not self.other:
                self.retired.add(slot)
        kept[OTHER] = self.other
        self.rules = kept

    def slot(self, rule: str) -> RuleTally:
        return self.rules.get(rule, self.other)

    def counted(self, rule: str) -> Counted:
        """What the percentiles take over of a rule when they pour a slot; nothing of one without a slot. How
        long a WebSocket was open is no latency, so its request is none of theirs (1xx)."""
        slot = self.rules.get(rule)
        if slot is None:
            return Counted()
        return Counted(
            slot.words[CacheWord.BYPASS] - slot.classes[1],
            slot.classes[5],
            slot.bytes_out + slot.lane_bytes,
            slot.saved + slot.lane_saved,
        )

    def everything(self) -> RuleTally:
        """The sum over all rules, those gone included."""
        total = RuleTally()
        total.add(self.retired)
        for slot in self.rules.values():
            total.add(slot)
        return total

    def observe(self, trace: Trace) -> None:
        """Count one finished request."""
        slot = self.rules.get(trace.rule, self.other)
        slot.words[trace.word] += 1
        status = trace.status // 100
        slot.classes[status if 0 < status < 6 else 0] += 1
        if status != 1:  # how long a WebSocket was open is no latency
            slot.duration.observe(trace.seconds)
        slot.bytes_in += trace.bytes_in
        slot.bytes_out += trace.bytes_out
        if trace.hit:
            slot.hits += 1
            slot.saved += trace.saved_seconds
            slot.hit_bytes += trace.bytes_out
        self._observe_rare(trace)

    def _observe_rare(self, trace: Trace) -> None:
        if trace.origin_seconds:
            self.origin.observe(trace.origin_seconds)
        if trace.l2_seconds:
            self.lookups.observe(trace.l2_seconds)
        if trace.lookup_miss is not None:
            self.misses[trace.lookup_miss] += 1
        if trace.not_stored is not None:
            self.not_stored[trace.not_stored] += 1
        if trace.pass_reason is not None:
            self.passes[trace.pass_reason] += 1
        if trace.stale_reason is not None:
            self.stale[trace.stale_reason] += 1
        if trace.failure is not None:
            self.failures[trace.failure] += 1
        if trace.unsatisfied is not None:
            self.unsatisfied[trace.unsatisfied] += 1
        if trace.stored:
            self.stored += 1
        if trace.collapsed:
            self.collapsed += 1
        if trace.aborted:
            self.aborted += 1
