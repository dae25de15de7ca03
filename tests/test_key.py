"""The key builder: no two requests share a key unless the rule says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.key import build_key, normalised_target, place_of
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.rules.model import KeyPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

# What can reach the key: a Host field's value and a request target, both as the parser lets them through.
HOSTS = st.text(st.sampled_from("ah.:/ %?*#\\[]@2F5"), max_size=6)
TARGETS = st.text(st.sampled_from("/ab?&=%.;#*:2F\\é"), min_size=1, max_size=8)
VALUES = st.none() | st.text(st.sampled_from("ab=-+#;, é"), max_size=5).map(str.strip)


def request(target: str = "/", host: str = "h", **headers: str) -> RequestHead:
    return RequestHead("GET", "http", host, target, Headers.of((n, v) for n, v in headers.items()))


@given(st.sampled_from(["http", "https"]), st.sampled_from(["http", "https"]), HOSTS, HOSTS, TARGETS, TARGETS)
def test_plain_keys_never_collide(
    scheme: str, other_scheme: str, host: str, other_host: str, target: str, other_target: str
) -> None:
    one = build_key(RequestHead("GET", scheme, host, target), KeyPolicy())
    two = build_key(RequestHead("GET", other_scheme, other_host, other_target), KeyPolicy())
    same = (scheme, host, target) == (other_scheme, other_host, other_target)
    assert (one.primary == two.primary) == same


@given(HOSTS, TARGETS)
def test_every_split_of_the_same_octets_is_its_own_key(host: str, target: str) -> None:
    octets = host + target
    keys = {
        build_key(RequestHead("GET", "http", octets[:i], octets[i:]), KeyPolicy()).primary
        for i in range(len(octets))
    }
    assert len(keys) == len(octets)


@given(VALUES, VALUES, VALUES, VALUES)
def test_header_values_never_run_together(
    a: str | None, b: str | None, other_a: str | None, other_b: str | None
) -> None:
    policy = KeyPolicy(headers=("x-a", "x-b"))

    def key(first: str | None, second: str | None) -> str:
        fields = [(n, v) for n, v in (("X-A", first), ("X-B", second)) if v is not None]
        return build_key(RequestHead("GET", "http", "h", "/", Headers.of(fields)), policy).primary

    assert (key(a, b) == key(other_a, other_b)) == ((a, b) == (other_a, other_b))


COOKIES = st.text(st.sampled_from("ab=-+#"), max_size=4)


@given(st.lists(COOKIES, max_size=3), st.lists(COOKIES, max_size=3))
def test_every_value_of_a_repeated_cookie_counts(one: list[str], two: list[str]) -> None:
    policy = KeyPolicy(cookies=("s",))

    def key(values: list[str]) -> str:
        line = "; ".join(f"s={v}" for v in values)
        return build_key(request(cookie=line), policy).primary

    assert (key(one) == key(two)) == (one == two)


def test_the_plain_key_is_the_url() -> None:
    key = build_key(request("/a%2Fb?x=1", "h:8080"), KeyPolicy())
    assert (key.primary, key.host, key.target) == ("http://h:8080/a%2Fb?x=1", "h:8080", "/a%2Fb?x=1")


@given(HOSTS, TARGETS, st.sampled_from([KeyPolicy(), KeyPolicy(host=False), KeyPolicy(scope="0a1b")]))
def test_a_key_says_what_it_is_of(host: str, target: str, policy: KeyPolicy) -> None:
    key = build_key(RequestHead("GET", "http", host.lower(), target), policy)
    assert place_of(key.primary) == (key.host, key.target)


def test_head_and_get_share() -> None:
    head = RequestHead("HEAD", "http", "h", "/a")
    assert build_key(head, KeyPolicy()) == build_key(request("/a"), KeyPolicy())


def test_without_host_all_hosts_share() -> None:
    policy = KeyPolicy(host=False)
    assert build_key(request("/a", "one"), policy) == build_key(request("/a", "two"), policy)
    assert (
        build_key(request("/a", "one"), policy).primary != build_key(request("/a", ""), KeyPolicy()).primary
    )


@pytest.mark.parametrize(
    ("query", "policy", "left"),
    [
        ("b=1&a=2", KeyPolicy(), "/p?b=1&a=2"),
        ("", KeyPolicy(), "/p?"),
        ("", KeyPolicy(sort=True), "/p"),
        ("b=1&a=2&b=0", KeyPolicy(sort=True), "/p?a=2&b=1&b=0"),
        ("utm_x=1&q=2&utm_y", KeyPolicy(query_ignore=("utm_*",)), "/p?q=2"),
        ("%75tm_x=1&q=2", KeyPolicy(query_ignore=("utm_*",)), "/p?q=2"),
        ("q=1&page=2&z=3", KeyPolicy(query_allow=("page", "q")), "/p?q=1&page=2"),
        ("q=1&page=2", KeyPolicy(query_allow=()), "/p"),
        ("gr%C3%B6%C3%9Fe=1&q=2", KeyPolicy(query_ignore=("größe".encode().decode("latin-1"),)), "/p?q=2"),
        # Some origins split at ";" too, and would see another q.
        ("q=1&utm_x=1;q=evil", KeyPolicy(query_ignore=("utm_*",)), "/p?q=1&utm_x=1;q=evil"),
    ],
)
def test_the_query_is_reduced_as_the_rule_says(query: str, policy: KeyPolicy, left: str) -> None:
    assert normalised_target("/p", query, policy) == left


@pytest.mark.parametrize(
    ("one", "two", "other"),
    [
        (KeyPolicy(), KeyPolicy(query_allow=()), "/a?x=1"),
        (KeyPolicy(query_ignore=("x",)), KeyPolicy(query_allow=()), "/a?x=1"),
        (KeyPolicy(headers=("x-a",)), KeyPolicy(cookies=("x-a",)), "/a"),
        (KeyPolicy(headers=("x-a",)), KeyPolicy(headers=("x-b",)), "/a"),
        (KeyPolicy(), KeyPolicy(scope="0a1b"), "/a"),
        (KeyPolicy(scope="0a1c"), KeyPolicy(scope="0a1b"), "/a"),
    ],
)
def test_two_policies_never_make_one_key(one: KeyPolicy, two: KeyPolicy, other: str) -> None:
    asking = {"x-a": "1", "x-b": "1", "cookie": "x-a=1"}
    plain = RequestHead("GET", "http", "h", "/a", Headers.of(asking.items()))
    queried = RequestHead("GET", "http", "h", other, Headers.of(asking.items()))
    assert build_key(plain, one).primary != build_key(queried, two).primary


@pytest.mark.parametrize(
    ("policy", "headers"),
    [
        (KeyPolicy(headers=("authorization",)), {"authorization": "Bearer hunter2"}),
        (KeyPolicy(headers=("cookie",)), {"cookie": "session=hunter2"}),
        (KeyPolicy(cookies=("session",)), {"cookie": "session=hunter2"}),
    ],
)
def test_credentials_are_not_readable_in_a_key(policy: KeyPolicy, headers: dict[str, str]) -> None:
    key = build_key(request(**headers), policy).primary
    assert "hunter2" not in key
    assert key != build_key(request(), policy).primary
    assert key != build_key(request(**{n: v + "x" for n, v in headers.items()}), policy).primary


SPLITS: list[Callable[[str], str]] = [str.upper, lambda t: t.replace("/", "%2F"), lambda t: t + "/"]


@pytest.mark.parametrize("change", SPLITS)
def test_nothing_is_requoted_or_folded(change: Callable[[str], str]) -> None:
    assert build_key(request("/a/b"), KeyPolicy()) != build_key(request("/" + change("a/b")), KeyPolicy())


def test_content_has_a_place_of_its_own_in_the_key() -> None:
    def key(policy: KeyPolicy, content: str = "", **fields: str) -> str:
        head = RequestHead("POST", "http", "h", "/a", Headers.of(fields.items()), content_key=content)
        return build_key(head, policy).primary

    keys = {
        key(policy, content, **fields)
        for policy in (KeyPolicy(), KeyPolicy(scope="x"), KeyPolicy(headers=("x",)))
        for content in ("", "POST exact#1", "QUERY exact#1", "POST exact#2")
        for fields in ({}, {"x": "@POST exact#1"})
    }
    assert len(keys) == 4 + 4 + 8
    assert build_key(RequestHead("GET", "http", "h", "/a"), KeyPolicy()).primary == key(KeyPolicy())
