from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.freshness import freshness_of
from edgeproxy.policy.storable import forbidden, storable
from edgeproxy.policy.stored import Overrides, Unsafe
from edgeproxy.policy.vocabulary import NotStored
from tests.policy.make import NOW, PLAIN, Fields, answer, date, request

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead

CC = "Cache-Control"
FRESH = {CC: "max-age=60"}
AUTHORIZED = request({"Authorization": "Basic x"})


def unsafe(*words: Unsafe, **others: float) -> Overrides:
    return Overrides(unsafe=frozenset(words), **others)  # type: ignore[arg-type]


def why(
    given: Fields, *, status: int = 200, asked: RequestHead | None = None, overrides: Overrides = PLAIN
) -> NotStored | None:
    head = answer(status, given)
    return storable(asked or request(), head, overrides, freshness_of(head, NOW, NOW, overrides))


@pytest.mark.parametrize("status", [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499,
                                    500, 502, 503, 504, 599])  # fmt: skip
def test_any_final_status_with_explicit_freshness(status: int) -> None:
    assert why(FRESH, status=status) is None
    assert why({"Expires": date(60), "Date": date()}, status=status) is None


@pytest.mark.parametrize("status", [103, 199, 600, 999])
def test_what_is_no_final_status_is_never_kept(status: int) -> None:
    assert why(FRESH, status=status) is NotStored.STATUS


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(method="HEAD"), NotStored.METHOD),
        (request(method="POST"), NotStored.METHOD),
        (request(has_body=True), NotStored.REQUEST_BODY),
        (request({CC: "no-store"}), NotStored.REQUEST_NO_STORE),
        (AUTHORIZED, NotStored.AUTHORIZATION),
    ],
)
def test_reasons_in_the_request(asked: RequestHead, reason: NotStored) -> None:
    assert why(FRESH, asked=asked) is reason


def test_the_requests_no_store_counts_where_the_rule_lets_it() -> None:
    overrides = Overrides(honour_request_directives=False)
    assert why(FRESH, asked=request({CC: "no-store"}), overrides=overrides) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({CC: "no-store, max-age=60"}, NotStored.RESPONSE_NO_STORE),
        ({CC: "private, max-age=60"}, NotStored.RESPONSE_PRIVATE),
        ({CC: "no-cache, max-age=60"}, NotStored.RESPONSE_NO_CACHE),
        ({CC: "max-age=60", "Content-Type": "text/event-stream"}, NotStored.EVENT_STREAM),
        ({CC: "no-store", "Content-Type": "text/event-stream"}, NotStored.RESPONSE_NO_STORE),
        ({CC: "max-age=60", "Set-Cookie": "a=1"}, NotStored.SET_COOKIE),
        ({CC: "max-age=60", "Vary": "Foo, *"}, NotStored.VARY_STAR),
        ({CC: "max-age=60", "Content-Length": "8388609"}, NotStored.TOO_LARGE),
        ({CC: "max-age=60", "Content-Length": "9" * 5000}, NotStored.TOO_LARGE),
        ({CC: "max-age=60", "Content-Length": "-1"}, NotStored.MALFORMED),
        ({CC: "max-age=60", "Content-Length": "²"}, NotStored.MALFORMED),
        ([(CC, "max-age=60"), ("Content-Length", "5"), ("Content-Length", "5")], NotStored.MALFORMED),
        ({}, NotStored.NO_LIFETIME),
        ({"Last-Modified": "junk"}, NotStored.NO_LIFETIME),
        ({CC: "max-age=0"}, NotStored.LIFETIME_ZERO),
        ({"Expires": "0"}, NotStored.LIFETIME_ZERO),
        ({CC: "max-age=60", "Age": "60"}, NotStored.LIFETIME_ZERO),
        ({CC: "max-age=60, stale-if-error=5", "Age": "65"}, NotStored.LIFETIME_ZERO),
        ({CC: "max-age=0, must-revalidate, stale-if-error=5"}, NotStored.LIFETIME_ZERO),
        ({CC: "max-age=60", "CDN-Cache-Control": "no-store"}, NotStored.RESPONSE_NO_STORE),
        ({CC: "max-age=60", "CDN-Cache-Control": "private"}, NotStored.RESPONSE_PRIVATE),
        ({CC: "max-age=60", "CDN-Cache-Control": "no-cache"}, NotStored.RESPONSE_NO_CACHE),
    ],
)
def test_reasons_in_the_answer(given: Fields, reason: NotStored) -> None:
    assert why(given) is reason


@pytest.mark.parametrize(
    "given",
    [
        FRESH,
        {"ETag": '"a"'},
        {"Last-Modified": date(0), "Date": date(0)},
        {"ETag": '"a"', CC: "max-age=0"},
        {"ETag": '"a"', CC: "no-cache"},
        {"ETag": '"a"', CC: "max-age=60", "Age": "99"},
        {CC: "max-age=0, stale-while-revalidate=5"},
        {CC: "max-age=60, stale-if-error=5", "Age": "64"},
        {CC: 'private="x", max-age=60'},
        {CC: 'no-cache="x", max-age=60'},
        {CC: 'no-cache="Set-Cookie", max-age=60', "Set-Cookie": "a=1"},
        {CC: 'private="Set-Cookie", max-age=60', "Set-Cookie": "a=1"},
        {CC: "no-store, must-understand, max-age=60"},
        {CC: "no-store", "CDN-Cache-Control": "max-age=60"},
        {CC: "private", "CDN-Cache-Control": "max-age=60"},
        {CC: "max-age=60", "Content-Length": "8388608", "Vary": "Foo"},
    ],
)
def test_storable(given: Fields) -> None:
    assert why(given) is None


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 403, 422])
def test_statuses_that_do_not_allow_guessing(status: int) -> None:
    assert why({"ETag": '"a"', "Last-Modified": date(-999)}, status=status) is NotStored.STATUS
    public = {"Last-Modified": date(-999), CC: "public"}
    assert why(public, status=status) is None


@pytest.mark.parametrize(
    ("status", "given", "reason"),
    [
        (304, FRESH, NotStored.NOT_MODIFIED),
        (206, FRESH, NotStored.PARTIAL),
        (103, FRESH, NotStored.STATUS),
        (503, {"ETag": '"a"'}, NotStored.SERVER_ERROR),
        (503, {"ETag": '"a"', CC: "max-age=0"}, NotStored.SERVER_ERROR),
        (503, {"Last-Modified": date(-999)}, NotStored.SERVER_ERROR),
        (501, {"Last-Modified": date(-999)}, None),
        (599, {"Last-Modified": date(-999), CC: "public"}, None),
        (599, {CC: "max-age=60, must-understand"}, NotStored.STATUS_UNKNOWN),
        (599, {CC: "max-age=60, must-understand, no-store"}, NotStored.STATUS_UNKNOWN),
        (404, {}, NotStored.NO_LIFETIME),
    ],
)
def test_statuses(status: int, given: Fields, reason: NotStored | None) -> None:
    assert why(given, status=status) is reason


@pytest.mark.parametrize(
    "stated",
    ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60"],
)
def test_answers_to_authorization_that_may_be_shared(stated: str) -> None:
    assert why({CC: stated}, asked=AUTHORIZED) is None


@pytest.mark.parametrize("overrides", [Overrides(ttl=60), Overrides(status_ttl={200: 60})])
def test_a_rules_lifetime_lifts_no_prohibition(overrides: Overrides) -> None:
    assert why({}, asked=AUTHORIZED, overrides=overrides) is NotStored.AUTHORIZATION
    assert why({CC: "no-store"}, overrides=overrides) is NotStored.RESPONSE_NO_STORE
    assert why({CC: "private"}, overrides=overrides) is NotStored.RESPONSE_PRIVATE
    assert why({CC: "no-cache"}, overrides=overrides) is NotStored.RESPONSE_NO_CACHE
    assert why({"Set-Cookie": "a=1"}, overrides=overrides) is NotStored.SET_COOKIE
    assert why({"Vary": "*"}, overrides=overrides) is NotStored.VARY_STAR


@pytest.mark.parametrize(
    ("word", "given", "asked"),
    [
        (Unsafe.AUTHORIZATION, {}, AUTHORIZED),
        (Unsafe.NO_STORE, {CC: "no-store"}, request()),
        (Unsafe.PRIVATE, {CC: "private"}, request()),
        (Unsafe.NO_CACHE, {CC: "no-cache"}, request()),
        (Unsafe.SET_COOKIE, {"Set-Cookie": "a=1"}, request()),
    ],
)
def test_the_unsafe_word_lifts_its_own_prohibition(word: Unsafe, given: Fields, asked: RequestHead) -> None:
    assert why(given, asked=asked, overrides=unsafe(word, ttl=60)) is None
    others = unsafe(*(set(Unsafe) - {word}), ttl=60)
    assert why(given, asked=asked, overrides=others) is not None


@pytest.mark.parametrize(
    ("status", "overrides", "reason"),
    [
        (200, Overrides(no_store=True), NotStored.RULE),
        (404, Overrides(status_ttl={404: 0}), NotStored.RULE),
        (404, Overrides(status_ttl={4: 5}), None),
        (503, Overrides(status_ttl={503: 5}), None),
        (503, Overrides(ttl=60), NotStored.SERVER_ERROR),
        (302, Overrides(ttl=60), None),
        (404, Overrides(ttl=60), NotStored.NO_LIFETIME),
        (200, Overrides(ttl=0), NotStored.LIFETIME_ZERO),
        (200, Overrides(ttl=0, stale_while_revalidate=5), None),
    ],
)
def test_rules(status: int, overrides: Overrides, reason: NotStored | None) -> None:
    assert why({}, status=status, overrides=overrides) is reason


def test_what_the_answer_forbids_whoever_asks() -> None:
    assert forbidden(answer(200, {CC: "no-store"}), PLAIN) is NotStored.RESPONSE_NO_STORE
    assert forbidden(answer(200, FRESH), PLAIN) is None


@pytest.mark.parametrize("status", [412, 416])
def test_answers_to_ones_own_conditions_are_kept_for_nobody(status: int) -> None:
    assert why(FRESH, status=status) is NotStored.STATUS
    assert why({}, status=status, overrides=Overrides(status_ttl={status: 60})) is NotStored.STATUS


@pytest.mark.parametrize("status", [408, 411, 413, 417, 421, 425, 426, 428, 429, 431])
def test_answers_to_how_one_client_asked_are_kept_where_a_rule_names_them(status: int) -> None:
    assert why(FRESH, status=status) is NotStored.STATUS
    assert why(FRESH, status=status, overrides=Overrides(ttl=60)) is NotStored.STATUS
    assert why(FRESH, status=status, overrides=Overrides(status_ttl={status: 60})) is None


@pytest.mark.parametrize("status", [400, 401, 403, 429, 431])
def test_a_class_of_errors_does_not_mean_those_of_one_request(status: int) -> None:
    assert why({}, status=status, overrides=Overrides(status_ttl={4: 60})) is NotStored.STATUS
    assert why({}, status=status, overrides=Overrides(status_ttl={4: 60, status: 5})) is None
    assert why(FRESH, status=status, overrides=Overrides(status_ttl={4: 0})) is NotStored.RULE
