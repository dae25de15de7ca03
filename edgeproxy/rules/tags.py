"""Tags: the names an answer can be purged by, and what an unsafe method purges.

Rules of this file:

- The rule's own templates come first, then what the answer's fields name, so that an origin that sends
  too many never crowds out the rule's.
- A template whose named part the path does not have is left out, never half filled.
- Bounded: MAX_TAGS tags and MOST_GROUPS groups of MAX_LENGTH octets each for one answer; what is beyond is
  left out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeproxy.policy.head import Headers
    from edgeproxy.rules.model import Rule

MAX_TAGS = 128
MOST_GROUPS = 128
"""Groups of one answer, beside its tags: RFC 9875 §2 wants so many to work, of 32 characters at least."""
MAX_LENGTH = 256

_NAMED = re.compile(r"\{(\w+)\}")
_SEPARATORS = re.compile(r"[ \t,]+")
_STRING = r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'
_PARAMETERS = (
    r"(?:; *[a-z*][a-z0-9_.*-]*"
    r'(?:=(?:-?\d+(?:\.\d+)?|@-?\d+|\?[01]|:[A-Za-z0-9+/=]*:|%?"(?:[^"\\]|\\.)*"|[A-Za-z*][!-+\--:<-~]*))?)*'
)
_GROUP = re.compile(rf"[ \t]*{_STRING}{_PARAMETERS}[ \t]*(?:,|$)")


Target = tuple[bool, str, str]
"""(soft, kind, value); kind is "tag", "url" or "prefix", and the last two are on the request's host."""


def tags_for(rule: Rule, parts: Mapping[str, str], headers: Headers) -> tuple[str, ...]:
    """The answer's tags, without repetition, in order."""
    if not rule.tags.templates and headers.isdisjoint(_set_of(rule.tags.from_headers)):
        return ()
    tags = list(_filled(rule.tags.templates, parts))
    groups: tuple[str, ...] = ()
    for name in rule.tags.from_headers:
        if name == "cache-groups":
            groups = _short(cache_groups(headers.get(name) or ""))[:MOST_GROUPS]
            continue
        for line in headers.get_all(name):
            tags += _SEPARATORS.split(line)
    return tuple(dict.fromkeys((*_short(tags)[:MAX_TAGS], *groups)))


@lru_cache(maxsize=256)
def _set_of(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


def _short(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(t for t in dict.fromkeys(tags) if 0 < len(t) <= MAX_LENGTH)


def cache_groups(line: str) -> tuple[str, ...]:
    """The strings of Cache-Groups or Cache-Group-Invalidation, all its lines joined (RFC 9875 §2, §3: a List
    of Strings); () if it is not one.

    Parameters are skipped. RFC 9651 §4.2: a field that does not parse is ignored as a whole.
    """
    groups: list[str] = []
    place = 0
    while place < len(line):
        found = _GROUP.match(line, place)
        if found is None:
            return ()
        groups.append(re.sub(r"\\(.)", r"\1", found[1]))
        place = found.end()
    return () if line.rstrip(" \t").endswith(",") else tuple(groups)


def invalidation_targets(rule: Rule, parts: Mapping[str, str], method: str) -> tuple[Target, ...]:
    """What ``method`` purges under ``rule`` when it succeeds, besides its own URL."""
    return tuple(
        (each.soft, kind, value)
        for each in rule.invalidates
        if method in each.methods
        for kind, templates in (("tag", each.tags), ("url", each.urls), ("prefix", each.prefixes))
        for value in _filled(templates, parts)
    )


def _filled(templates: Iterable[str], parts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        _NAMED.sub(lambda m: parts[m[1]], template) if "{" in template else template
        for template in templates
        if all(name in parts for name in _NAMED.findall(template))
    )
