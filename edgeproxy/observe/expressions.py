"""What an alert looks at, as data: written out as PromQL, and worked out here from the same data.

Rules of this file:

- A term can say itself (``text``) and be worked out (``of``): it is one object, so what Prometheus is told
  and what is watched inside are the same. A test holds both against each other.
- Only what the alerts need is here; it does as Prometheus does (rates to the edge of the window, quantiles
  within buckets, what is no number compares with nothing).
- All is summed by ``instance`` and the labels of ``by``. Inside there is one instance: a vector goes by the
  values of the other labels.
"""

from __future__ import annotations

import json
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]

WINDOW = "5m"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(told: str) -> float:
    """``15m`` as Prometheus writes it. Raises KeyError and ValueError for anything else."""
    return int(told[:-1]) * _UNITS[told[-1]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of a metric, the series whose label is (or is not) this, or matches this as a whole."""

    label: str
    how: str
    value: str

    def __str__(self) -> str:
        return f"{self.label}{self.how}{json.dumps(self.value, ensure_ascii=False)}"

    def takes(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.label, "")
        alike = found == self.value if "~" not in self.how else bool(re.fullmatch(self.value, found))
        return alike is not self.how.startswith("!")


@dataclass(frozen=True, slots=True)
class Selector:
    """Series of one metric, put together by ``by``."""

    name: str
    chosen: tuple[Chosen, ...] = ()
    by: tuple[str, ...] = ()

    @property
    def selected(self) -> str:
        return f"{self.name}{{{','.join(map(str, self.chosen))}}}" if self.chosen else self.name

    @property
    def grouped(self) -> str:
        return f"({', '.join(('instance', *self.by))})"

    def key(self, labels: Mapping[str, str]) -> Labels | None:
        """Of a series: which of the results it is part of; None: of none."""
        if not all(each.takes(labels) for each in self.chosen):
            return None
        return tuple((name, labels.get(name, "")) for name in self.by)


class Readings(Protocol):
    """What has been seen of the metrics (observe/timeline.py)."""

    def now(self, selector: Selector) -> Mapping[Labels, list[float]]:
        """The values of the series, as they were seen last."""

    def grown(self, selector: Selector, window: float) -> Vector:
        """How much counters have grown over the last ``window`` seconds."""


class Term(Protocol):
    @property
    def text(self) -> str: ...

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        """The metrics that it reads, and for how many seconds back."""

    def of(self, figures: Readings) -> Vector: ...


@dataclass(frozen=True, slots=True)
class Gauge:
    """What several series say now: their ``sum``, or the ``min``."""

    of_what: Selector
    how: str = "sum"

    @property
    def text(self) -> str:
        return f"{self.how} by {self.of_what.grouped} ({self.of_what.selected})"

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        yield self.of_what.name, 0.0

    def of(self, figures: Readings) -> Vector:
        put_together = min if self.how == "min" else sum
        return {key: put_together(values) for key, values in figures.now(self.of_what).items()}


@dataclass(frozen=True, slots=True)
class Grown:
    """How much counters have grown within ``window``, in all or (``rate``) a second."""

    of_what: Selector
    window: str = WINDOW
    rate: bool = True

    @property
    def text(self) -> str:
        function = "rate" if self.rate else "increase"
        return f"sum by {self.of_what.grouped} ({function}({self.of_what.selected}[{self.window}]))"

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        yield self.of_what.name, seconds(self.window)

    def of(self, figures: Readings) -> Vector:
        window = seconds(self.window)
        by = window if self.rate else 1.0
        return {key: grown / by for key, grown in figures.grown(self.of_what, window).items()}


@dataclass(frozen=True, slots=True)
class Quantile:
    """Of a histogram's buckets (``of_what`` goes by ``le``), over WINDOW."""

    share: str
    of_what: Selector

    @property
    def text(self) -> str:
        return f"histogram_quantile({self.share}, {Grown(self.of_what).text})"

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        yield from Grown(self.of_what).windows

    def of(self, figures: Readings) -> Vector:
        buckets: dict[Labels, list[tuple[float, float]]] = {}
        for labels, rate in Grown(self.of_what).of(figures).items():
            key = tuple(each for each in labels if each[0] != "le")
            buckets.setdefault(key, []).append((float(dict(labels)["le"]), rate))
        return {key: quantile(float(self.share), sorted(each)) for key, each in buckets.items()}


@dataclass(frozen=True, slots=True)
class Both:
    """Two terms with the same labels: ``+`` or ``/``."""

    left: Term
    how: str
    right: Term

    @property
    def text(self) -> str:
        told = f"{self.left.text} {self.how} {self.right.text}"
        return f"({told})" if self.how == "+" else told

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        yield from self.left.windows
        yield from self.right.windows

    def of(self, figures: Readings) -> Vector:
        left, right = self.left.of(figures), self.right.of(figures)
        work_out = operator.add if self.how == "+" else _share
        return {key: work_out(left[key], right[key]) for key in left if key in right}


@dataclass(frozen=True, slots=True)
class Unseen:
    """What only somebody outside can tell."""

    text: str

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        yield from ()

    def of(self, _: Readings) -> Vector:
        return {}


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, ">": operator.gt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """When it is an alert. ``enough``: and only where this is so too."""

    term: Term
    how: str
    bound: float
    enough: Condition | None = None

    @property
    def text(self) -> str:
        told = f"{self.term.text} {self.how} {self.bound:g}"
        return told if self.enough is None else f"{told} and {self.enough.text}"

    @property
    def windows(self) -> Iterator[tuple[str, float]]:
        yield from self.term.windows
        if self.enough is not None:
            yield from self.enough.windows

    def of(self, figures: Readings) -> Vector:
        """Those for which it is so, with what was found."""
        compare = _COMPARE[self.how]
        found = {key: value for key, value in self.term.of(figures).items() if compare(value, self.bound)}
        if self.enough is None or not found:
            return found
        enough = self.enough.of(figures)
        return {key: value for key, value in found.items() if key in enough}


def _share(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)


def quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    """As Prometheus has it: linear within the bucket. ``buckets``: upper bound and how many up to there,
    sorted. NaN where there is nothing."""
    if len(buckets) < 2 or buckets[-1][0] != math.inf or not buckets[-1][1] > 0:
        return math.nan
    counts: list[float] = []
    for _, count in buckets:  # a rate may be a little less than the one before it, by rounding
        counts.append(max(count, counts[-1] if counts else 0.0))
    rank = share * counts[-1]
    place = next(number for number, count in enumerate(counts) if count >= rank)
    if place == len(buckets) - 1:
        return buckets[-2][0]
    below, least = (counts[place - 1], buckets[place - 1][0]) if place else (0.0, 0.0)
    return least + (buckets[place][0] - least) * (rank - below) / (counts[place] - below)
