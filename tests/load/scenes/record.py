"""What became of the requests that were due in one second of a phase, as the sender tells it.

Rules of this file:

- A request belongs to the second in which it was due, however late its answer.
- Every request has exactly one outcome; times are of all of them, in microseconds from when they were due
  until they were answered or given up: what fails is not left out of the percentiles.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tests.load.scenes.plan import Scene  # noqa: TC001 - msgspec reads it

DEADLINE = 10.0
"""Seconds after which an answer is of no use."""
PATIENCE = 3.0
"""Seconds within which a request has to have a connection."""


class Outcome(StrEnum):
    RIGHT = "right"
    """The whole answer, and the one that belongs to its URL."""
    ORIGIN = "origin's 5xx"
    """An error that the origin sent and the edge passed on."""
    EDGE = "edge's 5xx"
    """An error that the edge made."""
    WRONG = "wrong"
    """Another body or status than the URL has."""
    BROKEN = "broken"
    """The connection ended, or what came is not HTTP."""
    TIMEOUT = "timeout"
    """No whole answer within DEADLINE."""
    UNCONNECTED = "unconnected"
    """Within PATIENCE there was no connection to send it on."""


SUCCESS = frozenset({Outcome.RIGHT, Outcome.ORIGIN})


class Job(msgspec.Struct, frozen=True):
    """A scene for the sender. ``run`` is in every URL, so that none was asked for in an earlier run;
    ``paths`` are asked for in place of ours, and then bodies are not compared; ``addresses`` of this machine
    are used to send from."""

    scene: Scene
    host: str
    port: int
    authority: str
    run: str
    tls: bool = False
    paths: list[str] | None = None
    addresses: int = 1


class Second(msgspec.Struct):
    """``phase`` by its number, ``second`` in it."""

    phase: int
    second: int
    asked: int = 0
    times: list[int] = []
    outcomes: dict[Outcome, int] = {}
    statuses: dict[int, int] = {}
    words: dict[str, int] = {}
    """X-Cache-Status, or what Cache-Status comes to."""
    octets: int = 0
    """Of bodies."""
    connections: int | None = None
    """The fewest that were open."""
    lag: int = 0
    """Microseconds that the sender itself was late by, at most."""

    @property
    def complete(self) -> bool:
        """Each request that was due has its outcome."""
        return len(self.times) == self.asked

    def add(self, outcome: Outcome, micros: int) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.times.append(micros)

    def answered(self, status: int, word: str, octets: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.words[word] = self.words.get(word, 0) + 1
        self.octets += octets

    def held(self, connections: int) -> None:
        self.connections = min(connections, self.connections if self.connections is not None else connections)


class Begun(msgspec.Struct, tag="begun"):
    """A phase has begun."""

    phase: int


class Told(msgspec.Struct, tag="told"):
    second: Second


class Ended(msgspec.Struct, tag="ended"):
    """The scene is over. ``unfilled``: URLs that could not be fetched before it."""

    unfilled: int = 0


Line = Begun | Told | Ended
"""What the sender prints, one in a line."""
