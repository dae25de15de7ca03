"""An answer whose body is still under way, in the form that one client asked for.

Rules of this file: joining the body and choosing the form happen in one step, without an await, so that the
body cannot outgrow its first octets in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.engine.body import SlicedReader
from edgeproxy.engine.exchange import Answer, FromEntry, FromStream
from edgeproxy.policy import decisions as d
from edgeproxy.policy.decide import deliver
from edgeproxy.policy.head import ResponseHead
from edgeproxy.policy.joining import OF_THE_MESSAGE, content_range
from edgeproxy.policy.stored import Part

if TYPE_CHECKING:
    from edgeproxy.engine.ask import Ask
    from edgeproxy.engine.coalesce import Streaming
    from edgeproxy.engine.exchange import Reader
    from edgeproxy.store.entry import Entry


def stream_of(ask: Ask, draft: Entry, outcome: Streaming, now: float, *, own: bool = False) -> Answer:
    """The form of a body still under way that this client asked for, or, if it is its ``own``, was sent."""
    stored = draft.stored
    serve = deliver(ask.exchange.head, stored, ask.rule.overrides, now, own=own)
    reader = outcome.body.join()
    if serve.form is d.Form.FULL:
        head = ResponseHead(stored.status, stored.reason, stored.headers)
        return FromStream(head, reader, ask.rule, shareable=True, age=serve.age)
    if serve.form is d.Form.PARTIAL and len(serve.ranges) == 1:
        start, stop = serve.ranges[0]
        headers = stored.headers.without(OF_THE_MESSAGE)
        said = content_range(Part(start, stop, stored.complete_length))
        head = ResponseHead(206, "Partial Content", headers.setting("Content-Range", said))
        sliced: Reader = reader
        if stored.part is None or serve.at != start or stop != stored.part.stop:
            sliced = SlicedReader(reader, start - serve.at, stop - serve.at)
        return FromStream(head, sliced, ask.rule, shareable=True, age=serve.age)
    if serve.form is d.Form.PARTIAL:
        # Several ranges of a body that is not here yet: the whole is a correct answer (RFC 9110 §14.2).
        head = ResponseHead(stored.status, stored.reason, stored.headers)
        return FromStream(head, reader, ask.rule, shareable=True, age=serve.age)
    reader.close()
    return FromEntry(draft, serve, ask.rule)
