"""L2 in Redis or Valkey.

Rules of this file:

- aiocache's own Redis backend cancels commands on its timeout and knows neither TLS nor short retries: this
  is its BaseCache with our client.
- Put-if-newer is one script, so it is atomic. It compares octet by octet: Lua's own string comparison
  follows the server's locale.
- A key of another type counts as corrupt octets: it is deleted and counted like them.
- One key per command and script: nothing here spans slots of a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from edgeproxy.cluster.redis_link import connect
from edgeproxy.store.codec import MAGIC, ORDER_AT, ORDER_END
from edgeproxy.store.shared import MOST_COMMANDS, ByteCache, Write, Wrote

if TYPE_CHECKING:
    from collections.abc import Sequence

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

LARGEST = 64 * 1024 * 1024


class RedisCache(ByteCache):
    """``url``: redis:// or rediss://. ``prefix`` begins every key. Raises ValueError for a bad URL."""

    NAME = "redis"

    def __init__(self, url: str, *, prefix: str = "edgeproxy:") -> None:
        super().__init__()
        self._redis = connect(url, connections=MOST_COMMANDS * 2)
        self._prefix = prefix
        self._sha = ""

    async def _get(self, key: str, encoding: None, **_: object) -> bytes | None:  # noqa: ARG002
        try:
            data = await self._redis.get(self._prefix + key)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return b""
            raise
        return data if isinstance(data, bytes) else None

    async def write(self, batch: Sequence[Write]) -> list[Wrote]:
        if not self._sha:
            self._sha = await self._redis.script_load(PUT_IF_NEWER)
        results = await self._send(batch)
        if any(isinstance(result, NoScriptError) for result in results):
            self._sha = await self._redis.script_load(PUT_IF_NEWER)  # a restarted server has lost it
            results = await self._send(batch)
        return [_outcome(write, result) for write, result in zip(batch, results, strict=True)]

    async def _send(self, batch: Sequence[Write]) -> list[object]:
        pipeline = self._redis.pipeline(transaction=False)
        for write in batch:
            key = self._prefix + write.key
            if write.data is None or len(write.data) > LARGEST:
                pipeline.delete(key)
            else:
                pipeline.evalsha(self._sha, 1, key, write.data, max(1, int(write.ttl * 1000)), MAGIC)
        results: list[object] = await pipeline.execute(raise_on_error=False)
        return results

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
