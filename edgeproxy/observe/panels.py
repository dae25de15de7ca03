"""The four dashboards as data: what each panel asks, in which unit, and what it means.

Rules of this file:

- Every expression goes through promql.checked when this is imported: a metric that the catalogue does not
  have, or a label that it does not carry, stops here.
- I is what chooses instances, R what also chooses rules; a rate is over Grafana's own interval (W).
- ``quiet``: a panel that is empty, or all zero, while nothing goes wrong or where the part is not in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.observe.promql import checked

if TYPE_CHECKING:
    from collections.abc import Iterator

I = 'instance=~"$instance"'  # noqa: E741 - it stands in every line
R = 'instance=~"$instance",rule=~"$rule"'
W = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """``legend``: Grafana's format of a series' name."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit``: in Grafana's words (reqps, percentunit, s, bytes). ``kind``: timeseries or stat."""

    title: str
    says: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``name`` is the file's and, with edgeproxy- before it, the dashboard's uid."""

    name: str
    title: str
    says: str
    panels: tuple[Panel, ...]

    @property
    def by_rule(self) -> bool:
        """Whether a choice of rules changes anything in it."""
        return any("$rule" in query.expression for panel in self.panels for query in panel.queries)


def _panel(
    title: str, unit: str, says: str, *queries: tuple[str, str], kind: str = "timeseries", quiet: bool = False
) -> Panel:
    asked = tuple(Query(checked(expression), legend) for expression, legend in queries)
    return Panel(title, says, unit, asked, kind, quiet)


def _stat(title: str, unit: str, says: str, expression: str, *, quiet: bool = False) -> Panel:
    return _panel(title, unit, says, (expression, title), kind="stat", quiet=quiet)


def _rate(name: str, chosen: str = I, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{chosen}}}{W}))"


def _percentile(share: str, name: str, chosen: str = I, by: str = "") -> str:
    return f"histogram_quantile({share}, {_rate(f'{name}_bucket', chosen, f'le, {by}' if by else 'le')})"


def _percentiles(name: str, chosen: str = I) -> Iterator[tuple[str, str]]:
    for share in ("0.5", "0.75", "0.9", "0.95", "0.99"):
        yield _percentile(share, name, chosen), f"P{float(share) * 100:g}"


def _ratio(chosen: str, by: str = "") -> str:
    asked = _rate("edgeproxy_requests_total", f'{chosen},result!="bypass"', by)
    return f"{_rate('edgeproxy_hits_total', chosen, by)} / {asked}"


def _success(chosen: str, by: str = "") -> str:
    whole = f'{chosen},class!="5xx"'
    return (
        f"{_rate('edgeproxy_responses_total', whole, by)} / {_rate('edgeproxy_responses_total', chosen, by)}"
    )


_TOOK = "edgeproxy_request_duration_seconds"
_ORIGIN = "{{pool}} {{origin}}"

TRAFFIC = Dashboard(
    "traffic", "edgeproxy: traffic",
    "What clients ask, how fast they are answered, and how much room is left.",
    (
        _stat("Requests", "reqps", "A second, now.", _rate("edgeproxy_requests_total", R)),
        _stat("Success", "percentunit", "Answers that are no 5xx.", _success(R)),
        _stat("P95", "s", "Within which 95 % of requests are answered.", _percentile("0.95", _TOOK, R)),
        _stat("Under way", "short", "Requests that have no answer yet.",
              f"sum(edgeproxy_requests_in_flight{{{I}}})"),
        _panel("Requests by rule", "reqps", "A second.",
               (_rate("edgeproxy_requests_total", R, "rule"), "{{rule}}")),
        _panel("Answers by class of status", "reqps", "A second; other is none at all: the client left.",
               (_rate("edgeproxy_responses_total", R, "class"), "{{class}}")),
        _panel("Time to answer", "s", "From a whole request head to the last octet of the answer.",
               *_percentiles(_TOOK, R)),
        _panel("P95 by rule", "s", "The same, of each rule.",
               (_percentile("0.95", _TOOK, R, "rule"), "{{rule}}")),
        _panel("Octets", "Bps", "Of bodies, to and from clients.",
               (_rate("edgeproxy_response_bytes_total", R), "sent"),
               (_rate("edgeproxy_request_bytes_total", R), "received")),
        _panel("Connections", "short", "Of clients, and how many there may be.",
               (f"sum(edgeproxy_connections_open{{{I}}})", "open"),
               (f"sum(edgeproxy_connections_limit{{{I}}})", "limit")),
        _panel("WebSockets", "short", "Open now.", (f"sum(edgeproxy_websockets_open{{{I}}})", "open")),
        _panel("Processor", "percentunit", "Of one core, by instance; all workers together.",
               (_rate("edgeproxy_process_cpu_seconds_total", I, "instance"), "{{instance}}")),
        _panel("Memory", "bytes", "Resident, by instance.",
               (f"sum by (instance) (edgeproxy_process_resident_memory_bytes{{{I}}})", "{{instance}}")),
        _panel("File descriptors", "percentunit", "Of those that the process may have.",
               ((f"sum by (instance) (edgeproxy_process_open_fds{{{I}}}) "
                f"/ sum by (instance) (edgeproxy_process_max_fds{{{I}}})"), "{{instance}}")),
    ),
)  # fmt: skip

CACHE = Dashboard(
    "cache", "edgeproxy: cache", "What the cache saves, what it does not keep and why, and how full it is.",
    (
        _stat("Hit ratio", "percentunit", "Of the requests that ask the cache.", _ratio(R)),
        _stat("Origin time saved", "short", "Seconds that the origin did not work, each second.",
              _rate("edgeproxy_origin_seconds_saved_total", R)),
        _stat("Entries in memory", "short", "Of all workers.",
              f"sum(edgeproxy_store_l1_entries{{{I}}})"),
        _stat("Memory in use", "percentunit", "Of --memory.",
              f"sum(edgeproxy_store_l1_bytes{{{I}}}) / sum(edgeproxy_store_l1_max_bytes{{{I}}})"),
        _panel("Hit ratio by rule", "percentunit", "Of the requests that ask the cache.",
               (_ratio(R, "rule"), "{{rule}}")),
        _panel("What the cache did", "reqps", "In the words of X-Cache-Status.",
               (_rate("edgeproxy_requests_total", R, "result"), "{{result}}")),
        _panel("Not stored, by reason", "reqps",
               "Answers that the cache was not allowed to keep, or not asked to.",
               (_rate("edgeproxy_not_stored_total", I, "reason"), "{{reason}}")),
        _panel("Not asked, by reason", "reqps", "Requests that went past the cache.",
               (_rate("edgeproxy_passes_total", I, "reason"), "{{reason}}")),
        _panel("Not found, by reason", "reqps", "Lookups that gave nothing usable.",
               (_rate("edgeproxy_lookup_misses_total", I, "reason"), "{{reason}}")),
        _panel("Stored, and merged", "reqps", "Answers stored; requests that waited for another one's fetch.",
               (_rate("edgeproxy_stored_total"), "stored"),
               (_rate("edgeproxy_collapsed_requests_total"), "merged")),
        _panel("Stale answers, by reason", "reqps", "Served after their lifetime.",
               (_rate("edgeproxy_stale_served_total", I, "reason"), "{{reason}}")),
        _panel("Evictions and purges", "ops", "Entries let go for room; purges made.",
               (_rate("edgeproxy_store_l1_evictions_total"), "evictions"),
               (_rate("edgeproxy_store_purges_total"), "purges")),
        _panel("Shared store", "ops", "Lookups that found something and that did not, records written.",
               (_rate("edgeproxy_store_l2_hits_total"), "hits"),
               (_rate("edgeproxy_store_l2_misses_total"), "misses"),
               (_rate("edgeproxy_store_l2_writes_total"), "writes"), quiet=True),
        _panel("Waiting for the shared store", "s", "Of requests that asked it.",
               *_percentiles("edgeproxy_store_lookup_duration_seconds"), quiet=True),
        _panel("Refreshed ahead", "ops", "Entries due before they expired, by what came of it.",
               (_rate("edgeproxy_refresh_ahead_total", I, "result"), "{{result}}")),
    ),
)  # fmt: skip

ORIGINS = Dashboard(
    "origins", "edgeproxy: origins", "How the origins answer, and which of them are left alone.",
    (
        _stat("Usable", "short", "Of all origins, those that some worker may ask now.",
              f"count(sum by (pool, origin) (edgeproxy_origin_usable{{{I}}}) > 0)"),
        _stat("Requests", "reqps", "That origins answered or failed, a second.",
              _rate("edgeproxy_origin_requests_total")),
        _stat("P95 to the head", "s", "From sending a request to the head of its answer.",
              _percentile("0.95", "edgeproxy_origin_duration_seconds")),
        _stat("Waiting", "short", "Requests that wait for a place at an origin.",
              f"sum(edgeproxy_origin_queued{{{I}}})"),
        _panel("Usable, by origin", "short", "Workers that may ask it.",
               (f"sum by (pool, origin) (edgeproxy_origin_usable{{{I}}})", _ORIGIN)),
        _panel("Requests, by origin", "reqps", "A second.",
               (_rate("edgeproxy_origin_requests_total", I, "pool, origin"), _ORIGIN)),
        _panel("Failing, by origin", "percentunit",
               "Requests without a whole answer, and status 500, 502, 503 or 504.",
               ((f"({_rate('edgeproxy_origin_request_failures_total', I, 'pool, origin')} + "
                f"{_rate('edgeproxy_origin_errors_total', I, 'pool, origin')}) / "
                f"{_rate('edgeproxy_origin_requests_total', I, 'pool, origin')}"), _ORIGIN)),
        _panel("Latency, by origin", "s", "Moving average to the head of an answer; the slowest worker's.",
               (f"max by (pool, origin) (edgeproxy_origin_latency_seconds{{{I}}})", _ORIGIN)),
        _panel("Time to the head", "s", "Of all origins together.",
               *_percentiles("edgeproxy_origin_duration_seconds")),
        _panel("Left alone", "ops", "Breakers opened, origins ejected.",
               (_rate("edgeproxy_origin_breaker_opens_total", I, "pool, origin"), f"breaker {_ORIGIN}"),
               (_rate("edgeproxy_origin_ejections_total", I, "pool, origin"), f"ejected {_ORIGIN}")),
        _panel("Retries", "ops", "And what the budget for them left no room for.",
               (_rate("edgeproxy_origin_retries_total", I, "pool, origin"), f"retried {_ORIGIN}"),
               (_rate("edgeproxy_origin_budget_refused_total", I, "pool, origin"), f"refused {_ORIGIN}")),
        _panel("Connections", "short", "To origins.",
               (f"sum(edgeproxy_origin_connections_open{{{I}}})", "open"),
               (f"sum(edgeproxy_origin_connections_idle{{{I}}})", "idle"),
               (f"sum(edgeproxy_origin_in_flight{{{I}}})", "asked now")),
        _panel("New connections", "ops", "Many, beside few requests: the origin does not keep them open.",
               (_rate("edgeproxy_origin_connects_total"), "made"),
               (_rate("edgeproxy_origin_resent_total"), "sent again")),
    ),
)  # fmt: skip

ERRORS = Dashboard(
    "errors", "edgeproxy: errors", "What went wrong, where, and what was refused.",
    (
        _stat("5xx", "percentunit", "Of all answers.",
              _rate("edgeproxy_responses_total", f'{I},class="5xx"') + " / "
              + _rate("edgeproxy_responses_total")),
        _stat("Origin failures", "reqps", "Requests for which the origin failed.",
              _rate("edgeproxy_origin_failures_total")),
        _stat("Rules accepted", "short", "0: the last load of the rules was refused, the ones before go on.",
              f"min(edgeproxy_config_last_reload_successful{{{I}}})"),
        _stat("Let through", "percentunit", "Of the requests that need the origin; under 1 it is overloaded.",
              f"min(edgeproxy_overload_admitted_ratio{{{I}}})"),
        _panel("5xx by rule", "reqps", "A second.",
               (_rate("edgeproxy_responses_total", f'{I},class="5xx"', "rule"), "{{rule}}")),
        _panel("Origin failures, by how", "reqps", "A second.",
               (_rate("edgeproxy_origin_failures_total", I, "reason"), "{{reason}}")),
        _panel("Refused by the edge", "reqps",
               "Answered by itself, by reason; and with 503, since there was too much to do.",
               (_rate("edgeproxy_edge_answers_total", I, "reason"), "{{reason}}"),
               (_rate("edgeproxy_overload_shed_total"), "overloaded")),
        _panel("Broken off", "reqps", "Answers that did not reach their end.",
               (_rate("edgeproxy_aborted_total"), "aborted")),
        _panel("Connections refused", "ops", "And those whose request head did not come in time.",
               (_rate("edgeproxy_connections_full_refused_total"), "full"),
               (_rate("edgeproxy_connections_client_limit_refused_total"), "limit of the client"),
               (_rate("edgeproxy_connections_denied_refused_total"), "--allow, --deny"),
               (_rate("edgeproxy_connections_head_timeouts_total"), "no head in time")),
        _panel("Shared store", "ops",
               "Reads over their budget or failed, writes dropped, records that are damaged.",
               (_rate("edgeproxy_store_l2_timeouts_total"), "timeouts"),
               (_rate("edgeproxy_store_l2_errors_total"), "errors"),
               (_rate("edgeproxy_store_l2_write_drops_total"), "dropped"),
               (_rate("edgeproxy_store_l2_corrupt_total"), "damaged"), quiet=True),
        _panel("Workers", "short", "That serve, that there should be, and crashes (with --workers above 1).",
               (f"sum(edgeproxy_node_workers_ready{{{I}}})", "serving"),
               (f"sum(edgeproxy_node_workers{{{I}}})", "wanted"),
               (f"sum(increase(edgeproxy_node_crashes_total{{{I}}}{W}))", "crashes"), quiet=True),
        _panel("Lines of the access log lost", "ops", "Dropped, or refused by the disk.",
               (_rate("edgeproxy_access_log_lines_lost_total"), "lost"), quiet=True),
        _panel("Loads of the rules", "ops", "And those refused.",
               (_rate("edgeproxy_config_reload_total"), "all"),
               (_rate("edgeproxy_config_reload_failed_total"), "refused")),
        _panel("Parts that told no numbers", "ops", "A scrape without them is not whole.",
               (_rate("edgeproxy_source_errors_total"), "failed")),
    ),
)  # fmt: skip

DASHBOARDS = (TRAFFIC, CACHE, ORIGINS, ERRORS)
