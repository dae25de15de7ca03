"""What a rule file says of origins: pools as frozen values, nothing that opens a connection.

Rules of this file:

- Every field has the default that is right for a sidecar with one origin.
- What two specs have in common decides what survives a reload: an origin whose ``Link`` is unchanged keeps
  its connections, its state and its counters (origin/pools.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = "default"
"""The pool of rules that name none; its origins are those of ``--origin`` unless the files give others."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``tls`` None: the handshake is part of ``connect``. ``whole`` None: no limit."""

    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    between_bytes: float | None = None
    whole: float | None = None

    def over(self, below: Timeouts) -> Timeouts:
        """These, and ``below`` for what is left out."""
        return Timeouts(
            *(
                getattr(below, name) if getattr(self, name) is None else getattr(self, name)
                for name in ("connect", "tls", "first_byte", "between_bytes", "whole")
            )
        )


AGE = 60.0
"""Seconds: what operators and resolvers take a change of address to need."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For each origin, in each worker: requests at once, requests that wait, and seconds they wait. ``age``:
    seconds that a connection is used again; None: AGE where the origin is given by name, else no limit."""

    concurrent: int | None = None
    queue: int = 1024
    wait: float = 3.0
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """Files are PEM. ``server_name``: the name in SNI and certificate, the URL's host unless given."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """Asked in the background: GET ``path`` every ``interval`` seconds; ``down`` failures in a row make an
    origin unhealthy, ``up`` good answers (below 400, within ``timeout``) make it healthy again."""

    path: str
    interval: float = 5.0
    timeout: float = 2.0
    up: int = 2
    down: int = 3
    host: str | None = None
    """The Host it is asked with; the origin's own unless given."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """When one origin of several is left out: after ``failures`` in a row, or when it is ``slow`` times as
    slow as the others; for ``base`` seconds the first time, twice that the second ... ``longest`` at most.
    ``percent``: of a pool at most so many are out."""

    enabled: bool = True
    failures: int = 5
    slow: float = 5.0
    base: float = 1.0
    longest: float = 60.0
    percent: float = 50.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """When an origin is asked no more for a while: after ``connects`` failures to connect in a row, or when
    of at least ``requests`` in 10 s the share ``ratio`` failed; for ``base`` seconds, doubled each time,
    ``longest`` at most."""

    enabled: bool = True
    connects: int = 5
    requests: int = 50
    ratio: float = 0.5
    base: float = 1.0
    longest: float = 60.0


@dataclass(frozen=True, slots=True)
class Retries:
    """``on``: kinds of failure (connect, reset, timeout, 5xx). ``backoff``: seconds, the most before the
    first repeat at the same origin, doubled for each further one, ``longest`` at most."""

    attempts: int = 1
    on: frozenset[str] = frozenset({"connect"})
    backoff: float = 0.025
    longest: float = 1.0
    budget: float = 20.0
    """Per cent of an origin's requests that all its extra work may come to."""
    least: int = 3
    """And so many besides."""


@dataclass(frozen=True, slots=True)
class Link:
    """One origin, and all that its connections depend on."""

    url: str
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True)
class OriginSpec:
    url: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Canary:
    """``percent`` of the keys go to ``origins``, until these fail or are slow beside the stable ones."""

    origins: tuple[OriginSpec, ...]
    percent: float = 5.0
    errors: float = 5.0
    """Per cent of answers that may fail more often than the stable pool's do."""
    slow: float = 2.0
    """Times the stable pool's time to the head of an answer."""
    requests: int = 20
    """Fewer than so many answers in 10 s say nothing."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """``origins`` () only in the pool "default": those of ``--origin``. ``at``: file:line."""

    name: str = DEFAULT
    at: str = "--origin"
    origins: tuple[OriginSpec, ...] = ()
    balance: str = "round_robin"
    fallback: str | None = None
    health: Health | None = None
    ejection: Ejection = Ejection()
    breaker: Breaker = Breaker()
    retries: Retries = Retries()
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = Limits()
    canary: Canary | None = None
    tls: Tls = Tls()

    def link(self, origin: OriginSpec) -> Link:
        return Link(origin.url, self.timeouts, self.limits, self.tls)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says: beneath every pool of the files."""

    origins: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    concurrent: int = 256

    def completed(self, pools: tuple[PoolSpec, ...]) -> tuple[PoolSpec, ...]:
        """All pools, "default" among them, with nothing left open."""
        by_name = {pool.name: pool for pool in pools}
        by_name.setdefault(DEFAULT, PoolSpec())
        return tuple(
            replace(
                pool,
                origins=pool.origins or tuple(OriginSpec(url) for url in self.origins),
                timeouts=pool.timeouts.over(self.timeouts),
                limits=replace(pool.limits, concurrent=pool.limits.concurrent or self.concurrent),
            )
            for pool in by_name.values()
        )
