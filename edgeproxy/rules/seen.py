"""What the access log tells of one request: a plain value, without the fields of request and answer."""

from __future__ import annotations

from typing import NamedTuple


class Seen(NamedTuple):
    """``time``: when the request came, in seconds since 1970; ``size``: body octets sent to the client. The
    rest as observe/trace.py has it; ``rule``, ``word``, ``reason`` and ``tier`` "" where they are missing."""

    time: float
    method: str
    host: str
    target: str
    status: int
    size: int
    rule: str
    word: str
    reason: str
    tier: str
    age: float
    ttl: float | None
    origin_seconds: float
    collapsed: bool
    stored: bool
