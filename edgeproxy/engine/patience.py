"""A client's body has to go on coming: who sends one octet and stops must not keep a place at the origin.

Rules of this file: the time counts only while the next piece is waited for; how fast the origin takes them
does not matter. A body has GRACE seconds in all, and what it has brought buys more, at the least rate that is
allowed; no single piece has more than BETWEEN_PIECES.
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
GRACE = 20.0
"""Seconds that a body may take, however slow it is."""


async def in_time(body: AsyncIterator[bytes], clock: Clock, least: float = 0.0) -> AsyncGenerator[bytes]:
    """The pieces of ``body``. Raises OriginError (REQUEST_BODY, 408) when the next one does not come, or all
    of them come at fewer than ``least`` octets a second."""
    waited = brought = 0.0
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one
    late = False

    def ring() -> None:
        nonlocal late
        late = True
        task.cancel()

    while True:
        began = clock.monotonic()
        left = GRACE + brought / least - waited if least else BETWEEN_PIECES
        timer = clock.call_later(min(BETWEEN_PIECES, max(0.0, left)), ring)
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
        waited += clock.monotonic() - began
        brought += len(piece)
        yield piece
