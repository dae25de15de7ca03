"""What is watched inside and what Prometheus is told are the same: the same alerts at the same moments."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from edgeproxy.alerting import state as state_module
from edgeproxy.alerting.state import State
from edgeproxy.observe import merge, thresholds
from edgeproxy.observe.alert_rules import alerts
from edgeproxy.observe.expressions import Chosen, Condition, Gauge, Grown, Selector, quantile, seconds
from edgeproxy.observe.timeline import Timeline, extrapolated, parted
from edgeproxy.templates import generate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEP = 15
STEPS = 160
"""Forty minutes."""
OWN = {"pitches": thresholds.Normal(p95=0.04, p99=0.08, hit_ratio=0.9)}

Told = dict[str, list[float]]


def made_up(seed: int) -> Told:
    """Series of a node that has good and bad times, sample by sample."""
    chance = random.Random(seed)
    told: Told = {}

    def counter(sample: str, rates: Iterator[float]) -> None:
        total, values = 0.0, []
        for number in range(STEPS):
            total += next(rates)
            if number == 90 and seed % 2:
                total = 0.0  # it began anew
            values.append(total)
        told[sample] = values

    def phases(*choices: float) -> Iterator[float]:
        """A few minutes of each."""
        while True:
            rate = chance.choice(choices) * STEP
            for _ in range(chance.randint(10, 60)):
                yield float(int(rate * chance.uniform(0.9, 1.1)))

    for rule in ("pitches", "search"):
        for result in ("hit", "miss", "bypass"):
            counter(f'edgeproxy_requests_total{{rule="{rule}",result="{result}"}}', phases(0, 5, 20))
        counter(f'edgeproxy_hits_total{{rule="{rule}"}}', phases(1, 5, 20))
        for kind, rates in (("2xx", (20.0, 30.0)), ("5xx", (0.0, 0.0, 0.5, 3.0))):
            counter(f'edgeproxy_responses_total{{rule="{rule}",class="{kind}"}}', phases(*rates))
        below = [0.0] * STEPS
        for bound in ("0.01", "0.1", "0.25", "1.0", "+Inf"):
            counter("more", phases(0, 0.5, 2, 20))
            below = [a + b for a, b in zip(below, told.pop("more"), strict=True)]
            told[f'edgeproxy_request_duration_seconds_bucket{{rule="{rule}",le="{bound}"}}'] = below
    for origin in ("http://a", "http://b"):
        labels = f'{{pool="default",origin="{origin}"}}'
        usable = phases(2 / STEP, 2 / STEP, 0)
        told[f"edgeproxy_origin_usable{labels}"] = [next(usable) for _ in range(STEPS)]
        counter(f"edgeproxy_origin_requests_total{labels}", phases(10, 20))
        counter(f"edgeproxy_origin_request_failures_total{labels}", phases(0, 1))
        counter(f"edgeproxy_origin_errors_total{labels}", phases(0, 0, 2))
    for reason in ("stale-if-error", "revalidating"):
        counter(f'edgeproxy_stale_served_total{{reason="{reason}"}}', phases(0, 2))
    for name in ("overload_shed", "store_bus_gaps", "store_l2_corrupt", "alerts_notices_failed"):
        counter(f"edgeproxy_{name}_total", phases(0, 0, 0, 0.1))
    successful = phases(1 / STEP * 1.2, 0)
    told["edgeproxy_config_last_reload_successful"] = [next(successful) for _ in range(STEPS)]
    return told


def inside(told: Told, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What fires at each step, each alert as its labels in JSON."""
    monkeypatch.setattr(state_module, "SETTLED", 0.0)  # Prometheus leaves that to others
    state = State(alerts(OWN))
    seen = Timeline(state.windows, STEP)
    fires = []
    for number in range(STEPS):
        samples = {sample: values[number] for sample, values in told.items()}
        seen.take({"all": merge.Family("", "counter", samples)}, number * STEP)
        state.step(seen, number * STEP)
        fires.append({json.dumps(labelled(each), sort_keys=True) for each in state.firing})
    return fires


def labelled(episode: Any) -> dict[str, Any]:
    rule = {"rule": episode.alert.rule} if episode.alert.rule else {}
    labels = {"severity": episode.alert.severity, **rule, **dict(episode.labels)}
    return {"alertname": episode.alert.name, "labels": labels}


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on the PATH")
def test_the_same_alerts_fire_in_prometheus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = yaml.safe_load(generate.rules(OWN))
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]
    names = sorted({alert.name for alert in alerts(OWN)} - {"EdgeproxyDown"})
    tests, fired = [], set()
    for seed in range(3):
        told = made_up(seed)
        fires = inside(told, monkeypatch)
        cases = []
        for number in range(8, STEPS, 8):
            now = [json.loads(each) for each in fires[number]]
            fired |= {(each["alertname"], each["labels"]["severity"]) for each in now}
            for name in names:
                expected = [
                    {"exp_labels": {"instance": "i", **each["labels"]}}
                    for each in now
                    if each["alertname"] == name
                ]
                cases.append({"eval_time": f"{number * STEP}s", "alertname": name, "exp_alerts": expected})
        series = [
            {"series": with_instance(sample), "values": " ".join(f"{value:g}" for value in values)}
            for sample, values in told.items()
        ]
        tests.append({"interval": f"{STEP}s", "input_series": series, "alert_rule_test": cases})
    (tmp_path / "rules.yaml").write_text(json.dumps(rules))
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{STEP}s", "tests": tests}
    (tmp_path / "test.yaml").write_text(json.dumps(whole))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yaml")],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[:4000]
    # and there was something to agree on
    assert {
        ("EdgeproxyHitRatioLow", "warning"), ("EdgeproxySuccessLow", "critical"),
        ("EdgeproxyP95High", "warning"), ("EdgeproxyP99High", "critical"),
        ("EdgeproxyOriginLeftAlone", "critical"), ("EdgeproxyOriginFailing", "warning"),
        ("EdgeproxyStaleOnError", "warning"), ("EdgeproxyOverloaded", "critical"),
        ("EdgeproxyReloadRefused", "warning"), ("EdgeproxyNoticesFailing", "warning"),
    } <= fired  # fmt: skip


def with_instance(sample: str) -> str:
    name, brace, rest = sample.partition("{")
    return f'{name}{{instance="i"{"," + rest if brace else "}"}'


def test_a_term_says_itself() -> None:
    chosen = (Chosen("rule", "=", 'a "b"'), Chosen("class", "!=", "5xx"))
    rate = Grown(Selector("edgeproxy_responses_total", chosen, ("rule",)))
    text = (
        'sum by (instance, rule) (rate(edgeproxy_responses_total{rule="a \\"b\\"",class!="5xx"}[5m])) > 1 '
        "and min by (instance) (edgeproxy_rules) == 2"
    )
    few = Condition(Gauge(Selector("edgeproxy_rules"), "min"), "==", 2)
    assert Condition(rate, ">", 1, few).text == text
    assert seconds("90s") == 90


@pytest.mark.parametrize(
    ("how", "value", "takes"),
    [
        ("=", "a", {"a"}), ("!=", "a", {"b", "ab", ""}), ("=~", "a|b", {"a", "b"}),
        ("!~", "a|b", {"ab", ""}), ("=", "", {""}),
    ],
)  # fmt: skip
def test_what_is_chosen(how: str, value: str, takes: set[str]) -> None:
    chosen = Chosen("rule", how, value)
    values: tuple[dict[str, str], ...] = ({"rule": "a"}, {"rule": "b"}, {"rule": "ab"}, {})
    assert {labels.get("rule", "") for labels in values if chosen.takes(labels)} == takes


def test_labels_are_read_as_they_were_written() -> None:
    assert parted("edgeproxy_rules") == ("edgeproxy_rules", {})
    sample = r'edgeproxy_hits_total{rule="a \"b\", {c}\\d\nx",result="hit"}'
    assert parted(sample) == ("edgeproxy_hits_total", {"rule": 'a "b", {c}\\d\nx', "result": "hit"})


def test_growth_at_the_edges_of_a_window() -> None:
    assert extrapolated(100, 20, 0, 300, 21) == 20
    assert extrapolated(100, 20, 5, 295, 20) == pytest.approx(20 * 300 / 295)
    assert extrapolated(100, 20, 200, 100, 5) == pytest.approx(20 * 112.5 / 100)  # half a step more
    assert extrapolated(0, 20, 10, 100, 5) == 20  # it was 0 at the first sample


def test_a_counter_that_begins_anew_has_not_shrunk() -> None:
    selector = Selector("edgeproxy_stored_total")
    seen = Timeline([("edgeproxy_stored_total", 60.0)], 15)
    for number, value in enumerate((10, 20, 5, 15, 25)):
        sample = {"edgeproxy_stored_total": float(value), "edgeproxy_rules": 1.0}
        seen.take({"all": merge.Family("", "counter", sample)}, number * 15)
    assert seen.grown(selector, 60.0) == {(): 35}
    assert seen.grown(selector, 10.0) == {}
    assert seen.now(Selector("edgeproxy_rules")) == {}  # nobody asked for it
    seen.take({}, 75)
    assert seen.grown(selector, 60.0) == {}


def test_quantiles() -> None:
    assert quantile(0.5, [(0.1, 5), (1.0, 10), (math.inf, 10)]) == pytest.approx(0.1)
    assert quantile(0.75, [(0.1, 5), (1.0, 10), (math.inf, 10)]) == pytest.approx(0.55)
    assert quantile(0.99, [(0.1, 5), (1.0, 5), (math.inf, 10)]) == 1.0
    assert math.isnan(quantile(0.5, [(0.1, 0), (math.inf, 0)]))
    assert math.isnan(quantile(0.5, [(0.1, 1), (1.0, 2)]))
