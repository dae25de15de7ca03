"""Wrong tokens on the admin port cost time: who has sent some is made to wait before it may send another.

Rules of this file: counted for each client address, and only of requests that carry a token; while an address
has to wait, the right token of that address waits too, else waiting would tell which is right. Others are not
concerned, so nobody can lock an operator out from elsewhere.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from edgeproxy.admin.problem import Problem
from edgeproxy.engine.gates import Buckets
from edgeproxy.networks import one_client
from edgeproxy.rules.model import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from edgeproxy.clock import Clock

LIMIT = RateLimit(rate=0.1, burst=10)
"""Ten at once, and another every ten seconds."""


class Attempts:
    """Of one admin listener."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets = Buckets(4096)

    def check(self, request: web.Request, check: Callable[[web.Request], None]) -> None:
        """``check``, with a limit on failing it. Raises Problem."""
        if "Authorization" not in request.headers:
            check(request)
            return
        who = one_client(request.remote or "")
        wait = self._buckets.wait("", who, LIMIT, self._clock.monotonic(), take=False)
        if wait:
            seconds = str(max(1, ceil(wait)))
            raise Problem(
                429, f"too many wrong tokens from {who}: wait {seconds} s", {"Retry-After": seconds}
            )
        try:
            check(request)
        except Problem as refused:
            if refused.status == 401:
                self._buckets.wait("", who, LIMIT, self._clock.monotonic(), take=True)
            raise
