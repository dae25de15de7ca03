"""The dashboards and the alert rules as files: made of observe/panels.py and observe/alert_rules.py.

Rules of this file:

- ``python -m edgeproxy.templates.generate`` writes them beside this file; a test holds that they are these.
- Nothing is decided here: what is asked and when it is an alert stands in the two tables.
- The same tables give the same octets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from edgeproxy.observe.alert_rules import alerts
from edgeproxy.observe.panels import DASHBOARDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeproxy.observe.panels import Dashboard, Panel
    from edgeproxy.observe.thresholds import Normal

_HERE = Path(__file__).resolve().parent
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTHS = {"stat": (6, 4), "timeseries": (12, 8)}
"""Of Grafana's 24 columns, and rows."""


def files() -> dict[str, bytes]:
    """Path below templates/ -> what stands in it."""
    told = {f"grafana/edgeproxy-{each.name}.json": dashboard(each) for each in DASHBOARDS}
    made = "# Made by python -m edgeproxy.templates.generate of edgeproxy/observe/alert_rules.py.\n"
    return told | {"prometheus/edgeproxy-alerts.yaml": (made + rules()).encode()}


def rules(baseline: Mapping[str, Normal] | None = None) -> str:
    """A rule file for Prometheus; with a baseline, by its thresholds."""
    group = {"name": "edgeproxy", "rules": [*map(_alert, alerts(baseline))]}
    return yaml.safe_dump({"groups": [group]}, sort_keys=False, width=110, allow_unicode=True)


def _alert(alert: Any) -> dict[str, Any]:
    labels = {"severity": alert.severity}
    if alert.rule:
        labels["rule"] = alert.rule
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasts,
        "labels": labels,
        "annotations": {"summary": alert.summary, "runbook": alert.runbook},
    }


def dashboard(told: Dashboard) -> bytes:
    """One that Grafana 10 and later read, by provisioning or by import."""
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        _variable("instance", "Instance", "label_values(edgeproxy_build_info, instance)"),
    ]
    if told.by_rule:
        variables.append(_variable("rule", "Rule", "label_values(edgeproxy_requests_total, rule)"))
    whole = {
        "uid": f"edgeproxy-{told.name}",
        "title": told.title,
        "description": told.says,
        "tags": ["edgeproxy"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "links": [
            {
                "title": "edgeproxy", "type": "dashboards", "tags": ["edgeproxy"],
                "asDropdown": True, "keepTime": True, "includeVars": True,
            }
        ],
        "panels": [*_placed(told.panels)],
    }  # fmt: skip
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": label, "type": "query", "datasource": _SOURCE,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _placed(panels: Iterable[Panel]) -> Iterable[dict[str, Any]]:
    """Left to right, top to bottom; a row is as high as its panels."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        width, tall = _WIDTHS[panel.kind]
        if x + width > 24 or (height and tall != height):
            x, y = 0, y + height
        height = tall
        yield {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": tall}, **_panel(panel)}
        x += width


def _panel(panel: Panel) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"}
    if panel.kind == "timeseries":
        field |= {"min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if panel.unit == "percentunit":
        field["min"] = 0
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(65 + n), "expr": query.expression, "legendFormat": query.legend, "range": True}
            for n, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    for name, octets in files().items():
        path = _HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
