from __future__ import annotations

import pytest

from edgeproxy.policy.head import Headers
from edgeproxy.policy.header_table import (
    TABLE,
    dated,
    end_to_end,
    forwardable_answer,
    forwardable_request,
    merge_304,
    storable_headers,
    withheld_headers,
)
from tests.policy.make import NOW, date, fields

HOPS = ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"]
PROXY = ["Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization"]


def names(headers: Headers) -> list[str]:
    return list(headers.names())


@pytest.mark.parametrize("name", HOPS + PROXY)
def test_fields_of_one_hop_go_nowhere(name: str) -> None:
    headers = fields([(name, "x"), ("X-Other", "1")])
    assert names(forwardable_request(headers, conditionals=True, ranges=True)) == ["x-other"]
    assert names(forwardable_answer(headers)) == ["x-other"]
    assert names(storable_headers(headers)) == ["x-other"]
    assert names(merge_304(Headers(), headers)) == ["x-other"]


def test_unknown_fields_pass_octet_by_octet_in_order() -> None:
    raw = [(b"X-A", b"\xff 1"), (b"x-b", b""), (b"X-a", b"2")]
    headers = Headers(raw)
    assert forwardable_request(headers, conditionals=False, ranges=False).raw == tuple(raw)
    assert forwardable_answer(headers).raw == tuple(raw)
    assert storable_headers(headers).raw == tuple(raw)


def test_connection_names_what_stays_behind() -> None:
    headers = fields([("Connection", "a, B"), ("Connection", "close"), ("A", "1"), ("b", "2"), ("C", "3")])
    assert names(forwardable_request(headers, conditionals=True, ranges=True)) == ["c"]
    assert names(forwardable_answer(headers)) == ["c"]
    assert names(storable_headers(headers)) == ["c"]


@pytest.mark.parametrize("name", ["host", "authorization", "cookie", "cache-control"])
def test_connection_cannot_name_what_a_request_means(name: str) -> None:
    headers = fields([("Connection", name), (name, "x")])
    assert names(forwardable_request(headers, conditionals=True, ranges=True)) == [name]


@pytest.mark.parametrize(
    "name", ["content-length", "cache-control", "vary", "set-cookie", "content-encoding"]
)
def test_connection_cannot_name_what_an_answer_means(name: str) -> None:
    assert names(forwardable_answer(fields([("Connection", name), (name, "x")]))) == [name]


def test_framing_is_written_by_the_sender() -> None:
    headers = fields(
        {"Host": "h", "Content-Length": "3", "Transfer-Encoding": "chunked", "Expect": "100-continue"}
    )
    assert names(forwardable_request(headers, conditionals=True, ranges=True)) == ["host"]


@pytest.mark.parametrize(
    ("conditionals", "ranges", "left"),
    [
        (True, True, ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
                      "if-range", "range", "x"]),
        (False, True, ["if-range", "range", "x"]),
        (True, False, ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "x"]),
        (False, False, ["x"]),
    ],
)  # fmt: skip
def test_conditions_and_ranges_stay_when_told(*, conditionals: bool, ranges: bool, left: list[str]) -> None:
    headers = fields(
        [(n, "1") for n in ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
                            "If-Range", "Range", "X")]
    )  # fmt: skip
    assert names(forwardable_request(headers, conditionals=conditionals, ranges=ranges)) == left


def test_an_answers_length_describes_it_but_is_not_stored() -> None:
    headers = fields({"Content-Length": "3", "Age": "5", "ETag": '"a"'})
    assert names(forwardable_answer(headers)) == ["content-length", "age", "etag"]
    assert names(storable_headers(headers)) == ["etag"]


def test_set_cookie_is_stored_only_when_told() -> None:
    headers = fields([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X", "1")])
    assert names(storable_headers(headers)) == ["x"]
    assert storable_headers(headers, set_cookie=True) == headers


@pytest.mark.parametrize("directive", ["no-cache", "private"])
def test_fields_named_by_a_qualified_directive_are_not_stored(directive: str) -> None:
    headers = fields(
        [("Cache-Control", f'{directive}="A, set-cookie"'), ("a", "1"), ("b", "2"), ("Set-Cookie", "c=d"),
         ("Cache-Control", "max-age=5")]
    )  # fmt: skip
    assert names(storable_headers(headers, set_cookie=True)) == ["cache-control", "b"]
    assert names(withheld_headers(headers)) == ["a", "set-cookie"]


def test_only_what_is_named_is_withheld_and_never_framing() -> None:
    assert withheld_headers(fields({"Cache-Control": "max-age=5", "Set-Cookie": "a=b"})) == Headers()
    named = fields(
        {"Cache-Control": 'no-cache="age, connection, content-length"', "Age": "1", "Content-Length": "2"}
    )
    assert withheld_headers(named) == Headers()


def test_a_304_replaces_every_line_of_what_it_carries() -> None:
    stored = fields([("X", "1"), ("x", "2"), ("Cache-Control", "max-age=1"), ("Y", "kept"), ("ETag", '"a"')])
    update = fields([("x", "3"), ("X", "4"), ("Cache-Control", "max-age=9"), ("ETag", 'W/"a"')])
    merged = merge_304(stored, update)
    assert merged.get_all("x") == ("3", "4")
    assert merged.get("cache-control") == "max-age=9"
    assert merged.get("y") == "kept"
    assert merged.get("etag") == '"a"'


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "Content-Encoding",
        "Content-Range",
        "Transfer-Encoding",
        "Content-MD5",
        "Content-Digest",
    ],
)
def test_a_304_does_not_describe_the_body_anew(name: str) -> None:
    assert merge_304(fields({name: "old"}), fields({name: "new"})).get(name.lower()) == "old"


def test_a_304_brings_an_etag_to_what_has_none_and_its_own_age() -> None:
    merged = merge_304(fields({"Age": "99", "X": "1"}), fields({"ETag": '"n"', "Age": "3"}))
    assert merged.get("etag") == '"n"'
    assert merged.get("age") == "3"
    assert "age" not in merge_304(fields({"Age": "99"}), fields({"X": "2"}))


@pytest.mark.parametrize("given", [{}, {"Date": "junk"}])
def test_a_date_is_added_where_there_is_none(given: dict[str, str]) -> None:
    assert dated(fields(given), NOW).get("date") == date()


def test_a_date_stays_as_the_origin_wrote_it() -> None:
    headers = fields([("Date", date(-50)), ("X", "1")])
    assert dated(headers, NOW) is headers


def test_the_table_is_in_lower_case_and_drops_nothing_it_keeps() -> None:
    assert all(name == name.lower() for name in TABLE)
    assert not [n for n, row in TABLE.items() if row.update and not row.answer]


def test_what_connection_names_selects_nothing() -> None:
    headers = fields([
        ("Connection", "close, Origin, upgrade, Cookie, Absent"),
        ("Origin", "x"), ("Upgrade", "h2c"), ("Cookie", "a=1"), ("X-Other", "1"),
    ])  # fmt: skip
    assert names(end_to_end(headers)) == ["connection", "upgrade", "cookie", "x-other"]
    plain = fields({"Connection": "keep-alive", "Origin": "x"})
    assert end_to_end(plain) is plain
