"""Percentiles against exact ones, windows against the clock, memory against its bound."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from edgeproxy.observe.percentiles import HOURS, WINDOWS, Percentiles
from edgeproxy.observe.tally import MAX_RULES
from edgeproxy.observe.times import BUCKETS, PERCENTILES

NOON = 1_699_963_200.0  # 2023-11-14T12:00:00Z


class Hand:
    """A clock's now(), moved by hand."""

    def __init__(self, now: float = NOON) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def percentiles(hand: Hand) -> Percentiles:
    return Percentiles(hand.now)


def told(percentiles: Percentiles, rule: str | None = None) -> dict[str, Any]:
    report: dict[str, Any] = percentiles.report()
    found: dict[str, Any] = report["all"] if rule is None else report["rules"][rule]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_at_most_five_percent_off(percentiles: Percentiles, seed: int) -> None:
    chance = random.Random(seed)
    times = [min(200.0, max(1e-5, chance.lognormvariate(-5, 2.5))) for _ in range(5000)]
    for seconds in times:
        percentiles.observe("r", seconds, hit=False)
    times.sort()
    for percent in PERCENTILES:
        exact = times[math.ceil(len(times) * percent / 100) - 1]
        assert told(percentiles, "r")["1m"][f"p{percent}"] == pytest.approx(exact, rel=0.05)
    assert told(percentiles, "r")["1m"]["mean"] == pytest.approx(sum(times) / len(times), rel=1e-3)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e-5, 300.0, 1e9])
def test_times_beyond_the_ends_are_told_as_the_ends(percentiles: Percentiles, seconds: float) -> None:
    percentiles.observe("r", seconds, hit=True)
    expected = 1e-5 if seconds < 1 else 300.0
    assert told(percentiles)["1m"]["p50"] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("later", "windows"),
    [
        (0, {"1m", "5m", "1h"}),
        (59, {"1m", "5m", "1h"}),
        (66, {"5m", "1h"}),
        (299, {"5m", "1h"}),
        (331, {"1h"}),
        (3599, {"1h"}),
        (3901, set()),
    ],
)
def test_a_window_holds_what_it_says(
    percentiles: Percentiles, hand: Hand, later: float, windows: set[str]
) -> None:
    percentiles.observe("r", 0.1, hit=True)
    hand.time += later
    report = told(percentiles)
    assert {name for name, _, _ in WINDOWS if report[name]["requests"]} == windows
    for name in {"1m", "5m", "1h"} - windows:
        assert report[name] == {
            "requests": 0,
            "hits": 0,
            "mean": None,
            "p50": None,
            "p75": None,
            "p90": None,
            "p95": None,
            "p99": None,
        }
    assert report["hours"][0]["requests"] == 1


def test_an_old_time_does_not_come_back_when_its_place_is_used_again(
    percentiles: Percentiles, hand: Hand
) -> None:
    for step in range(0, 4 * 3600, 65):  # each minute slot is met again and again
        hand.time = NOON + step
        percentiles.observe("r", 0.1, hit=False)
        assert told(percentiles)["1m"]["requests"] == 1


def test_hours_are_sums_of_the_clocks_hours_and_the_last_24_remain(
    percentiles: Percentiles, hand: Hand
) -> None:
    for hour in range(30):
        for minute in range(0, 60, 10):
            hand.time = NOON + hour * 3600 + minute * 60
            percentiles.observe("r", 0.01 * (hour + 1), hit=minute == 0)
    hours = told(percentiles, "r")["hours"]
    assert len(hours) == HOURS
    assert hours[-1]["hour"] == "2023-11-15T17:00:00Z"
    assert hours[0]["hour"] == "2023-11-14T18:00:00Z"
    assert all(hour["requests"] == 6 and hour["hits"] == 1 for hour in hours)
    assert hours[-1]["p50"] == pytest.approx(0.3, rel=0.05)


def test_all_is_the_sum_of_the_rules(percentiles: Percentiles) -> None:
    percentiles.observe("a", 0.1, hit=True)
    percentiles.observe_many("b", 0.2, 9, 9)
    assert told(percentiles)["1m"]["requests"] == 10
    assert told(percentiles)["1m"]["hits"] == 10
    assert told(percentiles, "b")["5m"]["requests"] == 9
    assert told(percentiles)["1m"]["p50"] == pytest.approx(0.2, rel=0.05)


def test_a_machine_that_slept_forgets_what_is_old(percentiles: Percentiles, hand: Hand) -> None:
    percentiles.observe("r", 0.1, hit=True)
    hand.time += 7 * 86400
    percentiles.observe("r", 0.2, hit=True)
    assert told(percentiles)["1h"]["requests"] == 1
    assert len(told(percentiles)["hours"]) == 1


def test_memory_is_bounded(percentiles: Percentiles, hand: Hand) -> None:
    for number in range(MAX_RULES * 2):
        percentiles.observe(f"r{number}", 0.1, hit=False)
    assert len(percentiles._rules) == MAX_RULES + 1
    assert told(percentiles, "other")["1m"]["requests"] == MAX_RULES
    for step in range(0, 3 * 86400, 30):
        hand.time = NOON + step
        percentiles.observe("r0", 0.1, hit=False)
    rings = [*percentiles._rules["r0"].windows, percentiles._rules["r0"].hours]
    slots = sum(len(ring.slots) for ring in rings)
    assert slots <= sum(size for _, _, size in WINDOWS) + HOURS
    assert slots * BUCKETS * 4 < 50_000


def through_json(dump: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(dump))
    return told


def test_what_several_have_counted_is_what_one_would_have_counted(hand: Hand) -> None:
    one, parts = Percentiles(hand.now), [Percentiles(hand.now) for _ in range(3)]
    chance = random.Random(11)
    for step in range(400):
        hand.time = NOON + step * 40
        rule, seconds = chance.choice("ab"), chance.lognormvariate(-5, 2)
        for percentiles in (one, chance.choice(parts)):
            percentiles.observe(rule, seconds, hit=step % 3 == 0)
    together = Percentiles(hand.now)
    for part in parts:
        together.absorb(through_json(part.dump()))
    merged, expected = together.report(), one.report()
    assert rounded(merged) == rounded(expected)


def rounded(told: Any) -> Any:
    """The mean of sums depends, in its last digit, on their order."""
    if isinstance(told, dict):
        return {name: rounded(value) for name, value in told.items() if name != "mean"}
    return [rounded(value) for value in told] if isinstance(told, list) else told


def test_an_old_slot_does_not_push_out_a_new_one(hand: Hand) -> None:
    old, new, together = (Percentiles(hand.now) for _ in range(3))
    old.observe("r", 0.1, hit=False)
    dumped = through_json(old.dump())
    hand.time += 65  # the minute ring's whole round
    new.observe("r", 0.2, hit=False)
    together.absorb(through_json(new.dump()))
    together.absorb(dumped)
    assert told(together)["1m"]["requests"] == 1
    assert told(together)["1m"]["p50"] == pytest.approx(0.2, rel=0.05)


def test_what_is_no_dump_is_refused(percentiles: Percentiles) -> None:
    dumps: list[dict[str, Any]] = [
        {},
        {"rules": {"a": []}},
        {"rules": {"a": [[[1, 2]], [], [], []]}},
        {"rules": 5},
    ]
    for wrong in dumps:
        with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
            percentiles.absorb(wrong)


def test_rules_that_are_gone_make_place(percentiles: Percentiles) -> None:
    percentiles.observe("old", 0.1, hit=False)
    percentiles.observe("stays", 0.1, hit=False)
    percentiles.set_rules(["stays", "new"])
    assert set(percentiles._rules) == {"stays"}
    assert told(percentiles, "stays")["1m"]["requests"] == 1
