"""The alert rules for Prometheus as data: when, how urgent, and what to do then.

Rules of this file:

- Every expression goes through promql.checked: it names only what a scrape has.
- Thresholds come from thresholds.py. With a baseline each of its rules is compared with itself, and all
  others together with the default.
- Each alert has its runbook: commands that exist, in the order in which to try them.
- ``critical`` gets somebody out of bed, ``warning`` waits for the morning.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.observe import thresholds
from edgeproxy.observe.promql import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOOK = "edgeproxy_request_duration_seconds_bucket"
WINDOW = "5m"
_WHOLE = 'class!="5xx"'
_STALE = 'reason=~"stale-if-error|disconnected|refresh-cool-down"'


@dataclass(frozen=True, slots=True)
class Alert:
    """``lasts``: how long it must hold, as Prometheus writes it. ``rule``: the one it watches, if any."""

    name: str
    expression: str
    lasts: str
    severity: str
    summary: str
    runbook: str
    rule: str = ""


def _rate(name: str, chosen: str = "", by: str = "instance") -> str:
    return f"sum by ({by}) (rate({name}{{{chosen}}}[{WINDOW}]))" if chosen else (
        f"sum by ({by}) (rate({name}[{WINDOW}]))"
    )  # fmt: skip


def _sum(name: str) -> str:
    return f"sum by (instance) ({name})"


def _grew(name: str, window: str) -> str:
    return f"sum by (instance) (increase({name}[{window}])) > 0"


def _and(*matchers: str) -> str:
    return ",".join(filter(None, matchers))


def _of_requests(told: thresholds.Thresholds, chosen: str, rule: str) -> Iterator[Alert]:
    """What is compared with thresholds; ``chosen``: the requests that are meant."""
    whom = f"{{{{ $labels.instance }}}}: rule {rule}: " if rule else "{{ $labels.instance }}: "
    enough = f"and {_rate('edgeproxy_requests_total', chosen)} > {thresholds.LEAST_RATE:g}"
    asked = _rate("edgeproxy_requests_total", _and(chosen, 'result!="bypass"'))
    yield Alert(
        "EdgeproxyHitRatioLow",
        f"{_rate('edgeproxy_hits_total', chosen)} / {asked} < {told.hit_ratio:g} {enough}",
        "15m", "warning",
        whom + f"hit ratio {{{{ $value | humanizePercentage }}}}, should be {told.hit_ratio:.0%} or more",
        "edgeproxy savings names the rules that earn little, and the ttl that would. edgeproxy doctor "
        "finds what splits the cache for nothing. edgeproxy stats tells why answers are not stored. After "
        "a deployment or a purge of everything it comes back by itself; edgeproxy warm --most-wanted 200 "
        "shortens that.",
        rule,
    )  # fmt: skip
    share = (
        f"{_rate('edgeproxy_responses_total', _and(chosen, _WHOLE))} / "
        f"{_rate('edgeproxy_responses_total', chosen)}"
    )
    for severity, least, lasts in (
        ("warning", told.success_warning, "5m"),
        ("critical", told.success_critical, "2m"),
    ):
        yield Alert(
            "EdgeproxySuccessLow", f"{share} < {least:g} {enough}", lasts, severity,
            whom + f"{{{{ $value | humanizePercentage }}}} of the answers are no 5xx (should: {least:.0%})",
            "edgeproxy stats names the origins that fail, and how. curl 127.0.0.1:8081/readyz says what is "
            "degraded. If the origin is fine, edgeproxy explain URL tells what is done with a request. "
            "stale_if_error in a rule lets the cache stand in for an origin that fails.",
            rule,
        )  # fmt: skip
    for quantile, severity, most, lasts in (
        ("0.95", "warning", told.p95_warning, "10m"),
        ("0.95", "critical", told.p95_critical, "5m"),
        ("0.99", "critical", told.p99_critical, "5m"),
    ):
        yield Alert(
            f"EdgeproxyP{quantile[2:]}High",
            f"histogram_quantile({quantile}, {_rate(_TOOK, chosen, 'instance, le')}) > {most:g} {enough}",
            lasts, severity,
            whom + f"P{quantile[2:]} is {{{{ $value | humanizeDuration }}}}, should be {most * 1000:g} ms",
            "Slow answers are those that wait: Server-Timing on an answer tells for what. Look at the hit "
            "ratio first, then at the latency of the origins (edgeproxy stats), then at the processor: "
            "edgeproxy top. stale_while_revalidate in a rule takes the wait for the origin away from "
            "clients.",
            rule,
        )  # fmt: skip


_PLAIN = (
    Alert(
        "EdgeproxyDown", 'up{job="edgeproxy"} == 0', "1m", "critical",
        "{{ $labels.instance }} gives no metrics",
        "Is the process there? systemctl status edgeproxy, or docker compose ps. Its log says why it ended. "
        "If it runs: does the admin port listen where Prometheus asks, and is the read token the same?",
    ),
    Alert(
        "EdgeproxyOriginLeftAlone",
        "sum by (instance, pool, origin) (edgeproxy_origin_usable) == 0", "1m", "critical",
        "{{ $labels.instance }}: no worker may ask {{ $labels.origin }} of pool {{ $labels.pool }}",
        "edgeproxy stats and /readyz say why. Ask the origin by hand from that machine. It is tried once a "
        "second and comes back by itself. Until then: stale answers where rules allow them, else 503.",
    ),
    Alert(
        "EdgeproxyOriginFailing",
        f"({_rate('edgeproxy_origin_request_failures_total', '', 'instance, pool, origin')} + "
        f"{_rate('edgeproxy_origin_errors_total', '', 'instance, pool, origin')}) / "
        f"{_rate('edgeproxy_origin_requests_total', '', 'instance, pool, origin')} > 0.05", "5m", "warning",
        "{{ $labels.instance }}: {{ $labels.origin }} fails {{ $value | humanizePercentage }} of requests",
        "The dashboard of errors tells how: refused, timeouts, 5xx. If only some origins of a pool fail, "
        "take them out of the rule file and edgeproxy reload.",
    ),
    Alert(
        "EdgeproxyOriginQueue", "sum by (instance) (edgeproxy_origin_queued) > 0", "5m", "warning",
        "{{ $labels.instance }}: {{ $value }} requests wait for a place at an origin",
        "The origin is asked as much as its pool allows. Is it slower than usual (edgeproxy stats)? If it "
        "could take more, raise the limits of the pool in the rule file and edgeproxy reload.",
    ),
    Alert(
        "EdgeproxyStaleOnError",
        f"{_rate('edgeproxy_stale_served_total', _STALE)} > 1", "5m", "warning",
        "{{ $labels.instance }}: {{ $value | humanize }} stale answers a second, since the origin fails",
        "Clients are served, with old answers. Mend the origin before stale_if_error runs out: "
        "edgeproxy explain URL --admin HOST:PORT tells how long an object may still be sent.",
    ),
    Alert(
        "EdgeproxyOverloaded", _grew("edgeproxy_overload_shed_total", "5m"), "2m", "critical",
        "{{ $labels.instance }} refused {{ $value | humanize }} requests, as there was too much to do",
        "edgeproxy top shows what is asked and by which rule. More hits cost least: see the hit ratio. More "
        "workers (--workers) if there are idle cores, else more nodes. One client too many: --deny.",
    ),
    Alert(
        "EdgeproxyConnectionsNearLimit",
        f"{_sum('edgeproxy_connections_open')} / {_sum('edgeproxy_connections_limit')} > 0.9",
        "5m", "warning",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the connections that clients may have",
        "edgeproxy serve --help tells the flags that limit connections and those of one client. Raise the "
        "limit with the number of file descriptors, or let idle ones go sooner.",
    ),
    Alert(
        "EdgeproxyFileDescriptorsNearLimit",
        f"{_sum('edgeproxy_process_open_fds')} / {_sum('edgeproxy_process_max_fds')} > 0.9",
        "5m", "critical",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of its file descriptors are in use",
        "Raise LimitNOFILE in the unit (nofile in compose) and restart. Are there many connections of "
        "clients, or to origins? The dashboards of traffic and of origins tell.",
    ),
    Alert(
        "EdgeproxyReloadRefused", "min by (instance) (edgeproxy_config_last_reload_successful) == 0", "0m",
        "warning",
        "{{ $labels.instance }}: the last load of the rules was refused; those before are in force",
        "edgeproxy check DIR names file and line. Then edgeproxy reload.",
    ),
    Alert(
        "EdgeproxyWorkerCrashed", _grew("edgeproxy_node_crashes_total", "15m"), "0m", "warning",
        "{{ $labels.instance }}: {{ $value | humanize }} workers ended without being told to",
        "They have been replaced. The log of the process says which signal or error it was; out of memory is "
        "in the kernel's (journalctl -k). Lower --memory if it was that.",
    ),
    Alert(
        "EdgeproxyStoreFailing",
        f"({_rate('edgeproxy_store_l2_timeouts_total')} + {_rate('edgeproxy_store_l2_errors_total')}) / "
        f"{_rate('edgeproxy_store_l2_reads_total')} > 0.1", "5m", "warning",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the reads of the shared store fail",
        "Requests are answered from memory and by the origin. Is Redis up and near (its latency against "
        "--store-budget)? edgeproxy stats tells what the store says.",
    ),
    Alert(
        "EdgeproxyStoreDamaged", _grew("edgeproxy_store_l2_corrupt_total", "15m"), "0m", "warning",
        "{{ $labels.instance }}: {{ $value | humanize }} records of the shared store could not be read",
        "They count as misses; nothing wrong was served. Does something else write to that database? Another "
        "version of edgeproxy only adds misses. A disk that fails shows in the kernel's log.",
    ),
    Alert(
        "EdgeproxyPurgesMissed", _grew("edgeproxy_store_bus_gaps_total", "15m"), "0m", "warning",
        "{{ $labels.instance }} was cut off from the others, and has dropped what it had in memory",
        "curl 127.0.0.1:8081/readyz says how purges travel now (bus). Is Redis reachable from that node, and "
        "does it keep its data (maxmemory-policy volatile-lru)?",
    ),
    Alert(
        "EdgeproxyAccessLogLosing", _grew("edgeproxy_access_log_lines_lost_total", "10m"), "0m", "warning",
        "{{ $labels.instance }}: {{ $value | humanize }} lines of the access log were lost",
        "Is the disk full (df), or slower than the traffic? Requests are not held up by it.",
    ),
    Alert(
        "EdgeproxyMetricsNotWhole", _grew("edgeproxy_source_errors_total", "10m"), "0m", "warning",
        "{{ $labels.instance }}: a part did not tell its numbers, so other alerts may be blind",
        "The log has the error, with the part's name. edgeproxy reload --workers begins anew.",
    ),
)  # fmt: skip


def alerts(baseline: Mapping[str, thresholds.Normal] | None = None) -> tuple[Alert, ...]:
    """All of them. ``baseline``: rule -> how it usually does."""
    own = baseline or {}
    others = f"rule!~{_any_of(own)}" if own else ""
    found = [*_PLAIN, *_of_requests(thresholds.DEFAULT, others, "")]
    for rule, normal in own.items():
        found += _of_requests(thresholds.of(normal), f"rule={json.dumps(rule, ensure_ascii=False)}", rule)
    for alert in found:
        checked(alert.expression)
    return tuple(found)


def _any_of(names: Mapping[str, object]) -> str:
    """A regular expression for these names, as a string of PromQL."""
    return json.dumps("|".join(map(re.escape, names)), ensure_ascii=False)
