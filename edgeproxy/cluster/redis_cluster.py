"""A client for a Redis Cluster: each command goes to the node that holds its key.

Rules of this file:

- redis-py has a cluster client too. It reads the server's whole table of commands again whenever a
  connection is lost, 45 ms of the event loop each time, and makes all commands wait for it: what a cache
  must never do to requests. This is redis-py's plain client, one for each node, and a map of slots.
- The map is read when there is none, after MOVED and after a node could not be reached, at most once every
  PACE; who finds it old reads it, the others go by the old one meanwhile.
- A node has a breaker of its own: while one is away, the slots of the others are asked as ever. NodeDown says
  so without asking.
- A command has one key, or keys with one hash tag. Of those without a key there is SCRIPT LOAD, to all; what
  else there is goes to each of ``primaries``.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  # redis-py's own, no OSError
    MovedError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from edgeproxy.clock import Clock
from edgeproxy.store.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Address = tuple[str, int]

PACE = 1.0
"""Seconds between two looks at which node holds what."""
_HOPS = 3
_KEY_AT = {"EVAL": 3, "EVALSHA": 3, "EVAL_RO": 3, "EVALSHA_RO": 3}
_KEYLESS = frozenset(("INFO", "DBSIZE", "PING", "TIME", "KEYS", "SCAN", "FLUSHALL", "FLUSHDB"))
_LOST = (ConnectionError, TimeoutError, OSError)


class NodeDown(ConnectionError):  # noqa: N818  # a state
    """The node that holds the key is left alone for a while; the others are asked."""


class _Node:
    def __init__(self, address: Address, redis: Redis, breaker: Breaker) -> None:
        self.address = address
        self.redis = redis
        self.breaker = breaker

    async def ask(self, sent: Callable[[Redis], Awaitable[Any]]) -> Any:
        if not self.breaker.allows():
            raise NodeDown(f"{self.address[0]}:{self.address[1]}: {self.breaker.reason}")
        try:
            answer = await sent(self.redis)
        except ResponseError:
            self.breaker.succeeded()  # it answers
            raise
        except _LOST as error:
            self.breaker.failed(f"{type(error).__name__}: {error}")
            raise
        self.breaker.succeeded()
        return answer


class ClusterRedis(Redis):
    """``seeds``: some nodes to learn of the others from; ``made`` gives the client of one. ``named`` begins
    the log lines of nodes that are given up ("": no such lines)."""

    def __init__(
        self,
        seeds: Sequence[Address],
        made: Callable[[Address], Redis],
        *,
        clock: Clock | None = None,
        named: str = "",
    ) -> None:
        super().__init__()
        self._seeds = tuple(seeds)
        self._made = made
        self._clock = clock or Clock()
        self._named = named
        self._nodes: dict[Address, _Node] = {}
        self._slots: list[_Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._known = False
        self._old = True
        self._next = 0.0
        self._reading = asyncio.Lock()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Raises RedisError or OSError; NodeDown where the key's node is not asked at the moment."""
        if args[0] == "SCRIPT LOAD":  # whatever node a script's key is at
            return [await _send(redis, args, options) for redis in await self.primaries()][-1]
        slot = key_slot(_octets(_key_of(args)))
        await self._refresh()
        for _ in range(_HOPS):
            node = self._slots[slot]
            if node is None:
                self._old = True
                raise ClusterDownError(f"no node holds slot {slot}")
            try:
                return await node.ask(partial(_send, args=args, options=options))
            except MovedError as error:
                self._moved(error)
            except AskError as error:
                return await self._asking(error, node, args)
            except (*_LOST, ClusterDownError):
                self._old = True
                raise
        raise ClusterDownError(f"slot {slot} is moved about")

    async def pipelined(self, commands: Sequence[tuple[str, Sequence[Any]]]) -> list[object]:
        """A result or an exception for each, in order. Raises where no node answered."""
        await self._refresh()
        parts: dict[_Node, list[int]] = {}
        results: list[object] = [ClusterDownError("no node holds the slot")] * len(commands)
        for index, (key, _) in enumerate(commands):
            node = self._slots[key_slot(_octets(key))]
            if node is not None:
                parts.setdefault(node, []).append(index)
        sent = [
            self._to_node(node, [commands[index][1] for index in indexes]) for node, indexes in parts.items()
        ]
        for indexes, answers in zip(parts.values(), await asyncio.gather(*sent), strict=True):
            for index, answer in zip(indexes, answers, strict=True):
                results[index] = answer
        for index, answer in enumerate(results):
            if isinstance(answer, AskError):  # and MovedError, which is one
                if isinstance(answer, MovedError):
                    self._moved(answer)
                try:
                    results[index] = await self.execute_command(*commands[index][1])
                except (RedisError, OSError) as error:
                    results[index] = error
        lost = [answer for answer in results if isinstance(answer, _LOST)]
        if results and len(lost) == len(results):
            raise lost[0]
        return results

    async def _to_node(self, node: _Node, commands: Sequence[Sequence[Any]]) -> list[object]:
        async def send(redis: Redis) -> list[object]:
            pipeline = redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[object] = await pipeline.execute(raise_on_error=False)
            return answers

        try:
            answers: list[object] = await node.ask(send)
        except (RedisError, OSError) as error:
            self._old = True
            return [error] * len(commands)
        return answers

    async def primaries(self) -> list[Redis]:
        """The clients of all nodes that hold slots. Raises as ``execute_command``."""
        await self._refresh()
        return [node.redis for node in dict.fromkeys(node for node in self._slots if node is not None)]

    async def _asking(self, error: AskError, asked: _Node, args: Sequence[Any]) -> Any:
        """The slot is on its way to another node, which has this key already."""
        node = self._node((error.host or asked.address[0], error.port))
        _, answer = await self._to_node(node, [("ASKING",), args])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _moved(self, error: MovedError) -> None:
        asked = self._slots[error.slot_id]
        host = error.host or (asked.address[0] if asked is not None else "")
        self._slots[error.slot_id] = self._node((host, error.port))
        self._old = True

    # Which node holds what

    async def _refresh(self) -> None:
        if self._known and (not self._old or self._reading.locked() or self._clock.monotonic() < self._next):
            return
        async with self._reading:
            if self._known and not self._old:
                return
            if not self._known and self._clock.monotonic() < self._next:
                raise ConnectionError("no node of the cluster answers")
            try:
                await self._read_map()
            finally:
                self._next = self._clock.monotonic() + PACE

    async def _read_map(self) -> None:
        """Ask one node after the other until one knows. A map that is there stays if nobody does."""
        sound = [node.address for node in self._nodes.values() if not node.breaker.open]
        random.shuffle(sound)
        problem: Exception | None = None
        for address in dict.fromkeys((*sound, *self._seeds, *self._nodes)):
            try:
                told = await _send(self._node(address).redis, ("CLUSTER SLOTS",), {})
                self._take(told, address[0])
            except (RedisError, OSError, ValueError, TypeError, IndexError) as error:
                problem = error
                continue
            self._known, self._old = True, False
            return
        if not self._known and problem is not None:
            raise problem

    def _take(self, told: Any, asked: str) -> None:
        slots: list[_Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_ in told:
            # A node that does not know its own address says nothing: it is the one that was asked.
            node = self._node((host.decode() if host else asked, port))
            slots[first : last + 1] = [node] * (last + 1 - first)
        if not any(slots):
            raise ClusterDownError("no slot is assigned")
        self._slots = slots

    def _node(self, address: Address) -> _Node:
        node = self._nodes.get(address)
        if node is None:
            name = f"{self._named}, node {address[0]}:{address[1]}" if self._named else ""
            node = _Node(address, self._made(address), Breaker(self._clock, name))
            self._nodes[address] = node
        return node

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002, FBT001
        for node in self._nodes.values():
            await node.redis.aclose()
        await super().aclose()


async def _send(redis: Redis, args: Sequence[Any], options: dict[str, Any]) -> Any:
    return await redis.execute_command(*args, **options)  # type: ignore[no-untyped-call]


def _key_of(args: Sequence[Any]) -> Any:
    name = str(args[0]).upper()
    if name in _KEYLESS:
        raise TypeError(f"{name} has no key: it goes to each of primaries()")
    if name.startswith("XREAD"):
        return args[list(args).index(b"STREAMS") + 1]
    return args[_KEY_AT.get(name, 1)]


def _octets(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
