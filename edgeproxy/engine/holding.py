"""Holding a short answer back until it is whole, where there is a stale one to send in its place.

Rules of this file:

- Once a head is out, a body that breaks off is a broken answer, whatever is stored. So what a stale copy
  could stand in for is read to its end first; how long it may be silent is the origin client's to say.
- Only where the length is announced, and not above MOST: a long body, and one that is made as it goes, are
  streamed, whatever comes of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.origin.arrived import Here

if TYPE_CHECKING:
    from edgeproxy.engine.settle import Received

MOST = 128 * 1024
"""Octets."""


def may_be_held(reply: Received) -> bool:
    length = reply.body.length
    return length is not None and 0 < length <= MOST


async def held(reply: Received) -> Received:
    """The reply, its body here. Raises OriginError where that breaks off."""
    body = reply.body
    pieces: list[bytes] = []
    try:
        whole = body.take_all()
        if whole is None:
            while piece := await body.read():
                pieces.append(piece)
            whole = b"".join(pieces)
    finally:
        body.close()
    return replace(reply, body=Here(whole))
