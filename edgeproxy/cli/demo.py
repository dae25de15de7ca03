"""``edgeproxy demo``: a real origin API with edgeproxy in front, to try by hand or as a guided tour.

Rules of this file: flags in, text out; what happens is in edgeproxy/demo/ and by_hand.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy import settings

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="start a small real API with edgeproxy in front",
        description="Start a small real API on SQLite with edgeproxy and the shipped rules in front.",
    )
    parser.add_argument("--once", action="store_true", help="run the guided tour, print what it saw, and end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - what only this command needs

    from edgeproxy.cli.by_hand import by_hand  # noqa: PLC0415
    from edgeproxy.clock import Clock  # noqa: PLC0415
    from edgeproxy.demo.tour import tour  # noqa: PLC0415

    environment = settings.environment()
    try:
        if args.once:
            return asyncio.run(tour(environment, settings.shipped_rules(), Clock()))
        return asyncio.run(by_hand(environment, Clock()))
    except KeyboardInterrupt:
        return 130
