"""The origins of a pool that stand for one another: who of them is usable, and who is next.

Rules of this file:

- While nothing is the matter with any of them (``impaired`` False) nobody is looked at but by the balancer.
- An origin is left out by its breaker, by an ejection or by its health checks. Ejections keep to the policy's
  share of the group and leave one usable; so an error of the last one is never held against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.balance import BALANCERS
from edgeproxy.origin.breaker import State
from edgeproxy.origin.ejection import PROVEN, may_eject, too_slow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from edgeproxy.origin.member import Member
    from edgeproxy.rules.pools import PoolSpec


class Group:
    def __init__(self, spec: PoolSpec, members: Sequence[Member], chance: Callable[[], float]) -> None:
        self.spec = spec
        self.members = tuple(members)
        self._chance = chance
        self._balance = BALANCERS[spec.balance]
        self.impaired = True

    def usable(self, now: float) -> list[Member]:
        """Those that may be asked now."""
        found: list[Member] = []
        impaired = False
        for member in self.members:
            ejector = member.ejector
            if ejector.until and now >= ejector.until:
                ejector.until = 0.0
                member.answers = 0  # what was still under way is no measure
                member.changed(member, now)
            if member.flawless:
                found.append(member)
                continue
            impaired = True
            if member.usable(now) and not (ejector.probation and member.in_flight):
                found.append(member)
        self.impaired = impaired
        return found

    def pick(self, now: float, key: str, without: Collection[Member] = ()) -> Member | None:
        """The next one to ask, if any is usable."""
        members: Sequence[Member] = self.usable(now) if self.impaired else self.members
        if without:
            members = [m for m in members if m not in without]
        if len(members) > 1:
            return self._balance(members, key, self._chance)
        return members[0] if members else None

    def next(self) -> Member:
        """Of all: only while none is impaired."""
        return self._balance(self.members, "", self._chance)

    def despite_health(self, now: float) -> Member | None:
        """Of those that only a health check or an ejection keeps out: a check that is wrong must not take a
        site down."""
        members = [m for m in self.members if m.breaker.ready(now)]
        return self._balance(members, "", self._chance) if members else None

    def usable_besides(self, member: Member, now: float) -> bool:
        return any(other is not member and other.usable(now) for other in self.members)

    def may_eject(self, member: Member, now: float) -> bool:
        out = sum(1 for m in self.members if m.ejector.out(now))
        others = sum(1 for m in self.members if m is not member and m.usable(now))
        return may_eject(self.spec.ejection, len(self.members), out, others)

    def look_for_slow(self, member: Member, now: float) -> None:
        """After an answer: eject the one that is far slower than the others."""
        probation = member.ejector.probation
        if len(self.members) < 2 or (member.answers % 4 and not probation) or member.ejector.out(now):
            return
        others = [
            m.latency
            for m in self.members
            if m is not member and m.answers and m.breaker.state is State.CLOSED and not m.ejector.out(now)
        ]
        slow = too_slow(self.spec.ejection, member.latency, member.answers, others, probation=probation)
        if slow and member.may_go(member, now):
            mine, usual = member.latency * 1000, min(others) * 1000
            member.eject(now, f"{mine:.0f} ms to an answer, the others {usual:.0f}")
        elif probation and member.answers >= PROVEN:
            member.ejector.probation = False
            member.changed(member, now)
