"""What came of each case -> the score, as text, and what has turned since it was last written down.

Rules of this file:

- Pure, but for reading waived.yaml. A case is green when it passed and every case it depends on is green, as
  the suite itself counts.
- What stays red says why, in waived.yaml, and counts as red all the same.
- "check" cases ask how a cache behaves; neither answer is wrong. "yes" counts as green, so that a change of
  behaviour is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.conformance.suite import Case

KINDS = ("required", "optimal", "check")
VARIANT = "all, with unsafe: set_cookie"
"""The name of the second run, in the report and in expected.json."""

PUBLISHED = {
    "required": "of 160: Traffic Server 132, httpd 131, Squid 122, Varnish 119, nginx 99",
    "optimal": "of 105: the best passes 70",
}
"""The best scores published at cache-tests.fyi, whose suite is newer than the release from npm: compare the
shares, not the sums."""


WAIVED = Path(__file__).with_name("waived.yaml")


@dataclass(frozen=True)
class Waiver:
    """Why a case stays red: ``group`` is superseded, rule or contradicts."""

    group: str
    section: str
    reason: str


def waivers(text: str | None = None) -> dict[str, Waiver]:
    """By the case's id. Raises ValueError where a case is listed twice."""
    found: dict[str, Waiver] = {}
    for group, entries in yaml.safe_load(WAIVED.read_text() if text is None else text).items():
        for entry in entries:
            for case in entry["ids"]:
                if case in found:
                    raise ValueError(f"{case} is waived twice")
                found[case] = Waiver(group, entry["section"], entry["reason"])
    return found


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
    wanted = {case for kind in KINDS for case in expected.get(kind, ())}
    return [verdict for verdict in verdicts if verdict.case.id in wanted and not verdict.green]


def unexplained(verdicts: Iterable[Verdict], waived: Mapping[str, Waiver]) -> list[Verdict]:
    """Required and optimal cases that are red and not waived."""
    return [v for v in verdicts if not v.green and v.case.kind != "check" and v.case.id not in waived]


def report(
    verdicts: list[Verdict],
    waived: Mapping[str, Waiver] = MappingProxyType({}),
    variant: list[Verdict] | None = None,
) -> str:
    """``variant``: the same cases with the rule file that says unsafe: set_cookie."""
    groups = list(dict.fromkeys(verdict.case.group for verdict in verdicts))
    wide = max(len(name) for name in (*groups, VARIANT))
    lines = [f"{'':{wide}}  " + "".join(f"{kind:>12}" for kind in KINDS)]
    lines += [_row(group, wide, [v for v in verdicts if v.case.group == group]) for group in groups]
    lines.append(_row("all", wide, verdicts))
    if variant is not None:
        lines.append(_row(VARIANT, wide, variant))
    lines += [f"published, {kind} {text}" for kind, text in PUBLISHED.items()]
    for kind in KINDS:
        missing = [verdict for verdict in verdicts if verdict.case.kind == kind and not verdict.green]
        if missing:
            lines += ["", f"{kind}, not green:" if kind != "check" else "check, answered no:"]
            lines += [_red(verdict, waived.get(verdict.case.id)) for verdict in missing]
    return "\n".join(lines)


def _row(name: str, wide: int, verdicts: list[Verdict]) -> str:
    return f"{name:{wide}}  " + "".join(f"{_count(verdicts, kind):>12}" for kind in KINDS)


def _red(verdict: Verdict, waiver: Waiver | None) -> str:
    line = f"  {verdict.case.id}: {verdict.why}"
    return line if waiver is None else f"{line}\n      {waiver.group}: {waiver.section}: {waiver.reason}"


def _count(verdicts: Iterable[Verdict], kind: str) -> str:
    of_kind = [verdict for verdict in verdicts if verdict.case.kind == kind]
    return f"{sum(verdict.green for verdict in of_kind)}/{len(of_kind)}" if of_kind else ""
