"""What the short way refuses with, rendered once a second for each kind of refusal, not for each request.

Rules of this file:

- Who is refused by the thousand must not cost what an answer does: the octets are handler.py's own, rendered
  with a mark in the place of the request's id (template.py). Two of a kind and second differ in nothing else.
- What tells of one request alone is not for here (None: the caller renders it): times that were measured, and
  ids of another shape than ours.
- Bounded: MOST kinds, and nothing older than the second.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from edgeproxy.front.template import Template
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import Tier

if TYPE_CHECKING:
    from edgeproxy.engine.exchange import FromEdge
    from edgeproxy.front.handler import Handler

MOST = 256
SHORTEST = 16
"""Characters of an id, so that a mark as long as it stands nowhere else."""


class Refusals:
    """Per worker."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._second = 0
        self._made: dict[object, tuple[Template, Template]] = {}
        self._timed = handler.responder.sends_response_time

    def octets(self, answer: FromEdge, trace: Trace) -> tuple[bytes, bytes] | None:
        """Head (without Connection and the empty line) and body of a GET's answer."""
        length = len(trace.request_id)
        measured = self._timed or trace.l2_seconds or trace.origin_seconds or trace.queue_seconds
        if measured or length < SHORTEST:
            return None
        second = int(self._handler.clock.now())
        if second != self._second or len(self._made) >= MOST:
            self._made.clear()
            self._second = second
        kind = (answer, trace.word, trace.failure, trace.unsatisfied, trace.pass_reason, length)
        made = self._made.get(kind)
        if made is None:
            made = self._made[kind] = self._make(answer, trace)
        trace.status, trace.tier = answer.status, Tier.EDGE
        head, body = made
        values = (trace.request_id.encode("latin-1"),)
        return b"".join(head.filled(values)), b"".join(body.filled(values))

    def _make(self, answer: FromEdge, trace: Trace) -> tuple[Template, Template]:
        length = len(trace.request_id)
        mark = token_hex(length)[:length]
        model = Trace(request_id=mark, word=trace.word, failure=trace.failure, unsatisfied=trace.unsatisfied)
        model.pass_reason = trace.pass_reason
        marks = (mark.encode(),)
        head, body = self._handler.problem(answer, "GET", model)
        return Template(head, marks), Template(body, marks)
