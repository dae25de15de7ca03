from __future__ import annotations

import pytest

from edgeproxy.policy.invalidate import affected_targets, invalidates
from tests.policy.make import answer, request


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("POST", 200, True), ("PUT", 204, True), ("DELETE", 303, True), ("PATCH", 399, True),
        ("M-SEARCH", 200, True), ("post", 200, True),
        ("POST", 400, False), ("POST", 500, False), ("POST", 103, False),
        ("GET", 200, False), ("HEAD", 200, False), ("OPTIONS", 200, False), ("QUERY", 200, False),
    ],
)  # fmt: skip
def test_what_invalidates(method: str, status: int, *, expected: bool) -> None:
    assert invalidates(method, status) is expected


OWN = ("api.example", "/a/b?c=1")


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/x", "/x"),
        ("/x%2Fy?q=%20#frag", "/x%2Fy?q=%20"),
        ("x", "/a/x"),
        ("../x", "/x"),
        ("?d=2", "/a/b?d=2"),
        ("http://api.example/x", "/x"),
        ("http://API.example:80/x", "/x"),
        ("https://api.example:443/x", "/x"),
        ("//api.example", "/"),
        (" /x ", "/x"),
        ("/x?", "/x?"),
        ("/x?#frag", "/x?"),
    ],
)
@pytest.mark.parametrize("name", ["Location", "Content-Location"])
def test_same_host_references(name: str, reference: str, target: str) -> None:
    affected = affected_targets(request(method="POST", target=OWN[1]), answer(201, {name: reference}))
    assert affected == (OWN, ("api.example", target))


@pytest.mark.parametrize(
    "reference",
    [
        "http://other.example/x", "//other.example/x", "http://api.example:8080/x",
        "http://api.example@evil.example/x", "http://u@api.example/x", "mailto:a@api.example",
        "http://[junk/x", "ftp://api.example/x", "",
    ],
)  # fmt: skip
def test_other_references_are_left_alone(reference: str) -> None:
    affected = affected_targets(request(method="POST", target=OWN[1]), answer(200, {"Location": reference}))
    assert affected == (OWN,)


def test_each_target_once_and_both_fields() -> None:
    head = answer(201, {"Location": "/x", "Content-Location": "/y"})
    assert [t for _, t in affected_targets(request(method="PUT", target="/x"), head)] == ["/x", "/y"]


def test_the_port_is_part_of_the_host() -> None:
    here = request(method="POST", host="api.example:8080")
    head = answer(201, {"Location": "http://api.example:8080/x", "Content-Location": "http://api.example/y"})
    assert affected_targets(here, head) == (("api.example:8080", "/a"), ("api.example:8080", "/x"))
