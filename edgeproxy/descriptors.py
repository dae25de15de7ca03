"""How the descriptors that a process may open (``ulimit -n``) are shared out: clients, origins, all else.

Rules of this file: what is kept for all else (files, the store, operators) is nobody's; origins have what is
left then, and where that is nothing clients have half.
"""

from __future__ import annotations

import math

from edgeproxy.value import value

KEPT = 64
LEAST_KEPT = 40
"""Where there are few: what a process has open by itself, about 20, and as many for operators."""


@value
class Shares:
    """``clients``: connections of clients; ``concurrent``: requests at one origin at once; ``origins``:
    connections to all origins together."""

    clients: int
    concurrent: int
    origins: float


def shared_out(clients: int, concurrent: int, descriptors: int | None) -> Shares:
    """What of the first two, which are wanted, can be had. ``descriptors`` None: any number."""
    if descriptors is None:
        return Shares(clients, concurrent, math.inf)
    kept = max(LEAST_KEPT, min(KEPT, descriptors // 4))
    clients = max(1, min(clients, max(descriptors - concurrent - kept, descriptors // 2)))
    origins = max(1, descriptors - clients - kept)
    return Shares(clients, min(concurrent, origins), origins)
