"""The model of a fleet against single requests, and the report's own words."""

from __future__ import annotations

import pytest

from tests.bench.sizing import Cost, Fleet, Units, modelled, report, simulated

UNIT = Cost(1, 10, 100, 1e-6)


@pytest.mark.parametrize("memory", [300, 5000])
def test_the_model_agrees_with_a_simulation(memory: int) -> None:
    fleet = Fleet(nodes=3, workers=2, rate=2000, keys=5000, skew=0.9, lifetime=5, memory=memory, purges=0)
    model, simulation = modelled(fleet), simulated(fleet, 15)
    assert model.misses == pytest.approx(simulation.misses, rel=0.15)
    assert model.hits == pytest.approx(simulation.hits, rel=0.3)
    assert model.l1 == pytest.approx(simulation.l1, abs=0.1)


def test_what_breaks_first_is_named() -> None:
    fleet = Fleet(nodes=2, workers=1, rate=1e6, keys=1000, skew=0.9, lifetime=1, memory=10, purges=1)
    units = Units(UNIT, UNIT, UNIT, UNIT, UNIT, 1000.0)
    assert "Breaks first: its one thread" in report(fleet, units, modelled(fleet), 100)
    large = Units(UNIT, Cost(1, 10, 1e6, 1e-6), UNIT, UNIT, UNIT, 1000.0)
    assert "Breaks first: 10 Gbit/s out" in report(fleet, large, modelled(fleet), 100)
