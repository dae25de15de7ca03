"""One fetch per key among all nodes that share one Redis: a lease with an owner and a time limit.

Rules of this file:

- A lease is a key in Redis that names its owner and lives for LIFE; it is renewed while its fetch goes on, so
  that what a killed node held is free within LIFE. Taken, renewed and ended by scripts of one key each: only
  the owner ends it.
- Its end leaves a word behind for LINGER, how the fetch ended, so that who comes just after looks into the
  store, or does not wait for what nobody may share.
- Redis in trouble means that there is no lease. A command has the store's budget and shares its breaker; one
  that is late is abandoned, never cancelled (store/shared.py).
- The lease of the node is taken first, so that of its workers one asks Redis.
- Who waits asks again after a pause that grows with the time waited.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast, final

from redis.exceptions import ResponseError

from edgeproxy.cluster.base import LOOK, UNCACHEABLE, End, Ended
from edgeproxy.cluster.redis_cluster import NodeDown
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from redis.asyncio import Redis

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.lease import NodeLease, NodeLeases
    from edgeproxy.store.breaker import Breaker

    Spawn = Callable[[Coroutine[Any, Any, None], str], object]

LIFE = 2.0
"""Seconds that a lease lives without being renewed."""
RENEWED = LIFE / 3
LINGER = 1.0
"""Seconds that the word how a fetch ended is kept."""
FIRST_PAUSE, LONGEST_PAUSE = 0.004, 0.05
"""Seconds between two questions of who waits; each pause is twice the one before."""
MOST = 256
"""Commands under way; one more is not made."""
CONNECTIONS = 32

_TAKE = """
local there = redis.call('GET', KEYS[1])
if there then
  local kind = string.sub(there, 1, 1)
  if kind == 'h' or kind == 'u' or (kind == 'f' and ARGV[3] == '1') then return there end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return there and 'again' or 'mine'
"""
_END = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


@final
class ClusterLease:
    """Implements Lease: of this node among the nodes (``name`` None: Redis could not be asked), and of this
    worker among the node's."""

    __slots__ = ("_leases", "again", "local", "name", "owner")

    def __init__(
        self, leases: ClusterLeases, name: str | None, owner: bytes, local: NodeLease | None, *, again: bool
    ) -> None:
        self._leases: ClusterLeases | None = leases
        self.name = name
        self.owner = owner
        self.local = local
        self.again = again or (local is not None and local.again)

    def end(self, ended: Ended) -> None:
        leases, self._leases = self._leases, None
        if leases is not None:
            leases.ended(self, ended)


class ClusterLeases:
    """Implements Leases. ``breaker`` is the shared store's, ``budget`` its seconds for a command; ``node``
    where this is one of several workers."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        spawn: Spawn,
        *,
        breaker: Breaker,
        budget: float,
        node: NodeLeases | None = None,
        prefix: str = "edgeproxy:",
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._spawn = spawn
        self._breaker = breaker
        self._budget = budget
        self._node = node
        self._prefix = f"{prefix}fetch:"
        self._process = os.urandom(8).hex()
        self._number = 0
        self._under_way = 0
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._held: dict[bytes, str] = {}
        self._renewing = self._closed = False

    def at_once(self, key: str, since: float) -> None:
        """Never: Redis has to be asked."""

    async def take(self, key: str, since: float, patience: float) -> ClusterLease | Ended | None:
        until = self._clock.monotonic() + patience
        local = None
        if self._node is not None:
            got = await self._node.take(key, since, patience)
            if got is None or isinstance(got, Ended):
                return got
            local = got
        told: ClusterLease | Ended | None = None
        try:
            told = await self._of_nodes(key, until, local)
        finally:
            if local is not None and not isinstance(told, ClusterLease):
                local.end(told or LOOK)
        return told

    async def _of_nodes(self, key: str, until: float, local: NodeLease | None) -> ClusterLease | Ended | None:
        self._number += 1
        owner = f"h{self._process}-{self._number}".encode()
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        name = f"{self._prefix}{digest}"
        pause, waited = FIRST_PAUSE, b"0"
        while True:
            said = await self._command(self._eval(_TAKE, name, owner, int(LIFE * 1000), waited))
            if not isinstance(said, bytes):
                # The node's own lease is good without it.
                return None if local is None else ClusterLease(self, None, owner, local, again=False)
            if said in (b"mine", b"again"):
                self._held[owner] = name
                self._keep()
                return ClusterLease(self, name, owner, local, again=said == b"again")
            if not said.startswith(b"h"):
                return _read(said)
            left = until - self._clock.monotonic()
            if left <= 0 or self._closed:
                return None
            await self._clock.sleep(min(pause, left))
            pause, waited = min(pause * 2, LONGEST_PAUSE), b"1"

    def ended(self, lease: ClusterLease, ended: Ended) -> None:
        """Only from ClusterLease.end."""
        if lease.name is not None and self._held.pop(lease.owner, None) is not None and not self._closed:
            command = self._eval(_END, lease.name, lease.owner, _word(ended), int(LINGER * 1000))
            self._spawn(self._run(command, None), "end of a lease")
        if lease.local is not None:
            lease.local.end(ended)

    async def _eval(self, script: str, name: str, *arguments: bytes | int) -> object:
        return await cast("Any", self._redis.eval(script, 1, name, *arguments))

    async def _command(self, command: Awaitable[object]) -> object:
        """What Redis says, or None: it is not asked now, or does not answer in time."""
        if self._closed or self._under_way >= MOST or not self._breaker.allows():
            _drop(command)
            return None
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._spawn(self._run(command, answer), "question for a lease")
        if not await self._clock.wait_for(answer, self._budget):
            self._breaker.failed("no answer within its budget")
            return None
        said = answer.result()
        if not isinstance(said, Exception):
            self._breaker.succeeded()
            return said
        if isinstance(said, ResponseError):
            self._breaker.succeeded()  # it answers: one that is full can still be read
        elif not isinstance(said, NodeDown):  # of a cluster, whose other nodes are asked as ever
            self._breaker.failed(f"{type(said).__name__}: {said}")
        return None

    async def _run(self, command: Awaitable[object], answer: asyncio.Future[object] | None) -> None:
        self._under_way += 1
        said: object
        try:
            async with self._turns:
                said = await command
        except Exception as error:  # noqa: BLE001  # a loop says with an error of its own that a connection is closed
            said = error
        finally:
            self._under_way -= 1
        if answer is not None and not answer.done():
            answer.set_result(said)

    def _keep(self) -> None:
        if not self._renewing:
            self._renewing = True
            self._spawn(self._renew_all(), "renewal of leases")

    async def _renew_all(self) -> None:
        """While any is held."""
        try:
            while self._held and not self._closed:
                await self._clock.sleep(RENEWED)
                for owner, name in list(self._held.items()):
                    if await self._command(self._eval(_RENEW, name, owner, int(LIFE * 1000))) is None:
                        break  # trouble: the others will find out by themselves
        finally:
            self._renewing = False

    async def close(self) -> None:
        """What is still held lapses."""
        self._closed = True
        self._held.clear()
        await self._redis.aclose()
        if self._node is not None:
            await self._node.close()


def _word(ended: Ended) -> bytes:
    match ended.end:
        case End.UNCACHEABLE:
            return b"u"
        case End.FAILED if ended.failure is not None:
            return f"f{ended.failure.value} {ended.status}".encode()
        case _:
            return b"look"


def _read(said: bytes) -> Ended:
    """What another node says; one that says more than we know is taken at its first word."""
    if said.startswith(b"u"):
        return UNCACHEABLE
    failure, _, status = said[1:].decode("latin-1").partition(" ")
    try:
        return Ended(End.FAILED, OriginFailure(failure), int(status))
    except ValueError:
        return Ended(End.FAILED, OriginFailure.SERVER_ERROR, OriginFailure.SERVER_ERROR.status)


def _drop(command: Awaitable[object]) -> None:
    close = getattr(command, "close", None)
    if close is not None:
        close()
