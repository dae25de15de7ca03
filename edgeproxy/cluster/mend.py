"""What stands at the keys of the purge log and is none of ours: removed, so that the nodes can go on.

Rules of this file:

- A key that holds a value of another type than ours refuses every command for ever, and until it is gone no
  node follows the log. It is looked for only after Redis has complained of one.
- A name or a log that is no name or no log is a log that is lost: both go, and both are made anew (bus.py),
  which purges everything everywhere. Reports and news go alone: each node says them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_MEND = """
local kinds = {'string', 'stream', 'hash', 'stream'}
local removed = 0
for at, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'none' and kind ~= kinds[at] then
    removed = removed + redis.call('DEL', key)
    if at <= 2 then redis.call('DEL', KEYS[1], KEYS[2]) end
  end
end
return removed
"""


def is_wrong_type(error: Exception) -> bool:
    """Whether Redis has complained of the type of a key: of a command's, or of one in a script."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


async def mend(redis: Redis, keys: tuple[str, str, str, str]) -> int:
    """Remove what is of another type; how many keys that were. ``keys``: of the name, the log, the reports
    and the news. Raises RedisError and OSError."""
    return int(await cast("Any", redis.eval(_MEND, 4, *keys)))
