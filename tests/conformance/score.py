"""What came of each case -> the score, as text, and what has turned since it was last written down.

Rules of this file:

- Pure. A case is green when it passed and every case it depends on is green, as the suite itself counts.
- What stays red by choice says why, and counts as red all the same.
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


_AGE = "RFC 9111 §5.1: an invalid Age is ignored, and of several the first counts"
_NO_ANSWER = "wants an answer that the origin did not give; newer releases of the suite do not"
_COOKIE = "shared only where a rule says unsafe: [set_cookie]"

BY_CHOICE = {
    "age-parse-nonnumeric": _AGE,
    "age-parse-negative": _AGE,
    "age-parse-float": _AGE,
    "age-parse-prefix-twoline": _AGE,
    "age-parse-dup-0": _AGE,
    "age-parse-dup-0-twoline": _AGE,
    "age-parse-dup-old": _AGE,
    "age-parse-parameter": _AGE,
    "age-parse-numeric-parameter": _AGE,
    "stale-close-must-revalidate": _NO_ANSWER,
    "stale-close-proxy-revalidate": _NO_ANSWER,
    "stale-close-no-cache": _NO_ANSWER,
    "stale-close-s-maxage=2": _NO_ANSWER,
    "304-etag-update-response-ETag": "RFC 9111 §4.3.4: a 304 with another strong ETag updates nothing",
    "conditional-lm-fresh-no-lm": "RFC 9111 §4.3.2: the Date is later than the time asked about, so 200",
    "headers-store-Set-Cookie": _COOKIE,
    "304-etag-update-response-Set-Cookie": _COOKIE,
    "other-set-cookie": _COOKIE,
}
"""Cases that are red because the RFC or our safe default says otherwise, with the reason. The suite itself
has changed those of the first two reasons since this release."""


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
            lines += [f"  {verdict.case.id}: {verdict.why}{_choice(verdict)}" for verdict in missing]
    return "\n".join(lines)


def _choice(verdict: Verdict) -> str:
    reason = BY_CHOICE.get(verdict.case.id)
    return "" if reason is None else f"\n      by choice: {reason}"


def _count(verdicts: Iterable[Verdict], kind: str) -> str:
    of_kind = [verdict for verdict in verdicts if verdict.case.kind == kind]
    return f"{sum(verdict.green for verdict in of_kind)}/{len(of_kind)}" if of_kind else ""
