"""The tail at half of the top rate: p50 and p99 of hits, undisturbed and while something else goes on.

Rules of this file:

- The rate is half of what edgeproxy gives to the same generator unpaced, measured first; nginx is asked at
  the same one. The request's time is from its sending to its answer's end, as h2load has it.
- Each disturbance runs beside edgeproxy alone, as often as it says, and is counted: one that did not happen
  is an error. nginx's undisturbed p99 is what all are held against.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench import load, servers
from tests.bench.checks import Check
from tests.bench.flatness import write_rules
from tests.bench.origin import Origin
from tests.bench.probe import HOST, Connection, request
from tests.bench.processes import Processes, Unusable
from tests.bench.servers import TOKEN, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.bench.servers import Running

TIMES = 3.0
URLS = [f"/u/{number:06d}" for number in range(1_000)]
HEAD = ("user-agent: bench", "accept: application/json")
RULES = 100
PASSES = 5
RISING = 1.05


@dataclass(frozen=True, slots=True)
class Disturbance:
    what: str
    every: float
    """Seconds between two."""
    act: Callable[[Disturber], None]


class Disturber:
    """What a disturbance needs: connections of its own to both ports, and a count."""

    def __init__(self, running: Running, rules: Path) -> None:
        self.running = running
        self.rules = rules
        self.number = 0
        self.client = Connection(running.port)
        self.admin = Connection(running.admin)

    def operate(self, path: str, body: bytes = b"") -> None:
        headers = {"Host": f"127.0.0.1:{self.running.admin}", "Authorization": f"Bearer {TOKEN}"}
        answer = self.admin.ask(request(path, headers, "POST", body))
        if answer.status != 200:
            raise Unusable(f"tail: POST {path} is answered {answer.status}: {answer.body[:200]!r}")

    def close(self) -> None:
        self.client.close()
        self.admin.close()


def _compress(disturber: Disturber) -> None:
    """A body of 1 MB that is new, so that it is fetched, coded and stored."""
    target = f"/big/{time.perf_counter_ns()}"
    answer = disturber.client.ask(request(target, {"Accept-Encoding": "br"}))
    if answer.headers.get("content-encoding") != "br":
        raise Unusable("tail: a large object was not coded")


def _purge(disturber: Disturber) -> None:
    url = f"http://{HOST}/purged/{disturber.number}"
    disturber.operate("/api/cache/purge", json.dumps({"url": url}).encode())


def _reload(disturber: Disturber) -> None:
    """The files differ from the time before: a reload that changes nothing may do nothing."""
    write_rules(disturber.rules, RULES, ttl=f"{2 + disturber.number % 2}h")
    disturber.operate("/api/rules/reload")


DISTURBANCES = (
    Disturbance("while objects of 1 MB are compressed, five a second", 0.2, _compress),
    Disturbance("while purges arrive, 100 a second", 0.01, _purge),
    Disturbance(f"while {RULES} rules reload, changed, once a second", 1.0, _reload),
)


@contextlib.contextmanager
def _disturbed(running: Running, rules: Path, disturbance: Disturbance) -> Iterator[Disturber]:
    disturber = Disturber(running, rules)
    stop = threading.Event()
    wrong: list[Exception] = []

    def run() -> None:
        began = time.perf_counter()
        try:
            while not stop.wait(max(0.0, began + disturber.number * disturbance.every - time.perf_counter())):
                disturbance.act(disturber)
                disturber.number += 1
        except Exception as error:  # noqa: BLE001  # handed on to the thread that waits
            wrong.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield disturber
    finally:
        stop.set()
        thread.join(30)
        disturber.close()
    if wrong:
        raise Unusable(f"tail: {disturbance.what}: {wrong[0]!r}")


def tail(names: list[str], *, rounds: int, seconds: int, say: Callable[[str], None]) -> list[Check]:
    if shutil.which("h2load") is None:
        line = "not measured: h2load is not installed (Debian: apt install nghttp2-client)"
        say(f"tail: {line}")
        return [Check("tail", "p99 at half of the top rate", line)]
    with Processes() as processes:
        origin = Origin(processes)
        rules = write_rules(processes.directory / "rules", RULES)
        ours = servers.start(processes, "edgeproxy", origin, Setup(rules=rules))
        nginx = servers.start(processes, "nginx", origin, Setup()) if "nginx" in names else None
        directory = processes.directory

        def run(running: Running, rate: float | None) -> load.Paced:
            seen = load.h2load(running.port, directory, URLS, rate=rate, seconds=seconds, head=HEAD)
            if seen.failed:
                raise Unusable(f"tail: {seen.failed} answers of {running.name} were not 2xx or 3xx")
            return seen

        if nginx is not None:
            _warmed(lambda: run(nginx, None).rate)
        top = _warmed(lambda: run(ours, None).rate)
        rate = top / 2
        say(f"tail: top rate {top:,.0f}/s, measured at {rate:,.0f}/s")
        plain, other = [], []
        for _ in range(rounds):
            plain.append(run(ours, rate))
            if nginx is not None:
                other.append(run(nginx, rate))
        checks = []
        bound = None
        if other:
            bound = TIMES * statistics.median(seen.p99 for seen in other)
            checks.append(Check("tail", f"nginx at {rate:,.0f}/s", _figure(other)))
        checks.append(_check(f"edgeproxy at {rate:,.0f}/s (half of its top rate)", plain, bound))
        for disturbance in DISTURBANCES:
            seen = []
            for _ in range(rounds):
                with _disturbed(ours, rules, disturbance) as disturber:
                    seen.append(run(ours, rate))
                if disturber.number < min(0.5 * seconds / disturbance.every, 1):
                    raise Unusable(f"tail: {disturbance.what}: only {disturber.number} took place")
            check = _check(f"{disturbance.what} ({disturber.number} took place)", seen, bound)
            say(f"  {check.what}: {check.figure}")
            checks.append(check)
        return checks


def _warmed(rate: Callable[[], float]) -> float:
    """Requests a second once they rise no more."""
    best, now = 0.0, rate()
    for _ in range(PASSES):
        if now < best * RISING:
            break
        best, now = now, rate()
    return max(best, now)


def _figure(seen: list[load.Paced]) -> str:
    p50 = statistics.median(each.p50 for each in seen)
    p99 = statistics.median(each.p99 for each in seen)
    return f"p50 {p50:,.0f} us, p99 {p99:,.0f} us at {statistics.median(each.rate for each in seen):,.0f}/s"


def _check(what: str, seen: list[load.Paced], bound: float | None) -> Check:
    if bound is None:
        return Check("tail", what, _figure(seen), f"p99 < {TIMES:.0f} x nginx's")
    p99 = statistics.median(each.p99 for each in seen)
    return Check("tail", what, _figure(seen), f"p99 < {TIMES:.0f} x nginx's ({bound:,.0f} us)", p99 < bound)
