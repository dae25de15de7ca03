"""L2 in Redis or Valkey.

Rules of this file:

- aiocache's own Redis backend cancels commands on its timeout and knows neither TLS nor short retries: this
  is its BaseCache with our client.
- Put-if-newer is one script, so it is atomic. It compares octet by octet: Lua's own string comparison
  follows the server's locale.
- A key of another type counts as corrupt octets: it is deleted and counted like them.
- One key per command and script: nothing here spans slots of a cluster. A batch goes to each node at once,
  and what one node refuses or cannot take is the loss of those keys alone.
- A server that does not know the script (new, restarted, promoted) is sent it with the writes themselves.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from edgeproxy.cluster.redis_cluster import NodeDown
from edgeproxy.cluster.redis_link import connect, pipelined
from edgeproxy.store.backend import ByteCache
from edgeproxy.store.codec import MAGIC, ORDER_AT, ORDER_END
from edgeproxy.store.shared import MOST_COMMANDS, PartAway, Write, Wrote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.redis_link import Command

PUT_IF_NEWER = f"""
local old = redis.pcall('GETRANGE', KEYS[1], 0, {ORDER_END - 1})
if type(old) == 'string' and #old == {ORDER_END} and string.sub(old, 1, {len(MAGIC)}) == ARGV[3] then
  for i = {ORDER_AT + 1}, {ORDER_END} do
    local a, b = string.byte(old, i), string.byte(ARGV[1], i)
    if a > b then return 0 end
    if a < b then break end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

SHA = sha1(PUT_IF_NEWER.encode(), usedforsecurity=False).hexdigest()
"""What Redis calls it."""
LARGEST = 64 * 1024 * 1024


class RedisCache(ByteCache):
    """``url``: as cluster/redis_url.py has it. ``prefix`` begins every key, ``named`` the log lines about
    nodes of a cluster. Raises ValueError for a bad URL."""

    NAME = "redis"

    def __init__(
        self, url: str, *, prefix: str = "edgeproxy:", clock: Clock | None = None, named: str = ""
    ) -> None:
        super().__init__()
        self._redis = connect(url, connections=MOST_COMMANDS * 2, clock=clock, named=named)
        self._prefix = prefix

    async def _get(self, key: str, encoding: None, **_: object) -> bytes | None:  # noqa: ARG002
        try:
            data = await self._redis.get(self._prefix + key)
        except NodeDown as error:
            raise PartAway(str(error)) from None
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return b""
            raise
        return data if isinstance(data, bytes) else None

    async def write(self, batch: Sequence[Write]) -> list[Wrote]:
        results = await pipelined(self._redis, [self._command(write, "EVALSHA", SHA) for write in batch])
        unknown = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            again = [self._command(batch[index], "EVAL", PUT_IF_NEWER) for index in unknown]
            for index, result in zip(unknown, await pipelined(self._redis, again), strict=True):
                results[index] = result
        return [_outcome(write, result) for write, result in zip(batch, results, strict=True)]

    def _command(self, write: Write, verb: str, script: str) -> Command:
        key = self._prefix + write.key
        if write.data is None or len(write.data) > LARGEST:
            return key, ("DEL", key)
        return key, (verb, script, 1, key, write.data, max(1, int(write.ttl * 1000)), MAGIC)

    async def _close(self, *_: object, **__: object) -> None:
        await self._redis.aclose()


def _outcome(write: Write, result: object) -> Wrote:
    if isinstance(result, Exception):
        # maxmemory is reached and nothing may be evicted.
        full = isinstance(result, OutOfMemoryError) or "OOM" in str(result)
        return Wrote.FULL if full else Wrote.FAILED
    if write.data is None:
        return Wrote.STORED
    if len(write.data) > LARGEST:
        return Wrote.FULL
    return Wrote.STORED if result == 1 else Wrote.OVERTAKEN
