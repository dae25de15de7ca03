"""Request -> the rule that answers for it: the first in order whose conditions all hold.

Rules of this file:

- The index (narrow.py) only narrows: what it finds is checked against the patterns, in rule order, so the
  answer is that of a plain scan from the top (a test compares the two).
- The path is compared as it came over the wire, case and all; nothing is decoded.
- A path with a dot segment ("/static/..%2fapi/me", in any writing) is matched as it stands, but is never
  answered from the cache: the origin may take it for another path than the rule's author saw.
- Nor is one that an origin may take for a path of an earlier rule (lookalike.py): "/%61dmin" where there is a
  rule for "/admin/**" before the one for "/**".
- Nor is a request that gives a field, cookie or parameter that conditions ask for twice, and not the same:
  which of them counts is the origin's to say, and it may take the request for one of another rule.
- What method, host and path alone decide is remembered, in a bounded memo of two generations: what is used
  stays, what is not goes, and never all at once. Nothing here grows with traffic.
"""

from __future__ import annotations

import re
from dataclasses import replace
from operator import itemgetter
from sys import maxsize
from typing import TYPE_CHECKING, final

from edgeproxy.rules.conditions import Named, losing_condition
from edgeproxy.rules.lookalike import other_reading
from edgeproxy.rules.model import PLAIN, Matched
from edgeproxy.rules.narrow import Index
from edgeproxy.rules.safe_regex import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import PathPattern, Rule, RuleSet
    from edgeproxy.rules.narrow import Leaf

MEMO = 4096
"""Both generations together."""
MEMO_PATH = 256
"""Longer paths are not remembered, so that the memo's size is bounded in octets too."""

# Slashes, dots and semicolons may be percent-encoded, even twice; "..;" is ".." to servlet containers.
_DOT_SEGMENT = re.compile(
    r"(?:/|\\|%(?:25)*(?:2f|5c))(?:\.|%(?:25)*2e){1,2}(?:$|/|\\|;|%(?:25)*(?:2f|5c|3b))", re.IGNORECASE
)
_NONE = Matched(PLAIN)


@final
class _Undecided:
    """What is left to ask of requests for one method, host and path.

    ``steps``: rules with conditions that no gate guards, by number; ``gated``: leaves with rules behind
    gates; ``shut``: each tells whether a request's header names open none of them; ``others``: whether there
    are gates besides those; ``last``: the first rule without conditions, at ``number``, beyond which nothing
    is looked at. ``passes``: whichever it is, the cache is not asked.
    """

    __slots__ = ("gated", "last", "number", "others", "passes", "shut", "steps")

    def __init__(
        self,
        steps: list[tuple[int, Matched]],
        gated: list[Leaf],
        number: int,
        last: Matched,
        *,
        passes: bool,
    ) -> None:
        self.passes = passes
        self.steps = steps
        self.gated = gated
        self.number = number
        self.last = last
        kinds = [(kind, named) for leaf in gated for kind, named in leaf.gates.items()]
        # Each costs the shorter of the two sets.
        self.shut = [named.keys().isdisjoint for kind, named in kinds if kind == "headers"]
        self.others = len(self.shut) < len(kinds)


class Matcher:
    """One RuleSet, ready to be asked. Immutable but for its memo."""

    def __init__(self, ruleset: RuleSet) -> None:
        self.ruleset = ruleset
        self._index = Index(ruleset.rules)
        self._hosts = self._index.hosts
        self._named = Named(ruleset.rules)
        self._young: dict[tuple[str, str, str], Matched | _Undecided] = {}
        self._old: dict[tuple[str, str, str], Matched | _Undecided] = {}
        self._passing: dict[int, tuple[Rule, Rule]] = {}
        """By a rule's id: the rule, held so that its id stays its own, and as it is when it passes."""

    def match(self, request: RequestHead) -> Matched:
        """The first rule that matches, with the named parts of the path; PLAIN where none does."""
        key = (request.method, request.host if self._hosts else "", request.path)
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                found = self._find(*key)
            if len(key[0]) + len(key[1]) + len(key[2]) <= MEMO_PATH:
                self._remember(key, found)
        return found if type(found) is Matched else self._decide(found, request)  # type: ignore[arg-type]

    def candidates(self, host: str | None, path: str) -> list[Matched]:
        """All rules whose path and host match, in order, whatever their other conditions. No host: any."""
        leaves = self._index.leaves(host_name(host) if host else None, path)
        rows = _in_order([rows for leaf in leaves for rows in leaf.rows()])
        return [matched for _, matched in self._fitting(rows, path, passes=has_dot_segment(path))]

    def evades(self, host: str, path: str) -> bool:
        """Whether an origin may take ``path`` for one that an earlier rule is about."""
        read = other_reading(path)
        if read is None:
            return False
        rules = self.ruleset.rules
        here, there = (self._numbers(host, each) for each in (path, read))
        decides = next((number for number in here if not _asks_more(rules[number])), maxsize)
        return any(number < decides and number not in here for number in there)

    def _numbers(self, host: str, path: str) -> list[int]:
        """The rules whose host and path match."""
        leaves = self._index.leaves(host_name(host) if host else "", path)
        rows = _in_order([rows for leaf in leaves for rows in leaf.rows()])
        return [n for n in rows if path_parts(self.ruleset.rules[n].match.paths, path) is not None]

    def _remember(self, key: tuple[str, str, str], found: Matched | _Undecided) -> None:
        if len(self._young) >= MEMO // 2:
            self._old = self._young
            self._young = {}
        self._young[key] = found

    def _find(self, method: str, host: str, path: str) -> Matched | _Undecided:
        leaves = self._index.leaves(host_name(host) if host else "", path)
        evades = self.evades(host, path)
        if not leaves:
            return Matched(self._as_passing(PLAIN)) if evades else _NONE
        passes = evades or has_dot_segment(path)
        lists, gated = [], []
        for leaf in leaves:
            if leaf.open:
                lists.append(leaf.open)
            if leaf.by_method:
                lists.append(leaf.by_method.get(method, []))
            if leaf.gates:
                gated.append(leaf)
        steps = []
        last, at = Matched(self._as_passing(PLAIN)) if evades else _NONE, maxsize
        rules = self.ruleset.rules
        for number in _in_order(lists):
            match = rules[number].match
            parts = path_parts(match.paths, path)
            if parts is None:
                continue
            matched = self._matched(rules[number], parts, passes=passes)
            if not (match.headers or match.cookies or match.query):
                last, at = matched, number
                break
            steps.append((number, matched))
        return _Undecided(steps, gated, at, last, passes=passes) if steps or gated else last

    def _decide(self, found: _Undecided, request: RequestHead) -> Matched:
        opened = found.others
        names = request.headers.names()
        for shut in found.shut:
            if not shut(names):
                opened = True
        decided = found.last
        for _, matched in self._all_steps(found, request) if opened else found.steps:
            if losing_condition(matched.rule.match, request) is None:
                decided = matched
                break
        if self._named.twice(request):
            return replace(decided, rule=self._as_passing(decided.rule))
        return decided

    def _all_steps(self, found: _Undecided, request: RequestHead) -> list[tuple[int, Matched]]:
        """With those behind the gates that the request opens."""
        lists = [rows for leaf in found.gated for rows in leaf.opened(request)]
        before = [number for number in _in_order(lists) if number < found.number]
        fitting = self._fitting(before, request.path, passes=found.passes)
        return sorted([*found.steps, *fitting], key=_number)

    def _fitting(self, numbers: Iterable[int], path: str, *, passes: bool) -> Iterator[tuple[int, Matched]]:
        """Those whose path matches. The index has seen to the host."""
        for number in numbers:
            rule = self.ruleset.rules[number]
            parts = path_parts(rule.match.paths, path)
            if parts is not None:
                yield number, self._matched(rule, parts, passes=passes)

    def _matched(self, rule: Rule, parts: dict[str, str], *, passes: bool) -> Matched:
        return Matched(self._as_passing(rule) if passes else rule, parts)

    def _as_passing(self, rule: Rule) -> Rule:
        """One for all paths: what is remembered by rule (front/plans.py) must not grow with paths."""
        held = self._passing.get(id(rule))
        if held is None:
            held = self._passing[id(rule)] = (rule, passing(rule))
        return held[1]


def _asks_more(rule: Rule) -> bool:
    """Than host and path."""
    match = rule.match
    return bool(match.methods or match.headers or match.cookies or match.query)


def passing(rule: Rule) -> Rule:
    """The rule, but nothing is answered from the cache or kept."""
    return replace(rule, overrides=replace(rule.overrides, pass_=True))


def _in_order(lists: list[list[int]]) -> list[int]:
    """The numbers of all rows, each once."""
    return lists[0] if len(lists) == 1 else sorted({number for rows in lists for number in rows})


_number = itemgetter(0)


def has_dot_segment(path: str) -> bool:
    """Whether some server may take a segment of ``path`` for "." or ".."."""
    return ("." in path or "%" in path) and _DOT_SEGMENT.search(path) is not None


def path_parts(patterns: Sequence[PathPattern], path: str) -> dict[str, str] | None:
    """The named parts as the first matching pattern sees them; None if none matches."""
    if not patterns:
        return {}
    for pattern in patterns:
        if pattern.exact:
            if pattern.source == path:
                return {}
        elif path.startswith(pattern.literal):
            if pattern.deep:
                if path[len(pattern.literal) :][:1] in ("", "/"):
                    return {}
                continue
            if pattern.source.startswith("~") and len(path) > LONGEST:
                continue
            found = pattern.regex.fullmatch(path)
            if found is not None:
                return {k: v for k, v in found.groupdict().items() if v is not None}
    return None


def host_name(host: str) -> str:
    """``host`` without its port and without a closing dot."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host.removesuffix(":")).removesuffix(".")


def host_matches(hosts: Sequence[str], name: str) -> bool:
    """``name`` as host_name gives it."""
    return not hosts or any(
        name.endswith(h[1:]) and len(name) > len(h) - 1 if h.startswith("*") else name == h for h in hosts
    )
