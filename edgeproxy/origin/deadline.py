"""A limit on the whole of an exchange: waiting, connecting, head and body.

Rules of this file: only pools that say ``whole`` come here, for it costs a timer for each wait. What is late
is closed, its place given back, before the caller hears of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.clock import Clock
    from edgeproxy.origin.base import AnswerBody, OriginReply
    from edgeproxy.policy.head import ResponseHead

T = TypeVar("T")


async def by(due: float, clock: Clock, work: Awaitable[T]) -> T:
    """``work``, until clock.now() is ``due``. Raises OriginError(WHOLE_TIMEOUT)."""
    loop = asyncio.get_running_loop()
    try:
        # asyncio.timeout is driven by the loop's clock; ours ends it by moving its deadline to now.
        async with asyncio.timeout(None) as scope:
            timer = clock.call_later(max(0.0, due - clock.now()), lambda: scope.reschedule(loop.time()))
            try:
                return await work
            finally:
                timer.cancel()
    except TimeoutError as error:
        raise OriginError(OriginFailure.WHOLE_TIMEOUT) from error


class TimedBody:
    """``AnswerBody`` of origin/base.py that ends at ``due``; ``late`` is told of it, once."""

    def __init__(
        self, body: AnswerBody, due: float, clock: Clock, late: Callable[[OriginError], object]
    ) -> None:
        self._body = body
        self._due = due
        self._clock = clock
        self._late = late
        self._error: OriginError | None = None
        self.length = body.length

    def take_all(self) -> bytes | None:
        return self._body.take_all()

    async def read(self) -> bytes:
        if self._error is not None:
            raise self._error
        try:
            return await by(self._due, self._clock, self._body.read())
        except OriginError as error:
            if error.failure is OriginFailure.WHOLE_TIMEOUT:
                self._error = error
                self._body.close()
                self._late(error)
            raise

    def close(self) -> None:
        self._body.close()


class TimedReply:
    """``OriginReply`` of origin/base.py with a TimedBody."""

    __slots__ = ("body", "head", "request_time", "response_time", "status")

    def __init__(self, reply: OriginReply, body: TimedBody) -> None:
        self.head: ResponseHead = reply.head
        self.status = reply.status
        self.body: AnswerBody = body
        self.request_time = reply.request_time
        self.response_time = reply.response_time
