"""Stored parts: what of a representation they hold, which requests they may answer, what they lack.

Rules of this file:

- "A cache MUST NOT use an incomplete response to answer requests unless the response has been made complete,
  or the request is partial and specifies a range wholly within the incomplete response" (RFC 9111 §3.3). So a
  part answers GET with one range that lies within it and whose If-Range holds, and nothing else.
- Octets are counted as those of the representation: [start, stop), as everywhere here.
- Asking for the rest names the validator with If-Range where there is a strong one (RFC 9110 §13.1.5); what
  comes is joined only where it shares that validator (joining.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.policy.decisions import Asked, Fetch, Revalidate
from edgeproxy.policy.lists import OWS
from edgeproxy.policy.ranges import UNSATISFIABLE, if_range_matches, single_range, span_text
from edgeproxy.policy.stored import Part
from edgeproxy.policy.validate import conditions_for, strong_validator
from edgeproxy.policy.vocabulary import Forwarded

if TYPE_CHECKING:
    from typing import Literal

    from edgeproxy.policy.head import Headers, RawField, RequestHead
    from edgeproxy.policy.ranges import Span, Unsatisfiable
    from edgeproxy.policy.stored import Overrides, Stored

    Within = tuple[int, int] | Literal[Unsatisfiable.UNSATISFIABLE] | None

_CONTENT_RANGE = re.compile(
    r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z", re.ASCII | re.IGNORECASE
)


def part_of(headers: Headers) -> Part | None:
    """The one part that a 206 holds (RFC 9110 §14.4); None where it holds several, or does not say which, or
    has more octets than it says."""
    if (headers.get("content-type") or "").strip(OWS).lower().startswith("multipart/byteranges"):
        return None
    found = _CONTENT_RANGE.match((headers.get("content-range") or "").strip(OWS))
    if found is None:
        return None
    part = Part(int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3]))
    if part.start >= part.stop or (part.total is not None and part.stop > part.total):
        return None
    length = headers.get("content-length")
    if length is not None and (not re.fullmatch(r"[0-9]{1,18}", length) or not 0 < int(length) <= part.size):
        return None
    return part


def is_true(stored: Stored) -> bool:
    """Whether the stored part has all the octets that its Content-Range says (or they are still on their
    way). One that has fewer is neither joined to others nor completed."""
    return stored.part is not None and stored.length in {-1, stored.part.size}


def begins_at(stored: Stored, part: Part, *, suffix: bool) -> int:
    """Which octet of the representation the stored body begins with.

    For a true part that is where its Content-Range begins. An origin that sends a whole message, by its
    Content-Length, of fewer octets than its Content-Range says has counted wrong at one end or the other, and
    nothing tells at which. It is taken at its word where a client counts with it: a range counted from the
    start (``6-8``) finds the octets from the start that it named, and one counted from the end (``-5``) the
    last ones, where it said that the part reaches the end. Either way less may be sent than was asked for,
    and the Content-Range that goes with it says what is sent (RFC 9110 §15.3.7 lets a server do so).
    """
    if suffix and part.reaches_end and stored.length >= 0:
        return part.stop - stored.length
    return part.start


def within(request: RequestHead, stored: Stored) -> tuple[Within, int]:
    """Which octets of the stored part answer the request (None: it does not; UNSATISFIABLE: there are no such
    octets in the whole representation), and where the stored body begins."""
    part, span = stored.part, single_range(request.headers.get("range"))
    if part is None or span is None or request.method != "GET":
        return None, 0
    if not if_range_matches(request.headers.get("if-range"), stored.headers, stored.etag):
        return None, 0
    wanted = _resolved(span, part.total)
    if wanted is None or wanted is UNSATISFIABLE:
        return wanted if is_true(stored) else None, part.start
    start, stop = wanted
    if start < part.start or stop > part.stop:
        return None, 0
    at = begins_at(stored, part, suffix=span[0] is None)
    end = at + (part.size if stored.length < 0 else stored.length)
    start, stop = max(start, at), min(stop, end)
    return ((start, stop) if start < stop else None), at


def answers(request: RequestHead, stored: Stored) -> bool:
    """Whether the stored answer may answer the request as far as its extent goes: whole ones always."""
    return stored.part is None or within(request, stored)[0] is not None


def _resolved(span: Span, total: int | None) -> Within:
    """[start, stop) of a representation of ``total`` octets; None where that needs a length not known."""
    first, last = span
    if first is None:
        return None if total is None or last is None else (max(0, total - last), total)
    if total is None:
        return None if last is None else (first, last + 1)
    if first >= total:
        return UNSATISFIABLE
    return first, total if last is None else min(last + 1, total)


def fetch_missing(request: RequestHead, reason: Forwarded, overrides: Overrides) -> Fetch:
    """How to ask for what is not stored: for the one range that the client wants, where the rule lets us, and
    with its own If-Range; else for the whole."""
    return _own(Fetch(reason), request, overrides)


def fetch_beyond(
    request: RequestHead, stored: Stored, reason: Forwarded, overrides: Overrides, *, usable: bool
) -> Fetch | Revalidate:
    """How to ask where a part is stored that does not do. ``usable``: it could be used as it is, were it for
    this request."""
    if answers(request, stored):
        conditions = conditions_for(stored)
        if not conditions:
            return _own(Fetch(reason, stored), request, overrides)
        own = _own(Fetch(reason), request, overrides)
        return Revalidate(stored, (*conditions, *own.conditions), reason, own.asked, own.span)
    reason = Forwarded.PARTIAL if usable else reason
    span = single_range(request.headers.get("range")) if overrides.parts else None
    wants_part = span is not None and request.method == "GET"
    strong = strong_validator(stored.headers)
    rest = None
    if request.method == "GET" and (strong is not None or (usable and not wants_part)):
        rest = _rest(request, stored, span, overrides.max_object)
    if rest is None:
        return _own(Fetch(reason, stored), request, overrides)
    conditions = (_field("Range", span_text(rest)), *((_field("If-Range", strong),) if strong else ()))
    return Fetch(reason, stored, conditions, Asked.REST, _flight_span(request, span))


def revalidate_part(stored: Stored, part: Part, reason: Forwarded) -> Fetch | Revalidate:
    """How to refresh a stored part behind the clients' backs: all of it."""
    text = span_text((part.start, part.stop - 1))
    conditions = (*conditions_for(stored), _field("Range", text))
    if len(conditions) == 1:
        return Fetch(reason, stored, conditions, Asked.PART, text)
    return Revalidate(stored, conditions, reason, Asked.PART, text)


def _own(fetch: Fetch, request: RequestHead, overrides: Overrides) -> Fetch:
    span = single_range(request.headers.get("range")) if overrides.parts else None
    if span is None or request.method != "GET":
        return fetch
    conditions = [_field("Range", span_text(span))]
    if_range = request.headers.get("if-range")
    if if_range is not None:
        conditions.append(_field("If-Range", if_range))
    return Fetch(fetch.reason, fetch.stored, tuple(conditions), Asked.PART, _flight_span(request, span))


def _flight_span(request: RequestHead, span: Span | None) -> str:
    if span is None:
        return ""
    return f"{span_text(span)} {request.headers.get('if-range') or ''}".rstrip()


def _rest(request: RequestHead, stored: Stored, span: Span | None, most: int) -> Span | None:
    """The one piece that the stored part lacks of what is wanted; None where it is more than one piece, or
    what is stored would not help, or both were too large a part to keep (``most`` octets)."""
    part = stored.part
    if part is None or not is_true(stored):
        return None
    if span is None:
        if part.start == 0 and not part.reaches_end:
            return part.stop, None
        return (0, part.start - 1) if part.start and part.reaches_end else None
    if not if_range_matches(request.headers.get("if-range"), stored.headers, stored.etag):
        return None
    wanted = _resolved(span, part.total)
    if wanted is None or wanted is UNSATISFIABLE:
        return None
    start, stop = wanted
    if max(stop, part.stop) - min(start, part.start) > most:
        return None
    # Where they merely touch, what is asked for is all that is wanted: it is joined once it is here.
    if part.start <= start < part.stop < stop:
        return part.stop, None if stop == part.total else stop - 1
    if start < part.start < stop <= part.stop:
        return start, part.start - 1
    return None


def _field(name: str, value: str) -> RawField:
    return name.encode("latin-1"), value.encode("latin-1")
