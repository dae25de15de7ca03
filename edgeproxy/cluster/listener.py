"""Follows a stream in Redis for as long as somebody waits for what it brings.

Rules of this file:

- Nobody asks again and again: a blocking read wakes everybody who waits with each piece of news.
- One read for all who wait at the same time. After the last of them it ends with the next piece of news, or
  by itself after ``block``; it is not cancelled, so that no reply is left on its connection.
- It decides nothing. Where it fails, those who wait are told, and look for themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.cluster.reports import read_place

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from redis.asyncio import Redis

    from edgeproxy.cluster.reports import Position

log = logging.getLogger("edgeproxy.bus")

_READ = 1000


class Listener:
    """``heard(place, name, value)`` for each field of each record after the place where it began. ``block``:
    seconds of one read at most, fewer than the client's socket timeout."""

    def __init__(
        self,
        redis: Redis,
        key: str,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        heard: Callable[[Position, bytes, bytes], None],
        *,
        block: float,
    ) -> None:
        self._redis = redis
        self._key = key
        self._spawn = spawn
        self._heard = heard
        self._block = max(1, int(block * 1000))
        self._waiting = 0
        self._running = False
        self._next: asyncio.Future[bool] | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def news(self, place: Position) -> asyncio.Future[bool]:
        """Done with the next piece of news, True; False: none can be had. To be asked for while ``waiting``,
        and waited for without being cancelled (clock.wait_for). It is read on from ``place`` where nobody
        has waited until now."""
        if self._next is None or self._next.done():
            self._next = asyncio.get_running_loop().create_future()
        if not self._running:
            self._running = True
            self._spawn(self._listen(place), "what nodes say of purges")
        return self._next

    async def _listen(self, place: Position) -> None:
        try:
            while self._waiting:
                streams: dict[Any, Any] = {self._key: f"{place[0]}-{place[1]}"}
                answer = await cast("Any", self._redis.xread(streams, count=_READ, block=self._block))
                for _, records in answer or ():
                    for name, fields in records:
                        place = read_place(name)
                        for field, value in fields.items():
                            self._heard(place, field, value)
                if answer:
                    self._tell(good=True)
        except Exception as error:  # noqa: BLE001  # whatever it was, who waits looks for himself
            log.debug("news of purges: %s: %s", type(error).__name__, error)
        finally:
            self._running = False
            self._tell(good=False)

    def _tell(self, *, good: bool) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(good)
