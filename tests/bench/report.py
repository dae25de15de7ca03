"""The figures as a page of Markdown and as JSON.

Rules of this file: ratios are of medians of the same rounds; a row that is marked keeps its figures, says
what is wrong with them, and takes part in no comparison.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.bench.targets import PEERS, verdicts
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.checks import Check
    from tests.bench.throughput import Row


def markdown(
    facts: Mapping[str, str], how: str, rows: Sequence[Row], checks: Sequence[Check], left_out: Sequence[str]
) -> str:
    parts = ["# edgeproxy beside others", "", how, ""]
    parts += [f"- {name}: {value}" for name, value in facts.items()]
    parts += [f"- {line}" for line in left_out]
    plain = [row for row in rows if not row.logged]
    logged = [row for row in rows if row.logged]
    if plain:
        parts += ["", "## Requests a second, access logs off", "", *_table(plain, targets=True)]
    if logged:
        parts += ["", "## With access logs on", "", *_table(logged, targets=False)]
    marked = [row for row in rows if row.notes]
    if marked:
        parts += ["", "## Rows that are marked (!)", ""]
        parts += [f"- {row.workload}, {row.server}: {'; '.join(dict.fromkeys(row.notes))}" for row in marked]
    if checks:
        parts += ["", "## Flatness, memory, startup, tail", "", *_checks(checks)]
    if plain:
        names = dict.fromkeys(row.workload for row in plain)
        parts += ["", "## The workloads", "", *(f"- {name}: {WORKLOADS[name].idea}" for name in names)]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Row], *, targets: bool) -> list[str]:
    lines = [
        "| workload | server | requests/s | CPU us | p99 us | x nginx | x fastest other |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    if targets:
        lines = [lines[0] + " target |", lines[1] + "---|"]
    for name in dict.fromkeys(row.workload for row in rows):
        group = [row for row in rows if row.workload == name]
        peers = {row.server: row.rate for row in group if row.valid and row.server in PEERS}
        for row in group:
            cells = [
                name,
                row.server + ("" if row.valid else " !"),
                f"{row.rate:,.0f}" if row.rates else "",
                f"{row.cpu:.1f}" if row.rates else "",
                f"{sorted(row.p99)[len(row.p99) // 2]:,}" if row.p99 else "",
                _ratio(row, peers.get("nginx")),
                _ratio(row, max(peers.values(), default=None)),
            ]
            if targets:
                cells.append("; ".join(map(str, verdicts(group))) if row.server == "edgeproxy" else "")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _ratio(row: Row, to: float | None) -> str:
    return f"{row.rate / to:.2f}" if to and row.valid else ""


def _checks(checks: Sequence[Check]) -> list[str]:
    lines = ["| | measure | figure | target | |", "|---|---|---|---|---|"]
    lines += [f"| {c.group} | {c.what} | {c.figure} | {c.target} | {c.verdict} |" for c in checks]
    return lines


def as_json(
    facts: Mapping[str, str], how: str, rows: Sequence[Row], checks: Sequence[Check], left_out: Sequence[str]
) -> dict[str, object]:
    return {
        "machine": dict(facts),
        "how": how,
        "left_out": list(left_out),
        "rows": [
            {**asdict(row), "rate": row.rate, "cpu_microseconds": row.cpu, "valid": row.valid} for row in rows
        ],
        "targets": {
            name: [
                {"target": str(v.target), "reached": v.reached, "ok": v.ok}
                for v in verdicts([row for row in rows if row.workload == name and not row.logged])
            ]
            for name in dict.fromkeys(row.workload for row in rows if not row.logged)
        },
        "checks": [asdict(check) for check in checks],
    }
