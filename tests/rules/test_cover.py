"""What one pattern takes of another's paths: every claim is held against the expressions that match."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from edgeproxy.rules.cover import covered, outside, sample, shared
from edgeproxy.rules.match import path_parts
from edgeproxy.rules.patterns import path_pattern
from tests.rules.test_patterns import PATHS, PATTERNS


@settings(max_examples=60)
@given(PATTERNS, PATTERNS, PATHS)
def test_what_is_said_to_be_covered_is(narrow: str, wide: str, path: str) -> None:
    small, large = path_pattern(narrow), path_pattern(wide)
    if covered(small, [large]):
        assert path_parts([small], path) is None or path_parts([large], path) is not None
    elif not small.exact:
        found = outside(small, [large])
        assert found is not None
        assert path_parts([small], found) is not None
        assert path_parts([large], found) is None


@given(PATTERNS)
def test_a_sample_is_one_of_them(pattern: str) -> None:
    made = path_pattern(pattern)
    one = sample(made)
    assert one is not None
    assert path_parts([made], one) is not None


@settings(max_examples=60)
@given(PATTERNS, PATTERNS, PATHS)
def test_what_is_said_to_be_shared_is(one: str, other: str, path: str) -> None:
    a, b = path_pattern(one), path_pattern(other)
    found = shared(a, b)
    if found is None:
        assert path_parts([a], path) is None or path_parts([b], path) is None
    else:
        assert path_parts([a], found) is not None
        assert path_parts([b], found) is not None


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("/api/pitches/{id}", ["/api/**"]),
        ("/api/pitches/**", ["/api/**"]),
        ("/api/pitches/**", ["/**"]),
        ("/a.css", ["*.css"]),
        ("/static/*.css", ["*.css"]),
        ("*.min.css", ["*.css"]),
        ("/a/*-b", ["/a/{x}"]),
        ("/a/**/b", ["/a/**"]),
        ("/a/**", ["/a", "/a/*", "/a/", "/a/*/**", "/a//**"]),
        ("/a{x}", ["/a{y}"]),
        ("~/api/[0-9]+", ["/api/**"]),
        ("~/api/[0-9]+", ["~/api/[0-9]+"]),
        ("/api/7", ["~/api/[0-9]+"]),
    ],
)
def test_covered(narrow: str, wide: list[str]) -> None:
    assert covered(path_pattern(narrow), [path_pattern(each) for each in wide])


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("/api/**", ["/api/{id}"]),
        ("/api/**", ["/api/*/**"]),  # "/api" itself
        ("*.css", ["/static/**"]),
        ("/a/{x}", ["/a/*-b", "/a/*-c"]),
        ("~/api.*", ["/api/**"]),  # "/apis"
        ("/api/*", ["~/api/[^/]+"]),  # true, and not known
        ("/a/*", ["/a"]),
    ],
)
def test_not_covered(wide: str, narrow: list[str]) -> None:
    assert not covered(path_pattern(wide), [path_pattern(each) for each in narrow])


def test_two_endings_share_nothing() -> None:
    assert shared(path_pattern("*.css"), path_pattern("*.js")) is None
    assert shared(path_pattern("a*.css"), path_pattern("*b.css")) == "/ab.css"


def test_a_sample_of_what_is_no_path() -> None:
    assert sample(path_pattern("*.css")) == "/z.css"
    assert sample(path_pattern("**")) == "/z"
    assert sample(path_pattern("~/a.*")) is None


def test_what_would_take_too_long_is_not_claimed() -> None:
    hard = path_pattern("/**/" + "/".join(["a*b*c*d*e"] * 12))
    assert not covered(hard, [path_pattern("/**/" + "/".join(["a*c*e*x"] * 12)), path_pattern("/**/q/**")])
