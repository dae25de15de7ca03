"""What rules have earned, in a running worker: numbers, what is suggested, what the doctor finds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp

from edgeproxy.__main__ import main
from edgeproxy.earned.report import added, doctor, savings
from edgeproxy.rules.load import load_text
from tests.support.edge import TOKEN, running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

    Rules = Callable[[str], Path]

TEXT = """
rules:
  - {name: slow, match: {path: "/slow/**"}, ttl: 10s}
  - {name: quick, match: {path: "/quick/**"}, ttl: 100s}
  - {name: unread, match: {path: "/unread/**"}, ttl: 10s}
  - name: list
    match: {path: "/list/**"}
    ttl: 1h
    key: {query: {ignore: ["gclid"], sort: true}, headers: [x-app]}
  - {name: vary, match: {path: "/vary/**"}, ttl: 1h}
  - {name: all, match: {path: "/all"}, ttl: 1h, unsafe: [authorization], key: {headers: []}}
"""


async def asked(edge: Edge, path: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.get(f"http://127.0.0.1:{edge.worker.admin_port}{path}") as got,
    ):
        return got.status, await got.json()


async def rows(edge: Edge) -> dict[str, Any]:
    told: dict[str, Any] = (await asked(edge, "/api/savings"))[1]["rules"]
    return told


async def test_what_was_saved_and_the_ttl_that_looks_suggest(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/slow/a", etag=True)
    async with running_edge(origin.url, rules=rules(TEXT), clock=clock) as edge, edge.client() as client:
        for _ in range(101):
            await client.request("GET", "/slow/a")
            await clock.advance(11)
        for _ in range(5):
            answer = await client.request("GET", "/slow/a")  # the first finds it stale
        for _ in range(25):
            await client.request("GET", "/quick/a")
            await clock.advance(101)
            origin.bump("/quick/a")
        found = await rows(edge)
    slow, quick = found["slow"], found["quick"]
    assert (slow["requests"], slow["hits"], slow["at"]) == (106, 4, "rules.yaml:3")
    assert slow["saved_bytes"] == 4 * len(answer.body)
    assert (slow["looks"], slow["confirmed"], slow["changed"]) == (101, 101, 0)
    assert slow["confirmed_bytes"] == 101 * len(answer.body)
    assert slow["suggestions"] == [
        {"was": "ttl: 10s", "line": "ttl: 30s", "why": "101 of 101 looks after it found nothing new"}
    ]
    assert (quick["changed"], quick["at_once"]) == (24, 24)
    assert quick["suggestions"][0]["why"] == "24 of 24 looks found something new, 24 of them at once"
    assert quick["suggestions"][0]["line"] in ("ttl: 1s", "ttl: 2s")


async def test_the_hit_ratio_is_the_same_wherever_it_is_told(
    origin: LedgerOrigin,
    clock: DrivenClock,
    rules: Rules,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the same traffic: what passes is none of the cache's misses, and is told beside it."""
    async with running_edge(origin.url, rules=rules(TEXT), clock=clock) as edge:
        for _ in range(4):
            await edge.get("/slow/a")
        for _ in range(6):
            await edge.request("POST", "/slow/a", body=b"x")
        earned = (await rows(edge))["slow"]
        counted = (await asked(edge, "/api/cache/stats"))[1]["rules"]["slow"]
        assert earned["hit_ratio"] == counted["hit_ratio"] == 0.75
        assert earned["passes"] == counted["results"]["bypass"] == 6
        monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", TOKEN)
        for command in ("stats", "savings"):
            address = f"127.0.0.1:{edge.worker.admin_port}"
            assert await asyncio.to_thread(main, [command, "--admin", address]) == 0
            head, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
            (row,) = (line for line in lines if line[:1] == ["slow"])
            assert head[:6] == ["rule", "requests", "passed", "hits", "hit", "ratio"], command
            assert row[:5] == ["slow", "10", "6", "3", "75.0%"], command


async def test_what_expires_unread(origin: LedgerOrigin, clock: DrivenClock, rules: Rules) -> None:
    async with running_edge(origin.url, rules=rules(TEXT), clock=clock) as edge, edge.client() as client:
        for number in range(60):
            await client.request("GET", f"/unread/{number}")
        for number in range(5):
            await client.request("GET", f"/unread/{number}")
        await clock.advance(11)
        row = (await rows(edge))["unread"]
        assert (row["read"], row["unread"], row["stored"]) == (5, 55, 60)
        assert "55 of 60 watched objects expired unread" in row["suggestions"][0]["why"]
        # What is asked for again when it has expired was not worth nothing.
        await client.request("GET", "/unread/1")
        await clock.advance(11)
        await client.request("GET", "/unread/1")
        await client.request("GET", "/unread/1")
        await clock.advance(11)
        row = (await rows(edge))["unread"]
        assert (row["read"], row["unread"]) == (6, 55)


async def test_what_splits_the_cache_for_nothing(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/vary/a", headers=[("Vary", "X-Theme")])
    async with running_edge(origin.url, rules=rules(TEXT), clock=clock) as edge, edge.client() as client:
        for number in range(12):
            body = f"page {number}".encode()
            for path in (f"/list/{number}", f"/vary/{number}"):
                origin.reply(path, body=body, headers=[("Vary", "X-Theme")] if "vary" in path else ())
            for source in ("a", "b"):
                await client.request("GET", f"/list/{number}?ref={source}&gclid=7")
            await client.request("GET", f"/list/{number}?ref=a", headers=[("X-App", "2")])
            for theme in ("dark", "light"):
                await client.request("GET", f"/vary/{number}", headers=[("X-Theme", theme)])
            await clock.advance(1)
        told = (await asked(edge, "/api/doctor"))[1]
    lines = {(each["rule"]["name"], each["kind"]): each["line"] for each in told["findings"]}
    assert lines == {
        ("list", "query"): "key: {query: {ignore: [gclid, ref], sort: true}}",
        ("list", "header"): "key: {headers: []}",
        ("vary", "vary"): "normalise: {x-theme: [any]}",
    }
    # Each line can be put in as it stands.
    for line in lines.values():
        load_text(f"rules: [{{name: a, match: {{path: /a}}, ttl: 1m, {line}}}]")


async def test_why_the_last_answer_was_not_stored(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/slow/mine", headers=[("Set-Cookie", "id=secret"), ("Cache-Control", "max-age=60")])
    async with running_edge(origin.url, rules=rules(TEXT), clock=clock) as edge:
        await edge.get("/slow/mine")
        await clock.advance(3)
        status, told = await asked(edge, "/api/cache/entry?url=http://example.test/slow/mine")
        assert status == 404
        assert told["refused"] == {
            "rule": "slow", "reason": "set-cookie", "age": 3.0, "status": 200,
            "headers": [
                ["Cache-Control", "max-age=60"], ["Date", "Tue, 14 Nov 2023 22:13:20 GMT"],
                ["Set-Cookie", "..."],
            ],
        }  # fmt: skip
        assert (await asked(edge, "/api/cache/entry?url=http://example.test/slow/x"))[1]["refused"] is None
        await edge.get("/all", ("Authorization", "Bearer x"))
        assert (await rows(edge))["all"]["authorized"] == 1


def test_what_several_workers_tell_is_added_up() -> None:
    ruleset = load_text(TEXT)
    one: dict[str, Any] = {
        "tally": {"slow": {"requests": 1, "hits": 1, "saved_seconds": 0.5, "saved_bytes": 7}},
        "rules": {},
        "splits": {"list": {"query": {"utm": {"same": 6, "different": 0, "bodies": 3}}}},
    }
    other: dict[str, Any] = {
        "tally": {"slow": {"requests": 2, "hits": 1, "saved_seconds": 0.5, "saved_bytes": 7}},
        "rules": {"slow": {"stored": 1, "looks": 0, "intervals": {"same": [1.0, 2.0]}}},
        "splits": {"list": {"query": {"utm": {"same": 5, "different": 0, "bodies": 2}}}},
    }
    total = added([one, other, other])
    assert total["tally"]["slow"] == {"requests": 5, "hits": 3, "saved_seconds": 1.5, "saved_bytes": 21}
    assert total["rules"]["slow"]["intervals"] == {"same": [2.0, 4.0]}
    assert doctor(total, ruleset)["findings"][0]["names"] == ["utm"]
    assert savings(added([]), ruleset)["rules"] == {}
