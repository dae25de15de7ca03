"""``edgeproxy replay``: beside what a running edge did with the traffic, and what the log cannot tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.logs import line, write
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

    Replayed = Callable[..., dict[str, Any]]

SHORT = """
rules:
  - name: item
    match: {path: "/items/{id}"}
    ttl: 10s
    tags: ["item:{id}"]
    invalidates: [{on: [POST], tags: ["item:{id}"]}]
  - {name: list, match: {path: "/list"}, ttl: 4s, stale_while_revalidate: 30s}
  - {name: own, match: {path: "/me/**"}, pass: true}
"""
LONG = SHORT.replace("ttl: 10s", "ttl: 1m\n    key: {query: {ignore: [u]}}").replace("ttl: 4s", "ttl: 20s")

TRAFFIC = (
    (0, "GET", "/items/1"), (1, "GET", "/items/1"), (1, "GET", "/items/1?u=1"), (5, "GET", "/list"),
    (3, "GET", "/list"), (2, "GET", "/items/1"), (3, "GET", "/list"), (0, "GET", "/me/x"),
    (0, "GET", "/list"),
    (1, "POST", "/items/1"), (1, "GET", "/items/1"), (0, "GET", "/items/1?u=1"), (9, "GET", "/items/1"),
    (30, "GET", "/items/1"), (1, "GET", "/list"), (0, "HEAD", "/items/1"), (90, "GET", "/items/1"),
    (1, "HEAD", "/items/1"), (1, "GET", "/plain"), (1, "GET", "/plain"),
)  # fmt: skip
"""Seconds after the one before, method, target."""


def made(tmp_path: Path, rules: str, name: str = "rules") -> Path:
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    (directory / "a.yaml").write_text(rules)
    return directory


@pytest.fixture
def replay(run: Callable[..., Done], tmp_path: Path) -> Replayed:
    def played(rules: str, log: str, *words: str) -> dict[str, Any]:
        done = run("replay", log, "--rules", str(made(tmp_path, rules)), "--format", "json", *words)
        assert (done.code, done.err) == (0, "")
        told: dict[str, Any] = json.loads(done.out)
        return told

    return played


async def really(rules: str, tmp_path: Path, name: str) -> tuple[str, dict[str, int]]:
    """The log of an edge that met TRAFFIC under ``rules``, and what it and its origin counted."""
    clock = DrivenClock()
    log = tmp_path / f"{name}.log"
    async with (
        LedgerOrigin(clock=clock) as origin,
        running_edge(origin.url, clock=clock, rules=made(tmp_path, rules, name), access_log=log) as edge,
    ):
        told = []
        for after, method, target in TRAFFIC:
            await clock.advance(after)
            answer = await edge.request(method, target, body=b"x" if method == "POST" else None)
            told.append(answer["x-cache-status"])
            await edge.settle()
        counted = {
            "hits": told.count("HIT") + told.count("UPDATING"),
            "origin_requests": len(origin.requests),
        }
    return str(log), counted


async def test_as_a_running_edge_does_under_the_same_rules_and_under_others(
    replay: Replayed, tmp_path: Path
) -> None:
    short, was = await really(SHORT, tmp_path, "short")
    _, would = await really(LONG, tmp_path, "long")
    assert was != would
    told = replay(LONG, short, "--against", str(tmp_path / "short"))
    total = told["total"]
    for side, counted in (("against", was), ("rules", would)):
        assert {key: total[side][key] for key in counted} == counted, side
        # /plain has no rule, and HEAD asks what nobody stored: the rest is known.
        assert total[side]["requests"] == len(TRAFFIC)
        assert total[side]["unknown"] == 0
    assert total["log"]["hits"] == was["hits"]
    assert set(told["rules"]) == {"item", "list", "own", "none"}
    assert told["rules"]["own"]["rules"]["hits"] == 0
    assert "UPDATING" in (tmp_path / "short.log").read_text()
    # The log has no lines for refreshes in the background.
    assert total["log"]["origin_requests"] <= was["origin_requests"]


def test_a_lifetime_that_nobody_knows_is_unknown(replay: Replayed, tmp_path: Path) -> None:
    passed = {"rule": "own", "cache": "BYPASS", "reason": "rule-says-pass"}
    log = write(tmp_path / "log", *(line(n, "/a", **passed) for n in range(3)))
    rules = 'rules: [{name: a, match: {path: "/a"}, ttl: 1m}]'
    sums = replay(rules, log)["rules"]["a"]["rules"]
    assert (sums["hits"], sums["unknown"], sums["origin_requests"]) == (0, 3, 3)
    stored = {"cache": "MISS", "reason": "", "stored": True, "ttl": 60.0}
    log = write(tmp_path / "log", *(line(n, "/a", rule="gone", **stored) for n in range(3)))
    plain = 'rules: [{name: a, match: {path: "/a"}}]'
    assert replay(plain, log)["total"]["rules"]["unknown"] == 3  # was it the rule's minute or the answer's?
    log = write(tmp_path / "log", *(line(n, "/a", rule="a", **stored) for n in range(3)))
    assert replay(plain, log)["total"]["rules"]["hits"] == 2


@pytest.mark.parametrize(
    ("reason", "unsafe", "hits", "unknown"),
    [
        ("no-lifetime", "", 2, 0),
        ("set-cookie", "", 0, 0),
        ("set-cookie", "set_cookie", 0, 3),
        ("vary-star", "", 0, 0),
        ("hit-for-miss", "", 0, 3),
        ("request-no-store", "", 0, 0),
    ],
)
def test_why_it_was_not_stored(
    replay: Replayed, tmp_path: Path, reason: str, unsafe: str, hits: int, unknown: int
) -> None:
    log = write(tmp_path / "log", *(line(n, "/a", reason=reason) for n in range(3)))
    rules = f'rules: [{{name: a, match: {{path: "/a"}}, ttl: 1m, unsafe: [{unsafe}]}}]'
    sums = replay(rules, log)["total"]["rules"]
    assert (sums["hits"], sums["unknown"]) == (hits, unknown)


def test_a_range_tells_nothing_of_the_whole(replay: Replayed, tmp_path: Path) -> None:
    rules = 'rules: [{name: a, match: {path: "/a"}, ttl: 1m}]'
    part = {"status": 206, "reason": "", "stored": True, "ttl": 60.0}
    log = write(tmp_path / "log", line(0, "/a", **part), line(1, "/a"), line(2, "/a", **part))
    sums = replay(rules, log)["total"]["rules"]
    assert (sums["unknown"], sums["origin_requests"], sums["hits"]) == (1, 2, 1)


def test_what_hangs_on_fields_is_unknown_unless_the_log_names_the_rule(
    replay: Replayed, tmp_path: Path
) -> None:
    rules = """rules:
  - {name: beta, match: {path: "/a", headers: {x-beta: true}}, ttl: 1m}
  - {name: rest, match: {path: "/a"}, ttl: 1m}
  - {name: by, match: {path: "/b"}, ttl: 1m, key: {headers: [x-beta]}}
"""
    lines = [
        line(0, "/a"),
        line(1, "/a", rule="beta"),
        line(2, "/a", rule="beta"),
        line(3, "/a", rule="rest"),
    ]
    told = replay(rules, write(tmp_path / "log", *lines, line(4, "/b"), line(5, "/b")))["rules"]
    assert told["(unknown)"]["rules"]["unknown"] == 1
    assert (told["beta"]["rules"]["hits"], told["rest"]["rules"]["hits"]) == (1, 0)
    assert (told["by"]["rules"]["hits"], told["by"]["rules"]["unknown"]) == (0, 2)


def test_coalescing_size_and_order(replay: Replayed, tmp_path: Path) -> None:
    rules = 'rules: [{name: a, match: {path: "/**"}, ttl: 1m}]'
    slow = {"origin_seconds": 2.0, "seconds": 2.0}
    # Written when they end: the second asks while the first is on its way, whatever the order of the lines.
    lines = [line(3.5, "/a", **slow), line(2.0, "/a", **slow), line(2.0, "/a", seconds=0.0), line(9, "/a")]
    sums = replay(rules, write(tmp_path / "log", *lines))["total"]["rules"]
    assert (sums["origin_requests"], sums["waited"], sums["hits"]) == (1, 1, 2)
    assert (sums["worst_age"], sums["origin_seconds_saved"]) == (7.0, 4.0)
    assert (sums["origin_bytes"], sums["cache_bytes"]) == (100, 300)
    many = [line(n, f"/{n % 4}", bytes=3000) for n in range(8)]
    log = write(tmp_path / "many", *many)
    assert replay(rules, log)["total"]["rules"]["hits"] == 4
    told = replay(rules, log, "--memory", "10000")
    assert told["total"]["rules"]["hits"] == 0  # two places, four in a circle
    assert told["evicted"]["rules"] == 6


def test_stale_when_the_origin_fails(replay: Replayed, tmp_path: Path) -> None:
    rules = 'rules: [{name: a, match: {path: "/a"}, ttl: 10s, stale_if_error: 60s}]'
    failed = {"status": 502, "reason": "refused", "tier": "edge"}
    log = write(
        tmp_path / "log", line(0, "/a"), line(30, "/a", **failed), line(90, "/a", **failed), line(91, "/a")
    )
    sums = replay(rules, log)["total"]["rules"]
    assert (sums["stale"], sums["hits"], sums["origin_requests"], sums["worst_age"]) == (1, 0, 4, 30.0)


def test_what_was_confirmed_comes_from_the_cache(replay: Replayed, tmp_path: Path) -> None:
    rules = 'rules: [{name: a, match: {path: "/a"}, ttl: 10s, stale_while_revalidate: 5s, keep: 1m}]'
    again = {"cache": "REVALIDATED", "reason": "", "stored": True}
    log = write(
        tmp_path / "log", line(0, "/a"), line(12, "/a"), line(60, "/a", **again), line(170, "/a", **again)
    )
    sums = replay(rules, log)["total"]["rules"]
    # A fetch; a stale answer and its refresh; confirmed; and once more after it was no longer kept.
    assert (sums["origin_requests"], sums["origin_bytes"], sums["cache_bytes"]) == (4, 300, 200)


def test_as_text_and_bad_lines(run: Callable[..., Done], tmp_path: Path) -> None:
    log = write(tmp_path / "log", line(0, "/a?key=***"), "oops", line(1, "/a?key=***", sample=0.5))
    done = run("replay", log, "--rules", "none", "--against", "none")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("2 requests in 1s\n")
    assert "note: 1 of 3 lines cannot be read; line 2: not JSON" in done.out
    assert "2 lines have masked values" in done.out
    assert "1 lines are a sample" in done.out


def test_wrong_input(run: Callable[..., Done], tmp_path: Path) -> None:
    log = write(tmp_path / "log", line(0, "/a"))
    for words in (
        (str(tmp_path / "no"),), (log, "--memory", "much"), (log, "--rules", str(tmp_path / "no")),
        (log, "--against", str(tmp_path / "no")), (write(tmp_path / "text", "GET /"),), (str(tmp_path),),
    ):  # fmt: skip
        done = run("replay", *words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err.startswith("edgeproxy"), words
