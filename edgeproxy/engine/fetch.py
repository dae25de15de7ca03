"""One fetch: what the origin is asked, and asked again. What comes of its reply is settle.py's.

Rules of this file:

- Nothing else asks the origin, but for the short way (prompt.py).
- A fetch ends in one answer; whatever happens on the way, those who wait for it are told (``abandon``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.engine.holding import held, may_be_held
from edgeproxy.engine.settle import Received, Settler
from edgeproxy.origin.base import OriginError
from edgeproxy.policy import decisions as d
from edgeproxy.policy.decide import conclude
from edgeproxy.policy.head import ResponseHead
from edgeproxy.policy.header_table import dated
from edgeproxy.policy.parts import fetch_missing, revalidate_part
from edgeproxy.policy.validate import conditions_for
from edgeproxy.policy.vocabulary import CacheWord, Forwarded, OriginFailure, Tier

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.engine.ask import Ask
    from edgeproxy.engine.coalesce import Flight
    from edgeproxy.engine.exchange import Answer, Exchange
    from edgeproxy.engine.failures import Failures
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.witness import Witness
    from edgeproxy.observe.trace import Trace
    from edgeproxy.origin.base import Forward, Origin, OriginReply
    from edgeproxy.policy.head import RawField
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry

    _Question = tuple[tuple[RawField, ...], d.Asked]


def _again(exchange: Exchange, rule: Rule, decision: d.Fetch | d.Revalidate) -> _Question:
    """What to ask when what came could not be used: for the client's own range, or for the whole."""
    if not decision.span:
        return (), d.Asked.WHOLE
    fetch = fetch_missing(exchange.head, decision.reason, rule.overrides)
    return fetch.conditions, fetch.asked


def validation(entry: Entry, method: str, reason: Forwarded) -> d.Fetch | d.Revalidate:
    """How to refresh ``entry``: with its validators, where it has any."""
    if entry.stored.part is not None:
        return revalidate_part(entry.stored, entry.stored.part, reason)
    conditions = conditions_for(entry.stored, method)
    return d.Revalidate(entry.stored, conditions, reason) if conditions else d.Fetch(reason, entry.stored)


class Fetcher:
    """Per worker."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        origin: Origin,
        forward: ForwardBuilder,
        settler: Settler,
        failures: Failures,
        witness: Witness,
    ) -> None:
        self._clock = clock
        self._store = store
        self._origin = origin
        self._forward = forward
        self._settler = settler
        self._failures = failures
        self._witness = witness

    async def fetch(
        self,
        ask: Ask,
        decision: d.Fetch | d.Revalidate,
        entry: Entry | None,
        flight: Flight | None,
        *,
        alone: bool = False,
        resent: bool = False,
        once: bool = False,
    ) -> Answer:
        """Ask the origin. ``entry`` is what there is to fall back on or to confirm; ``flight`` who waits;
        ``alone``: hit-for-miss, the client's own conditions and ranges stay; ``resent``: it went out once
        before, on a connection that was dead; ``once``: it was, and what came was of no
        use (a 304 nobody had asked for); ask only once more."""
        trace = ask.exchange.trace
        trace.forwarded = decision.reason
        trace.tier = Tier.ORIGIN
        partial = decision.reason is Forwarded.PARTIAL
        trace.word = CacheWord.MISS if entry is None or partial else CacheWord.EXPIRED
        if alone:
            trace.word = CacheWord.BYPASS
            # Nobody else waits for this answer, unless it turns out to be one for the cache.
            ask.exchange.leave_with_client()
        try:
            return await self._fetch(ask, decision, entry, flight, alone=alone, resent=resent, once=once)
        finally:
            self._failures.abandon(flight)

    async def _fetch(
        self,
        ask: Ask,
        decision: d.Fetch | d.Revalidate,
        entry: Entry | None,
        flight: Flight | None,
        *,
        alone: bool,
        resent: bool,
        once: bool,
    ) -> Answer:
        exchange, rule, trace = ask.exchange, ask.rule, ask.exchange.trace
        conditions, asked = decision.conditions, decision.asked
        # The client's own conditions and ranges go along where the answer is most likely for it alone:
        # nothing would be stored of the whole, and it would get all of it each time.
        own = alone or (entry is None and ask.is_personal)
        for _ in range(1 if once else 2):
            start = self._settler.start()
            # With them go its own Range and If-Range, which are what ``conditions`` are then.
            forward = self._forward.whole(exchange, rule, () if own else conditions, conditionals=own)
            if resent:
                forward = replace(forward, resent=True)
            try:
                reply = await self.ask_origin(trace, forward)
                if entry is not None and may_be_held(reply) and self._can_stand_in(ask, entry):
                    reply = await held(reply)
            except OriginError as error:
                return self._failures.on_failure(ask, entry, flight, error)
            answer = self._settler.settle(ask, entry, flight, start, reply, own=own, asked=asked)
            if answer is not None:
                return answer
            entry, resent = None, False
            conditions, asked = _again(exchange, rule, decision)
        broken = OriginError(OriginFailure.BAD_RESPONSE, "304 to a request without conditions")
        return self._failures.on_failure(ask, entry, flight, broken)

    def _can_stand_in(self, ask: Ask, entry: Entry) -> bool:
        """Whether ``entry`` would be sent if the answer that has begun broke off."""
        if self._store.overtaken(entry):
            return False
        broken = d.Failed(OriginFailure.TRUNCATED)
        conclusion = conclude(ask.exchange.head, entry.stored, broken, ask.rule.overrides, self._clock.now())
        return isinstance(conclusion, d.ServeStaleOnError)

    async def ask_origin(self, trace: Trace, forward: Forward) -> Received:
        """The one door to the origin."""
        began = self._clock.monotonic()
        try:
            reply = await self._origin.fetch(forward)
        except OriginError as error:
            self._witness.failed(error)
            raise
        finally:
            trace.origin_seconds += self._clock.monotonic() - began
        return self.received(trace, reply)

    def received(self, trace: Trace, reply: OriginReply) -> Received:
        """The reply, with a Date."""
        self._settler.note(trace, reply)
        head = reply.head
        headers = dated(head.headers, reply.response_time)
        if headers is not head.headers:
            head = ResponseHead(head.status, head.reason, headers)
        return Received(head, reply.body, reply.request_time, reply.response_time)
