"""What the short way remembers of header blocks that the parser has accepted.

Rules of this file:

- What is remembered of a block (its fields; under each rule, the octets the origin is sent, and in what
  manner it may be answered) depends on its octets and the rule alone. A rule's part is forgotten at a reload.
- A block is learned when it is seen a second time. Bounded, in number and in octets: clients make up what
  blocks they like.
- The octets for the origin are forward.py's and framing.py's, rendered with marks (template.py).
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, final

from edgeproxy.engine.exchange import Exchange
from edgeproxy.engine.mould import is_plain
from edgeproxy.engine.prompt import Manner
from edgeproxy.front.seen import Seen
from edgeproxy.front.template import Template
from edgeproxy.key import plain_prefix
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.framing import request_head
from edgeproxy.policy.events import wants_events
from edgeproxy.policy.head import RequestHead

if TYPE_CHECKING:
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.prompt import Call
    from edgeproxy.policy.head import Headers
    from edgeproxy.rules.model import Rule

MOST_BLOCKS = 4096
MOST_OCTETS = 16 * 1024 * 1024
"""Of all blocks, and of what the origin is sent under them."""
LONGEST = 8 * 1024
"""Octets of a block that is remembered."""
MOST_SEEN = 65_536
MOST_PLANS = 16
"""Rules under which one block's octets for the origin are remembered."""


@final
class Block:
    """A header block: its fields, its host, and per rule the octets that the origin is sent and the manner in
    which it is answered."""

    __slots__ = (
        "accepted",
        "events",
        "headers",
        "host",
        "learnable",
        "manners",
        "plain",
        "plans",
    )

    def __init__(self, headers: Headers, host: str, *, learnable: bool) -> None:
        self.headers = headers
        self.accepted = headers.get("accept-encoding")
        self.plain = is_plain(headers)
        self.events = wants_events(headers)
        self.manners: dict[object, tuple[Rule, Manner]] = {}
        self.host = host
        self.learnable = learnable
        self.plans: dict[object, Plan] = {}


@final
class Plan:
    """``filled`` gives the pieces of a request's head under one rule, with target, request id, client's
    address and Forwarded put in. The rule is held, so that its id stays its own."""

    __slots__ = ("filled", "octets", "rule")

    def __init__(self, rule: Rule, template: Template, octets: int) -> None:
        self.rule = rule
        self.octets = octets
        self.filled = template.filled


class Plans:
    """Per worker. ``authority``: of the origin, where no rule says otherwise."""

    def __init__(self, forward: ForwardBuilder, authority: str) -> None:
        self._forward = forward
        self._authority = authority
        self._blocks: dict[bytes, Block] = {}
        self.block = self._blocks.get
        """The block that has these octets, if it is known."""
        self._octets = 0
        self._seen = Seen(MOST_SEEN)

    def forget(self) -> None:
        """After a reload. What the parser made of a header block has nothing to do with rules, and stays."""
        for block in self._blocks.values():
            block.plans.clear()
            block.manners.clear()
        self._octets = sum(map(len, self._blocks))

    def learn(self, octets: bytes, block: Block) -> None:
        """The parser has made ``block`` of these octets."""
        if len(octets) <= LONGEST and self._seen.before(octets):
            self._hold(len(octets))
            self._blocks[octets] = block

    def _hold(self, octets: int) -> None:
        """So many more are held; where that is too much, all that were are let go of."""
        self._octets += octets
        if self._octets > MOST_OCTETS or len(self._blocks) >= MOST_BLOCKS:
            self._blocks.clear()
            self._octets = octets

    @staticmethod
    def manner(block: Block, head: RequestHead, rule: Rule) -> Manner:
        """In which what has ``block`` may be answered under ``rule``."""
        key = (id(rule), head.scheme)
        known = block.manners.get(key)
        if known is not None:
            return known[1]
        if len(block.manners) >= MOST_PLANS:
            block.manners.clear()
        manner = Manner(block.plain, block.events, plain_prefix(head, rule.key))
        block.manners[key] = (rule, manner)  # the rule is held, so that its id stays its own
        return manner

    def octets(self, block: Block, exchange: Exchange, rule: Rule, call: Call) -> bytes:
        """What the origin is sent of a request."""
        head, trace, client = exchange.head, exchange.trace, exchange.client
        key = (id(rule), call.passed, call.alone, head.scheme, bool(client))
        plan = block.plans.get(key)
        if plan is None:
            if len(block.plans) >= MOST_PLANS:
                block.plans.clear()
            plan = self._made(exchange, rule, call)
            self._hold(plan.octets)
            block.plans[key] = plan
        forwarded = self._forward.forwarded(exchange, rule) if self._forward.with_forwarded else ""
        values = (head.target, trace.request_id, client, forwarded)
        return b"".join(plan.filled([value.encode("latin-1") for value in values]))

    def _made(self, exchange: Exchange, rule: Rule, call: Call) -> Plan:
        """The octets as forward.py and framing.py make them, with marks where a request's own values go."""
        mark = token_hex(16)
        marks = (f"/{mark}t", f"{mark}i", f"{mark}c", f"{mark}f")
        head = exchange.head
        model = Exchange(
            head=RequestHead("GET", head.scheme, head.host, marks[0], head.headers),
            trace=Trace(request_id=marks[1]),
            client=marks[2] if exchange.client else "",
            forwarded=marks[3],
        )
        if call.passed:
            forward = self._forward.passed(model, rule)
        else:
            forward = self._forward.whole(model, rule, conditionals=call.alone)
        octets = request_head(forward, self._authority)
        return Plan(rule, Template(octets, [text.encode() for text in marks]), len(octets))
