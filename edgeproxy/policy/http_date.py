"""HTTP-date and delta-seconds: the two ways in which HTTP writes time.

Rules of this file:

- Three formats are read (RFC 9110 §5.6.7), one is written. No locale, no time zone of the machine.
- Strict: anything else is no date at all, and the caller takes that for the past (RFC 9111 §5.3). Letter
  case is not looked at, as RFC 9111 §4.2 allows caches; nor is whether the day's name fits the date.
- Seconds since 1970, in UTC.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_DAY = f"(?:{'|'.join(_DAYS)})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMATS = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
        rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT\Z",
        # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
        rf"(?:{'|'.join(_LONG_DAYS)}), (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT\Z",
        # asctime: Sun Nov  6 08:49:37 1994
        rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})\Z",
    )
)

MAX_DELTA = 2**31
"""What any larger delta-seconds counts as (RFC 9111 §1.2.2)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 40
"""Octets; no format has more than 33. What is longer is not looked at, nor remembered."""
_BUILT = 1_760_000_000.0
"""A time in 2025: "now" for two-digit years where the caller knows no better."""


def parse_http_date(value: str, now: float = _BUILT) -> float | None:
    """Seconds since 1970, or None where ``value`` is no HTTP-date. ``now`` places two-digit years."""
    value = value.strip(" \t")
    # To the day: ``now`` only places two-digit years.
    return _parsed(value, now // 86_400) if len(value) <= _LONGEST else None


@lru_cache(maxsize=8192)
def _parsed(value: str, today: float) -> float | None:
    for pattern in _FORMATS:
        found = pattern.match(value)
        if found is not None:
            return _timestamp(found, today * 86_400)
    return None


def _timestamp(found: re.Match[str], now: float) -> float | None:
    day, hour, minute, second = (int(found[name]) for name in ("day", "hour", "minute", "second"))
    month = _MONTH_NUMBER[found["month"].lower()]
    year = int(found["year"])
    if len(found["year"]) == 2:
        year = _full_year(year, now)
    # A leap second is 60; it is the last second of its minute to every clock that has none.
    if year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    return float(calendar.timegm((year, month, day, hour, minute, min(second, 59))))


def _full_year(two_digits: int, now: float) -> int:
    """The year that two digits mean: in this century, unless that appears to be more than 50 years ahead
    (RFC 9110 §5.6.7: then "the most recent year in the past that had the same last two digits")."""
    this_year = (_EPOCH + timedelta(seconds=now)).year
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + 50 else year


def format_http_date(when: float) -> str:
    """``when`` as IMF-fixdate, fractions cut off."""
    t = _EPOCH + timedelta(seconds=int(when))
    return (
        f"{_DAYS[t.weekday()]}, {t.day:02} {_MONTHS[t.month - 1]} {t.year:04} "
        f"{t.hour:02}:{t.minute:02}:{t.second:02} GMT"
    )


def delta_seconds(value: str) -> int | None:
    """Whole seconds, at most 2**31, or None where ``value`` is not digits and nothing else.

    The quoted form is read as well: "recipients ought to accept both forms, even if a specific form is
    required for generation" (RFC 9111 §5.2).
    """
    if len(value) > 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not (value.isascii() and value.isdigit()):
        return None
    digits = value.lstrip("0")
    # Looked at before int(), which refuses to read thousands of digits.
    return min(int(digits or "0"), MAX_DELTA) if len(digits) <= 10 else MAX_DELTA
