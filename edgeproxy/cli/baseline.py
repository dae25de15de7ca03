"""``edgeproxy baseline``: how rules do on a usual day, kept in a file; whether they do worse now.

Rules of this file: flags in, two calls, text or a file out. What counts as worse is in observe/thresholds.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse

    from edgeproxy.observe.baseline import Baseline, Breach

_EXITS = "Exit codes: 0 {}, 1 {}not possible, 2 wrong usage."
_TOKENS = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "baseline",
        help="record how rules do on a usual day, and check whether they do worse",
        description="P50 P75 P90 P95 P99, success rate and hit ratio of each rule, in a file. Worse is: P95 "
        "over twice that of the file (warning) or three times (critical), P99 over three times (critical), "
        "success under 99 % (warning) or 95 % (critical), a hit ratio under 70 % of the file's (warning); "
        "latencies under 1 ms count as 1 ms. "
        "Rules with fewer than 100 requests (--least) within the window are left out.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, window, run, says, told, exits in (
        (
            "record", "1h", _record, "write the file",
            "Keep in a file how each rule of a running edgeproxy does: P50 to P99, success rate, hit ratio.",
            _EXITS.format("written", ""),
        ),
        (
            "check", "5m", _check, "compare with the file",
            "Print which rules of a running edgeproxy do worse than the file says (see baseline --help).",
            _EXITS.format("as usual", "worse or "),
        ),
    ):  # fmt: skip
        action = actions.add_parser(name, help=says, description=told, epilog=exits)
        action.add_argument("file", metavar="FILE", help="the baseline, JSON")
        action.add_argument(
            "--window", choices=("1m", "5m", "1h"), default=window, help=f"over the last; default {window}"
        )
        action.add_argument(
            "--least", type=int, default=100, metavar="N",
            help="leave out rules with fewer requests; default 100, since a P99 of fewer says nothing",
        )  # fmt: skip
        client.add_flags(action)
        action.set_defaults(run=lambda args, run=run: client.guarded(lambda: run(args)))
    alerts = actions.add_parser(
        "alerts", help="print alert rules for Prometheus that use the file",
        description="Print alert rules for Prometheus: those that 'edgeproxy init --compose' writes, with "
        "each rule of the file compared with itself.",
        epilog=_EXITS.format("printed", ""),
    )  # fmt: skip
    alerts.add_argument(
        "file", metavar="FILE", help="the baseline, JSON, as 'edgeproxy baseline record' wrote it"
    )
    alerts.set_defaults(run=lambda args: client.guarded(lambda: _alerts(args)))


def _record(args: argparse.Namespace) -> int:
    from edgeproxy.observe.baseline import encode  # noqa: PLC0415 - what only a call needs

    now, seen = _now(args)
    if not now.rules:
        most = max(seen, key=lambda name: seen[name], default="")
        had = f"the most had rule {most}: {seen[most]}" if most else "no rule had any"
        longer = "" if args.window == "1h" else ", look further back with --window 1h"
        less = max(1, args.least // 5)
        raise client.Failed(
            f"nothing was written: no rule had {args.least} requests within {args.window} ({had}); record "
            f"it when there has been more traffic{longer}, or be content with less: --least {less}"
        )
    try:
        Path(args.file).write_bytes(encode(now))
    except OSError as error:
        raise client.Failed(f"{args.file}: {error.strerror}") from None
    print(f"{args.file}: {client.counted(len(now.rules), 'rule')} over {args.window}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from edgeproxy.observe.baseline import breaches  # noqa: PLC0415 - what only a call needs

    usual, (now, _) = _read(args.file), _now(args)
    found = list(breaches(usual, now))
    for breach in found:
        print(client.printable(_line(breach)))
    unseen = sorted(usual.rules.keys() - now.rules.keys())
    if unseen:
        print(client.printable(f"too few requests to tell: {', '.join(unseen)}"))
    if not found:
        print(f"{client.counted(len(usual.rules) - len(unseen), 'rule')} as usual")
    return 1 if found else 0


def _alerts(args: argparse.Namespace) -> int:
    from edgeproxy.templates.generate import rules  # noqa: PLC0415 - what only a call needs

    print(rules(_read(args.file).normals), end="")
    return 0


def _line(breach: Breach) -> str:
    if breach.what.startswith("p"):
        value, than = f"{1000 * breach.value:.1f} ms", f"over {1000 * breach.threshold:.1f} ms"
    else:
        value, than = f"{breach.value:.1%}", f"under {breach.threshold:.1%}"
    what = {"success": "success rate", "hit_ratio": "hit ratio"}.get(breach.what, breach.what.upper())
    return f"{breach.severity}: {breach.rule}: {what} {value}, {than}"


def _read(name: str) -> Baseline:
    from edgeproxy.observe.baseline import decode  # noqa: PLC0415 - what only a call needs

    try:
        return decode(Path(name).read_bytes())
    except FileNotFoundError:
        raise client.Failed(f"{name}: there is no such file; edgeproxy baseline record {name}") from None
    except OSError as error:
        raise client.Failed(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise client.Failed(f"{name} is no baseline: {error}") from None


def _now(args: argparse.Namespace) -> tuple[Baseline, dict[str, int]]:
    """And the requests of each rule."""
    from edgeproxy.observe.baseline import recorded  # noqa: PLC0415 - what only a call needs

    performance = client.call(args, "GET", "/api/performance", tokens=_TOKENS).body
    live = client.call(args, "GET", f"/api/live?window={args.window}", tokens=_TOKENS).body
    try:
        seen = {row["name"]: int(row["requests"]) for row in live["rules"]}
        return recorded(performance, live, args.window, live["now"], args.least), seen
    except (LookupError, TypeError, AttributeError):
        raise client.Failed("the answer is not what edgeproxy's numbers look like") from None
