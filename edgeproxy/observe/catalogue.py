"""Every metric there is: name, kind, labels and what it means. One table.

Rules of this file:

- Names begin ``edgeproxy_`` and carry their base unit; counters end in ``_total`` (Prometheus: metric and
  label naming).
- A label is a rule's name or a member of a closed enum: the number of series is bounded by the rule files.
- metrics.py can only speak of what stands here, so whatever reads this table (dashboards, alerts, the
  reference) never names a metric that does not exist.
- What the store, the origins and other parts tell of themselves is in catalogue_parts.py; all together is
  its EVERY.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
)  # fmt: skip
"""Upper bounds of all latency histograms, in seconds. Hits are answered in well under a millisecond."""


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Join(StrEnum):
    """How what several workers tell becomes what their node tells."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Described:
    """``help`` is one line. ``join``: of counters and histograms, always the sum."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    join: Join = Join.SUM


_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

CATALOGUE: dict[str, Described] = {
    d.name: d
    for d in (
        Described(
            "edgeproxy_requests_total",
            _COUNTER,
            "Requests, by rule and what the cache did (the words of X-Cache-Status).",
            ("rule", "result"),
        ),
        Described(
            "edgeproxy_hits_total",
            _COUNTER,
            "Requests answered from the cache without waiting for the origin, stale answers included.",
            ("rule",),
        ),
        Described(
            "edgeproxy_responses_total",
            _COUNTER,
            "Answers, by rule and class of status.",
            ("rule", "class"),
        ),
        Described("edgeproxy_response_bytes_total", _COUNTER, "Body octets sent to clients.", ("rule",)),
        Described("edgeproxy_request_bytes_total", _COUNTER, "Body octets read from clients.", ("rule",)),
        Described(
            "edgeproxy_origin_seconds_saved_total",
            _COUNTER,
            "What the fetches of the entries served from the cache had cost, summed over those answers.",
            ("rule",),
        ),
        Described(
            "edgeproxy_request_duration_seconds",
            _HISTOGRAM,
            "From a complete request head to the last octet of the answer.",
            ("rule",),
        ),
        Described(
            "edgeproxy_origin_duration_seconds",
            _HISTOGRAM,
            "From sending a request to the origin to the head of its answer.",
        ),
        Described(
            "edgeproxy_store_lookup_duration_seconds",
            _HISTOGRAM,
            "What requests waited for the shared store.",
        ),
        Described(
            "edgeproxy_not_stored_total", _COUNTER, "Answers that were not stored, by reason.", ("reason",)
        ),
        Described(
            "edgeproxy_passes_total",
            _COUNTER,
            "Requests forwarded without asking the cache, by reason.",
            ("reason",),
        ),
        Described("edgeproxy_stale_served_total", _COUNTER, "Stale answers served, by reason.", ("reason",)),
        Described(
            "edgeproxy_origin_failures_total",
            _COUNTER,
            "Requests for which the origin failed, by how.",
            ("reason",),
        ),
        *(
            Described(
                name, kind, told, ("pool", "origin"), Join.MAX if name.endswith("_seconds") else Join.SUM
            )
            for name, kind, told in (
                (
                    "edgeproxy_origin_usable",
                    _GAUGE,
                    "Workers that ask the origin: 0 while it is left alone, or only tried again.",
                ),
                ("edgeproxy_origin_requests_total", _COUNTER, "Requests that the origin answered or failed."),
                (
                    "edgeproxy_origin_request_failures_total",
                    _COUNTER,
                    "Requests that it gave no whole answer to.",
                ),
                ("edgeproxy_origin_errors_total", _COUNTER, "Answers of status 500, 502, 503 or 504."),
                ("edgeproxy_origin_retries_total", _COUNTER, "Requests to it that repeated a failed one."),
                (
                    "edgeproxy_origin_budget_refused_total",
                    _COUNTER,
                    "Repeats and background work that its budget left no room for.",
                ),
                ("edgeproxy_origin_breaker_opens_total", _COUNTER, "Times that its breaker opened."),
                ("edgeproxy_origin_ejections_total", _COUNTER, "Times that it was ejected from its pool."),
                (
                    "edgeproxy_origin_latency_seconds",
                    _GAUGE,
                    "Moving average of the time to the head of an answer.",
                ),
            )
        ),
        Described(
            "edgeproxy_lookup_misses_total",
            _COUNTER,
            "Lookups that found nothing usable, by reason; corrupt and foreign entries among them.",
            ("reason",),
        ),
        Described(
            "edgeproxy_edge_answers_total",
            _COUNTER,
            "Requests that the edge refused by itself, by reason.",
            ("reason",),
        ),
        Described("edgeproxy_stored_total", _COUNTER, "Answers stored."),
        Described(
            "edgeproxy_collapsed_requests_total", _COUNTER, "Requests that waited for another one's fetch."
        ),
        Described("edgeproxy_aborted_total", _COUNTER, "Answers that did not reach their end."),
        Described("edgeproxy_websockets_open", _GAUGE, "WebSockets that are open now."),
        Described("edgeproxy_websockets_opened_total", _COUNTER, "WebSockets opened."),
        Described(
            "edgeproxy_websockets_refused_total", _COUNTER, "WebSockets that the edge refused by itself."
        ),
        Described(
            "edgeproxy_websocket_messages_total",
            _COUNTER,
            "WebSocket messages passed on, from clients (in) and to them (out).",
            ("direction",),
        ),
        Described(
            "edgeproxy_websocket_bytes_total",
            _COUNTER,
            "Octets of WebSocket frames passed on, from clients (in) and to them (out).",
            ("direction",),
        ),
        Described(
            "edgeproxy_websocket_closes_total",
            _COUNTER,
            "WebSockets closed, by who closed them and the code (1006: without one).",
            ("side", "code"),
        ),
        Described("edgeproxy_warmups_running", _GAUGE, "Warm-ups under way."),
        Described(
            "edgeproxy_warmup_waits_total", _COUNTER, "Times that a warm-up gave way to clients' requests."
        ),
        Described(
            "edgeproxy_warmed_total",
            _COUNTER,
            "URLs of warm-ups, by why (asked, schedule, start) and what came of them. No client's requests.",
            ("source", "result"),
        ),
        Described(
            "edgeproxy_refresh_ahead_total",
            _COUNTER,
            "Entries whose refresh was due before they expired, by what came of it.",
            ("result",),
        ),
        Described(
            "edgeproxy_config_reload_total", _COUNTER, "Loads of the rule files, the refused included."
        ),
        Described(
            "edgeproxy_config_reload_failed_total",
            _COUNTER,
            "Loads of the rule files that were refused; the rules loaded before went on.",
        ),
        Described(
            "edgeproxy_config_last_reload_successful",
            _GAUGE,
            "1 if the last load of the rules was accepted.",
            join=Join.MIN,
        ),
        Described("edgeproxy_rules", _GAUGE, "Rules in force.", join=Join.MAX),
        Described(
            "edgeproxy_source_errors_total",
            _COUNTER,
            "Times that a part failed to tell its numbers to a scrape.",
        ),
        Described(
            "edgeproxy_build_info",
            _GAUGE,
            "Always 1; the version is in the labels.",
            ("version", "python"),
            join=Join.MAX,
        ),
    )
}
