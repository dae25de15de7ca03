"""multipart/byteranges: several parts of one body in one answer (RFC 9110 §14.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def multipart_ranges(
    kind: str | None, body: bytes, ranges: Iterable[tuple[int, int]], boundary: str
) -> tuple[str, bytes]:
    """The Content-Type and the body that carry the octets [start, stop) of each range."""
    mark = b"\r\n--edge-%b" % boundary.encode("latin-1")
    described = b"" if kind is None else b"Content-Type: %b\r\n" % kind.encode("latin-1")
    parts = [
        b"%b\r\n%bContent-Range: bytes %d-%d/%d\r\n\r\n%b"
        % (mark, described, start, stop - 1, len(body), body[start:stop])
        for start, stop in ranges
    ]
    return f'multipart/byteranges; boundary="edge-{boundary}"', b"".join([*parts, mark, b"--\r\n"])
