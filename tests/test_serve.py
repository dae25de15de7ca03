"""``edgeproxy serve`` as an operator runs it: a process, its signals, its admin port, its log."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy import settings
from edgeproxy.clock import Clock
from tests.support.origins import ROOT, EdgeProcess, edgeproxy_process, free_port
from tests.support.threads import threaded_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.origins import Answer
    from tests.support.threads import ThreadedOrigin

# One worker of the test run starts these processes.
pytestmark = pytest.mark.xdist_group("serve")

PAUSE = threading.Event()
"""Never set: what another process does rings no bell here."""

RULES = """
rules:
  - name: items
    match: {path: "/items/{id}"}
    ttl: 15m
    stale_while_revalidate: 1m
    tags: [items, "item:{id}"]
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[ThreadedOrigin]:
    with threaded_origin() as running:
        yield running


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rules")
    (directory / "items.yaml").write_text(RULES)
    return directory


@pytest.fixture(scope="module")
def edge(
    origin: ThreadedOrigin, rules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EdgeProcess]:
    directory = tmp_path_factory.mktemp("edge")
    with edgeproxy_process(
        origin.url, directory, rules=rules, store=None, arguments=("--trace-from", "all")
    ) as process:
        yield process


def word(answer: Answer) -> str | None:
    return answer.get("X-Cache-Status")


def told(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """For what another process does: there is no barrier to wait at."""
    clock = Clock()
    deadline = clock.monotonic() + 10
    while not condition():
        assert clock.monotonic() < deadline, f"waited in vain for {what}"
        PAUSE.wait(0.02)


def metric(edge: EdgeProcess, name: str) -> float:
    for line in edge.admin("GET", "/metrics").body.decode().splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


# -- the admin port -----------------------------------------------------------------------------------------


def test_probes_and_health(edge: EdgeProcess) -> None:
    assert told(edge.admin("GET", "/healthz")) == {"status": "alive"}
    ready = told(edge.admin("GET", "/readyz"))
    assert ready["status"] == "ready"
    assert set(ready["parts"].values()) == {"ok"}
    health = told(edge.admin("GET", "/api/health"))
    assert (health["status"], health["state"]) == ("ok", "ready")
    assert "origin" in health["parts"]


def fill(edge: EdgeProcess, *targets: str) -> None:
    for target in targets:
        edge.get(target)
        assert word(edge.get(target)) == "HIT", target


PURGES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("url", {"url": "/items/1?x=1"}, {"/items/1?x=1"}),
    ("tag", {"tag": "item:1"}, {"/items/1", "/items/1?x=1"}),
    ("prefix", {"prefix": "/items/"}, {"/items/1", "/items/1?x=1", "/items/2"}),
    ("pattern", {"pattern": "/o*r/*"}, {"/other/1"}),
    ("all", {"all": True}, {"/items/1", "/items/1?x=1", "/items/2", "/other/1"}),
]
TARGETS = ("/items/1", "/items/1?x=1", "/items/2", "/other/1")


@pytest.mark.parametrize(("kind", "body", "gone"), PURGES)
@pytest.mark.parametrize("by", ["api", "command"])
def test_purges(edge: EdgeProcess, kind: str, body: dict[str, Any], gone: set[str], by: str) -> None:
    fill(edge, *TARGETS)

    def purge(**more: bool) -> dict[str, Any]:
        sent = json.dumps({**body, **more}).encode()
        return told(edge.admin("POST", "/api/cache/purge", sent))

    counted = purge(dry_run=True)
    assert (counted["number"], counted["objects"]) == (None, len(gone))
    assert counted["bytes"] > 0
    assert all(word(edge.get(target)) == "HIT" for target in TARGETS)
    if by == "api":
        receipt = purge()
        assert int(receipt["number"]) > 0
        assert set(receipt["layers"].values()) == {"ok"}
    else:
        value = [] if kind == "all" else [str(body[kind])]
        done = command(edge, "purge", f"--{kind}", *value)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("purged ")
    assert {target for target in TARGETS if word(edge.get(target)) != "HIT"} == gone
    # Fetched anew and stored again, so that as many are there as before.
    until(lambda: purge(dry_run=True)["objects"] == len(gone), "the store")


def command(edge: EdgeProcess, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """``edgeproxy purge`` or ``stats`` against the process."""
    environment = {n: v for n, v in settings.environment().items() if not n.startswith("EDGEPROXY_")}
    environment["EDGEPROXY_ADMIN_TOKEN"] = edge.token if token is None else token
    return subprocess.run(
        [sys.executable, "-m", "edgeproxy", *words, "--admin", f"127.0.0.1:{edge.admin_port}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_a_soft_purge_marks_stale(edge: EdgeProcess) -> None:
    """Served while it is refreshed where the rule allows that, validated where not."""
    fill(edge, "/items/5", "/other/5")
    for tag_or_url in ({"tag": "item:5"}, {"url": "/other/5"}):
        told(edge.admin("POST", "/api/cache/purge", json.dumps({**tag_or_url, "soft": True}).encode()))
    assert word(edge.get("/items/5")) == "UPDATING"
    until(lambda: word(edge.get("/items/5")) == "HIT", "the refresh")
    assert word(edge.get("/other/5")) == "REVALIDATED"


def test_a_purge_command_that_may_not(edge: EdgeProcess) -> None:
    done = command(edge, "purge", "--all", token="wrong")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("edgeproxy: refused (401)")


def test_what_is_stored_for_a_url(edge: EdgeProcess) -> None:
    fill(edge, "/items/9?a=b")
    found = told(edge.admin("GET", "/api/cache/entry?url=/items/9%3Fa%3Db"), 404)
    assert found["status"] == 404  # stored for the host that was asked for, and for no other
    url = f"http://127.0.0.1:{edge.port}/items/9%3Fa%3Db"
    found = told(edge.admin("GET", f"/api/cache/entry?url={url}"))
    assert found["rule"] == "items"
    (variant,) = found["variants"]
    assert variant["tags"] == ["items", "item:9"]
    assert variant["status"] == 200
    assert 890 < variant["ttl"] <= 900
    assert 900 <= variant["lifetime"] < 901  # from receipt: the fetch took its part of a second
    assert variant["fresh"] is True
    assert ["X-Version", "1"] in variant["headers"]
    assert edge.admin("GET", "/api/cache/entry").status == 400
    assert edge.admin("GET", "/api/cache/entry?url=ftp://a/b").status == 400
    assert edge.admin("GET", "/api/cache/entry?url=nothing").status == 400


def test_numbers(edge: EdgeProcess) -> None:
    before = told(edge.admin("GET", "/api/cache/stats"))["rules"]["items"]
    fill(edge, "/items/20")
    for _ in range(8):
        edge.get("/items/20")
    stats = told(edge.admin("GET", "/api/cache/stats"))
    after = stats["rules"]["items"]
    assert after["requests"] - before["requests"] == 10
    assert after["hits"] - before["hits"] == 9
    again = told(edge.admin("GET", "/api/cache/status"))
    assert again.keys() == stats.keys()
    assert again["rules"] == stats["rules"]
    assert stats["store"]["l1_entries"] > 0
    report = json.dumps(told(edge.admin("GET", "/api/performance")))
    for name in ("items", "p50", "p99", "1m", "5m", "1h"):
        assert name in report.lower()
    assert metric(edge, "edgeproxy_origin_connections_open") >= 1
    done = command(edge, "stats")
    assert done.returncode == 0
    assert any(line.startswith("items ") for line in done.stdout.splitlines())


def test_rules_in_force(edge: EdgeProcess) -> None:
    rules = told(edge.admin("GET", "/api/rules"))
    assert [rule["name"] for rule in rules["rules"]] == ["items"]
    assert rules["version"]


# -- the access log -----------------------------------------------------------------------------------------


def lines_of(edge: EdgeProcess, request_id: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in edge.log().splitlines() if line.startswith("{")]
    return [line for line in found if line["request_id"] == request_id]


def test_each_request_is_a_line_of_json_on_standard_output(edge: EdgeProcess) -> None:
    edge.get("/items/30", x_request_id="log-1")
    for _ in range(4):
        edge.get("/items/30?password=hunter2&b=\x1b[31m".replace("\x1b", "%1b"), x_request_id="log-2")
    edge.request("POST", "/items/30", {"X-Request-ID": "log-3"}, b"body")
    until(lambda: bool(lines_of(edge, "log-3")), "the log")
    (miss,) = lines_of(edge, "log-1")
    expected = {
        "client": "127.0.0.1", "method": "GET", "host": f"127.0.0.1:{edge.port}", "target": "/items/30",
        "status": 200, "rule": "items", "cache": "MISS", "tier": "origin", "stored": True, "bytes_in": 0,
        "collapsed": False, "aborted": False, "coding": "",
    }  # fmt: skip
    assert {name: miss[name] for name in expected} == expected
    assert miss["bytes"] > 0
    assert miss["seconds"] >= miss["origin_seconds"] > 0
    assert miss["time"].endswith("Z")
    hits = lines_of(edge, "log-2")
    assert [line["cache"] for line in hits] == ["MISS", "HIT", "HIT", "HIT"]
    assert {line["target"] for line in hits} == {"/items/30?password=***&b=%1b[31m"}
    (written,) = lines_of(edge, "log-3")
    assert (written["cache"], written["reason"], written["bytes_in"]) == ("BYPASS", "method-not-cacheable", 4)


def test_no_secret_is_in_the_log(edge: EdgeProcess, origin: ThreadedOrigin, tmp_path: Path) -> None:
    environment = {"EDGEPROXY_READ_TOKEN": "hunter2-read", "EDGEPROXY_LOG_LEVEL": "debug"}
    store = f"redis://:hunter2-store@127.0.0.1:{free_port()}"
    with edgeproxy_process(origin.url, tmp_path, store=store, environment=environment) as other:
        other.get("/a?token=hunter2-query", authorization="Bearer hunter2-auth", cookie="sid=hunter2-cookie")
        assert other.admin("GET", "/api/cache/stats").status == 200
        assert other.terminate() == 0
        log = other.log()
        assert '"target":"/a?token=***"' in log
        for secret in ("hunter2", other.token):
            assert secret not in log
    assert edge.token not in edge.log()


# -- life and death -----------------------------------------------------------------------------------------


def test_an_origin_that_is_not_there_yet(tmp_path: Path) -> None:
    """Ready all the same; 502 with problem+json; fine as soon as the origin is there."""
    with (
        threaded_origin(started=False) as late,
        edgeproxy_process(late.url, tmp_path, rules="none", arguments=("--trace-from", "all")) as edge,
    ):
        ready = told(edge.admin("GET", "/readyz"))
        assert ready["status"] == "degraded"
        assert ready["parts"]["origin"] == "failing"
        answer = edge.get("/a", x_request_id="early-1")
        assert answer.get("Content-Type") == "application/problem+json"
        problem = told(answer, 502)
        assert (problem["status"], problem["request_id"], problem["detail"]) == (502, "early-1", "refused")
        late.run(late.ledger.start())
        answer = edge.get("/a")
        assert (answer.status, word(answer)) == (200, "MISS")
        assert word(edge.get("/a")) == "HIT"


def test_reloading_the_rules(origin: ThreadedOrigin, tmp_path: Path) -> None:
    """SIGHUP: good ones are taken over at once; bad ones are refused with file:line, and the old go on."""
    directory = tmp_path / "rules"
    directory.mkdir()
    file = directory / "a.yaml"
    file.write_text('rules: [{name: first, match: {path: "/**"}, cache_control: "max-age=1"}]')
    with edgeproxy_process(origin.url, tmp_path, rules=directory) as edge:

        def control() -> str | None:
            return edge.get("/a").get("Cache-Control")

        def reload(lines: str, total: str) -> None:
            before = metric(edge, total)
            edge.process.send_signal(signal.SIGHUP)
            until(lambda: metric(edge, total) == before + 1, total)
            until(lambda: lines in edge.log(), lines)

        reloaded, failed = "edgeproxy_config_reload_total", "edgeproxy_config_reload_failed_total"
        assert [control() for _ in range(4)] == ["max-age=1"] * 4
        file.write_text('rules: [{name: second, match: {path: "/**"}, cache_control: "max-age=2"}]')
        reload("rules reloaded: 1 rules", reloaded)
        # What is stored already is told anew, by the lane too.
        assert [control() for _ in range(4)] == ["max-age=2"] * 4
        assert 'rule="second"' in (edge.get("/a").get("Cache-Status") or "")

        for text, line in (
            ("rules:\n  - {name: third, match: {path: '/**'}, ttl: soon}\n", "a.yaml:2:"),
            ("rules: [", "a.yaml:"),
            ("", "a.yaml"),
        ):
            file.write_text(text)
            reload(line, failed)
            assert control() == "max-age=2"
            assert told(edge.admin("GET", "/api/rules"))["rules"][0]["name"] == "second"
        problem = told(edge.admin("POST", "/api/rules/reload"), 422)
        assert problem["errors"][0].startswith("a.yaml")
        for path in ("/api/rules", "/api/health"):
            last = told(edge.admin("GET", path))["last_reload"]
            assert (last["result"], last["lines"]) == ("error", problem["errors"])
        done = command(edge, "reload")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[:-1] == problem["errors"]
        file.unlink()
        directory.rmdir()
        reload("rules not reloaded", failed)
        assert control() == "max-age=2"
        assert edge.admin("GET", "/readyz").status == 200


def test_sigterm_lets_what_is_under_way_end(origin: ThreadedOrigin, tmp_path: Path) -> None:
    """Not ready at once, new connections refused, the slow one completes with Connection: close, exit 0."""
    origin.ledger.reply("/slow", gate="slow", headers=[("Cache-Control", "no-store")])
    with edgeproxy_process(origin.url, tmp_path, arguments=["--drain-timeout", "20s"]) as edge:
        slow = origin.aside(lambda: edge.get("/slow"))
        origin.reached("slow")
        edge.process.send_signal(signal.SIGTERM)
        until(lambda: edge.admin("GET", "/readyz").status == 503, "the drain")
        assert told(edge.admin("GET", "/readyz"), 503) == {"status": "draining"}
        assert edge.admin("GET", "/healthz").status == 200
        until(lambda: refused(edge.port), "the end of listening")
        assert edge.process.poll() is None
        origin.open("slow")
        answer = slow.result(10)
        assert (answer.status, answer.get("Connection")) == (200, "close")
        assert answer.body == origin.ledger.stamp("/slow", 1)
        assert edge.process.wait(30) == 0
        assert '"target":"/slow","status":200' in edge.log()
        assert edge.log().splitlines()[-1].endswith(" INFO edgeproxy: stopped")
        assert "Traceback" not in edge.log()


def test_what_is_hardly_meant_is_a_warning(origin: ThreadedOrigin, tmp_path: Path) -> None:
    """Once, by the parent: workers read the same settings. And a store that cannot be opened is told."""
    (tmp_path / "file").write_text("no directory")
    with edgeproxy_process(
        origin.url, tmp_path, rules="", store=f"lmdb:{tmp_path}/file/store",
        arguments=["--workers", "2"], environment={"EDGEPROXY_WORKER": "4"},
    ) as edge:  # fmt: skip
        until(lambda: "2 workers" in edge.log(), "the workers")
        log = edge.log()
    assert log.count("did you mean EDGEPROXY_WORKERS?") == 1
    assert log.count("WARNING edgeproxy: no --rules given: the shipped rules for the demo API") == 1
    (serving,) = [line for line in log.splitlines() if " serving " in line]
    assert f"memory alone (lmdb:{tmp_path}/file/store cannot be used)" in serving
    assert edge.log().splitlines()[-1].endswith(" INFO edgeproxy: stopped")


def refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            # Accepted by a kernel that has not heard of the end yet: nothing ever answers here.
            return connection.recv(1) == b""
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(origin: ThreadedOrigin, tmp_path: Path, number: signal.Signals) -> None:
    path = f"/never-{number}"
    origin.ledger.reply(path, gate="never")
    with edgeproxy_process(origin.url, tmp_path, arguments=["--drain-timeout", "60s"]) as edge:
        hanging = origin.aside(lambda: edge.get(path))
        origin.run(origin.ledger.arrived(path))
        edge.process.send_signal(number)
        until(lambda: edge.admin("GET", "/readyz").status == 503, "the drain")
        clock = Clock()
        began = clock.monotonic()
        edge.process.send_signal(number)
        assert edge.process.wait(30) == 0
        assert clock.monotonic() - began < 20, "not the drain timeout"
        with pytest.raises(ConnectionError):
            hanging.result(10)
        assert "Traceback" not in edge.log()


def test_the_drain_has_an_end(origin: ThreadedOrigin, tmp_path: Path) -> None:
    origin.ledger.reply("/hangs", gate="never")
    with edgeproxy_process(origin.url, tmp_path, arguments=["--drain-timeout", "300ms"]) as edge:
        hanging = origin.aside(lambda: edge.get("/hangs"))
        origin.run(origin.ledger.arrived("/hangs"))
        assert edge.terminate() == 0
        with pytest.raises(ConnectionError):
            hanging.result(10)


def test_the_access_log_file_is_reopened_after_a_rotation(origin: ThreadedOrigin, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with edgeproxy_process(origin.url, tmp_path, arguments=["--access-log", str(log)]) as edge:

        def written(target: str) -> Mapping[str, Any] | None:
            lines = log.read_text().splitlines() if log.exists() else []
            return next((found for line in lines if (found := json.loads(line))["target"] == target), None)

        edge.get("/before")
        until(lambda: written("/before") is not None, "the first line")
        log.rename(tmp_path / "access.log.1")
        edge.process.send_signal(signal.SIGHUP)
        until(log.exists, "the new file")
        edge.get("/after")
        until(lambda: written("/after") is not None, "a line in the new file")
        assert written("/before") is None
        assert not any(line.startswith("{") for line in edge.log().splitlines())
