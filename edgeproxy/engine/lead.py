"""To lead a flight where other processes fetch the same into the same store: one of them asks the origin.

Rules of this file:

- Without leases, or without one to be had, the origin is asked, as if there were no others.
- What another process's fetch brought is found in the shared store. Where nothing usable is found there, the
  lease is ours by then, and we ask.
- A failure is shared with those who waited for it; "uncacheable" lets all go at once.
- Whatever happens, the flight is resolved: followers within this process wait for it, not for the lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.cluster.base import LOOK, End, Ended
from edgeproxy.engine.coalesce import Landed, Uncacheable
from edgeproxy.engine.exchange import FromEntry
from edgeproxy.origin.base import OriginError
from edgeproxy.policy import decisions as d
from edgeproxy.policy.decide import decide
from edgeproxy.policy.vocabulary import CacheWord, LookupMiss, OriginFailure, PassReason

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.cluster.base import Leases
    from edgeproxy.engine.ask import Ask
    from edgeproxy.engine.coalesce import Flight, Flights
    from edgeproxy.engine.exchange import Answer
    from edgeproxy.engine.failures import Failures
    from edgeproxy.engine.fetch import Fetcher
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry

_SILENT = frozenset({LookupMiss.TIMEOUT, LookupMiss.ERROR, LookupMiss.BREAKER_OPEN})
"""The shared store does not answer, so there is nothing to wait for in it."""


class Leader:
    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        fetcher: Fetcher,
        failures: Failures,
        flights: Flights,
        leases: Leases | None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._fetcher = fetcher
        self._failures = failures
        self._flights = flights
        self._leases = leases

    async def lead(
        self, ask: Ask, decision: d.Fetch | d.Revalidate, entry: Entry | None, flight: Flight
    ) -> Answer:
        """What the flight brings: from the origin, or from another process's fetch."""
        leases, trace = self._leases, ask.exchange.trace
        if leases is None or trace.lookup_miss in _SILENT:
            return await self._fetcher.fetch(ask, decision, entry, flight)
        try:
            began = self._clock.monotonic()
            got = await leases.take(flight.key, trace.started, ask.rule.coalesce.wait)
            trace.queue_seconds += self._clock.monotonic() - began
            if isinstance(got, Ended):
                return await self._without(ask, decision, entry, flight, got)
            if got is not None:
                flight.lease = got
                if got.again and (answer := await self._brought(ask, decision, entry, flight)) is not None:
                    return answer
            return await self._fetcher.fetch(ask, decision, entry, flight)
        finally:
            self._failures.abandon(flight)

    async def _brought(
        self, ask: Ask, decision: d.Fetch | d.Revalidate, entry: Entry | None, flight: Flight
    ) -> Answer | None:
        """What the other's fetch has stored, if it is for this request."""
        trace = ask.exchange.trace
        found = await self._store.lookup(ask.key.primary, ask.select)
        trace.l2_seconds += found.seconds
        if found.entry is None:
            if found.miss in _SILENT and flight.lease is not None:
                flight.lease.end(LOOK)  # nobody will find there what we store
            return None
        if entry is not None and found.entry.order <= entry.order:
            return None  # what is to be refreshed, still: the other's fetch was the one that brought it
        serve = decide(ask.exchange.head, found.entry.stored, ask.rule.overrides, self._clock.now())
        if not isinstance(serve, d.Serve):
            return None
        trace.collapsed = True
        trace.forwarded = decision.reason
        trace.word = CacheWord.MISS if entry is None else CacheWord.EXPIRED
        trace.saved_seconds = found.entry.fetch_seconds
        trace.ttl = found.entry.stored.freshness.fresh_until - self._clock.now()
        if found.tier is not None:
            trace.tier = found.tier
        self._flights.resolve(flight, Landed(found.entry))
        self._flights.end(flight)
        return FromEntry(found.entry, serve, ask.rule)

    async def _without(
        self, ask: Ask, decision: d.Fetch | d.Revalidate, entry: Entry | None, flight: Flight, ended: Ended
    ) -> Answer:
        """The other's fetch brought nothing that could be shared."""
        trace = ask.exchange.trace
        if ended.end is End.FAILED:
            trace.collapsed = True
            trace.forwarded = decision.reason
            failure = ended.failure or OriginFailure.SERVER_ERROR
            error = OriginError(failure, "in another process", ended.status or None)
            return self._failures.on_failure(ask, entry, flight, error)
        self._flights.resolve(flight, Uncacheable(None))
        self._flights.end(flight)
        trace.pass_reason = PassReason.HIT_FOR_MISS
        return await self._fetcher.fetch(ask, d.Fetch(decision.reason), None, None, alone=True)
