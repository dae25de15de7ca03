"""Max-Forwards: how many more hops an OPTIONS or a TRACE may make (RFC 9110 §7.6.2).

Rules of this file: for those two methods only; "for other request methods, a recipient MAY ignore" it, and it
goes on as it came. A value that is no number is none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.policy.http_date import delta_seconds

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead

_COUNTED = frozenset({"OPTIONS", "TRACE"})


def one_hop_on(request: RequestHead) -> RequestHead | None:
    """What the next hop is sent; None where this one is the last and answers by itself."""
    value = request.headers.get("max-forwards") if request.method in _COUNTED else None
    left = None if value is None else delta_seconds(value)
    if left is None:
        return request
    if left == 0:
        return None
    return replace(request, headers=request.headers.setting("Max-Forwards", str(left - 1)))
