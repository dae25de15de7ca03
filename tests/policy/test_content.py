"""The name of a request's content: equal where the content says the same, and never else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.content import ContentForm, with_content
from edgeproxy.policy.head import RequestHead
from edgeproxy.policy.vocabulary import PassReason
from tests.policy.make import request

JSON = {"Content-Type": "application/json"}
EXACT, AS_JSON, GRAPHQL = ContentForm
NOT_A_QUERY = PassReason.CONTENT_NOT_A_QUERY


def name(
    content: bytes | str,
    form: ContentForm = AS_JSON,
    given: dict[str, str] | None = None,
    *,
    method: str = "QUERY",
    persisted: bool = False,
    target: str = "/a",
) -> str | PassReason:
    head = request(JSON if given is None else given, method=method, target=target, has_body=True)
    octets = content if isinstance(content, bytes) else content.encode()
    keyed = with_content(head, octets, form, persisted=persisted)
    assert isinstance(keyed, RequestHead)
    assert bool(keyed.content_key) != bool(keyed.unkeyed)
    return keyed.unkeyed or keyed.content_key


def graphql(value: object, **options: Any) -> str | PassReason:
    return name(value if isinstance(value, str) else json.dumps(value), GRAPHQL, method="POST", **options)


def test_octet_by_octet() -> None:
    assert name(b"a", EXACT) == name(b"a", EXACT)
    assert name(b'{"a":1}', EXACT) != name(b'{"a": 1}', EXACT)
    assert str(name(b"a", EXACT)).startswith("QUERY exact#")
    assert name(b"a", EXACT) != name(b"a", EXACT, method="POST")
    assert name(b"", EXACT) != name(b"a", EXACT)


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Type": "text/plain"}, {"Content-Type": "a/b"}, {"Content-Encoding": "gzip"},
        {"Content-Language": "en"}, {"Content-Type": "text/plain", "Content-Language": "en"}, {},
    ],
)  # fmt: skip
def test_what_describes_the_content_is_part_of_it(fields: dict[str, str]) -> None:
    others = [{"Content-Type": "x/y"}, fields | {"Content-Location": "/b"}]
    assert all(name(b"a", EXACT, fields) != name(b"a", EXACT, other) for other in others)
    assert name(b"a", EXACT, fields) == name(b"a", EXACT, fields | {"Content-Length": "1", "Accept": "x/y"})


def test_fields_and_content_do_not_run_together() -> None:
    assert name(b"b:c\n\nd", EXACT, {}) != name(b"d", EXACT, {"Content-B": "c"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": [2, 3]}', ' {"b":[2,3],"a":1}\n'),
        (r'"\u0041\/"', '"A/"'),
        ('{"a": {"c": 1, "b": 2}}', '{"a": {"b": 2, "c": 1}}'),
    ],
)
def test_json_that_says_the_same(one: str, other: str) -> None:
    assert name(one) == name(other)
    assert name(one, given={"Content-Type": "application/x+json; charset=UTF-8"}) == name(
        other, given={"Content-Type": "application/x+json; charset=UTF-8"}
    )
    quiet = JSON | {"Cache-Control": "max-age=0, No-Transform"}
    assert name(one, given=quiet) != name(other, given=quiet)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"), ("1", "1e0"), ("1", '"1"'), ("[1,2]", "[2,1]"), ("{}", "[]"), ('{"a": null}', "{}"),
        ("0", "-0"), ("10000000000000000000001", "10000000000000000000002"), ('{"#": "1"}', "1"),
        ('{"{": {}}', "{}"), ('"\\ud800"', '"\\ud801"'), ("true", '"true"'), ('{"a": 1}', '{"A": 1}'),
        # No JSON, and so octet by octet: which of two values counts is the origin's to say.
        ('{"a": 1, "a": 2}', '{"a": 2}'), ('{"a": 1, "a": 2}', '{"a": 2, "a": 1}'), ("NaN", " NaN"),
        ("{", "{ "), ("null", " null"), ("\ufeff1", "1"), ('{"a": 1, "\\u0061": 2}', '{"a": 2}'),
    ],
)  # fmt: skip
def test_json_that_does_not(one: str, other: str) -> None:
    assert name(one) != name(other)


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Type": "text/json"}, {}, {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json; charset=utf-16"}, {"Content-Type": "x/y+json"},
    ],
)  # fmt: skip
def test_what_is_not_said_to_be_json_in_utf8_is_taken_octet_by_octet(fields: dict[str, str]) -> None:
    assert name("[1]", given=fields) != name("[ 1]", given=fields)
    assert name('{"query": "{a}"}', GRAPHQL, fields) is NOT_A_QUERY


@pytest.mark.parametrize(
    "content", [b"\xff", b"[" * 60_000, b'{"a":' * 60_000, b'{"a":' * 400 + b"1" + b"}" * 400]
)
def test_json_that_cannot_be_read(content: bytes) -> None:
    assert name(content) == name(content)
    assert name(content) != name(content + b" ") or content.endswith(b"}")


@pytest.mark.parametrize("depth", range(300, 2000, 25))
def test_json_of_any_depth_has_a_name(depth: int) -> None:
    """Reading and writing give up at different depths."""
    assert name(b'{"a":' * depth + b"1" + b"}" * depth)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(_VALUES, _VALUES)
def test_json_has_one_name_for_one_value(one: object, other: object) -> None:
    first, spread = json.dumps(one), json.dumps(one, indent=1, ensure_ascii=False, sort_keys=True)
    if one is not None:
        assert name(first) == name(spread.encode("utf-8", "surrogatepass") if spread.isascii() else spread)
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        assert name(first) != name(json.dumps(other))


def test_one_graphql_query() -> None:
    one = {"query": "query Q($id: ID!) { a(id: $id) }", "variables": {"id": 7, "b": 1}, "operationName": "Q"}
    two = {"operationName": "Q", "query": "query Q($id:ID!){a(id:$id)} # x", "variables": {"b": 1, "id": 7}}
    assert graphql(one) == graphql(two)
    assert str(graphql(one)).startswith("POST graphql#")
    assert graphql(one) != graphql(one | {"variables": {"id": 8, "b": 1}})
    assert graphql(one) != graphql(one | {"query": "query Q($id: ID!) { b(id: $id) }"})
    assert graphql(one) != graphql(one | {"extensions": {"a": 1}})
    assert graphql(one) != graphql(one | {"id": "x"})
    assert graphql(one) != name(json.dumps(one), GRAPHQL)
    plain = {"query": "{ a }"}
    assert graphql(plain) == graphql(plain | {"operationName": None, "variables": None, "extensions": None})
    both = {"query": "query A { a } query B { b }"}
    assert graphql(both | {"operationName": "A"}) != graphql(both | {"operationName": "B"})


@pytest.mark.parametrize(
    "value",
    [
        {"query": "mutation { a }"}, {"query": "subscription { a }"},
        {"query": "query A { a } query B { b }"},
        {"query": "query A { a } mutation B { b }", "operationName": "B"},
        {"query": "{ a }", "operationName": 1},
        {"query": "{ a }", "operationName": "B"}, {"query": 1}, {"query": ""}, {"query": "x"},
        {"query": ["{ a }"]},
        [{"query": "{ a }"}], "{ a }", "1", "null", '"{ a }"', {}, {"variables": {}},
        {"query": {"{": "{ a }"}},
        {"query": "{ a }", "Query": "mutation { b }"}, {"query": "{ a }", "OPERATIONNAME": "B"},
        '{"query": "{ a }", "query": "mutation { b }"}', '{"query": "{ a }"',
        {"extensions": {"persistedQuery": {"sha256Hash": "x"}}},
    ],
    ids=repr,
)  # fmt: skip
def test_no_graphql_query(value: object) -> None:
    assert graphql(value) is NOT_A_QUERY


@pytest.mark.parametrize("target", ["/a?query=mutation%7Bb%7D", "/a?x=1&Variables=", "/a?%6fperationName=B"])
def test_a_target_that_names_parameters_too(target: str) -> None:
    assert graphql({"query": "{ a }"}, target=target) is NOT_A_QUERY
    assert graphql({"query": "{ a }"}, target="/a?x=query") is not NOT_A_QUERY


def test_persisted_queries() -> None:
    def asked(digest: object = "x") -> dict[str, object]:
        return {
            "variables": {"id": 1},
            "extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}},
        }

    assert graphql(asked()) is NOT_A_QUERY, "it may be a mutation"
    known = graphql(asked(), persisted=True)
    assert known == graphql(asked(), persisted=True)
    assert known != graphql(asked("y"), persisted=True)
    assert graphql(asked() | {"query": "mutation { a }"}, persisted=True) is NOT_A_QUERY
    assert not isinstance(name(json.dumps(asked()), GRAPHQL), PassReason), "QUERY is safe"
    wrongs: list[dict[str, Any]] = [
        asked(1), {"extensions": {}}, {"extensions": {"persistedQuery": "x"}}, {"extensions": 1}, {},
    ]  # fmt: skip
    for wrong in wrongs:
        assert graphql(wrong, persisted=True) is NOT_A_QUERY
        assert name(json.dumps(wrong), GRAPHQL) is NOT_A_QUERY


@pytest.mark.parametrize(
    "field", ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"]
)
def test_conditions_mean_something_else_in_a_post(field: str) -> None:
    assert name(b"a", EXACT, {field: "x"}, method="POST") is PassReason.CONTENT_CONDITIONAL
    assert not isinstance(name(b"a", EXACT, {field: "x"}), PassReason)
