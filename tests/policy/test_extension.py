"""The guard against cache deception: extensions as the loosest server reads them, and the types they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.extension import TYPES, contradicts, extension


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("/account.css", "css"), ("/account/x.css", "css"), ("/account;x.css", "css"),
        ("/account%2Fx.css", "css"),
        ("/account%252fx.css", "css"), ("/account%3Bx.css", "css"), ("/account/x.CSS", "css"),
        ("/x.css.", "css"),
        ("/x.css%20", "css"), ("/x.css..", "css"), ("/x.css;jsessionid=1.a", "css"), ("/x.css./;a", ""),
        ("/account%00.css", "css"), ("/account%23.css", "css"), ("/account%3f.css", "css"),
        ("/a%5cx.css", "css"),
        ("/x.css/", "css"), ("/x.css;/", "css"), ("/x.min.js", "js"), ("/.css", "css"), ("/css", ""),
        ("/", ""),
        ("", ""), ("/a", ""), ("/a.css/b", ""), ("/a.css/b.html", ""), ("/a.unknown", ""), ("/a.", ""),
        ("/a.json", ""), ("/x.c%73s", "css"), ("/x%2ecss", "css"), ("/x.css;.html", "css"),
        ("/x.html;.css", "css"),
    ],
)  # fmt: skip
def test_extensions(path: str, ending: str) -> None:
    assert extension(path) == ending


@pytest.mark.parametrize(
    ("path", "kind", "verdict"),
    [
        ("/a.css", "text/css", False), ("/a.css", "Text/CSS; charset=utf-8", False),
        ("/a.css", "text/html", True),
        ("/a.css", "application/json", True), ("/a.css", None, True), ("/a.css", "", True),
        ("/a.css", "application/octet-stream", False), ("/a.css", "text/css, text/html", True),
        ("/a.js", "text/javascript", False), ("/a.js", "application/x-javascript", False),
        ("/a.js", "text/html;x=javascript", True), ("/a.png", "image/webp", False),
        ("/a.png", "text/html", True),
        ("/a.svg", "image/svg+xml", False), ("/a.svg", "image/png", True), ("/a.woff2", "font/woff2", False),
        ("/a.woff2", "application/font-woff2", False), ("/a.woff2", "application/x-font-woff", False),
        ("/a.pdf", "application/pdf", False), ("/a.pdf", "text/html", True), ("/a.mp4", "video/mp4", False),
        ("/a.zip", "application/x-zip-compressed", False), ("/a.gz", "application/gzip", False),
        ("/a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", False),
        ("/a.doc", "application/vnd.api+json", True), ("/a.js.map", "application/json", False),
        ("/a.ico", "image/vnd.microsoft.icon", False),
        ("/a", "text/html", False), ("/a.html", "text/css", False), ("/a", None, False),
    ],
)  # fmt: skip
def test_types(path: str, kind: str | None, verdict: bool) -> None:
    assert contradicts(path, kind) is verdict


def test_no_extension_stands_for_pages_or_data_of_anybody() -> None:
    for ending in TYPES:
        assert contradicts(f"/a.{ending}", "text/html"), ending
        assert contradicts(f"/a.{ending}", "application/json") is (ending != "map"), ending


@given(st.text("/.;%25cs2fF\\ a", max_size=20))
def test_any_path_has_at_most_one(path: str) -> None:
    assert extension(path) in {"", *TYPES}
