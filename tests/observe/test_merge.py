"""The numbers of several workers as those of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.clock import Clock
from edgeproxy.observe import merge
from edgeproxy.observe.metrics import Metrics
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import CacheWord, NotStored

if TYPE_CHECKING:
    from collections.abc import Mapping


def worker(epoch: int = 0, **rules: int) -> Metrics:
    """One that has answered so many requests under each rule, every second one a hit."""
    metrics = Metrics(Clock(), rules)
    for rule, count in rules.items():
        for number in range(count):
            hit = number % 2 == 0
            metrics.observe(
                Trace(
                    rule=rule,
                    word=CacheWord.HIT if hit else CacheWord.MISS,
                    hit=hit,
                    status=200,
                    seconds=0.02,
                    bytes_out=10,
                    not_stored=None if hit else NotStored.RESPONSE_NO_STORE,
                )
            )
    metrics.add_source("store", lambda: {"epoch": epoch, "l1_entries": 5, "l2": "ok", "l2_store_entries": 9})
    return metrics


def text(*workers: Metrics) -> str:
    total: merge.Exposition = {}
    for one in workers:
        merge.add(total, merge.read(one.render().decode()))
    return merge.write(total)


def value(told: str, sample: str) -> float:
    (line,) = [line for line in told.splitlines() if line.startswith(f"{sample} ")]
    return float(line.rpartition(" ")[2])


def test_what_is_read_is_written_again() -> None:
    told = worker(epoch=7, a=3).render().decode()
    assert merge.write(merge.read(told)) == told


def test_counters_and_histograms_add_up_and_one_worker_counts_as_much_as_two() -> None:
    assert "edgeproxy_process" in text(worker(a=1))
    told, alone = text(worker(a=3, b=2), worker(a=4)), worker(a=7).render().decode()
    for sample in (
        'edgeproxy_response_bytes_total{rule="a"}',
        'edgeproxy_responses_total{class="2xx",rule="a"}',
        'edgeproxy_request_duration_seconds_bucket{le="0.025",rule="a"}',
        'edgeproxy_request_duration_seconds_bucket{le="0.01",rule="a"}',
        'edgeproxy_request_duration_seconds_count{rule="a"}',
        'edgeproxy_request_duration_seconds_sum{rule="a"}',
    ):
        assert value(told, sample) == pytest.approx(value(alone, sample)), sample
    assert value(told, 'edgeproxy_hits_total{rule="b"}') == 1


def test_gauges_that_have_no_sum() -> None:
    told = text(worker(epoch=7), worker(epoch=9), worker(epoch=8))
    assert value(told, "edgeproxy_store_epoch") == 9
    assert value(told, "edgeproxy_store_l2_store_entries") == 9
    assert value(told, "edgeproxy_store_l1_entries") == 15
    assert value(told, "edgeproxy_config_last_reload_successful") == 1
    assert told.count("edgeproxy_build_info{") == 1
    assert " 1.0\n" in told[told.index("edgeproxy_build_info{") :]


def test_a_label_with_a_space_and_a_quote_stays_what_it_is() -> None:
    metrics = Metrics(Clock(), ['a "b" c'])
    metrics.observe(Trace(rule='a "b" c', word=CacheWord.HIT, status=200))
    told = text(metrics, metrics)
    assert value(told, r'edgeproxy_requests_total{result="hit",rule="a \"b\" c"}') == 2


def test_counters_of_the_ended_are_kept_and_their_gauges_are_not() -> None:
    ended = merge.Ended()
    first, second = worker(a=4), worker(a=2)
    for name, one in (("first", first), ("second", second)):
        ended.seen(name, merge.read(one.render().decode()))
    before = merge.write(ended.sum(["first", "second"]))
    ended.end("first")
    after = merge.write(ended.sum(["second"]))
    sample = 'edgeproxy_hits_total{rule="a"}'
    assert value(before, sample) == value(after, sample) == 3
    assert value(before, "edgeproxy_store_l1_entries") == 10
    assert value(after, "edgeproxy_store_l1_entries") == 5
    ended.end("never seen")
    assert merge.write(ended.sum(["second"])) == after


def test_stats_add_up_like_one_workers() -> None:
    told = merge.merge_stats([through_json(one.snapshot()) for one in (worker(a=3, b=2), worker(a=4))])
    alone = through_json(worker(a=7, b=2).snapshot())
    for key in ("requests", "bytes_out", "results", "responses", "mean_seconds"):
        assert told[key] == pytest.approx(alone[key]), key
    assert told["hits"] == 5  # of three and of four: each worker began with a hit
    assert told["hit_ratio"] == pytest.approx(5 / 9, abs=1e-4)
    assert told["rules"]["b"]["hit_ratio"] == 0.5
    assert told["rules"]["none"]["hit_ratio"] is None
    assert told["rules"]["none"]["mean_seconds"] is None
    assert told["not_stored"] == {str(NotStored.RESPONSE_NO_STORE): 4}
    assert told["version"] == alone["version"]


def test_stats_that_have_no_sum() -> None:
    def one(epoch: str, l2: str, entries: int, *, last_ok: bool) -> dict[str, Any]:
        store = {"epoch": epoch, "l2": l2, "l2_name": "x", "l2_store_entries": entries}
        return {"reloads": {"last_ok": last_ok}, "store": store}

    several = (
        one("9", "ok", 4, last_ok=True), one("10", "open", 5, last_ok=False), one("8", "ok", 4, last_ok=True)
    )  # fmt: skip
    told = merge.merge_stats(several)
    assert told == {
        "reloads": {"last_ok": False},
        "store": {"epoch": "10", "l2": "ok, open", "l2_name": "x", "l2_store_entries": 5},
    }
    assert merge.merge_stats([]) == {}


def through_json(told: Mapping[str, object]) -> dict[str, Any]:
    again: dict[str, Any] = json.loads(json.dumps(told))
    return again
