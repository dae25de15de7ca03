"""The index over a rule set: which few rules can match a request at all, however many there are.

Rules of this file:

- It only narrows; match.py checks what it gives. No rule that could match is ever left out.
- Path first: by whole leading segments, by the literal beginning where that ends within a segment, by
  extension, else "anywhere". Beneath that by host, and beneath that by what a request must have: a method, or
  one header field, cookie or query parameter that the rule asks for (a *gate*). A request without it never
  walks these rules.
- A rule stands once beneath each of its paths and hosts. Rows of numbers are in rule order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from edgeproxy.policy.lists import OWS
from edgeproxy.rules.conditions import KINDS, given
from edgeproxy.rules.patterns import extension, whole_segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import Match, PathPattern, Rule, ValueCondition

Rows = list[int]
Gates = dict[str, dict[str, "Gate"]]
"""Kind ("headers") -> name -> who needs it."""


@final
class Gate:
    """Who needs one field, cookie or parameter: with one of these values, or with some other check."""

    __slots__ = ("by_value", "others")

    def __init__(self) -> None:
        self.by_value: dict[str, Rows] = {}
        self.others: Rows = []


@final
class Leaf:
    """The rules beneath one path key and one host key."""

    __slots__ = ("by_method", "gates", "open")

    def __init__(self) -> None:
        self.open: Rows = []
        self.by_method: dict[str, Rows] = {}
        self.gates: Gates = {}

    def add(self, number: int, match: Match) -> None:
        found = _gate(match)
        if found is None:
            if not match.methods:
                _append(self.open, number)
            for method in match.methods:
                _append(self.by_method.setdefault(method, []), number)
            if "GET" in match.methods:
                _append(self.by_method.setdefault("HEAD", []), number)
            return
        kind, condition = found
        gate = self.gates.setdefault(kind, {}).setdefault(condition.name, Gate())
        if condition.regex is not None or not condition.values:
            _append(gate.others, number)
            return
        for value in condition.values:
            _append(gate.by_value.setdefault(value, []), number)

    def rows(self) -> Iterator[Rows]:
        """All of them."""
        yield self.open
        yield from self.by_method.values()
        for named in self.gates.values():
            for gate in named.values():
                yield gate.others
                yield from gate.by_value.values()

    def opened(self, request: RequestHead) -> Iterator[Rows]:
        """The rows behind gates for which the request has the key."""
        for kind, named in self.gates.items():
            if kind == "headers" and named.keys().isdisjoint(request.headers.names()):
                continue  # nearly always; each costs the shorter of the two
            for name, values in given(kind, request):
                gate = named.get(name)
                if gate is not None:
                    yield gate.others
                    for value in values:
                        yield gate.by_value.get(value.strip(OWS), [])


@final
class _Bucket:
    """The rules beneath one path key. ``under``: those for all hosts beneath a suffix (".example")."""

    __slots__ = ("exact", "leaf", "under")

    def __init__(self) -> None:
        self.leaf: Leaf | None = None
        self.exact: dict[str, Leaf] = {}
        self.under: dict[str, Leaf] = {}

    def add(self, number: int, match: Match) -> None:
        if not match.hosts:
            self.leaf = self.leaf or Leaf()
            self.leaf.add(number, match)
        for host in match.hosts:
            leaves, key = (self.under, host[1:]) if host.startswith("*") else (self.exact, host)
            leaf = leaves.get(key)
            if leaf is None:
                leaf = leaves[key] = Leaf()
            leaf.add(number, match)


class Index:
    """Of the rules in order. ``hosts``: whether any of them has one."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.hosts = False
        self._anywhere = _Bucket()
        self._by_prefix: dict[str, _Bucket] = {}
        self._by_start: dict[str, _Bucket] = {}
        self._by_extension: dict[str, _Bucket] = {}
        self._lengths: tuple[int, ...] = ()
        self._deepest = 0
        self._labels = 0
        for number, rule in enumerate(rules):
            match = rule.match
            for host in match.hosts:
                self.hosts = True
                self._labels = max(self._labels, host.count("."))
            if not match.paths:
                self._anywhere.add(number, match)
            for pattern in match.paths:
                self._bucket(pattern).add(number, match)
        self._lengths = tuple(sorted({len(start) for start in self._by_start}))
        bucket = self._anywhere
        self._always = (bucket,) if bucket.leaf or bucket.exact or bucket.under else ()

    def leaves(self, name: str | None, path: str) -> list[Leaf]:
        """Those that may hold a rule for the host ``name`` (None: for any) and the path."""
        found: list[Leaf] = []
        for bucket in self._buckets(path):
            if bucket.leaf is not None:
                found.append(bucket.leaf)
            if name is None:
                found += (*bucket.exact.values(), *bucket.under.values())
            elif bucket.exact or bucket.under:
                self._by_host(bucket, name, found)
        return found

    def _by_host(self, bucket: _Bucket, name: str, found: list[Leaf]) -> None:
        leaf = bucket.exact.get(name)
        if leaf is not None:
            found.append(leaf)
        if bucket.under:
            end = len(name)
            for _ in range(self._labels):
                end = name.rfind(".", 0, end)
                if end <= 0:
                    break
                leaf = bucket.under.get(name[end:])
                if leaf is not None:
                    found.append(leaf)

    def _bucket(self, pattern: PathPattern) -> _Bucket:
        ending = extension(pattern)
        prefix = whole_segments(pattern)
        start = pattern.literal
        if ending is not None:
            buckets, key = self._by_extension, ending
        elif len(start) > len(prefix) + 1:
            buckets, key = self._by_start, start
        elif prefix:
            buckets, key = self._by_prefix, prefix
            self._deepest = max(self._deepest, prefix.count("/"))
        else:
            return self._anywhere
        found = buckets.get(key)
        if found is None:
            found = buckets[key] = _Bucket()
        return found

    def _buckets(self, path: str) -> list[_Bucket]:
        found = [*self._always]
        if self._by_prefix:
            by_prefix = self._by_prefix
            end = path.find("/", 1)
            for _ in range(self._deepest):
                bucket = by_prefix.get(path if end < 0 else path[:end])
                if bucket is not None:
                    found.append(bucket)
                if end < 0:
                    break
                end = path.find("/", end + 1)
        for length in self._lengths:
            if length > len(path):
                break
            bucket = self._by_start.get(path[:length])
            if bucket is not None:
                found.append(bucket)
        if self._by_extension:
            bucket = self._by_extension.get(path.rpartition("/")[2].rpartition(".")[2])
            if bucket is not None:
                found.append(bucket)
        return found


def _gate(match: Match) -> tuple[str, ValueCondition] | None:
    """The condition that lets the fewest in: one with values, else any that must be there."""
    there = [(kind, each) for kind in KINDS for each in getattr(match, kind) if each.present]
    return next((found for found in there if found[1].values), there[0] if there else None)


def _append(rows: Rows, number: int) -> None:
    if not rows or rows[-1] != number:
        rows.append(number)
