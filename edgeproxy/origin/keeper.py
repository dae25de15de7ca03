"""Makes, keeps and ends the origins of all pools, with their clients, checks and watches.

Rules of this file:

- An origin is named by its pool and its link (URL, timeouts, limits, TLS). One that a reload leaves as it was
  keeps its connections, its state and its counters. One that is gone gets no new requests; what is under way
  there ends in peace.
- A breaker that opened because nobody could connect is watched: once a second it is tried whether one can.
  That is no request, and it brings the origin back within a second however long the breaker's pause
  has grown. One worker of a node does it for all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.breaker import State
from edgeproxy.origin.client import OriginClient
from edgeproxy.origin.health import check_forever
from edgeproxy.origin.member import Member
from edgeproxy.rules.pools import Tls
from edgeproxy.rules.tls import tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from edgeproxy.clock import Clock
    from edgeproxy.origin.descriptors import Descriptors
    from edgeproxy.origin.neighbours import Neighbours
    from edgeproxy.origin.turns import Turns
    from edgeproxy.origin.upload import Spawn
    from edgeproxy.rules.pools import Health, Link, PoolSpec

log = logging.getLogger("edgeproxy.origin")

WATCH_EVERY = 1.0

Name = tuple[str, "Link"]


class Keeper:
    def __init__(
        self,
        clock: Clock,
        spawn: Spawn,
        chance: Callable[[], float],
        turns: Turns,
        neighbours: Neighbours,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._descriptors = descriptors
        self._turns = turns
        self._neighbours = neighbours
        self._clock = clock
        self._spawn = spawn
        self._chance = chance
        self._members: dict[Name, Member] = {}
        self._retired: list[OriginClient] = []
        self._checks: dict[Name, tuple[Health, OriginClient, asyncio.Task[None]]] = {}
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._told: dict[int, str] = {}

    # -- as the rules say -------------------------------------------------------------------------------

    def make(self, specs: tuple[PoolSpec, ...]) -> dict[Name, Member]:
        """A member for each origin of these pools: the one there is, or a new one. Raises ValueError."""
        contexts: dict[Tls, ssl.SSLContext] = {}
        made: dict[Name, Member] = {}
        for spec in specs:
            canary = spec.canary.origins if spec.canary is not None else ()
            for origin in (*spec.origins, *canary):
                link = spec.link(origin)
                name = (spec.name, link)
                member = self._members.get(name)
                if member is None:
                    client = self._client(link, contexts, link.limits.concurrent or 256)
                    member = Member(spec.name, link, client, self._clock, self._chance)
                made[name] = member
        return made

    def _client(self, link: Link, contexts: dict[Tls, ssl.SSLContext], places: int) -> OriginClient:
        context: ssl.SSLContext | None = None
        if link.url.startswith("https:") and link.tls != Tls():
            context = contexts.get(link.tls)
            if context is None:
                context = contexts[link.tls] = tls_context(link.tls)
        limits, times = link.limits, link.timeouts
        return OriginClient(
            link.url,
            clock=self._clock,
            spawn=self._spawn,
            connect_timeout=times.connect or 3.0,
            tls_timeout=times.tls,
            first_byte_timeout=times.first_byte or 10.0,
            read_timeout=times.between_bytes or 30.0,
            max_connections=places,
            max_queued=limits.queue,
            queue_timeout=limits.wait,
            max_age=limits.age,
            tls=context,
            server_name=link.tls.server_name,
            descriptors=self._descriptors,
        )

    def keep(self, specs: tuple[PoolSpec, ...], made: dict[Name, Member]) -> None:
        """These are in force: let go of the others, check what is to be checked."""
        for name, member in self._members.items():
            if name not in made:
                member.client.retire()
                self._retired.append(member.client)
                self._stop(self._watches.pop(id(member), None))
                self._told.pop(id(member), None)
        self._retired = [c for c in self._retired if c.in_flight or c.queued or c.connections_open]
        self._members = made
        wanted = {
            name: spec.health
            for spec in specs
            for name in made
            if spec.health is not None and name[0] == spec.name
        }
        for name, (policy, client, task) in list(self._checks.items()):
            if wanted.get(name) != policy:
                del self._checks[name]
                self._stop(task)
                client.retire()
                self._retired.append(client)
        contexts: dict[Tls, ssl.SSLContext] = {}
        for name, policy in wanted.items():
            if name not in self._checks:
                client = self._client(name[1], contexts, 1)
                work = check_forever(made[name], policy, client, self._clock, self._chance)
                self._checks[name] = (policy, client, self._spawn(work, f"health of {name[1].url}"))

    @staticmethod
    def _stop(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()

    # -- watching ---------------------------------------------------------------------------------------

    def watch(self, member: Member) -> None:
        """Its breaker has opened: try whether one can connect, until one can."""
        kept = self._members.get((member.pool, member.link)) is member
        if kept and member.breaker.cannot_connect and id(member) not in self._watches:
            self._watches[id(member)] = self._spawn(self._watch(member), f"watch {member.name}")

    async def _watch(self, member: Member) -> None:
        turn, mine = f"watch {member.pool} {member.name}", False
        try:
            while True:
                await self._clock.sleep(WATCH_EVERY * (0.8 + 0.2 * self._chance()))
                mine = mine or self._turns.take(turn)
                self._neighbours.look(self._members.values())
                breaker = member.breaker
                if breaker.state is not State.OPEN or breaker.ready(self._clock.now()):
                    return  # the next request finds out
                if not mine:
                    continue
                try:
                    await member.client.probe()
                except OriginError:
                    continue
                member.breaker.hurry(self._clock.now())
                self._neighbours.changed(member)
                return
        finally:
            if mine:
                self._turns.leave(turn)
            if self._watches.get(id(member)) is asyncio.current_task():
                del self._watches[id(member)]

    # -- saying -----------------------------------------------------------------------------------------

    def tell(self, member: Member, now: float) -> None:
        """One line for each change of state."""
        state, why = member.state(now)
        if state == self._told.get(id(member), "usable") or state == "breaker half-open":
            return
        self._told[id(member)] = state
        log.warning("origin %s (pool %s): %s%s", member.name, member.pool, state, f": {why}" if why else "")

    @staticmethod
    def say(message: str, *words: str) -> None:
        log.warning(message, *words)

    async def aclose(self) -> None:
        tasks = [*self._watches.values(), *(task for _, _, task in self._checks.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        clients = [m.client for m in self._members.values()] + [c for _, c, _ in self._checks.values()]
        await asyncio.gather(*(client.aclose() for client in (*clients, *self._retired)))
