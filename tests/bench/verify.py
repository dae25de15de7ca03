"""Is a server's answer what the workload means? Asked before the clock runs, and of the figures afterwards.

Rules of this file: bodies are compared with the origin's, octet by octet, after undoing the
coding that was asked for; what is not as meant is said in a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import brotli

from tests.bench.load import CONNECTIONS
from tests.bench.probe import Connection, ask
from tests.bench.processes import Unusable
from tests.bench.scripts import header_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.load import Load
    from tests.bench.origin import Origin
    from tests.bench.servers import Running
    from tests.bench.workloads import Workload

SAMPLES = 5
NEAR = 0.1
"""By how much the octets of an answer may differ from those probed: bodies differ a little, Age grows."""


def targets(workload: Workload, path: str, stamp: str) -> list[str]:
    """A few of those that the workload asks for; of those that are new, others of the same form."""
    match workload.kind:
        case "one":
            return [path]
        case "new":
            return [f"{path}{stamp}-{number:08d}" for number in range(SAMPLES)]
        case _:
            step = max(1, workload.urls // SAMPLES)
            return [f"{path}{number:06d}" for number in range(0, workload.urls, step)][:SAMPLES]


def verify(
    running: Running, origin: Origin, workload: Workload, path: str, extra: Sequence[str], stamp: str
) -> float:
    """The mean length of an answer on the wire, in octets. Raises Unusable."""
    blocks = header_blocks("".join(f"{line}\r\n" for line in extra))
    connection = Connection(running.port)
    lengths = []
    try:
        for target in targets(workload, path, stamp):
            expected = b"" if workload.status == 304 else ask(origin.port, target).body
            for block in blocks[::7]:
                answer = connection.ask(f"GET {target} HTTP/1.1\r\n{block}".encode())
                if answer.status != workload.status:
                    raise Unusable(f"{target} is answered {answer.status}, not {workload.status}")
                coding = answer.headers.get("content-encoding", "")
                if coding != workload.coding:
                    raise Unusable(
                        f"{target} comes in {coding or 'no'} coding, not {workload.coding or 'none'}"
                    )
                body = brotli.decompress(answer.body) if coding == "br" else answer.body
                if body != expected:
                    raise Unusable(f"the body of {target} is not the origin's")
                lengths.append(answer.octets)
    finally:
        connection.close()
    return sum(lengths) / len(lengths)


def judge(seen: Load, fetched: int, workload: Workload, octets: float) -> list[str]:
    """What in a timed run was not as meant. ``fetched`` requests reached the origin; ``octets`` an answer
    had when probed."""
    wrong = []
    if seen.failed:
        wrong.append(f"{seen.failed} answers of 400 and above")
    if seen.broken:
        wrong.append(f"{seen.broken} connections broken or timed out")
    low, high = workload.fetched
    # When the time is over each connection has a request under way that counts here and not there.
    if not low * seen.requests <= fetched <= high * seen.requests + CONNECTIONS:
        share = fetched / max(1, seen.requests)
        wrong.append(f"{share:.1%} of the requests reached the origin, meant were {low:.1%} to {high:.1%}")
    each = seen.octets / max(1, seen.requests)
    if abs(each - octets) > NEAR * octets:
        wrong.append(f"answers had {each:.0f} octets, {octets:.0f} when probed")
    return wrong
