"""Counting requests and telling the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.observe.catalogue import BOUNDS, CATALOGUE, Kind
from edgeproxy.observe.metrics import CONTENT_TYPE, Metrics
from edgeproxy.observe.tally import MAX_RULES
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import (
    CacheWord,
    LookupMiss,
    NotStored,
    OriginFailure,
    PassReason,
    StaleReason,
    Unsatisfied,
)
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def hit(rule: str = "pitches", *, octets: int = 100, saved: float = 0.5, seconds: float = 0.0002) -> Trace:
    return Trace(
        rule=rule,
        word=CacheWord.HIT,
        hit=True,
        status=200,
        bytes_out=octets,
        saved_seconds=saved,
        seconds=seconds,
    )


def miss(rule: str = "pitches") -> Trace:
    return Trace(
        rule=rule,
        word=CacheWord.MISS,
        status=200,
        bytes_out=100,
        seconds=0.3,
        origin_seconds=0.25,
        lookup_miss=LookupMiss.ABSENT,
        stored=True,
        saved_seconds=9.0,
    )


def scraped(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in scraped(metrics).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(DrivenClock(), ["pitches", "search"])


def test_requests_are_counted_by_rule_and_word(metrics: Metrics) -> None:
    for trace in (hit(), hit(), miss(), Trace(rule="search", word=CacheWord.STALE, hit=True, status=200)):
        metrics.observe(trace)
    assert value(metrics, "edgeproxy_requests_total", rule="pitches", result="hit") == 2
    assert value(metrics, "edgeproxy_requests_total", rule="pitches", result="miss") == 1
    assert value(metrics, "edgeproxy_requests_total", rule="search", result="stale") == 1
    assert value(metrics, "edgeproxy_requests_total", rule="search", result="hit") == 0
    assert value(metrics, "edgeproxy_hits_total", rule="search") == 1
    assert value(metrics, "edgeproxy_response_bytes_total", rule="pitches") == 300
    assert value(metrics, "edgeproxy_origin_seconds_saved_total", rule="pitches") == 1.0  # a miss saves none
    assert value(metrics, "edgeproxy_stored_total") == 1


@pytest.mark.parametrize(
    ("trace", "name", "labels"),
    [
        (
            Trace(not_stored=NotStored.SET_COOKIE),
            "edgeproxy_not_stored_total",
            {"reason": "set-cookie"},
        ),
        (Trace(pass_reason=PassReason.RULE), "edgeproxy_passes_total", {"reason": "rule-says-pass"}),
        (
            Trace(stale_reason=StaleReason.ON_ERROR),
            "edgeproxy_stale_served_total",
            {"reason": "stale-if-error"},
        ),
        (Trace(failure=OriginFailure.DNS), "edgeproxy_origin_failures_total", {"reason": "dns"}),
        (
            Trace(lookup_miss=LookupMiss.CORRUPT),
            "edgeproxy_lookup_misses_total",
            {"reason": "corrupt"},
        ),
        (Trace(unsatisfied=Unsatisfied.LOOP), "edgeproxy_edge_answers_total", {"reason": "loop-detected"}),
        (Trace(collapsed=True), "edgeproxy_collapsed_requests_total", {}),
        (Trace(aborted=True), "edgeproxy_aborted_total", {}),
        (Trace(bytes_in=1), "edgeproxy_request_bytes_total", {"rule": "none"}),
        (Trace(status=503), "edgeproxy_responses_total", {"rule": "none", "class": "5xx"}),
        (Trace(status=0), "edgeproxy_responses_total", {"rule": "none", "class": "other"}),
        (Trace(status=999), "edgeproxy_responses_total", {"rule": "none", "class": "other"}),
    ],
)
def test_each_event_moves_its_own_counter(
    metrics: Metrics, trace: Trace, name: str, labels: dict[str, str]
) -> None:
    assert value(metrics, name, **labels) == 0
    metrics.observe(trace)
    assert value(metrics, name, **labels) == 1


def test_histograms_are_cumulative_and_a_bound_belongs_to_its_bucket(metrics: Metrics) -> None:
    for seconds in (BOUNDS[0], 0.3, 99.0):
        metrics.observe(hit(seconds=seconds))
    name = "edgeproxy_request_duration_seconds"
    assert value(metrics, f"{name}_bucket", rule="pitches", le="0.0001") == 1
    assert value(metrics, f"{name}_bucket", rule="pitches", le="0.5") == 2
    assert value(metrics, f"{name}_bucket", rule="pitches", le="30.0") == 2
    assert value(metrics, f"{name}_bucket", rule="pitches", le="+Inf") == 3
    assert value(metrics, f"{name}_count", rule="pitches") == 3
    assert value(metrics, f"{name}_sum", rule="pitches") == pytest.approx(99.3001)


def test_waits_for_origin_and_store_are_told_only_where_there_were_any(metrics: Metrics) -> None:
    metrics.observe(hit())
    metrics.observe(miss())
    metrics.observe(Trace(l2_seconds=0.002))
    assert value(metrics, "edgeproxy_origin_duration_seconds_count") == 1
    assert value(metrics, "edgeproxy_store_lookup_duration_seconds_count") == 1


def test_the_catalogue_and_the_scrape_name_the_same_metrics(metrics: Metrics) -> None:
    families = scraped(metrics)
    seen = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in families.values()
        if not family.name.startswith("edgeproxy_process_")
    }
    assert seen.keys() == CATALOGUE.keys()
    for name, described in CATALOGUE.items():
        assert seen[name].type == described.kind
        assert seen[name].documentation == described.help
        for sample in seen[name].samples:
            assert set(sample.labels) - {"le"} == set(described.labels)
        assert name.endswith("_total") == (described.kind is Kind.COUNTER)


def test_every_name_begins_with_ours(metrics: Metrics) -> None:
    families = scraped(metrics)
    assert all(name.startswith("edgeproxy_") for name in families)
    assert "edgeproxy_process_resident_memory_bytes" in families
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_unknown_rules_share_one_slot(metrics: Metrics) -> None:
    before = metrics.render().count(b"\n")
    for number in range(1000):
        metrics.observe(hit(f"rule-{number}"))
    assert metrics.render().count(b"\n") == before
    assert value(metrics, "edgeproxy_requests_total", rule="other", result="hit") == 1000


def test_more_rules_than_slots_share_one() -> None:
    names = [f"r{n}" for n in range(MAX_RULES + 50)]
    metrics = Metrics(DrivenClock(), names)
    for name in names:
        metrics.observe(hit(name))
    assert value(metrics, "edgeproxy_requests_total", rule="other", result="hit") == 50
    assert value(metrics, "edgeproxy_rules") == MAX_RULES + 50
    assert metrics.snapshot()["requests"] == MAX_RULES + 50


def test_rules_that_stay_keep_their_counters_and_the_sum_never_shrinks(metrics: Metrics) -> None:
    metrics.observe(hit("pitches"))
    metrics.observe(hit("search"))
    metrics.observe(hit("stranger"))
    for _ in range(3):
        metrics.set_rules(["search", "live"])
    assert value(metrics, "edgeproxy_requests_total", rule="search", result="hit") == 1
    assert value(metrics, "edgeproxy_requests_total", rule="live", result="hit") == 0
    assert value(metrics, "edgeproxy_requests_total", rule="pitches", result="hit") is None
    assert metrics.snapshot()["requests"] == 3
    assert value(metrics, "edgeproxy_rules") == 2


def test_the_lane_counts_on_its_slot(metrics: Metrics) -> None:
    slot = metrics.slot("pitches")
    slot.lane_hits += 1000
    slot.lane_bytes += 50_000
    slot.lane_seconds += 0.02
    slot.lane_not_modified += 10
    slot.lane_saved += 7.5
    for _ in range(2):  # folding happens once
        assert value(metrics, "edgeproxy_requests_total", rule="pitches", result="hit") == 1000
        assert value(metrics, "edgeproxy_responses_total", **{"rule": "pitches", "class": "2xx"}) == 990
        assert value(metrics, "edgeproxy_responses_total", **{"rule": "pitches", "class": "3xx"}) == 10
    assert value(metrics, "edgeproxy_response_bytes_total", rule="pitches") == 50_000
    assert value(metrics, "edgeproxy_request_duration_seconds_bucket", rule="pitches", le="0.0001") == 1000
    told = metrics.snapshot()
    assert told["hit_ratio"] == 1.0
    assert told["origin_seconds_saved"] == 7.5


def test_sources_become_metrics_and_a_failing_one_costs_only_itself(metrics: Metrics) -> None:
    def broken() -> dict[str, int | float | str]:
        raise RuntimeError("the store is gone")

    metrics.add_source(
        "store", lambda: {"l1_bytes": 5, "l1_hits": 7, "evicted_total": 2, "kind": "lmdb", "map-size": 1.5}
    )
    metrics.add_source("origin", broken)
    assert value(metrics, "edgeproxy_store_l1_bytes") == 5
    assert value(metrics, "edgeproxy_store_l1_hits_total") == 7
    assert value(metrics, "edgeproxy_store_evicted_total") == 2
    assert value(metrics, "edgeproxy_store_map_size") == 1.5
    families = scraped(metrics)
    assert families["edgeproxy_store_l1_hits"].type == "counter"
    assert families["edgeproxy_store_l1_bytes"].type == "gauge"
    assert not any("kind" in name for name in families)
    told = metrics.snapshot()
    assert told["store"] == {
        "l1_bytes": 5,
        "l1_hits": 7,
        "evicted_total": 2,
        "kind": "lmdb",
        "map-size": 1.5,
    }
    assert "origin" not in told
    assert (value(metrics, "edgeproxy_source_errors_total") or 0) >= 5  # one for each scrape


def test_reloads(metrics: Metrics) -> None:
    metrics.reloaded(ok=True)
    assert value(metrics, "edgeproxy_config_last_reload_successful") == 1
    metrics.reloaded(ok=False)
    assert value(metrics, "edgeproxy_config_reload_total") == 2
    assert value(metrics, "edgeproxy_config_reload_failed_total") == 1
    assert value(metrics, "edgeproxy_config_last_reload_successful") == 0


async def test_snapshot() -> None:
    clock = DrivenClock()
    metrics = Metrics(clock, ["pitches"])
    assert metrics.snapshot()["hit_ratio"] is None
    metrics.observe(hit())
    metrics.observe(miss())
    metrics.observe(Trace(rule="pitches", word=CacheWord.BYPASS, pass_reason=PassReason.METHOD, status=201))
    await clock.advance(12)
    told = metrics.snapshot()
    assert told["uptime_seconds"] == 12
    assert told["requests"] == 3
    assert told["hit_ratio"] == 0.5  # what never asked the cache does not count
    assert told["passes"] == {"method-not-cacheable": 1}
    assert told["not_stored"] == {}
    assert isinstance(told["rules"], dict)
    assert told["rules"]["pitches"]["results"]["bypass"] == 1
    assert told["rules"]["pitches"]["responses"]["2xx"] == 3
    assert list(told["rules"]) == ["none", "pitches", "other"]
