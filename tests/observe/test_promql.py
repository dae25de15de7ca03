"""What the door for expressions lets through, and what it stops."""

from __future__ import annotations

import pytest

from edgeproxy.observe.promql import UnknownName, checked, metrics


@pytest.mark.parametrize(
    ("expression", "read"),
    [
        ("edgeproxy_rules", {"edgeproxy_rules"}),
        (
            'sum by (rule) (rate(edgeproxy_hits_total{rule=~"a|b"}[5m])) / sum(edgeproxy_rules)',
            {"edgeproxy_hits_total", "edgeproxy_rules"},
        ),
        (
            "histogram_quantile(0.9, sum by (le) (rate(edgeproxy_request_duration_seconds_bucket[5m]))) > 1",
            {"edgeproxy_request_duration_seconds_bucket"},
        ),
        ("edgeproxy_rules > 2.4e-05", {"edgeproxy_rules"}),
        ('up{job="edgeproxy"} == 0', {"up"}),
        ('edgeproxy_hits_total{rule="edgeproxy_no_metric(\\""}', {"edgeproxy_hits_total"}),
    ],
)
def test_what_an_expression_reads(expression: str, read: set[str]) -> None:
    assert metrics(expression) == read
    assert checked(expression) == expression


@pytest.mark.parametrize(
    "expression",
    [
        "edgeproxy_nothing_total",
        "rate(edgeproxy_request_duration_seconds[5m])",  # a histogram has no series of its own name
        "edgeproxy_hits_total_sum",
        'edgeproxy_hits_total{result="hit"}',  # that is a label of requests
        "sum by (result) (edgeproxy_hits_total)",
        "sum by (le) (edgeproxy_request_duration_seconds_sum)",
        "median(edgeproxy_rules)",
        '{rule="a"}',
        "1 + 1",
        "edgeproxy_rules ; drop",
        "sum(rate(some_other_metric[5m]))",
    ],
)
def test_what_no_scrape_has_is_stopped(expression: str) -> None:
    with pytest.raises(UnknownName):
        checked(expression)
