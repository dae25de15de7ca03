"""One origin of a pool: its client, what is known of it, and whether it may be asked.

Rules of this file:

- What a request costs here is a few additions. States change synchronously, on an outcome; who is told of a
  change (the pool, by ``changed``) is told after it.
- Only the origin's own failures count: not what a client did, not our own queue (LOCAL).
- Times are clock.now(), seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.breaker import Breaker, State
from edgeproxy.origin.budget import Budget
from edgeproxy.origin.ejection import Ejector
from edgeproxy.origin.window import Window
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.rules import pools as policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock
    from edgeproxy.origin.base import OriginError, OriginReply
    from edgeproxy.origin.client import OriginClient
    from edgeproxy.rules.pools import Link, PoolSpec

CONNECT = frozenset({
    OriginFailure.DNS, OriginFailure.REFUSED, OriginFailure.CONNECT_TIMEOUT, OriginFailure.TLS,
    OriginFailure.TLS_TIMEOUT,
})  # fmt: skip
"""Nothing was sent."""
TIMEOUTS = frozenset({
    OriginFailure.CONNECT_TIMEOUT, OriginFailure.TLS_TIMEOUT, OriginFailure.FIRST_BYTE_TIMEOUT,
    OriginFailure.READ_TIMEOUT, OriginFailure.WHOLE_TIMEOUT,
})  # fmt: skip
LOCAL = frozenset({
    OriginFailure.REQUEST_BODY, OriginFailure.ABANDONED, OriginFailure.OVERLOADED,
    OriginFailure.BREAKER_OPEN, OriginFailure.YIELDED,
})  # fmt: skip
"""Failures that say nothing of the origin."""
ERRORS = frozenset({500, 502, 503, 504})
"""Statuses that count as failures: the origin, not the request, is at fault, and may be better elsewhere."""

_FAST, _USUAL = 0.1, 0.01
"""How much one answer moves the latency, and what it usually is."""
_SLOWER, _BY = 2.0, 0.005
"""Slow is so many times the usual, and so many seconds more."""


class Member:
    """``latency``: moving average of the time to the head of an answer, in seconds; 0 before the first."""

    __slots__ = (
        "_blemished", "_clock", "answers", "breaker", "budget", "changed", "client", "ejector", "errors",
        "failures", "healthy", "latency", "link", "may_go", "name", "pool", "requests", "retries", "spare",
        "turn", "unhealthy_for", "usual", "weight", "window",
    )  # fmt: skip

    def __init__(
        self, pool: str, link: Link, client: OriginClient, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self.pool = pool
        self.link = link
        self.name = link.url
        self.client = client
        self._clock = clock
        self.weight = 1
        self.turn = 0
        self.window = Window()
        self.healthy = True
        self.unhealthy_for = ""
        self.latency = self.usual = 0.0
        self.answers = 0
        """Since it came back."""
        self.requests = self.failures = self.errors = self.retries = 0
        """Answers and failures; failures; answers that were errors (ERRORS); how many repeated another."""
        self.spare: Callable[[Member, float], bool] = lambda _member, _now: False
        """Whether somebody else could answer now: then its errors count."""
        self.may_go: Callable[[Member, float], bool] = lambda _member, _now: False
        """Whether it may be ejected now."""
        self.changed: Callable[[Member, float], object] = lambda _member, _now: None
        self._blemished = False
        self.breaker = Breaker(policy.Breaker(), self.window, chance)
        self.ejector = Ejector(policy.Ejection())
        self.budget = Budget(policy.Retries(), self.window)
        client.on_body_failure = self._broke_off
        client.may_resend = self.may_resend

    def adopt(self, spec: PoolSpec, weight: int) -> None:
        """The policies in force; what is known of the origin stays."""
        self.weight = weight
        self.breaker.policy = spec.breaker
        self.ejector.policy = spec.ejection
        self.budget.policy = spec.retries
        if not spec.breaker.enabled:
            self.breaker.close(0.0)
        if not spec.ejection.enabled:
            self.ejector.until = 0.0
            self.ejector.probation = False
        if spec.health is None:
            self.healthy = True

    @property
    def in_flight(self) -> int:
        return self.client.in_flight + self.client.queued

    @property
    def slow(self) -> bool:
        """Slower than it usually is."""
        return self.latency > _SLOWER * self.usual and self.latency - self.usual > _BY

    # -- may it be asked --------------------------------------------------------------------------------

    @property
    def flawless(self) -> bool:
        ejector = self.ejector
        return (
            self.breaker.state is State.CLOSED
            and not ejector.until
            and not ejector.probation
            and self.healthy
        )

    def usable(self, now: float) -> bool:
        return self.healthy and not self.ejector.out(now) and self.breaker.ready(now)

    def state(self, now: float) -> tuple[str, str]:
        """A word and why."""
        breaker = self.breaker
        if breaker.state is not State.CLOSED:
            return f"breaker {breaker.state.value}", breaker.reason
        if not self.healthy:
            return "unhealthy", self.unhealthy_for
        if self.ejector.out(now):
            return "ejected", self.ejector.reason
        return "usable", ""

    # -- outcomes ---------------------------------------------------------------------------------------

    def answered(self, reply: OriginReply) -> None:
        """A good answer, while nothing is the matter."""
        now = reply.response_time
        self.requests += 1
        window = self.window
        if now >= window.end:
            window.roll(now)
        window.current += 1
        if self._blemished:
            self.breaker.answered(now)
            self._blemished = self.ejector.answered()
        seconds = now - reply.request_time
        answers = self.answers = self.answers + 1
        if answers < 10:
            # The first ones weigh more: there is nothing yet that they could be measured by.
            self.latency += (seconds - self.latency) / answers
            self.usual = self.latency
        else:
            self.latency += (seconds - self.latency) * _FAST
            self.usual += (seconds - self.usual) * _USUAL

    def tried_well(self, now: float) -> None:
        """The trial of an open breaker was answered."""
        self.breaker.answered(now, trial=True)
        self._blemished = False
        self.answers = 0
        self.changed(self, now)

    def erred(self, now: float, status: int, *, trial: bool) -> None:
        """An answer that is an error: held against it only where there is somebody better."""
        self.requests += 1
        self.errors += 1
        if self.spare(self, now):
            self._count(now, f"status {status}", trial=trial)
            return
        self.window.add(now, answered=1, spared=1)
        self.breaker.answered(now, trial=trial)
        if trial:
            self.changed(self, now)

    def failed(self, now: float, error: OriginError, *, trial: bool) -> None:
        """No answer."""
        if error.failure in LOCAL:
            self.left(trial=trial)
            return
        self.requests += 1
        self.failures += 1
        self._count(now, str(error), connect=error.failure in CONNECT, trial=trial)

    def left(self, *, trial: bool) -> None:
        """It ended and says nothing of the origin."""
        if trial:
            self.breaker.abandoned()

    def _count(
        self, now: float, why: str, *, connect: bool = False, trial: bool = False, broken: bool = False
    ) -> None:
        self._blemished = True
        self.window.add(now, failed=1)
        alone = trial and not self.spare(self, now)
        opened = self.breaker.failed(now, why, connect=connect, trial=trial, alone=alone)
        if opened:
            self.changed(self, now)
        if connect and self.breaker.policy.enabled:
            return  # the breaker's, which finds out sooner when one can connect again
        ejector = self.ejector
        out = ejector.broke_off() if broken else ejector.failed()
        if out and not ejector.out(now) and self.may_go(self, now):
            self.eject(now, f"{ejector.row} failures in a row: {why}")

    def eject(self, now: float, why: str) -> None:
        self.ejector.eject(now, why)
        self.answers = 0  # when it is back, it is measured anew
        self.changed(self, now)

    def set_health(self, now: float, *, healthy: bool, why: str = "") -> None:
        self.healthy = healthy
        self.unhealthy_for = why
        self.changed(self, now)

    def now(self) -> float:
        return self._clock.now()

    # -- hooks of the client ----------------------------------------------------------------------------

    def _broke_off(self, error: OriginError) -> None:
        if error.failure not in LOCAL:
            self.failures += 1
            self._count(self._clock.now(), str(error), broken=True)

    def may_resend(self) -> bool:
        """Whether the budget has room for one that is sent again; it is charged."""
        return self.budget.spend(self._clock.now())
