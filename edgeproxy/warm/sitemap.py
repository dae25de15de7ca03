"""Sitemaps (sitemaps.org, 0.9): which URLs and further sitemaps they name.

Rules of this file:

- Whoever wrote it is not trusted. A document type declaration is refused, and with it every entity, so
  nothing can expand or be fetched; size (as sent and unpacked), depth, number and length are bounded.
- Only ``loc`` in ``url`` and in ``sitemap`` is read, whatever the namespace is called; everything else is
  passed over.
- Gzip is known by its first octets, whatever the name or type says.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

LARGEST = 16 * 1024 * 1024
"""Octets, unpacked too."""
MOST = 50_000
"""URLs of one sitemap (as the protocol says)."""
DEEPEST = 12
LONGEST = 2048


class SitemapError(ValueError):
    """One line: what is wrong with it."""


@dataclass(slots=True)
class Sitemap:
    """As written: nothing is said about whose they are."""

    urls: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def read_sitemap(octets: bytes) -> Sitemap:
    """Raises SitemapError. Takes a while for large ones: not on the loop."""
    return _Reader().read(_unpacked(octets))


def _unpacked(octets: bytes) -> bytes:
    if len(octets) > LARGEST:
        raise SitemapError(f"larger than {LARGEST // 1024**2} MiB")
    if not octets.startswith(b"\x1f\x8b"):
        return octets
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(octets, LARGEST + 1)
    except zlib.error as error:
        raise SitemapError(f"not gzip: {error}") from None
    if len(plain) > LARGEST:
        raise SitemapError(f"larger than {LARGEST // 1024**2} MiB when unpacked")
    if not unpack.eof:
        raise SitemapError("cut off")
    return plain


class _Reader:
    def __init__(self) -> None:
        self._found = Sitemap()
        self._path: list[str] = []
        self._text: list[str] | None = None
        self._length = 0

    def read(self, octets: bytes) -> Sitemap:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        try:
            parser.Parse(octets, True)  # noqa: FBT003
        except (expat.ExpatError, LookupError, ValueError) as error:
            if isinstance(error, SitemapError):
                raise
            raise SitemapError(f"not XML: {error}") from None
        return self._found

    @staticmethod
    def _refuse(*_: object) -> None:
        raise SitemapError("it has a document type declaration")

    def _start(self, name: str, _: object) -> None:
        self._path.append(name.rpartition(" ")[2])
        if len(self._path) > DEEPEST:
            raise SitemapError(f"nested more than {DEEPEST} deep")
        if len(self._path) == 1 and self._path[0] not in ("urlset", "sitemapindex"):
            raise SitemapError(f"no sitemap: {self._path[0][:40]!r}, not urlset or sitemapindex")
        if self._path[1:] in (["url", "loc"], ["sitemap", "loc"]):
            self._text, self._length = [], 0

    def _data(self, text: str) -> None:
        if self._text is not None:
            self._length += len(text)
            if self._length <= 2 * LONGEST:
                self._text.append(text)

    def _end(self, _: str) -> None:
        if self._text is not None and self._path[-1] == "loc":
            url = "".join(self._text).strip()
            self._text = None
            found = self._found.urls if self._path[1] == "url" else self._found.sitemaps
            if len(self._found.urls) + len(self._found.sitemaps) >= MOST:
                raise SitemapError(f"more than {MOST} URLs")
            if url and len(url) <= LONGEST:
                found.append(url)
        self._path.pop()
