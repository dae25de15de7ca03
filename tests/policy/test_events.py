from __future__ import annotations

import pytest

from edgeproxy.policy.events import streams_events, wants_events
from edgeproxy.policy.head import Headers


@pytest.mark.parametrize(
    ("kind", "streams"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/event-stream-not", False),
        ("application/json", False),
        (None, False),
    ],
)
def test_what_streams_events(kind: str | None, streams: bool) -> None:
    assert streams_events(Headers.of(() if kind is None else (("Content-Type", kind),))) is streams


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("text/event-stream", True),
        (" Text/Event-Stream ", True),
        ("text/event-stream, */*", False),
        ("*/*", False),
        (None, False),
    ],
)
def test_who_wants_events(accept: str | None, wants: bool) -> None:
    """Only who wants nothing else: to others a plain answer may come, which is worth waiting for."""
    assert wants_events(Headers.of(() if accept is None else (("Accept", accept),))) is wants
