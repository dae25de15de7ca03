"""What becomes of an edge that is asked for three times what it can: ``python -m tests.load.overload``.

Rules of this file:

- A real ``edgeproxy serve`` and a real origin, each a process; beside the load stand idle clients, clients
  that send their heads an octet a second, and readers of large answers who hardly read.
- The capacity is measured first; then 0.5, 1, 2, 3 and 0.8 times as much is offered, by the clock.
- The verdict is of four sentences, each with its figures: goodput at three times, refusals, memory, recovery.
- Load, origin and edge share this machine: figures are of use beside each other, not by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.bench.processes import resident
from tests.load.client import Pool, Result, percentile
from tests.support.origins import edgeproxy_process

STEPS = (0.5, 1.0, 2.0, 3.0, 0.8)
OBJECT = 10 * 1024
HOT = 100
RULES = """
rules:
  - {name: big, match: {path: /big}, ttl: 1h, max_object: 64MiB}
  - {name: objects, match: {path: /**}, ttl: 1h}
"""


@dataclass(frozen=True)
class Plan:
    """``step``: seconds of each; ``memory``: MiB of L1; ``big``: MiB of the large answer."""

    step: float = 30.0
    urls: int = 200_000
    idle: int = 10_000
    slow: int = 500
    readers: int = 200
    big: int = 50
    memory: int = 64
    connections: int = 512


SHORT = Plan(step=2.0, urls=20_000, idle=200, slow=30, readers=20, big=8, memory=16, connections=128)


@dataclass
class Report:
    capacity: float
    steps: list[tuple[float, Result]]
    rss_idle: int
    rss_most: int
    rss_end: int
    memory: int

    @property
    def goodput_at_three(self) -> float:
        """As a share of the most that any step had."""
        most = max(result.goodput for _, result in self.steps)
        return next(result.goodput for times, result in self.steps if times == 3.0) / most

    @property
    def recovered(self) -> float:
        """The share of what was offered last, after the overload, that was answered well."""
        result = self.steps[-1][1]
        return result.good / result.offered

    @property
    def memory_factor(self) -> float:
        """What was resident at most, over what the settings and an idle worker come to."""
        return self.rss_most / (self.rss_idle + self.memory)

    def lines(self) -> list[str]:
        rows = [
            f"capacity {self.capacity:,.0f} requests/s",
            "",
            "  times  offered/s   good/s  refused/s  not answered  p50 ms  p99 ms  refused p50 ms",
        ]
        for times, r in self.steps:
            lost, seconds = r.offered - r.good - r.refused, r.seconds
            rows.append(
                f"  {times:5.1f} {r.offered / seconds:10,.0f} {r.goodput:8,.0f} {r.refused / seconds:10,.0f}"
                f" {lost / r.offered:12.1%} {percentile(r.times, 0.5) * 1e3:8.1f}"
                f" {percentile(r.times, 0.99) * 1e3:7.1f} {percentile(r.refusal_times, 0.5) * 1e3:15.1f}"
            )
        idle, most, end, due = (
            f"{octets / 2**20:.0f} MiB"
            for octets in (self.rss_idle, self.rss_most, self.rss_end, self.rss_idle + self.memory)
        )
        rows += [
            "",
            f"goodput at three times the capacity: {self.goodput_at_three:.0%} of the most",
            f"after it, at 0.8: {self.recovered:.1%} answered",
            f"resident: idle {idle}, most {most}, at the end {end}",
            f"settings and idle come to {due}: {self.memory_factor:.2f} times",
        ]
        return rows


# -- the origin -------------------------------------------------------------------------------------------


class Origin(asyncio.Protocol):
    """Answers anything with OBJECT octets, /big with ``big`` MiB."""

    def __init__(self, big: int) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
        self._plain = head % OBJECT + bytes(OBJECT)
        self._big = head % (big * 2**20) + bytes(big * 2**20)
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._transport.write(self._big if head.startswith(b"GET /big ") else self._plain)


async def _origin(big: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Origin(big), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - who started it reads the port
    ended = asyncio.Event()
    await loop.connect_read_pipe(lambda: UntilEnd(ended), sys.stdin)
    await ended.wait()
    server.close()


class UntilEnd(asyncio.Protocol):
    """The origin ends with whoever started it."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended.set()


# -- those who stand beside the load ----------------------------------------------------------------------


async def idle_client(port: int, connecting: asyncio.Semaphore) -> None:
    """Asks once and stays."""
    async with connecting:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(0))
        await reader.readuntil(b"\r\n\r\n")
    try:
        while await reader.read(65536):
            pass
    finally:
        writer.transport.abort()


async def slow_client(port: int) -> None:
    """Sends a head an octet a second, and comes back when it is shut out."""
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for octet in request(0):
                writer.write(bytes([octet]))
                await asyncio.sleep(1)
                if writer.transport.is_closing():
                    break
        except OSError:
            pass
        finally:
            writer.transport.abort()


async def slow_reader(port: int) -> None:
    """Reads a large answer at a thousand octets a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    try:
        writer.write(b"GET /big HTTP/1.1\r\nHost: load.test\r\n\r\n")
        while await reader.read(1000):  # noqa: ASYNC110 - the slowness is what it is for
            await asyncio.sleep(1)
    except OSError:
        pass
    finally:
        writer.transport.abort()


def request(number: int) -> bytes:
    return b"GET /o/%d HTTP/1.1\r\nHost: load.test\r\n\r\n" % number


# -- the run ----------------------------------------------------------------------------------------------


async def measured(port: int, pid: int, plan: Plan) -> Report:
    numbers = itertools.count()

    def next_request() -> bytes:
        """Every other one is hot; the others go through all URLs."""
        number = next(numbers)
        return request(number // 2 % HOT if number % 2 else HOT + number // 2 % plan.urls)

    warm = Pool(port, 8)
    await warm.saturate(0.5, next_request, at_once=8)
    await warm.close()
    connecting = asyncio.Semaphore(100)
    beside = [idle_client(port, connecting) for _ in range(plan.idle)]
    idlers = [asyncio.ensure_future(each) for each in beside]  # noqa: TID251 - no part of the product
    await asyncio.sleep(0)
    for _ in range(100):  # all who wait go first
        await connecting.acquire()
    for _ in range(100):
        connecting.release()
    rss_idle = resident(pid)
    others = [slow_client(port) for _ in range(plan.slow)] + [slow_reader(port) for _ in range(plan.readers)]
    idlers += [asyncio.ensure_future(each) for each in others]  # noqa: TID251
    await asyncio.sleep(plan.readers / 10)  # until the kernel has taken all that it will of the large answers
    most = resident(pid)
    pool = Pool(port, plan.connections)
    steps = []
    try:
        capacity = (await pool.saturate(max(2.0, plan.step / 3), next_request)).goodput
        if not capacity:
            raise SystemExit("nothing was answered within a second while the capacity was measured")
        for times in STEPS:
            result = await pool.offer(capacity * times, plan.step, next_request)
            await pool.settle()
            steps.append((times, result))
            most = max(most, resident(pid))
    finally:
        await pool.close()
        for task in idlers:
            task.cancel()
        await asyncio.gather(*idlers, return_exceptions=True)
    return Report(capacity, steps, rss_idle, most, resident(pid), plan.memory * 2**20)


def run(plan: Plan, directory: Path) -> Report:
    """Start origin and edge, and measure. The slow readers end by the least rate, so it is one they miss."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = plan.idle + plan.slow + plan.readers + plan.connections
    if hard != resource.RLIM_INFINITY and hard < wanted + 500:
        raise SystemExit(f"this takes {wanted + 500} open files, and ulimit -Hn is {hard}")
    rules = directory / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    command = [sys.executable, "-m", "tests.load.overload", "--origin", str(plan.big)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as origin:
        assert origin.stdout is not None
        url = f"http://127.0.0.1:{int(origin.stdout.readline())}"
        most = plan.idle + plan.slow + plan.readers + plan.connections + 100
        arguments = ["--memory", f"{plan.memory}MiB", "--keepalive", "10m", "--access-log", "off"]
        arguments += ["--max-connections", str(most)]
        with edgeproxy_process(url, directory, rules=rules, arguments=arguments) as edge:
            report = uvloop.run(measured(edge.port, edge.process.pid, plan))
        assert origin.stdin is not None
        origin.stdin.close()
        return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="seconds in place of minutes, few clients")
    parser.add_argument("--step", type=float, help="seconds of each step")
    parser.add_argument("--origin", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.origin:
        uvloop.run(_origin(args.origin))
        return 0
    plan = SHORT if args.short else Plan()
    if args.step:
        plan = Plan(**{**vars(plan), "step": args.step})
    with tempfile.TemporaryDirectory() as directory:
        report = run(plan, Path(directory))
    print("\n".join(report.lines()))  # noqa: T201 - a command
    return 0 if report.goodput_at_three >= 0.9 and report.recovered >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
