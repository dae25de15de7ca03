"""``edgeproxy diff``: every URL that two rule sets decide otherwise, grouped by the pair of rules.

Rules of this file:

- Nothing is guessed: what a URL does not tell (fields, cookies, the answer) is named, not assumed.
- Each distinct method, host and target is looked at once, however often it was asked for.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy import settings
from edgeproxy.cli.given import A_LOG, add_format, is_a_log, read_rules, say_refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from edgeproxy.cli.logged import Log
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.compare import Change
    from edgeproxy.rules.match import Matcher
    from edgeproxy.rules.model import Matched, Rule, RuleSet
    from edgeproxy.rules.possible import Open

SAMPLES = 5
"""URLs shown of each group."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "diff",
        help="say which URLs a change of the rules decides otherwise",
        description="Compare two rule sets: every URL whose decision changes (rule, key, tags, times, what "
        "clients are told, ...), grouped by old and new rule. Exact: where it hangs on request fields or on "
        "the answer, that is said. Without --urls and --log: the rules by name, and the URLs of the examples "
        "of both. Nothing is sent anywhere.",
        epilog="Exit 0: no change; 1: changes; 2: wrong usage, or rules or a file that cannot be read.",
    )
    parser.add_argument("old", metavar="OLD", help="rule files in force: a directory, a file or none")
    parser.add_argument("new", metavar="NEW", help="rule files to come: a directory, a file or none")
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--urls", metavar="FILE", help="a URL or path on each line, a method before it if not GET; - is stdin"
    )
    given.add_argument("--log", metavar="ACCESSLOG", help=A_LOG)
    parser.add_argument("--all", action="store_true", help=f"show every URL, not {SAMPLES} of each group")
    add_format(parser)
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Group:
    """The URLs of one pair of rules, with what must hold of a request besides."""

    old: Rule
    new: Rule
    when: list[str]
    urls: int = 0
    requests: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    samples: list[tuple[str, str, str, int]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "old": {"name": self.old.name, "at": self.old.at},
            "new": {"name": self.new.name, "at": self.new.at},
            "when": self.when,
            "urls": self.urls,
            "requests": self.requests,
            "changes": [
                {"field": c.field, "old": c.old, "new": c.new, "urls": n} for c, n in self.changes.items()
            ],
            "samples": [{"method": m, "host": h, "target": t, "requests": n} for m, h, t, n in self.samples],
        }

    def text(self) -> Iterator[str]:
        yield (
            f"{self.old.name} ({self.old.at}) -> {self.new.name} ({self.new.at}): "
            f"{_some(self.urls, 'URL')}, {_some(self.requests, 'request')}"
        )
        if self.when:
            yield f"  when      {'; '.join(self.when)}"
        for change, urls in self.changes.items():
            of = f"   ({_some(urls, 'URL')})" if urls != self.urls else ""
            yield f"  {change.field}: {change.old} -> {change.new}{of}"
        if not self.changes:
            yield "  the rule only: it decides the same"
        for method, host, target, requests in self.samples:
            yield f"    {requests:>7,}  {_shown(f'{method} {host}{target}')}"
        if len(self.samples) < self.urls:
            yield f"             and {self.urls - len(self.samples):,} more (--all shows them)"


def run(args: argparse.Namespace) -> int:
    from edgeproxy.cli.logged import Log  # noqa: PLC0415 - what only this command needs
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415

    log = Log(args.log) if args.log is not None else None
    try:
        old, new = _rules(args.old), _rules(args.new)
        if log is not None:
            asked = _logged(log)
        elif args.urls is not None:
            asked = _listed(args.urls)
        else:
            asked = None
    except (settings.SettingsError, RuleError) as error:
        say_refused(error)
        return 2
    if log is not None and not is_a_log(log):
        return 2
    comparison = Comparison(old, new, samples=sys.maxsize if args.all else SAMPLES)
    if asked is None:
        comparison.examples()
    else:
        comparison.urls(asked)
    rules = comparison.rules()
    # With URLs given, they are the question; rules that none of them meets are told, and change nothing.
    changed = bool(comparison.groups or (asked is None and any(rules.values())))
    printed = comparison.to_json(rules, log) if args.format == "json" else None
    if printed is not None:
        print(json.dumps(printed, indent=2))
    else:
        print("\n".join(comparison.text(rules, log, named=asked is None)))
    return 1 if changed else 0


class Comparison:
    """Gathers the groups. ``samples``: URLs kept of each."""

    def __init__(self, old: RuleSet, new: RuleSet, *, samples: int) -> None:
        from edgeproxy.rules.compare import pool_changes  # noqa: PLC0415
        from edgeproxy.rules.match import Matcher  # noqa: PLC0415

        self.old, self.new = old, new
        self.matchers: tuple[Matcher, Matcher] = Matcher(old), Matcher(new)
        self.pools = pool_changes(old, new)
        self.groups: dict[tuple[str, str, tuple[str, ...]], Group] = {}
        self.looked_at = 0
        self.requests = 0
        self._samples = samples

    def urls(self, asked: Counter[tuple[str, str, str, str]]) -> None:
        """(method, scheme, host, target) -> how often."""
        from edgeproxy.observe.access_log import MASK  # noqa: PLC0415
        from edgeproxy.policy.head import RequestHead  # noqa: PLC0415
        from edgeproxy.rules.possible import possible, together  # noqa: PLC0415

        old, new = self.matchers
        for (method, scheme, host, target), count in asked.most_common():
            self.looked_at += 1
            self.requests += count
            request = RequestHead(method, scheme, host, target)
            for when, before, after in together(possible(old, request, MASK), possible(new, request, MASK)):
                self._add(before, after, request, when, count)

    def examples(self) -> None:
        """Of both sets, with their fields: which rule they fall under is known."""
        from edgeproxy.rules.content import named  # noqa: PLC0415
        from edgeproxy.rules.examples import request_of  # noqa: PLC0415

        seen = set()
        for rule in (*self.old.rules, *self.new.rules):
            for example in rule.examples:
                known = (example.method, example.url, example.request_headers, example.body)
                if known in seen:
                    continue
                seen.add(known)
                request = request_of(example)
                before, after = (matcher.match(request) for matcher in self.matchers)
                content = None if example.body is None else example.body.encode()
                self.looked_at += 1
                self._add(before, after, named(after.rule, request, content), frozenset(), 0)

    def _add(
        self, before: Matched, after: Matched, request: RequestHead, when: frozenset[Open], count: int
    ) -> None:
        from edgeproxy.rules.compare import changes_for  # noqa: PLC0415
        from edgeproxy.rules.possible import show_open  # noqa: PLC0415

        found = list(changes_for(before, after, request))
        if before.rule.origin == after.rule.origin and after.rule.origin in self.pools:
            found.append(self.pools[after.rule.origin])
        if not found and before.rule.name == after.rule.name:
            return
        asked = show_open(when)
        group = self.groups.setdefault(
            (before.rule.name, after.rule.name, tuple(asked)), Group(before.rule, after.rule, asked)
        )
        group.urls += 1
        group.requests += count
        group.changes.update(found)
        if len(group.samples) < self._samples:
            group.samples.append((request.method, request.host, request.target, count))

    def rules(self) -> dict[str, Any]:
        """By name: added, removed, changed (with what), and whether the order of those in both changed."""
        from edgeproxy.rules.compare import changes  # noqa: PLC0415

        before = {rule.name: rule for rule in self.old.rules}
        after = {rule.name: rule for rule in self.new.rules}
        kept = [name for name in before if name in after]
        return {
            "added": [{"name": r.name, "at": r.at} for n, r in after.items() if n not in before],
            "removed": [{"name": r.name, "at": r.at} for n, r in before.items() if n not in after],
            "changed": [
                {
                    "name": name, "at": after[name].at,
                    "changes": [{"field": c.field, "old": c.old, "new": c.new} for c in found],
                }
                for name in kept
                if (found := changes(before[name], after[name]))
            ],
            "reordered": kept != [name for name in after if name in before],
            "pools": [{"field": c.field, "old": c.old, "new": c.new} for c in self.pools.values()],
        }  # fmt: skip

    def sorted(self) -> list[Group]:
        """Those with the most requests first."""
        return sorted(self.groups.values(), key=lambda g: (-g.requests, -g.urls, g.old.name, g.new.name))

    def to_json(self, rules: dict[str, Any], log: Log | None) -> dict[str, Any]:
        return {
            "old": {"source": self.old.source, "version": self.old.version},
            "new": {"source": self.new.source, "version": self.new.version},
            "log": None if log is None else log.to_json(),
            "urls": self.looked_at,
            "requests": self.requests,
            "changed_urls": sum(group.urls for group in self.groups.values() if not group.when),
            "rules": rules,
            "groups": [group.to_json() for group in self.sorted()],
        }

    def text(self, rules: dict[str, Any], log: Log | None, *, named: bool) -> Iterator[str]:
        if named:
            yield from _rules_text(rules)
        groups = self.sorted()
        for group in groups:
            yield from group.text()
            yield ""
        what = f"{_some(self.looked_at, 'URL')}" + (" of the examples" if named else "")
        asked = f" ({_some(self.requests, 'request')})" if self.requests else ""
        found = f"decided otherwise in {_some(len(groups), 'group')}" if groups else "none decided otherwise"
        yield f"{what}{asked} looked at: {found}"
        for note in () if log is None else log.notes():
            yield f"note: {note}"


def _rules_text(rules: dict[str, Any]) -> Iterator[str]:
    for word in ("added", "removed"):
        for each in rules[word]:
            yield f"{word:<8} {each['name']} ({each['at']})"
    for each in rules["changed"]:
        yield f"changed  {each['name']} ({each['at']})"
        for change in each["changes"]:
            yield f"  {change['field']}: {change['old']} -> {change['new']}"
    for change in rules["pools"]:
        yield f"{change['field']}: {change['old']} -> {change['new']}"
    if rules["reordered"]:
        yield "reordered: the rules of both stand in another order"
    if any(rules.values()):
        yield ""


def _rules(given: str) -> RuleSet:
    return read_rules(None if given == "none" else Path(given))


def _logged(log: Iterable[Any]) -> Counter[tuple[str, str, str, str]]:
    return Counter((line.method, "http", line.host, line.target) for line in log)


def _listed(path: str) -> Counter[tuple[str, str, str, str]]:
    from edgeproxy.cli.explain import request_of  # noqa: PLC0415
    from edgeproxy.cli.logged import Source  # noqa: PLC0415
    from edgeproxy.policy.head import Headers  # noqa: PLC0415

    asked: Counter[tuple[str, str, str, str]] = Counter()
    for number, raw in enumerate(Source(path).lines(), 1):
        line = raw.decode("utf-8", "replace").strip()
        if not line or line.startswith("#"):
            continue
        words = line.split()
        method = words.pop(0) if len(words) == 2 and re.fullmatch(r"[A-Za-z][A-Za-z-]*", words[0]) else "GET"
        if len(words) != 1:
            raise settings.SettingsError(f"--urls: line {number}: expected a URL, or a method and a URL")
        try:
            request = request_of(words[0], method, Headers())
        except settings.SettingsError as error:
            raise settings.SettingsError(f"--urls: line {number}: {error}") from None
        asked[request.method, request.scheme, request.host, request.target] += 1
    return asked


def _shown(text: str) -> str:
    """A log says what clients sent: nothing of it may reach a terminal as a control character."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
