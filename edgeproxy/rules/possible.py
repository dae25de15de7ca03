"""Under which rules a request may fall of which only method, host and target are known.

Rules of this file:

- Conditions on fields and cookies cannot be told from a URL, nor those on a masked query value: they stay
  open, and every rule that some request with this URL falls under is named, with the conditions.
- All else is asked of the matcher and of losing_condition: nothing is decided here a second time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from edgeproxy.rules.conditions import losing_condition, parameters
from edgeproxy.rules.model import PLAIN, Matched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.match import Matcher
    from edgeproxy.rules.model import Match, ValueCondition

Open = tuple[str, "ValueCondition"]
"""A condition that the URL does not answer: "header", "cookie" or "query", and what is asked."""
Possible = tuple[frozenset[Open], Matched]

_PLAIN: Possible = (frozenset(), Matched(PLAIN))


def possible(matcher: Matcher, request: RequestHead, mask: str = "") -> list[Possible]:
    """In rule order, the last one with nothing open. ``mask``: a query value that stands for any other."""
    found: list[Possible] = []
    # "-" is no host of any rule; without one the matcher would take every host.
    for matched in matcher.candidates(request.host or "-", request.path):
        match = matched.rule.match
        if losing_condition(_known(match), request) is not None:
            continue
        still = {("header", each) for each in match.headers} | {("cookie", each) for each in match.cookies}
        hidden = _hidden(match, request, mask) if match.query else frozenset()
        asked = replace(match, headers=(), cookies=(), query=tuple(q for q in match.query if q not in hidden))
        if match.query and losing_condition(asked, request) is not None:
            continue
        still |= {("query", each) for each in hidden}
        found.append((frozenset(still), matched))
        if not still:
            return found
    return [*found, _PLAIN]


def together(
    old: Sequence[Possible], new: Sequence[Possible]
) -> list[tuple[frozenset[Open], Matched, Matched]]:
    """Each pair of rules that one and the same request may fall under, with what is then asked of it."""
    pairs = []
    for i, (old_open, before) in enumerate(old):
        for j, (new_open, after) in enumerate(new):
            asked = old_open | new_open
            taken = any(o <= asked for o, _ in old[:i]) or any(o <= asked for o, _ in new[:j])
            if not taken and not _contradictory(asked):
                pairs.append((asked, before, after))
    return pairs


def show_open(asked: frozenset[Open]) -> list[str]:
    """In words, as "header x-beta: present", in order."""
    return sorted(f"{kind} {condition.name}: {show_condition(condition)}" for kind, condition in asked)


def show_condition(condition: ValueCondition) -> str:
    if not condition.present:
        return "absent"
    if condition.regex is not None:
        return f"~{condition.regex.pattern}"
    return " or ".join(sorted(condition.values)) or "present"


@lru_cache(maxsize=4096)
def _known(match: Match) -> Match:
    return replace(match, headers=(), cookies=(), query=())


def _hidden(match: Match, request: RequestHead, mask: str) -> frozenset[ValueCondition]:
    if not mask or mask not in (request.query or ""):
        return frozenset()
    given = parameters(request.query)
    return frozenset(
        each
        for each in match.query
        if each.present and (each.values or each.regex is not None) and mask in given.get(each.name, ())
    )


def _contradictory(asked: frozenset[Open]) -> bool:
    """Something that must be there and must not."""
    there = {(kind, condition.name) for kind, condition in asked if condition.present}
    return any((kind, condition.name) in there for kind, condition in asked if not condition.present)
