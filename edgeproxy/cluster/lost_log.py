"""A purge log that has lost its end: a replica took over that had not been told the newest purges (B9).

Rules of this file:

- Redis tells its replicas after it has answered, so a failover can lose records. A node that has read one
  knows that it was there: it is missing and yet not trimmed, since the log still begins before it.
- Nobody can say what stood in the lost records, and other nodes may not have read them. So the log is made
  anew under another name: every node drops what it has, and what is stored under the old name is not read
  again. Whoever notices first does it, in one step.
- The new log begins above the place of who makes it, and is lifted above the numbers of those that follow:
  what is fetched under a higher number than the next purge gets would outlive it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeproxy.cluster.epoch import LOCAL_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

_ANEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) > 0 then return 0 end
local seen, sequence = string.match(ARGV[2], '(%d+)-(%d+)')
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if first then
  local ms, number = string.match(first[1], '(%d+)-(%d+)')
  ms, number = tonumber(ms), tonumber(number)
  if ms > tonumber(seen) or (ms == tonumber(seen) and number > tonumber(sequence)) then return 0 end
end
local time = redis.call('TIME')
local begin = math.max(time[1] * 1000 + math.floor(time[2] / 1000), seen + 1)
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[1], ARGV[3])
redis.call('XADD', KEYS[2], string.format('%.0f-0', begin), 'begin', ARGV[3])
return 1
"""
_LIFT = """
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if redis.call('GET', KEYS[1]) == ARGV[1] and last
    and tonumber(string.match(last[1], '%d+')) < tonumber(ARGV[2]) then
  redis.call('XADD', KEYS[2], ARGV[2] .. '-0', 'begin', ARGV[1])
end
return 1
"""


async def made_anew(redis: Redis, keys: Sequence[str], name: bytes, seen: tuple[int, int]) -> bool:
    """Asked by a node that does not find the record at ``seen``, its place in the log ``name``: whether there
    is another log now. Raises RedisError or OSError."""
    place = f"{seen[0]}-{seen[1]}"
    return bool(await redis.eval(_ANEW, 2, *keys, name, place, os.urandom(8)))


async def lift(redis: Redis, keys: Sequence[str], name: bytes, number: int) -> None:
    """See to it that purges to come have higher numbers than this node has given. Raises as above."""
    milliseconds = (number >> LOCAL_BITS >> 12) + 1
    await redis.eval(_LIFT, 2, *keys, name, str(milliseconds))
