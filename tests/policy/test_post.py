from __future__ import annotations

import pytest

from edgeproxy.policy.post import as_get
from tests.policy.make import Fields, answer, date, request

CC = "Cache-Control"
HERE = {CC: "max-age=60", "Content-Location": "/a"}


def test_an_answer_that_says_it_is_the_targets() -> None:
    asked = request({"Accept": "x/y", "Content-Type": "text/plain"}, method="POST", has_body=True)
    assert as_get(asked, answer(200, HERE)) == request({"Accept": "x/y"})


@pytest.mark.parametrize(
    "given",
    [
        {"Expires": date(60), "Content-Location": "http://api.example/a"},
        {"CDN-Cache-Control": "max-age=60", "Content-Location": "a"},
        {CC: "s-maxage=60", "Content-Location": "//API.example:80/a"},
    ],
)
def test_however_it_says_so(given: Fields) -> None:
    assert as_get(request(method="POST"), answer(200, given)) == request()


@pytest.mark.parametrize(
    ("method", "status", "given"),
    [
        ("PUT", 200, HERE),
        ("GET", 200, HERE),
        ("POST", 201, HERE),
        ("POST", 404, HERE),
        ("POST", 200, {CC: "max-age=60"}),
        ("POST", 200, {CC: "max-age=60", "Content-Location": "/b"}),
        ("POST", 200, {CC: "max-age=60", "Content-Location": "/a?b"}),
        ("POST", 200, {CC: "max-age=60", "Content-Location": "http://other.example/a"}),
        ("POST", 200, [(CC, "max-age=60"), ("Content-Location", "/a"), ("Content-Location", "/a")]),
        # Guessing is for GET.
        ("POST", 200, {"Last-Modified": date(-9000), "Content-Location": "/a"}),
        ("POST", 200, {CC: "public", "Content-Location": "/a"}),
    ],
)
def test_what_is_no_answer_to_get(method: str, status: int, given: Fields) -> None:
    assert as_get(request(method=method), answer(status, given)) is None
