"""Requests a second and processor time a request: every server, in turn, round after round.

Rules of this file:

- All servers of a workload run at once and idle while one is measured. Within a round each has its turn, so
  that what else the machine does hits all of them; figures are the medians of the rounds.
- Before the clock runs: filled, warmed with the workload itself until the origin is left alone (where hits
  are meant), and asked single requests whose answers are compared with the origin's, octet by octet.
- During: the origin's count, the statuses and the octets received. What is not as meant is noted in the row.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.bench import load, servers
from tests.bench.origin import Origin
from tests.bench.probe import ask
from tests.bench.processes import Processes, Unusable, cpu_seconds
from tests.bench.scripts import HEADER_SETS, script
from tests.bench.verify import judge, verify
from tests.bench.workloads import LOGGING, MEMORY_ONLY, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.bench.servers import Running
    from tests.bench.workloads import Workload

WARM_PASSES = 6
WARM = 1
"""Seconds of a pass."""
RISING = 1.05
"""One pass is faster than those before: there is still something being learned."""
FEW = 200
"""URLs at most in a quick run."""
FULL = 1_000
"""URLs up to which the filling goes through all of them with every header set."""


@dataclass(slots=True)
class Row:
    """One server under one workload. Lists hold a figure a round."""

    workload: str
    server: str
    logged: bool = False
    rates: list[float] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)
    p99: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was not as meant: the figures are worth nothing then."""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates) if self.rates else 0.0

    @property
    def cpu(self) -> float:
        """Microseconds of processor time a request."""
        return statistics.median(self.micros) if self.micros else 0.0

    @property
    def valid(self) -> bool:
        return bool(self.rates) and not self.notes


@dataclass(slots=True)
class _Turn:
    """A server that is ready to be timed. ``written`` makes a script of a kind, its new URLs not seen before;
    ``octets`` are those of one answer, as probed."""

    running: Running
    written: Callable[[str], Path]
    octets: float
    row: Row


class Meter:
    """Runs workloads with the same rounds and seconds. ``stamp`` tells this run's new URLs from others'."""

    def __init__(
        self, *, rounds: int, seconds: int, stamp: str, say: Callable[[str], None], quick: bool = False
    ) -> None:
        self.quick = quick
        """Warm as little as will do."""
        self.rounds = rounds
        self.seconds = seconds
        self._stamp = stamp
        self._scripts = 0
        self._say = say

    def measure(self, name: str, names: Sequence[str], *, logged: bool = False) -> list[Row]:
        """A row for each server that can take part. Raises Unusable only where the origin cannot run."""
        workload = WORKLOADS[name]
        if self.quick:
            workload = replace(workload, urls=min(workload.urls, FEW))
        setup = replace(workload.setup, log=logged)
        left_out = MEMORY_ONLY if setup.disk else ()
        names = [each for each in names if each not in left_out and (not logged or each in LOGGING)]
        self._say(f"{name}{' with access logs' if logged else ''}: {workload.idea}")
        rows = [Row(name, each, logged) for each in names]
        with Processes() as processes:
            origin = Origin(processes)
            turns = []
            for row in rows:
                try:
                    running = servers.start(processes, row.server, origin, setup)
                    turns.append(self._prepare(processes, running, origin, workload, row))
                except (Unusable, OSError, ValueError, LookupError) as error:
                    row.notes.append(f"not measured: {error}")
            for _ in range(self.rounds):
                for turn in turns:
                    self._round(turn, origin, workload)
        for row in rows:
            notes = "; ".join(dict.fromkeys(row.notes))
            self._say(f"  {row.server:10}{row.rate:9,.0f}/s {row.cpu:7.1f} us of processor  {notes}")
        return rows

    def _prepare(
        self, processes: Processes, running: Running, origin: Origin, workload: Workload, row: Row
    ) -> _Turn:
        path = workload.path_at(running.name)
        extra = list(workload.extra)
        if workload.validates:
            ask(running.port, path)
            extra.append(f"If-None-Match: {ask(running.port, path).headers['etag']}")

        def written(kind: str) -> Path:
            self._scripts += 1
            target = processes.directory / f"{self._scripts}.lua"
            target.write_text(
                script(
                    kind, path=path, urls=workload.urls, stamp=f"{self._stamp}-{self._scripts}",
                    seed=self._scripts, connections=load.CONNECTIONS, extra=extra,
                    sets=1 if kind == "fill" and (workload.urls > FULL or self.quick) else HEADER_SETS,
                )
            )  # fmt: skip
            return target

        self._warm(running, origin, workload, written)
        octets = verify(running, origin, workload, path, extra, f"{self._stamp}-{running.name}")
        return _Turn(running, written, octets, row)

    def _warm(
        self, running: Running, origin: Origin, workload: Workload, written: Callable[[str], Path]
    ) -> None:
        """With the workload itself, until hits leave the origin alone and the rate does not rise any more."""
        best = 0.0
        for _ in range(2 if self.quick else WARM_PASSES):
            if workload.urls > 1 and not best:
                load.fill(running.port, written("fill"))
            before = origin.requests()
            seen = load.wrk(running.port, written(workload.kind), WARM)
            alone = (origin.requests() - before) / max(1, seen.requests) <= workload.fetched[1]
            if alone and seen.rate < best * RISING:
                return
            best = max(best, seen.rate) if alone else 0.0

    def _round(self, turn: _Turn, origin: Origin, workload: Workload) -> None:
        row, pid = turn.row, turn.running.pid
        path = turn.written(workload.kind)
        before, cpu = origin.requests(), cpu_seconds(pid)
        seen = load.wrk(turn.running.port, path, self.seconds)
        cpu = cpu_seconds(pid) - cpu
        fetched = origin.requests() - before
        row.rates.append(seen.rate)
        row.micros.append(cpu * 1e6 / max(1, seen.requests))
        row.p99.append(seen.p99)
        row.notes += judge(seen, fetched, workload, turn.octets)
