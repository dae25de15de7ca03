"""The matcher: what the index finds is what a scan from the top finds."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.rules.conditions import Named, losing_condition
from edgeproxy.rules.load import load_text
from edgeproxy.rules.lookalike import other_reading
from edgeproxy.rules.match import (
    MEMO,
    Matcher,
    has_dot_segment,
    host_matches,
    host_name,
    passing,
    path_parts,
)
from edgeproxy.rules.model import PLAIN, Match, Rule, RuleSet, ValueCondition
from edgeproxy.rules.patterns import path_pattern


def ask(target: str, method: str = "GET", host: str = "h.example", **headers: str) -> RequestHead:
    return RequestHead(method, "http", host, target, Headers.of((n, v) for n, v in headers.items()))


def matcher(*patterns: str | Match) -> Matcher:
    """Rules "0", "1", ... for these paths or conditions."""
    matches = [p if isinstance(p, Match) else Match(paths=(path_pattern(p),)) for p in patterns]
    return Matcher(RuleSet(tuple(Rule(str(i), f"r.yaml:{i}", m) for i, m in enumerate(matches))))


SEGMENT = st.sampled_from(["a", "b", "ab", "a.css", "x.tar.gz"])
PATTERN = (
    st.lists(SEGMENT | st.sampled_from(["*", "{id}", "a*", "*.css"]), min_size=1, max_size=4)
    .filter(lambda s: s.count("{id}") <= 1)
    .map(lambda s: "/" + "/".join(s))
    .flatmap(lambda p: st.sampled_from([p, p + "/**", p + "/", "/**" + p]))
) | st.sampled_from(
    [
        "/",
        "/**",
        "**",
        "*.css",
        "a.*",
        "*",
        "a.css",
        "*.tar.gz",
        "~/a/.*",
        "~.*b",
        "~/(a|b)/a",
        "~/ab?",
        "{n}.css",
    ]
)
PATH = st.lists(SEGMENT | st.just(""), min_size=1, max_size=5).map(lambda s: "/" + "/".join(s)) | st.just("*")
HOST = st.sampled_from(
    ["h.example", "a.h.example", "H.example.", "other.example:8080", "example", "", "x.h."]
)
NAMES = ["x-a", "x-b"]
VALUES = ["1", "2", "", "12"]
CONDITION = (
    st.builds(ValueCondition, st.sampled_from(NAMES), st.booleans())
    | st.builds(
        ValueCondition,
        st.sampled_from(NAMES),
        values=st.frozensets(st.sampled_from(VALUES), min_size=1, max_size=2),
    )
    | st.builds(ValueCondition, st.sampled_from(NAMES), regex=st.sampled_from(["1.*", "2?"]).map(re.compile))
)
CONDITIONS = st.lists(CONDITION, max_size=2).map(tuple)
SOME = st.just(()) | CONDITIONS
MATCH = st.builds(
    Match,
    paths=st.lists(PATTERN.map(path_pattern), max_size=3).map(tuple),
    hosts=st.just(())
    | st.lists(
        st.sampled_from(["h.example", "*.example", "*.h.example", "other.example", "example"]), max_size=3
    ).map(tuple),
    methods=st.frozensets(st.sampled_from(["GET", "POST", "HEAD"]), max_size=2),
    headers=SOME,
    cookies=SOME,
    query=SOME,
)
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([*VALUES, " 1 "])), max_size=3)
REQUEST = st.builds(
    lambda method, host, path, fields, jar, query: RequestHead(
        method,
        "http",
        host.lower(),
        path + "".join(f"{'&' if i else '?'}{n}={v.strip()}" for i, (n, v) in enumerate(query)),
        Headers.of([*fields, *([("cookie", "; ".join(f"{n}={v}" for n, v in jar))] if jar else [])]),
    ),
    st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    HOST,
    PATH,
    FIELDS,
    FIELDS,
    FIELDS,
)


def scan(rules: tuple[Rule, ...], request: RequestHead) -> tuple[Rule, Any]:
    """The definition: from the top, the first of which everything holds."""
    for rule in rules:
        parts = path_parts(rule.match.paths, request.path)
        fits = host_matches(rule.match.hosts, host_name(request.host))
        if parts is not None and fits and losing_condition(rule.match, request) is None:
            return rule, parts
    return PLAIN, {}


def evaded(rules: tuple[Rule, ...], request: RequestHead) -> bool:
    """Whether the path, read otherwise, has a rule before the first that takes every request for it."""
    read = other_reading(request.path)
    if read is None:
        return False
    for rule in rules:
        match = rule.match
        if not host_matches(match.hosts, host_name(request.host)):
            continue
        if path_parts(match.paths, request.path) is not None:
            if not (match.methods or match.headers or match.cookies or match.query):
                return False
        elif path_parts(match.paths, read) is not None:
            return True
    return False


@given(st.lists(MATCH, max_size=8), st.lists(REQUEST, min_size=1, max_size=3))
@settings(max_examples=150)
def test_the_index_finds_what_a_scan_finds(matches: list[Match], requests: list[RequestHead]) -> None:
    rules = tuple(Rule(str(i), f"r:{i}", m) for i, m in enumerate(matches))
    made, named = Matcher(RuleSet(rules)), Named(rules)
    for request in [*requests, *requests]:  # Once found, once remembered.
        matched = made.match(request)
        rule, parts = scan(rules, request)
        assert matched.parts == parts
        evades = evaded(rules, request)
        assert made.evades(request.host, request.path) is evades
        if evades:
            assert matched.rule == passing(rule)
        else:
            assert matched.rule == rule or (named.twice(request) and matched.rule == passing(rule))
        path, name = request.path, host_name(request.host)
        on_path = [r for r in rules if path_parts(r.match.paths, path) is not None]
        here = [r.name for r in on_path if not request.host or host_matches(r.match.hosts, name)]
        assert [m.rule.name for m in made.candidates(request.host, path)] == here
        assert [m.rule for m in made.candidates(None, path)] == on_path


def looked_at(made: Matcher, request: RequestHead, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """The rule's name, and how many rules' paths were compared to find it."""
    seen = []

    def counting(patterns: Any, path: str) -> Any:
        seen.append(patterns)
        return path_parts(patterns, path)

    with monkeypatch.context() as patch:
        patch.setattr("edgeproxy.rules.match.path_parts", counting)
        return made.match(request).rule.name, len(seen)


def test_ten_thousand_rules_are_narrowed_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    many = matcher("*.html", *(f"/api/r{i}/**" for i in range(10_000)))
    for path, name in (
        ("/api/r0", "1"), ("/api/r9999/x", "10000"), ("/api/none", "none"), ("/a.css", "none"),
            ("/x.html", "0"),
    ):  # fmt: skip
        assert looked_at(many, ask(path), monkeypatch) == (name, int(name != "none"))


EVERYWHERE = (path_pattern("/**"),)


@pytest.mark.parametrize(
    ("make", "request_of_seven"),
    [
        (lambda i: Match(EVERYWHERE, hosts=(f"t{i}.example",)), ask("/x", host="t7.example")),
        (lambda i: Match(EVERYWHERE, hosts=(f"*.t{i}.example",)), ask("/x", host="a.b.t7.example:80")),
        (lambda i: Match(EVERYWHERE, methods=frozenset({f"M{i}"})), ask("/x", "M7")),
        (
            lambda i: Match(EVERYWHERE, headers=(ValueCondition("x", values=frozenset({f"{i}"})),)),
            ask("/x", x="7"),
        ),
        (lambda i: Match(EVERYWHERE, headers=(ValueCondition(f"x-{i}"),)), ask("/x", **{"x-7": ""})),
        (lambda i: Match(cookies=(ValueCondition(f"c{i}"),)), ask("/x", cookie="c7=1; other=2")),
        (lambda i: Match(query=(ValueCondition("q", values=frozenset({f"{i}"})),)), ask("/x?q=7")),
        (lambda i: Match((path_pattern(f"/item-{i}x*"),)), ask("/item-7xy")),
        (lambda i: Match((path_pattern(f"~/old/{i}/[0-9]+/(a|b)"),)), ask("/old/7/1/a")),
        (lambda i: Match((path_pattern(f"~/old-{i}-(a|b)"),)), ask("/old-7-b")),
        (lambda i: Match((path_pattern(f"*.e{i}"),)), ask("/x/y.e7")),
    ],
)
def test_of_many_rules_only_those_that_can_match_are_looked_at(
    make: Any, request_of_seven: RequestHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = matcher(*(make(i) for i in range(200)))
    assert looked_at(made, request_of_seven, monkeypatch) == ("7", 1)
    other = RequestHead("OPTIONS", "http", "none", "/z?z=1", Headers.of([("y", "1"), ("cookie", "z=1")]))
    assert looked_at(made, other, monkeypatch) == ("none", 0)


def test_an_earlier_rule_behind_a_gate_wins_and_a_later_one_does_not() -> None:
    beta = (ValueCondition("x-beta"),)
    made = matcher(
        Match(EVERYWHERE, headers=(*beta, ValueCondition("x-b", present=False))),
        Match(EVERYWHERE, headers=(ValueCondition("x-a", present=False),)),
        Match(EVERYWHERE, cookies=(ValueCondition("c"),)),
        "/**",
        Match(EVERYWHERE, headers=beta),
    )
    a = {"x-a": "1"}
    for headers, name in (
        ({}, "1"), ({"x-beta": "1"}, "0"), ({"x-beta": "1", "x-b": "1"}, "1"), (a, "3"),
        ({**a, "cookie": "c=1"}, "2"), ({**a, "x-beta": "1", "x-b": "1"}, "3"),
    ):  # fmt: skip
        assert made.match(ask("/x", **headers)).rule.name == name, headers


def test_the_first_rule_wins_and_names_its_parts() -> None:
    made = matcher("/a/new", "/a/{id}", "/a/**")
    assert made.match(ask("/a/new")).rule.name == "0"
    found = made.match(ask("/a/7?x=1"))
    assert (found.rule.name, found.parts) == ("1", {"id": "7"})
    assert made.match(ask("/a/7/8")).rule.name == "2"
    assert made.match(ask("/b")).rule is PLAIN


def test_candidates_on_any_host_and_whatever_else_must_hold() -> None:
    path = (path_pattern("/a"),)
    made = matcher(Match(path, hosts=("one.example",)), Match(path, methods=frozenset({"POST"})), "/b")
    assert [m.rule.name for m in made.candidates("two.example", "/a")] == ["1"]
    assert [m.rule.name for m in made.candidates("", "/a")] == ["0", "1"]
    assert [m.rule.name for m in made.candidates(None, "/a")] == ["0", "1"]
    assert made.match(ask("/a", host="")).rule is PLAIN


def test_get_covers_head_and_nothing_else() -> None:
    made = matcher(Match(methods=frozenset({"GET"})))
    assert [made.match(ask("/", m)).rule.name for m in ("GET", "HEAD", "POST")] == ["0", "0", "none"]


@pytest.mark.parametrize(
    ("hosts", "host", "fits"),
    [
        (("api.example",), "api.example", True),
        (("api.example",), "api.example:8080", True),
        (("api.example",), "api.example.", True),
        (("api.example",), "xapi.example", False),
        (("*.example",), "a.b.example", True),
        (("*.example",), "example", False),
        (("*.example",), ".example", False),
        (("*.example",), "badexample", False),
        (("[::1]",), "[::1]:80", True),
        (("[::1]",), "[::1]", True),
    ],
)
def test_hosts(hosts: tuple[str, ...], host: str, fits: bool) -> None:
    assert (matcher(Match(hosts=hosts)).match(ask("/", host=host)).rule is not PLAIN) == fits


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        (ValueCondition("x"), ["1", ""], [None]),
        (ValueCondition("x", present=False), [None], ["1", ""]),
        (ValueCondition("x", values=frozenset({"1", "2"})), ["1", " 2 "], [None, "3", "12"]),
        (ValueCondition("x", regex=re.compile("a.*")), ["a", "ab"], [None, "ba", "a" * 3000]),
    ],
)
def test_conditions_on_headers_cookies_and_query(
    condition: ValueCondition, yes: list[str | None], no: list[str | None]
) -> None:
    for value, holds in [(v, True) for v in yes] + [(v, False) for v in no]:
        header = {} if value is None else {"x": value}
        cookie = {"cookie": "y=1"} if value is None else {"cookie": f"y=1; x={value}"}
        query = "" if value is None else "&x=" + value.replace(" ", "%20")
        for match, request in (
            (Match(headers=(condition,)), ask("/", **header)),
            (Match(cookies=(condition,)), ask("/", **cookie)),
            (Match(query=(condition,)), ask("/?y=1" + query)),
        ):
            assert (losing_condition(match, request) is None) == holds, (match, request)


def test_all_conditions_must_hold() -> None:
    made = matcher(Match(headers=(ValueCondition("x-a"), ValueCondition("x-b"))))
    assert made.match(ask("/", **{"x-a": "1"})).rule is PLAIN
    assert made.match(ask("/", **{"x-a": "1", "x-b": "1"})).rule is not PLAIN


@pytest.mark.parametrize(
    "path",
    [
        "/static/../api/me", "/static/..%2fapi/me", "/static/%2e%2e/api", "/static/%2E%2e%5Capi",
        "/static/..;/api",
        "/static/..", "/static/./a", "/static/..\\api", "/static/%252e%252e/api", "/static/..%252fapi",
        "/static/.%2e",
    ],
)  # fmt: skip
def test_a_path_with_a_dot_segment_is_never_cached(path: str) -> None:
    ruleset = load_text('rules: [{name: static, match: {path: "/static/**"}, ttl: 7d}]')
    matched = Matcher(ruleset).match(ask(path))
    assert matched.rule.name == "static"
    assert matched.rule.overrides.pass_
    assert matched.rule.overrides.ttl == 7 * 86400


@pytest.mark.parametrize(
    "path", ["/a", "/a.b", "/a..b", "/...", "/a/.well-known/x", "/a%2eb", "/..a", "/a%2fb"]
)
def test_dots_in_names_are_no_dot_segments(path: str) -> None:
    assert not has_dot_segment(path)


EARLIER = """
rules:
  - {name: guarded, match: {path: "/admin/**", headers: {x-y: true}}, ttl: 1m}
  - {name: admin, match: {path: "/admin/**"}, pass: true}
  - {name: item, match: {path: "/items/{id}"}, ttl: 1m}
  - {name: rest, match: {path: "/**"}, ttl: 10m}
  - {name: never, match: {path: "/late/**"}, pass: true}
"""


@pytest.mark.parametrize(
    "path",
    [
        "/%61dmin/me", "/admin%2fme", "/admin%252Fme", "/%2561dmin/me", "//admin/me", "/admin;x=1/me",
        "/admin%3bx/me",
        "/admin\\me", "/%5cadmin/me", "/%252561dmin", "/;/admin/me", "/x;/%61dmin", "/%2fadmin",
    ],
)  # fmt: skip
def test_what_an_origin_may_take_for_an_earlier_rules_path_is_never_cached(path: str) -> None:
    """The rule that keeps /admin out of the cache does not see it, and the one that caches the rest does."""
    made = Matcher(load_text(EARLIER))
    wanted = {"/x;/%61dmin": ("rest", False)}.get(path, ("rest", True))
    for _ in range(2):
        rule = made.match(ask(path)).rule
        assert (rule.name, rule.overrides.pass_) == wanted
    assert made.match(ask(path, **{"x-y": "1"})).rule.overrides.pass_ is wanted[1]
    alone = Matcher(load_text(EARLIER.replace('"/**"', '"/nowhere/**"')))
    found = alone.match(ask(path)).rule
    assert (found.name, found.overrides.pass_) == (PLAIN.name, wanted[1])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/items/a%20b", "item"), ("/items/group%2fproject", "item"), ("/items/a;v=1", "item"),
        ("/caf%C3%A9", "rest"),
        ("/%6cate/x", "rest"), ("//a//b", "rest"), ("/a%2fb", "rest"), ("/administrator%20", "rest"),
    ],
)  # fmt: skip
def test_what_no_earlier_rule_is_about_is_cached_as_ever(path: str, name: str) -> None:
    rule = Matcher(load_text(EARLIER)).match(ask(path)).rule
    assert (rule.name, rule.overrides.pass_) == (name, False)


def test_the_memo_is_bounded() -> None:
    made = matcher("/a/**")
    for i in range(2 * MEMO):
        made.match(ask(f"/a/{i}"))
        assert len(made._young) + len(made._old) <= MEMO
    made.match(ask("/a/" + "x" * 10_000))
    assert max(len(path) for _, _, path in (*made._young, *made._old)) < 1000


def test_the_memo_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = matcher("/a/**")
    for i in range(2 * MEMO):
        made.match(ask(f"/a/{i}"))
        if i % 100 == 0:
            made.match(ask("/a/hot"))
    assert looked_at(made, ask("/a/hot"), monkeypatch) == ("0", 0)
    assert looked_at(made, ask("/a/0"), monkeypatch) == ("0", 1)


def test_a_very_long_path_of_slashes_costs_little() -> None:
    made = matcher("/a/b/c/**", "/**/x/*y*z/**/q")
    assert made.match(ask("/" * 8000)).rule is PLAIN
    assert made.match(ask("/x/" + "y" * 8000)).rule is PLAIN
