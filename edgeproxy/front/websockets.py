"""All WebSockets of a worker: who may open one, what sweeps them, how they end with the worker.

Rules of this file:

- A handshake is one by RFC 6455 §4.2.1 or it is none: then it is forwarded as a plain request, without its
  Upgrade, as every other protocol's is (RFC 9110 §7.8 lets a server ignore it).
- A place is taken before the origin is asked and given back when the connection is gone: under the rule's
  limit and the worker's.
- One timer for all: each second it looks at those that are due.
- When the worker drains they are closed (1001) spread over its time, so that their clients do not all come
  back at once; what is left at its deadline is cut.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from edgeproxy.engine.exchange import FromEdge
from edgeproxy.front.frames import GOING_AWAY
from edgeproxy.front.request import HTTP_1_1
from edgeproxy.front.sender import ClientGone
from edgeproxy.front.websocket import Relay
from edgeproxy.policy.lists import split_list

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

    from edgeproxy.clock import Clock, Timer
    from edgeproxy.front.sender import Sender
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.observe.sockets import SocketTally
    from edgeproxy.observe.trace import Trace
    from edgeproxy.origin.base import Tunnel
    from edgeproxy.policy.head import Headers, RequestHead
    from edgeproxy.rules.model import Rule

SWEEP = 1.0
"""Seconds between two looks at what is due."""
PACE = 0.02
"""Seconds for each WebSocket that a drain closes, on average: 50 clients a second come back elsewhere."""
SHARE = 0.7
"""Of the drain's time in which all have been told; the rest is for their answers."""
SWITCH = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

_OFF = FromEdge(403, "No WebSockets here", "The rule for this path does not let them through.")
_FULL = FromEdge(503, "Too many WebSockets", "No more can be opened now.", (("Retry-After", "5"),))


def is_handshake(message: RawRequestMessage, head: RequestHead) -> bool:
    """Whether the client asks to go on as a WebSocket (RFC 6455 §4.2.1)."""
    fields = head.headers
    return (
        head.method == "GET"
        and message.version >= HTTP_1_1
        and not head.has_body
        and split_list((fields.get("upgrade") or "").lower()) == ["websocket"]
        and "upgrade" in split_list((fields.get("connection") or "").lower())
        and len(fields.get_all("sec-websocket-key")) == 1
        and "sec-websocket-version" in fields
    )


class Handshake:
    """``Upgrade`` of engine/exchange.py: one client's asking."""

    __slots__ = ("_sockets", "rule")

    def __init__(self, sockets: WebSockets) -> None:
        self._sockets = sockets
        self.rule: Rule | None = None
        """Under which a place was taken."""

    def admit(self, rule: Rule) -> FromEdge | None:
        refusal = self._sockets.enter(rule)
        if refusal is None:
            self.rule = rule
        return refusal

    def leave(self) -> None:
        """Give the place back."""
        if self.rule is not None:
            self._sockets.leave(self.rule)
            self.rule = None


class WebSockets:
    """``most``: open at a time."""

    def __init__(self, clock: Clock, tally: SocketTally, most: int) -> None:
        self._clock = clock
        self._tally = tally
        self._most = most
        self.places: dict[str, int] = {}
        """Taken, by the rule's name; a handshake under way has one."""
        self._taken = 0
        self.relays: set[Relay] = set()
        """Those that are open."""
        self._sweeper: Timer | None = None
        self._draining = False
        self._random = random.Random()  # noqa: S311 - only to spread them

    def __len__(self) -> int:
        return len(self.relays)

    # -- places -----------------------------------------------------------------------------------------

    def enter(self, rule: Rule) -> FromEdge | None:
        """Take a place, or say why not."""
        limits, taken = rule.websocket, self.places.get(rule.name, 0)
        refusal = None
        if not limits.enabled:
            refusal = _OFF
        elif self._draining or self._taken >= self._most or taken >= (limits.connections or self._most):
            refusal = _FULL
        if refusal is not None:
            self._tally.refused += 1
            return refusal
        self.places[rule.name] = taken + 1
        self._taken += 1
        return None

    def leave(self, rule: Rule) -> None:
        self._taken -= 1
        left = self.places[rule.name] - 1
        if left:
            self.places[rule.name] = left
        else:
            del self.places[rule.name]

    # -- one of them ------------------------------------------------------------------------------------

    async def serve(
        self, protocol: EdgeProtocol, sender: Sender, head: bytes, answer: Headers, tunnel: Tunnel,
        rule: Rule, trace: Trace,
    ) -> None:  # fmt: skip
        """Be in the middle until both sides are gone. ``head``: of the 101, without what switches;
        ``answer``: its fields. Raises ClientGone and OriginError where one of them is gone before it begins.
        """
        if protocol.transport is None or protocol.transport.is_closing():
            raise ClientGone
        limits, tally = rule.websocket, self._tally
        relay = Relay(self._clock, limits, tally, extended="sec-websocket-extensions" in answer)
        transport, late = tunnel.take_over(relay.origin)
        relay.origin.attach(transport, tunnel.lost)
        sender.started, sender.keep_alive = True, False
        full = protocol.writing_paused
        transport, early = protocol.hand_over(relay.client)
        relay.client.attach(transport, protocol.connection_lost)
        transport.write(head + SWITCH)
        self.relays.add(relay)
        tally.opened += 1
        tally.open += 1
        try:
            if full:
                relay.client.pause_writing()
            # What came behind the 101 and behind the handshake.
            if late:
                relay.origin.data_received(late)
            if early:
                relay.client.data_received(early)
            if self._draining:
                relay.close(GOING_AWAY, "the edge is going away")
            self._watch()
            await relay.done
        finally:
            relay.abort()  # where we are ended from without
            self.relays.discard(relay)
            tally.open -= 1
            trace.bytes_in, sender.body_octets = relay.client.octets, relay.client.sent
            if relay.closed is not None:
                side, code = relay.closed
                trace.closed = f"{side} {code}"
                trace.aborted = code == 1006

    # -- all of them ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._sweeper is None and self.relays:
            self._sweeper = self._clock.call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._clock.monotonic()
        for relay in [r for r in self.relays if r.due <= now]:
            relay.look(now)
        self._watch()

    def drain(self, seconds: float) -> None:
        """Close all of them within ``seconds``; let no more in."""
        self._draining = True
        spread = min(seconds * SHARE, len(self.relays) * PACE)
        for relay in self.relays:
            delay = self._random.uniform(0, spread)
            self._clock.call_later(delay, relay.close, GOING_AWAY, "the edge is going away")
