"""Who has changed what by the admin port, when, and what came of it: in the log, and the last on request.

Rules of this file: each request that would change something is told once, refused ones too, as one line of
JSON under the logger ``edgeproxy.audit``; no token is ever among it. The last KEPT are held in memory.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from edgeproxy.admin.control import Refused
from edgeproxy.admin.problem import Problem, to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from edgeproxy.clock import Clock

KEPT = 500
LONGEST = 200
"""Characters of what a client calls itself."""
DETAIL = web.RequestKey("audit", dict[str, object])
"""The key of a request under which its handler leaves what it did."""

log = logging.getLogger("edgeproxy.audit")


class Audit:
    """Of one admin listener."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: deque[Mapping[str, object]] = deque(maxlen=KEPT)

    def last(self) -> list[Mapping[str, object]]:
        """Newest first."""
        return [*reversed(self._last)]

    async def told(self, request: web.Request, work: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """What ``work`` answers or raises, and that it did."""
        status = 500
        try:
            answer = await work
            status = answer.status
            return answer  # noqa: TRY300 - what comes after is for every end
        except Problem as refused:
            status = refused.status
            raise
        except Refused:
            status = 400
            raise
        finally:
            said: Mapping[str, object] = {
                "time": datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds"),
                "client": request.remote or "",
                "agent": request.headers.get("User-Agent", "")[:LONGEST],
                "request": f"{request.method} {request.path}",
                "status": status,
                **request.get(DETAIL, {}),
            }
            self._last.append(said)
            log.info("%s", to_json(said).decode().strip())
