"""Two nodes of two workers and a Redis under load, while one thing after another breaks. Status 1 where
something was answered that may not be. With --seconds 1800 it is the soak: memory and descriptors are then to
stay where they are, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.run import Chaos

if TYPE_CHECKING:
    from tests.chaos.run import Report

MOST_GROWTH = 1.25
"""Of the last quarter of a soak over its second one."""
SOAK = 600.0
"""Seconds from which on a run is one."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of breaking things; default 60")
    parser.add_argument("--calm", type=float, default=10.0, help="seconds of load alone before; default 10")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep logs and files in this directory")
    given = parser.parse_args()
    seed = int.from_bytes(os.urandom(4)) if given.seed is None else given.seed
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        chaos = Chaos(
            given.keep or Path(temporary),
            seed,
            nodes=given.nodes,
            workers=given.workers,
            say=say,
        )
        report = asyncio.run(chaos.run(given.seconds, calm=given.calm))
    say(told(report))
    wrong = problems(report)
    for line in wrong:
        say(line)
    say(f"seed {seed}: {'WRONG' if wrong else 'good'}")
    return 1 if wrong else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def told(report: Report) -> str:
    ledger = report.ledger
    receipts = sorted(ledger.receipts)
    p99 = f"{receipts[len(receipts) * 99 // 100] * 1000:.1f} ms" if receipts else "-"
    p50 = f"{receipts[len(receipts) // 2] * 1000:.1f} ms" if receipts else "-"
    lines = [
        f"{report.seconds:.0f} s: {ledger.answers} answers, {ledger.excused} lost with killed processes",
        f"{ledger.changes} purges and writes, {ledger.incomplete} of them not complete, and said so",
        f"{ledger.fetches} fetches; {len(ledger.doubled)} of them twice while nothing was broken",
        f"purges and writes on all nodes, while nothing was broken: p50 {p50}, p99 {p99} ({len(receipts)})",
        ", ".join(f"{count} x {name}" for name, count in sorted(report.done.items())),
    ]
    if report.resources:
        first, last = report.resources[len(report.resources) // 4], report.resources[-1]
        lines.append(
            f"memory {first[1] / 2**20:.0f} MiB, at the end {last[1] / 2**20:.0f}; "
            f"descriptors {first[2]}, at the end {last[2]}"
        )
    return "\n".join(lines)


def problems(report: Report) -> list[str]:
    """What may not be, a line each."""
    ledger = report.ledger
    lines = [f"stale: {line}" for line in ledger.stale]
    lines += [f"failed: {line}" for line in ledger.failed]
    lines += [f"logged: {line}" for line in report.logged]
    if len(ledger.doubled) > ledger.fetches / 100:
        lines += [f"twice: {line}" for line in ledger.doubled]
    if report.seconds > SOAK:
        quarter = len(report.resources) // 4
        for what, at in (("memory", 1), ("descriptors", 2)):
            before = sum(sample[at] for sample in report.resources[quarter : 2 * quarter])
            after = sum(sample[at] for sample in report.resources[-quarter:])
            if after > before * MOST_GROWTH:
                lines.append(f"{what} grew to {after / before:.2f} of what it was")
    return lines


if __name__ == "__main__":
    sys.exit(main())
