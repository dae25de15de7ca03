"""Two nodes of two workers and a Redis under load, while one thing after another breaks. Status 1 where
something was answered that may not be. With --minutes 30 it is the soak: what is broken is not told line by
line, and memory, descriptors and tasks are to stay where they are, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.flat import trend
from tests.chaos.run import Chaos

if TYPE_CHECKING:
    from tests.chaos.flat import Trend
    from tests.chaos.run import Report

SOAK = 600.0
"""Seconds from which on a run is one, and what is sampled has to be flat."""
UNEXCUSED = 1 / 100
"""Of the fetches: a machine that is busy with other things misses the store's budget now and then."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of breaking things; default 60")
    parser.add_argument("--minutes", type=float, help="the same in minutes, and only the summary is told")
    parser.add_argument("--calm", type=float, default=10.0, help="seconds of load alone before; default 10")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep logs and files in this directory")
    given = parser.parse_args()
    seed = int.from_bytes(os.urandom(4)) if given.seed is None else given.seed
    say(f"seed {seed}")
    seconds = given.seconds if given.minutes is None else given.minutes * 60
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        chaos = Chaos(
            given.keep or Path(temporary),
            seed,
            nodes=given.nodes,
            workers=given.workers,
            say=say if given.minutes is None else lambda _: None,
        )
        report = asyncio.run(chaos.run(seconds, calm=given.calm))
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
    ledger, account = report.ledger, report.ledger.account()
    receipts = sorted(ledger.receipts)
    p99 = f"{receipts[len(receipts) * 99 // 100] * 1000:.1f} ms" if receipts else "-"
    p50 = f"{receipts[len(receipts) // 2] * 1000:.1f} ms" if receipts else "-"
    fetches = (
        f"{ledger.fetches} fetches, one for each key and expiry, but for {account.apart} while Redis was "
        f"away, {account.killed} that kills cost ({account.allowed} allowed by {ledger.kills} kills) "
        f"and {len(account.unexcused)} without an excuse"
    )
    lines = [
        f"{report.seconds:.0f} s: {ledger.answers} answers, {ledger.excused} lost with killed processes",
        f"{ledger.changes} purges and writes, {ledger.incomplete} of them not complete, and said so",
        fetches,
        *(f"  {each}" for each in account.unexcused[:10]),
        f"purges and writes on all nodes, while nothing was broken: p50 {p50}, p99 {p99} ({len(receipts)})",
        ", ".join(f"{count} x {name}" for name, count in sorted(report.done.items())),
    ]
    for name, (unit, found) in trends(report).items():
        if found is not None:
            lines.append(
                f"{name}: median {found.middle:.1f} {unit}, slope {found.per_hour:+.2f} an hour, "
                f"{found.growth:+.2f} in all: {'flat' if found.flat else 'NOT FLAT'}"
            )
    return "\n".join(lines)


def trends(report: Report) -> dict[str, tuple[str, Trend | None]]:
    """What was sampled: its unit and its trend."""
    return {
        "memory": ("MiB of a process", trend(report.memory, 12.0)),
        "descriptors": ("of a process", trend(report.descriptors, 6.0)),
        "tasks": ("of a worker", trend(report.tasks, 8.0)),
    }


def problems(report: Report) -> list[str]:
    """What may not be, a line each."""
    ledger = report.ledger
    lines = [f"stale: {line}" for line in ledger.stale]
    lines += [f"failed: {line}" for line in ledger.failed]
    lines += [f"logged: {line}" for line in report.logged]
    unexcused = ledger.account().unexcused
    if len(unexcused) > ledger.fetches * UNEXCUSED:
        lines += [f"fetched again: {each}" for each in unexcused]
    if report.seconds > SOAK:
        found = {name: found for name, (_, found) in trends(report).items()}
        lines += [f"{name}: not flat" for name, each in found.items() if each is None or not each.flat]
    return lines


if __name__ == "__main__":
    sys.exit(main())
