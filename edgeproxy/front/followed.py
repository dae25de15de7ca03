"""Whose request ids and trace contexts are taken over: X-Request-ID, traceparent and tracestate.

Rules of this file:

- Whoever names a request decides what it is called in logs, and whether origins record it (traceparent's
  flag): that is for peers that the operator trusts, or for all, or for nobody.
- Of everybody else these fields are as if they had not come: they select nothing, go nowhere, and the request
  has an id of ours. (W3C Trace Context has a name for it: the trace is restarted.)
- Where only some are followed, the same octets mean one thing from one peer and another from others. What is
  remembered by octets alone must not hold TRACE then (``unsure``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from edgeproxy.networks import NOBODY, Networks
from edgeproxy.policy.trace_context import TRACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.networks import Network
    from edgeproxy.policy.head import Headers

NOTHING: frozenset[str] = frozenset()


@final
class Followed:
    """``who``: trusted, all or none; ``proxies``: those that are trusted."""

    def __init__(self, who: str = "none", proxies: Sequence[Network] = ()) -> None:
        self._all = who == "all"
        self._proxies = Networks(proxies) if who == "trusted" else NOBODY
        self.unsure = TRACE if self._proxies else NOTHING
        """Fields that mean something from some peers alone."""

    def __call__(self, peer: str) -> bool:
        return self._all or peer in self._proxies

    def kept(self, headers: Headers, peer: str) -> Headers:
        """The fields of ``peer``'s request that mean something."""
        return headers if headers.isdisjoint(TRACE) or self(peer) else headers.without(TRACE)
