"""Parts of one representation, made into a larger part or into the whole (RFC 9110 §15.3.7.3, RFC 9111 §3.4).

Rules of this file:

- Only what shares a strong validator, the complete length and the content coding is joined, and only parts
  that touch or overlap: an entry holds one part. Anything in doubt is not joined.
- The fields are the stored ones, each that the newer answer carries replaced by its own.
- Where both have an octet, the newer one's counts (they are the same: that is what the validator says).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeproxy.policy.coding import content_coding
from edgeproxy.policy.head import ResponseHead
from edgeproxy.policy.header_table import merge_304
from edgeproxy.policy.parts import is_true, part_of, within
from edgeproxy.policy.stored import Part
from edgeproxy.policy.validate import strong_validator

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, RequestHead
    from edgeproxy.policy.stored import Stored

OF_THE_MESSAGE = frozenset({"content-range", "content-digest", "content-md5", "content-length"})
"""Fields that describe the octets of one message, not the representation: not true of a larger part."""


@dataclass(frozen=True, slots=True)
class Union:
    """``part``, made of the first ``before`` octets of the older body, the newer one, and those of the older
    one from octet ``after`` on."""

    part: Part
    before: int
    after: int

    @property
    def complete(self) -> bool:
        return self.part.start == 0 and self.part.reaches_end


def union(older: Part, newer: Part) -> Union | None:
    """Both as one part; None where there is a gap, or they do not agree on the complete length."""
    totals = {part.total for part in (older, newer)} - {None}
    if len(totals) > 1 or newer.start > older.stop or older.start > newer.stop:
        return None
    total = next(iter(totals), None)
    part = Part(min(older.start, newer.start), max(older.stop, newer.stop), total)
    if total is not None and part.stop > total:
        return None
    return Union(part, max(0, newer.start - older.start), min(older.size, max(0, newer.stop - older.start)))


def completed(
    request: RequestHead, stored: Stored | None, head: ResponseHead
) -> tuple[Union, Part, ResponseHead] | None:
    """The origin's 206 joined to the stored part, where the two make an answer to the request: how, the part
    that has come, and the head of both together. Else None."""
    new = part_of(head.headers)
    if stored is None or stored.part is None or new is None or not is_true(stored):
        return None
    if not same_octets(stored.headers, head.headers) or content_coding(head.headers) != stored.coding:
        return None
    length = head.headers.get("content-length")
    joined = union(stored.part, new)
    if joined is None or (length is not None and int(length) != new.size):
        return None
    size = str(joined.part.size)
    headers = merge_304(stored.headers, head.headers).without(OF_THE_MESSAGE)
    if joined.complete:
        return joined, new, ResponseHead(200, "OK", headers.adding("Content-Length", size))
    seen = replace(stored, headers=headers, part=joined.part, length=joined.part.size)
    if within(request, seen)[0] is None:
        return None
    headers = headers.adding("Content-Length", size).adding("Content-Range", content_range(joined.part))
    return joined, new, ResponseHead(206, "Partial Content", headers)


def joined(older: Stored, newer: Stored) -> tuple[Union, Stored] | None:
    """Two stored parts as one, or as the whole; None where they cannot be."""
    if older.part is None or newer.part is None or not (is_true(older) and is_true(newer)):
        return None
    if not same_octets(older.headers, newer.headers) or older.coding != newer.coding:
        return None
    both = union(older.part, newer.part)
    if both is None:
        return None
    headers = merge_304(older.headers, newer.headers)
    size = both.part.size
    if both.complete:
        return both, replace(newer, status=200, reason="OK", headers=headers, length=size, part=None)
    return both, replace(newer, headers=headers, length=size, part=both.part)


def content_range(part: Part) -> str:
    """The part as Content-Range says it (RFC 9110 §14.4)."""
    return f"bytes {part.start}-{part.stop - 1}/{'*' if part.total is None else part.total}"


def same_octets(one: Headers, other: Headers) -> bool:
    """Whether both are of the same representation, octet for octet: they share a strong validator."""
    validator = strong_validator(one)
    return validator is not None and validator == strong_validator(other)
