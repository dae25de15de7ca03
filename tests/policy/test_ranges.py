from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.ranges import MAX_RANGES, UNSATISFIABLE, if_range_matches, parse_ranges
from tests.policy.make import date, fields


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("bytes=0-1", ((0, 2),)),
        ("BYTES=1-", ((1, 10),)),
        ("bytes=-3", ((7, 10),)),
        ("bytes=-30", ((0, 10),)),
        ("bytes=5-5", ((5, 6),)),
        ("bytes=5-900", ((5, 10),)),
        (" bytes= 0-0 ,\t9- ,", ((0, 1), (9, 10))),
        ("bytes=8-9,0-1", ((8, 10), (0, 2))),
        ("bytes=0-1,20-30", ((0, 2),)),
        ("bytes=0-1,2-3", ((0, 2), (2, 4))),
    ],
)
def test_parts(value: str, parts: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(value, 10) == parts


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-,-0"])
def test_unsatisfiable(value: str) -> None:
    assert parse_ranges(value, 10) is UNSATISFIABLE


@pytest.mark.parametrize(
    "value",
    [
        "", "bytes", "bytes=", "bytes=,", "items=0-1", "bytes =0-1", "bytes=a-b", "bytes=-", "bytes=5-4",
        "bytes=0-1,5-4", "bytes=0", "bytes=0--1", "bytes=+1-2", "bytes=1 - 2", "bytes=\u0660-\u0661",
        "bytes=0-1,1-2", "bytes=0-,-1", "bytes=-5,-6", f"bytes={'9' * 19}-", f"bytes=0-{'9' * 5000}",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(MAX_RANGES + 1)),
        "bytes=" + "," * 100_000,
    ],
)  # fmt: skip
def test_ignored(value: str) -> None:
    assert parse_ranges(value, 100) is None


def test_as_many_as_allowed() -> None:
    parts = parse_ranges("bytes=" + ",".join(f"{n}-{n}" for n in range(MAX_RANGES)), 100)
    assert parts == tuple((n, n + 1) for n in range(MAX_RANGES))


def test_nothing_is_a_part_of_nothing() -> None:
    assert parse_ranges("bytes=0-", 0) is None
    assert parse_ranges("bytes=-5", 0) is None


@given(st.text(max_size=40), st.integers(0, 100))
def test_parts_are_within_the_body_and_do_not_overlap(text: str, length: int) -> None:
    for value in (text, f"bytes={text}"):
        parts = parse_ranges(value, length)
        if isinstance(parts, tuple):
            assert all(0 <= start < stop <= length for start, stop in parts)
            assert sum(stop - start for start, stop in parts) <= length


@pytest.mark.parametrize(
    ("condition", "etag", "given_fields", "holds"),
    [
        (None, None, {}, True),
        ('"a"', '"a"', {}, True),
        (' "a"', '"a"', {}, True),
        ('"a"', '"b"', {}, False),
        ('"a"', None, {}, False),
        ('W/"a"', 'W/"a"', {}, False),
        ('"a"', 'W/"a"', {}, False),
        (date(-100), None, {"Last-Modified": date(-100), "Date": date()}, True),
        (date(-100), None, {"Last-Modified": date(-101), "Date": date()}, False),
        (date(-5), None, {"Last-Modified": date(-5), "Date": date()}, False),
        (date(-100), None, {"Last-Modified": date(-100)}, False),
        (date(-100), '"a"', {}, False),
        ("junk", '"a"', {"Last-Modified": "junk", "Date": date()}, False),
    ],
)
def test_if_range(
    condition: str | None, etag: str | None, given_fields: dict[str, str], *, holds: bool
) -> None:
    assert if_range_matches(condition, fields(given_fields), etag) is holds
