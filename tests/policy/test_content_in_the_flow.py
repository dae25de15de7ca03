"""Requests whose content is in the key, and what the rest of the policy makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgeproxy.policy.decide import bypass, decide
from edgeproxy.policy.decisions import Fetch, Form, Pass, Revalidate, Serve
from edgeproxy.policy.deliver import deliver
from edgeproxy.policy.freshness import freshness_of
from edgeproxy.policy.post import as_get
from edgeproxy.policy.storable import storable
from edgeproxy.policy.stored import Overrides
from edgeproxy.policy.vocabulary import Forwarded, NotStored, PassReason
from tests.policy.make import NOW, PLAIN, Fields, answer, date, request, stored

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead

RULE = Overrides(ttl=60.0)


def keyed(method: str = "POST", given: Fields | None = None, target: str = "/a") -> RequestHead:
    head = request(given, method=method, has_body=True, target=target)
    return replace(head, content_key=f"{method} exact#00")


def why(
    method: str, given: Fields, status: int = 200, overrides: Overrides = PLAIN, target: str = "/a"
) -> NotStored | None:
    head = answer(status, given)
    asked = keyed(method, target=target) if method != "GET" else request(target=target)
    return storable(asked, head, overrides, freshness_of(head, NOW, NOW, overrides))


@pytest.mark.parametrize("method", ["QUERY", "POST"])
def test_they_do_not_go_round_the_cache(method: str) -> None:
    assert bypass(keyed(method), PLAIN) is None
    unkeyed = replace(keyed(method), content_key="", unkeyed=PassReason.CONTENT_TOO_LARGE)
    assert bypass(unkeyed, PLAIN) == Pass(PassReason.CONTENT_TOO_LARGE, Forwarded.METHOD)
    assert bypass(keyed(method, {"Cache-Control": "no-store"}), PLAIN) == Pass(
        PassReason.REQUEST_NO_STORE, Forwarded.REQUEST
    )


FRESH = {"Cache-Control": "max-age=60"}
TAGGED = {"ETag": '"a"', "Last-Modified": date(-1000)}


@pytest.mark.parametrize(
    ("given", "status", "overrides", "query", "post"),
    [
        (FRESH, 200, PLAIN, None, None),
        (FRESH, 404, PLAIN, None, None),
        (FRESH, 201, PLAIN, None, NotStored.STATUS),
        (FRESH, 202, RULE, None, NotStored.STATUS),
        (FRESH, 205, RULE, None, NotStored.STATUS),
        ({"Expires": date(60), "Date": date()}, 200, PLAIN, None, None),
        (TAGGED, 200, PLAIN, None, NotStored.NO_LIFETIME),
        ({"ETag": '"a"'}, 200, PLAIN, None, NotStored.NO_LIFETIME),
        (TAGGED, 200, RULE, None, None),
        (TAGGED | {"Cache-Control": "no-cache, max-age=60"}, 200, PLAIN, None, NotStored.RESPONSE_NO_CACHE),
        (TAGGED | {"Cache-Control": "max-age=0"}, 200, PLAIN, None, NotStored.LIFETIME_ZERO),
        ({}, 200, PLAIN, NotStored.NO_LIFETIME, NotStored.NO_LIFETIME),
        ({"Cache-Control": "no-store"}, 200, RULE, NotStored.RESPONSE_NO_STORE, NotStored.RESPONSE_NO_STORE),
    ],
)  # fmt: skip
def test_what_is_stored(
    given: Fields, status: int, overrides: Overrides, query: NotStored | None, post: NotStored | None
) -> None:
    assert why("QUERY", given, status, overrides) is query
    assert why("POST", given, status, overrides) is post


def test_a_stale_query_is_validated_and_a_stale_post_fetched() -> None:
    entry = stored(FRESH | TAGGED, asked=keyed("QUERY"))
    assert isinstance(decide(keyed("QUERY"), entry, PLAIN, NOW), Serve)
    later = decide(keyed("QUERY"), entry, PLAIN, NOW + 61)
    assert isinstance(later, Revalidate)
    assert [name for name, _ in later.conditions] == [b"If-None-Match", b"If-Modified-Since"]
    assert decide(keyed("POST"), entry, PLAIN, NOW + 61) == Fetch(Forwarded.STALE, entry)


def test_parts_are_for_get_and_query() -> None:
    entry = stored(FRESH, asked=keyed("QUERY"))
    assert deliver(keyed("QUERY", {"Range": "bytes=0-1"}), entry, PLAIN, NOW).form is Form.PARTIAL
    assert deliver(keyed("POST", {"Range": "bytes=0-1"}), entry, PLAIN, NOW).form is Form.FULL


def test_a_posts_answer_that_is_one_to_get_has_no_content_in_its_key() -> None:
    found = as_get(keyed("POST"), answer(200, FRESH | {"Content-Location": "/a"}))
    assert found == request()
    assert as_get(keyed("QUERY"), answer(200, FRESH | {"Content-Location": "/a"})) is None


HTML, CSS = {"Content-Type": "text/html"}, {"Content-Type": "text/css"}
GUARDED, UNGUARDED = Overrides(extension_guard=True), Overrides(ttl=60.0, extension_guard=False)
BOUNDED = Overrides(ttl_min=60.0)


@pytest.mark.parametrize(
    ("target", "given", "status", "overrides", "reason"),
    [
        ("/me/x.css", HTML, 200, RULE, NotStored.EXTENSION),
        ("/me/x.css?a.html", HTML, 203, RULE, NotStored.EXTENSION),
        ("/me;x.css", HTML, 200, RULE, NotStored.EXTENSION),
        ("/me/x.css", HTML, 200, BOUNDED, NotStored.EXTENSION),
        ("/me/x.css", {}, 200, RULE, NotStored.EXTENSION),
        ("/me/x.css", CSS, 200, RULE, None),
        ("/me?x.css", HTML, 200, RULE, None),
        ("/me", HTML, 200, RULE, None),
        ("/me/x.css", HTML, 200, UNGUARDED, None),
        # The origin's own word on how long to share it is no accident, unless the rule says so.
        ("/me/x.css", HTML | FRESH, 200, PLAIN, None),
        ("/me/x.css", HTML | FRESH, 200, GUARDED, NotStored.EXTENSION),
        ("/me/x.css", HTML | FRESH, 204, RULE, None),
        ("/me/x.css", HTML | FRESH, 301, GUARDED, None),
        ("/me/x.css", HTML, 404, Overrides(status_ttl={404: 60.0}), None),
        ("/me/x.css", HTML | {"Set-Cookie": "a=b"}, 200, RULE, NotStored.SET_COOKIE),
    ],
)  # fmt: skip
def test_the_guard_against_deception(
    target: str, given: Fields, status: int, overrides: Overrides, reason: NotStored | None
) -> None:
    assert why("GET", given, status, overrides, target) is reason
