"""The flow, top to bottom: match, key, lookup, decide, then serve, pass (passing.py) or fetch (fetch.py).

Rules of this file:

- One request goes through ``handle`` once, downwards. Every decision is a value of policy/decisions.py; this
  file acts on them and decides nothing about HTTP.
- No await between reading and changing a shared map (flights, cool-downs).
- Whatever happens, followers of a flight are told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from edgeproxy.engine.ask import Ask
from edgeproxy.engine.coalesce import DOUBTS, Failed, Flight, Flights, Landed, Stale, Streaming, Uncacheable
from edgeproxy.engine.contents import Contents
from edgeproxy.engine.cooldown import CoolDown
from edgeproxy.engine.exchange import Answer, Exchange, FromEdge, FromEntry, FromStream
from edgeproxy.engine.failures import Failures, failure
from edgeproxy.engine.fetch import Fetcher, validation
from edgeproxy.engine.gates import Gates
from edgeproxy.engine.lead import Leader
from edgeproxy.engine.overload import Overload, overloaded
from edgeproxy.engine.passing import Passer
from edgeproxy.engine.prompt import Prompt
from edgeproxy.engine.settle import Settler
from edgeproxy.engine.streaming import stream_of
from edgeproxy.engine.witness import Witness
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.base import OriginError, Purpose
from edgeproxy.policy import decisions as d
from edgeproxy.policy.cdn_loop import FIELD
from edgeproxy.policy.decide import bypass, conclude, decide, deliver, insists
from edgeproxy.policy.events import wants_events
from edgeproxy.policy.head import RequestHead
from edgeproxy.policy.header_table import end_to_end
from edgeproxy.policy.parts import answers
from edgeproxy.policy.vary import variant_id
from edgeproxy.policy.vocabulary import (
    CacheWord,
    Forwarded,
    LookupMiss,
    PassReason,
    StaleReason,
    Tier,
    Unsatisfied,
)
from edgeproxy.store.base import Found

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.cluster.base import Leases
    from edgeproxy.engine.background import Background
    from edgeproxy.engine.evidence import Evidence
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.gates import Tokens
    from edgeproxy.origin.base import Origin
    from edgeproxy.rules.match import Matcher
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry

LOOP = (
    "It has passed through this edge already (CDN-Loop, RFC 8586), or through too many: look at which origin "
    "each edge on its way has."
)
ROUNDS = 3
"""How often a request looks again after a flight it followed was not for it, before it goes alone."""


class Engine:
    """One worker's flow. ``matcher`` is swapped, whole, when the rules are reloaded. ``leases``: where other
    processes fetch the same into the same store."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        origin: Origin,
        background: Background,
        forward: ForwardBuilder,
        matcher: Matcher,
        leases: Leases | None = None,
        least: float = 0.0,
        overload: Overload | None = None,
        buckets: Tokens | None = None,
    ) -> None:
        """``least``: octets a second that clients have to send of a body; 0: any. ``buckets``: of rate
        limits, where other workers have the same."""
        self.matcher = matcher
        self._clock = clock
        self._store = store
        self._background = background
        self._forward = forward
        self.flights = Flights(store.after_writes)
        self.gates = Gates(clock, buckets)
        self.overload = overload or Overload(clock)
        self.contents = Contents(clock, least=least)
        self._cooldown = CoolDown()
        self._witness = Witness(clock)
        self._failures = Failures(clock=clock, store=store, flights=self.flights, cooldown=self._cooldown)
        self._settler = Settler(
            clock=clock, store=store, background=background, flights=self.flights,
            failures=self._failures, witness=self._witness,
        )  # fmt: skip
        self._fetcher = Fetcher(
            clock=clock, store=store, origin=origin, forward=forward, settler=self._settler,
            failures=self._failures, witness=self._witness,
        )  # fmt: skip
        self._lead = Leader(
            clock=clock, store=store, fetcher=self._fetcher, failures=self._failures, flights=self.flights,
            leases=leases,
        ).lead  # fmt: skip
        self._passer = Passer(
            clock=clock, store=store, fetcher=self._fetcher, settler=self._settler, forward=forward,
            least=least,
        )  # fmt: skip
        self.prompt = Prompt(
            clock=clock,
            store=store,
            origin=origin,
            forward=forward,
            flights=self.flights,
            fetcher=self._fetcher,
            settler=self._settler,
            failures=self._failures,
            witness=self._witness,
            leases=leases,
            lead=self._lead,
            stale=self._stale_now,
        )

    def observed_by(self, evidence: Evidence) -> None:
        """Have it told what is stored and what is not."""
        self._settler.evidence = evidence

    @property
    def origin_failing(self) -> bool:
        """The last that was heard of the origin is that it fails."""
        return self._witness.failing_since is not None

    async def handle(self, exchange: Exchange) -> Answer:
        """Answer one request."""
        head = exchange.head
        if "connection" in head.headers:
            head = exchange.head = replace(head, headers=end_to_end(head.headers))
        if FIELD in head.headers and self._forward.loops(head.headers):
            exchange.trace.unsatisfied = Unsatisfied.LOOP
            exchange.trace.tier = Tier.EDGE
            return FromEdge(508, "The request goes in a circle", LOOP)
        matched = self.matcher.match(head)
        rule = matched.rule
        trace = exchange.trace
        trace.rule = rule.name
        of_client = exchange.purpose is Purpose.CLIENT
        if of_client and rule.is_gated:
            refusal = self.gates.refusal(rule, head, trace)
            if refusal is not None:
                return refusal
        if rule.key.body is not None:
            try:
                await self.contents.read(exchange, rule)
            except OriginError as error:
                return failure(trace, error)
            head = exchange.head
        passing = bypass(head, rule.overrides)
        if passing is not None:
            if of_client and not self.overload.admits():
                return failure(trace, overloaded())
            return await self._passer.forward(exchange, matched, passing, self.matcher)

        ask = Ask.of(exchange, matched)
        trace.key = ask.key.primary
        for _ in range(ROUNDS):
            answer = await self._once(ask)
            if answer is not None:
                return answer
        return await self._fetcher.fetch(ask, d.Fetch(Forwarded.MISS), None, None)

    async def _once(self, ask: Ask) -> Answer | None:
        """Look, decide, act. None: a flight that was followed was not for this request; look again."""
        trace = ask.exchange.trace
        found = self._store.peek(ask.key.primary, ask.select)
        decision = self._decide(ask, found)
        if not isinstance(decision, d.Serve):
            epoch = self._store.epoch
            # Another worker or node may have a fresher one. Never raises, bounded in time.
            deeper = await self._store.lookup(ask.key.primary, ask.select)
            trace.l2_seconds += deeper.seconds
            if found.entry is not None and epoch != self._store.epoch and self._store.overtaken(found.entry):
                found = Found(None, miss=LookupMiss.PURGED)  # meanwhile
            found = self._better(found, deeper)
            decision = self._decide(ask, found)
        entry = found.entry
        trace.lookup_miss = found.miss
        match decision:
            case d.Serve():
                assert entry is not None  # noqa: S101
                entry.hits += ask.exchange.purpose is Purpose.CLIENT
                trace.tier = found.tier or Tier.L1
                return self._serve(ask, entry, decision, CacheWord.HIT)
            case d.ServeStale():
                assert entry is not None  # noqa: S101
                if ask.exchange.purpose is not Purpose.CLIENT:
                    # The edge asks for itself: what is stale is to be made fresh, now.
                    again = validation(entry, "GET", Forwarded.STALE)
                    return await self._forward_once(ask, again, entry)
                entry.hits += 1
                trace.tier = found.tier or Tier.L1
                return self._serve_stale(ask, entry, decision)
            case d.Pass():
                # Hit-for-miss: nobody waits for anybody, but what can be stored again will be.
                if self._sheds(ask):
                    return self._failures.give_up_or_stale(ask, entry, overloaded())
                return await self._alone(ask, decision)
            case d.Unsatisfiable():
                trace.unsatisfied = decision.reason
                trace.tier = Tier.EDGE
                return FromEdge(
                    504, "Nothing stored", "The request said only-if-cached; nothing usable is stored."
                )
            case d.Fetch() | d.Revalidate():
                return await self._forward_once(ask, decision, entry)
            case _:
                assert_never(decision)

    def _decide(self, ask: Ask, found: Found) -> d.Decision:
        return decide(
            ask.exchange.head,
            None if found.entry is None else found.entry.stored,
            ask.rule.overrides,
            self._clock.now(),
            others=found.others,
            uncacheable=self._store.is_uncacheable(ask.key.primary),
        )

    @staticmethod
    def _better(near: Found, deep: Found) -> Found:
        if deep.entry is None:
            return near if near.entry is not None else replace(deep, others=near.others or deep.others)
        if near.entry is not None and near.entry.order >= deep.entry.order:
            return near
        return deep

    # -- from the cache ---------------------------------------------------------------------------------

    def _stale_now(self, ask: Ask, near: Found, decision: d.Decision, *, deep: bool) -> FromEntry | None:
        """What ``_once`` would answer from the cache to a client for whom the stored entry is not fresh; None
        where that takes waiting, or the origin. ``deep``: ``near`` is what the shared store has."""
        entry = near.entry
        assert entry is not None  # noqa: S101
        if self._store.is_uncacheable(ask.key.primary):
            return None
        calm = None
        if isinstance(decision, d.Fetch | d.Revalidate):
            # Mostly the origin is to be asked: then nothing need be looked up here.
            calm = self._calm(ask, entry, decision) if self._shared(ask) else None
            if calm is None:
                return None
        elif not isinstance(decision, d.ServeStale):
            return None
        found = near
        if not deep:
            deeper = self._store.lookup_now(ask.key.primary, ask.select)
            if deeper is None:
                return None
            ask.exchange.trace.l2_seconds += deeper.seconds
            if deeper.entry is not None:
                self._store.open(deeper.entry)
            found = self._better(near, deeper)
            if found is not near:
                decision = self._decide(ask, found)
                if isinstance(decision, d.Fetch | d.Revalidate):
                    return None  # newer, and not fresh either: rare
        if calm is not None and found is near:
            return calm
        entry = found.entry
        assert entry is not None  # noqa: S101
        ask.exchange.trace.stale_reason = None
        ask.exchange.trace.tier = found.tier or Tier.L1
        match decision:
            case d.Serve():
                return self._serve(ask, entry, decision, CacheWord.HIT)
            case d.ServeStale():
                return self._serve_stale(ask, entry, decision)
        return None

    def _calm(self, ask: Ask, entry: Entry, decision: d.Fetch | d.Revalidate) -> FromEntry | None:
        """A refresh failed a moment ago: treat the origin as failed where that lets us serve stale."""
        key = self._flight_key(ask, entry, decision.span)
        failure = self._cooldown.active(key, self._clock.monotonic())
        if failure is None:
            return None
        head, overrides = ask.exchange.head, ask.rule.overrides
        calm = conclude(head, entry.stored, d.Failed(failure), overrides, self._clock.now())
        if not isinstance(calm, d.ServeStaleOnError):
            return None
        return self._failures.stale(ask, entry, StaleReason.COOL_DOWN)

    def _serve(self, ask: Ask, entry: Entry, serve: d.Serve, word: CacheWord) -> FromEntry:
        trace = ask.exchange.trace
        trace.word = word
        trace.hit = True
        trace.saved_seconds = entry.fetch_seconds
        trace.ttl = entry.stored.freshness.fresh_until - self._clock.now()
        return FromEntry(entry, serve, ask.rule)

    def _serve_stale(self, ask: Ask, entry: Entry, decision: d.ServeStale) -> FromEntry:
        trace = ask.exchange.trace
        trace.stale_reason = decision.reason
        word = CacheWord.STALE
        if decision.refresh:
            word = CacheWord.UPDATING
            self.freshen(ask, entry, Purpose.REFRESH)
        return self._serve(ask, entry, decision.serve, word)

    def freshen(self, ask: Ask, entry: Entry, purpose: Purpose) -> Flight | None:
        """Have the entry refreshed in the background, once: None where that is under way, or has just
        failed."""
        if self.overload.drops():
            return None
        now = self._clock.monotonic()
        decision = validation(entry, ask.exchange.head.method, Forwarded.STALE)
        key = self._flight_key(ask, entry, decision.span)
        if self.flights.find(key, now, ask.rule.coalesce.lease) or self._cooldown.active(key, now):
            return None
        flight = self.flights.begin(key, self._store.epoch, now)
        flight.warming = purpose is Purpose.WARM
        head = ask.exchange.head
        background = Exchange(
            head=head
            if head.content_key
            else RequestHead("GET", head.scheme, head.host, head.target, head.headers),
            trace=Trace(
                request_id=f"{ask.exchange.trace.request_id}-refresh",
                started=now,
                rule=ask.rule.name,
                key=ask.key.primary,
            ),
            content=ask.exchange.content,
            client=ask.exchange.client,
            purpose=purpose,
        )
        again = Ask(background, ask.matched, ask.key, ask.select)
        self._background.spawn(self._fetch_in_background(again, decision, entry, flight), f"refresh {key}")
        return flight

    async def _fetch_in_background(
        self, ask: Ask, decision: d.Fetch | d.Revalidate, entry: Entry, flight: Flight
    ) -> None:
        answer = await self._lead(ask, decision, entry, flight)
        if isinstance(answer, FromStream):
            answer.body.close()

    # -- from the origin --------------------------------------------------------------------------------

    async def _forward_once(
        self, ask: Ask, decision: d.Fetch | d.Revalidate, entry: Entry | None
    ) -> Answer | None:
        """Lead a flight or follow one."""
        head, coalesce = ask.exchange.head, ask.rule.coalesce
        if not self._shared(ask):
            if self._sheds(ask):
                return self._failures.give_up_or_stale(ask, entry, overloaded())
            return await self._fetcher.fetch(ask, decision, entry, None)
        calm = None if entry is None else self._calm(ask, entry, decision)
        if calm is not None:
            return calm
        now = self._clock.monotonic()
        key = self._flight_key(ask, entry, decision.span)
        # A request that insists on a new answer must not get one that was under way before it.
        alone = insists(head, ask.rule.overrides)
        flight = None if alone else self.flights.find(key, now, coalesce.lease)
        if flight.followers >= coalesce.waiters if flight is not None else self._sheds(ask):
            return self._failures.give_up_or_stale(ask, entry, overloaded())
        if flight is not None:
            return await self._follow(ask, decision, entry, flight)
        flight = self.flights.begin(key, self._store.epoch, now)
        flight.warming = ask.exchange.purpose is Purpose.WARM
        if alone:
            return await self._fetcher.fetch(ask, decision, entry, flight)
        return await self._lead(ask, decision, entry, flight)

    @staticmethod
    def _shared(ask: Ask) -> bool:
        """Whether one fetch may be for several."""
        head = ask.exchange.head
        whole = (head.method == "GET" or head.content_key) and not wants_events(head.headers)
        return bool(whole) and ask.rule.coalesce.enabled

    def _sheds(self, ask: Ask) -> bool:
        """Whether a client's request that needs the origin is refused (overload.py)."""
        return ask.exchange.purpose is Purpose.CLIENT and not self.overload.admits()

    @staticmethod
    def _flight_key(ask: Ask, entry: Entry | None, span: str) -> str:
        names = ask.vary if ask.vary is not None else (entry.stored.vary if entry is not None else ())
        key = ask.key.primary + "\0" + variant_id(names, ask.select(names)) if names else ask.key.primary
        if ask.is_personal:
            # Who has no credentials does not wait for it, and is not sent to the origin with everybody else
            # when it turns out to be that.
            key += "\0authorized"
        # A part is for those who ask for it, and they do not wait for another one.
        return f"{key}\0{span}" if span else key

    async def _follow(
        self, ask: Ask, decision: d.Fetch | d.Revalidate, entry: Entry | None, flight: Flight
    ) -> Answer | None:
        """Wait for another request's fetch and take what it brings, where it is for this request too."""
        trace = ask.exchange.trace
        joined = self._store.epoch
        began = self._clock.monotonic()
        flight.followers += 1
        try:
            arrived = await self._clock.wait_for(flight.outcome, ask.rule.coalesce.wait)  # type: ignore[arg-type]
        finally:
            flight.followers -= 1
            trace.queue_seconds += self._clock.monotonic() - began
        if not arrived:
            return await self._fetcher.fetch(ask, decision, entry, None)
        trace.collapsed = True
        trace.forwarded = decision.reason
        outcome = flight.outcome.result()
        match outcome:
            case Failed():
                if flight.warming and ask.exchange.purpose is Purpose.CLIENT:
                    trace.collapsed = False
                    return None
                if outcome.is_doubtful and ask.doubts < DOUBTS - 1:
                    ask.doubts += 1
                    trace.collapsed = False
                    return None
                return self._failures.give_up_or_stale(ask, entry, outcome.error)
            case Stale():
                stale = outcome.entry
                if self._store.overtaken(stale) or not answers(ask.exchange.head, stale.stored):
                    trace.collapsed = False
                    return None
                return self._failures.give_up_or_stale(ask, stale, outcome.error)
            case Uncacheable():
                trace.collapsed = False
                return await self._alone(ask, d.Pass(PassReason.HIT_FOR_MISS, decision.reason))
            case Landed() | Streaming():
                new = outcome.entry if isinstance(outcome, Landed) else outcome.draft
                if joined > flight.epoch and self._store.overtaken(new):
                    # This request came after a purge that the flight did not see.
                    trace.collapsed = False
                    self.flights.end(flight)
                    return None
                return await self._share(ask, decision, entry, flight, new)
            case _:
                assert_never(outcome)

    async def _share(
        self,
        ask: Ask,
        decision: d.Fetch | d.Revalidate,
        entry: Entry | None,
        flight: Flight,
        new: Entry,
    ) -> Answer | None:
        trace, rule, now = ask.exchange.trace, ask.rule, self._clock.now()
        outcome = flight.outcome.result()
        if new.stored.selecting != ask.select(new.stored.vary):
            trace.collapsed = False
            ask.vary = new.stored.vary
            return None
        freshness = new.stored.freshness
        if not isinstance(decide(ask.exchange.head, new.stored, rule.overrides, now), d.Serve | d.ServeStale):
            # Were it stored, it would not do: it may satisfy the request that fetched it and no other
            # (RFC 9111 §5.2.2.4), or it has grown old while its body was on its way.
            trace.collapsed = False
            if freshness.is_fresh(freshness.received) and not freshness.is_fresh(now):
                self.flights.end(flight)
                return None
            return await self._fetcher.fetch(ask, decision, entry, None)
        trace.word = CacheWord.MISS if entry is None else CacheWord.EXPIRED
        if isinstance(outcome, Landed):
            trace.saved_seconds = new.fetch_seconds
            return FromEntry(new, deliver(ask.exchange.head, new.stored, rule.overrides, now), rule)
        assert isinstance(outcome, Streaming)  # noqa: S101
        if outcome.body.outgrown or outcome.body.error is not None:
            trace.collapsed = False
            return await self._fetcher.fetch(ask, decision, entry, None)
        return stream_of(ask, new, outcome, now)

    async def _alone(self, ask: Ask, decision: d.Pass) -> Answer:
        ask.exchange.trace.pass_reason = decision.reason
        return await self._fetcher.fetch(ask, d.Fetch(decision.forwarded), None, None, alone=True)
