"""The flow for the plain case, in two steps that wait for nothing: look, and settle when the answer is here.

Rules of this file:

- It decides nothing that handle.py and settle.py would decide otherwise: the same lookup, the same flights
  and fences, the same ``settle``. What it cannot do without waiting it leaves to them: before anything was
  sent (``look`` gives None), or after (``Call.rest``).
- For a GET without a body whose fields ask for nothing unusual; who calls it has seen to that.
- A request costs no task, and no future but its flight's.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, final

from edgeproxy.engine.ask import Ask
from edgeproxy.engine.exchange import FromEdge, FromEntry, FromStream
from edgeproxy.engine.failures import failure
from edgeproxy.engine.mould import find
from edgeproxy.engine.overload import overloaded
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.arrived import Here, KnownReply
from edgeproxy.origin.base import OriginError
from edgeproxy.policy import decisions as d
from edgeproxy.policy.decide import decide, deliver
from edgeproxy.policy.vocabulary import CacheWord, Forwarded, PassReason, Tier
from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.base import Leases
    from edgeproxy.engine.coalesce import Flight, Flights
    from edgeproxy.engine.exchange import Answer, Exchange
    from edgeproxy.engine.failures import Failures
    from edgeproxy.engine.fetch import Fetcher
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.mould import Cast
    from edgeproxy.engine.settle import Received, Settler, Start
    from edgeproxy.engine.witness import Witness
    from edgeproxy.origin.base import Forward, Origin, OriginReply, Prompted
    from edgeproxy.rules.model import Matched
    from edgeproxy.store.base import Found, Store
    from edgeproxy.store.entry import Entry


log = logging.getLogger("edgeproxy.engine")

BROKEN = FromEdge(500, "Something went wrong in the edge", "The log has it under the request id.")


class StaleNow(Protocol):
    """What to answer a client from a stored entry that is not fresh, or not for its request; None: it takes
    waiting to know."""

    def __call__(self, ask: Ask, near: Found, decision: d.Decision, *, deep: bool) -> FromEntry | None: ...


class Told(Protocol):
    """Who is told what came of a call: exactly one of these is called, once."""

    def answered(self, answer: Answer) -> None: ...
    def cast(self, cast: Cast) -> None:
        """As ``answered``, where a mould (mould.py) made the answer."""

    def unfinished(self) -> None:
        """The rest takes waiting: ``await call.rest()``, in a task."""


@value
class Manner:
    """What a request's fields, whatever its target, say of how it may be answered. ``plain``: as mould.py has
    it; ``events``: it asks for a stream of them; ``prefix``: key.plain_prefix."""

    plain: bool
    events: bool
    prefix: str | None


@final
class Whole:
    """What L2 has and the client may be given as it lies: fresh, and nothing is asked of it."""

    __slots__ = ("ask", "entry", "found")

    def __init__(self, ask: Ask, found: Found, entry: Entry) -> None:
        self.ask = ask
        self.found = found
        self.entry = entry


@final
class Call:
    """A request that may go to the origin. ``alone``: its answer is for this client only, as far as is known;
    ``passed``: the rule sends it past the cache."""

    __slots__ = (
        "_began", "_once", "_prompt", "_prompted", "_resent", "_told", "_under_way",
        "alone", "ask", "flight", "manner", "passed", "reason", "start",
    )  # fmt: skip

    def __init__(
        self,
        prompt: Prompt,
        ask: Ask,
        reason: Forwarded,
        *,
        manner: Manner,
        alone: bool = False,
        passed: bool = False,
    ) -> None:
        self._prompt = prompt
        self._prompted: Prompted | None = None
        self._under_way: object = None
        self._told: Told | None = None
        self._began = 0.0
        self._resent = False
        self._once = False
        self.ask = ask
        self.reason = reason
        self.alone = alone
        self.passed = passed
        self.manner = manner
        self.flight: Flight | None = None
        self.start: Start = prompt.settler.start()

    def send(self, octets: bytes, told: Told) -> None:
        """Ask the origin, now if that can be done at once; ``told`` hears of it later, or of what is left."""
        self._told = told
        try:
            self._send(octets)
        except Exception:
            log.exception("request %s failed", self.ask.exchange.trace.request_id)
            self._prompt.failures.abandon(self.flight)
            if self._told is not None:
                self._is_told().answered(BROKEN)

    def _send(self, octets: bytes) -> None:
        prompt, ask = self._prompt, self.ask
        self._began = prompt.clock.monotonic()
        joins = ask.rule.coalesce.enabled and not self.manner.events
        if not self.alone and joins:
            self.flight = prompt.flights.begin(ask.key.primary, self.start.epoch, self._began)
            if prompt.leases is not None:
                lease = prompt.leases.at_once(ask.key.primary, ask.exchange.trace.started)
                self.flight.lease = lease
                if lease is None:
                    self._is_told().unfinished()  # another process may be fetching it: who can wait finds out
                    return
        self._prompted = prompt.origin.prompt(octets, self, ask.rule)
        if self._prompted is None:
            self._is_told().unfinished()

    def _is_told(self) -> Told:
        """Who is to hear of it, once. We are among what he holds, and what is prompted holds us: let go of
        now, all is freed as soon as the answer is out, and the collector has nothing to look for."""
        told, self._told, self._prompted = self._told, None, None
        assert told is not None  # noqa: S101
        return told

    def uncast(self, cast: Cast) -> Answer:
        """What ``answered`` would have told of instead."""
        ask, entry = self.ask, cast.entry
        if entry is None:
            head = cast.mould.known.head(cast.values)
            return FromStream(head, Here(cast.body), ask.rule, shareable=False)
        now = self._prompt.clock.now()
        return FromEntry(entry, deliver(ask.exchange.head, entry.stored, ask.rule.overrides, now), ask.rule)

    def vanish(self) -> bool:
        """The client has left: what is for it alone ends, what others may use goes on. Whether it has ended:
        then nobody will be told any more."""
        if not self.alone or self._prompted is None:
            return False
        prompted, self._prompted, self._told = self._prompted, None, None
        prompted.abandon()
        return True

    async def rest(self) -> Answer:
        """What takes waiting. Only after ``unfinished``."""
        prompt, ask = self._prompt, self.ask
        if self._under_way is None:
            # It could not be sent at once, or was and has to be again.
            if self.passed:
                return await self._pass()
            if prompt.leases is not None and self.flight is not None and self.flight.lease is None:
                return await prompt.lead(ask, d.Fetch(self.reason), None, self.flight)
            return await prompt.fetcher.fetch(
                ask,
                d.Fetch(self.reason),
                None,
                self.flight,
                alone=self.alone,
                resent=self._resent,
                once=self._once,
            )
        try:
            try:
                reply = await prompt.origin.go_on(self._under_way, self._forward())
            finally:
                ask.exchange.trace.origin_seconds += prompt.clock.monotonic() - self._began
            answer = self._settled(prompt.fetcher.received(ask.exchange.trace, reply))
            if answer is None:
                answer = await prompt.fetcher.fetch(
                    ask, d.Fetch(self.reason), None, self.flight, alone=self.alone, once=True
                )
        except OriginError as error:
            return self._failed(error)
        finally:
            prompt.failures.abandon(self.flight)
        return answer

    # -- PromptListener ---------------------------------------------------------------------------------

    def answered(self, reply: OriginReply) -> None:
        prompt, told = self._prompt, self._is_told()
        trace = self.ask.exchange.trace
        trace.origin_seconds = prompt.clock.monotonic() - self._began
        answer: Answer | None
        try:
            if type(reply) is KnownReply and self.manner.plain:
                cast = self._cast(reply)
                if cast is not None:
                    told.cast(cast)
                    return
                answer = self._settled(prompt.fetcher.received(trace, reply))
                if not self.passed:
                    prompt.settler.remember(self.ask, reply, answer)
            else:
                answer = self._settled(prompt.fetcher.received(trace, reply))
        except Exception:
            log.exception("request %s failed", trace.request_id)
            prompt.failures.abandon(self.flight)
            answer = BROKEN
        if answer is None:
            self._once = True
            told.unfinished()
        else:
            told.answered(answer)

    def goes_on(self, under_way: object) -> None:
        self._under_way = under_way
        self._is_told().unfinished()

    def failed(self, error: OriginError, *, again: bool) -> None:
        told = self._is_told()
        self.ask.exchange.trace.origin_seconds = self._prompt.clock.monotonic() - self._began
        if again:
            self._resent = True
            told.unfinished()
        else:
            told.answered(self._failed(error))

    # -- small parts ------------------------------------------------------------------------------------

    def _cast(self, reply: KnownReply) -> Cast | None:
        ask, settler = self.ask, self._prompt.settler
        mould = find(reply.known, ask, passed=self.passed)
        if mould is None:
            return None
        if self.passed:
            return settler.cast_passed(mould, ask, reply)
        if self.alone and mould.discard is None:
            return None
        return settler.cast(mould, ask, self.flight, self.start, reply)

    def _settled(self, received: Received) -> Answer | None:
        if self.passed:
            return FromStream(received.head, received.body, self.ask.rule, shareable=False)
        return self._prompt.settler.settle(self.ask, None, self.flight, self.start, received, own=self.alone)

    def _failed(self, error: OriginError) -> Answer:
        prompt = self._prompt
        prompt.witness.failed(error)
        if self.passed:
            return failure(self.ask.exchange.trace, error)
        return prompt.failures.on_failure(self.ask, None, self.flight, error)

    def _forward(self) -> Forward:
        build, ask = self._prompt.forward, self.ask
        if self.passed:
            return build.passed(ask.exchange, ask.rule)
        return build.whole(ask.exchange, ask.rule, conditionals=self.alone)

    async def _pass(self) -> Answer:
        fetcher, trace = self._prompt.fetcher, self.ask.exchange.trace
        try:
            reply = await fetcher.ask_origin(trace, replace(self._forward(), resent=self._resent))
        except OriginError as error:
            return failure(trace, error)
        return FromStream(reply.head, reply.body, self.ask.rule, shareable=False)


class Prompt:
    """One worker's short way through the flow."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        origin: Origin,
        forward: ForwardBuilder,
        flights: Flights,
        fetcher: Fetcher,
        settler: Settler,
        failures: Failures,
        witness: Witness,
        leases: Leases | None,
        lead: Callable[[Ask, d.Fetch, None, Flight], Awaitable[Answer]],
        stale: StaleNow,
    ) -> None:
        self.clock = clock
        self.origin = origin
        self.forward = forward
        self.flights = flights
        self.fetcher = fetcher
        self.settler = settler
        self.failures = failures
        self.witness = witness
        self.leases = leases
        self.lead = lead
        self._stale = stale
        self._store = store

    def packed(self, primary: str) -> Entry | None:
        """A stored answer that a plain request (Manner) may be given whole, as it lies in memory: fresh, and
        of a key that does not vary. None: ``look`` knows."""
        entry = self._store.packed(primary)
        return entry if entry is not None and self.clock.now() < entry.fresh_until else None

    def look(self, exchange: Exchange, matched: Matched, manner: Manner) -> FromEntry | Whole | Call | None:
        """The answer, or the call that will bring it; None: that takes waiting (Engine.handle). ``manner``
        is the request's."""
        trace, rule = exchange.trace, matched.rule
        trace.rule = rule.name
        ask = Ask.of(exchange, matched, manner.prefix)
        primary = ask.key.primary
        trace.key = primary
        if rule.overrides.pass_:
            return self._pass(ask, manner=manner)
        store = self._store
        found = store.peek(primary, ask.select)
        if found.entry is not None:
            return self._decided(ask, found, deep=False)
        deeper = store.lookup_now(primary, ask.select)
        if deeper is None:
            return None
        trace.l2_seconds += deeper.seconds
        entry = deeper.entry
        if entry is None:
            trace.lookup_miss = deeper.miss
            return self._miss(ask, others=found.others or deeper.others, manner=manner)
        if (
            entry.is_packed and not entry.variant and manner.plain and manner.prefix is not None
            and self.clock.now() < entry.fresh_until
        ):  # fmt: skip
            return Whole(ask, deeper, entry)
        return self._opened(ask, deeper)

    def shed(self) -> FromEdge:
        """What a call is refused with where there is too much to do."""
        return failure(Trace(), overloaded())

    def open(self, whole: Whole) -> FromEntry | Call | None:
        """As ``look``, for one that cannot be given as it lies."""
        return self._opened(whole.ask, whole.found)

    def _opened(self, ask: Ask, found: Found) -> FromEntry | Call | None:
        assert found.entry is not None  # noqa: S101
        self._store.open(found.entry)
        return self._decided(ask, found, deep=True)

    def _decided(self, ask: Ask, found: Found, *, deep: bool) -> FromEntry | Call | None:
        entry, trace, now = found.entry, ask.exchange.trace, self.clock.now()
        assert entry is not None  # noqa: S101
        decision = decide(ask.exchange.head, entry.stored, ask.rule.overrides, now)
        if type(decision) is not d.Serve:
            return self._stale(ask, found, decision, deep=deep)
        trace.tier = found.tier or Tier.L1
        trace.word = CacheWord.HIT
        trace.hit = True
        trace.saved_seconds = entry.fetch_seconds
        trace.ttl = entry.stored.freshness.fresh_until - now
        return FromEntry(entry, decision, ask.rule)

    def _miss(self, ask: Ask, *, others: bool, manner: Manner) -> Call | None:
        trace, primary = ask.exchange.trace, ask.key.primary
        reason = Forwarded.VARY_MISS if others else Forwarded.URI_MISS
        trace.tier = Tier.ORIGIN
        if self._store.is_uncacheable(primary):
            trace.word = CacheWord.BYPASS
            trace.forwarded = Forwarded.BYPASS
            trace.pass_reason = PassReason.HIT_FOR_MISS
            return Call(self, ask, Forwarded.BYPASS, manner=manner, alone=True)
        if self.flights.find(primary, self.clock.monotonic(), ask.rule.coalesce.lease) is not None:
            return None  # followed by who can wait
        trace.word = CacheWord.MISS
        trace.forwarded = reason
        return Call(self, ask, reason, manner=manner)

    def _pass(self, ask: Ask, *, manner: Manner) -> Call:
        trace = ask.exchange.trace
        trace.key = ""
        trace.word = CacheWord.BYPASS
        trace.tier = Tier.ORIGIN
        trace.forwarded = Forwarded.BYPASS
        trace.pass_reason = PassReason.RULE
        return Call(self, ask, Forwarded.BYPASS, manner=manner, alone=True, passed=True)
