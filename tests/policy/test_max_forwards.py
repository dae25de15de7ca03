"""Max-Forwards is counted down, for OPTIONS and TRACE (RFC 9110 §7.6.2)."""

from __future__ import annotations

import pytest

from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.max_forwards import one_hop_on


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
@pytest.mark.parametrize(("value", "next_value"), [("5", "4"), ("1", "0"), ("x", "x"), ("-1", "-1")])
def test_one_fewer(method: str, value: str, next_value: str) -> None:
    request = RequestHead(method, "http", "a.test", "/", Headers.of([("Max-Forwards", value)]))
    onward = one_hop_on(request)
    assert onward is not None
    assert onward.headers.get("max-forwards") == next_value


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_the_last_hop(method: str) -> None:
    assert one_hop_on(RequestHead(method, "http", "a.test", "/", Headers.of([("Max-Forwards", "0")]))) is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_methods_are_left_alone(method: str) -> None:
    request = RequestHead(method, "http", "a.test", "/", Headers.of([("Max-Forwards", "0")]))
    assert one_hop_on(request) is request


def test_without_it() -> None:
    request = RequestHead("OPTIONS", "http", "a.test", "/")
    assert one_hop_on(request) is request
