"""When the origin fails: what the client gets, and what becomes of those who wait for the same.

Rules of this file:

- A failure never replaces a usable copy: within its window the stale entry is served, else an error that
  names the failure.
- A flight ends exactly once, and nobody can join it after its end.
- After a failure the origin is left alone for a while for that key (cooldown.py), until it answers again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.engine.coalesce import Failed, Stale
from edgeproxy.engine.exchange import FromEdge, FromEntry
from edgeproxy.origin.base import OriginError
from edgeproxy.policy import decisions as d
from edgeproxy.policy.decide import conclude, deliver
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure, StaleReason, Tier

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.engine.ask import Ask
    from edgeproxy.engine.coalesce import Flight, Flights, Landed, Streaming, Uncacheable
    from edgeproxy.engine.cooldown import CoolDown
    from edgeproxy.engine.exchange import Answer
    from edgeproxy.observe.trace import Trace
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry


def failure(trace: Trace, error: OriginError) -> FromEdge:
    """What the client is told of ``error``."""
    trace.failure = error.failure
    trace.tier = Tier.EDGE
    fields = (("Retry-After", str(error.retry_after)),) if error.status == 503 else ()
    title = "The origin did not answer"
    if error.failure is OriginFailure.SHED:
        title = "Too much to do"
    if error.failure is OriginFailure.REQUEST_BODY:
        title = "The request's body is too large" if error.status == 413 else "The request's body broke off"
    return FromEdge(error.status, title, error.failure.value, fields)


class Failures:
    """Per worker."""

    def __init__(self, *, clock: Clock, store: Store, flights: Flights, cooldown: CoolDown) -> None:
        self._clock = clock
        self._store = store
        self._flights = flights
        self._cooldown = cooldown

    def on_failure(self, ask: Ask, entry: Entry | None, flight: Flight | None, error: OriginError) -> Answer:
        """The end of a fetch that failed. ``entry``: what there is to fall back on."""
        self.cool(ask, flight, error.failure)
        answer = self.give_up_or_stale(ask, entry, error)
        if isinstance(answer, FromEntry) and entry is not None:
            self.resolve(flight, Stale(entry, error))
        else:
            self.resolve(flight, Failed(error))
        return answer

    def give_up_or_stale(self, ask: Ask, entry: Entry | None, error: OriginError) -> Answer:
        """The stale entry where its window allows, else an error that names the failure."""
        ask.exchange.trace.failure = error.failure
        if entry is not None and not self._store.overtaken(entry):
            conclusion = conclude(
                ask.exchange.head,
                entry.stored,
                d.Failed(error.failure),
                ask.rule.overrides,
                self._clock.now(),
            )
            if isinstance(conclusion, d.ServeStaleOnError):
                return self.stale(ask, entry, conclusion.reason)
            if isinstance(conclusion, d.GiveUp) and conclusion.status is not None:
                error = OriginError(error.failure, error.detail, status=conclusion.status)
        return failure(ask.exchange.trace, error)

    def stale(self, ask: Ask, entry: Entry, reason: StaleReason) -> FromEntry:
        """``entry``, though it is not fresh."""
        trace = ask.exchange.trace
        trace.stale_reason = reason
        trace.word = CacheWord.STALE
        trace.tier = Tier.L1
        trace.ttl = entry.stored.freshness.fresh_until - self._clock.now()
        serve = deliver(ask.exchange.head, entry.stored, ask.rule.overrides, self._clock.now())
        return FromEntry(entry, serve, ask.rule)

    def abandon(self, flight: Flight | None) -> None:
        """Cancelled or broken without an outcome: those who wait must not wait for ever."""
        if flight is not None and not flight.outcome.done():
            self.resolve(flight, Failed(OriginError(OriginFailure.ABANDONED, status=502)))

    def resolve(
        self,
        flight: Flight | None,
        outcome: Landed | Streaming | Stale | Uncacheable | Failed,
        *,
        joinable: bool = False,
    ) -> None:
        """Tell those who wait. ``joinable``: others may still come to it."""
        if flight is None:
            return
        self._flights.resolve(flight, outcome)
        if not joinable:
            self._flights.end(flight)

    def cool(self, ask: Ask, flight: Flight | None, failure: OriginFailure) -> None:
        """It failed: for a while nobody tries again who has something stale."""
        key = flight.key if flight else ask.key.primary
        self._cooldown.failed(key, self._clock.monotonic(), failure)

    def cooldown_over(self, ask: Ask, flight: Flight | None) -> None:
        """It answered."""
        self._cooldown.succeeded(flight.key if flight else ask.key.primary)
