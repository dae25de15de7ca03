"""What is an alert: when, how urgent, what to do then. One table for Prometheus and for who watches inside.

Rules of this file:

- Every condition goes through promql.checked: it names only what a scrape has.
- Thresholds come from thresholds.py. With a baseline each of its rules is compared with itself, and all
  others together with the default.
- Each alert has its runbook: commands that exist, in the order in which to try them.
- ``critical`` gets somebody out of bed, ``warning`` waits for the morning.
- A summary is a template as Prometheus has them; ``filled`` does the same inside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.observe import thresholds
from edgeproxy.observe.expressions import (
    Both,
    Chosen,
    Condition,
    Gauge,
    Grown,
    Quantile,
    Selector,
    Unseen,
    seconds,
)
from edgeproxy.observe.promql import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgeproxy.observe.expressions import Labels

_WHOLE = Chosen("class", "!=", "5xx")
_ASKED = Chosen("result", "!=", "bypass")
_STALE = Chosen("reason", "=~", "stale-if-error|disconnected|refresh-cool-down")
_ORIGIN = ("pool", "origin")


@dataclass(frozen=True, slots=True)
class Alert:
    """``lasts``: how long it must hold, as Prometheus writes it. ``rule``: the one it watches, if any."""

    name: str
    condition: Condition
    lasts: str
    severity: str
    summary: str
    runbook: str
    rule: str = ""

    @property
    def expression(self) -> str:
        """The condition in PromQL."""
        return self.condition.text

    @property
    def pause(self) -> float:
        """Seconds for which it must hold."""
        return seconds(self.lasts)


def _rate(name: str, *chosen: Chosen, by: tuple[str, ...] = ()) -> Grown:
    return Grown(Selector(name, chosen, by))


def _sum(name: str, by: tuple[str, ...] = ()) -> Gauge:
    return Gauge(Selector(name, (), by))


def _grew(name: str, window: str) -> Condition:
    return Condition(Grown(Selector(name), window, rate=False), ">", 0)


def _of_requests(told: thresholds.Thresholds, chosen: tuple[Chosen, ...], rule: str) -> Iterator[Alert]:
    """What is compared with thresholds; ``chosen``: the requests that are meant."""
    whom = f"{{{{ $labels.instance }}}}: rule {rule}: " if rule else "{{ $labels.instance }}: "
    enough = Condition(_rate("edgeproxy_requests_total", *chosen), ">", thresholds.LEAST_RATE)
    hits, asked = _rate("edgeproxy_hits_total", *chosen), _rate("edgeproxy_requests_total", *chosen, _ASKED)
    yield Alert(
        "EdgeproxyHitRatioLow", Condition(Both(hits, "/", asked), "<", told.hit_ratio, enough),
        "15m", "warning",
        whom + f"hit ratio {{{{ $value | humanizePercentage }}}}, should be {told.hit_ratio:.0%} or more",
        "edgeproxy savings names the rules that earn little, and the ttl that would. edgeproxy doctor "
        "finds what splits the cache for nothing. edgeproxy stats tells why answers are not stored. After "
        "a deployment or a purge of everything it comes back by itself; edgeproxy warm --most-wanted 200 "
        "shortens that.",
        rule,
    )  # fmt: skip
    answers = "edgeproxy_responses_total"
    success = Both(_rate(answers, *chosen, _WHOLE), "/", _rate(answers, *chosen))
    for severity, least, lasts in (
        ("warning", told.success_warning, "5m"),
        ("critical", told.success_critical, "2m"),
    ):
        yield Alert(
            "EdgeproxySuccessLow", Condition(success, "<", least, enough), lasts, severity,
            whom + f"{{{{ $value | humanizePercentage }}}} of the answers are no 5xx (should: {least:.0%})",
            "edgeproxy stats names the origins that fail, and how. curl 127.0.0.1:8081/readyz says what is "
            "degraded. If the origin is fine, edgeproxy explain URL tells what is done with a request. "
            "stale_if_error in a rule lets the cache stand in for an origin that fails.",
            rule,
        )  # fmt: skip
    took = Selector("edgeproxy_request_duration_seconds_bucket", chosen, ("le",))
    for share, severity, most, lasts in (
        ("0.95", "warning", told.p95_warning, "10m"),
        ("0.95", "critical", told.p95_critical, "5m"),
        ("0.99", "critical", told.p99_critical, "5m"),
    ):
        yield Alert(
            f"EdgeproxyP{share[2:]}High", Condition(Quantile(share, took), ">", most, enough),
            lasts, severity,
            whom + f"P{share[2:]} is {{{{ $value | humanizeDuration }}}}, should be {most * 1000:g} ms",
            "Slow answers are those that wait: Server-Timing on an answer tells for what. Look at the hit "
            "ratio first, then at the latency of the origins (edgeproxy stats), then at the processor: "
            "edgeproxy top. stale_while_revalidate in a rule takes the wait for the origin away from "
            "clients.",
            rule,
        )  # fmt: skip


_PLAIN = (
    Alert(
        "EdgeproxyDown", Condition(Unseen('up{job="edgeproxy"}'), "==", 0), "1m", "critical",
        "{{ $labels.instance }} gives no metrics",
        "Is the process there? systemctl status edgeproxy, or docker compose ps. Its log says why it ended. "
        "If it runs: does the admin port listen where Prometheus asks, and is the read token the same?",
    ),
    Alert(
        "EdgeproxyOriginLeftAlone",
        Condition(_sum("edgeproxy_origin_usable", _ORIGIN), "==", 0), "1m", "critical",
        "{{ $labels.instance }}: no worker may ask {{ $labels.origin }} of pool {{ $labels.pool }}",
        "edgeproxy stats and /readyz say why. Ask the origin by hand from that machine. It is tried once a "
        "second and comes back by itself. Until then: stale answers where rules allow them, else 503.",
    ),
    Alert(
        "EdgeproxyOriginFailing",
        Condition(
            Both(
                Both(
                    _rate("edgeproxy_origin_request_failures_total", by=_ORIGIN),
                    "+",
                    _rate("edgeproxy_origin_errors_total", by=_ORIGIN),
                ),
                "/",
                _rate("edgeproxy_origin_requests_total", by=_ORIGIN),
            ),
            ">", 0.05,
        ),
        "5m", "warning",
        "{{ $labels.instance }}: {{ $labels.origin }} fails {{ $value | humanizePercentage }} of requests",
        "The dashboard of errors tells how: refused, timeouts, 5xx. If only some origins of a pool fail, "
        "take them out of the rule file and edgeproxy reload.",
    ),
    Alert(
        "EdgeproxyOriginQueue", Condition(_sum("edgeproxy_origin_queued"), ">", 0), "5m", "warning",
        "{{ $labels.instance }}: {{ $value }} requests wait for a place at an origin",
        "The origin is asked as much as its pool allows. Is it slower than usual (edgeproxy stats)? If it "
        "could take more, raise the limits of the pool in the rule file and edgeproxy reload.",
    ),
    Alert(
        "EdgeproxyStaleOnError",
        Condition(_rate("edgeproxy_stale_served_total", _STALE), ">", 1), "5m", "warning",
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
        Condition(
            Both(_sum("edgeproxy_connections_open"), "/", _sum("edgeproxy_connections_limit")), ">", 0.9
        ),
        "5m", "warning",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the connections that clients may have",
        "edgeproxy serve --help tells the flags that limit connections and those of one client. Raise the "
        "limit with the number of file descriptors, or let idle ones go sooner.",
    ),
    Alert(
        "EdgeproxyFileDescriptorsNearLimit",
        Condition(Both(_sum("edgeproxy_process_open_fds"), "/", _sum("edgeproxy_process_max_fds")), ">", 0.9),
        "5m", "critical",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of its file descriptors are in use",
        "Raise LimitNOFILE in the unit (nofile in compose) and restart. Are there many connections of "
        "clients, or to origins? The dashboards of traffic and of origins tell.",
    ),
    Alert(
        "EdgeproxyReloadRefused",
        Condition(Gauge(Selector("edgeproxy_config_last_reload_successful"), "min"), "==", 0),
        "0m", "warning",
        "{{ $labels.instance }}: the last load of the rules was refused; those before are in force",
        "edgeproxy check DIR names file and line. Then edgeproxy reload.",
    ),
    Alert(
        "EdgeproxyNoWorker", Condition(_sum("edgeproxy_node_workers_ready"), "==", 0), "1m", "critical",
        "{{ $labels.instance }}: no worker serves",
        "Clients wait or are refused. The log of the process says why workers end or do not start; "
        "edgeproxy check DIR whether it is the rules.",
    ),
    Alert(
        "EdgeproxyWorkerCrashed", _grew("edgeproxy_node_crashes_total", "15m"), "0m", "warning",
        "{{ $labels.instance }}: {{ $value | humanize }} workers ended without being told to",
        "They have been replaced. The log of the process says which signal or error it was; out of memory is "
        "in the kernel's (journalctl -k). Lower --memory if it was that.",
    ),
    Alert(
        "EdgeproxyStoreFailing",
        Condition(
            Both(
                Both(
                    _rate("edgeproxy_store_l2_timeouts_total"), "+", _rate("edgeproxy_store_l2_errors_total")
                ),
                "/",
                _rate("edgeproxy_store_l2_reads_total"),
            ),
            ">", 0.1,
        ),
        "5m", "warning",
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
        "EdgeproxyNoticesFailing", _grew("edgeproxy_alerts_notices_failed_total", "15m"), "0m", "warning",
        "{{ $labels.instance }}: notices of alerts that a receiver did not take: {{ $value | humanize }}",
        "edgeproxy alerts says which receiver, and what it answered. edgeproxy alerts test tries them all.",
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
    others = (Chosen("rule", "!~", "|".join(map(re.escape, own))),) if own else ()
    found = [*_PLAIN, *_of_requests(thresholds.DEFAULT, others, "")]
    for rule, normal in own.items():
        found += _of_requests(thresholds.of(normal), (Chosen("rule", "=", rule),), rule)
    for alert in found:
        checked(alert.expression)
    return tuple(found)


_TEMPLATE = re.compile(r"\{\{ \$(?:labels\.(\w+)|value)(?: \| (\w+))? \}\}")


def filled(alert: Alert, instance: str, labels: Labels, value: float) -> str:
    """The summary, as Prometheus would fill it in."""
    known = {"instance": instance, **dict(labels)}
    shown = {"humanizePercentage": _percent, "humanizeDuration": _duration, "humanize": _short, None: _short}
    return _TEMPLATE.sub(
        lambda found: known.get(found[1], "") if found[1] else shown[found[2]](value), alert.summary
    )


def _percent(value: float) -> str:
    return f"{value * 100:.4g}%"


def _duration(value: float) -> str:
    return f"{value * 1000:.4g}ms" if value < 1 else f"{value:.4g}s"


def _short(value: float) -> str:
    return f"{value:.4g}"
