"""Whether a scene has reached its targets: a file of numbers, and one check for each.

Rules of this file:

- What a target means is in one table: its figure, which side of it is good, and how both are written.
- A target whose figure cannot be known is missed, and says so. A wrong answer is a miss in every scene,
  whatever the targets are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from tests.load.scenes.plan import TARGETS, Wrong, document
from tests.load.scenes.record import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.load.scenes.figures import Figures, Played
    from tests.load.scenes.plan import Scene

Side = Literal["<", ">", ">="]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of target: of a scene or one of its phases (``of``), or of a scene's samples (``grown``)."""

    side: Side
    unit: str
    of: Callable[[Figures], float | None] | None = None
    grown: Callable[[Played], float | None] | None = None


def _more(key: str, *, percent: bool = False) -> Callable[[Played], float | None]:
    def grown(played: Played) -> float | None:
        found = played.growth(key)
        if found is None:
            return None
        before, after = found
        if not percent:
            return after - before
        return 100 * (after - before) / before if before else None

    return grown


KINDS: dict[str, Kind] = {
    "p50_ms": Kind("<", "ms", lambda f: f.percentile(50)),
    "p95_ms": Kind("<", "ms", lambda f: f.percentile(95)),
    "p99_ms": Kind("<", "ms", lambda f: f.percentile(99)),
    "hits_percent": Kind(">", "%", lambda f: f.hits),
    "success_percent": Kind(">", "%", lambda f: f.success),
    "requests_per_second": Kind(">", "/s", lambda f: f.rate),
    "connections": Kind(">=", "", lambda f: f.connections),
    "memory_growth_percent": Kind("<", "%", grown=_more("memory", percent=True)),
    "descriptors_growth": Kind("<", "", grown=_more("descriptors")),
    "tasks_growth": Kind("<", "", grown=_more("tasks")),
}

Numbers = dict[str, float | None]

SHORT = frozenset({"success_percent"})
"""What a tenth of the load for a second can tell."""


@dataclass(frozen=True, slots=True)
class Check:
    """``where``: the scene or ``scene/phase``."""

    where: str
    what: str
    target: str
    figure: str
    met: bool


class Targets:
    """``all`` are for each scene, ``scenes`` for one (``outage``) or one of its phases (``outage/down``)."""

    def __init__(self, everywhere: Numbers, scenes: Mapping[str, Numbers]) -> None:
        self._everywhere = everywhere
        self._scenes = scenes

    @classmethod
    def read(cls, path: Path, scenes: Mapping[str, Scene]) -> Targets:
        """Raises Wrong, where a scene, a phase or a target is named that there is not, too."""
        told = document(path)
        try:
            everywhere = msgspec.convert(told.pop("all", {}), Numbers)
            each = msgspec.convert(told.pop("scenes", {}), dict[str, Numbers])
        except msgspec.ValidationError as error:
            raise Wrong(f"{path}: {error}") from None
        places = set(scenes) | {
            f"{scene.name}/{phase.name}" for scene in scenes.values() for phase in scene.phases
        }
        for what, known, found in (
            ("all and scenes", set(), told),
            ("targets", set(KINDS), {*everywhere, *(key for numbers in each.values() for key in numbers)}),
            ("scenes and phases", places, each),
        ):
            odd = sorted(set(map(str, found)) - known)
            if odd:
                raise Wrong(f"{path}: {odd[0]!r} is none of the {what}")
        for place, numbers in each.items():
            if "/" in place and any(KINDS[key].of is None for key in numbers):
                raise Wrong(f"{path}: {place}: growth is of a whole scene")
        return cls(everywhere, each)

    @classmethod
    def default(cls, scenes: Mapping[str, Scene]) -> Targets:
        return cls.read(TARGETS, scenes)

    def only(self, kinds: frozenset[str]) -> Targets:
        def rest(numbers: Numbers) -> Numbers:
            return {key: number for key, number in numbers.items() if key in kinds}

        return Targets(rest(self._everywhere), {name: rest(each) for name, each in self._scenes.items()})

    def judge(self, played: Played) -> list[Check]:
        name, whole = played.scene.name, played.judged
        wrong = sum(figures.outcomes[Outcome.WRONG] for figures in played.phases)
        checks = [Check(name, "wrong answers", "0", str(wrong), wrong == 0)]
        numbers = {**self._everywhere, **self._scenes.get(name, {})}
        for key, number in numbers.items():
            kind = KINDS[key]
            figure = kind.of(whole) if kind.of else kind.grown(played) if kind.grown else None
            checks += _check(name, key, number, figure)
        for phase, figures in zip(played.scene.phases, played.phases, strict=True):
            place = f"{name}/{phase.name}"
            for key, number in self._scenes.get(place, {}).items():
                of = KINDS[key].of
                checks += _check(place, key, number, of(figures) if of else None)
        return checks


def _check(where: str, key: str, number: float | None, figure: float | None) -> list[Check]:
    if number is None:
        return []
    kind = KINDS[key]
    told = f"{kind.side} {number:,g}{_unit(kind)}"
    if figure is None:
        return [Check(where, _named(key), told, "not known", met=False)]
    met = {"<": figure < number, ">": figure > number, ">=": figure >= number}[kind.side]
    return [Check(where, _named(key), told, f"{_digits(figure)}{_unit(kind)}", met)]


def _named(key: str) -> str:
    return key.removesuffix("_ms").removesuffix("_percent").replace("_", " ")


def _unit(kind: Kind) -> str:
    return f" {kind.unit}" if kind.unit in ("ms", "%") else kind.unit


def _digits(figure: float) -> str:
    """So many as tell: 99.953, 12.3, 1,498."""
    if figure == int(figure):
        return f"{figure:,.0f}"
    return f"{figure:,.3f}" if 99 < figure < 100 or abs(figure) < 10 else f"{figure:,.1f}"
