"""Range requests against a stored body (RFC 9110 §14).

Rules of this file:

- Ranges are [start, stop) octets of the identity body, in the order asked for.
- A Range that is not ours to understand (another unit, bad syntax) is ignored and the whole is sent (§14.2).
- So is one that asks for more than it is worth: many parts, or parts that overlap (§14.2 lets a server
  ignore them; §17.15 names the attack).
"""

from __future__ import annotations

import re
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.policy.lists import OWS
from edgeproxy.policy.validate import (
    is_entity_tag,
    last_modified_is_strong,
    same_date,
    strong_match,
)

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers

MAX_RANGES = 16
_MAX_DIGITS = 18
_SPEC = re.compile(r"([0-9]*)-([0-9]*)\Z", re.ASCII)


class Unsatisfiable(Enum):
    """No range asked for overlaps the body: 416 (§15.5.17)."""

    UNSATISFIABLE = "unsatisfiable"


UNSATISFIABLE: Final = Unsatisfiable.UNSATISFIABLE

Parts = tuple[tuple[int, int], ...] | Literal[Unsatisfiable.UNSATISFIABLE] | None


def parse_ranges(value: str, length: int) -> Parts:
    """The parts of a body of ``length`` octets that Range asks for; None: ignore the field.

    Unsatisfiable parts are left out where another one is satisfiable.
    """
    unit, mark, specs = value.strip(OWS).partition("=")
    if not mark or unit.lower() != "bytes" or specs.count(",") >= 2 * MAX_RANGES:
        return None
    if not length:
        # Content-Range cannot describe a part of nothing; the whole of it is all there is to send.
        return None
    found: list[tuple[int, int]] = []
    members = [member for part in specs.split(",") if (member := part.strip(OWS))]
    if not members or len(members) > MAX_RANGES:
        return None
    for member in members:
        spec = _SPEC.match(member)
        if spec is None or not _sensible(first := spec[1], last := spec[2]):
            return None
        part = _resolve(first, last, length)
        if part is not None:
            found.append(part)
    if not found:
        return UNSATISFIABLE
    return None if _overlap(found) else tuple(found)


Span = tuple[int | None, int | None]
"""One range as it was asked for: first and last octet; (5, None) from the sixth, (None, 5) the last five."""


def single_range(value: str | None) -> Span | None:
    """The one range that Range asks for, of whatever body; None where it asks for several or none, or is not
    to be understood, or cannot be satisfied by any body."""
    unit, mark, spec = (value or "").strip(OWS).partition("=")
    found = _SPEC.match(spec.strip(OWS))
    if not mark or unit.lower() != "bytes" or found is None or not _sensible(found[1], found[2]):
        return None
    first = int(found[1]) if found[1] else None
    last = int(found[2]) if found[2] else None
    return None if first is None and not last else (first, last)


def span_text(span: Span) -> str:
    """The span as Range says it, always in the same letters: ``bytes=5-``."""
    first, last = ("" if end is None else end for end in span)
    return f"bytes={first}-{last}"


def _sensible(first: str, last: str) -> bool:
    if len(first) > _MAX_DIGITS or len(last) > _MAX_DIGITS:
        return False
    if not first or not last:
        return bool(first or last)
    # "An int-range is invalid if the last-pos value is present and less than first-pos" (§14.1.2),
    # and one invalid member makes the whole field invalid.
    return int(last) >= int(first)


def _resolve(first: str, last: str, length: int) -> tuple[int, int] | None:
    """[start, stop) within the body, or None where no octet of it is asked for."""
    if not first:
        start, stop = max(0, length - int(last)), length
    else:
        start, stop = int(first), min(length, int(last) + 1) if last else length
    return (start, stop) if start < stop else None


def _overlap(parts: list[tuple[int, int]]) -> bool:
    """Whether any two parts share octets: those together can be longer than the body."""
    ordered = sorted(parts)
    return any(later[0] < earlier[1] for earlier, later in pairwise(ordered))


def if_range_matches(if_range: str | None, headers: Headers, etag: str | None) -> bool:
    """Whether the ranges hold: If-Range is absent or names exactly this representation (§13.1.5).

    ``etag`` is the representation's own; a weak one never matches, nor does a date that is not strong.
    """
    if if_range is None:
        return True
    condition = if_range.strip(OWS)
    if is_entity_tag(condition):
        return etag is not None and strong_match(condition, etag)
    return same_date(condition, headers.get("last-modified")) and last_modified_is_strong(headers)
