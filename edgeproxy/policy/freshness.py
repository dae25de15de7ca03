"""How old an answer is and how long it may be used (RFC 9111 §4.2) -> frozen Freshness.

Rules of this file:

- Lifetime, in this order: the rule's status_ttl, the rule's ttl, then what the answer says (the targeted
  field, s-maxage, max-age, Expires), then the heuristic. The first that is there counts.
- A rule's durations count from receipt: "ttl: 30s" is 30 s here, whatever Age an upstream cache sent. The
  Age that clients see stays the true one.
- A rule's ``ttl`` and ``ttl_min`` are for answers below 400. How long an error is kept is said by
  ``status_ttl`` or by the answer itself: else fifteen minutes for a page were fifteen minutes for its 500.
- No window is longer than the cap on staleness (``Overrides.stale_limit``), whoever gives it.
- A rule's lifetime lifts no prohibition: no-cache, must-revalidate and their kin hold until the rule says
  the ``unsafe`` word (no-store and private are storable.py's).
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

from edgeproxy.policy.cache_control import Directives, effective_directives
from edgeproxy.policy.http_date import delta_seconds, parse_http_date
from edgeproxy.policy.lists import split_list
from edgeproxy.policy.stored import Freshness, LifetimeSource, Unsafe
from edgeproxy.policy.validate import has_validator

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, ResponseHead
    from edgeproxy.policy.stored import Overrides

HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""RFC 9110 §15.1."""
OF_ONE_REQUEST = frozenset({
    400, 401, 403, 406, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431,
})  # fmt: skip
"""Errors that speak of who asked and how: of fields that no key holds, such as one that is too large. A rule
that gives a lifetime to "4xx" means what has become of the resource; to keep one of these it names it."""
HEURISTIC_FRACTION = 0.1
"""Of the time since Last-Modified, as RFC 9111 §4.2.2 suggests."""
HEURISTIC_MAXIMUM = 24 * 3600.0
DEFAULT_DISCONNECTED = 30.0
"""Seconds that a stale answer may be sent for while the origin cannot be reached (RFC 9111 §4.2.4), where
nobody said how long it may be sent on errors."""
DEFAULT_KEEP = 3600.0
"""Seconds that an answer with a validator is kept past its use, to be confirmed rather than fetched."""


def freshness_of(
    head: ResponseHead, request_time: float, response_time: float, overrides: Overrides
) -> Freshness:
    """The freshness of an answer whose request left at ``request_time`` and whose head arrived at
    ``response_time``."""
    directives = effective_directives(head.headers)
    age = initial_age(head.headers, request_time, response_time)
    source, lifetime = _lifetime(head, directives, age, response_time, overrides)
    # A rule's windows are meant for the answers its ttl is meant for, not for errors it says nothing of.
    meant = head.status < 400 or status_ttl(head.status, overrides) is not None
    limit = overrides.stale_limit
    return Freshness(
        received=response_time,
        initial_age=age,
        lifetime=lifetime,
        stale_while_revalidate=_window(
            overrides.stale_while_revalidate if meant else None, directives.stale_while_revalidate, limit
        ),
        stale_if_error=_window(overrides.stale_if_error if meant else None, directives.stale_if_error, limit),
        stale_if_disconnected=min(limit, _disconnected(directives, overrides)) if meant else 0.0,
        keep=_keep(head.headers, overrides),
        must_validate=directives.no_cache and Unsafe.NO_CACHE not in overrides.unsafe,
        never_stale=_never_stale(directives, source, overrides),
        source=source,
    )


def initial_age(headers: Headers, request_time: float, response_time: float) -> float:
    """The corrected initial age (RFC 9111 §4.2.3)."""
    date = _date(headers, "date", response_time)
    # Date is cut off to whole seconds, and so is what it is compared with: else an answer made and received
    # within one second could be most of a second old, and one with max-age=1 stale before it is stored.
    apparent_age = 0.0 if date is None else max(0.0, floor(response_time) - date)
    response_delay = max(0.0, response_time - request_time)
    return max(apparent_age, _age_value(headers) + response_delay)


def _age_value(headers: Headers) -> int:
    """Age: the first member of a list counts, and an invalid value is ignored (RFC 9111 §5.1)."""
    members = split_list(headers.get("age") or "")
    return (delta_seconds(members[0]) or 0) if members else 0


def _lifetime(
    head: ResponseHead, directives: Directives, age: float, response_time: float, overrides: Overrides
) -> tuple[LifetimeSource, float]:
    ttl = status_ttl(head.status, overrides)
    if ttl is None and head.status < 400:
        ttl = overrides.ttl
    if ttl is not None:
        return LifetimeSource.RULE, age + ttl
    source, lifetime = _stated(head.headers, directives, response_time)
    if source is LifetimeSource.NONE:
        source, lifetime = _heuristic(head, directives, response_time, overrides)
    remaining = lifetime - age
    if overrides.ttl_min is not None and head.status < 400 and remaining < overrides.ttl_min:
        source, remaining = LifetimeSource.RULE, overrides.ttl_min
    if overrides.ttl_max is not None:
        remaining = min(remaining, overrides.ttl_max)
    return source, max(0.0, remaining + age)


def states_lifetime(head: ResponseHead) -> bool:
    """Whether the answer itself says how long it is fresh (RFC 9111 §4.2.1)."""
    return _stated(head.headers, effective_directives(head.headers), 0.0)[0] is not LifetimeSource.NONE


def status_ttl(status: int, overrides: Overrides) -> float | None:
    """What the rule says for this status, or else for its class (0 for all of it, a lifetime for those that
    are not OF_ONE_REQUEST)."""
    exact = overrides.status_ttl.get(status)
    if exact is not None:
        return exact
    of_class = overrides.status_ttl.get(status // 100)
    return None if of_class and status in OF_ONE_REQUEST else of_class


def _stated(headers: Headers, directives: Directives, response_time: float) -> tuple[LifetimeSource, float]:
    """The explicit lifetime (RFC 9111 §4.2.1; for the targeted field RFC 9213 §2.2)."""
    for source, seconds in (
        (LifetimeSource.S_MAXAGE, directives.s_maxage),
        (LifetimeSource.MAX_AGE, directives.max_age),
    ):
        if seconds is not None:
            return (LifetimeSource.CDN_CACHE_CONTROL if directives.targeted else source), float(seconds)
    if directives.targeted or "expires" not in headers:
        return LifetimeSource.NONE, 0.0
    # What is no date is a time in the past, "especially the value "0"" (§5.3).
    expires = _date(headers, "expires", response_time)
    date = _date(headers, "date", response_time)
    if expires is None:
        return LifetimeSource.EXPIRES, 0.0
    return LifetimeSource.EXPIRES, max(0.0, expires - (response_time if date is None else date))


def _heuristic(
    head: ResponseHead, directives: Directives, response_time: float, overrides: Overrides
) -> tuple[LifetimeSource, float]:
    """A tenth of the time since the last change, for answers that allow guessing (RFC 9111 §4.2.2)."""
    modified = _date(head.headers, "last-modified", response_time)
    allowed = directives.public or head.status in HEURISTICALLY_CACHEABLE
    if not overrides.heuristic or not allowed or modified is None:
        return LifetimeSource.NONE, 0.0
    date = _date(head.headers, "date", response_time)
    unchanged = (response_time if date is None else date) - modified
    if unchanged <= 0:
        return LifetimeSource.NONE, 0.0
    return LifetimeSource.HEURISTIC, min(unchanged * HEURISTIC_FRACTION, HEURISTIC_MAXIMUM)


def _window(rule: float | None, answer: int | None, limit: float) -> float:
    """A stale window: the rule's where it gives one, else the answer's (RFC 5861), else none."""
    return min(limit, rule if rule is not None else float(answer or 0))


def _disconnected(directives: Directives, overrides: Overrides) -> float:
    """An explicit stale-if-error is the whole window: who gave it has thought about dead origins."""
    if directives.stale_if_error is not None or overrides.stale_if_error is not None:
        return 0.0
    given = overrides.stale_if_disconnected
    return DEFAULT_DISCONNECTED if given is None else given


def _keep(headers: Headers, overrides: Overrides) -> float:
    if not has_validator(headers):
        return 0.0
    return DEFAULT_KEEP if overrides.keep is None else overrides.keep


def _never_stale(directives: Directives, source: LifetimeSource, overrides: Overrides) -> bool:
    """Whether the answer forbids any use once stale (RFC 9111 §4.2.4).

    s-maxage implies proxy-revalidate (§5.2.2.10) where it is what applies: not when the rule's lifetime
    took its place, nor when the rule itself gives a stale window.
    """
    if Unsafe.MUST_REVALIDATE in overrides.unsafe:
        return False
    if directives.must_revalidate or directives.proxy_revalidate:
        return True
    rule_says = source is LifetimeSource.RULE or (
        overrides.stale_while_revalidate is not None or overrides.stale_if_error is not None
    )
    return directives.s_maxage is not None and not rule_says


def _date(headers: Headers, name: str, now: float) -> float | None:
    """The field's first line as a time: where there are several, the first counts (§4.2.1)."""
    lines = headers.get_all(name)
    return parse_http_date(lines[0], now) if lines else None
