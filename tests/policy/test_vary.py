from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.stored import Compression, Overrides
from edgeproxy.policy.vary import (
    best_listed,
    reduced_for_origin,
    selecting_values,
    variant_id,
    vary_names,
)
from tests.policy.make import PLAIN, fields, request

AS_SENT = Overrides(compression=Compression(enabled=False))


def value(name: str, text: str | None, overrides: Overrides = PLAIN) -> str | None:
    (result,) = selecting_values((name,), request({} if text is None else {name: text}), overrides)
    return result


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], ()),
        (["Foo, bar,FOO"], ("bar", "foo")),
        (["", "A"], ("a",)),
        (["*"], None),
        (["*, *"], None),
        ([", *"], None),
        (["", "*"], None),
        (["Foo, *"], None),
        (["Foo", "*"], None),
    ],
)
def test_names(lines: list[str], names: tuple[str, ...] | None) -> None:
    assert vary_names(fields([("Vary", line) for line in lines])) == names


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("foo", ["1,2", " 1, 2 ", "1 ,\t2"]),
        ("accept-language", ["en, de", "de,en", "eN, De", " en ,   de", "de;q=1.0, en;q=1"]),
        ("accept-language", ["fr, de;q=0.5", "de;q=0.50,fr", "de ; Q=.5 ,FR".replace(".5", "0.5")]),
        ("accept", ["text/html, */*;q=0.1", "*/*;q=0.1,Text/HTML"]),
        ("accept", ["text/html; level=1", "text/html;level=1"]),
    ],
)
def test_what_means_the_same_selects_the_same(name: str, values: list[str]) -> None:
    assert len({value(name, v) for v in values}) == 1


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("foo", "1", "2"),
        ("foo", "1,2", "2,1"),
        ("foo", "a", "A"),
        ("foo", '"1,2"', '"1, 2"'),
        ("foo", None, ""),
        ("accept-language", "en, de;q=0.5", "en, de"),
        ("accept-language", "en, de;q=9", "en"),
        ("accept-language", "en", "en-GB"),
        ("accept", 'a/b;profile="X"', 'a/b;profile="x"'),
        ("accept-encoding", None, ""),
    ],
)
def test_what_may_mean_something_else_selects_something_else(
    name: str, one: str | None, other: str | None
) -> None:
    assert value(name, one, AS_SENT) != value(name, other, AS_SENT)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-request-id"])
def test_what_the_edge_writes_anew_for_each_request_selects_nothing(name: str) -> None:
    assert vary_names(fields([("Vary", f"Foo, {name}")])) is None


def test_the_scheme_selects_as_the_origin_is_told_it() -> None:
    told = request({"X-Forwarded-Proto": "https"})
    assert selecting_values(("x-forwarded-proto",), told, PLAIN) == (told.scheme,)


def test_lines_of_a_field_are_joined() -> None:
    lines = request([("Foo", "1"), ("Foo", "2")])
    assert selecting_values(("foo",), lines, PLAIN) == ("1,2",)


def test_the_edges_own_coding_takes_accept_encoding_out() -> None:
    assert {value("accept-encoding", v) for v in (None, "br", "gzip;q=0", "identity;q=0")} == {""}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("gzip, br", "br,gzip"),
        ("BR , x-gzip;q=0.2", "br,gzip"),
        ("gzip;q=0, br", "br"),
        ("identity, gzip", "gzip"),
        ("identity;q=0, gzip", "gzip,identity;q=0"),
        ("*;q=0, gzip", "*;q=0,gzip"),
        ("identity, *;q=0", "*;q=0,identity"),
        ("*, gzip;q=0", "*,gzip;q=0"),
        ("gzip;q=junk, br", "gzip;q=junk,br"),
        ("", ""),
    ],
)
def test_accept_encoding_is_the_set_of_what_is_acceptable(text: str, normal: str) -> None:
    assert value("accept-encoding", text, AS_SENT) == normal


@pytest.mark.parametrize(
    ("text", "best"),
    [
        (None, "en"),
        ("", "en"),
        ("pl", "en"),
        ("de", "de"),
        ("de-AT, fr;q=0.9", "de"),
        ("fr;q=0.3, de;q=0.4", "de"),
        ("de;q=0, *", "en"),
        ("en;q=0, *;q=0.1", "de"),
        ("*;q=0.1, fr;q=0.2", "fr"),
        ("DE;q=0.5, en;q=0.5", "en"),
        ("de;q=junk", "en"),
    ],
)
def test_normalising_reduces_to_what_is_listed(text: str | None, best: str) -> None:
    assert best_listed(text, ("en", "de", "fr")) == best


def test_media_types_match_by_range() -> None:
    listed = ("text/html", "application/json")
    assert best_listed("application/*", listed) == "application/json"
    assert best_listed("*/*", listed) == "text/html"
    assert best_listed("application/json;v=1, text/html;q=0.5", listed) == "application/json"


def test_normalised_fields_select_by_the_reduced_value() -> None:
    overrides = Overrides(normalise={"accept-language": ("en", "de"), "empty": ()})
    assert value("accept-language", "de-CH, pl", overrides) == "de"
    assert value("accept-language", None, overrides) == "en"
    assert value("empty", "x", overrides) == "x"


def test_the_origin_is_asked_for_what_the_variant_is_named_by() -> None:
    overrides = Overrides(normalise={"accept-language": ("en", "de"), "empty": ()})
    sent = reduced_for_origin(fields([("Accept-Language", "fr"), ("X", "1"), ("empty", "y")]), overrides)
    assert sent.get("accept-language") == "en"
    assert sent.get("x") == "1"
    assert sent.get("empty") == "y"


def test_variant_of_nothing_has_no_name() -> None:
    assert not variant_id((), ())
    assert len(variant_id(("a",), (None,))) == 32


def test_variants_differ_where_their_parts_do() -> None:
    values: list[str | None] = [None, "", "-", "1", "1:", "0:", "a", "1:a-"]
    named = [(("a", "b"), pair) for pair in itertools.product(values, repeat=2)]
    named += [(("a", "c"), pair) for pair in itertools.product(values, repeat=2)]
    assert len({variant_id(*one) for one in named}) == len(named)


LATIN = st.text(st.characters(codec="latin-1"), max_size=30)


@given(LATIN, st.sampled_from(["accept", "accept-language", "accept-encoding", "foo"]))
def test_normalising_is_settled_after_one_go(text: str, name: str) -> None:
    once = value(name, text, AS_SENT)
    assert value(name, once, AS_SENT) == once


@given(LATIN)
def test_any_value_can_be_reduced(text: str) -> None:
    assert best_listed(text, ("en", "de")) in ("en", "de")
