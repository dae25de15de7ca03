"""A known head gives back the head it was made from, with other values in the right places."""

from __future__ import annotations

from edgeproxy.policy.head import Headers, ResponseHead
from edgeproxy.policy.known import KnownHead


def test_values_stand_where_the_known_ones_stood() -> None:
    model = ResponseHead(
        200, "Fine", Headers.of([("Date", "then"), ("Server", "s"), ("etag", '"a"'), ("Content-Length", "5")])
    )
    known = KnownHead(model, (0, 2, 3))
    assert known.head([b"then", b'"a"', b"5"]) == model
    other = known.head([b"now", b'"b"', b"6"])
    assert (other.status, other.reason) == (200, "Fine")
    assert other.headers == Headers.of(
        [("Date", "now"), ("Server", "s"), ("etag", '"b"'), ("Content-Length", "6")]
    )
    assert other.headers.field_names is model.headers.field_names
    assert other.headers.get("etag") == '"b"'
