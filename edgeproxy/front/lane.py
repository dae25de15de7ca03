"""The hit lane: answers a hot request inside the connection's callback, without parsing it.

Rules of this file:

- It interprets no bytes that were not parsed strictly before. It remembers header blocks (all octets after
  the request line) that aiohttp's parser has accepted as one complete bodyless request, and, under each
  block, the targets that the ordinary way has answered with a fresh entry from L1. A request is answered
  here only if block and target are the same octets again: whatever the ordinary way derived from them (rule,
  key, variant, coding, conditions) holds for these too.
- What can change meanwhile is compared on every hit: the entry is still the one that L1 would give
  (``Entry.current``), no purge has come since it was last found good, it is still fresh, the rules are the
  same (a reload empties the lane).
- Anything else goes to aiohttp untouched. The differential test holds that both ways give the same octets.
- It keeps no entry alive: what L1 lets go is gone from here too, so that the memory budget holds.
- Bounded: MOST_BLOCKS blocks, MOST_ANSWERS answers; when full it forgets all and learns again. A block is
  learned when it is seen a second time, so that clients whose every request differs cost a set entry each.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, final
from weakref import ref

from edgeproxy.cluster.epoch import CURRENT
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import CacheWord, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.clock import Clock
    from edgeproxy.front.respond import Responder
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.observe.metrics import Metrics
    from edgeproxy.observe.percentiles import Percentiles
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.memory import MemoryStore

MOST_BLOCKS = 4096
MOST_ANSWERS = 200_000
MOST_SEEN = 65_536
LARGEST = 128 * 1024
"""Octets of a body that the lane sends: more would stand in a write buffer that nobody watches."""
SLICE = 1000
"""Forgotten answers let go of at a time."""
TICK = 1.0
"""Seconds between two handings-over of the lane's counts to the percentiles."""

NOT_LEARNED = frozenset({"cache-control", "pragma", "range", "x-request-id", "authorization", "upgrade"})
"""Requests with one of these are answered the ordinary way: their answer depends on more than L1."""

_END = b" HTTP/1.1\r\n"


@final
class _Held(ref["Entry"]):
    """An entry, as long as L1 holds it, and where its answer stands."""

    __slots__ = ("era", "target", "targets")

    targets: dict[bytes, Ready]
    target: bytes
    era: int
    """How often the lane had forgotten all when this was learned."""


@final
class Ready:
    """One answer, ready but for the request's id. ``until``: when the rendered head is no longer true."""

    __slots__ = (
        "coding",
        "entry",
        "fixed",
        "length",
        "not_modified",
        "rendered",
        "rule",
        "sums",
        "until",
    )

    def __init__(
        self, entry: _Held, rule: str, coding: str, fixed: bytes, length: int, status: int, sums: Sums
    ) -> None:
        self.entry = entry
        self.coding = coding
        self.rule = rule
        self.fixed = fixed
        self.length = length
        self.not_modified = status == 304
        self.sums = sums
        self.rendered = b""
        self.until = 0.0


@final
class Sums:
    """What the lane has counted for one rule since the last tick."""

    __slots__ = ("hits", "not_modified", "octets", "saved", "seconds")

    def __init__(self) -> None:
        self.hits = self.not_modified = self.octets = 0
        self.seconds = self.saved = 0.0


class Lane:
    """Per worker. ``log`` is called with a trace per hit, if given; ``hot`` about once a second with an entry
    that is being hit and the coding it is sent in, ``asked`` with the entry alone."""

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
        log: Callable[[Trace], None] | None,
        hot: Callable[[Entry, str], None],
        asked: Callable[[Entry], None],
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
        self._blocks: dict[bytes, dict[bytes, Ready]] = {}
        self._seen: set[int] = set()
        self._answers = 0
        self._era = 0
        self._forgotten: list[dict[bytes, Ready]] = []
        self._sums: dict[str, Sums] = {}
        self._ticking = False
        self.hits = 0

    # -- answering --------------------------------------------------------------------------------------

    def answer(self, protocol: EdgeProtocol, data: bytes) -> bool:
        """Answer the request in ``data``, if it is one of those remembered. The caller has seen to it that
        the connection is clean and idle."""
        end = data.find(_END)
        targets = self._blocks.get(data[end + 11 :])
        if targets is None:
            return False
        ready = targets.get(data[4:end])
        if ready is None:
            return False
        began = self._monotonic()
        entry = ready.entry()
        if entry is None:
            return False
        now = self._now()
        if not entry.current or (entry.checked != self._words[CURRENT] and not self._memory.recheck(entry)):
            del targets[data[4:end]]
            self._answers -= 1
            return False
        if ready.not_modified:
            body = b""
        else:
            body = entry.codings.get(ready.coding, b"") if ready.coding else entry.body
        # Another length: it has been coded again, better.
        if len(body) != ready.length or (now >= ready.until and not self._render(ready, entry, now)):
            del targets[data[4:end]]
            self._answers -= 1
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
        if ready.length > 4096:
            transport.writelines((head, body))
        else:
            transport.write(head + body)
        entry.hits += 1
        sums = ready.sums
        sums.hits += 1
        sums.octets += ready.length
        sums.saved += entry.fetch_seconds
        sums.not_modified += ready.not_modified
        seconds = self._monotonic() - began
        sums.seconds += seconds
        if not self._ticking:
            self._ticking = True
            self._clock.call_later(TICK, self.fold)
        if self._log is not None:
            self._log(self._trace(ready, entry, protocol, data, now, request_id, seconds))
        return True

    def _render(self, ready: Ready, entry: Entry, now: float) -> bool:
        """The head as it is true now, and until when: Age and ttl are whole seconds. False once stale."""
        left = entry.fresh_until - now
        if left <= 0:
            return False
        if ready.coding and not ready.not_modified:
            self._hot(entry, ready.coding)
        self._asked(entry)
        freshness = entry.stored.freshness
        age = freshness.age(now)
        trace = Trace(rule=ready.rule, word=CacheWord.HIT, tier=Tier.L1, hit=True, ttl=left)
        ready.rendered = ready.fixed + self._responder.stable_part(trace, int(age))
        ready.until = min(now + (floor(age) + 1 - age), now + (left - (ceil(left) - 1)), entry.fresh_until)
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
            host=entry.host,
            target=data[4 : data.find(_END)].decode("latin-1"),
            client=protocol.client,
            rule=ready.rule,
            key=entry.primary,
            word=CacheWord.HIT,
            tier=Tier.L1,
            hit=True,
            ttl=entry.fresh_until - now,
            age=int(entry.stored.freshness.age(now)),
            status=304 if ready.not_modified else entry.stored.status,
            bytes_out=ready.length,
            seconds=seconds,
            saved_seconds=entry.fetch_seconds,
        )

    # -- learning ---------------------------------------------------------------------------------------

    def learn(
        self, data: bytes, entry: Entry, rule: str, coding: str, fixed: bytes, body: bytes, status: int
    ) -> None:
        """Remember that the ordinary way answered the request ``data`` (one whole head) like this."""
        if len(body) > LARGEST or not entry.current or not data.startswith(b"GET "):
            return  # the parser skips an empty line before a request; here it would shift the target
        end = data.find(_END)
        if end < 0:
            return
        block = data[end + 11 :]
        targets = self._blocks.get(block)
        if targets is None:
            mark = hash(block)
            if mark not in self._seen:
                if len(self._seen) >= MOST_SEEN:
                    self._seen.clear()
                self._seen.add(mark)
                return
            if len(self._blocks) >= MOST_BLOCKS:
                self.forget()
            targets = self._blocks[block] = {}
        if self._answers >= MOST_ANSWERS:
            self.forget()
            targets = self._blocks[block] = {}
        target = data[4:end]
        if target not in targets:
            self._answers += 1
        sums = self._sums.get(rule)
        if sums is None:
            sums = self._sums[rule] = Sums()
        held = _Held(entry, self._let_go)
        held.targets, held.target, held.era = targets, target, self._era
        length = 0 if status == 304 else len(body)
        targets[target] = Ready(held, rule, coding, fixed, length, status, sums)

    def _let_go(self, held: ref[Entry]) -> None:
        """Called when an entry is no more."""
        assert isinstance(held, _Held)  # noqa: S101
        ready = held.targets.get(held.target)
        if ready is not None and ready.entry is held:
            del held.targets[held.target]
            self._answers -= held.era == self._era

    def forget(self) -> None:
        """Everything learned; when full."""
        self.forget_answers()
        self._seen.clear()

    def forget_answers(self) -> None:
        """After a reload. That a block has been seen before has nothing to do with rules: what is hot is back
        with its next request."""
        if not self._forgotten:
            self._clock.call_later(0.0, self._empty)
        self._forgotten += self._blocks.values()
        self._blocks = {}
        self._answers = 0
        self._era += 1

    def _empty(self) -> None:
        """Let go of forgotten answers, a few at a time. Left alone they would wait for the collector, since
        each knows the table that it is in, and then cost one long pause."""
        for _ in range(SLICE):
            while self._forgotten and not self._forgotten[-1]:
                self._forgotten.pop()
            if not self._forgotten:
                return
            self._forgotten[-1].popitem()
        self._clock.call_later(0.0, self._empty)

    # -- counting ---------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Hand the counts over to the metrics and the percentiles."""
        self._ticking = False
        for rule, sums in self._sums.items():
            if not sums.hits:
                continue
            self.hits += sums.hits
            slot = self._metrics.slot(rule)
            slot.lane_hits += sums.hits
            slot.lane_not_modified += sums.not_modified
            slot.lane_bytes += sums.octets
            slot.lane_seconds += sums.seconds
            slot.lane_saved += sums.saved
            self._percentiles.observe_many(rule, sums.seconds / sums.hits, sums.hits, sums.hits)
            sums.hits = sums.not_modified = sums.octets = 0
            sums.seconds = sums.saved = 0.0
