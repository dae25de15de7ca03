"""Who of a pool's usable origins is next.

Rules of this file:

- Pure: no clock, no socket; chance is given. ``members`` is never empty, and may be different every time.
- Weights hold for all of them: a weight of 3 is three times the share, or three times as much under way.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Candidate(Protocol):
    """What a balancer looks at. ``turn`` is round robin's own note."""

    turn: int

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def latency(self) -> float: ...


C = TypeVar("C", bound=Candidate)


def round_robin(members: Sequence[C], key: str, chance: Callable[[], float]) -> C:  # noqa: ARG001
    """Smooth and weighted: with 2, 1, 1 it is a b a c, never a a b c. Each earns its weight; the richest is
    taken and pays what all have earned."""
    best = members[0]
    total = 0
    for member in members:
        weight = member.weight
        total += weight
        member.turn += weight
        if member.turn > best.turn:
            best = member
    best.turn -= total
    return best


def least_outstanding(members: Sequence[C], key: str, chance: Callable[[], float]) -> C:
    """The fewest requests under way for its weight; among equals, in turn."""
    least = min(member.in_flight / member.weight for member in members)
    return round_robin([m for m in members if m.in_flight / m.weight == least], key, chance)


def latency(members: Sequence[C], key: str, chance: Callable[[], float]) -> C:  # noqa: ARG001
    """The better of two at random: time to the head of an answer, for what would then be under way."""
    if len(members) == 1:
        return members[0]
    first = _weighted(members, chance())
    second = _weighted([m for m in members if m is not first], chance())
    return first if _cost(first) <= _cost(second) else second


def by_key(members: Sequence[C], key: str, chance: Callable[[], float]) -> C:  # noqa: ARG001
    """Rendezvous hashing: the same key goes to the same origin, and when one leaves only its keys move."""
    octets = key.encode("utf-8", "surrogatepass")
    return max(members, key=lambda member: _score(member, octets))


BALANCERS = {
    "round_robin": round_robin,
    "least_outstanding": least_outstanding,
    "latency": latency,
    "key": by_key,
}


def part(key: str, salt: str) -> float:
    """Where a key falls between 0 and 1: always at the same place for the same salt."""
    return _fraction(key.encode("utf-8", "surrogatepass"), salt)


def _fraction(octets: bytes, salt: str) -> float:
    digest = blake2b(octets, digest_size=8, key=salt.encode("utf-8", "surrogatepass")[-64:]).digest()
    return (int.from_bytes(digest) + 0.5) / 2.0**64


def _score(member: Candidate, octets: bytes) -> float:
    return -member.weight / math.log(min(_fraction(octets, member.name), 1.0 - 2.0**-53))


def _cost(member: Candidate) -> float:
    return member.latency * (member.in_flight + 1) / member.weight


def _weighted(members: Sequence[C], at: float) -> C:
    rest = at * sum(member.weight for member in members)
    for member in members:
        rest -= member.weight
        if rest < 0:
            return member
    return members[-1]
