"""In which form a client gets a stored answer: whole, 304, 206 or 416, and in which coding.

Rules of this file:

- Conditions come first, against the representation selected for this client; then ranges, as
  RFC 9110 §13.2.2 orders them. Conditions are for answers that are 2xx (§13.2.1), parts for 200 (§14.2).
- Parts are of the identity body: a part of a body that the edge coded would depend on the coder.
- A stored part (parts.py) goes out as 206 or not at all. To the one whose request brought it (``own``) it
  goes out as the origin's answer, whatever part that is.
- The same for hits, stale answers, refreshed and just stored ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.policy.coding import choose_coding, coded_etag, compressible
from edgeproxy.policy.decisions import Form, Serve
from edgeproxy.policy.parts import within
from edgeproxy.policy.ranges import UNSATISFIABLE, if_range_matches, parse_ranges
from edgeproxy.policy.validate import not_modified

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.policy.ranges import Parts
    from edgeproxy.policy.stored import Overrides, Stored

_RANGED = frozenset({"GET", "QUERY"})
"""RFC 9110 §14.2, RFC 10008: of no other method is it said what a part of its answer is."""
_CONDITIONAL = frozenset({"if-none-match", "if-modified-since"})


def deliver(
    request: RequestHead, stored: Stored, overrides: Overrides, now: float, *, own: bool = False
) -> Serve:
    """How the client's request is answered from ``stored``. ``own``: it is the answer to this very request,
    not one that was made to another."""
    age = int(stored.freshness.age(now))
    coding = selected_coding(request, stored, overrides)
    form = _by_conditions(request, stored, coding)
    if form is not Form.FULL:
        return Serve(stored, age, form, coding)
    if stored.part is not None:
        octets, at = (None, 0) if own else within(request, stored)
        if octets is UNSATISFIABLE:
            return Serve(stored, age, Form.NOT_SATISFIABLE)
        if octets is None:
            octets, at = (stored.part.start, stored.part.stop), stored.part.start
        return Serve(stored, age, Form.PARTIAL, ranges=(octets,), at=at)
    parts = _parts(request, stored)
    if parts is None:
        return Serve(stored, age, Form.FULL, coding)
    if parts is UNSATISFIABLE:
        return Serve(stored, age, Form.NOT_SATISFIABLE)
    return Serve(stored, age, Form.PARTIAL, ranges=parts)


def selected_coding(request: RequestHead, stored: Stored, overrides: Overrides) -> str:
    """The coding the client gets, of those that the edge makes: "" for the body as stored."""
    compression = overrides.compression
    if not compressible(stored.status, stored.headers, compression, stored.length):
        return ""
    return choose_coding(request.headers.get("accept-encoding"), compression.codings)


def _by_conditions(request: RequestHead, stored: Stored, coding: str) -> Form:
    headers = request.headers
    if stored.status // 100 != 2 or headers.isdisjoint(_CONDITIONAL):
        return Form.FULL
    etag = None if stored.etag is None else coded_etag(stored.etag, coding)
    same = not_modified(headers, stored.headers, etag, stored.freshness.received)
    return Form.NOT_MODIFIED if same else Form.FULL


def _parts(request: RequestHead, stored: Stored) -> Parts:
    """None where the whole is to be sent: no range was asked for, or it does not hold, or the body's
    length is not known yet."""
    asked = request.headers.get("range")
    if asked is None or request.method not in _RANGED or stored.status != 200 or stored.length < 0:
        return None
    if not if_range_matches(request.headers.get("if-range"), stored.headers, stored.etag):
        return None
    return parse_ranges(asked, stored.length)
