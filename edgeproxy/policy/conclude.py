"""What to make of the origin's answer, or of its failure.

Rules of this file:

- A 5xx or a failure never takes the place of a copy that can still be used. RFC 5861 §4 speaks of 500, 502,
  503 and 504; the others of the class say the same ("the server is aware that it has erred",
  RFC 9110 §15.6) and are treated alike. 404 and 410 are answers.
- A copy that is stale for no longer than ``stale_if_disconnected`` is sent where the origin could not be
  reached at all (RFC 9111 §4.2.4), and never for an error that it sent.
- A 304 is believed only where it fits what is stored (RFC 9111 §4.3.4); else it is asked once more.
- A 206 is stored where a range was asked for and it is one part. What came of asking for the rest of a stored
  part is joined to it (joining.py), or the whole is asked for: never a mix of two representations.
- ``remember`` (hit-for-miss) is for reasons that lie in the answer. What lies in this one request, or will
  pass, as errors do, must not stop others from being answered from the cache.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.policy.cache_control import NO_DIRECTIVES, request_directives
from edgeproxy.policy.coding import content_coding
from edgeproxy.policy.decisions import (
    Asked,
    Conclusion,
    Discard,
    Failed,
    GiveUp,
    Join,
    OriginAnswer,
    Refetch,
    Refresh,
    ServeStaleOnError,
    Store,
)
from edgeproxy.policy.freshness import freshness_of
from edgeproxy.policy.head import ResponseHead
from edgeproxy.policy.header_table import dated, merge_304, storable_headers, withheld_headers
from edgeproxy.policy.joining import OF_THE_MESSAGE, completed, same_octets
from edgeproxy.policy.parts import answers, part_of
from edgeproxy.policy.storable import forbidden, storable
from edgeproxy.policy.stored import Stored, Unsafe
from edgeproxy.policy.validate import confirms
from edgeproxy.policy.vary import selecting_values, vary_names
from edgeproxy.policy.vocabulary import DISCONNECTED, NotStored, OriginFailure, StaleReason

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, RequestHead
    from edgeproxy.policy.stored import Freshness, Overrides, Part

_NOT_THE_ORIGINS = frozenset({OriginFailure.REQUEST_BODY, OriginFailure.ABANDONED})
"""Failures of the client's side: nothing stale is served for them."""

_OF_THIS_REQUEST = frozenset({
    NotStored.METHOD, NotStored.REQUEST_BODY, NotStored.REQUEST_NO_STORE, NotStored.AUTHORIZATION,
    NotStored.NOT_MODIFIED, NotStored.PARTIAL,
})  # fmt: skip
"""Reasons that another request for the same key need not share."""

_OF_A_PART = frozenset({206, 304, 416})
"""Statuses that say something of the rest of a stored part only, and nothing to a client that wants more."""

_ANSWERS_FOR_GOOD = frozenset({404, 410})
"""Errors that say what has become of the resource, not of this request."""


def conclude(
    request: RequestHead,
    stored: Stored | None,
    answer: OriginAnswer | Failed,
    overrides: Overrides,
    now: float,
    asked: Asked = Asked.WHOLE,
) -> Conclusion:
    """``stored`` is what was decided with (Revalidate's or Fetch's), ``answer`` what came of asking, and
    ``asked`` how much of it was asked for."""
    if isinstance(answer, Failed):
        if stored is not None and answer.failure not in _NOT_THE_ORIGINS:
            stale = _in_place_of_error(request, stored, overrides, now, answer.failure)
            if stale is not None:
                return stale
        return GiveUp(answer.failure, _status_for(request, stored, answer.failure))
    if answer.head.status >= 500 and stored is not None:
        stale = _in_place_of_error(request, stored, overrides, now)
        if stale is not None:
            return stale
        if _still_usable(stored.freshness, now):
            return Discard(NotStored.SERVER_ERROR, remember=False)
    if asked is Asked.REST and answer.head.status in _OF_A_PART:
        return _completed(request, stored, answer, overrides)
    if answer.head.status == 304:
        return _confirmed(request, stored, answer, overrides)
    if request.method == "HEAD" and stored is not None and _vouches(answer.head, stored):
        updated = _merged(request, stored, answer, overrides)
        if storable(replace(request, method="GET"), updated[0], overrides, updated[1].freshness) is None:
            return Refresh(updated[1])
    part = part_of(answer.head.headers) if asked is Asked.PART and answer.head.status == 206 else None
    return _stored_or_not(request, stored, answer, overrides, part)


def _completed(
    request: RequestHead, stored: Stored | None, answer: OriginAnswer, overrides: Overrides
) -> Join | Refetch:
    """What came of asking for the rest: joined to what is stored, or nothing that could be used."""
    found = completed(request, stored, answer.head) if answer.head.status == 206 else None
    if found is None:
        return Refetch()
    union, new, head = found
    part = None if union.complete else union.part
    then = _stored_or_not(request, None, replace(answer, head=head), overrides, part)
    if part is not None and isinstance(then, Discard):
        return Refetch()  # the client's own range, then: it did not ask for all of the part
    return Join(head, union.before, union.after, new.size, then)


def _in_place_of_error(
    request: RequestHead,
    stored: Stored,
    overrides: Overrides,
    now: float,
    failure: OriginFailure = OriginFailure.SERVER_ERROR,
) -> ServeStaleOnError | None:
    """The stored copy, where it is fresh (only the request wanted it validated) or stale within what the
    answer, the rule or the request allows (RFC 5861 §4)."""
    freshness = stored.freshness
    if not answers(request, stored):
        return None
    if freshness.must_validate or (freshness.never_stale and not freshness.is_fresh(now)):
        return None
    asked = request_directives(request.headers) if overrides.honour_request_directives else NO_DIRECTIVES
    limit = overrides.stale_limit
    if now < freshness.fresh_until + min(limit, max(freshness.stale_if_error, asked.stale_if_error or 0)):
        return ServeStaleOnError(stored, StaleReason.ON_ERROR)
    if (
        failure in DISCONNECTED
        and now < freshness.fresh_until + min(limit, freshness.stale_if_disconnected)
        and not (asked.no_cache or asked.max_age is not None or asked.min_fresh is not None)
    ):
        # Nobody asked for this copy, so a client that wants nothing stale is not given it (§5.2.1).
        return ServeStaleOnError(stored, StaleReason.DISCONNECTED)
    return None


def _status_for(request: RequestHead, stored: Stored | None, failure: OriginFailure) -> int | None:
    """504 where the answer forbids what a disconnected cache could do otherwise (RFC 9111 §5.2.2.2)."""
    forbids = stored is not None and stored.freshness.never_stale and answers(request, stored)
    return 504 if forbids and failure in DISCONNECTED else None


def _still_usable(freshness: Freshness, now: float) -> bool:
    """Whether some later request may be answered with it without asking: within stale-while-revalidate."""
    if freshness.must_validate or freshness.never_stale:
        return False
    return now < freshness.fresh_until + freshness.stale_while_revalidate


def _confirmed(
    request: RequestHead, stored: Stored | None, answer: OriginAnswer, overrides: Overrides
) -> Refresh | Refetch:
    if stored is None or not confirms(stored, answer.head):
        return Refetch()
    merged, refreshed = _merged(request, stored, answer, overrides)
    if forbidden(merged, overrides):
        # The origin no longer wants it stored: ask for an answer that is delivered and nothing else.
        return Refetch()
    return Refresh(refreshed, withheld_headers(merged.headers))


def _merged(
    request: RequestHead, stored: Stored, answer: OriginAnswer, overrides: Overrides
) -> tuple[ResponseHead, Stored]:
    """The stored answer as a 304 (or a HEAD answer) updates it (RFC 9111 §3.2): as it came, and as it is
    stored."""
    update = dated(answer.head.headers, answer.response_time)
    merged = ResponseHead(stored.status, stored.reason, merge_304(stored.headers, update))
    vary = vary_names(merged.headers) or ()
    return merged, replace(
        stored,
        headers=_storable_headers(merged.headers, overrides),
        freshness=freshness_of(merged, answer.request_time, answer.response_time, overrides),
        vary=vary,
        selecting=selecting_values(vary, request, overrides),
    )


def _vouches(head: ResponseHead, stored: Stored) -> bool:
    """Whether a HEAD answer describes the stored one, so that it updates it (RFC 9111 §4.3.5).

    §4.3.5 would be content with an answer that has no validator at all. That one says nothing of the body,
    and a body must not become fresh again because nothing was said against it.
    """
    if head.status != 200 or stored.status != 200 or _described_differently(stored, head.headers):
        return False
    return any(name in head.headers and name in stored.headers for name in ("etag", "last-modified"))


def _stored_or_not(
    request: RequestHead,
    stored: Stored | None,
    answer: OriginAnswer,
    overrides: Overrides,
    part: Part | None = None,
) -> Store | Discard:
    head = replace(answer.head, headers=dated(answer.head.headers, answer.response_time))
    freshness = freshness_of(head, answer.request_time, answer.response_time, overrides)
    reason = storable(request, head, overrides, freshness, part=part is not None)
    if reason is not None:
        return Discard(
            reason,
            remember=reason not in _OF_THIS_REQUEST and head.status < 400,
            forget=stored is not None and _outdates(reason, stored, head),
        )
    vary = vary_names(head.headers) or ()
    length = head.headers.get("content-length")
    headers = _storable_headers(head.headers, overrides)
    return Store(
        Stored(
            status=head.status,
            reason=head.reason,
            headers=headers if part is None else headers.without(OF_THE_MESSAGE),
            freshness=freshness,
            length=-1 if length is None else int(length),
            vary=vary,
            selecting=selecting_values(vary, request, overrides),
            coding=content_coding(head.headers),
            part=part,
        ),
        withheld_headers(head.headers),
    )


def _outdates(reason: NotStored, stored: Stored, head: ResponseHead) -> bool:
    """Whether an answer that is not stored shows that what is stored no longer holds.

    A full answer does (RFC 9111 §4.3.3), unless its error or the reason is this request's own; one to
    HEAD does where it describes another representation (§4.3.5).
    """
    if head.status >= 400 and head.status not in _ANSWERS_FOR_GOOD:
        return False
    if reason is NotStored.METHOD:
        status = 200 if stored.part is not None else stored.status
        return head.status != status or _described_differently(stored, head.headers)
    if stored.part is not None and head.status in {200, 206} and same_octets(stored.headers, head.headers):
        return False  # too large as a whole, say: the part holds all the same
    return reason not in _OF_THIS_REQUEST


def _described_differently(stored: Stored, described: Headers) -> bool:
    length = described.get("content-length")
    known = stored.complete_length is not None and length is not None
    return (known and length != str(stored.complete_length)) or any(
        name in described and name in stored.headers and described.get(name) != stored.headers.get(name)
        for name in ("etag", "last-modified")
    )


def _storable_headers(headers: Headers, overrides: Overrides) -> Headers:
    return storable_headers(headers, set_cookie=Unsafe.SET_COOKIE in overrides.unsafe)
