"""The workloads: what is asked, and what has to be true of the answers for the figure to mean what it says.

Rules of this file:

- One row, one idea. ``fetched`` is the share of the requests that must reach the origin: a row whose share is
  outside is marked, as is one with an answer of 400 and above, or with answers of another length.
- The order is that of the report.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.servers import Setup

HIT = (0.0, 0.002)
"""All but one in 500: what was evicted or expired is not a hit."""


_USUAL = Setup()


@dataclass(frozen=True, slots=True)
class Workload:
    """``kind`` is a script (scripts.py); ``urls`` how many it asks for; ``status`` the one that all answers
    must have. ``coding`` the Content-Encoding that they must have."""

    idea: str
    kind: str
    path: str
    urls: int = 1
    fetched: tuple[float, float] = HIT
    status: int = 200
    extra: tuple[str, ...] = ()
    coding: str = ""
    setup: Setup = _USUAL
    coded_path: str = ""
    """Where those find it that do not code themselves."""
    validates: bool = False
    """The request carries the ETag that the server gave."""

    @property
    def hits(self) -> bool:
        return self.fetched == HIT

    def path_at(self, server: str) -> str:
        return self.coded_path if self.coded_path and server != "edgeproxy" else self.path


WORKLOADS = {
    "hit1k": Workload("1,000 URLs of 1 KB by popularity, 20 header sets, all hits", "many", "/u/", 1_000),
    "hot": Workload("one URL of 1 KB, all hits", "one", "/1k"),
    "hit10k": Workload("as hit1k, 10,000 URLs", "many", "/u/", 10_000),
    "hit100k": Workload("as hit1k, 100,000 URLs", "many", "/u/", 100_000),
    "size10k": Workload("one object of 10 KB, all hits", "one", "/10k"),
    "size100k": Workload("one object of 100 KB, all hits", "one", "/100k"),
    "br": Workload(
        "one object of 10 KB, the client takes gzip and br, answered in br",
        "one", "/10k", extra=("Accept-Encoding: gzip, br",), coding="br", coded_path="/coded",
    ),
    "conditional": Workload(
        "one URL that the client holds already: 304", "one", "/1k", status=304, validates=True
    ),
    "mixed": Workload("as hit1k, and 1 request in 10 a URL never seen", "mixed", "/u/", 1_000, (0.07, 0.13)),
    "miss": Workload("every URL never seen, cacheable", "new", "/u/", fetched=(0.99, 1.02)),
    "pass": Workload("no-store answers, never cached", "one", "/nostore/1k", fetched=(0.99, 1.02)),
    "newheads": Workload("as hit1k, every request with a cookie never seen", "cookies", "/u/", 1_000),
    "l2": Workload(
        "as hit1k, all from the disk's cache (edgeproxy: LMDB with L1 off)",
        "many", "/u/", 1_000, setup=Setup(disk=True),
    ),
}  # fmt: skip

LOGGED = ("hot", "hit1k", "mixed", "miss")
"""Those of the second table, with access logs on, for LOGGING."""
LOGGING = ("edgeproxy", "nginx")
MEMORY_ONLY = ("haproxy", "varnish")
"""Have no cache on disk to set beside l2."""
