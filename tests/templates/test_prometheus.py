"""Every query of every dashboard, and every alert, asked of a real Prometheus that scrapes a real edgeproxy.

Rules of this file:

- The configuration is the one that ``init --compose`` writes, with other addresses, a token of its own and
  shorter intervals; the rules are the shipped ones.
- No panel is excused: the traffic below makes each of them tell something.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import threading
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from edgeproxy.clock import Clock
from edgeproxy.observe.alert_rules import alerts
from edgeproxy.observe.panels import DASHBOARDS
from edgeproxy.templates.write import HERE
from tests.support.origins import EdgeProcess, edgeproxy_process, free_port, request
from tests.support.threads import threaded_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROMETHEUS = shutil.which("prometheus")
PAUSE = threading.Event()
"""Never set: what another process does rings no bell here."""
RULES = """
rules:
  - name: items
    match: {path: "/items/{id}"}
    ttl: 15m
    tags: [items]
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("prometheus"),
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on the PATH"),
]


@dataclass
class Prometheus:
    port: int

    def api(self, path: str, **query: str) -> Any:
        answer = request(self.port, "GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        told = json.loads(answer.body)
        assert (answer.status, told["status"]) == (200, "success"), (query, told)
        return told["data"]

    def values(self, expression: str) -> list[float]:
        return [float(series["value"][1]) for series in self.api("query", query=expression)["result"]]


def until(condition: Callable[[], bool], what: str) -> None:
    clock = Clock()
    deadline = clock.monotonic() + 20
    while not condition():
        assert clock.monotonic() < deadline, f"waited in vain for {what}"
        PAUSE.wait(0.05)


@contextlib.contextmanager
def prometheus(directory: Path, edge: EdgeProcess) -> Iterator[Prometheus]:
    config = yaml.safe_load((HERE / "compose" / "prometheus" / "prometheus.yml").read_text())
    (directory / "token").write_text(edge.token)
    config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
    config["rule_files"] = [str(HERE / "prometheus" / "*")]
    job = config["scrape_configs"][0]
    job["authorization"]["credentials_file"] = str(directory / "token")
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{edge.admin_port}"]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    found = Prometheus(free_port())
    command = [
        str(PROMETHEUS), f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{found.port}",
    ]  # fmt: skip
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:

        def ready() -> bool:
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            with contextlib.suppress(OSError):
                return request(found.port, "GET", "/-/ready").status == 200
            return False

        until(ready, "Prometheus")
        yield found
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "rules").mkdir()
    (directory / "rules" / "items.yaml").write_text(RULES)
    flags = ("--workers", "2", "--access-log", str(directory / "access.log"))
    with (
        threaded_origin() as origin,
        edgeproxy_process(
            origin.url, directory / "edge", rules=directory / "rules", store=None, arguments=flags
        ) as edge,
        prometheus(directory, edge) as running,
    ):
        origin.ledger.reply("/broken", status=500, headers=[("Cache-Control", "no-store")])

        def traffic(name: str) -> None:
            for number in range(20):
                for target in (f"/items/{name}{number}", f"/items/{name}{number}", "/broken", "/other"):
                    edge.get(target)
                edge.request("POST", "/posted", body=b"{}")

        total = "sum(edgeproxy_requests_total)"
        until(lambda: running.values(total) == [0.0], "the first scrape")
        traffic("a")
        until(lambda: running.values(total) == [100.0], "the second scrape")
        traffic("b")
        until(lambda: running.values(total) == [200.0], "the third scrape")
        yield running


def expression_of(written: str) -> str:
    return written.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$rule", ".*")


def test_every_panel_is_answered(asked: Prometheus) -> None:
    empty, no_number = [], []
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                values = asked.values(expression_of(query.expression))
                if not values:
                    empty.append((dashboard.name, panel.title, query.expression))
                elif all(map(math.isnan, values)):
                    no_number.append((dashboard.name, panel.title))
    assert empty == []
    # Where no request waited for the store, or went to it, there is nothing to divide by.
    assert {title for _, title in no_number} <= {"Waiting for the shared store"}


@pytest.mark.parametrize(
    ("dashboard", "title", "least", "most"),
    [
        ("traffic", "Success", 0.7, 0.9),  # one in five is broken
        ("traffic", "P95", 0.0001, 30),
        # Two of four that ask the cache, where a worker has its store at hand; extrapolated from few scrapes.
        ("cache", "Hit ratio", 0.1, 0.9),
        ("cache", "Memory in use", 1e-9, 0.1),
        ("origins", "Usable", 1, 1),
        ("errors", "5xx", 0.1, 0.3),
        ("errors", "Rules accepted", 1, 1),
        ("errors", "Let through", 1, 1),
    ],
)
def test_what_a_panel_shows(asked: Prometheus, dashboard: str, title: str, least: float, most: float) -> None:
    panels = next(each for each in DASHBOARDS if each.name == dashboard).panels
    panel = next(each for each in panels if each.title == title)
    (value,) = asked.values(expression_of(panel.queries[0].expression))
    assert least <= value <= most


def test_the_rules_are_taken_and_evaluated(asked: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = asked.api("rules")["groups"][0]["rules"]
        return found

    until(lambda: all(rule["health"] == "ok" for rule in rules()), "an evaluation of each rule")
    states = {rule["name"]: rule["state"] for rule in rules()}
    assert states["EdgeproxyDown"] == states["EdgeproxyReloadRefused"] == "inactive"
    # There is too little traffic for an alert; without that condition there would be one.
    low = next(alert for alert in alerts() if alert.name == "EdgeproxySuccessLow")
    share, found, _ = low.expression.partition(" and ")
    assert found
    assert asked.values(low.expression) == []
    assert asked.values(share)
