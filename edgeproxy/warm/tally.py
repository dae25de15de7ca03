"""What is counted of the edge's own asking: plain numbers.

Rules of this file: labels are closed enums; none of this is client traffic, so nothing of it is in hit
ratios.
"""

from __future__ import annotations

from enum import StrEnum


class Source(StrEnum):
    """Why a warm-up was begun."""

    ASKED = "asked"
    """By the admin port."""
    SCHEDULE = "schedule"
    START = "start"


class Came(StrEnum):
    """What came of one URL."""

    STORED = "stored"
    FRESH = "fresh"
    """It was there already."""
    NOT_STORABLE = "not-storable"
    FAILED = "failed"
    REFUSED = "refused"
    """It was not asked for: not a URL of this edge."""


class Ahead(StrEnum):
    """What came of refreshing an entry before its time."""

    REFRESHED = "refreshed"
    ADOPTED = "adopted"
    """Another worker or node had done it."""
    UNCACHEABLE = "uncacheable"
    FAILED = "failed"
    HELD_BACK = "held-back"
    """It was time, but the origin fails or has no room for it."""


class WarmTally:
    __slots__ = ("ahead", "running", "waited", "warmed")

    def __init__(self) -> None:
        self.warmed: dict[tuple[Source, Came], int] = {(s, c): 0 for s in Source for c in Came}
        self.ahead: dict[Ahead, int] = dict.fromkeys(Ahead, 0)
        self.running = 0
        """Warm-ups under way."""
        self.waited = 0
        """Times that a warm-up gave way to clients."""
