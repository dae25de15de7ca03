"""Flat where others climb: as fast with 10,000 rules as with 10, with 1,000,000 entries as with 1,000.

Rules of this file:

- Two edgeproxies side by side, in turn, round after round, as everywhere; the figure is the median of the
  rounds' ratios.
- ``hot`` is what the issue names. Header blocks never seen before are measured too: they look for a rule each
  time, while a known block need not.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING

from tests.bench import load, servers
from tests.bench.checks import Check
from tests.bench.machine import available_memory
from tests.bench.origin import Origin
from tests.bench.probe import Answer, Connection, request
from tests.bench.processes import Processes, Unusable, resident
from tests.bench.scripts import script
from tests.bench.servers import MEBIBYTE, TOKEN, Setup
from tests.bench.verify import judge, verify
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.servers import Running

WITHIN = 0.10
FEW_RULES, MANY_RULES = 10, 10_000
FEW_ENTRIES = 1_000
ENTRY = 8_192
"""Octets of memory set aside for each small entry, with its share of everything else."""
A_FILE = 1_000

_FORMS = (
    # Of a hundred rules: the names that a large API gives its resources, mostly.
    (70, 'path: "/api/v{n}/resources-{n}/{{id}}"'),
    (15, 'path: "/static/{n}/**"'),
    (5, 'path: "*.{n}x"'),
    (5, 'path: "/**", host: "tenant-{n}.example"'),
    (3, 'path: "~/legacy/{n}/[0-9]+/(old|new)"'),
    (2, 'path: "/**", headers: {{x-tenant: "t{n}"}}'),
)


def write_rules(directory: Path, count: int, ttl: str = "1h") -> Path:
    """``count`` rules of all forms in the proportions above, in files of a thousand; the last one is that of
    the workloads, which so has all others before it."""
    directory.mkdir(parents=True, exist_ok=True)
    forms = [form for share, form in _FORMS for _ in range(share)]
    rules = []
    for number in range(count - 1):
        form = forms[number * 37 % len(forms)].format(n=number)
        rules.append(f"  - name: rule-{number}\n    match: {{{form}}}\n    ttl: {ttl}\n")
    rules.append(f'  - name: last\n    match: {{path: ["/u/**", "/1k"]}}\n    ttl: {ttl}\n')
    for at in range(0, count, A_FILE):
        (directory / f"{at // A_FILE:03}.yaml").write_text("rules:\n" + "".join(rules[at : at + A_FILE]))
    return directory


class Flatness:
    def __init__(self, *, rounds: int, seconds: int, entries: int, say: Callable[[str], None]) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._entries = entries
        self._say = say
        self._scripts = 0

    def rules(self) -> list[Check]:
        self._say(f"flatness: {FEW_RULES} rules and {MANY_RULES:,}")
        with Processes() as processes:
            origin = Origin(processes)
            both = [
                self._with_rules(
                    processes, origin, count, write_rules(processes.directory / f"rules-{count}", count)
                )
                for count in (FEW_RULES, MANY_RULES)
            ]
            return [
                self._compare(
                    processes, origin, both, name, f"{MANY_RULES:,} rules against {FEW_RULES}", held=held
                )
                for name, held in (("hot", True), ("newheads", False))
            ] + [
                Check("flatness", f"ready with {MANY_RULES:,} rules, after", f"{both[1].started:.2f} s"),
                self._reload(both[1], processes.directory / f"rules-{MANY_RULES}"),
            ]

    def entries(self) -> list[Check]:
        room = available_memory() // 2 // ENTRY
        count = min(self._entries, room)
        scaled = "" if count == self._entries else f" (of {self._entries:,}: memory is short)"
        self._say(f"flatness: {FEW_ENTRIES:,} entries and {count:,}{scaled}")
        with Processes() as processes:
            origin = Origin(processes)
            setup = Setup(memory=max(256, count * ENTRY // MEBIBYTE))
            both = [servers.start(processes, "edgeproxy", origin, setup) for _ in range(2)]
            before = resident(both[1].pid)
            for running, urls in zip(both, (FEW_ENTRIES, count), strict=True):
                path = self._written(processes, "fill", "/u/", urls, sets=1)
                load.fill(running.port, path)
            grown = (resident(both[1].pid) - before) / count
            what = f"{count:,} entries{scaled} against {FEW_ENTRIES:,}"
            return [
                self._compare(processes, origin, both, "hot", what, held=True),
                Check("flatness", f"memory for each of {count:,} entries of 1 KB", f"{grown:,.0f} octets"),
            ]

    def _reload(self, running: Running, rules: Path) -> Check:
        """Hits, one after the other, from the order to reload until it is answered."""
        write_rules(rules, MANY_RULES, ttl="2h")
        client, admin = Connection(running.port), Connection(running.admin)
        headers = {"Host": f"127.0.0.1:{running.admin}", "Authorization": f"Bearer {TOKEN}"}
        answers: list[Answer] = []
        order = request("/api/rules/reload", headers, "POST", b"")
        reload = threading.Thread(target=lambda: answers.append(admin.ask(order)))
        times = []
        began = time.perf_counter()
        reload.start()
        while reload.is_alive():
            asked = time.perf_counter()
            client.ask(request("/u/000001", {}))
            times.append((time.perf_counter() - asked) * 1000)
            time.sleep(0.001)
        took = time.perf_counter() - began
        client.close()
        admin.close()
        if not answers or answers[0].status != 200:
            raise Unusable("flatness: the reload failed")
        times.sort()
        figure = f"p99 {times[len(times) * 99 // 100]:.1f} ms, slowest {times[-1]:.1f} ms"
        self._say(f"  hits during a reload: {figure}")
        return Check(
            "flatness", f"{len(times):,} hits while {MANY_RULES:,} rules reload, {took:.1f} s", figure
        )

    def _with_rules(self, processes: Processes, origin: Origin, count: int, rules: Path) -> Running:
        running = servers.start(processes, "edgeproxy", origin, Setup(rules=rules))
        load.fill(running.port, self._written(processes, "fill", "/u/", 1_000, sets=1))
        self._say(f"  ready with {count:,} rules after {running.started:.2f} s")
        return running

    def _written(self, processes: Processes, kind: str, path: str, urls: int, sets: int = 20) -> Path:
        self._scripts += 1
        target = processes.directory / f"flat-{self._scripts}.lua"
        text = script(
            kind,
            path=path,
            urls=urls,
            stamp=f"f{self._scripts}",
            seed=1,
            connections=load.CONNECTIONS,
            sets=sets,
        )
        target.write_text(text)
        return target

    def _compare(
        self,
        processes: Processes,
        origin: Origin,
        both: list[Running],
        name: str,
        what: str,
        *,
        held: bool,
    ) -> Check:
        workload = WORKLOADS[name]
        ratios, p99, wrong = [], [], []
        octets = []
        for running in both:
            load.wrk(running.port, self._written(processes, workload.kind, workload.path, workload.urls), 1)
            octets.append(verify(running, origin, workload, workload.path, (), "f"))
        for _ in range(self._rounds):
            rates = []
            for running, length in zip(both, octets, strict=True):
                path = self._written(processes, workload.kind, workload.path, workload.urls)
                before = origin.requests()
                seen = load.wrk(running.port, path, self._seconds)
                wrong += judge(seen, origin.requests() - before, workload, length)
                rates.append(seen.rate)
                p99.append(seen.p99)
            ratios.append(rates[1] / rates[0])
        if wrong:
            raise Unusable(f"{what}, {name}: {wrong[0]}")
        ratio = statistics.median(ratios)
        figure = f"{ratio:.2f} x the rate"
        self._say(f"  {name}: {figure} ({what})")
        if not held:
            return Check("flatness", f"{name}: {what}", figure)
        return Check("flatness", f"{name}: {what}", figure, f"within {WITHIN:.0%}", abs(ratio - 1) <= WITHIN)
