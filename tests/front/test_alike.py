"""Hits on what is packed: the answers of the ordinary way, without looking into what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.front.alike import Alike
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.front.test_short import comparable, request
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.rules.model import Rule
    from edgeproxy.store.entry import Entry

DATE = ("Date", "Sun, 22 Nov 2026 03:44:22 GMT")
FRESH = ("Cache-Control", "public, max-age=60")
JSON = ("Content-Type", "application/json")
RULES = """
rules:
  - name: all
    match: {path: "/**"}
    ttl: 30s
    tags: [all]
    response_headers: {set: {x-of-the-rule: 'yes'}, remove: [x-cache]}
"""
ANSWERS: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {
    "small": (200, [FRESH, JSON], b"{}"),
    "with validators": (200, [FRESH, JSON, ("ETag", '"%d"'), ("Last-Modified", DATE[1])], b"{}"),
    "to be coded": (200, [FRESH, JSON, ("ETag", '"%d"')], b'{"title": "a quiet city"}' * 100),
    "expires": (200, [("Expires", "Sun, 22 Nov 2037 03:44:22 GMT")], b"x" * 900),
    "with an age": (200, [FRESH, ("Age", "7")], b"old"),
    "no body": (204, [FRESH], b""),
    "not found": (404, [FRESH, JSON], b"no"),
    "each its own": (200, [FRESH, ("X-Number", "%d")], b"n"),
    "varying": (200, [FRESH, ("Vary", "X-Lang")], b"de"),
    "checked first": (200, [("Cache-Control", "no-cache"), ("ETag", '"%d"')], b"ask"),
    "not for all": (200, [("Cache-Control", "private, max-age=60")], b"mine"),
    "marked": (200, [FRESH, ("Surrogate-Key", "a b"), ("X-Cache", "HIT from below")], b"n"),
}
TAKEN = {"small", "with validators", "to be coded", "not found", "marked"}
"""What is answered from here, to who accepts no coding."""


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as ledger:
        yield ledger


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Targets whose heads came from here."""
    targets: list[str] = []
    ask = Alike.head

    def noting(self: Alike, entry: Entry, rule: Rule, accepted: str | None) -> tuple[bytes, int] | None:
        answer = ask(self, entry, rule, accepted)
        if answer is not None:
            targets.append(entry.target)
        return answer

    monkeypatch.setattr(Alike, "head", noting)
    return targets


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("rules", [None, RULES], ids=["no rules", "rules"])
async def test_both_ways_give_the_same(
    origin: LedgerOrigin, made: list[str], tmp_path: Path, name: str, rules: str | None
) -> None:
    status, fields, body = ANSWERS[name]
    for number in range(1, 6):
        own = [(field, value.replace("%d", str(number))) for field, value in fields]
        length = [] if status == 204 else [("Content-Length", str(len(body)))]
        origin.script(f"/{number}", [head(status, [DATE, *own, *length]) + body])
    if rules is not None:
        (tmp_path / "r.yaml").write_text(rules)
    got = []
    for lane in ("on", "off"):
        clock = DrivenClock()
        async with running_edge(
            origin.url, clock=clock, lane=lane, rules=None if rules is None else tmp_path
        ) as edge:
            answers = []
            for seconds, more in ((0, ()), (3, ()), (1, ("Accept-Encoding: gzip, br",)), (2, ()), (40, ())):
                clock.jump(seconds)
                async with edge.client() as client:
                    for number in range(1, 6):
                        await client.send(request(f"/{number}", *more))
                        answers.append(comparable((await client.read_answer()).raw))
                        await edge.settle()
            notes = [
                (t.target, t.word, t.tier, t.status, t.stored, round(t.ttl or 0), t.age, t.coding)
                for t in edge.traces
            ]
            got.append((answers, notes if lane == "off" else None))
    assert got[0][0] == got[1][0]
    if rules is None:
        assert bool(made) is (name in TAKEN)


async def test_it_is_counted_and_learned(origin: LedgerOrigin, made: list[str]) -> None:
    clock = DrivenClock()
    for number in range(8):
        origin.script(f"/{number}", [head(200, [DATE, FRESH, ("Content-Length", "2")]) + b"ok"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(3):
            for number in range(8):
                await client.send(request(f"/{number}"))
                await client.read_answer()
        assert set(made[-2:]) == {"/6", "/7"}, "once each: then the lane has learned them"
        assert len(made) == len(set(made))
        entries = [edge.worker.store.memory.holds(f"http://e.test/{n}", "") for n in range(8)]
        assert [entry.hits for entry in entries if entry is not None] == [2] * 8
        last = entries[7]
        assert last is not None
        assert last.is_packed, "it stays as it was"
        (hit,) = [t for t in edge.traces if t.target == "/7" and t.word == "HIT"]
        assert (hit.tier, hit.rule, hit.key, hit.status, hit.hit) == ("l1", "none", last.primary, 200, True)


async def test_a_purge_and_time_end_it(origin: LedgerOrigin, made: list[str]) -> None:
    clock = DrivenClock()
    for number in range(6):
        origin.script(f"/{number}", [head(200, [DATE, FRESH, ("Content-Length", "2")]) + b"ok"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:

        async def word(number: int) -> str | None:
            await client.send(request(f"/{number}"))
            return (await client.read_answer()).get("x-cache-status")

        for number in range(6):
            assert await word(number) == "MISS"
        assert await word(5) == "HIT"
        assert made == ["/5"]
        await edge.worker.store.purge(PurgeOrder(PurgeKind.URL, "/4"))
        assert await word(4) == "MISS"
        assert await word(3) == "HIT"
        clock.jump(61)
        assert await word(2) == "EXPIRED"
        assert made == ["/5"]
