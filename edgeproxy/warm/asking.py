"""One GET of the edge's own, through the engine like everybody's: same rules, keys, fences and flights.

Rules of this file:

- It is nobody's request: no client's address, no cookies, no credentials; its trace says "warm" and is given
  to the access log, not to the metrics of clients.
- What a rule sends past the cache is not asked for at all: nothing would come of it.
- An answer that goes into the cache is read to its end (the result is that of the whole body), any other is
  let go at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.engine.exchange import Exchange, FromEdge, FromEntry, FromStream
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.base import OriginError, Purpose
from edgeproxy.policy.decide import bypass
from edgeproxy.policy.vocabulary import NotStored, OriginFailure, Tier
from edgeproxy.warm.tally import Came

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock
    from edgeproxy.engine.exchange import Answer
    from edgeproxy.engine.handle import Engine
    from edgeproxy.warm.again import Again

FAILURES = frozenset({NotStored.SERVER_ERROR})
"""Reasons for not storing that say that the origin failed."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one URL. ``reason``: a named reason of Cache-Status, or a line; ``octets`` of the body."""

    url: str
    came: Came
    reason: str = ""
    status: int = 0
    octets: int = 0
    seconds: float = 0.0

    def told(self) -> dict[str, object]:
        """For JSON."""
        return {
            "url": self.url,
            "result": self.came.value,
            "reason": self.reason,
            "status": self.status,
            "bytes": self.octets,
            "seconds": round(self.seconds, 6),
        }


class Asker:
    """``log`` gets the trace of each request that was made."""

    def __init__(
        self, engine: Engine, clock: Clock, next_id: Callable[[], str], log: Callable[[Trace], None] | None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._next_id = next_id
        self._log = log

    async def ask(self, again: Again) -> Result:
        """Have it in the cache, if it may be."""
        head = again.head()
        matched = self._engine.matcher.match(head)
        passed = bypass(head, matched.rule.overrides)
        if passed is not None:
            return Result(again.url, Came.NOT_STORABLE, passed.reason.value)
        exchange = self._exchange(again)
        octets = 0
        try:
            answer = await self._engine.handle(exchange)
            octets = await self._take(exchange, answer, matched.rule.overrides.max_object)
        except OriginError as error:  # its body broke off
            exchange.trace.failure = error.failure
            exchange.trace.aborted = True
        return self._end(again, exchange.trace, octets)

    async def read(self, again: Again, largest: int) -> tuple[int, bytes]:
        """Status and body of what ``again`` gives, cached or not. Raises OriginError; ValueError for more
        than ``largest`` octets."""
        exchange = self._exchange(again)
        answer = await self._engine.handle(exchange)
        body = b""
        if isinstance(answer, FromEntry):
            body, status = answer.entry.body, answer.entry.stored.status
        elif isinstance(answer, FromEdge):
            status = answer.status
        else:
            status = answer.head.status
            try:
                while chunk := await answer.body.read():
                    body += chunk
                    if len(body) > largest:
                        raise ValueError(f"larger than {largest} octets")
            finally:
                answer.body.close()
        exchange.trace.status = status
        self._end(again, exchange.trace, len(body))
        return status, body

    def _exchange(self, again: Again) -> Exchange:
        trace = Trace(
            request_id=self._next_id(),
            started=self._clock.monotonic(),
            method="GET",
            host=again.host.lower(),
            target=again.target,
            purpose=Purpose.WARM.value,
        )
        return Exchange(head=again.head(), trace=trace, purpose=Purpose.WARM)

    @staticmethod
    async def _take(exchange: Exchange, answer: Answer, largest: int) -> int:
        """Read what goes into the cache; its octets."""
        trace = exchange.trace
        if isinstance(answer, FromEntry):
            trace.status = answer.entry.stored.status
            return len(answer.entry.body)
        if isinstance(answer, FromEdge):
            trace.status = answer.status
            trace.tier = Tier.EDGE
            return 0
        assert isinstance(answer, FromStream)  # noqa: S101
        octets = 0
        trace.status = answer.head.status
        try:
            while answer.shareable and (chunk := await answer.body.read()):
                octets += len(chunk)
                if octets > largest:
                    trace.stored, trace.not_stored = False, NotStored.TOO_LARGE
                    break
        finally:
            answer.body.close()
        return octets

    def _end(self, again: Again, trace: Trace, octets: int) -> Result:
        trace.seconds = self._clock.monotonic() - trace.started
        if self._log is not None and trace.failure is not OriginFailure.YIELDED:
            self._log(trace)
        return Result(again.url, came_of(trace), trace.reason, trace.status, octets, trace.seconds)


def came_of(trace: Trace) -> Came:
    """What a finished trace of the edge's own says."""
    if trace.failure is not None or trace.stale_reason is not None or trace.not_stored in FAILURES:
        return Came.FAILED
    if trace.hit:
        return Came.FRESH
    if trace.not_stored is not None or trace.pass_reason is not None or trace.unsatisfied is not None:
        return Came.NOT_STORABLE
    # Its own fetch, or a client's that was under way.
    return Came.STORED if trace.stored or trace.collapsed else Came.FAILED
