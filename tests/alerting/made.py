"""Alerts, episodes and figures that are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.alerting.plan import Plan, Receiver, Step
from edgeproxy.alerting.state import Episode
from edgeproxy.observe.alert_rules import Alert
from edgeproxy.observe.expressions import Condition, Gauge, Selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.observe.expressions import Labels, Vector


def alert(name: str = "Slow", severity: str = "warning", lasts: str = "1m") -> Alert:
    condition = Condition(Gauge(Selector(name, (), ("origin",))), ">", 1)
    summary = "{{ $labels.instance }}: {{ $labels.origin }} takes {{ $value | humanizeDuration }}"
    return Alert(name, condition, lasts, severity, summary, "edgeproxy stats")


def episode(name: str = "Slow", severity: str = "warning", origin: str = "a", fired: float = 0.0) -> Episode:
    labels = (("origin", origin),)
    return Episode(alert(name, severity), labels, fired - 60, fired, 2.0, fired)


@dataclass
class Now:
    """Readings: metric -> origin -> what it says."""

    told: dict[str, dict[str, float]] = field(default_factory=dict)

    def now(self, selector: Selector) -> Mapping[Labels, list[float]]:
        return {(("origin", o),): [value] for o, value in self.told.get(selector.name, {}).items()}

    def grown(self, selector: Selector, window: float) -> Vector:
        raise NotImplementedError


def plan(*names: str, steps: tuple[Step, ...] | None = None, repeat: float = 3600.0) -> Plan:
    receivers = tuple(Receiver(name, ("console:",)) for name in names)
    if steps is None:
        steps = tuple(Step(after, names) for after in (0.0, 300.0, 900.0, 1800.0))
    return Plan(receivers, steps, repeat)
