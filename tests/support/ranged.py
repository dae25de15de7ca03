"""An honest origin for ranges: what RFC 9110 §14 has a server do, on top of the ledger.

Rules of this file: ``Resource`` answers one path from ``body`` and ``etag`` as they are when a request comes,
evaluates If-None-Match, Range and If-Range (§13.2.2), and can be told to misbehave in one way at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.ledger import Gate, chunk, head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.ledger import LedgerOrigin, Recorded, Step


@dataclass
class Resource:
    """``etag`` "" for none. ``chunked``: no Content-Length. ``gates``: Range -> the gate before the body.
    ``ignores_if_range``: as broken servers do. ``says``: Range -> the Content-Range sent with it."""

    body: bytes
    etag: str = '"a"'
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("Cache-Control", "max-age=60")])
    chunked: bool = False
    gates: dict[str, str] = field(default_factory=dict)
    held: bool = False
    """The gates are before the head, not after it."""
    ignores_if_range: bool = False
    says: dict[str, str] = field(default_factory=dict)

    def serve(self, origin: LedgerOrigin, path: str) -> Resource:
        origin.script(path, self.answer)
        return self

    def answer(self, asked: Recorded) -> Sequence[Step]:
        fields = [*self.headers, *([("ETag", self.etag)] if self.etag else [])]
        if self.etag and asked.get("if-none-match") == self.etag:
            return [head(304, fields)]
        value = asked.get("range") or ""
        gate = [Gate(self.gates[value])] if value in self.gates else []
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", value)
        condition = asked.get("if-range")
        if found is None or (condition not in (None, self.etag) and not self.ignores_if_range):
            return [*self._framed(200, fields, self.body, gate)]
        total = len(self.body)
        if found[1]:
            start, stop = int(found[1]), min(total, int(found[2]) + 1) if found[2] else total
        else:
            start, stop = max(0, total - int(found[2])), total
        if start >= stop:
            return [head(416, [("Content-Range", f"bytes */{total}"), ("Content-Length", "0")])]
        fields.append(("Content-Range", self.says.get(value, f"bytes {start}-{stop - 1}/{total}")))
        return [*self._framed(206, fields, self.body[start:stop], gate)]

    def _framed(
        self, status: int, fields: list[tuple[str, str]], content: bytes, gate: list[Gate]
    ) -> Sequence[Step]:
        if self.chunked:
            pieces = [chunk(content), chunk(b"")] if content else [chunk(b"")]
            return [head(status, [*fields, ("Transfer-Encoding", "chunked")]), *gate, *pieces]
        octets = head(status, [*fields, ("Content-Length", str(len(content)))])
        return [*gate, octets, content] if self.held else [octets, *gate, content]
