"""Whether an answer may be stored and shared, and if not, why not (RFC 9111 §3).

Rules of this file:

- Every "no" has a name. The checks are tables in order; the first that objects is the reason given.
- Safe by default: what could be one client's alone is not shared until the rule says the ``unsafe`` word.
- An answer that is not fresh is still stored where it can be used: validated, or stale in its windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgeproxy.policy.cache_control import (
    NO_DIRECTIVES,
    Directives,
    effective_directives,
    request_directives,
)
from edgeproxy.policy.events import streams_events
from edgeproxy.policy.extension import contradicts
from edgeproxy.policy.freshness import HEURISTICALLY_CACHEABLE, status_ttl
from edgeproxy.policy.stored import LifetimeSource, Unsafe
from edgeproxy.policy.validate import has_validator
from edgeproxy.policy.vary import vary_names
from edgeproxy.policy.vocabulary import NotStored

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.policy.head import RequestHead, ResponseHead
    from edgeproxy.policy.stored import Freshness, Overrides

UNDERSTOOD = frozenset({
    200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 307, 308,
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422, 426,
    500, 501, 502, 503, 504, 505,
})  # fmt: skip
"""Statuses whose caching requirements are met here (RFC 9111 §3), for must-understand. 304 and 416 are not
among them: what they ask of a cache is done, but never by storing them."""


_Checks: TypeAlias = "tuple[tuple[NotStored, Callable[[_Case], bool]], ...]"


@dataclass(frozen=True, slots=True)
class _Case:
    request: RequestHead
    head: ResponseHead
    overrides: Overrides
    freshness: Freshness
    asked: Directives
    said: Directives
    part: bool


def storable(
    request: RequestHead,
    head: ResponseHead,
    overrides: Overrides,
    freshness: Freshness,
    *,
    part: bool = False,
) -> NotStored | None:
    """Why the answer may not be stored, or None where it may. ``part``: it is a 206 that was asked for and
    whose one part is known."""
    asked = request_directives(request.headers) if overrides.honour_request_directives else NO_DIRECTIVES
    case = _Case(request, head, overrides, freshness, asked, effective_directives(head.headers), part)
    return _first(_BEFORE, case) or forbidden(head, overrides) or _first(_AFTER, case)


def _first(checks: _Checks, case: _Case) -> NotStored | None:
    return next((reason for reason, objects in checks if objects(case)), None)


def _rule(case: _Case) -> bool:
    return case.overrides.no_store or status_ttl(case.head.status, case.overrides) == 0


def forbidden(head: ResponseHead, overrides: Overrides) -> NotStored | None:
    """What the answer itself says against its being stored and shared, whoever asks."""
    said = effective_directives(head.headers)
    if said.must_understand and head.status not in UNDERSTOOD:
        return NotStored.STATUS_UNKNOWN
    # must-understand on a status that is understood: "SHOULD ignore the no-store directive" (§5.2.2.3).
    if said.no_store and not said.must_understand and Unsafe.NO_STORE not in overrides.unsafe:
        return NotStored.RESPONSE_NO_STORE
    if said.private and Unsafe.PRIVATE not in overrides.unsafe:
        return NotStored.RESPONSE_PRIVATE
    return NotStored.VARY_STAR if vary_names(head.headers) is None else None


def _authorization(case: _Case) -> bool:
    """RFC 9111 §3.5: only with must-revalidate, public or s-maxage. A rule's ttl is none of these."""
    said = case.said
    if "authorization" not in case.request.headers or Unsafe.AUTHORIZATION in case.overrides.unsafe:
        return False
    return not (said.public or said.must_revalidate or said.s_maxage is not None)


def _set_cookie(case: _Case) -> bool:
    """Unless the answer itself has the cookie left out of what is stored (no-cache="set-cookie")."""
    if "set-cookie" not in case.head.headers or Unsafe.SET_COOKIE in case.overrides.unsafe:
        return False
    return "set-cookie" not in (*case.said.no_cache_fields, *case.said.private_fields)


def _server_error(case: _Case) -> bool:
    """A 5xx is kept only for a lifetime that somebody gave it: its cause may be gone in a second."""
    return case.head.status >= 500 and not _usable(case)


_OWN = frozenset({412, 416})
"""Answers to the request's own conditions and ranges, which are no part of the key."""


_OF_THE_REQUEST = frozenset({408, 411, 413, 417, 421, 425, 426, 428, 429, 431})
"""Of how one client has sent its request: fields, body, connection or rate, none of which the key holds. 428,
429 and 431 MUST NOT be stored (RFC 6585 §3 to §5); with the others too, one huge field would take a page from
everybody where the origin has a Cache-Control on its errors. A rule may name one in ``status_ttl``."""


def _status(case: _Case) -> bool:
    """§3: neither a lifetime nor public nor a status that allows guessing."""
    if case.head.status in _OWN:
        return True
    if case.head.status in _OF_THE_REQUEST and status_ttl(case.head.status, case.overrides) is None:
        return True
    allowed = case.head.status in HEURISTICALLY_CACHEABLE or case.said.public
    if not 200 <= case.head.status <= 599:  # RFC 9110 §15: what is above is no status
        return True
    return case.freshness.source is LifetimeSource.NONE and not allowed


def _done(case: _Case) -> bool:
    """A POST that says by its status that it has made, begun or reset something."""
    return case.request.method == "POST" and case.head.status in (201, 202, 205)


def _guessed(case: _Case) -> bool:
    """A POST's answer is kept for an explicit lifetime only (RFC 9110 §9.3.3), the rule's or its own."""
    sources = (LifetimeSource.NONE, LifetimeSource.HEURISTIC)
    return case.request.method == "POST" and case.freshness.source in sources


def _deceptive(case: _Case) -> bool:
    """Where the rule does not say, the guard is for lifetimes that the rule gives: the origin's own word on
    how long to share an answer is no accident."""
    guard = case.overrides.extension_guard
    if guard is None:
        guard = case.freshness.source is LifetimeSource.RULE
    if not guard or case.head.status not in (200, 203):
        return False
    return contradicts(case.request.path, case.head.headers.get("content-type"))


def _malformed(case: _Case) -> bool:
    length = case.head.headers.get("content-length")
    return length is not None and not (length.isascii() and length.isdigit())


def _too_large(case: _Case) -> bool:
    length = case.head.headers.get("content-length")
    # By digits first: int() refuses to read thousands of them.
    return length is not None and (len(length) > 18 or int(length) > case.overrides.max_object)


def _never_valid(case: _Case) -> bool:
    return case.freshness.must_validate and not _can_be_validated(case)


def _can_be_validated(case: _Case) -> bool:
    """A POST cannot ask whether its answer still holds (validate.py)."""
    return case.request.method != "POST" and has_validator(case.head.headers)


def _usable(case: _Case) -> bool:
    """Whether it can be used without validation at any time from now on."""
    freshness = case.freshness
    windows = max(freshness.stale_while_revalidate, freshness.stale_if_error)
    until = freshness.lifetime + (0.0 if freshness.never_stale else windows)
    return not freshness.must_validate and until > freshness.initial_age


def _useless(case: _Case) -> bool:
    return not _usable(case) and not _can_be_validated(case)


_BEFORE: _Checks = (
    (NotStored.METHOD, lambda case: case.request.method != "GET" and not case.request.content_key),
    (NotStored.REQUEST_BODY, lambda case: case.request.has_body and not case.request.content_key),
    (NotStored.REQUEST_NO_STORE, lambda case: case.asked.no_store),
    (NotStored.NOT_MODIFIED, lambda case: case.head.status == 304),
    (NotStored.PARTIAL, lambda case: case.head.status == 206 and not case.part),
    (NotStored.RULE, _rule),
)

_AFTER: _Checks = (
    (NotStored.EVENT_STREAM, lambda case: streams_events(case.head.headers)),
    (NotStored.AUTHORIZATION, _authorization),
    (NotStored.SET_COOKIE, _set_cookie),
    (NotStored.EXTENSION, _deceptive),
    (NotStored.MALFORMED, _malformed),
    (NotStored.TOO_LARGE, _too_large),
    (NotStored.SERVER_ERROR, _server_error),
    (NotStored.STATUS, _status),
    (NotStored.STATUS, _done),
    (NotStored.NO_LIFETIME, _guessed),
    (NotStored.RESPONSE_NO_CACHE, _never_valid),
    (
        NotStored.NO_LIFETIME,
        lambda case: _useless(case) and case.freshness.source is LifetimeSource.NONE,
    ),
    (NotStored.LIFETIME_ZERO, _useless),
)
