"""The last answer of the origin to a URL, of what an instance tells of it: explain goes by it.

Rules of this file:

- Plain data in (``describe`` and ``refusal`` of operate.py, through JSON or not), so that the command and the
  admin port choose in the same way.
- What is stored for the request and fresh is what it is answered, whatever others got since. Once it is not
  fresh, a later answer that was not stored says more. An answer that is stored for other requests is a
  better guess than none.
- What is stored came of a GET without content: it says nothing of what other requests are answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edgeproxy.policy.head import Headers, ResponseHead
from edgeproxy.policy.http_date import parse_http_date

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


UNKNOWN = "no answer of the origin to it is known here, so a plain one is assumed"
"""Noted where an instance was asked."""
WITHOUT_HOST = (
    "the key has the host in it, and none was given: a plain answer is assumed; write the whole URL"
)
"""Noted where it could not be."""


class Source(StrEnum):
    """Where the answer that is explained is from."""

    GIVEN = "given"
    """It was described by who asks."""
    STORED = "stored"
    """It is what is stored."""
    REFUSED = "refused"
    """It is the last one, which was not stored."""
    VARIANT = "variant"
    """It is stored for requests that select otherwise."""
    ASSUMED = "assumed"
    """None is known."""


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """``seconds``: since it came, or was confirmed; None: not told."""

    head: ResponseHead
    source: Source
    seconds: float | None = None

    @property
    def when(self) -> float | None:
        """When it was made, by its Date."""
        date = self.head.headers.get("date")
        return None if date is None else parse_http_date(date)


def last_answer(
    method: str, variants: Sequence[Mapping[str, Any]], refused: Mapping[str, Any] | None
) -> LastAnswer | None:
    """``variants``: what is stored; ``refused``: the last answer that was not; None where neither is."""
    if method not in ("GET", "HEAD"):
        return None
    # An older instance does not tell which is selected, and since when.
    selected = next((each for each in variants if each.get("selected", True)), None)
    if refused is not None and refused["status"] == 304:
        refused = None  # it was one client's, and has nothing of what the others get
    if selected is not None:
        since = selected.get("since")
        is_later = refused is not None and since is not None and refused["age"] < since
        if selected["fresh"] or not is_later:
            return _answer(selected, Source.STORED, since)
    if refused is not None:
        return _answer(refused, Source.REFUSED, refused["age"])
    return _answer(variants[0], Source.VARIANT, variants[0].get("since")) if variants else None


def _answer(told: Mapping[str, Any], source: Source, seconds: float | None) -> LastAnswer:
    # An Age of its own is the origin's; ours is told beside it.
    status, fields = told["status"], [(name, value) for name, value in told["headers"]]
    if told.get("part") is not None:
        # The whole, of which this part was asked for, has the same fields but these.
        status = 200
        fields = [(name, value) for name, value in fields if name.lower() not in _OF_A_PART]
    return LastAnswer(ResponseHead(status, "", Headers.of(fields)), source, seconds)


_OF_A_PART = frozenset({"content-range", "content-length"})
