"""The demo to try by hand: both processes until Ctrl-C, and what to try.

Rules of this file: text out; what happens is in edgeproxy/demo/.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeproxy.demo.processes import DemoError, Running, running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.clock import Clock
    from edgeproxy.demo.processes import Places

_LOOK = 0.5
"""Seconds between two looks at whether both processes still run."""


async def by_hand(environment: Mapping[str, str], clock: Clock, places: Places) -> int:
    """Run both until Ctrl-C or SIGTERM; 1 if one of them ends before that."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[object] = loop.create_future()

    def told() -> None:
        if not stop.done():
            stop.set_result(None)

    with TemporaryDirectory(prefix="edgeproxy-demo-") as directory:
        try:
            async with running(Path(directory), environment, clock, places=places) as both:
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

See what happened: open {admin}/ in a browser, or

  curl {admin}/api/cache/stats
  curl {admin}/metrics
  curl {both.origin_url}/_demo/counts              # what reached the origin

Ctrl-C ends it all. `edgeproxy demo --once` is the guided tour.
"""
