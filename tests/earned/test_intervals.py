"""How often an answer changes, from looks at it: against changes that are made at a known rate."""

from __future__ import annotations

from random import Random

import pytest

from edgeproxy.earned.intervals import BOUNDS, LEAST_LOOKS, Intervals, rate_of_change, suggested_ttl


def looked(rate: float, intervals: list[float], seed: int = 1) -> Intervals:
    random = Random(seed)
    found = Intervals()
    for seconds in intervals:
        found.look(seconds, changed=random.expovariate(rate) < seconds)
    return found


@pytest.mark.parametrize("rate", [1 / 30, 1 / 600, 1 / 86400])
def test_the_rate_is_found_from_looks_of_unlike_length(rate: float) -> None:
    random = Random(7)
    found = looked(rate, [random.uniform(0.1, 3) / rate for _ in range(3000)])
    assert rate_of_change(found.told()) == pytest.approx(rate, rel=0.1)


def test_a_ttl_that_keeps_answers_up_to_date() -> None:
    # A change in 1,000 s: with a ttl of 105 s a twentieth of the answers would be out of date.
    assert suggested_ttl(looked(1 / 1000, [500.0] * 4000).told()) == 60
    assert suggested_ttl(looked(1 / 100_000, [900.0] * 4000).told()) == 7200


def test_what_never_changed_is_trusted_as_far_as_it_was_looked_at() -> None:
    few, many = (looked(1e-12, [60.0] * n).told() for n in (LEAST_LOOKS, 20_000))
    assert rate_of_change(few) == pytest.approx(3 / (60 * LEAST_LOOKS))
    assert suggested_ttl(few) == 30  # no more than the looks bear out
    assert suggested_ttl(many) == 28800


def test_what_always_changed() -> None:
    found = looked(1e6, [60.0] * 50).told()
    suggested = suggested_ttl(found)
    assert suggested is not None
    assert suggested <= 2


def test_too_few_looks_suggest_nothing() -> None:
    assert rate_of_change(Intervals().told()) is None
    assert suggested_ttl(Intervals().told()) is None
    assert suggested_ttl(looked(1e-12, [60.0] * (LEAST_LOOKS - 1)).told()) is None


def test_all_lengths_have_a_place() -> None:
    found = Intervals()
    for seconds in (0.0, BOUNDS[0], BOUNDS[-1] * 9):
        found.look(seconds, changed=False)
        found.look(seconds, changed=True)
    assert (sum(found.same), sum(found.changed)) == (3, 3)
    assert rate_of_change(found.told()) is not None
