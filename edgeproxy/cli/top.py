"""``edgeproxy top``: what the admin page shows, in a terminal, as it changes.

Rules of this file: flags in, a call each time, the screen out (top_text.py). A server that goes away is said,
and tried again; one that is not there at the start is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse

WINDOWS = ("1m", "5m", "1h")
SORTS = ("requests", "hit_ratio", "p95", "errors", "bytes", "saved_seconds", "name")
WIDTH = 110
"""Columns where the output is no terminal."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "top",
        help="rules, origins and errors as they go, in the terminal",
        description="What a running edgeproxy does now: requests, hit ratio and latency by rule, origins, "
        "recent errors and what is most wanted. Ctrl-C ends it. The same is on the page at the admin port.",
        epilog="Exit codes: 0 told, 1 no answer, 2 wrong usage.",
    )
    parser.add_argument("--once", action="store_true", help="print it once and end, for scripts")
    parser.add_argument("--json", action="store_true", help="with --once: all numbers, as JSON")
    parser.add_argument(
        "--window", choices=WINDOWS, default="5m", help="what the rules are told over; default 5m"
    )
    parser.add_argument(
        "--sort", choices=SORTS, default="requests", help="order of the rules; default requests"
    )
    parser.add_argument("--every", metavar="SECONDS", default="2", help="between two looks; default 2")
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _once(args) if args.once else _follow(args))


def _look(args: argparse.Namespace) -> dict[str, Any]:
    tokens = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")
    told = client.call(args, "GET", f"/api/live?window={args.window}", tokens=tokens).body
    if not isinstance(told, dict) or "rules" not in told:
        raise client.Failed("the answer is not what edgeproxy's live numbers look like")
    return told


def _once(args: argparse.Namespace) -> int:
    import json  # noqa: PLC0415 - what only a call needs

    from rich.console import Console  # noqa: PLC0415

    from edgeproxy.cli.top_text import screen  # noqa: PLC0415

    told = _look(args)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH, highlight=False)
    console.print(screen(told, sort=args.sort))
    return 0


def _follow(args: argparse.Namespace) -> int:
    from threading import Event  # noqa: PLC0415 - what only a call needs

    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from edgeproxy.cli.top_text import screen  # noqa: PLC0415

    if args.json:
        raise client.Usage("--json goes with --once; /api/events has the same as a stream")
    try:
        every = float(args.every)
    except ValueError:
        every = 0.0
    if not 0.2 <= every <= 3600:
        raise client.Usage(f"--every: {args.every!r}: expected 0.2 to 3600 seconds")
    console = Console()
    if not console.is_terminal:
        raise client.Usage("this is no terminal; --once prints it once")
    told, wrong, never = _look(args), "", Event()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(screen(told, sort=args.sort, wrong=wrong), refresh=True)
                never.wait(every)
                try:
                    told, wrong = _look(args), ""
                except client.Failed as failed:
                    wrong = client.printable(str(failed))
    except KeyboardInterrupt:  # the way to end it
        return 0
