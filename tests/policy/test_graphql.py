"""GraphQL documents: what their operations are, and that nothing else is ever taken for a query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.graphql import REMEMBERED, Document, document


def kind(source: str, name: str = "") -> str | None:
    found = document(source)
    return None if found is None else found.kind(name)


@pytest.mark.parametrize(
    "source",
    [
        "{ a }", "query { a }", "query Q { a }", "query query { mutation }",
        "query Q($id: ID! = 7, $l: [Int!] = [1, -2.5e3], $o: X = {a: {b: 1}}) @live(if: true) @x { a }",
        '{ a(b: "mutation { c }") }', '{ a(b: """ " \\""" } mutation { c } """) }',
        '{ a(b: "\\"}{", c: "") }',
        "# mutation { b }\n{ a # }\n }", "\ufeff{ a, ,, b }", "{ a }\nfragment mutation on X @x(y: 1) { c }",
        "fragment F on X { mutation } query { ...F, ... on Y @include(if: $z) { a } ...{b} }",
        "{ a(b: $c, d: E, e: null, f: true) { alias: g } }", '{ a(b: "\\u00e9 \\u{1F600}") }',
        "{ a | b & c }",
    ],
)  # fmt: skip
def test_one_query(source: str) -> None:
    assert kind(source) == "query"


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("mutation { a }", "", "mutation"), ("subscription S { a }", "S", "subscription"),
        ("query A { a } mutation B { b }", "A", "query"), ("query A { a } mutation B { b }", "B", "mutation"),
        ("query A { a } mutation B { b }", "", None), ("query A { a } query B { b }", "", None),
        ("query A { a } query A { b }", "A", None), ("query A { a }", "B", None), ("{ a }", "A", None),
        ("{ a } mutation { b }", "", None),
    ],
)  # fmt: skip
def test_which_operation(source: str, name: str, expected: str | None) -> None:
    assert kind(source, name) == expected


@pytest.mark.parametrize(
    "source",
    [
        "", "#", "query", "query Q", "a", "a { b }", "{", "}", "{ a", "{ a }}", "{ a) }", "( a )", "[ a ]",
        "query A mutation B { c }", "query A ($x) mutation { c }", "query ($a: Int { b }", "query @ { a }",
        "query @a mutation { b }", "query Q @", "query Q @a(b: 1", "type T { a: Int }", "schema { query: Q }",
        "extend type T { a: Int }", "{ a } type T { a: Int }", "fragment F on X { a }",
        "fragment on on X { a }",
        "fragment F X { a }", "fragment F on { a }", "fragment 1 on X { a }", "fragment F on", "fragment",
        "{ a(b: 01) }", "{ a(b: 1a) }", "{ a(b: 1.) }", "{ a(b: .5) }", "{ a(b: -) }", "{ a? }", "{ a .. b }",
        '{ a(b: "c) }', '{ a(b: "c\n") }', '{ a(b: """c) }', '{ a(b: """c\\""") }', '{ a(b: "\\x") }',
        "{ a(b: '') }", "{ é }", "{ a \x00 }", "{ a } %", "{ a };",
    ],
)  # fmt: skip
def test_nothing_else(source: str) -> None:
    assert kind(source) is None


def test_ignored_tokens_make_no_difference_and_all_others_do() -> None:
    def text(source: str) -> str:
        found = document(source)
        assert found is not None
        return found.text

    assert text("query Q{a(b:1,c:2){d}}") == text("# x\n query  Q { a ( b : 1 c : 2 )\r\n{ d } }\t")
    assert text('{ a(b: "c  d") }') != text('{ a(b: "c d") }')
    assert text('{ a(b: "#c") }') != text('{ a(b: "#d") }')
    assert text("{ ab }") != text("{ a b }")
    assert text('{ a(b: """c\n  d""") }') != text('{ a(b: """c d""") }')


def test_long_documents_are_read_like_short_ones() -> None:
    assert kind("{ a " + "b " * REMEMBERED + "}") == "query"
    assert kind("mutation { a " + "b " * REMEMBERED + "}") == "mutation"


_PIECES = st.sampled_from([
    "query", "mutation", "subscription", "fragment", "on", "A", "{", "}", "(", ")", "[", "]", "@", "$", ":",
    "...",
    '"', '"""', "\\", '\\"', '\\"""', "#", "\n", " ", ",", "1", "-", "0.", "\ufeff", "'",
])  # fmt: skip


@given(st.lists(_PIECES, max_size=30).map(" ".join))
def test_whatever_it_is_it_is_read_in_the_same_way_twice(source: str) -> None:
    """What a document is reduced to has the same operations and is reduced to itself."""
    found = document(source)
    if found is not None:
        assert document(found.text) == found


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_a_mutation_in_front_is_never_lost(source: str) -> None:
    found = document("mutation { a }\n" + source)
    assert found is None or found.operations[0] == ("mutation", "")
    assert found is None or found.kind("") in ("mutation", None)


@given(st.text(st.characters(exclude_characters='"\\\r\n', exclude_categories=["Cs"]), max_size=30))
def test_what_stands_in_a_string_or_a_comment_is_no_operation(inside: str) -> None:
    assert kind(f'{{ a(b: "{inside}") }}') == "query"
    assert kind(f'{{ a(b: """{inside}""") }}') == "query"
    assert kind(f"#{inside}\n{{ a }}") == "query"
    assert kind(f'mutation {{ a(b: "{inside}") }} #{inside}') == "mutation"


def test_a_document_is_plain_data() -> None:
    assert document("query Q { a }") == Document("query Q { a }", (("query", "Q"),))
