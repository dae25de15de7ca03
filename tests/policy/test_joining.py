"""RFC 9110 §15.3.7.3 and RFC 9111 §3.4: which stored parts become one, and with which fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.joining import content_range, joined, union
from edgeproxy.policy.stored import Part
from tests.policy.make import stored as whole
from tests.policy.test_parts import FRESH, TAGGED, part


@pytest.mark.parametrize(
    ("older", "newer", "made"),
    [
        (Part(0, 5, 10), Part(5, 10, 10), Part(0, 10, 10)),
        (Part(0, 5, 10), Part(3, 8, 10), Part(0, 8, 10)),
        (Part(5, 10, 10), Part(0, 5, None), Part(0, 10, 10)),
        (Part(0, 5, None), Part(5, 8, None), Part(0, 8, None)),
        (Part(0, 5, 10), Part(6, 10, 10), None),
        (Part(6, 10, 10), Part(0, 5, 10), None),
        (Part(0, 5, 10), Part(5, 10, 11), None),
        (Part(0, 5, 5), Part(3, 8, None), None),
    ],
)
def test_unions(older: Part, newer: Part, made: Part | None) -> None:
    both = union(older, newer)
    assert (None if both is None else both.part) == made


@given(st.data())
def test_a_union_has_every_octet_in_its_place(data: st.DataObject) -> None:
    def some() -> Part:
        start = data.draw(st.integers(0, 29))
        return Part(start, data.draw(st.integers(start + 1, 30)), 30)

    older, newer = some(), some()
    both = union(older, newer)
    if both is None:
        assert newer.start > older.stop or older.start > newer.stop
        return
    body = bytes(range(30))
    old, new = body[older.start : older.stop], body[newer.start : newer.stop]
    made = old[: both.before] + new + old[both.after :]
    assert made == body[both.part.start : both.part.stop]
    assert both.complete is (made == body)


def test_parts_become_a_larger_one_and_then_the_whole() -> None:
    older = part(0, 5, 10, {**TAGGED, "X": "old", "Y": "kept"})
    newer = part(5, 8, 10, {**TAGGED, "X": "new"})
    larger = joined(older, newer)
    assert larger is not None
    assert (larger[1].part, larger[1].length, larger[1].status) == (Part(0, 8, 10), 8, 206)
    assert (larger[1].headers.get("x"), larger[1].headers.get("y")) == ("new", "kept")
    complete = joined(larger[1], part(7, 10, 10, TAGGED))
    assert complete is not None
    assert (complete[1].part, complete[1].length, complete[1].status) == (None, 10, 200)


def test_what_is_not_joined() -> None:
    one = part(0, 5, 10, TAGGED)
    others = [
        part(5, 10, 10, {**FRESH, "ETag": '"b"'}),
        part(5, 10, 10, FRESH),
        part(5, 10, 10, {**TAGGED, "Content-Encoding": "gzip"}),
        part(5, 10, 10, TAGGED, length=4),
        part(6, 10, 10, TAGGED),
        whole(TAGGED),
    ]
    for other in others:
        assert joined(one, other) is None
        assert joined(other, one) is None
    assert joined(part(0, 5, 10, FRESH), part(5, 10, 10, FRESH)) is None


def test_content_range_says_what_there_is() -> None:
    assert content_range(Part(0, 5, 10)) == "bytes 0-4/10"
    assert content_range(Part(0, 5, None)) == "bytes 0-4/*"
