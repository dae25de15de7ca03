"""When the answer to a POST is one to GET as well (RFC 9110 §9.3.3).

Rules of this file:

- Only where the origin says both things that §9.3.3 asks for: an explicit lifetime, and a Content-Location
  that is the target itself ("the result is what you would get there", §8.7). A rule's ttl is neither.
- The answer is stored under the GET; a POST is never answered from the cache.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.policy.freshness import states_lifetime
from edgeproxy.policy.invalidate import same_host_target

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead, ResponseHead


def as_get(request: RequestHead, head: ResponseHead) -> RequestHead | None:
    """The GET that this answer may be reused for, or None."""
    if request.method != "POST" or head.status != 200 or not states_lifetime(head):
        return None
    locations = head.headers.get_all("content-location")
    if len(locations) != 1 or same_host_target(request, locations[0]) != request.target:
        return None
    # What described the POST's own content is not part of the GET.
    headers = request.headers.without(
        {"content-type", "content-encoding", "content-language", "content-length"}
    )
    return replace(request, method="GET", headers=headers, has_body=False, content_key="", unkeyed=None)
