"""Sitemaps, good ones and hostile ones."""

from __future__ import annotations

import gzip
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.warm import sitemap
from edgeproxy.warm.sitemap import SitemapError, read_sitemap

NS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
URLS = f"""<?xml version="1.0" encoding="UTF-8"?>
<urlset {NS} xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
  <url><loc> http://h/a?x=1&amp;y=2 </loc><lastmod>2024-01-01</lastmod>
    <image:image><image:loc>http://h/i.png</image:loc></image:image></url>
  <url><loc><![CDATA[http://h/b]]></loc></url><url><loc></loc></url>
</urlset>""".encode()
INDEX = f"<sitemapindex {NS}><sitemap><loc>http://h/1.xml.gz</loc></sitemap></sitemapindex>".encode()


@pytest.mark.parametrize("octets", [URLS, gzip.compress(URLS)], ids=["plain", "gzip"])
def test_urls(octets: bytes) -> None:
    found = read_sitemap(octets)
    assert found.urls == ["http://h/a?x=1&y=2", "http://h/b"]
    assert found.sitemaps == []


def test_an_index() -> None:
    assert read_sitemap(INDEX).sitemaps == ["http://h/1.xml.gz"]


BOMB = b"""<!DOCTYPE u [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<urlset><url><loc>&b;</loc></url></urlset>"""
OUTSIDE = b'<!DOCTYPE u [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset><url><loc>&a;</loc></url></urlset>'


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        (b'<!DOCTYPE html SYSTEM "http://x/y.dtd"><urlset/>', "document type"),
        (b"<urlset><url><loc>&undefined;</loc></url></urlset>", "not XML"),
        (b"<html><body/></html>", "no sitemap"),
        (b"<urlset>" + b"<a>" * 20, "deep"),
        (b"<urlset><url><loc>http://h/", "not XML"),
        (b"", "not XML"),
        (b"\x1f\x8bnonsense", "gzip"),
        (gzip.compress(URLS)[:-20], "cut off"),
        (b'<?xml version="1.0" encoding="x-none"?><urlset/>', "not XML"),
    ],
)
def test_what_is_refused(octets: bytes, says: str) -> None:
    with pytest.raises(SitemapError, match=says):
        read_sitemap(octets)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemap, "LARGEST", 100_000)
    with pytest.raises(SitemapError, match="larger"):
        read_sitemap(b" " * 100_001)
    with pytest.raises(SitemapError, match="unpacked"):
        read_sitemap(gzip.compress(b" " * 1_000_000))
    monkeypatch.setattr(sitemap, "MOST", 10)
    with pytest.raises(SitemapError, match="more than 10"):
        read_sitemap(b"<urlset>" + b"<url><loc>http://h/</loc></url>" * 11 + b"</urlset>")


def test_what_is_too_long_is_left_out() -> None:
    long = b"<urlset><url><loc>http://h/" + b"a" * 1_000_000 + b"</loc></url></urlset>"
    assert read_sitemap(long).urls == []


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(octets: bytes) -> None:
    with suppress(SitemapError):
        assert read_sitemap(octets).urls == []
