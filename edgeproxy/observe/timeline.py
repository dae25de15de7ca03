"""What was seen of the metrics in the last minutes: for the alerts that are watched inside.

Rules of this file:

- Only series that somebody asks for are kept, and each as long as the longest window in which it is read.
- A counter that goes down has begun anew: what it had counted stays. A series that is not told any more is
  forgotten.
- Growth is what Prometheus says it is (``extrapolated``): seen within the window, and drawn out to its edges
  where the series goes on beyond them.
- Times are in seconds, of whatever steady clock ``take`` is given.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeproxy.observe.expressions import Labels, Selector, Vector
    from edgeproxy.observe.merge import Exposition

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n"}


class _Series:
    """``values``: counters without their falls, the last one the latest."""

    __slots__ = ("labels", "last", "lost", "name", "values")

    def __init__(self, name: str, labels: dict[str, str], most: int) -> None:
        self.name = name
        self.labels = labels
        self.last = 0.0
        self.lost = 0.0
        self.values: deque[float] = deque(maxlen=most)

    def add(self, value: float) -> None:
        if value < self.last and self.values.maxlen != 1:
            self.lost += self.last
        self.last = value
        self.values.append(value + self.lost)


class Timeline:
    """Readings (expressions.py). ``windows``: metric -> seconds back that are asked for; ``step``: seconds
    between two takes."""

    def __init__(self, windows: Iterable[tuple[str, float]], step: float) -> None:
        self._most: dict[str, int] = {}
        for name, window in windows:
            self._most[name] = max(self._most.get(name, 1), int(window // step) + 1)
        self._series: dict[str, _Series] = {}
        self._times: deque[float] = deque(maxlen=max(self._most.values(), default=1))
        self._groups: dict[Selector, dict[Labels, list[_Series]]] = {}
        self._grown: dict[tuple[Selector, float], Vector] = {}

    def take(self, families: Exposition, at: float) -> None:
        """What a scrape has told, at this time."""
        self._times.append(at)
        self._grown.clear()
        told = {
            sample: value
            for family in families.values()
            for sample, value in family.samples.items()
            if sample.partition("{")[0] in self._most
        }
        if told.keys() != self._series.keys():
            self._groups.clear()
            self._series = {sample: self._series.get(sample) or self._begun(sample) for sample in told}
        for sample, value in told.items():
            self._series[sample].add(value)

    def _begun(self, sample: str) -> _Series:
        name, labels = parted(sample)
        return _Series(name, labels, self._most[name])

    def _grouped(self, selector: Selector) -> Mapping[Labels, list[_Series]]:
        found = self._groups.get(selector)
        if found is None:
            found = {}
            for series in self._series.values():
                if series.name == selector.name and (key := selector.key(series.labels)) is not None:
                    found.setdefault(key, []).append(series)
            self._groups[selector] = found
        return found

    def now(self, selector: Selector) -> dict[Labels, list[float]]:
        return {key: [each.last for each in group] for key, group in self._grouped(selector).items()}

    def grown(self, selector: Selector, window: float) -> Vector:
        found = self._grown.get((selector, window))
        if found is None:
            times = list(self._times)
            began = times[-1] - window
            within = len(times) - bisect_left(times, began)
            found = {}
            for key, group in self._grouped(selector).items():
                each = [g for s in group if (g := _growth(s, times, within, began)) is not None]
                if each:
                    found[key] = sum(each)
            self._grown[selector, window] = found
        return found


def _growth(series: _Series, times: list[float], within: int, began: float) -> float | None:
    count = min(within, len(series.values))
    if count < 2:
        return None
    seen = times[-1] - times[-count]
    if seen <= 0:
        return None
    first, last = series.values[-count], series.values[-1]
    return extrapolated(first, last - first, times[-count] - began, seen, count)


def extrapolated(first: float, grown: float, before: float, seen: float, count: int) -> float:
    """Growth over a window that ends with the last of ``count`` samples. ``seen``: seconds from the first to
    the last of them; ``before``: seconds of the window before the first; ``first``: its value."""
    between = seen / (count - 1)
    if before >= between * 1.1:
        before = between / 2  # it began within the window
    if grown > 0 and first >= 0:
        before = min(before, seen * first / grown)  # it was 0 then, and cannot have been less
    return grown * (seen + before) / seen


def parted(sample: str) -> tuple[str, dict[str, str]]:
    """``name{a="b"}`` as an exposition has it -> the name and the labels."""
    name, _, rest = sample.partition("{")
    labels = {
        label: _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), value)
        for label, value in _LABEL.findall(rest)
    }
    return name, labels
