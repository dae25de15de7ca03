"""The hit lane: answers a hot request inside the connection's callback, without parsing it.

Rules of this file:

- It interprets no bytes that were not parsed strictly before. It remembers header blocks (all octets after
  the request line) that aiohttp's parser has accepted as one complete bodyless request, and the targets that
  the ordinary way has answered with a fresh entry from L1. A request is answered here only if block and
  target are the same octets again, or if the block differs from one that was answered only in fields that
  select nothing and cannot be taken in two ways (blocks.py): whatever the ordinary way derived (rule, key,
  variant, coding, conditions) holds for these too.
- What can change meanwhile is compared on every hit: the entry is still the one that L1 would give
  (``Entry.current``), no purge has come since it was last found good, it is still fresh, the rules are the
  same (a reload empties the lane).
- Anything else goes to aiohttp untouched. The differential test holds that both ways give the same octets.
- It keeps no entry alive: what L1 lets go is gone from here too. What is held here for an entry is charged to
  it, so that the memory budget holds; L1's order is the order in which the lane forgets.
- Bounded: blocks (blocks.py), MOST_ANSWERS for one entry, MOST_WARM heads rendered whole.
"""

from __future__ import annotations

import re
from collections import deque
from math import ceil, floor
from typing import TYPE_CHECKING, final

from edgeproxy.cluster.epoch import CURRENT
from edgeproxy.front.blocks import Blocks
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import CacheWord, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgeproxy.clock import Clock
    from edgeproxy.front.respond import Responder
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.observe.access_log import AccessLog, HitLine
    from edgeproxy.observe.metrics import Metrics
    from edgeproxy.observe.percentiles import Percentiles
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.memory import MemoryStore

MOST_ANSWERS = 16
"""For one entry: by other targets, or to requests that differ in what selects."""
MOST_WARM = 8192
"""Heads that are kept with their Age and all; others are rendered when they are sent."""
MOST_STABLE = 4096
ANSWER = 290
"""Octets counted for an answer beside its head and target."""
LARGEST = 128 * 1024
"""Octets of a body that the lane sends: more would stand in a write buffer that nobody watches."""
TICK = 1.0
"""Seconds between two handings-over of the lane's counts to the percentiles."""

NOT_LEARNED = frozenset({"cache-control", "pragma", "range", "x-request-id", "authorization", "upgrade"})
"""Requests with one of these are answered the ordinary way: their answer depends on more than L1."""

END = b" HTTP/1.1\r\n"
_HOST = re.compile(rb"\r\nhost:([^\r]*)", re.IGNORECASE)


@final
class Kind:
    """What many answers have alike: the rule, the coding, whether they are 304."""

    __slots__ = ("coding", "not_modified", "rule", "sums")

    def __init__(self, rule: str, coding: str, sums: Sums, *, not_modified: bool) -> None:
        self.rule = rule
        self.coding = coding
        self.sums = sums
        self.not_modified = not_modified


@final
class Ready:
    """One answer, ready but for the request's id. ``fixed``: the head's constant part; ``rendered``: with
    what is true ``until`` then; ``saved``: what the fetch took. It is the entry's (Entry.answers)."""

    __slots__ = (
        "body", "entry", "fixed", "kind", "line", "rendered", "saved", "target", "targets", "until",
    )  # fmt: skip

    def __init__(
        self,
        entry: Entry,
        targets: dict[bytes, Ready],
        target: bytes,
        kind: Kind,
        fixed: bytes,
        body: bytes,
    ) -> None:
        self.entry = entry
        self.targets = targets
        self.target = target
        self.kind = kind
        self.fixed = fixed
        self.body = body
        self.rendered = b""
        self.line: HitLine | None = None
        self.until = 0.0
        self.saved = 0.0

    @property
    def size(self) -> int:
        return ANSWER + len(self.fixed) + len(self.target)

    def leave(self) -> None:
        if self.targets.get(self.target) is self:
            del self.targets[self.target]
        # It may still be among the warm ones.
        del self.entry
        self.body = self.rendered = b""
        self.line = None


@final
class Sums:
    """What the lane has counted for one rule since the last tick."""

    __slots__ = ("hits", "not_modified", "octets", "saved", "seconds")

    def __init__(self) -> None:
        self.hits = self.not_modified = self.octets = 0
        self.seconds = self.saved = 0.0


class Lane:
    """Per worker. ``log``, if given, is told of each hit; ``hot`` about once a second with an entry
    that is being hit and the coding it is sent in, ``asked`` with the entry alone. ``unsure``: Blocks'."""

    def __init__(
        self,
        *,
        clock: Clock,
        memory: MemoryStore,
        words: Sequence[int],
        responder: Responder,
        metrics: Metrics,
        percentiles: Percentiles,
        next_id: Callable[[], str],
        log: AccessLog | None,
        hot: Callable[[Entry, str], None],
        asked: Callable[[Entry], None],
        unsure: frozenset[str] = frozenset(),
    ) -> None:
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._clock = clock
        self._memory = memory
        self._words = words
        self._responder = responder
        self._metrics = metrics
        self._percentiles = percentiles
        self._next_id = next_id
        self._log = log
        self._hot = hot
        self._asked = asked
        self._with_id = responder.sends_request_id
        self._blocks = Blocks[dict[bytes, Ready]](dict, unsure)
        self._tables = self._blocks.known
        self._kinds: dict[tuple[str, str, int], Kind] = {}
        self._warm: deque[Ready] = deque()
        self._stable: dict[tuple[str, int, int], bytes] = {}
        self._sums: dict[tuple[str, int], Sums] = {}
        self._ticking = False
        self.hits = 0

    # -- answering --------------------------------------------------------------------------------------

    def answer(self, protocol: EdgeProtocol, data: bytes) -> bool:
        """Answer the request in ``data``, if it is one of those remembered. The caller has seen to it that
        the connection is clean and idle."""
        end = data.find(END)
        block = data[end + 11 :]
        targets = self._tables.get(block)
        if targets is None and end > 0 and len(block) <= protocol.max_line_size:
            targets = self._blocks.alike(block)
        if targets is None:
            return False
        ready = targets.get(data[4:end])
        return ready is not None and self._send(protocol, data, ready)

    def answer_parsed(self, protocol: EdgeProtocol, data: bytes) -> bool:
        """As ``answer``, for a block never seen before that aiohttp's parser has just accepted as one whole
        bodyless GET: it may differ from a known one only in what selects nothing."""
        end = data.find(END)
        if end < 0 or not data.startswith(b"GET "):
            return False
        targets = self._blocks.like(data[end + 11 :])
        if not targets:
            return False
        ready = targets.get(data[4:end])
        return ready is not None and self._send(protocol, data, ready)

    def _send(self, protocol: EdgeProtocol, data: bytes, ready: Ready) -> bool:
        began = self._monotonic()
        entry = ready.entry
        if not entry.current or (entry.checked != self._words[CURRENT] and not self._memory.recheck(entry)):
            entry.let_go()
            return False
        now = self._now()
        if now >= ready.until and not self._render(ready, entry, now):
            entry.let_go()
            return False
        transport = protocol.transport
        if transport is None or transport.get_write_buffer_size():
            return False
        if self._with_id:
            request_id = self._next_id()
            head = b"%bX-Request-ID: %b\r\n\r\n" % (ready.rendered, request_id.encode())
        else:
            request_id = ""
            head = ready.rendered + b"\r\n"
        body = ready.body
        length = len(body)
        if length > 4096:
            transport.writelines((head, body))
        else:
            transport.write(head + body)
        entry.hits += 1
        kind = ready.kind
        sums = kind.sums
        sums.hits += 1
        sums.octets += length
        sums.saved += ready.saved
        sums.not_modified += kind.not_modified
        seconds = self._monotonic() - began
        sums.seconds += seconds
        if not self._ticking:
            self._ticking = True
            self._clock.call_later(TICK, self.fold)
        if self._log is not None:
            line = ready.line
            if line is None:
                trace = self._trace(ready, entry, protocol, data, now, request_id, seconds)
                ready.line = self._log.hit_line(trace)
                self._log.write(trace)
            else:
                self._log.write_hit(
                    line, request_id, protocol.client, seconds, int(entry.age(now)), entry.fresh_until - now
                )
        return True

    def _render(self, ready: Ready, entry: Entry, now: float) -> bool:
        """The head as it is true now, and until when: Age and ttl are whole seconds. False once stale."""
        fresh_until = entry.fresh_until
        left = fresh_until - now
        if left <= 0:
            return False
        kind = ready.kind
        if kind.coding and not kind.not_modified:
            self._hot(entry, kind.coding)
        self._asked(entry)
        age = entry.age(now)
        whole = floor(age)
        seconds = ceil(left)
        # Of one rule all that have the same two numbers say the same.
        key = (kind.rule, whole, seconds)
        stable = self._stable.get(key)
        if stable is None:
            if len(self._stable) >= MOST_STABLE:
                self._stable.clear()
            trace = Trace(rule=kind.rule, word=CacheWord.HIT, tier=Tier.L1, hit=True, ttl=left)
            stable = self._stable[key] = self._responder.stable_part(trace, whole)
        if not ready.rendered:
            ready.saved = entry.fetch_seconds
            self._warm.append(ready)
            if len(self._warm) > MOST_WARM:
                cold = self._warm.popleft()
                cold.rendered, cold.line = b"", None
                cold.until = cold.saved = 0.0
        ready.rendered = ready.fixed + stable
        ready.until = min(now + (whole + 1 - age), now + (left - (seconds - 1)), fresh_until)
        # Recency to the second is enough for the order in which L1 lets go.
        self._memory.touch(entry.primary)
        return True

    def _trace(
        self,
        ready: Ready,
        entry: Entry,
        protocol: EdgeProtocol,
        data: bytes,
        now: float,
        request_id: str,
        seconds: float,
    ) -> Trace:
        return Trace(
            request_id=request_id,
            method="GET",
            host=entry.host or _host_in(data),
            target=data[4 : data.find(END)].decode("latin-1"),
            client=protocol.client,
            rule=ready.kind.rule,
            key=entry.primary,
            word=CacheWord.HIT,
            tier=Tier.L1,
            hit=True,
            ttl=entry.fresh_until - now,
            age=int(entry.age(now)),
            coding=ready.kind.coding,
            status=int(ready.fixed[9:12]),
            bytes_out=len(ready.body),
            seconds=seconds,
            saved_seconds=ready.saved,
        )

    # -- learning ---------------------------------------------------------------------------------------

    def learn(
        self, data: bytes, entry: Entry, rule: str, coding: str, fixed: bytes, body: bytes, status: int
    ) -> None:
        """Remember that the ordinary way answered the request ``data`` (one whole head) like this."""
        if len(body) > LARGEST or not entry.current or not data.startswith(b"GET "):
            return  # the parser skips an empty line before a request; here it would shift the target
        end = data.find(END)
        if end < 0:
            return
        targets = self._blocks.table(data[end + 11 :], self._memory.selecting(entry.primary))
        if targets is None:
            return
        if len(entry.answers) >= MOST_ANSWERS:
            entry.let_go()
        not_modified = status == 304
        kind = self._kinds.get((rule, coding, status))
        if kind is None:
            hundred = 2 if not_modified else status // 100  # a 304 is counted beside the rest of its rule
            sums = self._sums.get((rule, hundred))
            if sums is None:
                sums = self._sums[rule, hundred] = Sums()
            kind = Kind(rule, coding, sums, not_modified=not_modified)
            self._kinds[rule, coding, status] = kind
        target = data[4:end]
        before = targets.get(target)
        if before is not None:
            other = before.entry
            other.answers = tuple([answer for answer in other.answers if answer is not before])
            before.leave()
        ready = Ready(entry, targets, target, kind, fixed, b"" if not_modified else body)
        targets[target] = ready
        entry.answers = (*entry.answers, ready)
        self._memory.grown(entry)

    def rules(self, rules: Iterable[Rule]) -> None:
        """From now on these are the rules: everything learned is forgotten. What is held for entries goes
        with them, or when they are learned again."""
        self._blocks.rules(rules)

    def forget(self) -> None:
        """Everything learned."""
        self._blocks.forget()

    # -- counting ---------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Hand the counts over to the metrics and the percentiles."""
        self._ticking = False
        for (rule, hundred), sums in self._sums.items():
            if not sums.hits:
                continue
            self.hits += sums.hits
            slot = self._metrics.slot(rule)
            slot.lane_hits += sums.hits
            if hundred != 2:  # which is what hits of the lane are taken for
                slot.classes[2] -= sums.hits
                slot.classes[hundred] += sums.hits
            slot.lane_not_modified += sums.not_modified
            slot.lane_bytes += sums.octets
            slot.lane_seconds += sums.seconds
            slot.lane_saved += sums.saved
            self._percentiles.observe_many(rule, sums.seconds / sums.hits, sums.hits, sums.hits)
            sums.hits = sums.not_modified = sums.octets = 0
            sums.seconds = sums.saved = 0.0


def _host_in(data: bytes) -> str:
    """Of a request whose key leaves the host out. Its block was accepted: there is one such field."""
    found = _HOST.search(data)
    return "" if found is None else found[1].strip(b" \t").lower().decode("latin-1")
