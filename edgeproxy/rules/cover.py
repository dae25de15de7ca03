"""Whether path patterns take all paths of another, or some of the same: exact, as automata, with a witness.

Rules of this file:

- A glob is a small automaton, and inclusion is looked for by walking two of them side by side: the answer is
  proven, or it is "not known" (None), never guessed. A test holds each witness against the patterns' own
  expressions.
- Characters that no pattern names are all alike: one of them stands for the rest.
- A regular expression is known by its text, by its literal beginning, and by what it says of one exact path.
- Bounded: after MOST_STEPS pairs of states nothing is claimed.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.rules.match import path_parts
from edgeproxy.rules.patterns import extension, path_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeproxy.rules.model import PathPattern

MOST_STEPS = 4000
_OTHERS = "zyxwvutsrqponmlkjihgfedcba0123456789-_~ABCDEFGHIJKLMNOPQRSTUVWXYZ!$&'()+,;=:@"
"""Of these the first that no pattern names stands for all others."""
ANYTHING = path_pattern("/**")

_WILD = re.compile(r"\*\*|\*|\{[^}]*\}")

_ONE, _ANY = "one", "any"
"""What a step takes besides a character: one that is no "/", or any."""


class _Machine(NamedTuple):
    """``steps``: for each state, what it takes and where that leads; ``free``: where one may go without
    taking anything. The last state is the end."""

    steps: list[list[tuple[str, int]]]
    free: list[list[int]]

    def closed(self, states: Iterable[int]) -> frozenset[int]:
        found = set(states)
        left = list(found)
        while left:
            for state in self.free[left.pop()]:
                if state not in found:
                    found.add(state)
                    left.append(state)
        return frozenset(found)

    def after(self, states: frozenset[int], char: str) -> frozenset[int]:
        return self.closed(
            to
            for state in states
            for takes, to in self.steps[state]
            if takes in (char, _ANY) or (takes == _ONE and char != "/")
        )

    def ends(self, states: frozenset[int]) -> bool:
        return len(self.steps) - 1 in states


def sample(pattern: PathPattern) -> str | None:
    """Some path that the pattern matches: what does not match it cannot cover the pattern. None of a regular
    expression."""
    source = pattern.source
    if source.startswith("~"):
        return None
    filled = _WILD.sub("z", source)
    return filled if filled.startswith("/") else f"/{filled}"


def covered(pattern: PathPattern, by: Sequence[PathPattern]) -> bool:
    """Whether it is proven that each path of ``pattern`` matches one of ``by``."""
    if any(each.source == pattern.source for each in by):
        return True
    if pattern.exact:
        return path_parts(by, pattern.source) is not None
    globs = [each for each in by if not each.source.startswith("~")]
    if pattern.source.startswith("~"):
        # All that is known of an expression is how its matches begin.
        start = pattern.literal
        return any(each.deep and start.startswith(f"{each.literal}/") for each in globs)
    return bool(globs) and _search(pattern, globs, inside=False) == ""


def outside(pattern: PathPattern, by: Sequence[PathPattern]) -> str | None:
    """A path of ``pattern`` that none of ``by`` matches; None where there is none, or it is not known. All of
    them are globs."""
    return _search(pattern, by, inside=False) or None


def shared(one: PathPattern, other: PathPattern) -> str | None:
    """A path that both match; None where there is none, or it is not known."""
    for exact, wide in ((one, other), (other, one)):
        if exact.exact:
            return exact.source if path_parts([wide], exact.source) is not None else None
    if one.source.startswith("~") or other.source.startswith("~"):
        return None
    endings = {extension(one), extension(other)}
    if len(endings) == 2 and None not in endings:
        return None  # "*.css" and "*.js"
    return _search(one, [other], inside=True) or None


def _search(pattern: PathPattern, by: Sequence[PathPattern], *, inside: bool) -> str | None:
    """The shortest path of ``pattern`` that one of ``by`` matches (``inside``) or none does; "" where there
    is none, None where that would take too long."""
    mine = _machine(pattern)
    theirs = [_machine(each) for each in by]
    named = {takes for each in (mine, *theirs) for steps in each.steps for takes, _ in steps} - {_ONE, _ANY}
    other = next((char for char in _OTHERS if char not in named), None)
    if other is None:
        return None
    letters = [*sorted(named | {"/"}), other]
    start = (mine.closed([0]), tuple(each.closed([0]) for each in theirs))
    known = {start}
    left = deque([("", start)])
    while left:
        path, (here, there) = left.popleft()
        matched = any(each.ends(states) for each, states in zip(theirs, there, strict=True))
        if path and mine.ends(here) and matched == inside:
            return path
        for char in letters if path else "/":
            after = mine.after(here, char)
            if not after:
                continue
            pair = (after, tuple(each.after(s, char) for each, s in zip(theirs, there, strict=True)))
            if inside and not any(pair[1]):
                continue
            if pair not in known:
                if len(known) >= MOST_STEPS:
                    return None
                known.add(pair)
                left.append((path + char, pair))
    return ""


def _machine(pattern: PathPattern) -> _Machine:
    """Of a glob, as patterns.py defines it."""
    made = _Machine([[]], [[]])
    source = pattern.source
    if "/" not in source:
        _any(made)
        if source != "**":
            _take(made, "/")
            _segment(made, source, whole=False)
        return made
    for segment in source[1:].split("/"):
        if segment == "**":
            # Nothing, or "/" and whatever follows.
            here = len(made.steps) - 1
            _take(made, "/")
            _any(made)
            made.free[-1].append(len(made.steps))
            made.free[here].append(len(made.steps))
            made.steps.append([])
            made.free.append([])
        else:
            _take(made, "/")
            _segment(made, segment, whole=True)
    return made


def _segment(made: _Machine, segment: str, *, whole: bool) -> None:
    if segment == "*" and whole:
        _take(made, _ONE)
        _loop(made, _ONE)
        return
    at = 0
    while at < len(segment):
        if segment[at] == "*":
            _loop(made, _ONE)
        elif segment[at] == "{":
            _take(made, _ONE)
            _loop(made, _ONE)
            at = segment.index("}", at)
        else:
            _take(made, segment[at])
        at += 1


def _take(made: _Machine, takes: str) -> None:
    made.steps[-1].append((takes, len(made.steps)))
    made.steps.append([])
    made.free.append([])


def _loop(made: _Machine, takes: str) -> None:
    """Any number, in a state of its own: what goes back must not pass by what came before."""
    made.free[-1].append(len(made.steps))
    made.steps.append([(takes, len(made.steps))])
    made.free.append([])


def _any(made: _Machine) -> None:
    _loop(made, _ANY)
