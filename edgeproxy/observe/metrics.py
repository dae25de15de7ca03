"""The counters as /metrics and /api/cache/stats tell them.

Rules of this file:

- Requests are counted in tally.py; prometheus-client's objects are made on a scrape and thrown away. A
  registry of our own: nothing is global.
- A part that counts for itself (the store, the origins, the access log) is a *source*: a callable that gives
  ``{key: number or word}``. Numbers become what catalogue_parts.py says, or ``edgeproxy_<part>_<key>`` (a
  counter if the key ends in ``_total`` or in a word of COUNTED, else a gauge); words appear in the stats
  only. Keys come from code, so their number is bounded.
- A source that fails costs its own numbers and is counted; it never costs the scrape.
"""

from __future__ import annotations

import logging
import platform
import re
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from edgeproxy import __version__
from edgeproxy.observe.catalogue import BOUNDS, CATALOGUE, Described, Kind
from edgeproxy.observe.catalogue_parts import PARTS
from edgeproxy.observe.sockets import SocketTally
from edgeproxy.observe.tally import CLASSES, Histogram, RuleTally, Tally
from edgeproxy.warm.tally import Source, WarmTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from edgeproxy.clock import Clock
    from edgeproxy.observe.trace import Trace

Number = int | float

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
COUNTED = frozenset(
    (
        "total", "hits", "misses", "evictions", "expired", "errors", "failures", "timeouts", "retries",
        "requests", "writes", "reads", "drops", "dropped", "purges", "corrupt", "foreign", "promotions",
        "refused", "skipped", "busy", "overtaken", "full", "quarantined", "resent",
    )
)  # fmt: skip
"""Last words of source keys whose values only grow."""

_LOG = logging.getLogger("edgeproxy.metrics")
_NOT_A_NAME = re.compile(r"[^a-z0-9_]+")


class Metrics:
    """What a worker has counted since it started. ``sources``: part -> callable; more by ``add_source``."""

    def __init__(
        self,
        clock: Clock,
        rules: Iterable[str] = (),
        sources: Mapping[str, Callable[[], Mapping[str, Number | str]]] | None = None,
    ) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        names = tuple(rules)
        self.tally = Tally(names)
        self.sockets = SocketTally()
        self.warm = WarmTally()
        self.rules = len(names)
        self.observe: Callable[[Trace], None] = self.tally.observe
        """Count one finished request. Called once for each."""
        self.sources = dict(sources or {})
        self.origins: Callable[[], Mapping[str, Mapping[str, Mapping[str, Number | str]]]] = dict
        """Pool -> origin -> what it tells (origin/report.py)."""
        self.reloads = 0
        self.reloads_failed = 0
        self.last_reload_ok = True
        self.source_errors = 0
        self._registry = CollectorRegistry()
        self._registry.register(_Exposition(self))
        ProcessCollector(namespace="edgeproxy", registry=self._registry)

    def add_source(self, part: str, source: Callable[[], Mapping[str, Number | str]]) -> None:
        """``part`` is a lower-case word: ``store``, ``origin``."""
        self.sources[part] = source

    def set_rules(self, names: Iterable[str]) -> None:
        """The rules in force, after each load."""
        rules = tuple(names)
        self.tally.set_rules(rules)
        self.rules = len(rules)

    def slot(self, rule: str) -> RuleTally:
        """The slot the hit lane may hold and add to. Ask again after ``set_rules``."""
        return self.tally.slot(rule)

    def reloaded(self, *, ok: bool) -> None:
        """Rule files were read again, and taken over or refused."""
        self.reloads += 1
        self.reloads_failed += not ok
        self.last_reload_ok = ok

    def read_sources(self) -> dict[str, dict[str, Number | str]]:
        """What each part tells of itself. A part that fails is left out and counted."""
        told: dict[str, dict[str, Number | str]] = {}
        for part, source in self.sources.items():
            try:
                told[part] = dict(source())
            except Exception:  # noqa: BLE001 - whatever it is, the scrape goes on
                self.source_errors += 1
                _LOG.exception("%s did not tell its numbers", part)
        return told

    def render(self) -> bytes:
        """The text of /metrics, of the type CONTENT_TYPE."""
        return generate_latest(self._registry)

    def snapshot(self) -> dict[str, object]:
        """The same for /api/cache/stats: JSON-ready, times in seconds, sizes in octets."""
        tally, sockets = self.tally, self.sockets
        warmed = self.warm.warmed.items()
        return {
            "version": __version__,
            "uptime_seconds": round(self._clock.monotonic() - self._started, 3),
            **_told(tally.everything()),
            "rules": {name: _told(slot) for name, slot in tally.rules.items()},
            **_outcomes(tally),
            "websockets": {
                "open": sockets.open,
                "opened": sockets.opened,
                "refused": sockets.refused,
                "messages_in": sockets.messages_in,
                "messages_out": sockets.messages_out,
                "bytes_in": sockets.bytes_in,
                "bytes_out": sockets.bytes_out,
                "closes": {" ".join(key): n for key, n in sockets.closes.items()},
            },
            "warming": {
                "running": self.warm.running,
                "gave_way": self.warm.waited,
                "warmed": {
                    source.value: _counted((came.value, n) for (s, came), n in warmed if s is source)
                    for source in Source
                },
                "refreshed_ahead": _counted((came.value, n) for came, n in self.warm.ahead.items()),
            },
            "reloads": {"total": self.reloads, "failed": self.reloads_failed, "last_ok": self.last_reload_ok},
            "origins": self.origins(),
            **_exact(self.read_sources()),
        }

    def facts(self) -> dict[str, object]:
        """Of the same, what does not grow with the number of rules."""
        return {
            "version": __version__,
            "uptime_seconds": round(self._clock.monotonic() - self._started, 3),
            **_outcomes(self.tally),
            "websockets": {"open": self.sockets.open},
            "reloads": {"total": self.reloads, "failed": self.reloads_failed, "last_ok": self.last_reload_ok},
            "origins": self.origins(),
            **_exact(self.read_sources()),
        }


def _exact(told: dict[str, dict[str, Number | str]]) -> dict[str, dict[str, Number | str]]:
    """For JSON: the number of the last purge is text, since a double does not hold all its digits."""
    store = told.get("store", {})
    return {**told, "store": {**store, "epoch": str(store["epoch"])}} if "epoch" in store else told


def _outcomes(tally: Tally) -> dict[str, object]:
    """What came of requests, of all rules together, and why."""
    return {
        "stored": tally.stored,
        "collapsed": tally.collapsed,
        "aborted": tally.aborted,
        "not_stored": _counted(tally.not_stored.items()),
        "passes": _counted(tally.passes.items()),
        "stale_served": _counted(tally.stale.items()),
        "origin_failures": _counted(tally.failures.items()),
        "lookup_misses": _counted(tally.misses.items()),
        "edge_answers": _counted(tally.unsatisfied.items()),
    }


def _told(slot: RuleTally) -> dict[str, object]:
    slot.fold_lane()
    requests = slot.requests
    ratio = slot.hit_ratio
    return {
        "requests": requests,
        "hits": slot.hits,
        "hit_ratio": None if ratio is None else round(ratio, 4),
        "results": {word.value.lower(): count for word, count in slot.words.items()},
        "responses": dict(zip(CLASSES, slot.classes, strict=True)),
        "bytes_in": slot.bytes_in,
        "bytes_out": slot.bytes_out,
        "origin_seconds_saved": round(slot.saved, 3),
        "mean_seconds": round(slot.duration.total / requests, 6) if requests else None,
    }


def _counted(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Those reasons that occurred."""
    return {str(reason): count for reason, count in counts if count}


class _Exposition(Collector):
    """Turns the tally into prometheus-client's families, on a scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        # Asked once, on registration; the names are ours alone, there is nothing to clash with.
        return ()

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        for slot in metrics.tally.rules.values():
            slot.fold_lane()
        sources = list(_source_families(metrics.read_sources()))
        yield from _rule_families(metrics.tally.rules)
        yield from _reason_families(metrics.tally)
        yield from _origin_families(metrics.origins())
        yield _histogram("edgeproxy_origin_duration_seconds", [((), metrics.tally.origin)])
        yield _histogram("edgeproxy_store_lookup_duration_seconds", [((), metrics.tally.lookups)])
        for name, value in (
            ("edgeproxy_stored_total", metrics.tally.stored),
            ("edgeproxy_collapsed_requests_total", metrics.tally.collapsed),
            ("edgeproxy_aborted_total", metrics.tally.aborted),
            ("edgeproxy_config_reload_total", metrics.reloads),
            ("edgeproxy_config_reload_failed_total", metrics.reloads_failed),
            ("edgeproxy_config_last_reload_successful", int(metrics.last_reload_ok)),
            ("edgeproxy_rules", metrics.rules),
            ("edgeproxy_source_errors_total", metrics.source_errors),
        ):
            yield _simple(name, [((), value)])
        yield from _socket_families(metrics.sockets)
        yield from _warm_families(metrics.warm)
        yield _simple("edgeproxy_build_info", [((__version__, platform.python_version()), 1)])
        yield from sources


def _simple(name: str, samples: Iterable[tuple[tuple[str, ...], Number]]) -> Metric:
    described = CATALOGUE[name]
    make = CounterMetricFamily if described.kind is Kind.COUNTER else GaugeMetricFamily
    family = make(name, described.help, labels=described.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, samples: Iterable[tuple[tuple[str, ...], Histogram]]) -> Metric:
    described = CATALOGUE[name]
    family = HistogramMetricFamily(name, described.help, labels=described.labels)
    for labels, histogram in samples:
        running, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), histogram.counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(labels, buckets, histogram.total)
    return family


def _rule_families(rules: Mapping[str, RuleTally]) -> Iterator[Metric]:
    slots = list(rules.items())
    yield _simple(
        "edgeproxy_requests_total",
        (((rule, word.value.lower()), n) for rule, slot in slots for word, n in slot.words.items()),
    )
    yield _simple("edgeproxy_hits_total", (((rule,), slot.hits) for rule, slot in slots))
    yield _simple(
        "edgeproxy_responses_total",
        (((rule, c), n) for rule, slot in slots for c, n in zip(CLASSES, slot.classes, strict=True)),
    )
    yield _simple("edgeproxy_response_bytes_total", (((rule,), slot.bytes_out) for rule, slot in slots))
    yield _simple("edgeproxy_request_bytes_total", (((rule,), slot.bytes_in) for rule, slot in slots))
    yield _simple("edgeproxy_origin_seconds_saved_total", (((rule,), slot.saved) for rule, slot in slots))
    yield _histogram("edgeproxy_request_duration_seconds", (((rule,), slot.duration) for rule, slot in slots))


def _reason_families(tally: Tally) -> Iterator[Metric]:
    tables: tuple[tuple[str, Iterable[tuple[str, int]]], ...] = (
        ("edgeproxy_not_stored_total", tally.not_stored.items()),
        ("edgeproxy_passes_total", tally.passes.items()),
        ("edgeproxy_stale_served_total", tally.stale.items()),
        ("edgeproxy_origin_failures_total", tally.failures.items()),
        ("edgeproxy_lookup_misses_total", tally.misses.items()),
        ("edgeproxy_edge_answers_total", tally.unsatisfied.items()),
    )
    for name, counts in tables:
        yield _simple(name, (((str(reason),), n) for reason, n in counts))


def _socket_families(sockets: SocketTally) -> Iterator[Metric]:
    yield _simple("edgeproxy_websockets_open", [((), sockets.open)])
    yield _simple("edgeproxy_websockets_opened_total", [((), sockets.opened)])
    yield _simple("edgeproxy_websockets_refused_total", [((), sockets.refused)])
    for name, come, gone in (
        ("edgeproxy_websocket_messages_total", sockets.messages_in, sockets.messages_out),
        ("edgeproxy_websocket_bytes_total", sockets.bytes_in, sockets.bytes_out),
    ):
        yield _simple(name, [(("in",), come), (("out",), gone)])
    yield _simple("edgeproxy_websocket_closes_total", sockets.closes.items())


_OF_ORIGINS = {
    "edgeproxy_origin_usable": "usable",
    "edgeproxy_origin_requests_total": "requests",
    "edgeproxy_origin_request_failures_total": "failures",
    "edgeproxy_origin_errors_total": "errors",
    "edgeproxy_origin_retries_total": "retries",
    "edgeproxy_origin_budget_refused_total": "refused_by_budget",
    "edgeproxy_origin_breaker_opens_total": "breaker_opens",
    "edgeproxy_origin_ejections_total": "ejections",
    "edgeproxy_origin_latency_seconds": "latency_seconds",
}


def _origin_families(
    told: Mapping[str, Mapping[str, Mapping[str, Number | str]]],
) -> Iterator[Metric]:
    each = [((pool, url), row) for pool, rows in told.items() for url, row in rows.items()]
    for name, key in _OF_ORIGINS.items():
        yield _simple(name, ((labels, float(row[key])) for labels, row in each))


def _warm_families(warm: WarmTally) -> Iterator[Metric]:
    yield _simple("edgeproxy_warmups_running", [((), warm.running)])
    yield _simple("edgeproxy_warmup_waits_total", [((), warm.waited)])
    yield _simple(
        "edgeproxy_warmed_total", (((s.value, came.value), n) for (s, came), n in warm.warmed.items())
    )
    yield _simple("edgeproxy_refresh_ahead_total", (((came.value,), n) for came, n in warm.ahead.items()))


def _source_families(told: Mapping[str, Mapping[str, Number | str]]) -> Iterator[Metric]:
    seen: set[str] = set(CATALOGUE)
    for part, numbers in told.items():
        for key, value in numbers.items():
            if not isinstance(value, int | float):
                continue
            described = PARTS.get((part, key)) or derived(part, key)
            if described.name in seen:
                continue
            seen.add(described.name)
            make = CounterMetricFamily if described.kind is Kind.COUNTER else GaugeMetricFamily
            yield make(described.name, described.help, value=value)


def derived(part: str, key: str) -> Described:
    """Of a key that the catalogue does not have."""
    name = f"edgeproxy_{_NOT_A_NAME.sub('_', f'{part}_{key}'.lower())}"
    kind = Kind.COUNTER if name.rpartition("_")[2] in COUNTED else Kind.GAUGE
    if kind is Kind.COUNTER and not name.endswith("_total"):
        name += "_total"
    return Described(name, kind, f"{key.replace('_', ' ')}, as the {part} counts it.")
