"""The dashboards and alert rules: that the files are what the tables say, and that promtool takes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from edgeproxy.__main__ import COMMANDS
from edgeproxy.observe import thresholds
from edgeproxy.observe.alert_rules import alerts
from edgeproxy.observe.panels import DASHBOARDS
from edgeproxy.observe.promql import metrics
from edgeproxy.templates import generate
from edgeproxy.templates.write import HERE, KINDS, write

PROMTOOL = shutil.which("promtool")
OWN = {
    "pitches": thresholds.Normal(p95=0.04, p99=0.08, hit_ratio=0.9),
    'a "b" {c}\\d': thresholds.Normal(p95=0.01, p99=0.02, hit_ratio=0.5),
}


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    if PROMTOOL is None:
        pytest.skip("there is no promtool on the PATH")
    return subprocess.run([PROMTOOL, *words], capture_output=True, text=True, timeout=30, check=False)


def test_the_files_are_those_of_the_tables() -> None:
    """After a change of the tables: python -m edgeproxy.templates.generate."""
    there = {
        str(path.relative_to(HERE)): path.read_bytes()
        for name in ("grafana", "prometheus")
        for path in (HERE / name).iterdir()
    }
    assert there == generate.files()


def test_four_dashboards_and_ten_alerts_or_more() -> None:
    assert [each.name for each in DASHBOARDS] == ["traffic", "cache", "origins", "errors"]
    names = {alert.name for alert in alerts()}
    assert len(names) >= 10
    assert "EdgeproxyHitRatioLow" in names
    assert all(alert.runbook for alert in alerts())
    assert {alert.severity for alert in alerts()} == {"warning", "critical"}


def test_every_expression_in_the_files_names_what_a_scrape_has() -> None:
    """Of the files themselves, not of the tables they were made of."""
    found: list[str] = []
    for path in (HERE / "grafana").iterdir():
        panels = json.loads(path.read_bytes())["panels"]
        found += [target["expr"] for panel in panels for target in panel["targets"]]
    for path in (HERE / "prometheus").iterdir():
        found += [rule["expr"] for rule in yaml.safe_load(path.read_bytes())["groups"][0]["rules"]]
    assert len(found) > 100
    for expression in found:
        assert metrics(expression)


def test_a_dashboard_is_one_for_grafana() -> None:
    for each in DASHBOARDS:
        told = json.loads(generate.dashboard(each))
        variables = {variable["name"] for variable in told["templating"]["list"]}
        used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(told["panels"])))
        assert used == variables
        assert len({panel["id"] for panel in told["panels"]}) == len(each.panels)
        taken: set[tuple[int, int]] = set()
        for panel in told["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells


def test_runbooks_name_commands_that_exist() -> None:
    known = {command.__name__.rpartition(".")[2] for command in COMMANDS} | {"doctor"}
    for alert in alerts():
        for word in re.findall(r"edgeproxy ([a-z]+)\b", alert.runbook):
            assert word in known | {"only"}, alert.name


@pytest.mark.parametrize("baseline", [None, OWN], ids=["by default", "by a baseline"])
def test_promtool_takes_the_rules(tmp_path: Path, baseline: dict[str, thresholds.Normal] | None) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(generate.rules(baseline))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts(baseline))} rules found" in done.stdout


def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    """alerts_test.yaml compares labels; annotations are left out, as promtool wants them word by word."""
    told = yaml.safe_load(generate.rules())
    for rule in told["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "edgeproxy-alerts.yaml").write_text(yaml.safe_dump(told))
    cases = Path(__file__).with_name("alerts_test.yaml")
    tested = yaml.safe_load(cases.read_text())
    shown = {
        case["alertname"]
        for test in tested["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert shown == {alert.name for alert in alerts()}  # each of them fires once at least
    shutil.copy(cases, tmp_path)
    done = promtool("test", "rules", str(tmp_path / cases.name))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_baseline_moves_the_thresholds(tmp_path: Path) -> None:
    own = [alert for alert in alerts(OWN) if alert.rule == "pitches"]
    by_name = {(alert.name, alert.severity): alert.expression for alert in own}
    assert "> 0.08 " in by_name["EdgeproxyP95High", "warning"]
    assert "> 0.12 " in by_name["EdgeproxyP95High", "critical"]
    assert "> 0.24 " in by_name["EdgeproxyP99High", "critical"]
    assert "< 0.99 " in by_name["EdgeproxySuccessLow", "warning"]
    assert "< 0.95 " in by_name["EdgeproxySuccessLow", "critical"]
    assert "< 0.63 " in by_name["EdgeproxyHitRatioLow", "warning"]


def test_compose_gets_them(tmp_path: Path) -> None:
    kind = next(each for each in KINDS if each.name == "compose")
    written = {str(path.relative_to(tmp_path)) for path in write(tmp_path, kind)}
    assert {f"grafana/dashboards/edgeproxy-{each.name}.json" for each in DASHBOARDS} <= written
    assert "prometheus/rules/edgeproxy-alerts.yaml" in written
