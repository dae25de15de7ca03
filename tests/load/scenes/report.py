"""What came of the scenes, as a page of Markdown with pictures and as JSON.

Rules of this file: the page begins with the verdict; each figure stands beside its target; what makes figures
doubtful (a sender that was late itself, URLs that were not there) is said where they are.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.load.scenes.plots import draw
from tests.load.scenes.record import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.load.scenes.figures import Figures, Played
    from tests.load.scenes.verdict import Check

Result = tuple["Played", "list[Check]"]

LATE = 50_000
"""Microseconds: when the sender itself was late by more, its times are of this machine as well."""


def write(results: Sequence[Result], facts: Mapping[str, str], directory: Path) -> Path:
    """report.md, report.json and the pictures; the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = {played.scene.name: [p.name for p in draw(played, directory)] for played, _ in results}
    (directory / "report.json").write_text(json.dumps(document(results, facts), indent=1) + "\n")
    page = directory / "report.md"
    page.write_text("\n".join(markdown(results, facts, pictures)) + "\n")
    return page


def passed(checks: Sequence[Check]) -> bool:
    return all(check.met for check in checks)


def summary(played: Played, checks: Sequence[Check]) -> str:
    """One line for a terminal."""
    whole = played.judged
    missed = [f"{c.where}: {c.what} {c.figure}, not {c.target}" for c in checks if not c.met]
    return (
        f"{played.scene.name:12} {whole.requests:>9,} requests {whole.rate:>8,.0f}/s"
        f"  p50 {_ms(whole, 50):>7}  p95 {_ms(whole, 95):>7}  p99 {_ms(whole, 99):>7} ms"
        f"  hits {_percent(whole.hits):>7}  success {_percent(whole.success):>8}"
        f"  {'passed' if not missed else 'MISSED ' + '; '.join(missed)}"
    )


def markdown(
    results: Sequence[Result], facts: Mapping[str, str], pictures: Mapping[str, Sequence[str]]
) -> list[str]:
    good = sum(passed(checks) for _, checks in results)
    lines = ["# Load scenes", "", f"{good} of {len(results)} passed.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| scene | requests | right/s | P50 ms | P95 ms | P99 ms | hits | success | |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for played, checks in results:
        mark = "passed" if passed(checks) else "**missed**"
        lines.append(_row(f"[{played.scene.name}](#{played.scene.name})", played.judged, mark))
    for played, checks in results:
        lines += ["", f"## {played.scene.name}", "", played.scene.idea, ""]
        lines += _phases(played)
        lines += ["", "| target of | | wanted | was | |", "|---|---|--:|--:|---|"]
        lines += [
            f"| {c.where} | {c.what} | {c.target} | {c.figure} | {'' if c.met else '**missed**'} |"
            for c in checks
        ]
        notes = _notes(played)
        if notes:
            lines += ["", *(f"- {note}" for note in notes)]
        lines += ["", *(f"![{name.removesuffix('.svg')}]({name})" for name in pictures[played.scene.name])]
    return lines


def _phases(played: Played) -> list[str]:
    lines = [
        "| phase | requests | right/s | P50 ms | P95 ms | P99 ms | hits | success | what failed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for phase, figures in zip(played.scene.phases, played.phases, strict=True):
        failed = [f"{n:,} {outcome.value}" for outcome, n in figures.outcomes.items() if outcome in _FAILED]
        name = phase.name if phase.judged else f"{phase.name} (not judged)"
        lines.append(_row(name, figures, ", ".join(failed)))
    return lines


_FAILED = frozenset(Outcome) - {Outcome.RIGHT}


def _row(name: str, figures: Figures, end: str) -> str:
    cells = [
        name, f"{figures.requests:,}", f"{figures.rate:,.0f}", _ms(figures, 50), _ms(figures, 95),
        _ms(figures, 99), _percent(figures.hits), _percent(figures.success), end,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _notes(played: Played) -> list[str]:
    whole = played.judged
    notes = []
    if whole.lag > LATE:
        notes.append(
            f"The sender itself was late by {whole.lag / 1000:,.0f} ms at worst, which is part of the times:"
            " the machine had too much to do."
        )
    if played.unfilled:
        notes.append(f"{played.unfilled:,} URLs could not be had before the scene began.")
    if len(played.samples) > 1:
        last = played.samples[-1]
        busy = (last.processor - played.samples[0].processor) / (last.at - played.samples[0].at)
        memory, descriptors, tasks = (
            max(getattr(sample, key) for sample in played.samples)
            for key in ("memory", "descriptors", "tasks")
        )
        notes.append(
            f"The edge: {busy:.0%} of a core, at most {memory / 2**20:,.0f} MiB,"
            f" {descriptors:,.0f} descriptors and {tasks:,.0f} tasks."
        )
    return notes


def document(results: Sequence[Result], facts: Mapping[str, str]) -> dict[str, Any]:
    """Ready for JSON. Times in milliseconds, shares in percent, memory in octets."""
    return {
        "passed": all(passed(checks) for _, checks in results),
        "facts": dict(facts),
        "scenes": [
            {
                "name": played.scene.name,
                "passed": passed(checks),
                "whole": _told(played.judged),
                "phases": [
                    {"name": phase.name, "judged": phase.judged, **_told(figures)}
                    for phase, figures in zip(played.scene.phases, played.phases, strict=True)
                ],
                "checks": [asdict(check) for check in checks],
                "seconds": [asdict(point) for point in played.points],
                "samples": [asdict(sample) for sample in played.samples],
            }
            for played, checks in results
        ],
    }


def _told(figures: Figures) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "seconds": figures.seconds,
        "requests_per_second": round(figures.rate, 1),
        **{f"p{share:g}_ms": figures.percentile(share) for share in (50, 75, 90, 95, 99, 99.9, 100)},
        "hits_percent": figures.hits,
        "success_percent": figures.success,
        "outcomes": {outcome.value: count for outcome, count in figures.outcomes.items()},
        "statuses": {str(status): count for status, count in figures.statuses.items()},
        "cache": dict(figures.words),
        "octets": figures.octets,
        "connections": figures.connections,
        "sender_late_ms": figures.lag / 1000,
        "times": figures.times.encode().decode("ascii") if figures.requests else None,
    }


def _ms(figures: Figures, share: float) -> str:
    value = figures.percentile(share)
    return "-" if value is None else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f} %" if 99 < value < 100 else f"{value:.1f} %"
