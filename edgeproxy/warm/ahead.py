"""Refresh-ahead: an entry that is asked for often is refreshed shortly before it expires.

Rules of this file:

- It is a request that leads to it: an entry nobody asks for is never refreshed. The lane looks here about
  once a second for each answer that it gives, the ordinary way with each.
- Which: where the rule says so, the entry has been asked for at the rule's ``rate`` or more since it came,
  and that rate times what its fetch took (how many would have to wait for it) is the rule's ``waiting`` or
  more.
- When: in the last part of its life (``within``), at a moment that is drawn once for each entry and
  process, so that what was stored together is not refreshed together, nor by all workers at once. A copy
  that another worker or node has refreshed by then is taken over.
- Once in an entry's life; through the flights, so one fetch per key whoever asks; never while the origin
  fails, the key cools down or the origin's budget says no. What comes of a failure is nothing: the entry
  stays as it is and expires when it would have.
- It is asked for as nobody (again.py): what needs cookies or credentials to be asked for is left alone.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from edgeproxy.engine.ask import Ask
from edgeproxy.engine.coalesce import Failed, Landed, Streaming, Uncacheable
from edgeproxy.engine.exchange import Exchange
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.base import Purpose
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.warm import tally
from edgeproxy.warm.wanted import again_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from edgeproxy.clock import Clock
    from edgeproxy.engine.handle import Engine
    from edgeproxy.rules.match import Matcher
    from edgeproxy.rules.model import RefreshAhead
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry
    from edgeproxy.warm.tally import WarmTally
    from edgeproxy.warm.warmer import MayBegin

MOST_AT_ONCE = 16
AGAIN_AFTER = 1.0
"""Seconds after which it is tried again where there was no room for it."""
NEVER = float("inf")


class RefreshingAhead:
    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        store: Store,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        may_begin: MayBegin,
        next_id: Callable[[], str],
        tally: WarmTally,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._store = store
        self._spawn = spawn
        self._may_begin = may_begin
        self._next_id = next_id
        self._tally = tally
        self._matcher: Matcher | None = None
        self._policies: dict[str, RefreshAhead] = {}
        self._random = random.Random()  # noqa: S311 - when it happens is no secret
        self.under_way = 0

    def asked(self, entry: Entry) -> None:
        """The entry, fresh, has just been answered from."""
        matcher = self._engine.matcher
        if matcher is not self._matcher:
            self._matcher = matcher
            self._policies = {r.name: r.refresh_ahead for r in matcher.ruleset.rules if r.refresh_ahead}
        if not self._policies:
            return
        policy = self._policies.get(entry.rule)
        now = self._clock.now()
        if policy is None or now < entry.ahead:
            return
        left = entry.fresh_until - now
        life = entry.fresh_until - entry.stored.freshness.received
        window = policy.window(life)
        if not 0 < left <= window:
            return
        if not entry.ahead:
            # Not in the first instants of the window for all, and early enough for the fetch to be back.
            entry.ahead = entry.fresh_until - window * self._random.uniform(0.4, 1.0)
            if now < entry.ahead:
                return
        lived = max(1.0, now - entry.stored.freshness.received)
        rate = entry.hits / lived
        if rate < policy.rate or rate * entry.fetch_seconds < policy.waiting:
            return
        again = again_for(entry, matcher)
        if again is None:
            entry.ahead = NEVER
            return
        if self.under_way >= MOST_AT_ONCE or self._engine.origin_failing or not self._may_begin(Purpose.WARM):
            entry.ahead = now + AGAIN_AFTER
            self._tally.ahead[tally.Ahead.HELD_BACK] += 1
            return
        entry.ahead = NEVER
        head = again.head()
        trace = Trace(request_id=self._next_id(), started=self._clock.monotonic(), rule=entry.rule)
        exchange = Exchange(head=head, trace=trace, purpose=Purpose.WARM)
        self.under_way += 1
        ask = Ask.of(exchange, matcher.match(head))
        self._spawn(self._refresh(ask, entry), f"ahead {entry.primary}")

    async def _refresh(self, ask: Ask, entry: Entry) -> None:
        try:
            self._tally.ahead[await self._outcome(ask, entry)] += 1
        finally:
            self.under_way -= 1

    async def _outcome(self, ask: Ask, entry: Entry) -> tally.Ahead:
        deeper = (await self._store.lookup(ask.key.primary, ask.select)).entry
        if deeper is not None and deeper.order > entry.order and deeper.fresh_until > entry.fresh_until:
            return tally.Ahead.ADOPTED
        if self._store.overtaken(entry):
            return tally.Ahead.HELD_BACK  # purged meanwhile: there is nothing to refresh
        flight = self._engine.freshen(ask, entry, Purpose.WARM)
        if flight is None:
            return tally.Ahead.HELD_BACK  # a fetch is under way, or one has just failed
        match await asyncio.shield(flight.outcome):
            case Landed() | Streaming():
                return tally.Ahead.REFRESHED
            case Uncacheable():
                return tally.Ahead.UNCACHEABLE
            case Failed(error) if error.failure is OriginFailure.YIELDED:
                entry.ahead = self._clock.now() + AGAIN_AFTER
                return tally.Ahead.HELD_BACK
            case _:
                return tally.Ahead.FAILED
