"""The matcher: what the index finds is what a scan from the top finds."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.rules.load import load_text
from edgeproxy.rules.match import (
    MEMO,
    Matcher,
    has_dot_segment,
    host_matches,
    host_name,
    losing_condition,
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
MATCH = st.builds(
    Match,
    paths=st.lists(PATTERN.map(path_pattern), max_size=3).map(tuple),
    hosts=st.sampled_from([(), (), ("h.example",), ("*.example",), ("other.example",)]),
    methods=st.sampled_from([frozenset(), frozenset(), frozenset({"GET"}), frozenset({"POST"})]),
    headers=st.sampled_from([(), (), (ValueCondition("x-a"),), (ValueCondition("x-a", present=False),)]),
)


def scan(rules: tuple[Rule, ...], request: RequestHead) -> tuple[Rule, Any]:
    """The definition: from the top, the first of which everything holds."""
    for rule in rules:
        parts = path_parts(rule.match.paths, request.path)
        fits = host_matches(rule.match.hosts, host_name(request.host))
        if parts is not None and fits and losing_condition(rule.match, request) is None:
            return rule, parts
    return PLAIN, {}


@given(st.lists(MATCH, max_size=8), PATH, st.sampled_from(["GET", "HEAD", "POST"]), st.booleans())
def test_the_index_finds_what_a_scan_finds(
    matches: list[Match],
    path: str,
    method: str,
    flagged: bool,
) -> None:
    rules = tuple(Rule(str(i), f"r:{i}", m) for i, m in enumerate(matches))
    made = Matcher(RuleSet(rules))
    request = ask(path, method, **({"x-a": "1"} if flagged else {}))
    for _ in range(2):  # Once found, once remembered.
        matched = made.match(request)
        assert (matched.rule, matched.parts) == scan(rules, request)
    here = [
        r.name
        for r in rules
        if path_parts(r.match.paths, path) is not None and host_matches(r.match.hosts, "h.example")
    ]
    assert [m.rule.name for m in made.candidates("h.example:8080", path)] == here


def test_ten_thousand_rules_are_narrowed_to_one() -> None:
    many = matcher("*.html", *(f"/api/r{i}/**" for i in range(10_000)))
    for path, name in (
        ("/api/r0", "1"), ("/api/r9999/x", "10000"), ("/api/none", "none"), ("/a.css", "none"),
            ("/x.html", "0"),
    ):  # fmt: skip
        assert len(many._narrow(path)) == (name != "none")
        assert many.match(ask(path)).rule.name == name


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


def test_the_memo_is_bounded() -> None:
    made = matcher("/a/**")
    for i in range(MEMO + 10):
        made.match(ask(f"/a/{i}"))
    assert len(made._memo) <= MEMO
    made.match(ask("/a/" + "x" * 10_000))
    assert max(len(path) for _, path in made._memo) < 1000


def test_a_very_long_path_of_slashes_costs_little() -> None:
    made = matcher("/a/b/c/**", "/**/x/*y*z/**/q")
    assert made.match(ask("/" * 8000)).rule is PLAIN
    assert made.match(ask("/x/" + "y" * 8000)).rule is PLAIN
