from __future__ import annotations

import pytest

from edgeproxy.policy.validate import (
    conditions_for,
    confirms,
    has_validator,
    is_entity_tag,
    last_modified_is_strong,
    not_modified,
    same_date,
    strong_match,
    weak_match,
)
from tests.policy.make import NOW, answer, date, fields, stored

MODIFIED = {"Last-Modified": date(-3000), "Date": date()}


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_comparison_as_in_rfc_9110_table_3(one: str, other: str, *, strong: bool, weak: bool) -> None:
    assert strong_match(one, other) is strong
    assert weak_match(one, other) is weak


@pytest.mark.parametrize("value", ['"a"', 'W/"a"', '""', '"\xfc"', '"a,b"'])
def test_entity_tags(value: str) -> None:
    assert is_entity_tag(value)


@pytest.mark.parametrize("value", ["a", 'w/"a"', '"a', '"a b"', 'W"a"', "", '"a"\n'])
def test_not_entity_tags(value: str) -> None:
    assert not is_entity_tag(value)


def matches_stored(asked: dict[str, str], held: dict[str, str], etag: str | None = None) -> bool:
    return not_modified(fields(asked), fields(held), etag, NOW)


@pytest.mark.parametrize(
    ("value", "etag", "matches"),
    [
        ('"a"', '"a"', True),
        ('W/"a"', '"a"', True),
        ('"a"', 'W/"a"', True),
        ('"x", "a", "y"', '"a"', True),
        ('"x,"a"', '"a"', False),
        ('"x, y", "a"', '"a"', True),
        ("*", '"a"', True),
        ("*", None, True),
        ('"b"', '"a"', False),
        ('"a"', None, False),
        ("a", '"a"', False),
        ('"\xfc"', '"\xfc"', True),
    ],
)
def test_if_none_match(value: str, etag: str | None, *, matches: bool) -> None:
    assert matches_stored({"If-None-Match": value}, {}, etag) is matches


@pytest.mark.parametrize(
    ("since", "held", "matches"),
    [
        (date(-3000), MODIFIED, True),
        (date(-2000), MODIFIED, True),
        (date(-3001), MODIFIED, False),
        (date(0), {"Date": date()}, True),
        (date(-1), {"Date": date()}, False),
        (date(0), {}, True),
        (date(-1), {}, False),
        ("junk", MODIFIED, False),
        (f"{date(0)}, {date(0)}", MODIFIED, False),
    ],
)
def test_if_modified_since(since: str, held: dict[str, str], *, matches: bool) -> None:
    assert matches_stored({"If-Modified-Since": since}, held) is matches


def test_if_none_match_comes_before_if_modified_since() -> None:
    asked = {"If-None-Match": '"b"', "If-Modified-Since": date(0)}
    assert not matches_stored(asked, MODIFIED, '"a"')
    asked = {"If-None-Match": '"a"', "If-Modified-Since": date(-9000)}
    assert matches_stored(asked, MODIFIED, '"a"')


def test_same_date_in_any_format() -> None:
    assert same_date("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT")
    assert not same_date("junk", "junk")
    assert not same_date(None, date())
    assert not same_date(date(), None)


@pytest.mark.parametrize(
    ("held", "strong"),
    [
        ({"Last-Modified": date(-60), "Date": date()}, True),
        ({"Last-Modified": date(-59), "Date": date()}, False),
        ({"Last-Modified": date(-60)}, False),
        ({"Date": date()}, False),
    ],
)
def test_strong_dates(held: dict[str, str], *, strong: bool) -> None:
    assert last_modified_is_strong(fields(held)) is strong


@pytest.mark.parametrize(
    ("held", "conditions"),
    [
        ({"ETag": '"a"'}, [("If-None-Match", '"a"')]),
        ({"ETag": 'W/"\xfc"'}, [("If-None-Match", 'W/"\xfc"')]),
        ({"Last-Modified": date(-9)}, [("If-Modified-Since", date(-9))]),
        (
            {"ETag": '"a"', "Last-Modified": date(-9)},
            [("If-None-Match", '"a"'), ("If-Modified-Since", date(-9))],
        ),
        ({"Last-Modified": "junk"}, []),
        ({}, []),
    ],
)
def test_our_conditions(held: dict[str, str], conditions: list[tuple[str, str]]) -> None:
    kept = stored({"Cache-Control": "max-age=5", **held})
    assert conditions_for(kept) == fields(conditions).raw
    assert has_validator(kept.headers) is bool(conditions)


@pytest.mark.parametrize(
    ("held", "new", "fits"),
    [
        ({"ETag": '"a"'}, {"ETag": '"a"'}, True),
        ({"ETag": '"a"'}, {"ETag": '"b"'}, False),
        ({"ETag": '"a"'}, {"ETag": 'W/"a"'}, True),
        ({"ETag": 'W/"a"'}, {"ETag": 'W/"a"'}, True),
        ({"ETag": 'W/"a"'}, {"ETag": '"a"'}, False),
        ({"ETag": '"a"'}, {}, True),
        ({"ETag": '"a"'}, {"Last-Modified": date(-9)}, True),
        ({"ETag": '"a"', "Last-Modified": date(-9)}, {"ETag": '"a"', "Last-Modified": date(-8)}, True),
        ({"ETag": '"a"', "Last-Modified": date(-9)}, {"Last-Modified": date(-8)}, False),
        ({"Last-Modified": date(-9)}, {"Last-Modified": date(-9)}, True),
        ({"Last-Modified": date(-9)}, {"Last-Modified": date(-8)}, False),
        ({"Last-Modified": date(-9)}, {}, True),
        ({"Last-Modified": date(-9)}, {"ETag": '"a"'}, False),
        ({"Last-Modified": date(-9)}, {"ETag": 'W/"a"'}, False),
        ({"Last-Modified": date(-9)}, {"ETag": 'W/"a"', "Last-Modified": date(-9)}, True),
        ({"Last-Modified": date(-9)}, {"ETag": '"a"', "Last-Modified": date(-9)}, False),
        ({"Last-Modified": date(-90)}, {"ETag": '"a"', "Last-Modified": date(-90)}, True),
    ],
)
def test_which_304_fits(held: dict[str, str], new: dict[str, str], *, fits: bool) -> None:
    kept = stored({"Cache-Control": "max-age=5", **held})
    assert confirms(kept, answer(304, new)) is fits
