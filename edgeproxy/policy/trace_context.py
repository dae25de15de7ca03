"""Where a request stands in a distributed trace: the fields traceparent and tracestate (W3C Trace Context).

Rules of this file:

- A traceparent that is not well-formed, or that comes twice, is none, and takes its tracestate along (§3.2,
  §4.3).
- A version that we do not know is read as version 00, as far as that goes (§4.4).
- What we send is version 00, with a parent id of our own and the flag "sampled" alone: that is only done for
  requests that are sampled. All others keep the fields as they came.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.policy.head import Headers, RawField

SAMPLED = 1
TRACE = frozenset({"traceparent", "tracestate"})
_FIELDS = frozenset(name.encode() for name in TRACE)
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@value
class Parent:
    """Who asks: ``trace_id`` (32 hex digits), ``span_id`` (16), and whether what it does is recorded."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str


def parent_of(headers: Headers) -> Parent | None:
    """None where the request begins a trace, or says nothing that can be gone by."""
    told = headers.get("traceparent")
    found = None if told is None else _PARENT.fullmatch(told.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & SAMPLED), headers.get("tracestate") or "")


@value
class Span:
    """A request that is recorded. ``fetch_id`` is what the origin gets as its parent's id."""

    trace_id: str
    span_id: str
    fetch_id: str
    parent_id: str
    """"" where the trace begins here."""
    state: str

    def onto(self, fields: Iterable[RawField]) -> list[RawField]:
        """``fields`` for the origin, in this trace."""
        told = [field for field in fields if field[0].lower() not in _FIELDS]
        told.append((b"traceparent", f"00-{self.trace_id}-{self.fetch_id}-01".encode()))
        if self.state:
            told.append((b"tracestate", self.state.encode("latin-1")))
        return told
