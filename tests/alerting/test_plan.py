"""The file of receivers: what it may say, and that no URL of it is ever said again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy import settings
from edgeproxy.alerting.plan import ESCALATION, PlanError, Receiver, read, wanted
from edgeproxy.observe.baseline import Baseline, Recorded, encode

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "slack://TOKENAAAA/TOKENBBBB/TOKENCCCC"
WHOLE = """
receivers:
  chat: slack://TOKENAAAA/TOKENBBBB/TOKENCCCC
  mail: {file: mail-url}
  pager: {env: PAGER_URL}
  log: file:alerts.jsonl
steps:
  - {after: 15m, tell: [pager], severity: critical}
  - {after: 0s, tell: [chat, log]}
  - {after: 5m, tell: [mail]}
repeat: 2h
interval: 30s
baseline: usual.json
"""


def test_all_that_it_may_say(tmp_path: Path) -> None:
    (tmp_path / "mail-url").write_text("mailto://user:password@example\nmailto://second\n")
    usual = Recorded(requests=100, p50=0.01, p75=0.01, p90=0.01, p95=0.04, p99=0.1, success=1.0)
    (tmp_path / "usual.json").write_bytes(encode(Baseline(1, 0.0, "1h", {"pitches": usual})))
    path = tmp_path / "alerts.yaml"
    path.write_text(WHOLE)
    plan = read(path, {"PAGER_URL": "pagerduty://KEY"})
    assert {each.name: each.urls for each in plan.receivers} == {
        "chat": (SECRET,), "mail": ("mailto://user:password@example", "mailto://second"),
        "pager": ("pagerduty://KEY",), "log": ("file:alerts.jsonl",),
    }  # fmt: skip
    assert [(step.after, step.tell) for step in plan.steps] == [
        (0.0, ("chat", "log")), (300.0, ("mail",)), (900.0, ("pager",)),
    ]  # fmt: skip
    assert plan.steps[2].severities == {"critical"}
    assert (plan.repeat, plan.interval) == (7200.0, 30.0)
    assert plan.usual["pitches"].p95 == 0.04
    assert [each.kinds for each in plan.receivers] == [("slack",), ("mailto",), ("pagerduty",), ("file",)]
    shown = repr(plan)
    assert not any(secret in shown for secret in ("TOKEN", "password", "KEY"))


def test_without_steps_all_hear_of_it_four_times(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text("receivers: {a: 'console:', b: 'file:x'}")
    plan = read(path, {})
    assert [(step.after, step.tell) for step in plan.steps] == [(after, ("a", "b")) for after in ESCALATION]
    path.write_text("")
    assert read(path, {}).receivers == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("receivers: [", ":1: "),
        ("receivers: {chat: slack://TOKEN\n", ":2: "),
        ("\x00", "expected YAML"),
        ("receiver: {}", "unknown field `receiver`"),
        ("receivers: {chat: [slack://TOKEN]}", r"- at `\$.receivers\[...\]`"),
        ("receivers: {chat: TOKEN}", r"receivers\.chat: expected a URL, such as slack://"),
        ("receivers: {chat: {file: nothing}}", r"receivers\.chat: nothing: No such file"),
        ("receivers: {chat: {env: NOTHING}}", r"receivers\.chat: the variable NOTHING is not set"),
        ("receivers: {chat: {env: A, file: b}}", "expected one of file and env"),
        ("receivers: {chat: 'console:'}\nsteps: [{after: 0s, tell: [mail]}]", r"steps\[0\]: 'mail' is no"),
        ("steps: [{after: 0s, tell: [mail]}]", "there are none"),
        ("steps: [{after: soon, tell: []}]", r"steps\[0\]: after: 'soon': expected a time"),
        ("steps: [{after: 0s, tell: [], severity: loud}]", "'loud'"),
        ("repeat: ''", "repeat: '': expected a time"),
        ("repeat: 1s", "repeat of 1m or more"),
        ("interval: 0s", "expected an interval from 1s to 60s"),
        ("interval: 2m", "expected an interval from 1s to 60s"),
        ("baseline: nothing", "baseline: .*nothing: No such file"),
        ("baseline: alerts.yaml", "is no baseline"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=why) as refused:
        read(path, {"EMPTY": ""})
    line = str(refused.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert "TOKEN" not in line
    with pytest.raises(PlanError, match="No such file"):
        read(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("octets", [b"\xff\xfe\x00", b"receivers: {a: \xe9}"])
def test_what_is_no_text_is_refused(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_bytes(octets)
    with pytest.raises(PlanError):
        read(path, {})


def chosen(alerts: str = "", urls: str = "") -> settings.Settings:
    environ = {"HOME": "/nonexistent", "EDGEPROXY_ALERT_URLS": urls}
    return settings.load({"origin": "http://o", "rules": "none", "alerts": alerts}, environ)


def test_what_the_settings_mean(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text("receivers: {log: 'file:x'}")
    assert wanted(chosen(), {}) is None
    assert wanted(chosen("off", SECRET), {}) is None
    watched = wanted(chosen("on"), {})
    assert watched is not None
    assert watched.receivers == ()
    told = wanted(chosen("", f"{SECRET} console:"), {})
    assert told is not None
    assert told.receivers == (Receiver("slack-1", (SECRET,)), Receiver("console-2", ("console:",)))
    assert told.steps[3].tell == ("slack-1", "console-2")
    both = wanted(chosen(str(path), "console:"), {})
    assert both is not None
    assert [each.name for each in both.receivers] == ["log", "console-1"]
    assert SECRET not in repr(chosen("on", SECRET))
    with pytest.raises(PlanError, match=r"^EDGEPROXY_ALERT_URLS: expected URLs with spaces between them$"):
        wanted(chosen("", "TOKEN"), {})
