"""The verbs of the core: bypass, decide, deliver, conclude.

Rules of this file:

- Pure: the same arguments give the same decision. ``now`` is given, nothing is read, kept or changed.
- bypass and decide speak before the origin is asked (below); conclude (conclude.py) once it has answered or
  failed; deliver (deliver.py) says in which form a stored answer goes out, whenever one does.
- What the client's Cache-Control asks counts only where the rule lets it (``honour_request_directives``),
  and never makes more stale answers possible than the answer itself allows (RFC 9111 §4.2.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.policy.cache_control import NO_DIRECTIVES, Directives, request_directives
from edgeproxy.policy.conclude import conclude
from edgeproxy.policy.decisions import (
    Decision,
    Fetch,
    Pass,
    Revalidate,
    Serve,
    ServeStale,
    Unsatisfiable,
)
from edgeproxy.policy.deliver import deliver
from edgeproxy.policy.lists import split_list
from edgeproxy.policy.parts import answers, fetch_beyond, fetch_missing
from edgeproxy.policy.validate import conditions_for
from edgeproxy.policy.vocabulary import Forwarded, PassReason, StaleReason, Unsatisfied

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, RequestHead
    from edgeproxy.policy.stored import Freshness, Overrides, Stored

__all__ = ["bypass", "conclude", "decide", "deliver", "insists"]

CACHED_METHODS = frozenset({"GET", "HEAD"})
_PRECONDITIONS = frozenset({"if-match", "if-unmodified-since"})
_NOT_FOR_A_CACHE = _PRECONDITIONS | {"upgrade"}


def bypass(request: RequestHead, overrides: Overrides) -> Pass | None:
    """Why the cache is neither asked nor filled for this request, or None."""
    if request.method not in CACHED_METHODS and not request.content_key:
        return Pass(request.unkeyed or PassReason.METHOD, Forwarded.METHOD)
    if overrides.pass_:
        return Pass(PassReason.RULE, Forwarded.BYPASS)
    special = not request.headers.isdisjoint(_NOT_FOR_A_CACHE)
    if special and _asks_for_upgrade(request.headers):
        return Pass(PassReason.UPGRADE, Forwarded.BYPASS)
    if request.has_body and not request.content_key:
        return Pass(PassReason.REQUEST_BODY, Forwarded.BYPASS)
    asked = _asked(request, overrides)
    if asked.only_if_cached:
        return None
    if asked.no_store:
        return Pass(PassReason.REQUEST_NO_STORE, Forwarded.REQUEST)
    if special and not request.headers.isdisjoint(_PRECONDITIONS):
        return Pass(PassReason.PRECONDITION, Forwarded.REQUEST)
    return None


def insists(request: RequestHead, overrides: Overrides) -> bool:
    """Whether an answer that was asked for before this request began will not do (§5.2.1.4)."""
    asked = _asked(request, overrides)
    return asked.no_cache or asked.max_age == 0


def _asks_for_upgrade(headers: Headers) -> bool:
    """Whether the client wants another protocol. An offer of HTTP/2 is none: a server may answer it as
    if it were not there (RFC 9110 §7.8), and the cache does."""
    offered = headers.get("upgrade")
    if offered is None or "upgrade" not in split_list((headers.get("connection") or "").lower()):
        return False
    return any(protocol not in ("h2c", "h2") for protocol in split_list(offered.lower()))


def decide(
    request: RequestHead,
    stored: Stored | None,
    overrides: Overrides,
    now: float,
    *,
    others: bool = False,
    uncacheable: bool = False,
) -> Decision:
    """What to do for a request that ``bypass`` let through.

    ``stored`` is the variant that the request selects. ``others``: there are only other variants.
    ``uncacheable``: the key is remembered as hit-for-miss.
    """
    asked = _asked(request, overrides)
    if stored is not None:
        served = _from_stored(request, stored, overrides, now, asked)
        if served is not None:
            return served
    if asked.only_if_cached:
        return Unsatisfiable(Unsatisfied.ONLY_IF_CACHED)
    if uncacheable:
        return Pass(PassReason.HIT_FOR_MISS, Forwarded.BYPASS)
    if stored is None:
        reason = Forwarded.VARY_MISS if others else Forwarded.URI_MISS
        return fetch_missing(request, reason, overrides)
    fresh = stored.freshness.is_fresh(now)
    reason = Forwarded.REQUEST if fresh else Forwarded.STALE
    if stored.part is not None:
        usable = fresh and not _asks_for_newer(asked, stored.freshness, now)
        return fetch_beyond(request, stored, reason, overrides, usable=usable)
    conditions = conditions_for(stored, request.method)
    return Revalidate(stored, conditions, reason) if conditions else Fetch(reason, stored)


def _from_stored(
    request: RequestHead, stored: Stored, overrides: Overrides, now: float, asked: Directives
) -> Serve | ServeStale | None:
    freshness = stored.freshness
    if not answers(request, stored) or freshness.must_validate or _asks_for_newer(asked, freshness, now):
        return None
    if freshness.is_fresh(now):
        return deliver(request, stored, overrides, now)
    staleness = now - freshness.fresh_until
    if freshness.never_stale or (asked.max_age is not None and asked.max_stale is None):
        # With max-age alone the client does not want a stale answer (RFC 9111 §5.2.1.1).
        return None
    if staleness >= overrides.stale_limit:
        return None
    refresh = staleness < freshness.stale_while_revalidate
    if not refresh and (asked.max_stale is None or staleness > asked.max_stale):
        return None
    reason = StaleReason.WHILE_REVALIDATE if refresh else StaleReason.REQUEST_ALLOWS
    return ServeStale(deliver(request, stored, overrides, now), reason, refresh)


def _asks_for_newer(asked: Directives, freshness: Freshness, now: float) -> bool:
    """Whether the request's no-cache, max-age or min-fresh rules this answer out (§5.2.1)."""
    if asked.no_cache:
        return True
    # max-age=0 asks for validation; an answer half a second old must not slip through as "0".
    if asked.max_age is not None and (not asked.max_age or freshness.age(now) > asked.max_age):
        return True
    return asked.min_fresh is not None and freshness.fresh_until - now < asked.min_fresh


def _asked(request: RequestHead, overrides: Overrides) -> Directives:
    return request_directives(request.headers) if overrides.honour_request_directives else NO_DIRECTIVES
