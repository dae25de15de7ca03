from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.conclude import conclude
from edgeproxy.policy.decisions import (
    Conclusion,
    Discard,
    Failed,
    GiveUp,
    OriginAnswer,
    Refetch,
    Refresh,
    ServeStaleOnError,
    Store,
)
from edgeproxy.policy.stored import LifetimeSource, Overrides, Stored, Unsafe
from edgeproxy.policy.vocabulary import NotStored, OriginFailure, StaleReason
from tests.policy.make import NOW, PLAIN, Fields, came, date, request, stored

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead

CC = "Cache-Control"
ENTRY = stored({CC: "max-age=60, stale-if-error=30", "ETag": '"a"', "Date": date(), "X": "1"})
OLD = stored({CC: "max-age=60", "ETag": '"a"'})
HEAD = request(method="HEAD")


def concluded(
    entry: Stored | None,
    origin: OriginAnswer | Failed,
    *,
    at: float = NOW,
    asked: RequestHead | None = None,
    overrides: Overrides = PLAIN,
) -> Conclusion:
    return conclude(asked or request(), entry, origin, overrides, at)


# --- stored


def test_a_storable_answer_is_stored_with_what_selects_it() -> None:
    asked = request({"Accept-Language": "de, en", "Cookie": "s=1"})
    origin = came(
        200,
        [("Cache-Control", "max-age=60"), ("Vary", "Foo, Accept-Language"), ("Content-Length", "12"),
         ("Content-Encoding", "x-gzip"), ("Age", "5"), ("Connection", "X-Hop"), ("X-Hop", "1"),
         ("X-End", "2")],
        took=2.0,
    )  # fmt: skip
    conclusion = concluded(None, origin, asked=asked)
    assert isinstance(conclusion, Store)
    entry = conclusion.stored
    assert list(entry.headers.names()) == ["cache-control", "vary", "content-encoding", "x-end", "date"]
    assert entry.headers.get("date") == date()
    assert (entry.status, entry.length, entry.coding) == (200, 12, "gzip")
    assert (entry.vary, entry.selecting) == (("accept-language", "foo"), ("de,en", None))
    assert entry.freshness.initial_age == 7
    assert entry.freshness.lifetime == 60
    assert entry.freshness.source is LifetimeSource.MAX_AGE


def test_a_length_that_was_not_announced_is_not_known_yet() -> None:
    conclusion = concluded(None, came(200, {CC: "max-age=60"}))
    assert isinstance(conclusion, Store)
    assert conclusion.stored.length == -1


def test_a_new_answer_takes_the_place_of_the_stored_one() -> None:
    assert isinstance(concluded(ENTRY, came(200, {CC: "max-age=5"}), at=NOW + 70), Store)


@pytest.mark.parametrize("status", [404, 410])
def test_gone_is_an_answer_even_within_stale_if_error(status: int) -> None:
    assert isinstance(concluded(ENTRY, came(status, {CC: "max-age=5"}), at=NOW + 70), Store)
    conclusion = concluded(ENTRY, came(status), at=NOW + 70)
    assert conclusion == Discard(NotStored.NO_LIFETIME, remember=False, forget=True)


def test_set_cookie_is_stored_where_the_rule_says_the_word() -> None:
    overrides = Overrides(unsafe=frozenset({Unsafe.SET_COOKIE}))
    origin = came(200, {CC: "max-age=60", "Set-Cookie": "a=1"})
    conclusion = concluded(None, origin, overrides=overrides)
    assert isinstance(conclusion, Store)
    assert conclusion.stored.headers.get("set-cookie") == "a=1"


def test_what_is_withheld_goes_to_the_one_who_asked() -> None:
    origin = came(200, {CC: 'max-age=60, no-cache="set-cookie"', "Set-Cookie": "a=1", "X": "1"})
    conclusion = concluded(None, origin)
    assert isinstance(conclusion, Store)
    assert "set-cookie" not in conclusion.stored.headers
    assert conclusion.withheld.raw == ((b"Set-Cookie", b"a=1"),)


# --- not stored


@pytest.mark.parametrize(
    ("origin", "asked", "overrides", "reason", "remember"),
    [
        (came(200, {CC: "private"}), request(), PLAIN, NotStored.RESPONSE_PRIVATE, True),
        (came(200, {CC: "no-store"}), request(), PLAIN, NotStored.RESPONSE_NO_STORE, True),
        (came(200, {CC: "max-age=9", "Set-Cookie": "a"}), request(), PLAIN, NotStored.SET_COOKIE, True),
        (came(200, {CC: "max-age=9", "Vary": "*"}), request(), PLAIN, NotStored.VARY_STAR, True),
        (came(200), request(), PLAIN, NotStored.NO_LIFETIME, True),
        (came(200, {CC: "max-age=9", "Content-Length": "11"}), request(), Overrides(max_object=10),
         NotStored.TOO_LARGE, True),
        (came(200, {CC: "max-age=9"}), request(), Overrides(no_store=True), NotStored.RULE, True),
        (came(302), request(), PLAIN, NotStored.STATUS, True),
        (came(403), request(), PLAIN, NotStored.STATUS, False),
        (came(404), request(), PLAIN, NotStored.NO_LIFETIME, False),
        (came(503), request(), PLAIN, NotStored.SERVER_ERROR, False),
        (came(503, {CC: "no-store"}), request(), PLAIN, NotStored.RESPONSE_NO_STORE, False),
        (came(206, {CC: "max-age=9"}), request(), PLAIN, NotStored.PARTIAL, False),
        (came(200, {CC: "max-age=9"}), request({"Authorization": "x"}), PLAIN, NotStored.AUTHORIZATION,
         False),
        (came(200, {CC: "max-age=9"}), request({CC: "no-store"}), PLAIN, NotStored.REQUEST_NO_STORE, False),
        (came(200, {CC: "max-age=9"}), HEAD, PLAIN, NotStored.METHOD, False),
        (came(200, {CC: "private"}), HEAD, PLAIN, NotStored.METHOD, False),
    ],
)  # fmt: skip
def test_hit_for_miss_only_where_the_reason_lies_in_the_answer(
    origin: OriginAnswer, asked: RequestHead, overrides: Overrides, reason: NotStored, *, remember: bool
) -> None:
    assert concluded(None, origin, asked=asked, overrides=overrides) == Discard(reason, remember)


@pytest.mark.parametrize(
    ("origin", "asked", "forget"),
    [
        (came(200, {CC: "private"}), request(), True),
        (came(200), request(), True),
        (came(302), request(), True),
        (came(410), request(), True),
        (came(403), request(), False),
        (came(429), request(), False),
        (came(206), request(), False),
        (came(200, {CC: "max-age=9"}), request({"Authorization": "x"}), False),
        (came(200, {"ETag": '"b"'}), HEAD, True),
        (came(200, {"Content-Length": "10000"}), HEAD, False),
        (came(200, {"Content-Length": "9999"}), HEAD, True),
        (came(200, {"Last-Modified": date(-9)}), HEAD, False),
        (came(410, {}), HEAD, True),
        (came(405, {}), HEAD, False),
    ],
)
def test_what_outdates_the_stored_answer(origin: OriginAnswer, asked: RequestHead, *, forget: bool) -> None:
    conclusion = concluded(OLD, origin, asked=asked, at=NOW + 70)
    assert isinstance(conclusion, Discard)
    assert conclusion.forget is forget


def test_a_head_answer_with_the_same_validator_updates_what_is_stored() -> None:
    came_to_head = came(200, {"ETag": '"a"', CC: "max-age=600", "X": "2"}, at=NOW + 70)
    conclusion = concluded(OLD, came_to_head, asked=HEAD, at=NOW + 70)
    assert isinstance(conclusion, Refresh)
    assert conclusion.stored.headers.get("x") == "2"
    assert conclusion.stored.length == OLD.length
    assert conclusion.stored.freshness.fresh_until == NOW + 670


@pytest.mark.parametrize(
    ("entry", "described", "asked"),
    [
        # Nothing in it speaks of the body.
        (OLD, {CC: "max-age=600"}, HEAD),
        (OLD, {"Content-Length": "10000"}, HEAD),
        (stored({CC: "max-age=60"}), {"ETag": '"a"'}, HEAD),
        # It could not be stored were it an answer to GET.
        (OLD, {"ETag": '"a"', CC: "private"}, HEAD),
        (OLD, {"ETag": '"a"', "Set-Cookie": "a=b"}, HEAD),
        (OLD, {"ETag": '"a"'}, request({"Authorization": "x"}, method="HEAD")),
        # What is stored is no 200.
        (stored({CC: "max-age=60", "ETag": '"a"'}, status=404), {"ETag": '"a"'}, HEAD),
    ],
)
def test_other_head_answers_update_nothing(
    entry: Stored, described: dict[str, str], asked: RequestHead
) -> None:
    conclusion = concluded(entry, came(200, described, at=NOW + 70), asked=asked, at=NOW + 70)
    assert isinstance(conclusion, Discard)
    assert conclusion.reason is NotStored.METHOD


def test_a_length_not_known_says_nothing_against_a_head_answer() -> None:
    unfinished = replace(OLD, length=-1)
    conclusion = concluded(unfinished, came(200, {"Content-Length": "5"}), asked=HEAD)
    assert conclusion == Discard(NotStored.METHOD, remember=False, forget=False)


# --- errors


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_a_server_error_within_the_window(status: int) -> None:
    expected = ServeStaleOnError(ENTRY, StaleReason.ON_ERROR)
    assert concluded(ENTRY, came(status), at=NOW + 89) == expected
    assert concluded(ENTRY, came(status, {CC: "max-age=9"}), at=NOW + 89) == expected
    past = concluded(ENTRY, came(status), at=NOW + 90)
    assert past == Discard(NotStored.SERVER_ERROR, remember=False)


@pytest.mark.parametrize(
    "failure",
    [OriginFailure.REFUSED, OriginFailure.DNS, OriginFailure.FIRST_BYTE_TIMEOUT, OriginFailure.OVERLOADED,
     OriginFailure.BAD_RESPONSE],
)  # fmt: skip
def test_a_failure_within_the_window(failure: OriginFailure) -> None:
    expected = ServeStaleOnError(ENTRY, StaleReason.ON_ERROR)
    assert concluded(ENTRY, Failed(failure), at=NOW + 89) == expected
    assert concluded(ENTRY, Failed(failure), at=NOW + 90) == GiveUp(failure)
    assert concluded(None, Failed(failure)) == GiveUp(failure)


@pytest.mark.parametrize("failure", [OriginFailure.ABANDONED, OriginFailure.REQUEST_BODY])
def test_the_clients_own_failure_is_not_the_origins(failure: OriginFailure) -> None:
    assert concluded(ENTRY, Failed(failure), at=NOW + 70) == GiveUp(failure)


@pytest.mark.parametrize("never", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
def test_not_where_the_answer_forbids_it(never: str) -> None:
    entry = stored({CC: f"max-age=60, stale-if-error=30, {never}", "ETag": '"a"'})
    failed = Failed(OriginFailure.RESET)
    said = None if never == "no-cache" else 504  # §5.2.2.2
    assert concluded(entry, failed, at=NOW + 70) == GiveUp(OriginFailure.RESET, said)
    assert concluded(entry, Failed(OriginFailure.OVERLOADED), at=NOW + 70) == GiveUp(OriginFailure.OVERLOADED)
    assert concluded(entry, came(503), at=NOW + 70) == Discard(NotStored.SERVER_ERROR, remember=False)


def test_where_the_rule_says_the_word_or_gives_the_window() -> None:
    word = Overrides(unsafe=frozenset({Unsafe.MUST_REVALIDATE}), stale_if_error=30)
    entry = stored({CC: "max-age=60, must-revalidate", "ETag": '"a"'}, overrides=word)
    assert isinstance(concluded(entry, came(503), at=NOW + 70, overrides=word), ServeStaleOnError)
    window = Overrides(stale_if_error=30)
    entry = stored({CC: "s-maxage=60", "ETag": '"a"'}, overrides=window)
    assert isinstance(concluded(entry, came(503), at=NOW + 70, overrides=window), ServeStaleOnError)


DISCONNECTED = [
    "dns", "refused", "connect-timeout", "tls", "tls-timeout", "reset", "first-byte-timeout", "read-timeout",
    "truncated", "breaker-open",
]  # fmt: skip


@pytest.mark.parametrize("failure", list(OriginFailure))
def test_by_default_a_stale_copy_is_for_an_origin_that_cannot_be_reached(failure: OriginFailure) -> None:
    """RFC 9111 §4.2.4: "unless it is disconnected"; half a minute, and for nothing else."""
    within, past = (concluded(OLD, Failed(failure), at=NOW + 60 + s) for s in (29.9, 30))
    expected = ServeStaleOnError(OLD, StaleReason.DISCONNECTED)
    assert within == (expected if failure.value in DISCONNECTED else GiveUp(failure))
    assert past == GiveUp(failure)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_that_came_is_no_disconnection(status: int) -> None:
    assert isinstance(concluded(OLD, came(status), at=NOW + 61), Discard)


@pytest.mark.parametrize("said", ["stale-if-error=5", "stale-if-error=0"])
def test_an_explicit_window_is_the_whole_window(said: str) -> None:
    entry = stored({CC: f"max-age=60, {said}"})
    assert concluded(entry, Failed(OriginFailure.REFUSED), at=NOW + 66) == GiveUp(OriginFailure.REFUSED)
    by_rule = stored({CC: "max-age=60"}, overrides=Overrides(stale_if_error=5))
    assert concluded(by_rule, Failed(OriginFailure.REFUSED), at=NOW + 66) == GiveUp(OriginFailure.REFUSED)


def test_the_rule_gives_the_window_of_a_disconnection() -> None:
    for seconds in (0.0, 300.0):
        entry = stored({CC: "max-age=60"}, overrides=Overrides(stale_if_disconnected=seconds))
        at = NOW + 60 + seconds
        assert concluded(entry, Failed(OriginFailure.DNS), at=at) == GiveUp(OriginFailure.DNS)
        assert entry.freshness.storage_ttl(NOW) == 60 + seconds
    before = concluded(entry, Failed(OriginFailure.DNS), at=at - 0.1)
    assert before == ServeStaleOnError(entry, StaleReason.DISCONNECTED)


@pytest.mark.parametrize("failure", [OriginFailure.REFUSED, OriginFailure.OVERLOADED])
def test_the_cap_on_staleness(failure: OriginFailure) -> None:
    entry = stored({CC: "max-age=60, stale-if-error=600"})
    capped = Overrides(max_stale=5)
    for asked in (request(), request({CC: "stale-if-error=600"})):
        within, past = (
            concluded(entry, Failed(failure), at=NOW + 60 + s, asked=asked, overrides=capped)
            for s in (4.9, 5)
        )
        assert isinstance(within, ServeStaleOnError)
        assert past == GiveUp(failure)
    disconnected = concluded(OLD, Failed(OriginFailure.REFUSED), at=NOW + 66, overrides=capped)
    assert disconnected == GiveUp(OriginFailure.REFUSED)


@pytest.mark.parametrize("asks", ["no-cache", "max-age=600", "min-fresh=1"])
def test_a_client_that_wants_nothing_stale_is_told_of_the_disconnection(asks: str) -> None:
    failed = Failed(OriginFailure.REFUSED)
    asked = request({CC: asks})
    assert concluded(OLD, failed, at=NOW + 61, asked=asked) == GiveUp(OriginFailure.REFUSED)
    deaf = Overrides(honour_request_directives=False)
    assert isinstance(concluded(OLD, failed, at=NOW + 61, asked=asked, overrides=deaf), ServeStaleOnError)


def test_a_304_brings_what_is_only_for_the_one_who_asked() -> None:
    entry = stored({CC: 'max-age=60, no-cache="x-own"', "ETag": '"a"'})
    answer = concluded(entry, came(304, {"ETag": '"a"', "X-Own": "1", "X-All": "2"}), at=NOW + 61)
    assert isinstance(answer, Refresh)
    assert dict(answer.withheld.raw) == {b"X-Own": b"1"}
    assert answer.stored.headers.get("x-own") is None
    assert answer.stored.headers.get("x-all") == "2"


def test_a_fresh_copy_serves_where_only_the_request_wanted_it_validated() -> None:
    asked = request({CC: "no-cache"})
    assert isinstance(concluded(OLD, came(503), at=NOW + 59, asked=asked), ServeStaleOnError)
    strict = stored({CC: "max-age=60, must-revalidate", "ETag": '"a"'})
    assert isinstance(concluded(strict, came(503), at=NOW + 59, asked=asked), ServeStaleOnError)


def test_the_request_may_widen_the_window() -> None:
    asked = request({CC: "stale-if-error=20"})
    deaf = Overrides(honour_request_directives=False)
    assert isinstance(concluded(OLD, came(503), at=NOW + 79, asked=asked), ServeStaleOnError)
    assert isinstance(concluded(OLD, came(503), at=NOW + 80, asked=asked), Discard)
    assert isinstance(concluded(OLD, came(503), at=NOW + 79, asked=asked, overrides=deaf), Discard)


def test_an_error_with_a_lifetime_does_not_replace_a_copy_in_use() -> None:
    entry = stored({CC: "max-age=60, stale-while-revalidate=30", "ETag": '"a"'})
    error = came(503, {CC: "max-age=9"})
    assert concluded(entry, error, at=NOW + 70) == Discard(NotStored.SERVER_ERROR, remember=False)
    assert isinstance(concluded(entry, error, at=NOW + 90), Store)
    for never in ("no-cache", "must-revalidate"):
        strict = stored({CC: f"max-age=60, stale-while-revalidate=30, {never}", "ETag": '"a"'})
        assert isinstance(concluded(strict, error, at=NOW + 70), Store)


# --- 304


def refreshed(entry: Stored, given: Fields, **kwargs: float) -> Stored:
    conclusion = concluded(entry, came(304, given, **kwargs), at=kwargs.get("at", NOW))
    assert isinstance(conclusion, Refresh), conclusion
    return conclusion.stored


def test_a_304_refreshes_with_merged_fields() -> None:
    entry = refreshed(
        ENTRY, {"ETag": '"a"', CC: "max-age=90", "Y": "2", "Content-Length": "0"}, at=NOW + 70, took=1.0
    )
    assert entry.headers.get("cache-control") == "max-age=90"
    assert (entry.headers.get("x"), entry.headers.get("y")) == ("1", "2")
    assert entry.headers.get("date") == date(70)
    assert "content-length" not in entry.headers
    assert (entry.status, entry.length) == (200, ENTRY.length)
    assert entry.freshness.is_fresh(NOW + 158)
    assert not entry.freshness.is_fresh(NOW + 159)


def test_a_304_without_a_lifetime_keeps_the_stored_one() -> None:
    entry = refreshed(ENTRY, {}, at=NOW + 70)
    assert entry.freshness.fresh_until == NOW + 130
    assert entry.freshness.stale_if_error == 30


def test_a_304s_own_age_counts_once() -> None:
    entry = refreshed(ENTRY, {"Age": "20"}, at=NOW + 70)
    assert entry.freshness.initial_age == 20
    again = refreshed(entry, {}, at=NOW + 120)
    assert again.freshness.initial_age == 0
    assert "age" not in again.headers


@pytest.mark.parametrize("entry", [None, ENTRY])
def test_a_304_that_does_not_fit_is_asked_again(entry: Stored | None) -> None:
    assert concluded(entry, came(304, {"ETag": '"b"'}), at=NOW + 70) == Refetch()


@pytest.mark.parametrize("stated", ["no-store", "private"])
def test_a_304_that_takes_the_permission_back(stated: str) -> None:
    assert concluded(ENTRY, came(304, {"ETag": '"a"', CC: stated}), at=NOW + 70) == Refetch()
    assert concluded(ENTRY, came(304, {"ETag": '"a"', "Vary": "*"}), at=NOW + 70) == Refetch()


def test_a_304_to_a_head_request_refreshes_too() -> None:
    assert isinstance(concluded(ENTRY, came(304), at=NOW + 70, asked=HEAD), Refresh)


def test_a_304_may_change_what_selects() -> None:
    entry = stored({CC: "max-age=60", "ETag": '"a"', "Vary": "Foo"}, asked=request({"Foo": "1"}))
    conclusion = concluded(
        entry, came(304, {"Vary": "Foo, Bar"}), at=NOW + 70, asked=request({"Foo": "1", "Bar": "2"})
    )
    assert isinstance(conclusion, Refresh)
    assert (conclusion.stored.vary, conclusion.stored.selecting) == (("bar", "foo"), ("2", "1"))
