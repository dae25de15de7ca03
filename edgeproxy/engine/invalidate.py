"""What a successful write purges: its own URL, where it points, what its rule names (RFC 9111 §4.4), and the
groups that the answer names (RFC 9875 §3).

Rules of this file:

- Pure: from heads and rules to purge orders; the store carries them out.
- A URL is purged under every form that a rule's key may have given it: whoever purges does not know which
  rule stored the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.key import normalised_target
from edgeproxy.policy.invalidate import affected_targets, invalidates
from edgeproxy.rules.content import only_asks
from edgeproxy.rules.tags import MOST_GROUPS, cache_groups, invalidation_targets
from edgeproxy.store.purge import LONGEST, LONGEST_HOST, PurgeKind, PurgeOrder, octets

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead, ResponseHead
    from edgeproxy.rules.match import Matcher
    from edgeproxy.rules.model import Matched


def url_order(matcher: Matcher, host: str | None, target: str, *, soft: bool) -> PurgeOrder:
    """The order for one URL; ``host`` None: on any host."""
    path, mark, query = target.partition("?")
    forms = {
        normalised_target(path, query if mark else None, matched.rule.key)
        for matched in matcher.candidates(host or "", path)
    }
    return PurgeOrder(PurgeKind.URL, target, host=host, soft=soft, targets=tuple(sorted(forms - {target})))


def write_orders(
    matcher: Matcher, request: RequestHead, matched: Matched, answer: ResponseHead
) -> list[PurgeOrder]:
    """All that must be gone before the writer gets its answer; empty for safe methods and errors."""
    if not invalidates(request.method, answer.status) or only_asks(matched.rule, request):
        return []
    # What a client wrote must not be too long to be purged: then more is purged than it named.
    host = request.host if len(octets(request.host)) <= LONGEST_HOST else None
    orders = [url_order(matcher, host, target, soft=False) for _, target in affected_targets(request, answer)]
    for soft, kind, value in invalidation_targets(matched.rule, matched.parts, request.method):
        if kind == "url":
            orders.append(url_order(matcher, host, value, soft=soft))
        elif kind == "prefix":
            prefix = value if len(octets(value)) <= LONGEST else value[: LONGEST // 2]
            orders.append(PurgeOrder(PurgeKind.PREFIX, prefix, host=host, soft=soft))
        else:
            orders.append(PurgeOrder(PurgeKind(kind), value, soft=soft))
    # Groups belong to an origin (RFC 9875 §2.1): those of other hosts have nothing to do with it. The scheme
    # is left out of account, so that more may go, as for URLs.
    groups = dict.fromkeys(cache_groups(answer.headers.get("cache-group-invalidation") or ""))
    orders += [PurgeOrder(PurgeKind.TAG, group, host=host) for group in list(groups)[:MOST_GROUPS] if group]
    return orders
