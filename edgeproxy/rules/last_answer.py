"""The last answer of the origin to a URL, of what an instance tells of it: explain goes by it.

Rules of this file:

- Plain data in (``describe`` and ``refusal`` of operate.py, through JSON or not), so that the command and the
  admin port choose in the same way.
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


class Source(StrEnum):
    """Where the answer that is explained is from."""

    GIVEN = "given"
    """It was described by who asks."""
    STORED = "stored"
    """It is what is stored."""
    REFUSED = "refused"
    """It is the last one, which was not stored."""
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
    """``variants``: what is stored, the one that the request selects first; ``refused``: the last answer that
    was not. The later of the two; None where neither is known."""
    if method not in ("GET", "HEAD"):
        return None
    stored = None if not variants else _answer(variants[0], Source.STORED, variants[0].get("since"))
    if refused is None:
        return stored
    last = _answer(refused, Source.REFUSED, refused["age"])
    if stored is None:
        return last
    # Of what an older instance tells, it is not known when it came.
    known = stored.seconds is not None and last.seconds is not None
    return last if known and last.seconds < stored.seconds else stored  # type: ignore[operator]


def _answer(told: Mapping[str, Any], source: Source, seconds: float | None) -> LastAnswer:
    # An Age of its own is the origin's; ours is told beside it.
    status, fields = told["status"], [(name, value) for name, value in told["headers"]]
    if told.get("part") is not None:
        # The whole, of which this part was asked for, has the same fields but these.
        status = 200
        fields = [(name, value) for name, value in fields if name.lower() not in _OF_A_PART]
    return LastAnswer(ResponseHead(status, "", Headers.of(fields)), source, seconds)


_OF_A_PART = frozenset({"content-range", "content-length"})
