from __future__ import annotations

from dataclasses import replace

import pytest

from edgeproxy.policy.decisions import Form
from edgeproxy.policy.deliver import deliver
from edgeproxy.policy.stored import Compression, Overrides
from tests.policy.make import NOW, PLAIN, date, request, stored

ENTRY = stored(
    {"Cache-Control": "max-age=60", "ETag": '"a"', "Content-Type": "application/json",
     "Last-Modified": date(-3000), "Date": date()}
)  # fmt: skip


def test_the_whole_with_its_age_in_whole_seconds() -> None:
    serve = deliver(request(), ENTRY, PLAIN, NOW + 7.9)
    assert (serve.form, serve.age, serve.coding, serve.ranges) == (Form.FULL, 7, "", ())
    assert serve.stored is ENTRY


def test_the_coding_the_client_prefers() -> None:
    assert deliver(request({"Accept-Encoding": "gzip, br"}), ENTRY, PLAIN, NOW).coding == "br"
    assert deliver(request({"Accept-Encoding": "gzip"}), ENTRY, PLAIN, NOW).coding == "gzip"


@pytest.mark.parametrize(
    ("entry", "overrides"),
    [
        (ENTRY, Overrides(compression=Compression(enabled=False))),
        (replace(ENTRY, length=10), PLAIN),
        (
            stored({"Cache-Control": "max-age=60", "Content-Encoding": "gzip", "Content-Type": "text/css"}),
            PLAIN,
        ),
    ],
)
def test_no_coding_where_the_edge_makes_none(entry: object, overrides: Overrides) -> None:
    assert isinstance(entry, type(ENTRY))
    assert deliver(request({"Accept-Encoding": "br"}), entry, overrides, NOW).coding == ""


@pytest.mark.parametrize(
    ("accepted", "tag", "form"),
    [
        ("br", '"a-br"', Form.NOT_MODIFIED),
        ("br", 'W/"a-br"', Form.NOT_MODIFIED),
        ("br", '"a"', Form.FULL),
        ("gzip", '"a-br"', Form.FULL),
        ("identity", '"a"', Form.NOT_MODIFIED),
        ("br", "*", Form.NOT_MODIFIED),
    ],
)
def test_if_none_match_is_against_the_selected_coding(accepted: str, tag: str, form: Form) -> None:
    serve = deliver(request({"Accept-Encoding": accepted, "If-None-Match": tag}), ENTRY, PLAIN, NOW)
    assert serve.form is form
    assert serve.coding == ("" if accepted == "identity" else accepted)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_modified_since(method: str) -> None:
    asked = request({"If-Modified-Since": date(-3000)}, method=method)
    assert deliver(asked, ENTRY, PLAIN, NOW).form is Form.NOT_MODIFIED


def test_conditions_are_for_answers_that_are_2xx() -> None:
    gone = stored({"Cache-Control": "max-age=60", "ETag": '"a"'}, status=410)
    assert deliver(request({"If-None-Match": '"a"'}), gone, PLAIN, NOW).form is Form.FULL


def test_an_answer_without_an_etag_matches_none() -> None:
    bare = stored({"Cache-Control": "max-age=60"})
    assert deliver(request({"If-None-Match": '"a"'}), bare, PLAIN, NOW).form is Form.FULL


def test_parts_are_of_the_identity_body() -> None:
    serve = deliver(request({"Range": "bytes=0-1,-1", "Accept-Encoding": "br"}), ENTRY, PLAIN, NOW)
    assert (serve.form, serve.ranges, serve.coding) == (Form.PARTIAL, ((0, 2), (9999, 10_000)), "")


def test_no_part_of_it() -> None:
    serve = deliver(request({"Range": "bytes=10000-"}), ENTRY, PLAIN, NOW)
    assert (serve.form, serve.ranges, serve.coding) == (Form.NOT_SATISFIABLE, (), "")


@pytest.mark.parametrize(
    "asked",
    [
        request({"Range": "bytes=0-1"}, method="HEAD"),
        request({"Range": "items=0-1"}),
        request({"Range": "bytes=0-1", "If-Range": '"b"'}),
        request({"Range": "bytes=0-1", "If-Range": '"a-br"'}),
        request({"Range": "bytes=0-1", "If-Range": date(-3001)}),
    ],
)
def test_a_range_that_does_not_hold_gets_the_whole(asked: object) -> None:
    assert isinstance(asked, type(request()))
    assert deliver(asked, ENTRY, PLAIN, NOW).form is Form.FULL


@pytest.mark.parametrize("condition", ['"a"', date(-3000)])
def test_a_range_that_holds(condition: str) -> None:
    asked = request({"Range": "bytes=0-1", "If-Range": condition})
    assert deliver(asked, ENTRY, PLAIN, NOW).form is Form.PARTIAL


def test_conditions_come_before_ranges() -> None:
    asked = request({"Range": "bytes=0-1", "If-None-Match": '"a"'})
    assert deliver(asked, ENTRY, PLAIN, NOW).form is Form.NOT_MODIFIED


@pytest.mark.parametrize(
    "entry", [replace(ENTRY, length=-1), stored({"Cache-Control": "max-age=60"}, status=404)]
)
def test_parts_need_a_200_of_known_length(entry: object) -> None:
    assert isinstance(entry, type(ENTRY))
    assert deliver(request({"Range": "bytes=0-1"}), entry, PLAIN, NOW).form is Form.FULL
