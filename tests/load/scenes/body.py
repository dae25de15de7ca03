"""What the origin of the scenes says under which path, so that every answer can be checked against its URL.

Rules of this file: a body follows from its path alone; two paths never have the same.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

SMALLEST = 500
SPREAD = 8_000
"""Octets: bodies have from SMALLEST to SMALLEST + SPREAD."""


@lru_cache(maxsize=8192)
def body_of(path: str) -> bytes:
    digest = sha256(path.encode()).hexdigest()
    length = SMALLEST + int(digest[:8], 16) % SPREAD
    line = f"{digest}\n".encode()
    return (line * (length // len(line) + 1))[:length]


def etag_of(path: str) -> str:
    return f'"{sha256(path.encode()).hexdigest()[:16]}"'
