"""The numbers of several workers as those of one: what /metrics and the stats of a node are made of.

Rules of this file:

- Counters and histograms are added up. A counter of a node must not go down when a worker ends, or whoever
  computes a rate from it sees a leap: what an ended worker had counted when last asked is kept (``Ended``).
- Gauges are added up unless the catalogue says otherwise: what all workers tell of the same thing, or what
  has no sum.
- Expositions are those that metrics.py writes, one sample a line, without timestamps: they are added line by
  line, by all that stands before the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.utils import floatToGoString

from edgeproxy.observe.catalogue import Join
from edgeproxy.observe.catalogue_parts import EVERY

_JOINS: dict[Join, Callable[[float, float], float]] = {Join.MAX: max, Join.MIN: min}
MERGED = {name: _JOINS[d.join] for name, d in EVERY.items() if d.join is not Join.SUM}
"""Gauges that are not added up."""

GROWING = frozenset(("counter", "histogram"))


@dataclass(slots=True)
class Family:
    """``samples``: name and labels as written -> value."""

    help: str
    kind: str
    samples: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, other: Family) -> None:
        join = MERGED.get(name, _sum)
        mine = self.samples
        for sample, value in other.samples.items():
            mine[sample] = join(mine[sample], value) if sample in mine else value


Exposition = dict[str, Family]
"""By the family's name, in the order of the text."""


def read(text: str) -> Exposition:
    """Raises ValueError for what metrics.py would not write."""
    families: Exposition = {}
    family = Family("", "untyped")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, told = line[7:].partition(" ")
            family = families[name] = Family(told, "untyped")
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            families[name].kind = kind
        elif line:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return families


def add(total: Exposition, more: Exposition) -> None:
    for name, family in more.items():
        if name not in total:
            total[name] = Family(family.help, family.kind)
        total[name].add(name, family)


def write(families: Exposition) -> str:
    lines: list[str] = []
    for name, family in families.items():
        lines += (f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}")
        lines += (f"{sample} {_number(value)}" for sample, value in family.samples.items())
    return "\n".join([*lines, ""])


class Ended:
    """What the workers that are gone had counted."""

    def __init__(self) -> None:
        self._total: Exposition = {}
        self._last: dict[object, Exposition] = {}

    def seen(self, worker: object, families: Exposition) -> None:
        """The worker has told this."""
        self._last[worker] = families

    def last(self, worker: object) -> Exposition:
        """What it told when it was last asked."""
        return self._last.get(worker, {})

    def end(self, worker: object) -> None:
        """The worker is gone."""
        told = self._last.pop(worker, {})
        add(self._total, {name: family for name, family in told.items() if family.kind in GROWING})

    def sum(self, workers: Iterable[object]) -> Exposition:
        """Of these workers as they were last seen, and of all that ended."""
        total: Exposition = {}
        for worker in workers:
            add(total, self.last(worker))
        add(total, self._total)
        return total


# -- the stats -------------------------------------------------------------------------------------------

_SAME = frozenset(("version", "l2_name"))
_LATEST: dict[str, Callable[[Any, Any], Any]] = {
    "admitted_share": min,
    "uptime_seconds": max,
    "epoch": lambda a, b: max(a, b, key=int),
    "latency_seconds": max,
    "l2_store_entries": max,
    "l2_store_bytes": max,
    "l2_store_max_bytes": max,
    "last_ok": lambda a, b: a and b,
}


def merge_stats(told: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several of Metrics.snapshot() as one; {} of none."""
    total: dict[str, Any] = {}
    for one in told:
        total = _merged(total, one)
    return total


def _merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(a)
    for key, value in b.items():
        if key not in out:
            out[key] = value
        elif key in _LATEST:
            out[key] = _LATEST[key](out[key], value)
        elif isinstance(value, Mapping):
            out[key] = _merged(out[key], value)
        elif isinstance(value, str):
            if key not in _SAME and value not in out[key].split(", "):
                out[key] = f"{out[key]}, {value}"
        elif isinstance(value, int | float) and isinstance(out[key], int | float):
            out[key] += value
    if "hit_ratio" in out and "mean_seconds" in out:
        _ratios(out, a, b)
    return out


def _ratios(out: dict[str, Any], a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """What is no sum: computed from the sums."""
    asked = out["requests"] - out["results"].get("bypass", 0)
    out["hit_ratio"] = round(out["hits"] / asked, 4) if asked else None
    total = sum((one.get("mean_seconds") or 0.0) * one.get("requests", 0) for one in (a, b))
    out["mean_seconds"] = round(total / out["requests"], 6) if out["requests"] else None


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _sum(a: float, b: float) -> float:
    return a + b
