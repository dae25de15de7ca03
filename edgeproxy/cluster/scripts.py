"""Small scripts at the keys of the purge log, which have to run where Redis has no room left, too.

Rules of this file:

- What is written there is little and bounded: purges, and who has heard them. A Redis that is full refuses to
  store answers, and is invisible; that it refuses purges would be seen by everybody. So the scripts say that
  they may run all the same (``allow-oom``: Redis 7, Valkey).
- Older servers know no such word and refuse the whole script: they are asked without it from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, final

from redis.exceptions import OutOfMemoryError, ResponseError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_ALLOWED = "#!lua flags=allow-oom\n"
_UNKNOWN = "compiling script"


@final
class Scripts:
    """Of one client."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._allowed = _ALLOWED

    async def run(self, script: str, keys: int, *arguments: object) -> Any:
        """``arguments``: that many keys first, all of one slot. Raises RedisError and OSError."""
        if self._allowed:
            try:
                return await self._eval(self._allowed + script, keys, arguments)
            except ResponseError as error:
                if _UNKNOWN not in str(error):
                    raise
                self._allowed = ""
        return await self._eval(script, keys, arguments)

    async def _eval(self, script: str, keys: int, arguments: tuple[object, ...]) -> Any:
        return await cast("Any", self._redis).eval(script, keys, *arguments)


def is_full(error: Exception) -> bool:
    """Whether Redis has refused a write, or a script's, for want of memory."""
    return isinstance(error, OutOfMemoryError) or (
        isinstance(error, ResponseError) and "OOM command not allowed" in str(error)
    )
