from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.structured import parse_dictionary


def test_members_lose_their_parameters() -> None:
    assert parse_dictionary('max-age=10;x=1, no-store;y, f=?0, s="t", l=("a";z "b")') == {
        "max-age": 10,
        "no-store": True,
        "f": False,
        "s": "t",
        "l": ("a", "b"),
    }


def test_the_last_of_repeated_members_counts() -> None:
    assert parse_dictionary("a=1, a=2") == {"a": 2}


def test_empty_is_not_invalid() -> None:
    assert parse_dictionary("") == {}


@pytest.mark.parametrize(
    "value",
    ["&&&&&", "max-age=10, &", "MaX-aGe=1", "a =1", "a= 1", "a=1,", "a=9999999999999999", "\xff", "\u20ac",
     "a=@999999999999999"],
)  # fmt: skip
def test_invalid_as_a_whole(value: str) -> None:
    assert parse_dictionary(value) is None


@given(st.text(max_size=40))
def test_nothing_raises(value: str) -> None:
    parse_dictionary(value)
