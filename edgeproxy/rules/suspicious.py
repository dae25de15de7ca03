"""Rules that share with all clients what traffic shows to have been for one.

Rules of this file: only with evidence, that is, requests that were seen; where a URL does not tell which rule
answers, nothing is said.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgeproxy.policy.head import RequestHead
from edgeproxy.policy.stored import Unsafe
from edgeproxy.policy.vocabulary import NotStored
from edgeproxy.rules.lint import Finding, Kind
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.possible import possible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeproxy.rules.model import Rule, RuleSet
    from edgeproxy.rules.seen import Seen

_SHARED = {
    NotStored.AUTHORIZATION.value: (Unsafe.AUTHORIZATION, "had Authorization"),
    NotStored.RESPONSE_PRIVATE.value: (Unsafe.PRIVATE, "had answers that say private"),
    NotStored.SET_COOKIE.value: (Unsafe.SET_COOKIE, "had answers that set cookies"),
    NotStored.RESPONSE_NO_STORE.value: (Unsafe.NO_STORE, "had answers that say no-store"),
}
"""Why an answer was not stored, as the log has it: the word with which a rule shares it all the same."""


def suspicious(ruleset: RuleSet, seen: Iterable[Seen], mask: str = "") -> list[Finding]:
    """Rules that would share, with all clients, what traffic shows to have been for one. Where a URL does not
    tell which rule answers, nothing is said. ``mask``: a query value that stands for any other."""
    matcher = Matcher(ruleset)
    counts: Counter[tuple[str, str]] = Counter()
    for each in seen:
        word = _SHARED.get(each.reason)
        if word is None or each.method not in ("GET", "HEAD"):
            continue
        found = possible(matcher, RequestHead("GET", "http", each.host, each.target), mask)
        rule = found[0][1].rule
        if len(found) == 1 and word[0] in rule.overrides.unsafe and shares_with_all(rule):
            counts[rule.name, each.reason] += 1
    return _told(ruleset, counts, "in the log")


def seen_live(ruleset: RuleSet, authorized: Mapping[str, int]) -> list[Finding]:
    """The same of a running edgeproxy, which counts answers stored to requests with Authorization by rule."""
    counts = {(name, NotStored.AUTHORIZATION.value): n for name, n in authorized.items()}
    return _told(ruleset, counts, "that were answered")


def shares_with_all(rule: Rule) -> bool:
    """Whether all clients get the same: nothing about them is in the key."""
    overrides = rule.overrides
    return not (overrides.pass_ or overrides.no_store or rule.key.headers or rule.key.cookies)


def _told(ruleset: RuleSet, counts: Mapping[tuple[str, str], int], where: str) -> list[Finding]:
    rules = {rule.name: rule for rule in ruleset.rules}
    found = []
    for (name, reason), n in sorted(counts.items()):
        rule = rules.get(name)
        if rule is None or not shares_with_all(rule):
            continue
        unsafe, said = _SHARED[reason]
        found.append(
            Finding(
                Kind.SUSPICIOUS, name, rule.at,
                f"unsafe: [{unsafe.value}] gives all clients one answer, and {n:,} "
                f"request{'' if n == 1 else 's'} on its paths {where} {said}",
            )
        )  # fmt: skip
    return found
