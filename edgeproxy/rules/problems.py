"""What is wrong with a rule file: every problem with its place, never only the first.

Rules of this file:

- A Problem says where (file:line:column), which key, and what was expected there.
- Problems are gathered and raised together, so that an operator mends a file in one go.
- What a file holds is quoted short and without control characters: a rule file is hostile input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 200
"""Problems gathered from one load; more than these help nobody."""


class Place(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """``line`` and ``column`` count from 1; 0 where the whole file (or directory) is meant."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class RuleError(Exception):
    """A rule file was refused. ``problems`` in the order of the files."""

    def __init__(self, problems: Iterable[Problem], left_out: int = 0) -> None:
        self.problems = tuple(problems)
        lines = [str(p) for p in self.problems]
        if left_out:
            lines.append(f"and {left_out} more")
        super().__init__("\n".join(lines))


class Problems:
    """Gathers the problems of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Problem] = []
        self._said: set[tuple[int, int, str]] = set()
        self.left_out = 0

    def add(self, place: Place | None, key: str, message: str) -> None:
        line, column = (place.line, place.column) if place is not None else (0, 0)
        if (line, column, message) in self._said:  # Defaults are read once more beneath each rule.
            return
        self._said.add((line, column, message))
        if len(self.found) >= MOST:
            self.left_out += 1
            return
        self.found.append(Problem(self.file, line, column, key, message))

    def __len__(self) -> int:
        return len(self.found) + self.left_out


def raise_all(gathered: Iterable[Problems]) -> None:
    """Raise RuleError if any of them holds a problem."""
    every = [g for g in gathered if len(g)]
    if every:
        found = [p for g in every for p in sorted(g.found, key=lambda p: (p.line, p.column))]
        raise RuleError(found[:MOST], len(found[MOST:]) + sum(g.left_out for g in every))


def quoted(text: str) -> str:
    """``text`` as it may be shown in a message: short, in double quotes, nothing that moves a cursor."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown) + '"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean "path"?``, or nothing when no known word is near."""
    import difflib  # noqa: PLC0415 - for a mistake alone

    near = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
