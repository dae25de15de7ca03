"""Request -> the rule that answers for it: the first in order whose conditions all hold.

Rules of this file:

- The index only narrows: what it finds is checked against the patterns, in rule order, so the answer is
  that of a plain scan from the top (a test compares the two).
- The path is compared as it came over the wire, case and all; nothing is decoded.
- A path with a dot segment ("/static/..%2fapi/me", in any writing) is matched as it stands, but is never
  answered from the cache: the origin may take it for another path than the rule's author saw.
- Bounded memo; nothing here grows with traffic.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edgeproxy.key import cookies
from edgeproxy.rules.model import PLAIN, Matched
from edgeproxy.rules.patterns import extension, whole_segments
from edgeproxy.rules.safe_regex import LONGEST, matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import Match, PathPattern, Rule, RuleSet, ValueCondition

MEMO = 4096
MEMO_PATH = 256
"""Longer paths are not remembered, so that the memo's size is bounded in octets too."""

# Slashes, dots and semicolons may be percent-encoded, even twice; "..;" is ".." to servlet containers.
_DOT_SEGMENT = re.compile(
    r"(?:/|\\|%(?:25)*(?:2f|5c))(?:\.|%(?:25)*2e){1,2}(?:$|/|\\|;|%(?:25)*(?:2f|5c|3b))", re.IGNORECASE
)
_NONE = Matched(PLAIN)


class Matcher:
    """One RuleSet, ready to be asked. Immutable but for its memo."""

    def __init__(self, ruleset: RuleSet) -> None:
        self.ruleset = ruleset
        self._by_prefix: dict[str, list[int]] = {}
        self._by_extension: dict[str, list[int]] = {}
        self._anywhere: list[int] = []
        self._deepest = 0
        self._hosts = any(rule.match.hosts for rule in ruleset.rules)
        self._memo: dict[tuple[str, str], tuple[Matched, ...]] = {}
        for number, rule in enumerate(ruleset.rules):
            self._index(number, rule)

    def match(self, request: RequestHead) -> Matched:
        """The first rule that matches, with the named parts of the path; PLAIN where none does."""
        for matched in self._candidates(request.host, request.path):
            if losing_condition(matched.rule.match, request) is None:
                return matched
        return _NONE

    def candidates(self, host: str | None, path: str) -> list[Matched]:
        """All rules whose path and host match, in order, whatever their other conditions. No host: any."""
        return list(self._candidates(host, path) if host else self._find(None, path))

    def _index(self, number: int, rule: Rule) -> None:
        if not rule.match.paths:
            self._anywhere.append(number)
        for pattern in rule.match.paths:
            ending = extension(pattern)
            prefix = whole_segments(pattern)
            if ending is not None:
                rows = self._by_extension.setdefault(ending, [])
            elif prefix:
                rows = self._by_prefix.setdefault(prefix, [])
                self._deepest = max(self._deepest, prefix.count("/"))
            else:
                rows = self._anywhere
            if not rows or rows[-1] != number:
                rows.append(number)

    def _candidates(self, host: str, path: str) -> tuple[Matched, ...]:
        name = host_name(host) if self._hosts else ""
        known = self._memo.get((name, path))
        if known is not None:
            return known
        found = tuple(self._find(name, path))
        if len(path) + len(name) <= MEMO_PATH:
            if len(self._memo) >= MEMO:
                self._memo.clear()
            self._memo[name, path] = found
        return found

    def _find(self, name: str | None, path: str) -> Iterable[Matched]:
        dotted = has_dot_segment(path)
        for number in self._narrow(path):
            rule = self.ruleset.rules[number]
            parts = path_parts(rule.match.paths, path)
            if parts is not None and (name is None or host_matches(rule.match.hosts, name)):
                if dotted:
                    rule = replace(rule, overrides=replace(rule.overrides, pass_=True))
                yield Matched(rule, parts)

    def _narrow(self, path: str) -> Sequence[int]:
        lists = [self._anywhere] if self._anywhere else []
        if self._by_prefix:
            end = path.find("/", 1)
            for _ in range(self._deepest):
                rows = self._by_prefix.get(path if end < 0 else path[:end])
                if rows is not None:
                    lists.append(rows)
                if end < 0:
                    break
                end = path.find("/", end + 1)
        if self._by_extension:
            rows = self._by_extension.get(path.rpartition("/")[2].rpartition(".")[2])
            if rows is not None:
                lists.append(rows)
        if len(lists) == 1:
            return lists[0]
        return sorted({number for rows in lists for number in rows})


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


def losing_condition(match: Match, request: RequestHead) -> str | None:
    """Which condition besides path and host does not hold ("method", "header x-beta"), or None."""
    methods = match.methods
    if methods and request.method not in methods and not (request.method == "HEAD" and "GET" in methods):
        return "method"
    for condition in match.headers:
        if not _holds(condition, request.headers.get_all(condition.name)):
            return f"header {condition.name}"
    if match.cookies:
        jar = cookies(request)
        for condition in match.cookies:
            value = jar.get(condition.name)
            if not _holds(condition, () if value is None else (value,)):
                return f"cookie {condition.name}"
    if match.query:
        given = parameters(request.query)
        for condition in match.query:
            if not _holds(condition, given.get(condition.name, ())):
                return f"query {condition.name}"
    return None


def parameters(query: str | None) -> dict[str, list[str]]:
    """Percent-decoded, each octet one character, as in key.py."""
    found: dict[str, list[str]] = {}
    for pair in (query or "").split("&"):
        name, _, value = pair.partition("=")
        if pair:
            found.setdefault(unquote(name, "latin-1"), []).append(unquote(value, "latin-1"))
    return found


def _holds(condition: ValueCondition, values: Sequence[str]) -> bool:
    """Of a repeated field any value may satisfy; that it is absent, none."""
    if not values:
        return not condition.present
    if not condition.present:
        return False
    if condition.regex is not None:
        return any(matches(condition.regex, value.strip()) for value in values)
    return not condition.values or any(value.strip() in condition.values for value in values)
