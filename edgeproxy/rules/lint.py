"""Rules that are right and do not mean what they seem to: never reached, crossing, or about what hardly is.

Rules of this file:

- No false alarms. A rule is called dead only where it is proven that earlier rules take every request that it
  matches (cover.py); what cannot be proven is not said.
- A rule is taken apart by path, host and method; each part must be covered by the paths, together, of earlier
  rules whose other conditions all follow from its own.
- Crossing rules are worth a note only where they decide otherwise, and where none is the narrower one: the
  particular before the general is how rules are meant to be written.
- Any token may be a method; one that is not registered is a warning, since most often it is a misspelt one.
- Bounded, and it is said when that was not enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING

from edgeproxy.policy.stored import Unsafe
from edgeproxy.rules.compare import FIELDS
from edgeproxy.rules.cover import ANYTHING, covered, sample, shared
from edgeproxy.rules.match import host_matches, path_parts
from edgeproxy.rules.safe_regex import matches
from edgeproxy.rules.values import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgeproxy.rules.model import Match, PathPattern, Rule, RuleSet, ValueCondition

MOST_LOOKS = 300_000
"""Pairs of patterns that are looked at for what is never reached."""
MOST_PAIRS = 2000
"""Pairs of rules that are compared for overlaps."""
MOST_TOGETHER = 16
"""Earlier patterns that are taken together to cover one."""
MOST_CROSSINGS = 50
MOST_BEFORE = 2000
"""Earlier patterns that are looked at for one; with more beginnings alike, nothing is claimed of the rest."""


class Kind(StrEnum):
    """What is found. The words are those of ``check --format json`` and of SARIF."""

    DEAD = "dead-rule"
    DEAD_PATH = "dead-path"
    METHOD = "unknown-method"
    HOSTS = "shared-hosts"
    CROSSING = "overlapping-rules"
    SUSPICIOUS = "suspicious-rule"
    UNFINISHED = "not-all-compared"


WARNINGS = frozenset({Kind.DEAD, Kind.DEAD_PATH, Kind.METHOD, Kind.HOSTS, Kind.SUSPICIOUS})
"""The rest are notes."""

Place = tuple[str, str]
"""Name and "file.yaml:2"."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``at``: where it stands ("" for the whole rule set); ``others``: the rules it has to do with."""

    kind: Kind
    rule: str
    at: str
    message: str
    others: tuple[Place, ...] = ()

    def __str__(self) -> str:
        level = "warning" if self.kind in WARNINGS else "note"
        said = f"{level}: {self.rule}: {self.message}" if self.rule else f"{level}: {self.message}"
        return f"{self.at}: {said}" if self.at else said


def lint(ruleset: RuleSet) -> list[Finding]:
    """What the files alone show, in rule order."""
    found: list[Finding] = []
    dead: set[str] = set()
    for finding in _never_reached(ruleset.rules):
        found.append(finding)
        if finding.kind is Kind.DEAD:
            dead.add(finding.rule)
    for rule in ruleset.rules:
        found += _unknown_methods(rule)
        if _shares_hosts(rule):
            found.append(Finding(Kind.HOSTS, rule.name, rule.at, _SHARES_HOSTS))
    found += _crossings([rule for rule in ruleset.rules if rule.name not in dead])
    return found


# -- never reached ------------------------------------------------------------------------------------------


def _never_reached(rules: Sequence[Rule]) -> Iterator[Finding]:
    by_start: dict[str, list[tuple[Rule, PathPattern]]] = {}
    looks = 0
    for rule in rules:
        if _contradicts(rule.match):
            yield Finding(
                Kind.DEAD, rule.name, rule.at, "never reached: its conditions contradict each other"
            )
            continue
        parts = rule.match.paths or (ANYTHING,)
        before = [_before(by_start, path) for path in parts]
        looks += sum(map(len, before))
        if looks > MOST_LOOKS:
            yield Finding(Kind.UNFINISHED, "", "", f"too many rules to look behind {rule.name} ({rule.at})")
            return
        shadows = [_shadow(rule.match, path, each) for path, each in zip(parts, before, strict=True)]
        if all(shadow is not None for shadow in shadows):
            places = tuple(dict.fromkeys(place for shadow in shadows for place in shadow or ()))
            said = f"never reached: {_named(places)} {'take' if len(places) > 1 else 'takes'} all it matches"
            yield Finding(Kind.DEAD, rule.name, rule.at, said, places)
        else:
            for path, shadow in zip(parts, shadows, strict=True):
                if shadow is not None:
                    said = f'its path "{path.source}" is never reached: {_named(shadow)} before it'
                    yield Finding(Kind.DEAD_PATH, rule.name, rule.at, said, shadow)
        for path in rule.match.paths or (ANYTHING,):
            by_start.setdefault(path.literal, []).append((rule, path))


def _before(
    by_start: Mapping[str, list[tuple[Rule, PathPattern]]], path: PathPattern
) -> list[tuple[Rule, PathPattern]]:
    """Those that could cover ``path``: what they begin with, it begins with too."""
    start = path.literal
    found = [each for end in range(len(start) + 1) for each in by_start.get(start[:end], ())]
    return found[-MOST_BEFORE:]


def _shadow(
    match: Match, path: PathPattern, before: list[tuple[Rule, PathPattern]]
) -> tuple[Place, ...] | None:
    """The rules that take every request of ``match`` on ``path``; None where that is not proven."""
    weaker = [(rule, each) for rule, each in before if _follows(rule.match, match)]
    places: list[Place] = []
    for host, method in product(match.hosts or (None,), _methods(match)):
        fitting = [
            (rule, each)
            for rule, each in weaker
            if _takes_host(rule.match, host) and _takes_method(rule.match, method)
        ]
        used = _covering(path, fitting)
        if used is None:
            return None
        places += used
    return tuple(dict.fromkeys(places))


def _covering(path: PathPattern, fitting: list[tuple[Rule, PathPattern]]) -> list[Place] | None:
    one = sample(path)
    near = fitting if one is None else [found for found in fitting if path_parts([found[1]], one) is not None]
    for rule, each in near:
        if covered(path, [each]):
            return [(rule.name, rule.at)]
    several = [*near, *(found for found in fitting if found not in near)][:MOST_TOGETHER]
    if not near or len(several) < 2 or not covered(path, [each for _, each in several]):
        return None
    for spare in list(several):  # no more of them than it takes
        rest = [each for each in several if each is not spare]
        if rest and covered(path, [each for _, each in rest]):
            several = rest
    return [(rule.name, rule.at) for rule, _ in several]


def _methods(match: Match) -> tuple[str | None, ...]:
    """None: any. GET covers HEAD."""
    if not match.methods:
        return (None,)
    return tuple(sorted(match.methods | ({"HEAD"} if "GET" in match.methods else set())))


def _takes_method(match: Match, method: str | None) -> bool:
    return not match.methods or (method is not None and method in _methods(match))


def _takes_host(match: Match, host: str | None) -> bool:
    if not match.hosts or host is None:
        return not match.hosts
    if not host.startswith("*"):
        return host_matches(match.hosts, host)
    return any(each.startswith("*") and host[1:].endswith(each[1:]) for each in match.hosts)


def _conditions(match: Match) -> list[tuple[str, ValueCondition]]:
    return [(kind, each) for kind in ("headers", "cookies", "query") for each in getattr(match, kind)]


def _follows(wide: Match, narrow: Match) -> bool:
    """Whether each of the fields, cookies and parameters that ``wide`` asks for is there wherever those of
    ``narrow`` are."""
    given = _conditions(narrow)
    return all(
        any(kind == other and _implies(has, asks) for other, has in given) for kind, asks in _conditions(wide)
    )


def _implies(has: ValueCondition, asks: ValueCondition) -> bool:
    if has.name != asks.name or has.present != asks.present:
        return False
    if not asks.present or not (asks.values or asks.regex):
        return True
    if asks.regex is not None:
        if has.regex is not None:
            return has.regex == asks.regex
        return bool(has.values) and all(matches(asks.regex, each) for each in has.values)
    return has.regex is None and bool(has.values) and has.values <= asks.values


def _contradicts(match: Match) -> bool:
    """Something must be there and must not."""
    there = {(kind, each.name) for kind, each in _conditions(match) if each.present}
    return any((kind, each.name) in there for kind, each in _conditions(match) if not each.present)


# -- methods ------------------------------------------------------------------------------------------------


def _unknown_methods(rule: Rule) -> Iterator[Finding]:
    asked = [("match.method", rule.match.methods), *(("invalidates.on", i.methods) for i in rule.invalidates)]
    for key, methods in asked:
        for name in sorted(methods - METHODS - _OF_CACHES):
            meant = _meant(name)
            hint = f"; did you mean {meant}?" if meant else ""
            yield Finding(
                Kind.METHOD, rule.name, rule.at, f"{key}: {name} is no registered HTTP method{hint}"
            )


def _meant(name: str) -> str:
    import difflib  # noqa: PLC0415 - for a mistake alone

    # Methods of one's own are no misspelt ones of these: so rather near.
    near = (difflib.get_close_matches(name, each, n=1, cutoff=0.65) for each in (_USUAL, sorted(METHODS)))
    return next((found[0] for found in near if found), "")


_OF_CACHES = frozenset({"PURGE", "BAN", "REFRESH"})
"""Registered by nobody and known to everybody who has run a cache before."""
_USUAL = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")


# -- hosts --------------------------------------------------------------------------------------------------

_SHARES_HOSTS = (
    "key: {host: false} gives what one host answers to clients of all others, and a client may send any; "
    "name those that are one site under match: {host: [...]}, or accept it with unsafe: [any_host]"
)


def _shares_hosts(rule: Rule) -> bool:
    overrides = rule.overrides
    if rule.key.host or overrides.pass_ or overrides.no_store or Unsafe.ANY_HOST in overrides.unsafe:
        return False
    named = any(each.name == "host" and _names_hosts(each) for each in rule.match.headers)
    return not (rule.match.hosts or named or "host" in rule.key.headers)


def _names_hosts(asked: ValueCondition) -> bool:
    """A regex that a made-up host matches too names none."""
    if asked.regex is None:
        return bool(asked.values)
    return not any(matches(asked.regex, each) for each in _MADE_UP_HOSTS)


_MADE_UP_HOSTS = ("qx7.made-up.invalid", "qx7.made-up.invalid:8080", "qx7")


# -- crossing -----------------------------------------------------------------------------------------------


def _crossings(rules: Sequence[Rule]) -> Iterator[Finding]:
    left, told = MOST_PAIRS, 0
    placed = sorted(
        ((path.literal, number, path) for number, rule in enumerate(rules) for path in rule.match.paths),
        key=lambda each: each[:2],
    )
    crossing: dict[tuple[int, int], str] = {}
    for at, (start, number, path) in enumerate(placed):
        if left < 0 or told >= MOST_CROSSINGS:
            break
        for literal, other, theirs in placed[at + 1 :]:
            if not literal.startswith(start):
                break  # in order: nothing further on begins so
            pair = (min(number, other), max(number, other))
            if number == other or pair in crossing or not _may_meet(rules[number], rules[other]):
                continue
            left -= 1
            if left < 0 or told >= MOST_CROSSINGS:
                break
            met = shared(path, theirs)
            if met is not None and not covered(path, [theirs]) and not covered(theirs, [path]):
                crossing[pair] = met
                told += 1
    for (first, second), met in sorted(crossing.items()):
        one, late = rules[first], rules[second]
        yield Finding(
            Kind.CROSSING, one.name, one.at,
            f"overlaps {late.name} ({late.at}), which decides otherwise: {met} matches both, and "
            f"{one.name} answers",
            ((late.name, late.at),),
        )  # fmt: skip
    if left < 0 or told >= MOST_CROSSINGS:
        yield Finding(Kind.UNFINISHED, "", "", "too many rules to look for all overlaps")


def _may_meet(one: Rule, other: Rule) -> bool:
    """Whether some request may fall under either, by all but the path, and it matters which. Where one asks
    for more than the other, it is the particular one."""
    a, b = one.match, other.match
    if _conditions(a) != _conditions(b) or a.methods != b.methods or a.hosts != b.hosts:
        return False
    return any(f.of(one) != f.of(other) for f in FIELDS)


def _named(places: Iterable[Place]) -> str:
    return ", ".join(f"{name} ({at})" for name, at in places)
