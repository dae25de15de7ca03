"""Validators: the client's conditions, ours, and whether a 304 fits what is stored.

Rules of this file:

- Strong comparison where octets are joined or overwritten, weak comparison elsewhere (RFC 9110 §8.8.3.2).
- If-Match and If-Unmodified-Since are the origin's to evaluate (RFC 9111 §4.3.2): decide.py has them passed.
  The others in the order of RFC 9110 §13.2.2.
- A 304 that does not fit the stored answer confirms nothing (RFC 9111 §4.3.4).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.policy.http_date import parse_http_date
from edgeproxy.policy.lists import LONGEST_TAGS, OWS, split_list

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, RawField, ResponseHead
    from edgeproxy.policy.stored import Stored

_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\Z')
_STRONG_AFTER = 60.0
"""Seconds between Last-Modified and Date from which on the date is strong. RFC 9110 §8.8.2.2 asks for one;
a minute allows for the two having been taken by different clocks."""


def is_entity_tag(value: str) -> bool:
    return _ENTITY_TAG.match(value) is not None


def weak_match(one: str, other: str) -> bool:
    """Same opaque tag, weak or not."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def strong_match(one: str, other: str) -> bool:
    """Same opaque tag, and neither is weak."""
    return one == other and not one.startswith("W/")


def same_date(one: str | None, other: str | None) -> bool:
    """Exactly the same time (RFC 9110 §13.1.5), in whichever format; no date is no match."""
    if one is None or other is None:
        return False
    parsed = parse_http_date(one)
    return parsed is not None and parsed == parse_http_date(other)


def last_modified_is_strong(headers: Headers) -> bool:
    """Whether Last-Modified may stand for every octet (RFC 9110 §8.8.2.2): long enough before Date that
    no second change can hide in its second."""
    modified, date = _date(headers, "last-modified"), _date(headers, "date")
    return modified is not None and date is not None and date - modified >= _STRONG_AFTER


def strong_validator(headers: Headers) -> str | None:
    """What stands for every octet of the representation, as If-Range names it (RFC 9110 §13.1.5): its strong
    ETag, or, where there is no ETag at all, a Last-Modified that is strong."""
    etag = headers.get("etag")
    if etag is not None:
        return etag if is_entity_tag(etag) and not etag.startswith("W/") else None
    return headers.get("last-modified") if last_modified_is_strong(headers) else None


def not_modified(request: Headers, stored: Headers, etag: str | None, received: float) -> bool:
    """Whether the client has what is stored already: its conditions against a stored answer to GET or HEAD.

    ``etag`` belongs to the representation selected for this client. ``received`` stands in for a missing
    Date.
    """
    if_none_match = request.get("if-none-match")
    if if_none_match is not None:
        return _if_none_match(if_none_match, etag)
    return _not_modified_since(request.get("if-modified-since"), stored, received)


def _if_none_match(value: str, etag: str | None) -> bool:
    """No match, where the list is too long to be looked into: the client is sent the whole again."""
    if len(value) > LONGEST_TAGS:
        return False
    members = split_list(value)
    return "*" in members or (etag is not None and any(weak_match(m, etag) for m in members))


def _not_modified_since(value: str | None, stored: Headers, received: float) -> bool:
    """RFC 9111 §4.3.2: by Last-Modified, else by Date, else by when the answer was received."""
    since = None if value is None else parse_http_date(value, received)
    if since is None:
        return False
    modified = _date(stored, "last-modified")
    if modified is None:
        modified = _date(stored, "date")
    return (received if modified is None else modified) <= since


def conditions_for(stored: Stored, method: str = "GET") -> tuple[RawField, ...]:
    """What to ask the origin with (RFC 9111 §4.3.1): both validators, where there are both. Nothing in a
    POST: there they would not ask whether the answer still holds, but whether to act (RFC 9110 §13.1.2)."""
    if method == "POST":
        return ()
    conditions: list[RawField] = []
    if stored.etag is not None:
        conditions.append((b"If-None-Match", stored.etag.encode("latin-1")))
    if stored.last_modified is not None and _date(stored.headers, "last-modified") is not None:
        conditions.append((b"If-Modified-Since", stored.last_modified.encode("latin-1")))
    return tuple(conditions)


def has_validator(headers: Headers) -> bool:
    """Whether the answer could be validated later."""
    return "etag" in headers or _date(headers, "last-modified") is not None


def confirms(stored: Stored, head: ResponseHead) -> bool:
    """Whether a 304 speaks of the stored answer (RFC 9111 §4.3.4).

    A 304 without any validator is taken as fitting: §4.3.4 would have it update only an answer that has
    none itself, but ours was asked for with this answer's validators and no others, so it can mean nothing
    else, and many origins leave them out.
    """
    new = head.headers.get("etag")
    if new is not None and stored.etag is not None:
        # A strong validator identifies the same strong one only.
        return weak_match(new, stored.etag) if new.startswith("W/") else strong_match(new, stored.etag)
    modified = head.headers.get("last-modified")
    if modified is not None and stored.last_modified is not None:
        if not same_date(modified, stored.last_modified):
            return False
        # With a strong ETag that what is stored lacks, only another strong validator can vouch for it.
        return new is None or new.startswith("W/") or last_modified_is_strong(stored.headers)
    return new is None


def _date(headers: Headers, name: str) -> float | None:
    lines = headers.get_all(name)
    return parse_http_date(lines[0].strip(OWS)) if lines else None
