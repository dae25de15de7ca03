"""Heads of requests have to be here in time: from the connection's beginning, or from a head's first octet.

Rules of this file:

- aiohttp waits for the rest of a head as long as the connection lives; here it has ``seconds``.
- All have the same time, so whoever began first is due first: one timer, for the first. A request whose head
  comes in one piece costs nothing here; its connection is looked at once, when its first head was due.
- A connection between two requests is not waiting for a head: it is idle, and the keep-alive timeout's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.clock import Clock, Timer


class Waiting(Protocol):
    @property
    def head_is_missing(self) -> bool: ...

    def head_is_late(self) -> None:
        """End the connection."""


class Heads:
    """Per worker."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._due: dict[Waiting, float] = {}
        self._timer: Timer | None = None
        self.timeouts = 0
        self.too_large = 0
        """Ended before they were whole (server.py)."""

    def __len__(self) -> int:
        return len(self._due)

    def numbers(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"head_timeouts": self.timeouts, "heads_too_large": self.too_large}

    def expect(self, connection: Waiting) -> None:
        """Its head has so many seconds from now."""
        self._due.pop(connection, None)
        self._due[connection] = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._look)

    def forget(self, connection: Waiting) -> None:
        """Its head is here, or it is gone."""
        self._due.pop(connection, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        late = []
        for connection, due in self._due.items():
            if due > now:
                break
            late.append(connection)
        for connection in late:
            self._due.pop(connection, None)
            if connection.head_is_missing:
                self.timeouts += 1
                connection.head_is_late()
        if self._due and self._timer is None:
            first = next(iter(self._due.values()))
            self._timer = self._clock.call_later(first - now, self._look)
