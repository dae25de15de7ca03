"""How long a purge takes until every worker of every node has carried it out: real processes, one Redis.

    python -m tests.bench.receipts [--purges 3000] [--nodes 2] [--workers 2]

Rules of this file:

- Each purge goes to the next node's admin port on a kept connection, one at a time: what is measured is the
  whole call, from the request to the receipt that names all nodes.
- A purge without a complete receipt is an error, not a slow one.
- The goal is of a machine that does nothing else: status 1 where the 99th percentile is not below it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.clock import Clock
from tests.support.origins import edgeproxy_process
from tests.support.servers import redis_server
from tests.support.threads import threaded_origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.origins import EdgeProcess

GOAL = 0.1
"""Seconds, at the 99th percentile."""
WARM = 50


def measured(nodes: int, workers: int, purges: int, directory: Path) -> list[float]:
    """Seconds of each purge. Raises RuntimeError where there is no redis-server or a receipt has a gap."""
    clock = Clock()
    took = []
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        if redis is None:
            raise RuntimeError("there is no redis-server")
        origin = stack.enter_context(threaded_origin())
        edges = []
        for number in range(nodes):
            here = directory / f"node-{number}"
            here.mkdir()
            flags = ["--workers", str(workers), "--node", f"node-{number}", "--purge-rate", "0"]
            started = edgeproxy_process(origin.url, here, store=redis.url, arguments=flags)
            edges.append(stack.enter_context(started))
        kept = [http.client.HTTPConnection("127.0.0.1", edge.admin_port, timeout=20) for edge in edges]
        for number in range(WARM + purges):
            began = clock.monotonic()
            said = _purge(kept[number % nodes], edges[number % nodes], f"/purged/{number}")
            if number >= WARM:
                took.append(clock.monotonic() - began)
            if said != ["ok"] * nodes:
                raise RuntimeError(f"purge {number}: the nodes said {said}")
        for connection in kept:
            connection.close()
    return took


def _purge(connection: http.client.HTTPConnection, edge: EdgeProcess, url: str) -> list[str]:
    fields = {"Authorization": f"Bearer {edge.token}", "Content-Type": "application/json"}
    connection.request("POST", "/api/cache/purge", json.dumps({"url": url}).encode(), fields)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    return [node["said"] for node in told["nodes"]]


def at(took: Sequence[float], share: float) -> float:
    """The percentile, in milliseconds."""
    return sorted(took)[min(len(took) - 1, int(len(took) * share))] * 1000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.receipts", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--purges", type=int, default=3000)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="receipts-") as directory:
        took = measured(given.nodes, given.workers, given.purges, Path(directory))
    good = at(took, 0.99) < GOAL * 1000
    shown = ", ".join(f"p{100 * share:g} {at(took, share):.1f} ms" for share in (0.5, 0.9, 0.99, 0.999, 1.0))
    sys.stdout.write(
        f"{len(took)} purges on {given.nodes} nodes of {given.workers} workers: {shown}; "
        f"goal p99 < {GOAL * 1000:g} ms: {'reached' if good else 'missed'}\n"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
