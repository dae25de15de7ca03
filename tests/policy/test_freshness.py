from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.freshness import (
    DEFAULT_KEEP,
    HEURISTIC_MAXIMUM,
    freshness_of,
    initial_age,
    status_ttl,
)
from edgeproxy.policy.http_date import MAX_DELTA
from edgeproxy.policy.stored import Freshness, LifetimeSource, Overrides, Unsafe
from tests.policy.make import NOW, PLAIN, Fields, answer, date, fields

DAY = 86_400.0


def of(given_fields: Fields, overrides: Overrides = PLAIN, status: int = 200, took: float = 0.0) -> Freshness:
    return freshness_of(answer(status, given_fields), NOW - took, NOW, overrides)


def lifetime(given_fields: Fields, status: int = 200) -> tuple[LifetimeSource, float]:
    freshness = of(given_fields, status=status)
    return freshness.source, freshness.lifetime


@pytest.mark.parametrize(
    ("given_fields", "took", "age"),
    [
        ({}, 0, 0),
        ({}, 3, 3),
        ({"Date": date()}, 0, 0),
        ({"Date": date(-100)}, 0, 100),
        ({"Date": date(100)}, 0, 0),
        ({"Date": "junk"}, 0, 0),
        ({"Age": "50"}, 0, 50),
        ({"Age": "50"}, 3, 53),
        ({"Age": "50", "Date": date(-100)}, 3, 100),
        ({"Age": "500", "Date": date(-100)}, 3, 503),
        ({"Age": "7200, 0"}, 0, 7200),
        ({"Age": "0, 7200"}, 0, 0),
        ([("Age", "7200"), ("Age", "0")], 0, 7200),
        ([("Age", "0"), ("Age", "7200")], 0, 0),
        ({"Age": "abc"}, 0, 0),
        ({"Age": "-7200"}, 0, 0),
        ({"Age": "7200.0"}, 0, 0),
        ({"Age": "7200;foo=bar"}, 0, 0),
        ({"Age": ""}, 0, 0),
        ({"Age": "99999999999"}, 0, MAX_DELTA),
        ([("Date", date(-7)), ("Date", date(-900))], 0, 7),
        ({}, -5, 0),
    ],
)
def test_initial_age(given_fields: Fields, took: float, age: float) -> None:
    assert initial_age(fields(given_fields), NOW - took, NOW) == age


@pytest.mark.parametrize(("received", "age"), [(0.999, 0), (1.0, 1), (1.5, 1)])
def test_a_fraction_of_a_second_since_date_is_no_age(received: float, age: float) -> None:
    assert initial_age(fields({"Date": date()}), NOW + received, NOW + received) == age


@pytest.mark.parametrize(
    ("given_fields", "source", "seconds"),
    [
        ({}, LifetimeSource.NONE, 0),
        ({"Cache-Control": "max-age=10"}, LifetimeSource.MAX_AGE, 10),
        ({"Cache-Control": "max-age=10, s-maxage=20"}, LifetimeSource.S_MAXAGE, 20),
        ({"Cache-Control": "max-age=0, s-maxage=20", "Expires": date(-9)}, LifetimeSource.S_MAXAGE, 20),
        ({"Cache-Control": "max-age=junk", "Expires": date(90)}, LifetimeSource.MAX_AGE, 0),
        ({"Cache-Control": "max-age=10", "Expires": "0"}, LifetimeSource.MAX_AGE, 10),
        ({"CDN-Cache-Control": "max-age=5"}, LifetimeSource.CDN_CACHE_CONTROL, 5),
        (
            {"CDN-Cache-Control": "max-age=5", "Cache-Control": "s-maxage=9", "Expires": date(90)},
            LifetimeSource.CDN_CACHE_CONTROL,
            5,
        ),
        (
            {"CDN-Cache-Control": "max-age=5, s-maxage=6"},
            LifetimeSource.CDN_CACHE_CONTROL,
            6,
        ),
        (
            {"CDN-Cache-Control": "must-revalidate", "Cache-Control": "max-age=9", "Expires": date(90)},
            LifetimeSource.NONE,
            0,
        ),
        ({"CDN-Cache-Control": "&&", "Cache-Control": "max-age=9"}, LifetimeSource.MAX_AGE, 9),
        ({"Expires": date(90), "Date": date()}, LifetimeSource.EXPIRES, 90),
        ({"Expires": date(300), "Date": date(400)}, LifetimeSource.EXPIRES, 0),
        ({"Expires": date(10), "Date": "junk"}, LifetimeSource.EXPIRES, 10),
        ({"Expires": date(10)}, LifetimeSource.EXPIRES, 10),
        ({"Expires": "0", "Last-Modified": date(-1000)}, LifetimeSource.EXPIRES, 0),
        ([("Expires", date(10)), ("Expires", date(99))], LifetimeSource.EXPIRES, 10),
        ({"Expires": "Thursday, 18-Aug-50 02:01:18 GMT", "Date": date()}, LifetimeSource.EXPIRES,
         2544400878 - NOW),
        ({"Last-Modified": date(-1000), "Date": date()}, LifetimeSource.HEURISTIC, 100),
        ({"Last-Modified": date(-1000)}, LifetimeSource.HEURISTIC, 100),
        ({"Last-Modified": date(-1000 * DAY)}, LifetimeSource.HEURISTIC, HEURISTIC_MAXIMUM),
        ({"Last-Modified": date(0), "Date": date()}, LifetimeSource.NONE, 0),
        ({"Last-Modified": date(50), "Date": date()}, LifetimeSource.NONE, 0),
        ({"Last-Modified": "junk", "Date": date()}, LifetimeSource.NONE, 0),
    ],
)  # fmt: skip
def test_what_the_answer_says(given_fields: Fields, source: LifetimeSource, seconds: float) -> None:
    assert lifetime(given_fields) == (source, seconds)


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_heuristically_cacheable_statuses(status: int) -> None:
    assert lifetime({"Last-Modified": date(-1000)}, status) == (LifetimeSource.HEURISTIC, 100)


@pytest.mark.parametrize("status", [201, 202, 302, 403, 500, 502, 503, 504, 599])
def test_other_statuses_need_public(status: int) -> None:
    assert lifetime({"Last-Modified": date(-1000)}, status) == (LifetimeSource.NONE, 0)
    public = {"Last-Modified": date(-1000), "Cache-Control": "public"}
    assert lifetime(public, status) == (LifetimeSource.HEURISTIC, 100)


def test_a_rule_turns_guessing_off() -> None:
    assert of({"Last-Modified": date(-1000)}, Overrides(heuristic=False)).source is LifetimeSource.NONE


@pytest.mark.parametrize(
    ("status", "overrides", "ttl"),
    [
        (200, Overrides(status_ttl={200: 1.0, 2: 2.0}), 1.0),
        (203, Overrides(status_ttl={200: 1.0, 2: 2.0}), 2.0),
        (404, Overrides(status_ttl={4: 0.0}), 0.0),
        (404, PLAIN, None),
    ],
)
def test_status_ttl_by_status_then_by_class(status: int, overrides: Overrides, ttl: float | None) -> None:
    assert status_ttl(status, overrides) == ttl


@pytest.mark.parametrize(
    ("status", "overrides", "source", "seconds"),
    [
        (200, Overrides(ttl=60), LifetimeSource.RULE, 60),
        (200, Overrides(ttl=60, status_ttl={200: 7}), LifetimeSource.RULE, 7),
        (200, Overrides(ttl=60, status_ttl={404: 7}), LifetimeSource.RULE, 60),
        (302, Overrides(ttl=60), LifetimeSource.RULE, 60),
        (404, Overrides(ttl=60), LifetimeSource.MAX_AGE, 10),
        (500, Overrides(ttl=60), LifetimeSource.MAX_AGE, 10),
        (404, Overrides(ttl=60, status_ttl={4: 5}), LifetimeSource.RULE, 5),
        (200, Overrides(ttl_min=60), LifetimeSource.RULE, 60),
        (200, Overrides(ttl_min=5), LifetimeSource.MAX_AGE, 10),
        (404, Overrides(ttl_min=60), LifetimeSource.MAX_AGE, 10),
        (200, Overrides(ttl_max=5), LifetimeSource.MAX_AGE, 5),
        (404, Overrides(ttl_max=5), LifetimeSource.MAX_AGE, 5),
        (200, Overrides(ttl_max=50), LifetimeSource.MAX_AGE, 10),
        (200, Overrides(ttl_min=20, ttl_max=30), LifetimeSource.RULE, 20),
    ],
)
def test_what_the_rule_says(
    status: int, overrides: Overrides, source: LifetimeSource, seconds: float
) -> None:
    freshness = of({"Cache-Control": "max-age=10"}, overrides, status)
    assert (freshness.source, freshness.lifetime) == (source, seconds)


@pytest.mark.parametrize("overrides", [Overrides(ttl=30), Overrides(ttl_min=30), Overrides(ttl_max=30)])
def test_a_rules_durations_count_from_receipt(overrides: Overrides) -> None:
    stated = "max-age=9000" if overrides.ttl_max else "max-age=1"
    freshness = of({"Age": "500", "Cache-Control": stated}, overrides)
    assert freshness.fresh_until == NOW + 30
    assert freshness.age(NOW) == 500


def test_an_answer_already_stale_stays_so() -> None:
    freshness = of({"Age": "7200", "Cache-Control": "max-age=3600"}, Overrides(ttl_max=50))
    assert not freshness.is_fresh(NOW)
    assert freshness.fresh_until == NOW - 3600


@pytest.mark.parametrize(
    ("given_fields", "overrides", "windows"),
    [
        ({}, PLAIN, (0, 0)),
        ({"Cache-Control": "stale-while-revalidate=5, stale-if-error=6"}, PLAIN, (5, 6)),
        (
            {"Cache-Control": "stale-while-revalidate=5, stale-if-error=6"},
            Overrides(stale_while_revalidate=1, stale_if_error=0),
            (1, 0),
        ),
        ({}, Overrides(stale_while_revalidate=1, stale_if_error=2), (1, 2)),
        (
            {"CDN-Cache-Control": "max-age=1, stale-if-error=4", "Cache-Control": "stale-if-error=9"},
            PLAIN,
            (0, 4),
        ),
    ],
)
def test_stale_windows(given_fields: Fields, overrides: Overrides, windows: tuple[float, float]) -> None:
    freshness = of(given_fields, overrides)
    assert (freshness.stale_while_revalidate, freshness.stale_if_error) == windows


@pytest.mark.parametrize(
    ("given_fields", "keep", "expected"),
    [
        ({"ETag": '"a"'}, None, DEFAULT_KEEP),
        ({"Last-Modified": date(-5)}, None, DEFAULT_KEEP),
        ({"ETag": '"a"'}, 7.0, 7.0),
        ({}, None, 0.0),
        ({}, 7.0, 0.0),
        ({"Last-Modified": "junk"}, None, 0.0),
    ],
)
def test_kept_for_validation_only_with_a_validator(
    given_fields: Fields, keep: float | None, expected: float
) -> None:
    assert of(given_fields, Overrides(keep=keep)).keep == expected


@pytest.mark.parametrize(
    ("stated", "overrides", "never"),
    [
        ("max-age=5", PLAIN, False),
        ("max-age=5, must-revalidate", PLAIN, True),
        ("max-age=5, proxy-revalidate", PLAIN, True),
        ("s-maxage=5", PLAIN, True),
        ("s-maxage=5, stale-while-revalidate=9", PLAIN, True),
        ("s-maxage=5", Overrides(ttl=9), False),
        ("s-maxage=5", Overrides(stale_while_revalidate=9), False),
        ("s-maxage=5", Overrides(stale_if_error=9), False),
        ("max-age=5, must-revalidate", Overrides(ttl=9, stale_if_error=9), True),
        ("max-age=5, must-revalidate", Overrides(unsafe=frozenset({Unsafe.MUST_REVALIDATE})), False),
        ("s-maxage=5", Overrides(unsafe=frozenset({Unsafe.MUST_REVALIDATE})), False),
    ],
)
def test_never_stale(stated: str, overrides: Overrides, *, never: bool) -> None:
    assert of({"Cache-Control": stated}, overrides).never_stale is never


@pytest.mark.parametrize(
    ("stated", "overrides", "must"),
    [
        ("no-cache", PLAIN, True),
        ('no-cache="x"', PLAIN, False),
        ("no-cache", Overrides(ttl=60), True),
        ("no-cache", Overrides(ttl=60, unsafe=frozenset({Unsafe.NO_CACHE})), False),
        ("max-age=5", PLAIN, False),
    ],
)
def test_must_validate(stated: str, overrides: Overrides, *, must: bool) -> None:
    freshness = of({"Cache-Control": stated}, overrides)
    assert freshness.must_validate is must
    assert not (must and freshness.is_fresh(NOW))


def test_pragma_in_an_answer_means_nothing() -> None:
    assert of({"Cache-Control": "max-age=9", "Pragma": "no-cache"}).is_fresh(NOW)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Age", "Date", "Expires", "Last-Modified", "Cache-Control", "CDN-Cache-Control"]
            ),
            st.one_of(
                st.sampled_from([date(), date(-9e8), date(9e9), "max-age=5", "max-age=99999999999", "0"]),
                st.text(st.characters(codec="latin-1"), max_size=20),
            ),
        ),
        max_size=6,
    ),
    st.sampled_from([PLAIN, Overrides(ttl=5), Overrides(ttl_min=3, ttl_max=9)]),
)
def test_never_negative_whatever_is_said(given_fields: list[tuple[str, str]], overrides: Overrides) -> None:
    freshness = of(given_fields, overrides)
    assert freshness.lifetime >= 0
    assert freshness.initial_age >= 0
    assert freshness.age(NOW - 1e6) >= 0
    assert freshness.storage_ttl(NOW) >= 0


@pytest.mark.parametrize(
    ("status", "status_ttl", "window"),
    [(200, {}, 60.0), (404, {}, 0.0), (404, {404: 5.0}, 60.0), (404, {4: 5.0}, 60.0)],
)
def test_a_rules_windows_are_for_the_answers_it_speaks_of(
    status: int, status_ttl: dict[int, float], window: float
) -> None:
    overrides = Overrides(stale_while_revalidate=60.0, stale_if_error=60.0, status_ttl=status_ttl)
    freshness = of([], overrides, status=status)
    assert (freshness.stale_while_revalidate, freshness.stale_if_error) == (window, window)


DAY = 24 * 3600.0


@pytest.mark.parametrize(
    ("overrides", "limit"),
    [
        (PLAIN, DAY),
        (Overrides(stale_if_error=60.0), DAY),
        (Overrides(stale_if_error=7 * DAY), 7 * DAY),
        (Overrides(stale_if_error=7 * DAY, max_stale=3600.0), 3600.0),
        (Overrides(max_stale=0.0), 0.0),
        (Overrides(max_stale=30 * DAY), 30 * DAY),
    ],
)
def test_no_window_is_longer_than_the_cap(overrides: Overrides, limit: float) -> None:
    """A year, says the answer; whoever runs the edge says what that is worth."""
    year = f"max-age=1, stale-while-revalidate={365 * 24 * 3600}, stale-if-error={365 * 24 * 3600}"
    freshness = of({"Cache-Control": year}, overrides)
    assert freshness.stale_while_revalidate == limit
    own = limit if overrides.stale_if_error is None else min(limit, overrides.stale_if_error)
    assert freshness.stale_if_error == own
    assert of({"Cache-Control": "max-age=1"}, overrides).stale_if_disconnected <= limit
