from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.cache_control import request_directives
from edgeproxy.policy.coding import choose_coding, with_plain_etags
from edgeproxy.policy.language import wanted_language
from edgeproxy.policy.lists import LONGEST, LONGEST_TAGS, split_list, unquote, weighted
from edgeproxy.policy.stored import Overrides
from edgeproxy.policy.validate import not_modified
from edgeproxy.policy.vary import best_listed, selecting_values
from tests.policy.make import fields, request

FIELD_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ("", []),
        (" , ,\t", []),
        ("a", ["a"]),
        ("a,b ,\tc", ["a", "b", "c"]),
        ('a="x, y", b', ['a="x, y"', "b"]),
        (r'a="x\", y", b', [r'a="x\", y"', "b"]),
        ('a="x, y', ['a="x', "y"]),
        ('"a,b" "c,d', ['"a,b" "c', "d"]),
        ('"never, "no, end\\', ['"never, "no', "end\\"]),
    ],
)
def test_a_quoted_string_hides_its_commas_and_only_if_it_ends(value: str, members: list[str]) -> None:
    assert split_list(value) == members


def test_splitting_stays_linear_on_quotes_that_never_end() -> None:
    # Each quote searched to the end would be 10^10 steps: the suite's timeout would see it.
    assert split_list('"\\' * 100_000 + ",x")[-1] == "x"


@given(FIELD_TEXT)
def test_splitting_takes_anything_and_loses_only_separators_and_space(value: str) -> None:
    members = split_list(value)
    assert all(m and m == m.strip(" \t") for m in members)
    assert "".join(members).replace(",", "").replace(" ", "").replace("\t", "") == value.replace(
        ",", ""
    ).replace(" ", "").replace("\t", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [('"a"', "a"), ('""', ""), (r'"a\"b"', 'a"b'), ("a", "a"), ('"', '"'), ('"a"b"', '"a"b"'), ("", "")],
)
def test_unquote(value: str, text: str) -> None:
    assert unquote(value) == text


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ("", []),
        ("EN, de;q=0.5", [("en", 1.0), ("de", 0.5)]),
        ("a; Q = 0.25 ,b", [("a", 0.25), ("b", 1.0)]),
        ("text/html; Level=1;q=0", [("text/html;level=1", 0.0)]),
        ("a;q=1.001, b;q=2, c;q=, d;q=-1, e;q=0.1234", []),
        ("a;q, b", [("a;q", 1.0), ("b", 1.0)]),
        (";q=1", []),
        ('a;p="X,Y";q=0.1', [('a;p="X,Y"', 0.1)]),
        ("a;q=0.5;ext=1", [("a", 0.5)]),
    ],
)
def test_weights(value: str, members: list[tuple[str, float]]) -> None:
    assert weighted(value) == members


LONG = "a," * LONGEST


def test_what_is_beyond_any_meaning_is_not_looked_into() -> None:
    """Clients write these fields: each of them would take milliseconds otherwise."""
    assert choose_coding("br, " + LONG, ["br"]) == ""
    for name in ("Accept", "Accept-Language", "X-Any"):
        one, other = ({name: text} for text in (LONG, LONG + "b"))
        values = [selecting_values((name.lower(),), request(given), Overrides()) for given in (one, other)]
        assert values == [(LONG,), (LONG + "b",)]
    assert wanted_language("de, " + LONG) is None
    assert best_listed("de, " + LONG, ["en", "de"]) == "en"
    assert request_directives(fields({"Cache-Control": LONG})).no_cache
    assert request_directives(fields({"Pragma": LONG})).no_cache
    tags = '"e", ' * LONGEST_TAGS
    assert not not_modified(fields({"If-None-Match": tags}), fields({}), '"e"', 0.0)
    assert with_plain_etags('"e-br", ' * LONGEST_TAGS, ["br"]) == '"e-br", ' * LONGEST_TAGS
