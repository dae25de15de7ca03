from __future__ import annotations

import pytest

from edgeproxy.policy.coding import (
    choose_coding,
    coded_etag,
    compressible,
    content_coding,
    named_coding,
    with_plain_etags,
)
from edgeproxy.policy.stored import Compression
from tests.policy.make import fields

BOTH = ("br", "gzip")
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, ""),
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br, gzip", "br"),
        ("gzip, br", "br"),
        ("gzip;q=1.0, br;q=0.9", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0", ""),
        ("gzip;q=0, br;q=0.000", ""),
        ("*", "br"),
        ("*;q=0.5, gzip;q=0.8", "gzip"),
        ("br;q=0, *", "gzip"),
        ("*;q=0", ""),
        ("identity;q=0", ""),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=0.5, identity", ""),
        ("gzip, identity", "gzip"),
        ("br;q=0.1, gzip;q=0.1, *;q=0.5", ""),
        ("deflate, sdch", ""),
        ("bread, vbr, gzipped", ""),
        ("br;q=junk, gzip", "gzip"),
        ("br;q=0.5;x=1, gzip;q=0.4", "br"),
    ],
)
def test_negotiation(accepted: str | None, coding: str) -> None:
    assert choose_coding(accepted, BOTH) == coding


def test_ties_go_to_the_edges_order() -> None:
    assert choose_coding("br, gzip", ("gzip", "br")) == "gzip"
    assert choose_coding("br", ()) == ""


@pytest.mark.parametrize(
    ("value", "coding"),
    [(None, ""), ("identity", ""), ("gzip", "gzip"), ("X-GZIP", "gzip"), ("gzip, br", "gzip,br")],
)
def test_content_coding(value: str | None, coding: str) -> None:
    assert content_coding(fields({} if value is None else {"Content-Encoding": value})) == coding


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Text/HTML; charset=utf-8", "application/problem+json", "image/svg+xml"],
)
def test_texts_are_coded(media_type: str) -> None:
    assert compressible(200, fields({"Content-Type": media_type}), Compression(), 5000)


@pytest.mark.parametrize(
    ("status", "given", "length"),
    [
        (204, {}, None), (206, {}, None), (304, {}, None), (103, {}, None),
        (200, {}, 1023), (200, {}, 0),
        (200, {"Content-Encoding": "gzip"}, 5000),
        (200, {"Content-Range": "bytes 0-4/10"}, 5000),
        (200, {"Cache-Control": "no-transform"}, 5000),
        (200, {"CDN-Cache-Control": "no-transform"}, 5000),
        (200, {"Cache-Control": "No-Transform"}, 5000),
        (200, {"Cache-Control": "no-transform", "CDN-Cache-Control": "max-age=5"}, 5000),
        (200, {"Content-Type": "image/png"}, 5000),
        (200, {"Content-Type": "application/jsonp"}, 5000),
        (200, {"Content-Type": ""}, 5000),
    ],
)  # fmt: skip
def test_left_alone(status: int, given: dict[str, str], length: int | None) -> None:
    assert not compressible(status, fields({**JSON, **given}), Compression(), length)


@pytest.mark.parametrize("length", [None, -1, 1024])
def test_a_length_that_is_not_known_is_no_reason(length: int | None) -> None:
    given = fields({**JSON, "CDN-Cache-Control": "max-age=5"})
    assert compressible(200, given, Compression(), length)
    assert not compressible(200, given, Compression(enabled=False), length)


@pytest.mark.parametrize(
    "given",
    [{"Cache-Control": 'x="no-transform"'}, {"CDN-Cache-Control": "no-transform=?0"},
     {"CDN-Cache-Control": "no-transform, &&"}],
)  # fmt: skip
def test_no_transform_counts_only_where_it_is_a_directive(given: dict[str, str]) -> None:
    assert compressible(200, fields({**JSON, **given}), Compression(), 5000)


def test_without_a_type_nothing_is_coded() -> None:
    assert not compressible(200, fields({}), Compression(), 5000)


@pytest.mark.parametrize(
    ("etag", "coding", "result"),
    [
        ('"abc"', "br", '"abc-br"'),
        ('W/"abc"', "br", 'W/"abc-br"'),
        ('"abc"', "", '"abc"'),
        ('""', "gzip", '"-gzip"'),
        ("abc", "gzip", "abc-gzip"),
    ],
)
def test_coded_etags(etag: str, coding: str, result: str) -> None:
    assert coded_etag(etag, coding) == result


def test_an_origin_is_asked_with_its_own_etags() -> None:
    assert with_plain_etags('"a-br", W/"b-gzip", "c"', ("br", "gzip")) == (
        '"a-br", W/"b-gzip", "c", "a", W/"b"'
    )
    assert with_plain_etags('"c", *', ("br",)) == '"c", *'


def test_the_coding_whose_etag_was_named() -> None:
    assert named_coding(None, '"a-br"', ("br",)) == ""
    assert named_coding('"a"', None, ("br",)) == ""
    assert named_coding('"a"', '"a", "a-br"', ("br",)) == ""
    assert named_coding('"a"', 'W/"a-gzip"', ("br", "gzip")) == "gzip"
    assert named_coding('"a"', '"b"', ("br", "gzip")) == ""
