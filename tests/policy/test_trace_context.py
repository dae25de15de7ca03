"""traceparent and tracestate (W3C Trace Context)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.head import Headers
from edgeproxy.policy.trace_context import Parent, Span, parent_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("told", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f" 00-{TRACE}-{SPAN}-03\t", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"cc-{TRACE}-{SPAN}-01", True),  # a later version
        (f"cc-{TRACE}-{SPAN}-01-what-comes-then", True),
    ],
)
def test_a_parent(told: str, sampled: bool) -> None:
    assert parent_of(Headers.of([("Traceparent", told)])) == Parent(TRACE, SPAN, sampled, "")


@pytest.mark.parametrize(
    "told",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
    ],
)
def test_what_is_none(told: str) -> None:
    assert parent_of(Headers.of([("traceparent", told), ("tracestate", "a=b")])) is None


def test_twice_is_none() -> None:
    line = ("traceparent", f"00-{TRACE}-{SPAN}-01")
    assert parent_of(Headers.of([line, line])) is None
    assert parent_of(Headers()) is None


def test_the_state_goes_along() -> None:
    fields = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1"), ("tracestate", "b=2")]
    parent = parent_of(Headers.of(fields))
    assert parent is not None
    assert parent.state == "a=1, b=2"
    span = Span(TRACE, "1" * 16, "2" * 16, SPAN, parent.state)
    told = span.onto([(b"Accept", b"*/*"), (b"TraceParent", b"x"), (b"tracestate", b"y")])
    assert told == [
        (b"Accept", b"*/*"),
        (b"traceparent", f"00-{TRACE}-{'2' * 16}-01".encode()),
        (b"tracestate", b"a=1, b=2"),
    ]
    assert Span(TRACE, "1" * 16, "2" * 16, "", "").onto([])[1:] == []


@given(st.text())
def test_whatever_comes(told: str) -> None:
    latin = told.encode("latin-1", "ignore").decode("latin-1")
    parent = parent_of(Headers.of([("traceparent", latin)]))
    assert parent is None or (len(parent.trace_id), len(parent.span_id)) == (32, 16)
