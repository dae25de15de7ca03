"""Server-sent events: answers that have no end worth waiting for.

Rules of this file: a stream of events (``text/event-stream``, HTML Living Standard §9.2) is one client's
conversation. It is neither stored nor shared, nobody waits for another's, and its silence means nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers

EVENT_STREAM = "text/event-stream"


def streams_events(answer: Headers) -> bool:
    """Whether the answer is a stream of events."""
    kind = answer.get("content-type")
    return kind is not None and kind.partition(";")[0].strip().lower() == EVENT_STREAM


def wants_events(request: Headers) -> bool:
    """Whether the request is for a stream of events, as EventSource asks for one."""
    accepted = request.get("accept")
    return accepted is not None and accepted.strip().lower() == EVENT_STREAM
