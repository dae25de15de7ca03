"""What rules have earned, and what to change, from what the workers have counted.

Rules of this file:

- ``added`` puts together what several workers tell; all of it is sums.
- A suggestion has its evidence with it, and is made only where there is enough of it. Its line can be put
  into the rule as it stands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgeproxy.earned.intervals import suggested_ttl
from edgeproxy.earned.splits import COOKIE, QUERY, useless
from edgeproxy.key import SECRET
from edgeproxy.rules.values import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeproxy.rules.model import Rule, RuleSet

LEAST_WATCHED = 50
MOSTLY = 0.8
"""Of watched objects that expired unread: from here on it is worth a word."""
_NAME = re.compile(r"[A-Za-z0-9_.*\[\]-]{1,100}")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_RESERVED = frozenset({"on", "off", "yes", "no", "true", "false", "null", "y", "n"})
FACTOR = 1.5
"""A ttl that differs by less is left alone."""


def added(tolds: Iterable[Any]) -> Any:
    """Numbers, lists and mappings of them, added up; {} of none."""
    total: Any = {}
    for told in tolds:
        total = _sum(total, told) if total else told
    return total


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, dict):
        both = {key: _sum(a[key], b[key]) for key in a.keys() & b.keys()}
        return {**a, **b, **both}
    if isinstance(a, list):
        return [_sum(x, y) for x, y in zip(a, b, strict=True)]
    return a + b


def savings(told: Mapping[str, Any], ruleset: RuleSet) -> dict[str, Any]:
    """``told`` is Ledger.told with ``tally`` beside it: rule -> requests, hits, passes, seconds and octets
    saved."""
    rules = {rule.name: rule for rule in ruleset.rules}
    rows: dict[str, Any] = {}
    ledgers = told.get("rules", {})
    for name, counted in told.get("tally", {}).items():
        ledger = dict(ledgers.get(name) or {})
        intervals = ledger.pop("intervals", None)
        if not counted["requests"] and not ledger:
            continue
        rule = rules.get(name)
        asked = counted["requests"] - counted["passes"]
        rows[name] = {
            "at": rule.at if rule else None,
            **counted,
            "hit_ratio": round(counted["hits"] / asked, 4) if asked else None,
            **ledger,
            "suggestions": [] if rule is None else _of_ttl(rule, ledger, intervals),
        }
    return {"version": ruleset.version, "rules": rows}


def _of_ttl(rule: Rule, ledger: Mapping[str, int], intervals: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    ttl = rule.overrides.ttl
    better = None if intervals is None else suggested_ttl(intervals)
    looks, changed = ledger.get("looks", 0), ledger.get("changed", 0)
    # What never changed may be kept for longer; that it may not is nothing that looks could have shown.
    if better is not None and ttl and (better / ttl > FACTOR or (changed and ttl / better > FACTOR)):
        if better > ttl:
            said = f"{looks - changed} of {looks} looks after it found nothing new"
        else:
            said = f"{changed} of {looks} looks found something new, {ledger['at_once']} of them at once"
        found.append(
            {"was": f"ttl: {show_duration(ttl)}", "line": f"ttl: {show_duration(better)}", "why": said}
        )
    watched = ledger.get("read", 0) + ledger.get("unread", 0)
    if watched >= LEAST_WATCHED and ledger["unread"] > MOSTLY * watched:
        said = (
            f"{ledger['unread']} of {watched} watched objects expired unread: few of them are worth storing"
        )
        found.append({"was": "", "line": "", "why": said})
    return found


def doctor(told: Mapping[str, Any], ruleset: RuleSet) -> dict[str, Any]:
    """What splits the cache without changing the answer, by rule, each with the line to write."""
    found = []
    for rule in ruleset.rules:
        useful = useless(told.get("splits", {}).get(rule.name, {}))
        names = [each for each in useful if each[1] not in SECRET and _NAME.fullmatch(each[1])]
        parameters = [(name, n) for kind, name, n in names if kind == QUERY]
        if parameters:
            line = _query_line(rule, [name for name, _ in parameters])
            found.append(_finding(rule, "query", parameters, line))
        fields = [(name, n) for kind, name, n in names if kind not in (QUERY, COOKIE)]
        keyed = [(name, n) for name, n in fields if name in rule.key.headers]
        varied = [(name, n) for name, n in fields if name not in rule.key.headers]
        cookies = [(name, n) for kind, name, n in names if kind == COOKIE]
        if keyed:
            left = [name for name in rule.key.headers if name not in dict(keyed)]
            found.append(_finding(rule, "header", keyed, f"key: {{headers: [{', '.join(left)}]}}"))
        if cookies:
            left = [name for name in rule.key.cookies if name not in dict(cookies)]
            found.append(_finding(rule, "cookie", cookies, f"key: {{cookies: [{', '.join(left)}]}}"))
        if varied:
            line = ", ".join(f"{name}: [any]" for name, _ in varied)
            found.append(_finding(rule, "vary", varied, f"normalise: {{{line}}}"))
    return {"version": ruleset.version, "findings": found}


def _finding(rule: Rule, kind: str, names: list[tuple[str, int]], line: str) -> dict[str, Any]:
    return {
        "rule": {"name": rule.name, "at": rule.at},
        "kind": kind,
        "names": [name for name, _ in names],
        "pairs": dict(names),
        "line": line,
    }


def _query_line(rule: Rule, names: list[str]) -> str:
    """Beside what the rule says of the query already."""
    policy = rule.key
    said = []
    if policy.query_allow is not None:
        left = [name for name in policy.query_allow if name not in names]
        said.append(f"allow: [{', '.join(map(_quoted, left))}]")
    if policy.query_allow is None or policy.query_ignore:
        said.append(f"ignore: [{', '.join(map(_quoted, sorted({*policy.query_ignore, *names})))}]")
    if policy.sort:
        said.append("sort: true")
    return f"key: {{query: {{{', '.join(said)}}}}}"


def _quoted(name: str) -> str:
    """As YAML reads it back."""
    return name if _PLAIN.fullmatch(name) and name.lower() not in _RESERVED else f'"{name}"'
