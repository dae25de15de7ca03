"""Active health checks: an origin is asked now and then, and thresholds make of the answers a state.

Rules of this file:

- A check has a connection of its own, so that it works when all places at the origin are taken.
- Intervals have jitter: workers and nodes do not all ask in the same moment.
- A good check of an origin whose breaker is open makes the next request its trial, at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.base import Forward, OriginError
from edgeproxy.origin.deadline import by
from edgeproxy.policy.head import Headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.clock import Clock
    from edgeproxy.origin.client import OriginClient
    from edgeproxy.origin.member import Member
    from edgeproxy.rules.pools import Health as Policy


class Vitals:
    """Pure: counts checks in a row. An origin counts as healthy until it is shown not to be."""

    def __init__(self, policy: Policy, *, healthy: bool = True) -> None:
        self.policy = policy
        self.healthy = healthy
        self._row = 0

    def checked(self, *, good: bool) -> bool:
        """One more result. True: the state has changed with it."""
        if good is self.healthy:
            self._row = 0
            return False
        self._row += 1
        if self._row < (self.policy.up if good else self.policy.down):
            return False
        self._row = 0
        self.healthy = good
        return True


async def check_forever(
    member: Member, policy: Policy, client: OriginClient, clock: Clock, chance: Callable[[], float]
) -> None:
    """Until cancelled."""
    vitals = Vitals(policy, healthy=member.healthy)
    host = policy.host or client.authority
    forward = Forward(
        "GET",
        policy.path,
        Headers.of([("Host", host), ("User-Agent", "edgeproxy-health"), ("Accept", "*/*")]),
    )
    while True:
        why = await _check(client, forward, clock, policy.timeout)
        now = clock.now()
        if vitals.checked(good=not why):
            member.set_health(now, healthy=not why, why=why)
        if not why and vitals.healthy:
            member.breaker.hurry(now)
        await clock.sleep(policy.interval * (0.9 + 0.2 * chance()))


async def _check(client: OriginClient, forward: Forward, clock: Clock, within: float) -> str:
    """What is wrong, "" when it is well."""
    try:
        reply = await by(clock.now() + within, clock, client.fetch(forward))
    except OriginError as error:
        return f"health check: {error}"
    reply.body.take_all()
    reply.body.close()
    status = reply.head.status
    return f"health check: status {status}" if status >= 400 else ""
