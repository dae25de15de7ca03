"""edgeproxy beside nginx, HAProxy and Varnish on this machine: ``python -m tests.bench``.

README.md in this directory says what is needed, what is measured and how to read it. Status 1 when a target
is missed or a row is marked, 2 when nothing could be measured.
"""

# ruff: noqa: T201  (a command: printing is what it is for)

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import flatness, machine, memory, servers, startup, tail, targets
from tests.bench.checks import Check
from tests.bench.processes import Unusable, prepare_this_process
from tests.bench.report import as_json, markdown
from tests.bench.throughput import Meter
from tests.bench.workloads import LOGGED, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.throughput import Row

MILLION = 1_000_000
CHECKS = ("rules", "entries", "startup", "connections", "overhead", "tail")
"""What is measured beside the workloads, by the name that --only takes."""
GROUPS = ("logs", *CHECKS)


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    if not machine.supported() or shutil.which("wrk") is None or shutil.which("nginx") is None:
        print("bench: needs Linux, wrk, and nginx (the origin too): apt install wrk nginx", file=sys.stderr)
        return 2
    prepare_this_process()
    left_out: list[str] = []

    def leave_out(line: str) -> None:
        left_out.append(line)
        say(line)

    names = servers.installed(args.servers, leave_out)
    facts = machine.facts()
    how = (
        "One worker each, on core 0; load and origin on core 1. Medians of the rounds "
        f"({args.rounds}, {args.seconds} s each), in which the servers take turns."
    )
    say(", ".join(f"{name} {value}" for name, value in facts.items()))
    rows: list[Row] = []
    checks: list[Check] = []
    try:
        _measure(args, names, rows, checks)
    except KeyboardInterrupt:
        say("broken off; what was measured until then:")
        left_out.append("broken off before its end")
    page = markdown(facts, how, rows, checks, left_out)
    print(page)
    if args.markdown:
        args.markdown.write_text(page)
    if args.json:
        args.json.write_text(json.dumps(as_json(facts, how, rows, checks, left_out), indent=1) + "\n")
    if not rows and not checks:
        return 2
    return 0 if _all_reached(rows, checks) else 1


def _measure(args: argparse.Namespace, names: list[str], rows: list[Row], checks: list[Check]) -> None:
    meter = Meter(
        rounds=args.rounds, seconds=args.seconds, stamp=f"{time.time_ns():x}", say=say, quick=args.quick
    )
    for name in args.only:
        if name in WORKLOADS:
            rows += meter.measure(name, names)
    if "logs" in args.only:
        for name in LOGGED:
            rows += meter.measure(name, names, logged=True)
    flat = flatness.Flatness(rounds=args.rounds, seconds=args.seconds, entries=args.entries, say=say)
    table: dict[str, Callable[[], list[Check]]] = {
        "rules": flat.rules,
        "entries": flat.entries,
        "startup": lambda: startup.startup(args.entries, args.rounds, say),
        "connections": lambda: memory.connections(args.connections, args.seconds, say),
        "overhead": lambda: memory.entry_overhead(args.overhead_entries, say),
        "tail": lambda: tail.tail(names, rounds=args.rounds, seconds=args.seconds, say=say),
    }
    for name in args.only:
        if name in table:
            try:
                checks += table[name]()
            except (Unusable, OSError) as error:
                say(f"  not measured: {error}")
                checks.append(Check(name, "not measured", str(error), "", ok=False))


def _all_reached(rows: list[Row], checks: list[Check]) -> bool:
    judged = [
        verdict.ok
        for name in dict.fromkeys(row.workload for row in rows if not row.logged)
        for verdict in targets.verdicts([row for row in rows if row.workload == name and not row.logged])
        if verdict.reached is not None
    ]
    return all(judged) and all(check.ok is not False for check in checks) and all(not r.notes for r in rows)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0]
    )
    everything = [*WORKLOADS, *GROUPS]
    parser.add_argument(
        "--only",
        type=_names(everything),
        default=everything,
        metavar="NAMES",
        help=f"some of {','.join(everything)}",
    )
    parser.add_argument(
        "--servers", type=_names(servers.SERVERS), default=list(servers.SERVERS), metavar="NAMES"
    )
    parser.add_argument("--rounds", type=int, default=None, help="default 3")
    parser.add_argument("--seconds", type=int, default=None, help="of one run of the load; default 3")
    parser.add_argument("--entries", type=int, default=None, help="many of them; default 1,000,000")
    parser.add_argument("--connections", type=int, default=None, help="idle ones; default 10,000")
    parser.add_argument("--quick", action="store_true", help="everything once and small: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    quick = args.quick
    for name, usual, small in (
        ("rounds", 3, 1), ("seconds", 3, 1), ("entries", MILLION, 10_000), ("connections", 10_000, 500),
    ):  # fmt: skip
        if getattr(args, name) is None:
            setattr(args, name, small if quick else usual)
    args.overhead_entries = 1_000 if quick else 20_000
    if "edgeproxy" not in args.servers:
        parser.error("--servers: edgeproxy is what the others are held against")
    return args


def _names(known: object) -> Callable[[str], list[str]]:
    every = list(known)  # type: ignore[call-overload]

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in every:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(every)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
