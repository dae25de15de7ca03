from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.http_date import MAX_DELTA, delta_seconds, format_http_date, parse_http_date

SIXTH_OF_NOVEMBER = 784111777.0


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "SUN, 06 nov 1994 08:49:37 gmt",
        " Sun, 06 Nov 1994 08:49:37 GMT\t",
        "Mon, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_the_three_formats(value: str) -> None:
    assert parse_http_date(value) == SIXTH_OF_NOVEMBER


@pytest.mark.parametrize(
    "value",
    [
        "", "0", "-1", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 AEST",
        "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 94 08:49:37 GMT", "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov  1994 08:49:37 GMT", "Sun, 06-Nov-1994 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT", "Sun, 06 Nov 1994 8:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:49:61 GMT", "Sun Nov 6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
    ],
)  # fmt: skip
def test_anything_else_is_no_date(value: str) -> None:
    assert parse_http_date(value) is None


def test_a_leap_second_is_the_last_second_of_its_minute() -> None:
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == parse_http_date(
        "Sat, 31 Dec 2016 23:59:59 GMT"
    )


@pytest.mark.parametrize(
    ("now", "digits", "year"),
    [(2025, "75", 2075), (2025, "76", 1976), (2025, "94", 1994), (1999, "00", 1900), (2060, "09", 2009)],
)
def test_two_digit_years_more_than_fifty_years_ahead_are_past(now: int, digits: str, year: int) -> None:
    at = parse_http_date(f"Tue, 01 Jul {now} 00:00:00 GMT")
    assert at is not None
    expected = parse_http_date(f"Tue, 01 Jan {year} 00:00:00 GMT")
    assert parse_http_date(f"Tuesday, 01-Jan-{digits} 00:00:00 GMT", at) == expected


@given(st.integers(min_value=-62_135_596_800, max_value=253_402_300_799))
def test_what_is_written_is_read_back(when: int) -> None:
    assert parse_http_date(format_http_date(when)) == when


def test_fractions_are_cut_off() -> None:
    assert format_http_date(SIXTH_OF_NOVEMBER + 0.9) == "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), ("003600", 3600), ('"3600"', 3600), ("2147483648", MAX_DELTA),
        ("2147483649", MAX_DELTA), ("99999999999", MAX_DELTA), ("9" * 10_000, MAX_DELTA),
        ("0" * 10_000, 0), ("", None), ('""', None), ('"', None), ("-1", None), ("1.0", None),
        (" 1", None), ("1a", None), ("'1'", None), ("²", None), ("٣", None), ("+1", None), ("1_0", None),
    ],
)  # fmt: skip
def test_delta_seconds(value: str, seconds: int | None) -> None:
    assert delta_seconds(value) == seconds


@given(st.text(max_size=40))
def test_nothing_raises(value: str) -> None:
    parse_http_date(value)
    delta_seconds(value)
