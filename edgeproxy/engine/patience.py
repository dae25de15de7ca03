"""A client's body has to go on coming: who sends one octet and stops must not keep a place at the origin.

Rules of this file: the time counts from one piece to the next, and only while the next is waited for; how
fast the origin takes them does not matter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from edgeproxy.clock import Clock

BETWEEN_PIECES = 60.0
"""Seconds that a client may take for the next piece of its body."""


async def in_time(body: AsyncIterator[bytes], clock: Clock) -> AsyncGenerator[bytes]:
    """The pieces of ``body``. Raises OriginError (REQUEST_BODY, 408) when the next one does not come."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one
    late = False

    def ring() -> None:
        nonlocal late
        late = True
        task.cancel()

    while True:
        timer = clock.call_later(BETWEEN_PIECES, ring)
        try:
            piece = await anext(body, None)
        except asyncio.CancelledError:
            if late and not task.uncancel():
                raise OriginError(OriginFailure.REQUEST_BODY, "it stopped coming", status=408) from None
            raise
        finally:
            timer.cancel()
        if piece is None:
            return
        yield piece
