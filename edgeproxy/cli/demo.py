"""``edgeproxy demo``: a real origin API with edgeproxy in front, to try by hand or as a guided tour.

Rules of this file: flags in, text out; what happens is in edgeproxy/demo/.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeproxy import settings
from edgeproxy.clock import Clock
from edgeproxy.demo.processes import DemoError, Running, running
from edgeproxy.demo.tour import tour

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_LOOK = 0.5
"""Seconds between two looks at whether both processes still run."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="start a small real API with edgeproxy in front",
        description="Start a small real API on SQLite with edgeproxy and the shipped rules in front.",
    )
    parser.add_argument("--once", action="store_true", help="run the guided tour, print what it saw, and end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    environment = settings.environment()
    try:
        if args.once:
            return asyncio.run(tour(environment, settings.shipped_rules(), Clock()))
        return asyncio.run(_by_hand(environment, Clock()))
    except KeyboardInterrupt:
        return 130


async def _by_hand(environment: Mapping[str, str], clock: Clock) -> int:
    """Run both until Ctrl-C or SIGTERM; 1 if one of them ends before that."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[object] = loop.create_future()

    def told() -> None:
        if not stop.done():
            stop.set_result(None)

    with TemporaryDirectory(prefix="edgeproxy-demo-") as directory:
        try:
            async with running(Path(directory), environment, clock) as both:
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, told)
                print(_what_to_try(both), flush=True)
                while not await clock.wait_for(stop, _LOOK):
                    ended = [child for child in (both.origin, both.edge) if not child.alive()]
                    if ended:
                        print(f"{ended[0].name} ended on its own:\n{ended[0].tail()}")
                        return 1
        except DemoError as error:
            print(error)
            return 1
    return 0


def _what_to_try(both: Running) -> str:
    url, admin = both.url, both.admin_url
    return f"""
edgeproxy        {url}
its admin port   {admin}
the demo origin  {both.origin_url}
logs             {both.edge.log_file}

Try, and look at X-Cache-Status, Age and Server-Timing:

  curl -i {url}/api/pitches/1                      # MISS, and again: HIT
  curl -i '{url}/api/pitches?genre=western&page=2'
  curl -i '{url}/api/search?q=quiet%20city'
  curl -i {url}/api/live/1                         # 30 s fresh, then UPDATING
  curl -i -H 'Authorization: Bearer ada' {url}/api/notifications
  curl -so /dev/null -D - -H 'Accept-Encoding: br' {url}/static/app.js

Change something, and see that the stored answer has gone:

  curl -i -X PUT -d '{{"title": "Renamed"}}' {url}/api/pitches/1
  curl -i -X POST -d '{{"tag": "pitches"}}' -H 'Authorization: Bearer {both.token}' \\
    {admin}/api/cache/purge

See what happened:

  curl {admin}/api/cache/stats
  curl {admin}/metrics
  curl {both.origin_url}/_demo/counts              # what reached the origin

Ctrl-C ends it all. `edgeproxy demo --once` is the guided tour.
"""
