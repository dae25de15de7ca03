from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.cache_control import (
    NO_DIRECTIVES,
    Directives,
    effective_directives,
    request_directives,
    response_directives,
    targeted_directives,
)
from edgeproxy.policy.head import Headers
from edgeproxy.policy.http_date import MAX_DELTA


def said(*lines: str) -> Directives:
    return response_directives(Headers.of([("Cache-Control", line) for line in lines]))


def asked(*lines: str, pragma: str | None = None) -> Directives:
    headers = Headers.of([("Cache-Control", line) for line in lines])
    return request_directives(headers if pragma is None else headers.adding("Pragma", pragma))


def targeted(value: str) -> Directives | None:
    return targeted_directives(Headers.of([("CDN-Cache-Control", value)]))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["max-age=10"], Directives(max_age=10)),
        (["MaX-aGe=10 , S-MAXAGE=20"], Directives(max_age=10, s_maxage=20)),
        (['max-age="10"'], Directives(max_age=10)),
        (["foobar, max-age=3600, x=y"], Directives(max_age=3600)),
        (['extension="max-age=3600", max-age=1'], Directives(max_age=1)),
        (['max-age=1, extension="max-age=3600"'], Directives(max_age=1)),
        (["No-StOrE"], Directives(no_store=True)),
        (["no-store=anything"], Directives(no_store=True)),
        (['x="unended, no-store'], Directives(no_store=True)),
        (
            ["public, must-revalidate, proxy-revalidate, must-understand, no-transform, immutable"],
            Directives(
                public=True, must_revalidate=True, proxy_revalidate=True, must_understand=True,
                no_transform=True, immutable=True,
            ),
        ),
        (
            ["stale-while-revalidate=5", "stale-if-error=7"],
            Directives(stale_while_revalidate=5, stale_if_error=7),
        ),
        (["stale-while-revalidate=x, stale-if-error"], NO_DIRECTIVES),
        (["max-stale=1, min-fresh=2, only-if-cached"], NO_DIRECTIVES),
        (["", ","], NO_DIRECTIVES),
    ],
)  # fmt: skip
def test_response(lines: list[str], expected: Directives) -> None:
    assert said(*lines) == expected


@pytest.mark.parametrize(
    "value", ["max-age=", "max-age", "max-age=-1", "max-age=a1", "max-age=1a", "max-age=1.0",
              "max-age='3600'", "max-age =3600", "max-age= 3600", 'max-age="3600']
)  # fmt: skip
def test_a_lifetime_that_cannot_be_read_is_stale(value: str) -> None:
    assert said(value).max_age == 0


def test_the_first_of_repeated_lifetimes_counts() -> None:
    assert said("max-age=1, max-age=1800").max_age == 1
    assert said("max-age=1800", "max-age=1").max_age == 1800
    assert said("max-age=x, max-age=1800").max_age == 0
    assert said(f"max-age={MAX_DELTA + 1}").max_age == MAX_DELTA


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no-cache", Directives(no_cache=True)),
        ('no-cache="A, b"', Directives(no_cache_fields=("a", "b"))),
        ("no-cache=a", Directives(no_cache_fields=("a",))),
        ('no-cache="a", no-cache="b"', Directives(no_cache_fields=("a", "b"))),
        ('no-cache="a", no-cache', Directives(no_cache=True, no_cache_fields=("a",))),
        ('no-cache=""', Directives(no_cache=True)),
        ("no-cache =x", Directives(no_cache=True)),
        ("private", Directives(private=True)),
        ('private="Set-Cookie"', Directives(private_fields=("set-cookie",))),
        ("private=", Directives(private=True)),
    ],
)
def test_qualified_forms(value: str, expected: Directives) -> None:
    assert said(value) == expected


def test_no_field_is_no_directive() -> None:
    assert said() == NO_DIRECTIVES
    assert asked() == NO_DIRECTIVES
    assert targeted_directives(Headers()) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no-cache, no-store, only-if-cached", Directives(no_cache=True, no_store=True, only_if_cached=True)),
        ('no-cache="a", no-store=b', Directives(no_cache=True, no_store=True)),
        ("max-age=0, min-fresh=5", Directives(max_age=0, min_fresh=5)),
        ("max-stale", Directives(max_stale=MAX_DELTA)),
        ("max-stale=60", Directives(max_stale=60)),
        ("max-stale=x, max-age=x, min-fresh", NO_DIRECTIVES),
        ("stale-if-error=9", Directives(stale_if_error=9)),
        ("private, public, s-maxage=1, must-revalidate", NO_DIRECTIVES),
    ],
)
def test_request(value: str, expected: Directives) -> None:
    assert asked(value) == expected


def test_pragma_counts_only_without_cache_control() -> None:
    assert asked(pragma="x, No-Cache").no_cache
    assert not asked(pragma="extension").no_cache
    assert not asked("max-age=5", pragma="no-cache").no_cache


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=10", Directives(max_age=10, targeted=True)),
        ("max-age=10;p=1, foobar, x=(1 2)", Directives(max_age=10, targeted=True)),
        ("max-age=99999999999", Directives(max_age=MAX_DELTA, targeted=True)),
        ("max-age=-1", Directives(max_age=0, targeted=True)),
        ("no-store, private", Directives(no_store=True, private=True, targeted=True)),
        ("no-cache", Directives(no_cache=True, targeted=True)),
        ("no-store=?0, max-age=1", Directives(max_age=1, targeted=True)),
        ("no-store=5", Directives(no_store=True, targeted=True)),
        ('private="a", no-cache=("b" "c")',
         Directives(private_fields=("a",), no_cache_fields=("b", "c"), targeted=True)),
        ("max-stale=5, foo", Directives(targeted=True)),
    ],
)  # fmt: skip
def test_targeted(value: str, expected: Directives) -> None:
    assert targeted(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "max-age=10000, &&&&&", 'max-age="10000"', "max-age", "max-age=1.5", "max-age =100", "max-age= 100",
     "MaX-aGe=3600", "no-store, max-age=x"],
)  # fmt: skip
def test_an_invalid_targeted_field_is_ignored(value: str) -> None:
    assert targeted(value) is None
    headers = Headers.of([("CDN-Cache-Control", value), ("Cache-Control", "max-age=7")])
    assert effective_directives(headers) == Directives(max_age=7)


def test_a_valid_targeted_field_replaces_cache_control() -> None:
    headers = Headers.of([("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=3600")])
    assert effective_directives(headers) == Directives(max_age=3600, targeted=True)


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_nothing_raises(value: str) -> None:
    said(value)
    asked(value)
    targeted(value)


@given(st.text(st.characters(codec="latin-1"), max_size=30).filter(lambda text: '"' not in text))
def test_no_store_is_seen_whatever_comes_before(junk: str) -> None:
    assert said(f"{junk}, no-store").no_store
