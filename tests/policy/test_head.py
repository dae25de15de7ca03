from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy import head
from edgeproxy.policy.head import EMPTY, Headers, RequestHead

RAW = ((b"A", b"1"), (b"b", b"\xff"), (b"a", b"2"))


def test_lookup_joins_lines_and_ignores_case() -> None:
    headers = Headers(RAW)
    assert headers.get("a") == "1, 2"
    assert headers.get("b") == "\xff"
    assert headers.get("c") is None
    assert headers.get_all("a") == ("1", "2")
    assert headers.get_all("c") == ()
    assert "a" in headers
    assert "c" not in headers
    assert list(headers.names()) == ["a", "b"]


def test_changes_make_new_headers() -> None:
    headers = Headers(RAW)
    assert headers.without({"a"}).raw == ((b"b", b"\xff"),)
    assert headers.adding("C", "3").raw == (*RAW, (b"C", b"3"))
    assert headers.setting("A", "3").raw == ((b"b", b"\xff"), (b"A", b"3"))
    assert headers.raw == RAW


def test_values() -> None:
    assert Headers(RAW) == Headers(list(RAW))
    assert hash(Headers(RAW)) == hash(Headers(RAW))
    assert Headers(RAW) != EMPTY
    assert Headers(RAW) != RAW
    assert len(Headers(RAW)) == 3
    assert list(Headers(RAW)) == list(RAW)
    assert repr(Headers.of([("A", "1")])) == "Headers([(b'A', b'1')])"


@given(st.lists(st.tuples(st.binary(), st.binary())))
def test_octets_survive(raw: list[tuple[bytes, bytes]]) -> None:
    headers = Headers(raw)
    for name, _ in raw:
        lines = headers.get_all(name.decode("latin-1").lower())
        assert all(line.encode("latin-1") in [v for _, v in raw] for line in lines)
    assert headers.raw == tuple(raw)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("/a", "/a", None), ("/a?", "/a", ""), ("/a?b?c=1", "/a", "b?c=1"), ("/%2F?%20", "/%2F", "%20")],
)
def test_the_target_in_parts(target: str, path: str, query: str | None) -> None:
    head = RequestHead("GET", "http", "h", target)
    assert (head.path, head.query) == (path, query)


def test_lists_of_names_are_shared_within_bounds() -> None:
    one, two = (Headers.of([("A", value), ("B", "x")]) for value in "12")
    assert one.field_names is two.field_names
    long = [(f"X-{number}-{'n' * 200}", "x") for number in range(20)]
    assert not Headers.of(long).field_names.shared
    assert Headers.of(long).field_names is not Headers.of(long).field_names
    for number in range(2000):
        assert Headers.of([(f"X-{number}", "x")]).get(f"x-{number}") == "x"
    assert len(head._known) <= head._MOST_LISTS
