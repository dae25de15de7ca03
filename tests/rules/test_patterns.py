"""Path patterns, against a plain matcher that tries everything."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.rules.match import path_parts
from edgeproxy.rules.patterns import extension, names_in, path_pattern, whole_segments
from edgeproxy.rules.safe_regex import LONGEST, compile_regex, literal_start, matches


def plainly(pattern: str, path: str) -> bool:
    """Whether a glob that opens with "/" matches, by trying everything."""
    return path.startswith("/") and _segments(pattern[1:].split("/"), path[1:].split("/"))


def _segments(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_segments(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and _segment(pattern[0], path[0]) and _segments(pattern[1:], path[1:])


def _segment(pattern: str, text: str) -> bool:
    if pattern in ("*", "{x}"):
        return bool(text)
    return _stars(pattern, text)


def _stars(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_stars(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return text[:1] == pattern[0] and _stars(pattern[1:], text[1:])


SEGMENT = st.sampled_from(["a", "b", "", "ab", "*", "a*", "*b", "a*b", "*a*b", "a*b*"])
PATTERNS = (
    st.lists(SEGMENT | st.just("**"), min_size=1, max_size=5)
    .filter(lambda s: not any(a == b == "**" for a, b in pairwise(s)))
    .map(lambda s: "/" + "/".join(s))
)
PATHS = st.lists(st.sampled_from(["a", "b", "", "ab", "aab", "abb", "ba"]), min_size=1, max_size=6).map(
    lambda s: "/" + "/".join(s)
)


@given(PATTERNS, PATHS)
def test_globs_match_as_defined(pattern: str, path: str) -> None:
    made = path_pattern(pattern)
    matched = made.regex.fullmatch(path) is not None
    assert matched == plainly(pattern, path)
    if matched:
        assert path.startswith(made.literal)
        prefix = whole_segments(made)
        assert path == prefix or path.startswith(prefix + "/")


@given(PATTERNS | st.sampled_from(["*.a", "a*", "*", "**", "/**", "/a/**/b/**"]), PATHS | st.just("*"))
def test_what_needs_no_expression_is_what_the_expression_says(pattern: str, path: str) -> None:
    made = path_pattern(pattern)
    assert (path_parts([made], path) is not None) == (made.regex.fullmatch(path) is not None)


def test_expressions_are_compiled_when_they_are_first_asked_for() -> None:
    made = path_pattern("/a/{id}/*.css")
    assert made._regex is None
    assert path_parts([made], "/b/1/x.css") is None  # its literal start is enough to say so
    assert made._regex is None
    assert path_parts([made], "/a/1/x.css") == {"id": "1"}
    assert made.regex is made.regex
    assert made == path_pattern("/a/{id}/*.css")
    assert names_in(path_pattern("/{a}/{b}")) == names_in(path_pattern("~/(?P<a>.)/(?P<b>.)")) == {"a", "b"}


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/api/pitches", ["/api/pitches"], ["/api/pitches/", "/api/Pitches", "/api/pitches/1"]),
        ("/api/pitches/**", ["/api/pitches", "/api/pitches/", "/api/pitches/1/2"], ["/api/pitchesX", "/api"]),
        ("/api/pitches/{id}", ["/api/pitches/1"], ["/api/pitches/", "/api/pitches/1/2", "/api/pitches"]),
        ("/a/*/c", ["/a/b/c"], ["/a//c", "/a/b/b/c"]),
        ("*.css", ["/a.css", "/x/y/b.css"], ["/a.css/x", "/a.cssx"]),
        ("robots.txt", ["/robots.txt", "/x/robots.txt"], ["/xrobots.txt"]),
        ("/**", ["/", "/a/b"], ["*"]),
        ("**", ["/", "/a/b"], []),
        ("/files/{name}.json", ["/files/a.b.json"], ["/files/.json", "/files/a.xml"]),
        (r"~/v[0-9]+/.*", ["/v1/", "/v22/x"], ["/v/x", "/x/v1/"]),
        ("/a%2Fb", ["/a%2Fb"], ["/a/b", "/a%2fb"]),
        ("/a/x:id", ["/a/x:id"], ["/a/x1"]),
        ("/a/:1", ["/a/:1"], ["/a/1"]),
        ("/a/:id.json", ["/a/:id.json"], ["/a/1.json"]),
    ],
)
def test_what_patterns_mean(pattern: str, yes: list[str], no: list[str]) -> None:
    made = path_pattern(pattern)
    assert [p for p in yes if not made.regex.fullmatch(p)] == []
    assert [p for p in no if made.regex.fullmatch(p)] == []


def test_named_parts() -> None:
    found = path_pattern("/{kind}/x/**/{id}").regex.fullmatch("/pitch/x/y/7")
    assert found is not None
    assert found.groupdict() == {"kind": "pitch", "id": "7"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("x/y", '"/" at the beginning'),
        ("", "got nothing"),
        ("/a?b=1", "match.query"),
        ("/café", "/caf%C3%A9"),
        ("/a/**.css", '"\\*\\*/\\*.css"'),
        ("/a/**/**/b", "twice in a row"),
        ("/{id}/{id}", "named twice"),
        ("/{a}-{b}", "regular expression"),
        ("/{1}", "is no name"),
        ("/a}", "stands alone"),
        ("^/api/.*$", 'a regular expression begins with "~": write "~/api/\\.\\*"'),
        ("^/a(b|c)?$", 'write "~/a\\(b\\|c\\)\\?"'),
        ("^a", 'write "~a"'),
        ("/a/:id", 'write "/a/{id}"'),
        ("/a/:id/b/:other_one", 'write "/a/{id}/b/{other_one}"'),
        ("~", "regular expression"),
        ("~(", "not a regular expression"),
        ("~(a+)+", "exponential"),
        ("/" + "a" * 2000, "longer"),
    ],
)
def test_wrong_patterns_say_why(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        path_pattern(pattern)


@pytest.mark.parametrize(
    "source",
    [
        "(a+)+", "(a*)*b", "(a|b)*", "(a|a)+$", "((a+)b)+", "(?:a+){2,}", r"(a)\1", "(?=a)b", "(?<!a)b",
        "(?i:a+)+",
        ".*a.*b.*c", "a?" * 12 + "a" * 12, "(a?){30}", "(.+)*", r"(\w+\s?)*", "x" * 600, "(?P<a>x+)+",
        "[a-z]+[a-z]+[a-z]+x",
    ],
)  # fmt: skip
def test_expressions_that_may_explode_are_refused(source: str) -> None:
    with pytest.raises(ValueError):
        compile_regex(source)


@pytest.mark.parametrize(
    "source",
    [
        "/api/(v1|v2)/.*",
        r"[0-9]{1,8}",
        "[^/]+/[^/]+/[^/]+",
        "(?i).*json.*",
        r".*\.(png|jpg)",
        "(?P<id>[0-9]+)-x",
        "a+/b+/c+",
    ],
)
def test_harmless_expressions_pass(source: str) -> None:
    compile_regex(source)


def test_a_long_value_matches_no_expression() -> None:
    anything = compile_regex(".*")
    assert matches(anything, "a" * LONGEST)
    assert not matches(anything, "a" * (LONGEST + 1))


@pytest.mark.parametrize(
    ("source", "literal"),
    [("^/api/.*", "/api/"), ("/a+", "/a"), ("/ab*", "/a"), ("/a|/b", ""), (r"/a\.b", "/a.b"), (r"/\d",
        "/"), ("(?i)/a", ""), ("/ab{0,1}", "/a"), ("/a/(b|c)", "/a/"), ("/a/(b|c)|/d", ""),
        ("/a/[|]b", "/a/"), (r"/a\|b", "/a|b"), ("^/a|b", "")],
)  # fmt: skip
def test_the_literal_start_of_an_expression(source: str, literal: str) -> None:
    assert literal_start(source) == literal


@given(st.text("ab/.*+?(){}[]|^$\\0,", max_size=12), st.text("ab/.", max_size=8))
def test_the_literal_start_never_loses_a_match(source: str, path: str) -> None:
    try:
        made = compile_regex(source)
    except ValueError:
        return
    if made.fullmatch(path):
        assert path.startswith(literal_start(source))


def test_extensions_for_the_index() -> None:
    assert extension(path_pattern("*.css")) == "css"
    assert extension(path_pattern("robots.txt")) == "txt"
    assert extension(path_pattern("a.*")) is None
    assert extension(path_pattern("/a/*.css")) is None
