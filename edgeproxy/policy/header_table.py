"""One row per known field: forwarded, stored, updated by a 304.

Rules of this file:

- A field that is not in the table is forwarded both ways, stored and updated: extensions pass.
- Fields of the connection never pass it (RFC 9110 §7.6.1), nor do those that Connection names, unless the
  message would mean something else without them (``kept``): a client must not be able to take Host or
  Authorization out of a request on its way.
- What is not stored is written anew for each answer (Age, framing) or belongs to one connection, one hop or
  one client (RFC 9111 §3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.policy.cache_control import effective_directives
from edgeproxy.policy.head import EMPTY, Headers
from edgeproxy.policy.http_date import format_http_date, parse_http_date
from edgeproxy.policy.lists import split_list

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Row:
    """``request``, ``answer``: forwarded in that direction. ``store``: kept with a stored answer.
    ``update``: taken over from a 304. ``kept``: stays even if Connection names it. ``condition``,
    ``range``: taken off when the edge wants the whole answer."""

    request: bool = True
    answer: bool = True
    store: bool = True
    update: bool = True
    kept: bool = False
    condition: bool = False
    range: bool = False


_PLAIN = Row()
_HOP = Row(request=False, answer=False, store=False, update=False)
_FRAMING = Row(request=False, answer=False, store=False, update=False, kept=True)
_KEPT = Row(kept=True)
_CONDITION = Row(condition=True)

TABLE: dict[str, Row] = {
    # Of one connection (RFC 9110 §7.6.1).
    "connection": _HOP,
    "keep-alive": _HOP,
    "proxy-connection": _HOP,
    "te": _HOP,
    "trailer": _HOP,
    "transfer-encoding": _FRAMING,
    "upgrade": _HOP,
    "http2-settings": _HOP,
    # Of one hop: between a client and its proxy (RFC 9110 §11.7, RFC 9111 §3.1). edgeproxy stands in
    # the origin's place and asks for no proxy credentials of its own.
    "proxy-authenticate": _HOP,
    "proxy-authentication-info": _HOP,
    "proxy-authorization": _HOP,
    # The server's side of the connection answers 100-continue itself.
    "expect": Row(request=False),
    # Written by whoever writes the message. In an answer it stays: the body is forwarded octet by
    # octet, and HEAD and 304 have nothing else to say the length with. Updating it from a 304 is
    # excluded by RFC 9111 §3.2.
    "content-length": Row(request=False, store=False, update=False, kept=True),
    # The message would mean something else without them.
    "host": _KEPT,
    "authorization": _KEPT,
    "cookie": _KEPT,
    "cache-control": _KEPT,
    "cdn-cache-control": _KEPT,
    "cdn-loop": _KEPT,
    "content-type": _KEPT,
    "date": _KEPT,
    "expires": _KEPT,
    "set-cookie": _KEPT,
    "vary": _KEPT,
    # What the stored body depends upon (RFC 9111 §3.2): a 304 must not describe it anew.
    "content-encoding": Row(update=False, kept=True),
    "content-range": Row(update=False, kept=True),
    # Digests of the content, not of the representation: that of a 304 is empty.
    "content-digest": Row(update=False),
    "content-md5": Row(update=False),
    # A 304 confirms the stored answer by its validator (validate.py), so the same one, or a weak one
    # for a strong one: the stored one stays.
    "etag": Row(update=False, kept=True),
    # Of one client's request: what may be stored is asked for without them (RFC 9111 §4.3.2).
    "if-match": _CONDITION,
    "if-none-match": _CONDITION,
    "if-modified-since": _CONDITION,
    "if-unmodified-since": _CONDITION,
    "if-range": Row(range=True),
    "range": Row(range=True),
    # Computed for each answer from what is stored (RFC 9111 §4.2.3). A 304's own age counts once, when
    # the new freshness is worked out.
    "age": Row(store=False),
}


def _failing(passes: Callable[[Row], bool]) -> frozenset[str]:
    """The names whose rows do not pass. A field without a row always does."""
    return frozenset(name for name, row in TABLE.items() if not passes(row))


_NOT_REQUESTED = {
    (conditionals, ranges): _failing(
        lambda row, c=conditionals, r=ranges: (
            row.request and (c or not row.condition) and (r or not row.range)
        )  # type: ignore[misc]
    )
    for conditionals in (False, True)
    for ranges in (False, True)
}
_NOT_ANSWERED = _failing(lambda row: row.answer)
_NOT_STORED = _failing(lambda row: row.store)
_NOT_UPDATED = _failing(lambda row: row.update)


def end_to_end(headers: Headers) -> Headers:
    """A request's fields without those that Connection names and that the origin is therefore not sent.

    What it does not see must not select what is stored: else its answer to a request without ``Origin`` is
    kept as the one for whatever ``Origin`` said.
    """
    named = _named_by_connection(headers)
    rows = {name: TABLE.get(name, _PLAIN) for name in named if name in headers}
    gone = {name for name, row in rows.items() if row.request and not row.kept}
    return headers.without(gone) if gone else headers


def forwardable_request(headers: Headers, *, conditionals: bool, ranges: bool) -> Headers:
    """What of the client's fields the origin is sent; framing is written by the origin's client.

    ``conditionals`` and ``ranges`` say whether the client's If-* and Range fields stay. If-Range goes where
    Range goes: a range without its condition could be joined to parts of another representation.
    """
    return _without(headers, _NOT_REQUESTED[conditionals, ranges])


def forwardable_answer(headers: Headers) -> Headers:
    """What of the origin's fields the client may be sent. Content-Length stays, as a description; the
    sender makes sure that it is true."""
    return _without(headers, _NOT_ANSWERED)


def storable_headers(headers: Headers, *, set_cookie: bool = False) -> Headers:
    """What of an answer's fields may be sent again, to anyone.

    Fields named by a qualified no-cache or private are left out: they are not sent without validation, or
    not shared (RFC 9111 §5.2.2.4, §5.2.2.7). Set-Cookie is kept with ``set_cookie`` only.
    """
    omitted = _qualified(headers)
    if not set_cookie:
        omitted.add("set-cookie")
    kept = _without(headers, _NOT_STORED)
    return kept.without(omitted) if omitted else kept


def withheld_headers(headers: Headers) -> Headers:
    """What ``storable_headers`` leaves out for a qualified no-cache or private: it belongs to the answer
    that it came with, so the one who asked for that is sent it."""
    named = _qualified(headers)
    if not named:
        return EMPTY
    kept = _without(headers, _NOT_STORED)
    return kept.without(set(kept.names()) - named)


def _qualified(headers: Headers) -> set[str]:
    directives = effective_directives(headers)
    return {*directives.no_cache_fields, *directives.private_fields}


def merge_304(stored: Headers, update: Headers) -> Headers:
    """The stored fields, each that a 304 carries replaced by all its lines there (RFC 9111 §3.2).

    The result still has the 304's Age, for the freshness arithmetic; ``storable_headers`` drops it.
    """
    fresh = _without(update, _NOT_UPDATED)
    if "etag" in update and "etag" not in stored:
        fresh = Headers((*fresh.raw, *(f for f in update.raw if f[0].lower() == b"etag")))
    # Without an Age in the 304, the answer comes from the origin itself and is 0 s old.
    return Headers((*stored.without({*fresh.names(), "age"}).raw, *fresh.raw))


def dated(headers: Headers, received: float) -> Headers:
    """With a Date, as a recipient with a clock has to add where it is missing (RFC 9110 §6.6.1)."""
    date = headers.get_all("date")
    if date and parse_http_date(date[0], received) is not None:
        return headers
    return headers.setting("Date", format_http_date(received))


def _without(headers: Headers, dropped: frozenset[str]) -> Headers:
    """All fields but those in ``dropped`` and those that Connection names and may name."""
    named = _named_by_connection(headers)
    if named:
        dropped |= {name for name in named if not TABLE.get(name, _PLAIN).kept}
    return headers if headers.isdisjoint(dropped) else headers.without(dropped)


def _named_by_connection(headers: Headers) -> frozenset[str]:
    connection = headers.get("connection")
    return frozenset(split_list(connection.lower())) if connection is not None else frozenset()
