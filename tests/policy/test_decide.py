from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.decide import bypass, decide, insists
from edgeproxy.policy.decisions import (
    Decision,
    Fetch,
    Form,
    Pass,
    Revalidate,
    Serve,
    ServeStale,
    Unsatisfiable,
)
from edgeproxy.policy.stored import Overrides, Stored, Unsafe
from edgeproxy.policy.vocabulary import Forwarded, PassReason, StaleReason, Unsatisfied
from tests.policy.make import NOW, PLAIN, date, request, stored

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead

CC = "Cache-Control"
DEAF = Overrides(honour_request_directives=False)


def asking(directive: str, method: str = "GET") -> RequestHead:
    return request({CC: directive}, method=method)


@pytest.mark.parametrize(
    ("asked", "overrides", "reason", "forwarded"),
    [
        (request(method="POST"), PLAIN, PassReason.METHOD, Forwarded.METHOD),
        (request(method="OPTIONS"), PLAIN, PassReason.METHOD, Forwarded.METHOD),
        (request(), Overrides(pass_=True), PassReason.RULE, Forwarded.BYPASS),
        (request({"Connection": "Upgrade", "Upgrade": "websocket"}), PLAIN, PassReason.UPGRADE,
         Forwarded.BYPASS),
        (request(has_body=True), PLAIN, PassReason.REQUEST_BODY, Forwarded.BYPASS),
        (request(has_body=True, method="HEAD"), PLAIN, PassReason.REQUEST_BODY, Forwarded.BYPASS),
        (asking("no-store"), PLAIN, PassReason.REQUEST_NO_STORE, Forwarded.REQUEST),
        (request({"If-Match": "*"}), PLAIN, PassReason.PRECONDITION, Forwarded.REQUEST),
        (request({"If-Unmodified-Since": "x"}, method="HEAD"), DEAF, PassReason.PRECONDITION,
         Forwarded.REQUEST),
    ],
)  # fmt: skip
def test_bypass(asked: RequestHead, overrides: Overrides, reason: PassReason, forwarded: Forwarded) -> None:
    assert bypass(asked, overrides) == Pass(reason, forwarded)


@pytest.mark.parametrize(
    ("asked", "overrides"),
    [
        (request(), PLAIN),
        (request(method="HEAD"), PLAIN),
        (asking("no-cache"), PLAIN),
        (asking("no-store"), DEAF),
        (asking("no-store, only-if-cached"), PLAIN),
        (request({CC: "only-if-cached", "If-Match": "*"}), PLAIN),
        (request({"If-None-Match": "*", "If-Modified-Since": "x"}), PLAIN),
        (request({"Upgrade": "websocket"}), PLAIN),
        (request({"Upgrade": "websocket", "Connection": "keep-alive"}), PLAIN),
        (request({"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}), PLAIN),
    ],
)
def test_no_bypass(asked: RequestHead, overrides: Overrides) -> None:
    assert bypass(asked, overrides) is None


ENTRY = stored({CC: "max-age=60", "ETag": '"a"', "Last-Modified": date(-9), "Date": date()})
BARE = stored({CC: "max-age=60"})
CONDITIONS = ((b"If-None-Match", b'"a"'), (b"If-Modified-Since", date(-9).encode()))


@pytest.mark.parametrize(
    ("others", "uncacheable", "expected"),
    [
        (False, False, Fetch(Forwarded.URI_MISS)),
        (True, False, Fetch(Forwarded.VARY_MISS)),
        (False, True, Pass(PassReason.HIT_FOR_MISS, Forwarded.BYPASS)),
        (True, True, Pass(PassReason.HIT_FOR_MISS, Forwarded.BYPASS)),
    ],
)
def test_nothing_stored(*, others: bool, uncacheable: bool, expected: Decision) -> None:
    assert decide(request(), None, PLAIN, NOW, others=others, uncacheable=uncacheable) == expected


def test_fresh() -> None:
    assert decide(request(), ENTRY, PLAIN, NOW + 59.5) == Serve(ENTRY, 59)
    assert decide(request(method="HEAD"), ENTRY, PLAIN, NOW) == Serve(ENTRY, 0)
    conditional = decide(request({"If-None-Match": '"a"'}), ENTRY, PLAIN, NOW)
    assert conditional == Serve(ENTRY, 0, Form.NOT_MODIFIED)


def test_stale() -> None:
    assert decide(request(), ENTRY, PLAIN, NOW + 60) == Revalidate(ENTRY, CONDITIONS, Forwarded.STALE)
    assert decide(request(), BARE, PLAIN, NOW + 60) == Fetch(Forwarded.STALE, BARE)


def test_hit_for_miss_is_forgotten_while_something_fresh_is_stored() -> None:
    assert decide(request(), ENTRY, PLAIN, NOW, uncacheable=True) == Serve(ENTRY, 0)
    passed = Pass(PassReason.HIT_FOR_MISS, Forwarded.BYPASS)
    assert decide(request(), ENTRY, PLAIN, NOW + 60, uncacheable=True) == passed


@pytest.mark.parametrize(
    "directive", ["no-cache", "max-age=0", "max-age=5", "min-fresh=60", "no-cache, max-stale"]
)
def test_the_request_asks_for_newer(directive: str) -> None:
    at = NOW + 6
    assert decide(asking(directive), ENTRY, PLAIN, at) == Revalidate(ENTRY, CONDITIONS, Forwarded.REQUEST)
    assert decide(asking(directive), BARE, PLAIN, at) == Fetch(Forwarded.REQUEST, BARE)
    assert decide(asking(directive), ENTRY, DEAF, at) == Serve(ENTRY, 6)


@pytest.mark.parametrize("directive", ["max-age=6", "min-fresh=54", "max-stale", "only-if-cached"])
def test_the_request_is_content(directive: str) -> None:
    assert decide(asking(directive), ENTRY, PLAIN, NOW + 6) == Serve(ENTRY, 6)


def test_max_age_zero_wants_validation_even_of_what_came_this_instant() -> None:
    assert isinstance(decide(asking("max-age=0"), ENTRY, PLAIN, NOW), Revalidate)


@pytest.mark.parametrize(
    ("directive", "expected"),
    [("no-cache", True), ("max-age=0", True), ("max-age=1", False), ("max-stale", False), ("", False)],
)
def test_who_insists_on_an_answer_asked_for_from_now_on(directive: str, *, expected: bool) -> None:
    assert insists(asking(directive), PLAIN) is expected
    assert not insists(asking(directive), DEAF)


def test_pragma_is_heard() -> None:
    assert isinstance(decide(request({"Pragma": "no-cache"}), ENTRY, PLAIN, NOW), Revalidate)


@pytest.mark.parametrize(
    ("directive", "reason"),
    [("max-stale", StaleReason.REQUEST_ALLOWS), ("max-stale=10", StaleReason.REQUEST_ALLOWS),
     ("max-age=90, max-stale=10", StaleReason.REQUEST_ALLOWS)],
)  # fmt: skip
def test_max_stale(directive: str, reason: StaleReason) -> None:
    decision = decide(asking(directive), ENTRY, PLAIN, NOW + 70)
    assert decision == ServeStale(Serve(ENTRY, 70), reason, refresh=False)


@pytest.mark.parametrize(
    "directive", ["max-stale=9", "max-age=90", "max-age=50, max-stale", "min-fresh=1, max-stale"]
)
def test_not_stale_enough_for_the_request(directive: str) -> None:
    decision = decide(asking(directive), ENTRY, PLAIN, NOW + 70)
    assert decision == Revalidate(ENTRY, CONDITIONS, Forwarded.STALE)


def test_max_stale_is_not_heard_where_the_rule_says_so() -> None:
    assert isinstance(decide(asking("max-stale"), ENTRY, DEAF, NOW + 70), Revalidate)


def test_the_cap_holds_against_clients_and_for_what_is_stored_already() -> None:
    """A day where nobody says more; a rule's own cap at once, whatever was stored with the answer."""
    within, past = (decide(asking("max-stale"), ENTRY, PLAIN, NOW + 60 + s) for s in (86_399, 86_400))
    assert isinstance(within, ServeStale)
    assert isinstance(past, Revalidate)
    capped = Overrides(max_stale=5)
    for asked in (request(), asking("max-stale")):
        within, past = (decide(asked, REVALIDATING, capped, NOW + 60 + s) for s in (4.9, 5))
        assert isinstance(within, ServeStale)
        assert isinstance(past, Revalidate)


REVALIDATING = stored({CC: "max-age=60, stale-while-revalidate=30", "ETag": '"a"'})


def test_stale_while_revalidate() -> None:
    decision = decide(request(), REVALIDATING, PLAIN, NOW + 89)
    assert decision == ServeStale(Serve(REVALIDATING, 89), StaleReason.WHILE_REVALIDATE, refresh=True)
    assert isinstance(decide(request(), REVALIDATING, PLAIN, NOW + 90), Revalidate)


def test_max_stale_beyond_the_window_does_not_refresh() -> None:
    decision = decide(asking("max-stale"), REVALIDATING, PLAIN, NOW + 90)
    assert decision == ServeStale(Serve(REVALIDATING, 90), StaleReason.REQUEST_ALLOWS, refresh=False)


@pytest.mark.parametrize("directive", ["no-cache", "max-age=120", "min-fresh=0"])
def test_a_request_that_wants_no_stale_answer_gets_none(directive: str) -> None:
    assert isinstance(decide(asking(directive), REVALIDATING, PLAIN, NOW + 70), Revalidate)


@pytest.mark.parametrize("never", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_never_stale(never: str) -> None:
    entry = stored({CC: f"max-age=60, stale-while-revalidate=30, {never}", "ETag": '"a"'})
    assert isinstance(decide(request(), entry, PLAIN, NOW + 59), Serve)
    assert isinstance(decide(request(), entry, PLAIN, NOW + 61), Revalidate)
    assert isinstance(decide(asking("max-stale"), entry, PLAIN, NOW + 61), Revalidate)


def test_no_cache_is_always_validated() -> None:
    entry = stored({CC: "max-age=60, no-cache, stale-while-revalidate=30", "ETag": '"a"'})
    for at in (NOW, NOW + 70):
        decision = decide(asking("max-stale"), entry, PLAIN, at)
        assert decision == Revalidate(entry, ((b"If-None-Match", b'"a"'),), Forwarded.STALE)


def test_no_cache_is_used_where_the_rule_says_the_word() -> None:
    overrides = Overrides(ttl=60, unsafe=frozenset({Unsafe.NO_CACHE}))
    entry = stored({CC: "no-cache"}, overrides=overrides)
    assert decide(request(), entry, overrides, NOW) == Serve(entry, 0)


@pytest.mark.parametrize(("entry", "at"), [(None, NOW), (ENTRY, NOW + 60), (REVALIDATING, NOW + 90)])
def test_only_if_cached(entry: Stored | None, at: float) -> None:
    refused = Unsatisfiable(Unsatisfied.ONLY_IF_CACHED)
    assert decide(asking("only-if-cached"), entry, PLAIN, at) == refused
    assert decide(asking("only-if-cached"), entry, PLAIN, at, uncacheable=True) == refused
    assert decide(asking("only-if-cached"), entry, DEAF, at) != refused


def test_only_if_cached_takes_what_may_be_stale() -> None:
    assert isinstance(decide(asking("only-if-cached, max-stale"), ENTRY, PLAIN, NOW + 70), ServeStale)


def test_a_soft_purged_entry_is_stale_from_then_on() -> None:
    purged = stored({CC: "max-age=60, stale-while-revalidate=30", "ETag": '"a"'})
    purged = Stored(
        purged.status, purged.reason, purged.headers, purged.freshness.stale_from(NOW + 5), purged.length
    )
    assert isinstance(decide(request(), purged, PLAIN, NOW + 5), ServeStale)
    assert isinstance(decide(request(), purged, PLAIN, NOW + 35), Revalidate)
