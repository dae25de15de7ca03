"""Who is next: the balancers alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.origin import balance
from edgeproxy.origin.canary import Canary
from edgeproxy.origin.window import Window
from edgeproxy.rules.pools import Canary as CanaryPolicy
from edgeproxy.rules.pools import OriginSpec

AT = 1_700_000_000.0


@dataclass(eq=False)
class Fake:
    """A candidate."""

    name: str
    weight: int = 1
    in_flight: int = 0
    latency: float = 0.0
    turn: int = 0


def chance() -> float:
    return 0.5


def test_round_robin_is_smooth() -> None:
    members = [Fake("a", 4), Fake("b", 2), Fake("c", 1)]
    assert "".join(balance.round_robin(members, "", chance).name for _ in range(14)) == "abacaba" * 2


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_round_robin_is_just(weights: list[int]) -> None:
    members = [Fake(str(i), weight) for i, weight in enumerate(weights)]
    counted = Counter(balance.round_robin(members, "", chance).name for _ in range(3 * sum(weights)))
    assert [counted[m.name] for m in members] == [3 * weight for weight in weights]


def test_least_outstanding_by_weight_and_in_turn_among_equals() -> None:
    members = [Fake("a", 1, 2), Fake("b", 3, 5), Fake("c", 1, 3)]
    assert balance.least_outstanding(members, "", chance).name == "b"
    idle = [Fake("a"), Fake("b"), Fake("c")]
    assert sorted(balance.least_outstanding(idle, "", chance).name for _ in range(6)) == list("aabbcc")


def test_of_two_at_random_the_faster() -> None:
    rng = random.Random(7)
    members = [Fake("fast", latency=0.01), Fake("slow", latency=0.1), Fake("slower", latency=0.2)]
    counted = Counter(balance.latency(members, "", rng.random).name for _ in range(3000))
    assert counted["slower"] == 0
    assert counted["fast"] > 1.8 * counted["slow"]
    members[0].in_flight = 50  # fast, but everybody is there
    assert Counter(balance.latency(members, "", rng.random).name for _ in range(300))["fast"] == 0


def test_a_key_stays_and_only_the_keys_of_one_that_leaves_move() -> None:
    members = [Fake(f"http://10.0.0.{i}") for i in range(5)]
    keys = [f"GET http://a/{i}" for i in range(2000)]
    before = {key: balance.by_key(members, key, chance).name for key in keys}
    after = {key: balance.by_key(members[:-1], key, chance).name for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != members[-1].name)
    assert min(Counter(before.values()).values()) > 300
    assert min(Counter(after.values()).values()) > 350


def test_a_key_goes_by_weight() -> None:
    members = [Fake("a", 3), Fake("b", 1)]
    counted = Counter(balance.by_key(members, str(i), chance).name for i in range(4000))
    assert counted["a"] == pytest.approx(3000, abs=150)


def judged(mine: tuple[int, int, float], stable: tuple[int, int, float]) -> str:
    """``(answered, failed, latency)`` of each side."""
    canary = Canary(CanaryPolicy((OriginSpec("http://c"),)), "api")
    sides = []
    for answered, failed, latency in (mine, stable):
        window = Window()
        window.add(AT, answered=answered, failed=failed)
        sides.append([(window, latency)])
    assert canary.judge(sides[0], sides[1], AT) is bool(canary.ended)
    return canary.ended


@pytest.mark.parametrize(
    ("mine", "stable", "ends"),
    [
        ((100, 0, 0.01), (1000, 0, 0.01), False),
        ((90, 10, 0.01), (1000, 0, 0.01), True),
        ((90, 10, 0.01), (900, 100, 0.01), False),
        ((9, 10, 0.01), (1000, 0, 0.01), False),
        ((100, 0, 0.05), (1000, 0, 0.01), True),
        ((100, 0, 0.003), (1000, 0, 0.001), False),
        ((100, 0, 0.05), (0, 0, 0.0), False),
    ],
)
def test_the_canary_is_ended_when_it_is_worse(
    mine: tuple[int, int, float], stable: tuple[int, int, float], ends: bool
) -> None:
    assert bool(judged(mine, stable)) is ends


def test_a_key_is_always_on_the_same_side() -> None:
    canary = Canary(CanaryPolicy((OriginSpec("http://c"),), percent=5.0), "api")
    keys = [f"GET http://a/{i}" for i in range(10_000)]
    mine = {key for key in keys if canary.takes(key)}
    assert len(mine) == pytest.approx(500, abs=80)
    assert mine == {key for key in keys if canary.takes(key)}
    wider = Canary(CanaryPolicy((OriginSpec("http://c"),), percent=10.0), "api")
    assert all(wider.takes(key) for key in mine), "more of them: those that were there stay"
    canary.ended = "worse"
    assert not any(canary.takes(key) for key in keys)
