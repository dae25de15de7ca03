"""The pools of origins, as one ``Origin``: who is asked, what an outcome means, whether it is tried again.

Rules of this file:

- The common case, a pool of one origin that nothing is the matter with, is the client's own ``fetch`` and a
  few additions. All else goes through ``_fetch``, which holds one request from its first attempt to its
  outcome.
- Every attempt is settled exactly once (``_settle``), whatever ends it: what it took of a budget or
  a trial is given back there and nowhere else.
- Where nothing is usable the answer is at once: OriginError(BREAKER_OPEN), with when to come back.
- Rules are reloaded whole: everything new is made before anything old is let go (``configure``).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError, Purpose
from edgeproxy.origin.breaker import State
from edgeproxy.origin.canary import Canary
from edgeproxy.origin.deadline import TimedBody, TimedReply, by
from edgeproxy.origin.group import Group
from edgeproxy.origin.keeper import Keeper
from edgeproxy.origin.listening import Listening, Unsettled
from edgeproxy.origin.neighbours import Neighbours
from edgeproxy.origin.prompted import Interim
from edgeproxy.origin.retry import elsewhere_only, is_error, may_repeat, pause
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.rules.pools import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from edgeproxy.clock import Clock
    from edgeproxy.origin.base import Forward, OriginReply, Prompted, PromptListener, Route
    from edgeproxy.origin.board import Board
    from edgeproxy.origin.descriptors import Descriptors
    from edgeproxy.origin.member import Member
    from edgeproxy.origin.turns import Turns
    from edgeproxy.origin.upload import Spawn
    from edgeproxy.rules.pools import PoolSpec

_CLIENT = Purpose.CLIENT  # (a member of an enum takes a while to find)
_ASK_AGAIN = 0.25
"""Seconds until an origin that another worker is trying is looked at again."""


class OriginPool:
    """One pool: its stable origins, those being tried out, and who answers where none is usable."""

    def __init__(
        self, spec: PoolSpec, stable: Group, trial: Group | None, canary: Canary | None, fallback: str | None
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.stable = stable
        self.trial = trial
        self.canary = canary
        self.fallback = fallback
        self.plain = trial is None and spec.balance != "key" and spec.timeouts.whole is None
        self.solo: Member | None = None
        """The pool's one origin, while nothing is the matter with it."""

    @property
    def members(self) -> Iterator[Member]:
        yield from self.stable.members
        if self.trial is not None:
            yield from self.trial.members

    def review(self, now: float) -> None:
        """Something has changed: may the short way be taken?"""
        self.stable.usable(now)
        if self.trial is not None:
            self.trial.usable(now)
        only = self.stable.members[0]
        simple = len(self.stable.members) == 1 and self.trial is None and self.spec.timeouts.whole is None
        self.solo = only if simple and not self.stable.impaired else None

    def group_of(self, member: Member) -> Group:
        return self.stable if member in self.stable.members or self.trial is None else self.trial


@dataclass(slots=True)
class Attempt:
    """One request to one origin. ``extra``: drawn on the origin's budget."""

    pool: OriginPool
    member: Member
    trial: bool
    extra: bool


class Pools:
    """Implements ``Origin``. Times are clock.now()."""

    def __init__(
        self,
        specs: tuple[PoolSpec, ...],
        *,
        clock: Clock,
        spawn: Spawn,
        turns: Turns,
        chance: Callable[[], float],
        board: Board | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._turns = turns
        self._neighbours = Neighbours(board, clock)
        self.keeper = Keeper(clock, spawn, chance, turns, self._neighbours, descriptors)
        self._pools: dict[str, OriginPool] = {}
        self._awaited: dict[Member, asyncio.Future[object]] = {}
        """Members whose trial somebody waits for."""
        self.configure(specs)
        self._following: asyncio.Task[None] | None = None
        if board is not None:
            self._following = spawn(self._neighbours.follow(lambda: self._members), "what other workers know")

    # -- the rules --------------------------------------------------------------------------------------

    def configure(self, specs: tuple[PoolSpec, ...]) -> None:
        """Take over these pools, "default" among them. Origins whose link is unchanged stay as they are.
        Raises ValueError, and then nothing has changed."""
        made = self.keeper.make(specs)
        now = self._clock.now()
        pools: dict[str, OriginPool] = {}
        for spec in specs:
            stable = [made[spec.name, spec.link(o)] for o in spec.origins]
            trial: Group | None = None
            canary: Canary | None = None
            if spec.canary is not None:
                before = self._pools.get(spec.name)
                canary = Canary(spec.canary, spec.name)
                if before is not None and before.canary is not None and before.spec.canary == spec.canary:
                    canary = before.canary
                trial = Group(
                    spec, [made[spec.name, spec.link(o)] for o in spec.canary.origins], self._chance
                )
            pools[spec.name] = OriginPool(
                spec, Group(spec, stable, self._chance), trial, canary, spec.fallback
            )
        for spec in specs:
            pool = pools[spec.name]
            for origin in (*spec.origins, *(spec.canary.origins if spec.canary is not None else ())):
                member = made[spec.name, spec.link(origin)]
                member.adopt(spec, origin.weight)
                member.spare = self._spare(pools, pool)
                member.may_go = self._may_go(pool)
                member.changed = self._changed(pool)
                self._neighbours.join(member)
        self._pools = pools
        self._neighbours.forget()
        for pool in pools.values():
            pool.review(now)
        self.keeper.keep(specs, made)

    def _spare(self, pools: dict[str, OriginPool], pool: OriginPool) -> Callable[[Member, float], bool]:
        def spare(member: Member, now: float) -> bool:
            """Whether somebody else could answer: then its errors count, and it may be ejected."""
            group = pool.group_of(member)
            if group is pool.trial:
                return any(m.usable(now) for m in pool.stable.members)
            if group.usable_besides(member, now):
                return True
            behind = pools.get(pool.fallback) if pool.fallback is not None else None
            return behind is not None and any(m.usable(now) for m in behind.stable.members)

        return spare

    @staticmethod
    def _may_go(pool: OriginPool) -> Callable[[Member, float], bool]:
        def may_go(member: Member, now: float) -> bool:
            # A canary is judged by all that it answers, and ended for good.
            group = pool.group_of(member)
            return group is pool.stable and group.may_eject(member, now)

        return may_go

    def _changed(self, pool: OriginPool) -> Callable[[Member, float], None]:
        def changed(member: Member, now: float) -> None:
            pool.review(now)
            self._neighbours.changed(member)
            self.keeper.tell(member, now)
            if member.breaker.state is State.OPEN or not member.healthy:
                # Whoever waits for a place there would wait in vain: all are told at once.
                member.client.refuse_waiting(member.state(now)[1])
            if member.breaker.state is State.OPEN:
                self.keeper.watch(member)

        return changed

    # -- one request ------------------------------------------------------------------------------------

    async def fetch(self, forward: Forward) -> OriginReply:
        """See ``Origin.fetch``. Raises OriginError; ValueError where the head could not be sent safely."""
        pool = self._pools.get(forward.pool) or self._pools[DEFAULT]
        member = pool.solo
        if member is None or forward.purpose is not _CLIENT:
            return await self._fetch(pool, forward)
        try:
            reply = await member.client.fetch(forward)
        except OriginError as error:
            return await self._fetch(pool, forward, Attempt(pool, member, trial=False, extra=False), error)
        if reply.head.status >= 500:
            return await self._fetch(pool, forward, Attempt(pool, member, trial=False, extra=False), reply)
        member.answered(reply)
        return reply

    def prompt(self, octets: bytes, listener: PromptListener, route: Route) -> Prompted | None:
        """See ``Origin.prompt``. Only where nothing is to be weighed: no canary, nobody out, no key, no
        whole timeout."""
        pool = self._pools.get(route.origin) or self._pools[DEFAULT]
        solo = pool.solo
        if solo is not None:
            return solo.client.prompt(
                octets, Listening(pool, solo, listener, route.retry), route.read_timeout
            )
        group = pool.stable
        if not pool.plain or group.impaired:
            return None
        turns = [member.turn for member in group.members]
        member = group.next()
        prompted = member.client.prompt(
            octets, Listening(pool, member, listener, route.retry), route.read_timeout
        )
        if prompted is None:
            # It will be sent the ordinary way, where this one is next again.
            for each, turn in zip(group.members, turns, strict=True):
                each.turn = turn
        return prompted

    async def go_on(self, under_way: object, forward: Forward) -> OriginReply:
        """See ``Origin.go_on``. Raises OriginError."""
        assert isinstance(under_way, Unsettled)  # noqa: S101
        member, outcome = under_way.member, under_way.outcome
        if isinstance(outcome, Interim):
            try:
                outcome = await member.client.after_interim(outcome, forward)
            except OriginError as error:
                outcome = error
        return await self._fetch(
            under_way.pool, forward, Attempt(under_way.pool, member, trial=False, extra=False), outcome
        )

    @property
    def authority(self) -> str:
        """For Host, where a request has none."""
        return self._pools[DEFAULT].stable.members[0].client.authority

    async def _fetch(
        self,
        pool: OriginPool,
        forward: Forward,
        attempt: Attempt | None = None,
        outcome: OriginReply | OriginError | None = None,
    ) -> OriginReply:
        """Attempts until one is final. ``attempt`` and its ``outcome``: the first has been made already."""
        whole = pool.spec.timeouts.whole
        due = math.inf if whole is None else self._clock.now() + whole
        tried: list[Member] = []
        repeats = int(forward.resent)
        if attempt is None:
            attempt = self._first(pool, forward)
        while True:
            if outcome is None:
                outcome = await self._send(attempt, forward, due)
            self._settle(attempt, outcome)
            tried.append(attempt.member)
            try:
                again = await self._again(pool, forward, outcome, tried, repeats, due)
            except BaseException:
                # The client has left while another attempt was waited for: the place is given back.
                if not isinstance(outcome, OriginError):
                    outcome.body.close()
                raise
            if again is None:
                break
            if not isinstance(outcome, OriginError):
                outcome.body.close()
            repeats += again.extra
            attempt, outcome = again, None
        if isinstance(outcome, OriginError):
            raise outcome
        return outcome

    def _first(self, pool: OriginPool, forward: Forward) -> Attempt:
        """Raises OriginError: nothing is usable, or the budget for this purpose is spent."""
        now = self._clock.now()
        attempt = self._choose(pool, forward.key or forward.target, now)
        if attempt is None:
            raise self._nothing_usable(pool, now)
        if forward.purpose is not Purpose.CLIENT:
            member = attempt.member
            # Clients that wait for a place go first, whatever the budget.
            waits = member.client.queued > 0
            if waits or not member.budget.take(forward.purpose, now, slow=member.slow):
                self._leave(attempt)
                raise OriginError(OriginFailure.YIELDED, f"{forward.purpose.value} work at {member.name}")
            attempt.extra = True
        return attempt

    async def _send(self, attempt: Attempt, forward: Forward, due: float) -> OriginReply | OriginError:
        member = attempt.member
        try:
            if due == math.inf:
                return await member.client.fetch(forward)
            reply = await by(due, self._clock, member.client.fetch(forward))
        except OriginError as error:
            return error
        except BaseException:
            # Cancelled, or a request that cannot be sent: it says nothing of the origin.
            self._leave(attempt)
            raise
        if reply.head.status == 101:
            return reply  # a connection that goes on as something else has limits of its own
        assert member.client.on_body_failure is not None  # noqa: S101
        return TimedReply(reply, TimedBody(reply.body, due, self._clock, member.client.on_body_failure))

    async def _again(
        self,
        pool: OriginPool,
        forward: Forward,
        outcome: OriginReply | OriginError,
        tried: list[Member],
        repeats: int,
        due: float,
    ) -> Attempt | None:
        """The next attempt, ready to be sent; None: this outcome is the last."""
        woken = isinstance(outcome, OriginError) and outcome.failure is OriginFailure.BREAKER_OPEN
        policy = pool.spec.retries
        if not woken:
            if not isinstance(outcome, OriginError) and not is_error(outcome):
                return None
            if repeats >= policy.attempts or forward.purpose is not Purpose.CLIENT:
                return None
            if not may_repeat(policy, forward, outcome):
                return None
        key = forward.key or forward.target
        attempt = self._choose(pool, key, self._clock.now(), tried)
        if attempt is None and await self._trial_over(pool, tried):
            attempt = self._choose(pool, key, self._clock.now(), tried)
        if attempt is None and (woken or elsewhere_only(outcome)):
            return None
        if attempt is None:
            wait = pause(policy, repeats, self._chance)
            if self._clock.now() + wait >= due:
                return None
            if wait:
                await self._clock.sleep(wait)
            # Not as a trial: what has just failed is no news.
            last = tried[-1]
            if not last.flawless:
                return None
            attempt = Attempt(pool, last, trial=False, extra=False)
        if woken:
            return attempt  # it was never sent, so this is no repeat
        member = attempt.member
        if not member.budget.take(Purpose.RETRY, self._clock.now()):
            self._leave(attempt)
            return None
        attempt.extra = True
        member.retries += 1
        return attempt

    async def _trial_over(self, pool: OriginPool, tried: Collection[Member]) -> bool:
        """Who has failed elsewhere waits for the outcome of a trial under way; False: there is none."""
        for member in pool.stable.members:
            if member.breaker.state is State.HALF_OPEN and member not in tried:
                over = self._awaited.setdefault(member, asyncio.get_running_loop().create_future())
                return await self._clock.wait_for(over, pool.spec.retries.longest)
        return False

    def _end_trial(self, member: Member) -> None:
        self._turns.leave(member.name)
        over = self._awaited.pop(member, None)
        if over is not None and not over.done():
            over.get_loop().call_soon(_done, over)  # when the outcome is settled

    # -- who is asked -----------------------------------------------------------------------------------

    def _choose(
        self, pool: OriginPool, key: str, now: float, without: Collection[Member] = ()
    ) -> Attempt | None:
        """Who is next, there or in the pools behind; None: nobody."""
        following: OriginPool | None = pool
        while following is not None:
            group = following.stable
            if following.canary is not None and following.trial is not None and following.canary.takes(key):
                attempt = self._begin(following, following.trial, key, now, without)
                if attempt is not None:
                    return attempt
            attempt = self._begin(following, group, key, now, without)
            if attempt is not None:
                return attempt
            following = self._pools.get(following.fallback) if following.fallback is not None else None
        if without:
            return None
        member = pool.stable.despite_health(now)
        return None if member is None else self._taken(pool, member, now)

    def _begin(
        self, pool: OriginPool, group: Group, key: str, now: float, without: Collection[Member]
    ) -> Attempt | None:
        passed_over: list[Member] = list(without)
        while True:
            member = group.pick(now, key, passed_over)
            if member is None:
                return None
            attempt = self._taken(pool, member, now)
            if attempt is not None:
                return attempt
            passed_over.append(member)

    def _taken(self, pool: OriginPool, member: Member, now: float) -> Attempt | None:
        """An attempt at this origin; None: its breaker lets one through, and another worker is making it."""
        breaker = member.breaker
        if breaker.state is State.CLOSED:
            return Attempt(pool, member, trial=False, extra=False)
        if not self._turns.take(member.name):
            breaker.postpone(now + _ASK_AGAIN)
            return None
        self._neighbours.look(self._members)  # what another worker's trial has come to meanwhile
        closed = member.breaker.state is State.CLOSED
        if closed or not breaker.ready(now):
            self._turns.leave(member.name)
            return Attempt(pool, member, trial=False, extra=False) if closed else None
        breaker.try_one(now)
        return Attempt(pool, member, trial=True, extra=False)

    def _nothing_usable(self, pool: OriginPool, now: float) -> OriginError:
        until = min((m.breaker.until for m in pool.stable.members), default=now)
        why = "; ".join(f"{m.name}: {' '.join(m.state(now))}" for m in pool.stable.members)
        return OriginError(
            OriginFailure.BREAKER_OPEN, why, retry_after=math.ceil(max(1.0, min(60.0, until - now)))
        )

    # -- what came of it --------------------------------------------------------------------------------

    def _settle(self, attempt: Attempt, outcome: OriginReply | OriginError) -> None:
        now = self._clock.now()
        member, trial = attempt.member, attempt.trial
        if trial:
            self._end_trial(member)
        well = True
        if isinstance(outcome, OriginError):
            well = outcome.failure is OriginFailure.BREAKER_OPEN  # it was never sent
            member.failed(now, outcome, trial=trial)
        elif is_error(outcome):
            well = False
            member.erred(now, outcome.head.status, trial=trial)
        else:
            if trial:
                member.tried_well(now)
            member.answered(outcome)
            attempt.pool.group_of(member).look_for_slow(member, now)
        if attempt.extra:
            member.budget.ended(now, well=well)
        if attempt.pool.trial is not None and member in attempt.pool.trial.members:
            self._judge(attempt.pool, now)

    def _leave(self, attempt: Attempt) -> None:
        """It ended and says nothing of the origin."""
        member = attempt.member
        if attempt.trial:
            self._end_trial(member)
            member.left(trial=True)
        if attempt.extra:
            member.budget.ended(self._clock.now(), well=True)

    def _judge(self, pool: OriginPool, now: float) -> None:
        if pool.canary is None or pool.trial is None:
            return
        mine = [(m.window, m.latency) for m in pool.trial.members]
        stable = [(m.window, m.latency) for m in pool.stable.members]
        if pool.canary.judge(mine, stable, now):
            self.keeper.say("pool %s: the canary is ended: %s", pool.name, pool.canary.ended)

    @property
    def queued(self) -> int:
        """Requests that wait for a place."""
        return sum(member.client.queued for pool in self._pools.values() for member in pool.members)

    @property
    def connections_open(self) -> int:
        return sum(m.client.connections_open for pool in self._pools.values() for m in pool.members)

    @property
    def in_flight(self) -> int:
        """Requests that hold a place at some origin."""
        return sum(member.client.in_flight for pool in self._pools.values() for member in pool.members)

    # -- for operators ----------------------------------------------------------------------------------

    @property
    def pools(self) -> dict[str, OriginPool]:
        return self._pools

    @property
    def _members(self) -> list[Member]:
        return [member for pool in self._pools.values() for member in pool.members]

    async def aclose(self) -> None:
        """End every connection, check and watch; a fetch under way fails."""
        if self._following is not None:
            self._following.cancel()
        self._turns.close()
        await self.keeper.aclose()


def _done(future: asyncio.Future[object]) -> None:
    if not future.done():
        future.set_result(None)
