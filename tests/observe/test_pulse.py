"""What workers tell of the last minutes, alone and together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeproxy.observe import pulse, troubles
from edgeproxy.observe.percentiles import RECENT, STEP, Percentiles
from edgeproxy.observe.tally import Tally
from edgeproxy.observe.times import Counted, Times
from edgeproxy.observe.trace import Trace
from edgeproxy.observe.troubles import MOST, Troubles
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure, StaleReason, Unsatisfied

NOON = 1_699_963_200.0


class Worker:
    """A tally and percentiles as app.py puts them together, and a clock's now()."""

    def __init__(self, now: float = NOON) -> None:
        self.time = now
        self.tally = Tally(["a", "b"])
        self.percentiles = Percentiles(lambda: self.time, self.tally.counted)

    def take(self, rule: str, word: CacheWord, *, seconds: float = 0.01, status: int = 200) -> None:
        hit = word in (CacheWord.HIT, CacheWord.STALE)
        trace = Trace(rule=rule, word=word, hit=hit, seconds=seconds, status=status, bytes_out=100)
        if status != 101:
            self.percentiles.observe(rule, seconds, hit=hit)
        self.tally.observe(trace)

    async def pulse(self, after: int = 0) -> pulse.Pulse:
        told = await pulse.gather(self.percentiles, after, "1m", tables=True)
        return told | {"wanted": [["http://h/1", "a", 2.0]], "troubles": [], "facts": {"stored": 3}}


async def seen(*workers: Worker, after: int = 0) -> dict[str, Any]:
    through_json = [json.loads(json.dumps(await worker.pulse(after))) for worker in workers]
    return await pulse.view(pulse.merged(through_json), "1m", workers[0].time)


async def test_each_slot_has_its_own_requests() -> None:
    worker = Worker()
    for rule, word in (("a", CacheWord.HIT), ("a", CacheWord.MISS), ("b", CacheWord.BYPASS)):
        worker.take(rule, word)
    worker.time += STEP
    worker.take("a", CacheWord.MISS, status=502, seconds=0.5)
    told = await seen(worker)
    first, second = told["history"]
    assert (first["at"], first["requests"], first["hits"], first["passes"]) == (NOON, 3, 1, 1)
    assert (first["errors"], first["hit_ratio"], first["bytes"]) == (0, 0.5, 300)
    assert (second["at"], second["requests"], second["errors"]) == (NOON + STEP, 1, 1)
    assert second["p50"] == pytest.approx(0.5, rel=0.05)
    assert [(row["name"], row["requests"], row["hit_ratio"]) for row in told["rules"]] == [
        ("a", 3, round(1 / 3, 4)), ("b", 1, None),
    ]  # fmt: skip
    assert (told["all"]["requests"], told["all"]["hit_ratio"]) == (4, round(1 / 3, 4))
    assert [row["at"] for row in (await seen(worker, after=int(NOON // STEP)))["history"]] == [NOON + STEP]


async def test_a_pass_that_begins_a_slot_is_counted_in_it() -> None:
    worker = Worker()
    worker.take("a", CacheWord.HIT)
    worker.time += STEP
    worker.take("a", CacheWord.BYPASS)
    first, second = (await seen(worker))["history"]
    assert (first["passes"], first["hit_ratio"]) == (0, 1.0)
    assert (second["passes"], second["hit_ratio"]) == (1, None)


async def test_a_websocket_is_no_request_here() -> None:
    worker = Worker()
    worker.take("a", CacheWord.BYPASS, status=101)
    worker.take("a", CacheWord.HIT)
    (slot,) = (await seen(worker))["history"]
    assert (slot["requests"], slot["passes"], slot["hit_ratio"]) == (1, 0, 1.0)


async def test_what_is_counted_anew_is_no_step_back() -> None:
    worker = Worker()
    worker.take("a", CacheWord.BYPASS)
    assert (await seen(worker))["all"]["passes"] == 1
    for names in (["b"], ["a", "b"]):  # the rule goes, and comes back
        worker.tally.set_rules(names)
        worker.percentiles.set_rules(names)
    worker.take("a", CacheWord.HIT)
    worker.take("a", CacheWord.BYPASS)
    told = await seen(worker)
    assert (told["all"]["requests"], told["all"]["passes"]) == (2, 1)
    assert (told["history"][0]["requests"], told["history"][0]["passes"]) == (3, 2)
    before, now = Counted(5, 5, 5, 5.0), Counted(6, 2, 7, 1.0)
    times = Times()
    times.grew(before, now)
    assert (times.passes, times.errors, times.octets, times.saved) == (1, 2, 2, 1.0)


async def test_an_hour_is_kept_and_no_more() -> None:
    worker = Worker()
    worker.take("b", CacheWord.HIT)
    for _ in range(RECENT + 5):
        worker.time += STEP
        worker.take("a", CacheWord.HIT)
    history = (await seen(worker))["history"]  # the slot of "b" is poured now, and is over
    assert len(history) == RECENT
    assert history[0]["at"] == worker.time - (RECENT - 1) * STEP
    assert all(row["requests"] == 1 for row in history)


async def test_workers_add_up() -> None:
    one, two = Worker(), Worker()
    for worker, seconds in ((one, 0.01), (two, 0.1)):
        worker.take("a", CacheWord.HIT, seconds=seconds)
    two.time += STEP
    two.take("b", CacheWord.MISS)
    one.time += STEP
    told = await seen(one, two)
    assert [row["requests"] for row in told["history"]] == [2, 1]
    assert told["history"][0]["p99"] == pytest.approx(0.1, rel=0.05)
    assert {row["name"]: row["requests"] for row in told["rules"]} == {"a": 2, "b": 1}
    assert told["wanted"] == [{"url": "http://h/1", "rule": "a", "weight": 4.0}]
    assert told["stored"] == 6
    assert (await pulse.view(pulse.merged([]), "1m", NOON))["history"] == []


async def test_without_tables_there_is_only_the_history() -> None:
    worker = Worker()
    worker.take("a", CacheWord.HIT)
    bare = await pulse.gather(worker.percentiles, 0, "1m", tables=False)
    for pulses in ([bare], [bare, bare]):
        told = await pulse.view(pulse.merged(pulses), "1m", NOON)
        assert told.keys() == {"now", "step", "window", "window_seconds", "history"}
    with pytest.raises(KeyError):
        await pulse.gather(worker.percentiles, 0, "2m", tables=True)


def trouble(**more: Any) -> Trace:
    return Trace(**{"rule": "a", "status": 502, "method": "GET", "host": "h", "target": "/x?token=1", **more})


def test_troubles_are_told_by_kind_the_latest_first() -> None:
    now = [NOON]
    held = Troubles(lambda: now[0])
    held.note(trouble(failure=OriginFailure.DNS, request_id="1"))
    now[0] += 1
    held.note(trouble(unsatisfied=Unsatisfied.LOOP, rule="b", request_id="2"))
    now[0] += 1
    held.note(trouble(failure=OriginFailure.DNS, request_id="3"))
    held.note(trouble(failure=OriginFailure.DNS, status=200, stale_reason=StaleReason.ON_ERROR))
    stale, dns, loop = held.told()
    assert (stale["saved_by"], stale["status"]) == ("stale-if-error", 200)
    assert (dns["reason"], dns["count"], dns["first"], dns["last"]) == ("dns", 2, NOON, NOON + 2)
    assert (dns["request_id"], dns["url"], dns["saved_by"]) == ("3", "h/x", "")
    assert (loop["rule"], loop["reason"]) == ("b", "loop-detected")


def test_kinds_of_trouble_are_bounded() -> None:
    held = Troubles(lambda: NOON)
    for number in range(MOST + 10):
        held.note(trouble(rule=f"r{number}", target="/" + "x" * 5000))
    told = held.told()
    assert len(told) == MOST
    assert told[0]["rule"] == f"r{MOST + 9}"
    assert all(len(one["url"]) <= 200 for one in told)


def test_troubles_of_several_workers() -> None:
    now = [NOON]
    one, two = Troubles(lambda: now[0]), Troubles(lambda: now[0])
    one.note(trouble(request_id="old"))
    now[0] += 5
    two.note(trouble(request_id="new"))
    two.note(trouble(rule="b"))
    told = {each["rule"]: each for each in troubles.merged([one.told(), two.told()])}
    assert (told["a"]["count"], told["a"]["request_id"]) == (2, "new")
    assert (told["a"]["first"], told["a"]["last"]) == (NOON, NOON + 5)
    assert told["b"]["count"] == 1
