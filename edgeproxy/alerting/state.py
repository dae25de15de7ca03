"""Which alerts fire: from what was seen of the metrics, as Prometheus would have it.

Rules of this file:

- Nothing is read, sent or waited for here: figures and the time come in.
- An alert is *pending* from the moment at which its condition holds, and *fires* once it has held for as long
  as its row says. What holds no more before that was nothing.
- One that fires is over once its condition has not held for SETTLED seconds: one that comes and goes is one
  alert, and one notice.
- Each set of labels (an origin, say) is an alert of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.observe.alert_rules import filled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeproxy.observe.alert_rules import Alert
    from edgeproxy.observe.expressions import Labels, Readings

SETTLED = 60.0
"""Seconds."""

Key = tuple[str, str, str, "Labels"]
"""Name, severity, rule and labels."""


@dataclass(slots=True)
class Episode:
    """An alert from its beginning to its end. Times are those that ``step`` was given."""

    alert: Alert
    labels: Labels
    since: float
    """The condition holds."""
    seen: float
    """It held when it was last looked at."""
    value: float
    """What was found then."""
    fired: float | None = None
    over: float | None = None

    @property
    def key(self) -> Key:
        return self.alert.name, self.alert.severity, self.alert.rule, self.labels

    @property
    def topic(self) -> tuple[str, str, Labels]:
        """What it is about, however urgent."""
        return self.alert.name, self.alert.rule, self.labels

    def lasted(self, now: float) -> float:
        """Seconds since it fired, up to its end."""
        return (now if self.over is None else self.over) - (now if self.fired is None else self.fired)

    def summary(self, instance: str) -> str:
        return filled(self.alert, instance, self.labels, self.value)


class State:
    def __init__(self, alerts: Sequence[Alert]) -> None:
        self.alerts = alerts
        self._episodes: dict[Key, Episode] = {}

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        """What has to be known: metrics, and for how many seconds back."""
        for alert in self.alerts:
            yield from alert.condition.windows

    @property
    def firing(self) -> list[Episode]:
        """The most urgent first, then the oldest."""
        found = [each for each in self._episodes.values() if each.fired is not None]
        return sorted(found, key=lambda each: (each.alert.severity != "critical", each.fired))

    @property
    def pending(self) -> list[Episode]:
        return [each for each in self._episodes.values() if each.fired is None]

    def step(self, figures: Readings, now: float) -> list[Episode]:
        """Look at everything. Gives those that fired and are over."""
        over: list[Episode] = []
        held: set[Key] = set()
        for alert in self.alerts:
            for labels, value in alert.condition.of(figures).items():
                if math.isnan(value):
                    continue
                key = (alert.name, alert.severity, alert.rule, labels)
                held.add(key)
                episode = self._episodes.get(key)
                if episode is None:
                    episode = self._episodes[key] = Episode(alert, labels, now, now, value)
                episode.seen, episode.value = now, value
                if episode.fired is None and now - episode.since >= alert.pause:
                    episode.fired = now
        for key, episode in list(self._episodes.items()):
            if key in held:
                continue
            if episode.fired is None:
                del self._episodes[key]
            elif now - episode.seen >= SETTLED:
                del self._episodes[key]
                episode.over = now
                over.append(episode)
        return over
