"""What becomes of an edge that is asked for three times what it can: ``python -m tests.load.overload``.

Rules of this file:

- A real ``edgeproxy serve``, on a core of its own where there are two, since it is what is measured; origin,
  load and the crowd beside it (idle clients, slow ones, readers of large answers) are processes on the other.
- The capacity is measured first; then 0.5, 1, 2, 3 and 0.8 times as much is offered, by the clock.
- The verdict is of three sentences, each with its figures: goodput, memory, recovery.
- Figures are of use beside each other, not by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from tests.load.client import Pool, Result, percentile
from tests.load.figures import Memory, Watch, memory, processor, waited
from tests.support.origins import ROOT, edgeproxy_process

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = (0.5, 1.0, 2.0, 3.0, 0.8)
HOT = 100
RULES = """
rules:
  - {name: big, match: {path: /big}, ttl: 1h, max_object: 64MiB}
  - {name: objects, match: {path: /**}, ttl: 1h}
"""
GOODPUT, FACTOR, RECOVERY, ANSWERED = 0.9, 1.3, 10.0, 0.99


@dataclass(frozen=True)
class Plan:
    """``step``: seconds of each; ``memory``: MiB of L1; ``big``: MiB of the large answer; ``store``: --store,
    None is the default one."""

    step: float = 30.0
    urls: int = 200_000
    idle: int = 10_000
    slow: int = 500
    readers: int = 200
    big: int = 50
    memory: int = 64
    connections: int = 1024
    store: str | None = None


SHORT = Plan(step=2.0, urls=20_000, idle=200, slow=30, readers=20, big=8, memory=16, connections=128)


@dataclass
class Report:
    """``bare`` and ``idle``: memory before the crowd came, and with its idle clients; ``shares``: of a core
    that the edge used, by step; ``waits``: that others had while it could have run; ``watch``: parts by step,
    behind one before them."""

    plan: Plan
    capacity: float
    steps: list[tuple[float, Result]]
    shares: list[float]
    waits: list[float]
    bare: Memory
    idle: Memory
    end: Memory
    watch: Watch
    crowd: Crowd

    @property
    def goodput_at_three(self) -> float:
        """As a share of the most that any step had."""
        most = max(result.goodput for _, result in self.steps)
        return next(result.goodput for times, result in self.steps if times == 3.0) / most

    @property
    def recovered_after(self) -> float:
        """Seconds after the overload until ANSWERED of what is offered is answered well."""
        return self.steps[-1][1].recovered_after(ANSWERED)

    @property
    def due(self) -> int:
        """Octets: what the settings and an idle worker come to."""
        return self.idle.own + self.plan.memory * 2**20

    @property
    def plateau(self) -> float:
        """The highest of the steps, in octets."""
        return max(self.watch.plateaus[1:])

    @property
    def verdicts(self) -> list[tuple[bool, str]]:
        each = (self.idle.own - self.bare.own) / max(1, self.plan.idle) / 1024
        goodput = f"goodput at three times the capacity is {self.goodput_at_three:.0%} of the most"
        plateau = f"memory's plateau is {self.plateau / self.due:.2f} times the settings and an idle worker"
        recovery = f"{ANSWERED:.0%} are answered {self.recovered_after:.0f} s after the overload"
        figures = (
            f"{_mib(self.plateau)} of {_mib(self.due)}, for moments {_mib(self.watch.most)},"
            f" at the end {_mib(self.end.own)}; idle {_mib(self.bare.own)},"
            f" with {self.plan.idle:,} clients {_mib(self.idle.own)} ({each:.1f} KiB each);"
            f" beside it {_mib(self.end.file)} of files"
        )
        return [
            (self.goodput_at_three >= GOODPUT, f"{goodput} (wanted: {GOODPUT:.0%})"),
            (self.plateau <= FACTOR * self.due, f"{plateau} (wanted: {FACTOR}): {figures}"),
            (self.recovered_after <= RECOVERY, f"{recovery} (wanted: {RECOVERY:.0f} s)"),
        ]

    @property
    def good(self) -> bool:
        return all(good for good, _ in self.verdicts)

    def lines(self) -> list[str]:
        plan = self.plan
        beside = (
            f"{plan.idle:,} idle and {plan.slow:,} slow clients, {plan.readers:,} readers of {plan.big} MiB"
        )
        columns = ["offered", "requests/s", "good/s", "refused/s", "not answered", "p50", "p99", "processor"]
        columns += ["waited", "each", "memory"]
        rows = [
            f"{plan.urls:,} URLs, {beside}; capacity {self.capacity:,.0f} requests/s",
            "",
            f"| {' | '.join(columns)} |",
            "|" + " --- |" * len(columns),
        ]
        by_step = zip(self.steps, self.shares, self.waits, self.watch.plateaus[1:], strict=False)
        for (times, r), share, wait, held in by_step:
            lost, answered = r.offered - r.good - r.refused, max(1, r.good + r.refused)
            cells = (
                f"{times:.1f} x",
                f"{r.offered / r.seconds:,.0f}",
                f"{r.goodput:,.0f}",
                f"{r.refused / r.seconds:,.0f}",
                f"{lost / r.offered:.1%}",
                f"{percentile(r.times, 0.5) * 1e3:.0f} ms",
                f"{percentile(r.times, 0.99) * 1e3:.0f} ms",
                f"{share:.0%}",
                f"{wait:.0%}",
                f"{share * r.seconds / answered * 1e6:.0f} us",
                _mib(held),
            )
            rows.append(f"| {' | '.join(cells)} |")
        rows += ["", *(f"{'good' if good else 'MISSED'}: {said}" for good, said in self.verdicts)]
        if self.crowd.said:
            cut, back, broken, taken = self.crowd.said
            came = f"slow ones came back {back:,} times, readers {broken:,}"
            rows.append(f"beside it: {cut} idle clients were cut, {came} (they took {taken / 1024:,.0f} KiB)")
        rows += ["", "for the README:", f"| {' | '.join(self.in_short)} |"]
        return rows

    @property
    def in_short(self) -> tuple[str, ...]:
        """Capacity, goodput, plateau, recovery, as cells of a table."""
        return (
            f"{self.capacity:,.0f} requests/s",
            f"{self.goodput_at_three:.0%} of the most",
            f"{_mib(self.plateau)}, {self.plateau / self.due:.2f} times settings and idle worker",
            f"{self.recovered_after:.0f} s",
        )


def _mib(octets: float) -> str:
    return f"{octets / 2**20:.0f} MiB"


# -- the processes ----------------------------------------------------------------------------------------


class Crowd:
    """tests/load/crowd.py, step by step."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: tuple[int, ...] = ()

    @classmethod
    async def of(cls, port: int, plan: Plan) -> Crowd:
        """Once the idle clients are there."""
        numbers = map(str, (port, plan.idle, plan.slow, plan.readers))
        command = (sys.executable, "-m", "tests.load.crowd", *numbers)
        pipe = subprocess.PIPE
        crowd = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT))
        await crowd._line()
        return crowd

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(300):
            line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the crowd beside the load has ended")
        return line.decode()

    async def all(self) -> None:
        """Bring those who are slow."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")
        await self._line()

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.said = tuple(map(int, (await self._line()).split()))
        await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def request(number: int) -> bytes:
    return b"GET /o/%d HTTP/1.1\r\nHost: load.test\r\n\r\n" % number


async def settled(pid: int) -> None:
    """Until the readers have been sent what they will take at first. The capacity is measured after that, or
    three times as much would be little."""
    for _ in range(120):
        before = processor(pid)
        await asyncio.sleep(0.5)
        if processor(pid) - before < 0.05:
            return
    raise SystemExit("the edge is busy with nothing but slow clients")


async def measured(port: int, pid: int, plan: Plan) -> Report:
    numbers = itertools.count()

    def next_request() -> bytes:
        """Every other one is hot; the others go through all URLs."""
        number = next(numbers)
        return request(number // 2 % HOT if number % 2 else HOT + number // 2 % plan.urls)

    warm = Pool(port, 8)
    await warm.saturate(0.5, next_request, at_once=8)
    await warm.close()
    bare = memory(pid)
    crowd = await Crowd.of(port, plan)
    watch = Watch(pid)
    pool = Pool(port, plan.connections)
    watching = None
    steps, shares, waits = [], [], []
    try:
        idle = memory(pid)
        watching = asyncio.ensure_future(watch.run())  # noqa: TID251 - no part of the product
        await crowd.all()
        await settled(pid)
        found = await pool.saturate(max(2.0, plan.step / 3), next_request, at_once=64)
        capacity = found.goodput
        if not capacity:
            raise SystemExit(f"nothing was answered in time while the capacity was measured: {found.summary}")
        watch.next_part()
        for times in STEPS:
            before, idle_before = processor(pid), waited(pid)
            result = await pool.offer(capacity * times, plan.step, next_request)
            shares.append((processor(pid) - before) / plan.step)
            waits.append((waited(pid) - idle_before) / plan.step)
            await pool.settle()
            steps.append((times, result))
            watch.next_part()
        end = memory(pid)
        await pool.close()
        await crowd.end()
    finally:
        crowd.kill()
        if watching is not None:
            watching.cancel()
    return Report(plan, capacity, steps, shares, waits, bare, idle, end, watch, crowd)


@contextlib.contextmanager
def origin(big: int) -> Iterator[str]:
    """Its URL."""
    command = [sys.executable, "-m", "tests.load.origin", str(big)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def apart(pid: int) -> None:
    """The edge has the last core for itself; this process and what it starts from now on have the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores[-1:])
        os.sched_setaffinity(0, cores[:-1])


def run(plan: Plan, directory: Path) -> Report:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = plan.idle + plan.slow + plan.readers + plan.connections + 100
    if hard != resource.RLIM_INFINITY and hard < most + 500:
        raise SystemExit(f"this takes {most + 500} open files, and ulimit -Hn is {hard}")
    rules = directory / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    arguments = [
        "--workers",
        "1",
        "--memory",
        f"{plan.memory}MiB",
        "--keepalive",
        "10m",
        "--access-log",
        "off",
    ]
    arguments += ["--max-connections", str(most), "--client-connections", "0"]
    cores = os.sched_getaffinity(0)
    try:
        with (
            origin(plan.big) as url,
            edgeproxy_process(url, directory, rules=rules, store=plan.store, arguments=arguments) as edge,
        ):
            apart(edge.process.pid)
            return uvloop.run(measured(edge.port, edge.process.pid, plan))
    finally:
        os.sched_setaffinity(0, cores)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="seconds in place of minutes, few clients")
    for name in ("step", "urls", "idle", "slow", "readers", "big", "memory", "connections", "store"):
        kind = float if name == "step" else str if name == "store" else int
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS if name != "step" else "seconds")
    args = vars(parser.parse_args())
    plan = SHORT if args.pop("short") else Plan()
    plan = replace(plan, **{name: value for name, value in args.items() if value is not None})
    with tempfile.TemporaryDirectory() as directory:
        report = run(plan, Path(directory))
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
