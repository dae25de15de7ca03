"""L2 in Memcached.

Rules of this file:

- One connection to a client object, and one command at a time on it. A command that fails or takes too long
  takes its connection with it, so that no reply is ever read by the next command.
- Put-if-newer is gets + cas: a write that somebody else's overtook is compared anew.
- Values larger than the server takes (1 MiB by default) are not sent.
- Memcached carries no purge log: purges reach one node. Nodes have namespaces of their own there and
  share nothing, which is safe.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import aiomcache

from edgeproxy.store.backend import ByteCache
from edgeproxy.store.codec import newer
from edgeproxy.store.shared import Write, Wrote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from edgeproxy.clock import Clock

T = TypeVar("T")

LARGEST = 1024 * 1024 - 1024
TIMEOUT = 0.5
"""Seconds until a command and its connection are given up."""
_RELATIVE = 30 * 86400
"""From here on Memcached takes a time to live for a time of day."""
_TRIES = 3
_IDLE = 16


class MemcachedCache(ByteCache):
    NAME = "memcached"

    def __init__(self, host: str, port: int, clock: Clock, *, prefix: str = "edgeproxy:") -> None:
        super().__init__()
        self._at = (host, port)
        self._clock = clock
        self._prefix = prefix
        self._idle: list[aiomcache.Client] = []

    async def _run(self, command: Callable[[aiomcache.Client], Awaitable[T]]) -> T:
        client = self._idle.pop() if self._idle else aiomcache.Client(*self._at, pool_size=1)
        sound = False
        try:
            async with asyncio.timeout(TIMEOUT):
                result = await command(client)
            sound = True
        finally:
            if sound and len(self._idle) < _IDLE:
                self._idle.append(client)
            else:
                await client.close()
        return result

    async def _get(self, key: str, encoding: None, **_: object) -> bytes | None:  # noqa: ARG002
        name = self._name(key)
        data = await self._run(lambda client: client.get(name))
        return data if isinstance(data, bytes) else None

    async def write(self, batch: Sequence[Write]) -> list[Wrote]:
        return [await self._run(partial(self._put, write)) for write in batch]

    async def _put(self, write: Write, client: aiomcache.Client) -> Wrote:
        name = self._name(write.key)
        if write.data is None or len(write.data) > LARGEST:
            await client.delete(name)
            return Wrote.STORED if write.data is None else Wrote.FULL
        ends = self._ends(write.ttl)
        for _ in range(_TRIES):
            old, token = await client.gets(name)
            if token is None:
                stored = await client.add(name, write.data, exptime=ends)
            else:
                if isinstance(old, bytes) and newer(old, write.data):
                    return Wrote.OVERTAKEN
                stored = await client.cas(name, write.data, token, exptime=ends)
            if stored:
                return Wrote.STORED
        return Wrote.FAILED

    def _ends(self, ttl: float) -> int:
        seconds = max(1, math.ceil(ttl))
        return seconds if seconds < _RELATIVE else int(self._clock.now()) + seconds

    def _name(self, key: str) -> bytes:
        return (self._prefix + key).encode()

    async def _close(self, *_: object, **__: object) -> None:
        while self._idle:
            await self._idle.pop().close()
