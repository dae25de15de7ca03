"""Whether the parts work, asked every 10 s at most.

Rules of this file:

- However many ask, one check runs; the others get its result. What it found holds for KEPT seconds.
- A check that takes longer than LIMIT seconds is given up and says so: a probe never hangs on a dead part.
- A part that does not work makes the proxy ``degraded``, never unready: it goes on with what it has, and
  taking it out of service would only lose that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from edgeproxy.admin.control import PartHealth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.admin.control import Control
    from edgeproxy.clock import Clock

KEPT = 10.0
LIMIT = 1.0

_LOG = logging.getLogger("edgeproxy.admin")


class HealthBoard:
    def __init__(self, control: Control, clock: Clock, limit: float = LIMIT) -> None:
        self._control = control
        self._clock = clock
        self._limit = limit
        self._lock = asyncio.Lock()
        self._parts: Mapping[str, PartHealth] = {}
        self._until = float("-inf")

    async def parts(self) -> Mapping[str, PartHealth]:
        """How each part is. Never raises; takes LIMIT seconds at most."""
        if self._clock.monotonic() < self._until:
            return self._parts
        async with self._lock:
            if self._clock.monotonic() >= self._until:
                self._parts = await self._check()
                self._until = self._clock.monotonic() + KEPT
        return self._parts

    async def _check(self) -> Mapping[str, PartHealth]:
        try:
            async with asyncio.timeout(self._limit):
                return await self._control.health()
        except TimeoutError:
            detail = f"the parts did not answer within {self._limit:g} s"
            # The parts are known from an earlier check, or not at all.
            return {name: PartHealth(ok=False, detail=detail) for name in self._parts or ("parts",)}
        except Exception:  # noqa: BLE001 - a fault of a check is a fault of that part
            _LOG.exception("the parts could not be asked")
            return {"parts": PartHealth(ok=False, detail="the parts could not be asked; the log says more")}


def word(parts: Mapping[str, PartHealth]) -> str:
    return "ok" if all(part.ok for part in parts.values()) else "degraded"
