"""What came of each case -> the score, as text, and what has turned since it was last written down.

Rules of this file:

- Pure. A case is green when it passed and every case it depends on is green, as the suite itself counts.
- "check" cases ask how a cache behaves; neither answer is wrong. "yes" counts as green, so that a change of
  behaviour is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.conformance.suite import Case

KINDS = ("required", "optimal", "check")

PUBLISHED = {
    "required": "of 160: Traffic Server 132, httpd 131, Squid 122, Varnish 119, nginx 99",
    "optimal": "of 105: the best passes 70",
}
"""The best scores published at cache-tests.fyi, whose suite is newer than the release from npm: compare the
shares, not the sums."""


@dataclass(frozen=True)
class Verdict:
    """``why`` is "" for a green case."""

    case: Case
    why: str

    @property
    def green(self) -> bool:
        return not self.why


def judge(cases: Iterable[Case], results: Mapping[str, Any]) -> list[Verdict]:
    """``results``: by id True, or [kind of failure, text]."""
    known = {case.id: case for case in cases}

    def why(case: Case) -> str:
        for other in case.depends_on:
            if other not in known or why(known[other]):
                return f"depends on {other}"
        result = results.get(case.id)
        if result is True:
            return ""
        return "not run" if result is None else f"{result[0]}: {result[1]}"

    return [Verdict(case, why(case)) for case in known.values()]


def greens(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    """The ids of the green cases, sorted, by kind: the shape of expected.json."""
    listed: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for verdict in verdicts:
        if verdict.green:
            listed[verdict.case.kind].append(verdict.case.id)
    return {kind: sorted(ids) for kind, ids in listed.items()}


def turned(expected: Mapping[str, list[str]], verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The cases that are expected to be green and are not."""
    wanted = {case for ids in expected.values() for case in ids}
    return [verdict for verdict in verdicts if verdict.case.id in wanted and not verdict.green]


def report(verdicts: list[Verdict]) -> str:
    groups = list(dict.fromkeys(verdict.case.group for verdict in verdicts))
    wide = max(len(group) for group in groups)
    lines = [f"{'':{wide}}  " + "".join(f"{kind:>12}" for kind in KINDS)]
    for group in groups:
        inside = [verdict for verdict in verdicts if verdict.case.group == group]
        lines.append(f"{group:{wide}}  " + "".join(f"{_count(inside, kind):>12}" for kind in KINDS))
    lines.append(f"{'all':{wide}}  " + "".join(f"{_count(verdicts, kind):>12}" for kind in KINDS))
    lines += [f"published, {kind} {text}" for kind, text in PUBLISHED.items()]
    for kind in KINDS:
        missing = [verdict for verdict in verdicts if verdict.case.kind == kind and not verdict.green]
        if missing:
            lines += ["", f"{kind}, not green:" if kind != "check" else "check, answered no:"]
            lines += [f"  {verdict.case.id}: {verdict.why}" for verdict in missing]
    return "\n".join(lines)


def _count(verdicts: Iterable[Verdict], kind: str) -> str:
    of_kind = [verdict for verdict in verdicts if verdict.case.kind == kind]
    return f"{sum(verdict.green for verdict in of_kind)}/{len(of_kind)}" if of_kind else ""
