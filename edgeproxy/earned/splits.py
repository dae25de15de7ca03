"""What tells stored answers apart without changing them: query parameters and fields, from bodies compared.

Rules of this file:

- Two answers that differ in one parameter (or in its being there) or in one field, and in nothing else, are a
  pair; whether their bodies are the same octets is what is counted, by rule and name. A body is known by its
  digest and length.
- They were stored within WITHIN seconds of each other: what changed meanwhile is no difference between them.
- To find the pair of an answer, each of its parameters is left out in turn: what is left is looked up in a
  bounded memo of two generations.
- Nothing is suggested that made a difference once, nor on fewer than LEAST pairs, nor where all of them had
  one and the same body: that would be the error page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MEMO = 8192
"""Answers left out of, both generations together."""
MOST_PARTS = 10
"""Parameters and fields of one answer that are looked at."""
MOST_NAMES = 500
WITHIN = 30.0
LEAST = 10
LEAST_BODIES = 3

QUERY, FIELD, COOKIE = "query", "header", "cookie"
Part = tuple[str, str, str | None]
"""Kind, name, and value (None: it is not there)."""


class _Count:
    __slots__ = ("bodies", "different", "same")

    def __init__(self) -> None:
        self.same = self.different = 0
        self.bodies: set[int] = set()


class Splits:
    """Of one worker."""

    def __init__(self) -> None:
        self._young: dict[int, tuple[int, int, float]] = {}
        self._old: dict[int, tuple[int, int, float]] = {}
        self._counts: dict[tuple[str, str, str], _Count] = {}

    def stored(self, rule: str, where: str, parts: Iterable[Part], body: int, now: float) -> None:
        """An answer: ``where`` is host and path, ``parts`` all else that is in its key, ``body`` a digest."""
        listed = sorted(parts, key=lambda part: (part[0], part[1], part[2] or ""))
        if not listed or len(listed) > MOST_PARTS:
            return
        whole = hash((where, *listed))
        for number, (kind, name, value) in enumerate(listed):
            rest = (where, *listed[:number], *listed[number + 1 :])
            self._pair(rule, kind, name, (hash((rest, kind, name)), hash(value)), body, now)
            if kind == QUERY:
                # The same without it: whoever has nothing left out stands for "it is not there".
                self._pair(rule, kind, name, (hash(rest), -1), body, now, keep=False)
        self._remember(whole, (-1, body, now))

    def bare(self, where: str, body: int, now: float) -> None:
        """An answer whose URL has no query."""
        self._remember(hash((where,)), (-1, body, now))

    def _pair(
        self,
        rule: str,
        kind: str,
        name: str,
        place: tuple[int, int],
        body: int,
        now: float,
        *,
        keep: bool = True,
    ) -> None:
        key, value = place
        before = self._young.get(key) or self._old.get(key)
        if before is not None and (before[0] != value or not keep) and now - before[2] <= WITHIN:
            count = self._counts.get((rule, kind, name))
            if count is None:
                if len(self._counts) >= MOST_NAMES:
                    return
                count = self._counts[rule, kind, name] = _Count()
            if before[1] == body:
                count.same += 1
                if len(count.bodies) < LEAST_BODIES:
                    count.bodies.add(body)
            else:
                count.different += 1
        if keep:
            self._remember(key, (value, body, now))

    def _remember(self, key: int, found: tuple[int, int, float]) -> None:
        if len(self._young) >= MEMO // 2:
            self._old = self._young
            self._young = {}
        self._young[key] = found

    def told(self) -> dict[str, Any]:
        """Plain data: rule -> kind -> name -> counts, which may be added up."""
        told: dict[str, Any] = {}
        for (rule, kind, name), count in self._counts.items():
            told.setdefault(rule, {}).setdefault(kind, {})[name] = {
                "same": count.same, "different": count.different, "bodies": len(count.bodies),
            }  # fmt: skip
        return told


def useless(kinds: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[tuple[str, str, int]]:
    """Kind, name and pairs of what never made a difference, of one rule of Splits.told."""
    return sorted(
        (kind, name, count["same"])
        for kind, names in kinds.items()
        for name, count in names.items()
        if not count["different"] and count["same"] >= LEAST and count["bodies"] >= LEAST_BODIES
    )
