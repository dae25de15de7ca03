"""Several workers as an operator runs them: real processes, a real origin, signals.

Rules of this file:

- A connection is pinned to a worker by stopping the others (SIGSTOP) while it is opened; which worker answers
  is seen in the request id, whose first 16 digits are the process's own.
- Waiting is a loop of questions to the admin port, bounded by time.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.clock import Clock
from edgeproxy.settings import environment
from tests.support.ledger import FIN, Gate, LedgerOrigin, head
from tests.support.origins import (
    Answer,
    EdgeProcess,
    Running,
    demo_origin,
    edgeproxy_process,
    free_port,
    request,
)
from tests.support.threads import threaded_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# One process of the test run starts these, once.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("workers")]

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 15.0
RULES = """
rules:
  - name: pitches
    match: {path: "/api/pitches/**"}
    ttl: 15m
    tags: [pitches]
  - name: counted
    match: {path: "/counted/**"}
    rate_limit: {rate: 1/h, burst: 5}
"""


@dataclass
class Pinned:
    """A kept connection to one worker."""

    connection: http.client.HTTPConnection
    pid: int
    prefix: str = ""

    def get(self, target: str) -> Answer:
        self.connection.request("GET", target)
        reply = self.connection.getresponse()
        return Answer(reply.status, tuple(reply.getheaders()), reply.read())

    def word(self, target: str) -> str:
        answer = self.get(target)
        assert answer.status == 200
        return answer.get("X-Cache-Status") or ""


def stats(edge: EdgeProcess) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(edge.admin("GET", "/api/cache/stats").body)
    return told


def pids(edge: EdgeProcess) -> list[int]:
    """Of the workers that serve, by slot."""
    return [each["pid"] for each in stats(edge)["node"]["each"] if each["state"] == "ready"]


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> float:
    """Seconds it took."""
    clock = Clock()
    began = clock.monotonic()
    pause = subprocess.Popen(["sleep", str(patience + 5)])
    try:
        while clock.monotonic() < began + patience:
            if condition():
                return clock.monotonic() - began
            with contextlib.suppress(subprocess.TimeoutExpired):
                pause.wait(0.03)
    finally:
        pause.kill()
        pause.wait()
    raise AssertionError(f"waited in vain for {what}")


def both(edge: EdgeProcess) -> list[int]:
    """As ``pids``, when there are two: one that is busy may not say in time that it is ready."""
    found: list[int] = []

    def two() -> bool:
        found[:] = pids(edge)
        return len(found) == 2

    until(two, "both workers")
    return found


@contextlib.contextmanager
def pinned(edge: EdgeProcess) -> Iterator[list[Pinned]]:
    """A connection to each worker."""
    workers = both(edge)
    made: list[Pinned] = []
    try:
        for pid in workers:
            others = [other for other in workers if other != pid]
            for other in others:
                os.kill(other, signal.SIGSTOP)
            try:
                pin = Pinned(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10), pid)
                made.append(pin)
                answer = pin.get(f"/api/notifications/{pid}")
                pin.prefix = (answer.get("X-Request-ID") or "")[:16]
            finally:
                for other in others:
                    os.kill(other, signal.SIGCONT)
        assert len({pin.prefix for pin in made}) == len(workers)
        yield made
    finally:
        for pin in made:
            pin.connection.close()


def purge(edge: EdgeProcess, body: dict[str, object]) -> dict[str, Any]:
    answer = edge.admin("POST", "/api/cache/purge", json.dumps(body).encode())
    assert answer.status == 200, answer.body
    told: dict[str, Any] = json.loads(answer.body)
    return told


def sample(edge: EdgeProcess, name: str) -> float:
    found = re.search(
        rf"^{re.escape(name)} (\S+)$", edge.admin("GET", "/metrics").body.decode(), re.MULTILINE
    )
    assert found is not None, name
    return float(found[1])


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with demo_origin(tmp_path_factory.mktemp("origin")) as running:
        yield running


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rules")
    (directory / "one.yaml").write_text(RULES)
    return directory


@pytest.fixture(scope="module")
def edge(origin: Running, rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    directory = tmp_path_factory.mktemp("edge")
    flags = ["--workers", "2", "--crash-limit", "100"]
    with edgeproxy_process(origin.url, directory, rules=rules, arguments=flags) as running:
        yield running
        assert running.process.poll() is None


def test_a_purge_is_seen_by_both_workers_when_it_returns(edge: EdgeProcess) -> None:
    target = "/api/pitches/1"
    with pinned(edge) as pins:
        orders: list[dict[str, object]] = [
            {"url": target}, {"tag": "pitches"}, {"prefix": "/api/"}, {"all": True}
        ]  # fmt: skip
        for order in orders:
            for pin in pins:
                pin.word(target)
                assert pin.word(target) == "HIT"  # by the lane, if it is there
            number = int(purge(edge, order)["number"])
            assert [pin.word(target) for pin in pins] == ["MISS", "MISS"], order
            assert int(purge(edge, {"tag": "nothing"})["number"]) > number


def test_a_warm_up_and_a_cold_start(tmp_path: Path, rules: Path) -> None:
    """The command through the parent; after a restart the node warms itself, from what both were asked."""
    flags = ["--workers", "2", "--warm-start", "on"]
    with threaded_origin() as origin:
        with edgeproxy_process(
            origin.url, tmp_path, rules=rules, store=f"lmdb:{tmp_path / 'one'}", arguments=flags
        ) as edge:
            host = f"127.0.0.1:{edge.port}"
            urls = [f"http://{host}/api/pitches/{n}" for n in range(5)]
            done = subprocess.run(
                [sys.executable, "-m", "edgeproxy", "warm", *urls, "ftp://x", "--admin",
                 f"127.0.0.1:{edge.admin_port}"],
                env={**environment(), "EDGEPROXY_ADMIN_TOKEN": edge.token}, capture_output=True, text=True,
                timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            assert done.stdout.splitlines()[-1] == "6 URLs: 5 stored, 1 refused", done.stdout + done.stderr
            assert sample(edge, 'edgeproxy_warmed_total{result="stored",source="asked"}') == 5
            with pinned(edge) as pins:
                for pin in pins:
                    assert pin.word("/api/pitches/3") == "HIT"
                    for _ in range(2):  # a miss that is streamed counts with its first hit
                        pin.connection.request(
                            "GET", f"/api/pitches/of-{pins.index(pin)}", headers={"Host": "api.example"}
                        )
                        pin.connection.getresponse().read()
            assert stats(edge)["warming"]["warmed"]["asked"] == {"stored": 5, "refused": 1}
        assert len(list((tmp_path / "cache").glob("most-wanted-*.json"))) == 2
        before = {f"/api/pitches/of-{n}": origin.ledger.count(f"/api/pitches/of-{n}") for n in range(2)}
        with edgeproxy_process(
            origin.url, tmp_path, rules=rules, store=f"lmdb:{tmp_path / 'two'}", arguments=flags
        ) as edge:
            until(
                lambda: all(origin.ledger.count(path) > count for path, count in before.items()),
                "the warm start",
            )


def test_numbers_of_the_workers_add_up(edge: EdgeProcess) -> None:
    target = "/api/pitches/2"
    name = 'edgeproxy_requests_total{result="hit",rule="pitches"}'
    with pinned(edge) as pins:
        for pin in pins:
            pin.word(target)
        hits, told, before, seen = sample(edge, name), stats(edge), performance(edge), live(edge)
        for pin, count in zip(pins, (3, 4), strict=True):
            assert [pin.word(target) for _ in range(count)] == ["HIT"] * count
        assert sample(edge, name) == hits + 7
        now = stats(edge)
        assert now["hits"] == told["hits"] + 7
        assert now["rules"]["pitches"]["results"]["hit"] == told["rules"]["pitches"]["results"]["hit"] + 7
        assert 0 < now["hit_ratio"] < 1
        assert performance(edge) == before + 7
        assert live(edge) == seen + 7
        assert sample(edge, "edgeproxy_node_workers_ready") == 2
        assert sample(edge, "edgeproxy_store_l1_max_bytes") == 256 * 2**20  # --memory is of both together
        found = json.loads(edge.admin("GET", f"/api/cache/entry?url={edge.url}{target}").body)
        assert found["variants"][0]["status"] == 200
        dry = purge(edge, {"url": target, "dry_run": True})
        assert (dry["objects"], dry["number"]) == (2, None)  # each worker has its copy
        assert [pin.word(target) for pin in pins] == ["HIT", "HIT"]


def live(edge: EdgeProcess, rule: str = "pitches") -> int:
    """What the page shows for the rule, over the last hour."""
    rows = json.loads(edge.admin("GET", "/api/live?window=1h").body)["rules"]
    return sum(row["requests"] for row in rows if row["name"] == rule)


def performance(edge: EdgeProcess) -> int:
    told: int = json.loads(edge.admin("GET", "/api/performance").body)["rules"]["pitches"]["1h"]["requests"]
    return told


def test_a_killed_worker_is_replaced_and_the_other_one_does_not_notice(edge: EdgeProcess) -> None:
    target = "/api/pitches/3"
    with pinned(edge) as (victim, other):
        for pin in (victim, other):
            pin.word(target)
        counted = sample(edge, 'edgeproxy_requests_total{result="hit",rule="pitches"}')
        number = int(purge(edge, {"tag": "something"})["number"])
        os.kill(victim.pid, signal.SIGKILL)
        took = until(lambda: len(set(pids(edge)) - {victim.pid}) == 2, "a replacement")
        assert took < 10, "a replacement takes an interpreter's start, no pause besides"
        assert other.pid in both(edge)
        assert other.word(target) == "HIT"
        assert sample(edge, 'edgeproxy_requests_total{result="hit",rule="pitches"}') >= counted
        assert sample(edge, "edgeproxy_node_crashes_total") >= 1
        assert json.loads(edge.admin("GET", "/readyz").body)["status"] in ("ready", "degraded")
    with pinned(edge) as pins:  # the purge goes to the new one, in the first slot: both see it
        for pin in pins:
            pin.word(target)
        assert int(purge(edge, {"url": target})["number"]) > number
        assert [pin.word(target) for pin in pins] == ["MISS", "MISS"]


def test_a_rate_limit_is_the_nodes(edge: EdgeProcess) -> None:
    """What a client took at one worker he has not at the other, nor at the one that comes after it."""
    with pinned(edge) as pins:
        statuses = [pins[turn % 2].get(f"/counted/{turn}").status for turn in range(8)]
        assert 429 not in statuses[:5]
        assert statuses[5:] == [429] * 3
        os.kill(pins[0].pid, signal.SIGKILL)
        gone = pins[0].pid
    until(lambda: len(pids(edge)) == 2 and gone not in pids(edge), "a new worker")
    with pinned(edge) as pins:
        assert [pin.get("/counted/x").status for pin in pins] == [429] * 2


def test_rules_are_taken_over_everywhere_or_nowhere(edge: EdgeProcess, rules: Path) -> None:
    file = rules / "one.yaml"

    def names() -> list[str]:
        with pinned(edge) as pins:
            told = [pin.get("/api/pitches/4").get("Cache-Status") or "" for pin in pins]
        return [line.partition("rule=")[2].partition(";")[0] or line for line in told]

    try:
        file.write_text(RULES.replace("name: pitches", "name: deals"))
        answer = edge.admin("POST", "/api/rules/reload")
        assert answer.status == 200, answer.body
        version = json.loads(answer.body)["version"]
        assert all("deals" in name for name in names()), names()

        file.write_text(RULES.replace("ttl: 15m", "ttl: soon"))
        answer = edge.admin("POST", "/api/rules/reload")
        assert answer.status == 422
        assert "one.yaml:5" in json.loads(answer.body)["errors"][0]
        assert sample(edge, "edgeproxy_config_reload_failed_total") == 1
        # A worker that has to be replaced meanwhile starts with the rules in force.
        victim = pids(edge)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(pids(edge)) - {victim}) == 2, "a replacement")
        assert all("deals" in name for name in names()), names()
        assert json.loads(edge.admin("GET", "/api/rules").body)["version"] == version
    finally:
        file.write_text(RULES)
    edge.process.send_signal(signal.SIGHUP)
    until(lambda: sample(edge, "edgeproxy_config_last_reload_successful") == 1, "the reload")
    assert all("pitches" in name for name in names()), names()


def test_rules_are_tried_and_brought_back_in_both_workers_at_once(edge: EdgeProcess, rules: Path) -> None:
    def change(method: str, path: str, **body: object) -> dict[str, Any]:
        answer = edge.admin(method, f"/api/rules/{path}", json.dumps(body).encode() if body else None)
        assert answer.status == 200, answer.body
        told: dict[str, Any] = json.loads(answer.body)
        return told

    def sides(pins: list[Pinned], of: str) -> list[set[int]]:
        """Which of some pages that are not there each worker answers by the new rules."""
        return [
            {n for n in range(40) if pin.get(f"/api/pitches/{of}{n}").get("X-Side") == "new"} for pin in pins
        ]

    (before,) = rules.glob("*.yaml")
    text = before.read_text().replace("ttl: 15m", "ttl: 15m\n    response_headers: {set: {x-side: new}}")
    with pinned(edge) as pins:
        change("PUT", "shadow", files={"a.yaml": text}, sample=2)
        assert sides(pins, "a") == [set(), set()]
        found = change("GET", "shadow")
        assert found["compared"] >= 40
        assert found["pairs"][0]["changes"][0]["new"] == "set x-side: new"
        change("POST", "promote", percent=50)
        one, other = sides(pins, "b")
        assert one == other
        assert 0 < len(one) < 40
        os.kill(pins[0].pid, signal.SIGKILL)
        until(lambda: len(now := pids(edge)) == 2 and pins[0].pid not in now, "the replacement")
    with pinned(edge) as pins:
        assert sides(pins, "b") == [one, one]
        change("POST", "promote", percent=100)
        assert sides(pins, "c") == [set(range(40))] * 2
        change("POST", "rollback", by="ada")
        assert sides(pins, "d") == [set(), set()]
    assert change("GET", "history")["versions"][-1]["by"] == "ada"


def test_a_worker_that_hangs_is_noticed_and_replaced(edge: EdgeProcess) -> None:
    victim, other = both(edge)
    os.kill(victim, signal.SIGSTOP)
    until(lambda: victim not in pids(edge) and len(pids(edge)) == 2, "the replacement of a hanging worker")
    assert other in both(edge)
    assert f"(pid {victim}) hangs" in edge.log()


def test_all_workers_are_replaced_one_at_a_time_and_nothing_fails(edge: EdgeProcess) -> None:
    before = set(both(edge))
    edge.get("/of-no-rule")
    seen = live(edge, "none")
    served = closed = 0

    def replaced() -> bool:
        nonlocal served, closed
        # On kept connections, opened anew only where an answer said that it was the last, and on new ones.
        for pin in pins:
            answer = pin.get("/api/pitches/5")
            assert answer.status == 200
            closed += answer.get("Connection") == "close"
        assert edge.get("/api/pitches/6").status == 200
        served += 1
        return before.isdisjoint(each["pid"] for each in stats(edge)["node"]["each"])

    with pinned(edge) as pins:
        edge.process.send_signal(signal.SIGUSR2)
        until(replaced, "the replacement of all workers")
    assert served > 10
    assert closed >= 2
    assert live(edge, "none") >= seen > 0  # though those who saw it are gone
    assert len(both(edge)) == 2
    until(lambda: "all workers are replaced" in edge.log(), "the end of it")


def test_a_signal_that_means_something_elsewhere_ends_nobody(edge: EdgeProcess) -> None:
    before = pids(edge)
    edge.process.send_signal(signal.SIGUSR1)
    until(lambda: "SIGHUP reopens the access log" in edge.log(), "what to send instead")
    assert edge.get("/api/pitches/6").status == 200
    assert pids(edge) == before


def test_access_log_lines_are_whole(edge: EdgeProcess) -> None:
    with pinned(edge) as pins:
        for number in range(30):
            pins[number % 2].get(f"/api/search?q={'x' * 3000}&n={number}")
    until(lambda: len(re.findall(r"&n=\d+", edge.log())) >= 30, "the access log")
    lines = [json.loads(line) for line in edge.log().splitlines() if line.startswith("{")]
    assert sum("xxx" in line["target"] for line in lines) == 30


async def test_sigterm_lets_requests_end_and_the_status_is_0(tmp_path: Path) -> None:
    async with LedgerOrigin() as ledger:
        answer = head(200, [("Content-Length", "4"), ("Cache-Control", "no-store")])
        ledger.script("/slow", [answer, b"ab", Gate("middle"), b"cd", FIN])
        with ExitStack() as stack:
            running = edgeproxy_process(ledger.url, tmp_path, arguments=["--workers", "2"])
            edge = await asyncio.to_thread(stack.enter_context, running)
            slow = asyncio.get_running_loop().run_in_executor(None, edge.get, "/slow")
            await ledger.gate("middle").reached()
            edge.process.send_signal(signal.SIGTERM)
            ready = await asyncio.to_thread(edge.admin, "GET", "/readyz")
            assert (ready.status, json.loads(ready.body)) == (503, {"status": "draining"})
            await asyncio.to_thread(until, lambda: refused(edge.port), "the port to be closed")
            ledger.gate("middle").open()
            assert (await slow).body == b"abcd"
            assert await asyncio.to_thread(edge.process.wait, 10) == 0
            assert "Traceback" not in edge.log()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_balancer_has_time_to_see_that_it_is_not_ready(
    origin: Running, tmp_path: Path, workers: str
) -> None:
    # C3: 503 first, and the port open for a while; a second signal ends that too.
    flags = ["--workers", workers, "--drain-delay", "100s"]
    with edgeproxy_process(origin.url, tmp_path, arguments=flags) as edge:
        edge.process.send_signal(signal.SIGTERM)
        until(lambda: edge.admin("GET", "/readyz").status == 503, "the drain")
        for _ in range(4):
            assert edge.get("/api/pitches/1").status == 200
        edge.process.send_signal(signal.SIGTERM)
        assert edge.process.wait(30) == 0
        assert "Traceback" not in edge.log()


async def test_groups_that_a_write_names_are_gone_in_both_workers_when_it_is_answered(tmp_path: Path) -> None:
    async with LedgerOrigin() as ledger:
        ledger.reply("/a", headers=[("Cache-Control", "max-age=600"), ("Cache-Groups", '"one", "two"')])
        ledger.reply("/w", headers=[("Cache-Group-Invalidation", '"two"')])

        def words(edge: EdgeProcess) -> list[list[str]]:
            with pinned(edge) as pins:
                told = [[pin.word("/a") for pin in pins] for _ in range(2)]
                edge.request("POST", "/w", body=b"x")
                return [*told, [pin.word("/a") for pin in pins]]

        arguments = ["--workers", "2", "--store", "memory:", "--rules", "none"]
        with ExitStack() as stack:
            running = edgeproxy_process(ledger.url, tmp_path, arguments=arguments)
            edge = await asyncio.to_thread(stack.enter_context, running)
            told = await asyncio.to_thread(words, edge)
        assert told == [["MISS", "MISS"], ["HIT", "HIT"], ["MISS", "MISS"]]


def test_what_one_worker_finds_out_of_an_origin_the_other_knows(tmp_path: Path) -> None:
    """A8: the breaker is the machine's. The other worker's own failures would not open its own."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "pools.yaml").write_text("pools: {default: {breaker: {base: 1m}}}")
    dead = f"http://127.0.0.1:{free_port()}"
    with (
        edgeproxy_process(dead, tmp_path, rules=tmp_path / "rules", arguments=["--workers", "2"]) as edge,
        pinned(edge) as (one, other),
    ):
        until(lambda: one.get("/a").status == 503, "the breaker of one to open")
        clock = Clock()
        began = clock.monotonic()
        until(lambda: clock.monotonic() > began + 1, "the other one to look")
        answer = other.get("/a")
        assert answer.status == 503
        assert "destination_unavailable" in (answer.get("Proxy-Status") or "")


def refused(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return True
    finally:
        connection.close()
    return False


def test_workers_end_with_their_parent(origin: Running, tmp_path: Path) -> None:
    flags = ["--workers", "2"]
    # Short: a Unix socket's path is.
    with (
        TemporaryDirectory(dir="/tmp") as temporary,
        edgeproxy_process(origin.url, tmp_path, arguments=flags, environment={"TMPDIR": temporary}) as edge,
    ):
        (directory,) = Path(temporary).glob("edgeproxy-*")
        assert directory.stat().st_mode & 0o777 == 0o700
        os.kill(edge.process.pid, signal.SIGKILL)
        edge.process.wait(5)
        until(lambda: refused(edge.port), "the workers to end")
        until(lambda: not directory.exists(), "the last of them to tidy up")


def test_a_second_instance_takes_over_when_the_parent_was_killed(origin: Running, tmp_path: Path) -> None:
    """C11: the port is free at once; the store is shared with what still drains, and keeps what it has."""
    store, target = f"lmdb:{tmp_path / 'store'}", "/api/pitches/1"
    flags = ["--workers", "2"]
    with edgeproxy_process(origin.url, tmp_path / "one", store=store, arguments=flags) as first:
        first.get(target)
        until(lambda: first.get(target).get("X-Cache-Status") == "HIT", "a hit")
        until(lambda: stats(first)["store"]["l2_store_entries"] > 0, "the write")
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(5)
        again = [*flags, "--listen", f"127.0.0.1:{first.port}"]
        with edgeproxy_process(origin.url, tmp_path / "two", store=store, arguments=again) as second:
            answer = request(first.port, "GET", target)
            assert (answer.status, answer.get("X-Cache-Status")) == (200, "HIT")
            assert len(pids(second)) == 2
            assert purge(second, {"url": target})["number"]
            assert request(first.port, "GET", target).get("X-Cache-Status") == "MISS"


def test_too_many_crashes_end_the_parent_with_the_reason(origin: Running, tmp_path: Path) -> None:
    with edgeproxy_process(origin.url, tmp_path, arguments=["--workers", "2", "--crash-limit", "2"]) as edge:
        for victim in pids(edge):
            os.kill(victim, signal.SIGKILL)
        assert edge.process.wait(30) == 1
        assert re.search(r"was ended by SIGKILL; that makes 2 crashes within 30 s: giving up", edge.log())


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("rules: [{name: a, match: {path: /a}, ttl: soon}]", [], "bad.yaml:1"),
        (RULES, ["--access-log", "/nonexistent/x/y.log"], "--access-log"),  # only a worker finds this out
    ],
)
def test_what_is_wrong_at_start_is_one_complaint_and_status_2(
    tmp_path: Path, text: str, flags: list[str], says: str
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    command = [
        sys.executable, "-m", "edgeproxy", "serve", "--origin", "http://127.0.0.1:9", "--workers", "2",
        "--rules", str(tmp_path), "--listen", ports[0], "--admin", ports[1], "--log-level", "error",
        "--cache-dir", str(tmp_path / "cache"), *flags,
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2, ended.stderr
    complaints = [line for line in ended.stderr.splitlines() if line.startswith("edgeproxy: ")]
    assert len(complaints) == 1, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
