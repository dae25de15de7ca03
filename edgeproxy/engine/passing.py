"""Past the cache: forward as it is, and carry out what a successful write invalidates.

Rules of this file:

- A write that succeeded purges before its client is answered (RFC 9111 §4.4), and its client's leaving does
  not keep it from that. Of a safe request nothing but its own answer depends: it ends with its client.
- A POST's answer that says it is one to GET as well is kept for GET, fenced like any other fetch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.engine.ask import Ask
from edgeproxy.engine.exchange import Answer, Exchange, FromEdge, FromStream
from edgeproxy.engine.failures import failure
from edgeproxy.engine.invalidate import write_orders
from edgeproxy.engine.patience import in_time
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.coding import content_coding
from edgeproxy.policy.decide import bypass
from edgeproxy.policy.invalidate import SAFE
from edgeproxy.policy.max_forwards import one_hop_on
from edgeproxy.policy.post import as_get
from edgeproxy.policy.vary import reduced_for_origin
from edgeproxy.policy.vocabulary import CacheWord, PassReason, Tier
from edgeproxy.rules.content import only_asks

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.engine.exchange import Reader
    from edgeproxy.engine.fetch import Fetcher
    from edgeproxy.engine.forward import ForwardBuilder
    from edgeproxy.engine.settle import Received, Settler
    from edgeproxy.policy import decisions as d
    from edgeproxy.rules.match import Matcher
    from edgeproxy.rules.model import Matched
    from edgeproxy.store.base import Store


class Passer:
    """One worker's way past the cache."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        fetcher: Fetcher,
        settler: Settler,
        forward: ForwardBuilder,
        least: float,
    ) -> None:
        """``least``: octets a second that clients have to send of a body; 0: any."""
        self._clock = clock
        self._least = least
        self._store = store
        self._fetcher = fetcher
        self._settler = settler
        self._forward = forward

    async def forward(
        self, exchange: Exchange, matched: Matched, passing: d.Pass, matcher: Matcher
    ) -> Answer:
        """Neither ask the cache nor fill it, but for what a write says of it."""
        trace = exchange.trace
        trace.pass_reason = passing.reason
        trace.forwarded = passing.forwarded
        trace.word = CacheWord.BYPASS
        onward = one_hop_on(exchange.head)
        if onward is None:
            trace.tier, trace.forwarded = Tier.EDGE, None
            return FromEdge(501, "This is as far as the request goes", "Max-Forwards is 0.")
        exchange.head = onward
        if exchange.head.method in SAFE or only_asks(matched.rule, exchange.head):
            # Nobody else waits for this answer: when its client leaves, the work ends. What a write has
            # changed must be purged all the same.
            exchange.leave_with_client()
        if exchange.upgrade is not None and (refusal := exchange.upgrade.admit(matched.rule)) is not None:
            trace.tier = Tier.EDGE
            return refusal
        epoch = self._store.epoch
        if exchange.body is not None:
            exchange.body = in_time(exchange.body, self._clock, self._least)
        try:
            reply = await self._fetcher.ask_origin(trace, self._forward.passed(exchange, matched.rule))
        except OriginError as error:
            return failure(trace, error)
        body: Reader = reply.body
        try:
            ask = self._ask_for_get(exchange, reply, matcher)
            draft = None if ask is None else self._settler.adopt(ask, reply, epoch)
            last = self._store.epoch
            orders = write_orders(matcher, exchange.head, matched, reply.head)
            for at, order in enumerate(orders, 1):
                # The log is in order: who has confirmed the last of them has carried out all.
                receipt = await self._store.purge(order, wait=at == len(orders))
                number = receipt.number
                if not receipt.complete:
                    trace.pass_reason = PassReason.PURGE_PENDING
                if ask is not None and draft is not None and number == last + 1:
                    # The first order is for its own URL, and the answer is newer than what that purges.
                    # Another purge in between may not be; those that come after are compared when it is
                    # stored.
                    body = self._settler.keep(ask, draft, reply, number)
                draft = None
        except BaseException:
            body.close()  # it holds a place at the origin
            raise
        exchange.leave_with_client()
        return FromStream(reply.head, body, matched.rule, shareable=False)

    @staticmethod
    def _ask_for_get(exchange: Exchange, reply: Received, matcher: Matcher) -> Ask | None:
        """The GET that a POST's answer is one to as well (RFC 9110 §9.3.3), if the rules let it be stored."""
        head = as_get(exchange.head, reply.head)
        if head is None:
            return None
        matched = matcher.match(head)
        overrides = matched.rule.overrides
        if bypass(head, overrides) is not None:
            return None
        # A POST goes as it came. A GET would have been sent with less, and the variant is named by that.
        if content_coding(reply.head.headers) or reduced_for_origin(head.headers, overrides) != head.headers:
            return None
        return Ask.of(replace(exchange, head=head), matched)
