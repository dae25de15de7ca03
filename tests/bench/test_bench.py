"""The bench itself: what the generators say is read as it is meant, and one small workload runs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from edgeproxy.rules.load import load_rules
from tests.bench import load, servers
from tests.bench.flatness import MANY_RULES, write_rules
from tests.bench.load import Load, parse_h2load, parse_wrk, percentile
from tests.bench.origin import Origin
from tests.bench.processes import Processes, Unusable, cpu_seconds
from tests.bench.scripts import KINDS, script
from tests.bench.targets import TARGETS, verdicts
from tests.bench.throughput import Row
from tests.bench.verify import judge, verify
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path

RAN = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   619.21us    1.03ms  19.22ms   94.21%
  120000 requests in 1.00s, 150.11MB read
RESULT 120000 1000000 157286400 512 2048 0 0
"""

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None or shutil.which("nginx") is None, reason="needs wrk and nginx"
)


def test_what_wrk_says_is_read() -> None:
    seen = parse_wrk(RAN)
    assert seen == Load(120_000, 1_000_000, 157_286_400, 512, 2048, 0, 0)
    assert seen.rate == 120_000


@pytest.mark.parametrize(
    "said", ["", "unable to connect to 127.0.0.1:1", "RESULT 1 2", "RESULT a b c d e f g"]
)
def test_what_wrk_does_not_say_is_an_error(said: str) -> None:
    with pytest.raises(Unusable):
        parse_wrk(said)


def test_the_log_of_h2load_is_read_without_its_first_tenth() -> None:
    lines = [f"{1_000_000 + at * 1000}\t200\t{at}" for at in range(1000)]
    lines[500] = f"{1_000_000 + 500_000}\t503\t500"
    seen = parse_h2load("\n".join(reversed(lines)) + "\n")
    assert (seen.requests, seen.failed, seen.p50, seen.p99) == (900, 1, 549, 990)
    assert seen.rate == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("said", ["", "1 200 3\n", "x\t200\t1\n"])
def test_a_log_that_cannot_be_read_is_an_error(said: str) -> None:
    with pytest.raises(Unusable):
        parse_h2load(said)


def test_percentiles_are_of_values_that_were_seen() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (0, 25, 50, 99, 100)] == [1, 1, 2, 4, 4]


def _row(workload: str, server: str, rate: float, cpu: float) -> Row:
    return Row(workload, server, rates=[rate, rate * 3, 0.0], micros=[cpu])


def test_verdicts_are_of_medians_and_leave_marked_rows_out() -> None:
    rows = [
        _row("hot", "edgeproxy", 100, 5), _row("hot", "nginx", 90, 6), _row("hot", "haproxy", 110, 4),
    ]  # fmt: skip
    assert [(v.reached, v.ok) for v in verdicts(rows)] == [(100 / 110, False), (5, False)]
    rows[2].notes.append("1 answer of 400 and above")
    assert [(v.reached, v.ok) for v in verdicts(rows)] == [(100 / 90, True), (5, True)]
    rows[0].notes.append("1 answer of 400 and above")
    assert [(v.reached, v.ok) for v in verdicts(rows)] == [(None, False), (None, False)]


def test_every_workload_has_a_target_and_a_script() -> None:
    assert WORKLOADS.keys() == TARGETS.keys()
    assert {workload.kind for workload in WORKLOADS.values()} < KINDS.keys()


@pytest.mark.parametrize(
    ("seen", "fetched", "wrong"),
    [
        (Load(1000, 1, 1_000_000, 1, 1, 0, 0), 0, ""),
        (Load(1000, 1, 1_000_000, 1, 1, 3, 0), 0, "3 answers of 400"),
        (Load(1000, 1, 1_000_000, 1, 1, 0, 2), 0, "2 connections"),
        (Load(1000, 1, 1_000_000, 1, 1, 0, 0), 500, "50.0% of the requests reached the origin"),
        (Load(1000, 1, 300_000, 1, 1, 0, 0), 0, "answers had 300 octets"),
    ],
)
def test_a_run_that_is_not_as_meant_is_marked(seen: Load, fetched: int, wrong: str) -> None:
    said = judge(seen, fetched, WORKLOADS["hot"], 1000)
    assert (said[0].startswith(wrong) and len(said) == 1) if wrong else said == []


def test_the_rules_of_the_flatness_measure_load_and_are_as_many_as_said(tmp_path: Path) -> None:
    assert len(load_rules(write_rules(tmp_path / "few", 10)).rules) == 10
    assert len(load_rules(write_rules(tmp_path / "more", 1_500)).rules) == 1_500
    assert MANY_RULES > 1_500


@needs_wrk
def test_a_small_workload_of_hits_runs_and_is_one(tmp_path: Path) -> None:
    with Processes() as processes:
        origin = Origin(processes)
        running = servers.start(processes, "edgeproxy", origin, servers.Setup())
        path = tmp_path / "load.lua"

        def write(kind: str, urls: int) -> None:
            text = script(kind, path="/u/", urls=urls, stamp="t", seed=1, connections=4, sets=2)
            path.write_text(text)

        write("fill", 50)
        load.fill(running.port, path, 20, 4)
        assert origin.requests() == 50
        workload = WORKLOADS["hit1k"]
        octets = verify(running, origin, workload, "/u/", (), "t")
        before, cpu = origin.requests(), cpu_seconds(running.pid)
        write("many", 50)
        seen = load.wrk(running.port, path, 1, 4)
        assert judge(seen, origin.requests() - before, workload, octets) == []
        assert seen.requests > 0
        assert cpu_seconds(running.pid) > cpu
    assert running.process.poll() is not None
    assert not processes.directory.exists()
