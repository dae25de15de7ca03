"""What stands behind the shared store: octets under keys, over aiocache's interface.

Rules of this file:

- The only file that imports aiocache, and only the kind of store that needs a backend imports this one.
- Octets in, octets out: no serializer that could run anything, no namespace but ours, and nobody ever calls
  ``clear``.
- aiocache imports the clients of all its own backends where they are installed. We use none of these, and
  that of Redis alone is a sixth of what a process imports; so while aiocache is imported they are not to be
  found (None in sys.modules is Python's own word for that).
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.store.shared import Write, Wrote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent, cast("Any", None)))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _hidden("redis", "aiomcache"):
    from aiocache.base import BaseCache
    from aiocache.serializers import NullSerializer


class ByteCache(BaseCache):  # type: ignore[misc]  # aiocache is untyped
    """What a backend is. Besides aiocache's own methods it writes in batches, newest order wins.

    ``immediate``: ``read_now`` answers at once from memory, and needs no budget.
    """

    NAME = "bytes"
    immediate = False

    def __init__(self) -> None:
        super().__init__(serializer=NullSerializer(encoding=None), timeout=None)

    async def write(self, batch: Sequence[Write]) -> list[Wrote]:
        """One outcome for each. Raises what the backend raises when the store cannot be reached."""
        raise NotImplementedError

    def read_now(self, key: str) -> bytes | None:
        raise NotImplementedError

    def scan(self, after: str, limit: int) -> list[tuple[str, bytes, int]] | None:  # noqa: ARG002
        """The next ``limit`` records in order of their keys: key, head and meta, octets taken. None: this
        store cannot tell what it holds."""
        return None

    async def maintain(self) -> None:
        """Called every MAINTENANCE seconds."""

    def facts(self) -> dict[str, object]:
        """For the statistics."""
        return {}

    async def _set(self, key: str, value: bytes, ttl: float | None, **_: object) -> bool:
        outcome = await self.write([Write(key, value, 86400.0 if ttl is None else ttl)])
        return outcome[0] is Wrote.STORED

    async def _delete(self, key: str, **_: object) -> int:
        return int((await self.write([Write(key, None)]))[0] is Wrote.STORED)

    async def _exists(self, key: str, **_: object) -> bool:
        return await self._get(key, None) is not None

    async def _get(self, key: str, encoding: None, **_: object) -> bytes | None:
        raise NotImplementedError
