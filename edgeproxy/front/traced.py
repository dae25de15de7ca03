"""Which requests are recorded as spans, and that the fast ways leave those to the ordinary one.

Rules of this file:

- Only used when spans are exported: without, the lane and the short way are the plain ones.
- Who says that its trace is recorded, is followed, and so is who says that it is not (traceparent's flag):
  of those that may say so (followed.py). Of requests without a trace, a share begins one.
- That is drawn once for each request, whoever asks first: what was drawn is remembered by the segment itself,
  until the ordinary way has it. Bounded.
- What is not recorded goes the fast ways; the fields of who is followed go to the origin as they came.
"""

from __future__ import annotations

import re
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from edgeproxy.front.lane import Lane
from edgeproxy.front.short import ShortWay
from edgeproxy.policy.trace_context import SAMPLED, Span, parent_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http_parser import RawRequestMessage

    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.policy.head import Headers

MOST_DRAWN = 256

_PARENT = re.compile(
    rb"\r\ntraceparent:[ \t]*[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})", re.IGNORECASE
)


class Sampling:
    """``share`` of the requests that begin a trace, 0 to 1. ``chance`` gives 0 to 1. ``followed``: of which
    peers traceparent is read."""

    def __init__(self, share: float, chance: Callable[[], float], followed: Callable[[str], bool]) -> None:
        self._share = share
        self._followed = followed
        self._chance = chance
        self._drawn: dict[int, tuple[bytes, bool]] = {}
        """By the id of a segment: the segment, which is held so that its id stays its own, and what was
        drawn."""

    def wants(self, data: bytes, peer: str) -> bool:
        """Whether the request in ``data``, one whole head of ``peer``'s, may have to be recorded."""
        held = self._drawn.get(id(data))
        if held is not None:
            return held[1]
        if len(self._drawn) >= MOST_DRAWN:
            self._drawn.clear()
        told = _PARENT.search(data)
        if told is not None and self._followed(peer):
            wanted = bool(int(told[1], 16) & SAMPLED)
        else:
            wanted = self._draw()
        self._drawn[id(data)] = (data, wanted)
        return wanted

    def begin(self, headers: Headers, data: bytes | None) -> Span | None:
        """The span of a request that has come the ordinary way; None where it is not recorded. ``headers``:
        what is kept of them (followed.py); ``data``: its octets, where it came alone and whole."""
        held = None if data is None else self._drawn.pop(id(data), None)
        parent = parent_of(headers)
        drawn = self._draw() if held is None else held[1]
        if not (drawn if parent is None else parent.sampled):
            return None
        span_id, fetch_id = token_hex(8), token_hex(8)
        if parent is None:
            return Span(token_hex(16), span_id, fetch_id, "", "")
        return Span(parent.trace_id, span_id, fetch_id, parent.span_id, parent.state)

    def _draw(self) -> bool:
        return self._chance() < self._share


class TracedLane(Lane):
    """Declines what is recorded. ``parts`` are Lane's."""

    def __init__(self, sampling: Sampling, **parts: Any) -> None:
        super().__init__(**parts)
        self.sampling = sampling

    def answer(self, protocol: EdgeProtocol, data: bytes) -> bool:
        return not self.sampling.wants(data, protocol.client) and super().answer(protocol, data)

    def answer_parsed(self, protocol: EdgeProtocol, data: bytes) -> bool:
        return not self.sampling.wants(data, protocol.client) and super().answer_parsed(protocol, data)


class TracedShortWay(ShortWay):
    """Declines what is recorded. ``parts`` are ShortWay's."""

    def __init__(self, sampling: Sampling, **parts: Any) -> None:
        super().__init__(**parts)
        self.sampling = sampling

    def known(self, protocol: EdgeProtocol, data: bytes) -> bool:
        return not self.sampling.wants(data, protocol.client) and super().known(protocol, data)

    def parsed(self, protocol: EdgeProtocol, message: RawRequestMessage, data: bytes) -> bool:
        return not self.sampling.wants(data, protocol.client) and super().parsed(protocol, message, data)
