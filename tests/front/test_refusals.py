"""What is refused by rule, by address and by load, through the whole worker: the lane must not answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawClient

FRESH = [("Cache-Control", "max-age=3600")]

LIMITED = """
rules:
  - {name: limited, match: {path: /limited}, rate_limit: {rate: 1/s, burst: 3}}
  - {name: keyed, match: {path: /keyed}, rate_limit: {rate: 6/m, by: "header:x-key"}}
  - {name: local, match: {path: /local}, clients: {allow: [127.0.0.0/8]}}
  - {name: others, match: {path: /others}, clients: {deny: ["127.0.0.1"]}}
  - {name: free, match: {path: /**}}
"""


async def asked(client: RawClient, target: str, times: int) -> list[int]:
    return [(await client.get(target)).status for _ in range(times)]


@pytest.mark.parametrize("ways", ["all", "slow"])
async def test_a_rate_limit_holds_for_hits_too(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], ways: str
) -> None:
    origin.reply("/limited", headers=FRESH)
    origin.reply("/free", headers=FRESH)
    async with running_edge(origin.url, clock=clock, rules=rules(LIMITED)) as edge, edge.client() as client:
        if ways == "slow":
            edge.worker.handler.lane = edge.worker.handler.short = None
        assert await asked(client, "/limited", 5) == [200, 200, 200, 429, 429]
        assert await asked(client, "/free", 5) == [200] * 5
        await clock.advance(2)
        assert await asked(client, "/limited", 3) == [200, 200, 429]
        answer = await client.get("/limited")
        assert answer["retry-after"] == "1"
        assert answer["ratelimit"] == '"limited";r=0;t=1'
        assert answer["ratelimit-policy"] == '"limited";q=3;w=3'
        assert answer["proxy-status"] == 'edgeproxy; error=http_request_denied; details="rate-limited"'
        assert answer["cache-control"] == "no-store"
        assert answer["content-type"] == "application/problem+json"
        told = orjson.loads(answer.body)
        assert (told["status"], told["title"]) == (429, "Too many requests")
        assert answer.keep_alive
        assert edge.traces[-1].rule == "limited"
        assert origin.count("/limited") == 1
        if edge.worker.handler.lane is not None:
            edge.worker.handler.lane.fold()
            assert edge.worker.metrics.slot("limited").lane_hits == 0
            assert edge.worker.metrics.slot("free").lane_hits > 0
        assert 'edgeproxy_edge_answers_total{reason="rate-limited"} 4.0' in (
            edge.worker.metrics.render().decode()
        )


@pytest.mark.parametrize("gate", ["rate_limit: {rate: 1/m, burst: 4}", "clients: {allow: [127.0.0.1]}"])
async def test_what_comes_out_of_the_shared_store_is_gated_too(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path, gate: str
) -> None:
    origin.reply("/a", headers=FRESH)
    text = f"rules: [{{name: a, match: {{path: /**}}, {gate}}}]"
    async with (
        running_edge(
            origin.url, clock=clock, rules=rules(text), store=f"lmdb:{tmp_path / 's'}", trusted_proxies="::1"
        ) as edge,
        edge.client() as client,
    ):
        assert (await client.get("/a")).status == 200
        await edge.settle()
        for _ in range(3):
            edge.worker.store.memory.clear()
            answer = await client.get("/a")
            assert (answer.status, answer["server-timing"][:12]) == (200, "tier;desc=l2")
        lane = edge.worker.handler.lane
        assert lane is not None
        assert await asked(client, "/a", 3) == ([429] * 3 if "rate" in gate else [200] * 3)
        lane.fold()
        assert lane.hits == 0


async def test_one_request_takes_one_token_whichever_way_it_goes(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """What the short way finds too large, or not coded yet, goes on the ordinary way."""
    origin.reply("/large", headers=FRESH, body=b"x" * 300_000)
    origin.reply("/text", headers=[*FRESH, ("Content-Type", "text/plain")], body=b"a quiet city " * 4_000)
    text = "rules: [{name: a, match: {path: /**}, rate_limit: {rate: 1/s, burst: 1}}]"
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        for target in ("/large", "/text"):
            for _ in range(4):
                answer = await edge.get(target, ("Accept-Encoding", "br"))
                assert answer.status == 200, target
                await edge.settle()
                await clock.advance(1)


async def test_a_limit_by_key_and_on_requests_that_change_things(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(LIMITED)) as edge, edge.client() as client:
        for name in ("a", "b"):
            statuses = [(await client.get("/keyed", [("X-Key", name)])).status for _ in range(2)]
            assert statuses == [200, 429]
        refused = await client.get("/keyed", [("X-Key", "a")])
        assert refused["retry-after"] == "10"
        for expected in (200, 200, 200, 429):
            async with edge.client() as other:
                answer = await other.request("POST", "/limited", body=b"x")
                assert answer.status == expected
        assert origin.count("/limited") == 3


async def test_a_limit_that_comes_with_a_reload_holds_for_what_the_lane_knew(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/free", headers=FRESH)
    directory = rules(LIMITED)
    async with running_edge(origin.url, clock=clock, rules=directory) as edge, edge.client() as client:
        assert await asked(client, "/free", 6) == [200] * 6
        (directory / "rules.yaml").write_text(
            "rules: [{name: free, match: {path: /**}, rate_limit: {rate: 1/s, burst: 2}}]"
        )
        assert not (await edge.worker.operator.reload_rules()).errors
        assert await asked(client, "/free", 4) == [200, 200, 429, 429]


async def test_who_a_rule_answers(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/local", headers=FRESH)
    origin.reply("/others", headers=FRESH)
    proxy = [("X-Forwarded-For", "192.0.2.7")]
    async with (
        running_edge(origin.url, clock=clock, rules=rules(LIMITED), trusted_proxies="127.0.0.1") as edge,
        edge.client() as client,
    ):
        assert await asked(client, "/local", 4) == [200] * 4
        assert await asked(client, "/others", 2) == [403] * 2
        for _ in range(3):
            assert (await client.get("/local", proxy)).status == 403
            assert (await client.get("/others", proxy)).status == 200
        assert (await client.get("/others"))["proxy-status"].endswith('details="client-denied"')


async def test_lists_of_the_settings_hold_behind_a_trusted_proxy_too(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=FRESH)
    async with (
        running_edge(
            origin.url, clock=clock, trusted_proxies="127.0.0.1", deny="192.0.2.0/24", allow="192.0.0.0/8"
        ) as edge,
        edge.client() as client,
    ):
        for _ in range(3):
            for address, status in (("192.0.3.1", 200), ("192.0.2.1", 403), ("203.0.113.1", 403)):
                answer = await client.get("/a", [("X-Forwarded-For", address)])
                assert (answer.status, answer.keep_alive) == (status, True)


# -- load -------------------------------------------------------------------------------------------------


async def held_up(edge: Edge, origin: LedgerOrigin, clients: list[RawClient]) -> None:
    for number, client in enumerate(clients):
        await client.start("GET", f"/gated/{number}")
    await edge.until(lambda: edge.worker.handler.in_flight == len(clients))


@pytest.mark.parametrize("ways", ["all", "slow"])
async def test_above_the_most_requests_hits_are_answered_and_misses_refused(
    origin: LedgerOrigin, clock: DrivenClock, ways: str
) -> None:
    origin.reply("/hit", headers=FRESH)
    origin.reply("/old", headers=[("Cache-Control", "max-age=1, stale-if-error=600")])
    for number in range(3):
        origin.reply(f"/gated/{number}", gate="g")
    async with running_edge(origin.url, clock=clock, max_requests=3) as edge:
        if ways == "slow":
            edge.worker.handler.lane = edge.worker.handler.short = None
        await edge.get("/hit")
        await edge.get("/old")
        await clock.advance(60)
        clients = [edge.client() for _ in range(3)]
        for client in clients:
            await client.connect()
        await held_up(edge, origin, clients)
        async with edge.client() as client:
            for _ in range(3):
                assert (await client.get("/hit")).status == 200
                refused = await client.get("/miss")
                assert (refused.status, refused["retry-after"], refused.keep_alive) == (503, "1", True)
                assert refused["proxy-status"].endswith('details="edge-overloaded"')
                stale = await client.get("/old")
                assert (stale.status, stale["x-cache-status"]) == (200, "STALE")
            written = await client.request("POST", "/write", body=b"x")
            assert written.status == 503
        assert origin.count("/miss") == origin.count("/write") == 0
        assert origin.count("/old") == 1
        origin.gate("g").open()
        for client in clients:
            assert (await client.read_answer()).status == 200
            await client.aclose()
        assert (await edge.get("/miss")).status == 200
        assert "edgeproxy_overload_shed_total" in edge.worker.metrics.render().decode()


async def test_of_one_fetch_so_many_wait_and_no_more(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/a", headers=FRESH, gate="g")
    text = "rules: [{name: a, match: {path: /**}, coalesce: {waiters: 2}}]"
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        clients = [edge.client() for _ in range(3)]
        for client in clients:
            await client.connect()
            await client.start("GET", "/a")
        await origin.gate("g").reached()
        await edge.waiting(2)
        refused = await edge.get("/a")
        assert (refused.status, refused["retry-after"]) == (503, "1")
        origin.gate("g").open()
        for client in clients:
            assert (await client.read_answer()).status == 200
            await client.aclose()
        assert origin.count("/a") == 1


async def test_what_nobody_waits_for_is_left_first(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """D11: a saturated worker refreshes nothing and warms nothing; purges and health go on."""
    origin.reply("/old", headers=[("Cache-Control", "max-age=1, stale-while-revalidate=600")])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/old")
        await clock.advance(30)
        overload = edge.worker.engine.overload
        overload.share = 0.5
        for _ in range(3):
            assert (await edge.get("/old"))["x-cache-status"] == "UPDATING"
        await edge.settle()
        assert (origin.count("/old"), overload.dropped) == (1, 3)
        assert "edgeproxy_overload_refreshes_dropped_total 3.0" in edge.worker.metrics.render().decode()
        overload.share = 1.0
        await edge.get("/old")
        await edge.settle()
        assert origin.count("/old") == 2


REFUSED = b"GET /limited%b HTTP/1.1\r\nHost: e.test\r\n\r\n"
LIMITED_ALL = """
rules:
  - {name: limited, match: {path: /**}, rate_limit: {rate: 1/m, burst: 1}}
"""


async def test_refusals_rendered_once_are_those_of_the_ordinary_way(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Rendered ahead, each still has an id of its own, its length and the second it was made in."""
    origin.reply("/limited", headers=FRESH)
    async with (
        running_edge(origin.url, clock=clock, rules=rules(LIMITED_ALL)) as edge,
        edge.client() as client,
    ):
        assert await asked(client, "/limited", 4) == [200, 429, 429, 429]
        handler = edge.worker.handler
        answers = []
        for way in (handler.short, None):
            handler.short = way
            for target in (b"", b"/a", b"/b"):
                await client.send(REFUSED % target)
                answers.append(await client.read_answer())
        ids = [answer["x-request-id"] for answer in answers]
        assert len(set(ids)) == 6
        heads = {
            tuple((n, v) for n, v in answer.headers if n.lower() != "x-request-id") for answer in answers
        }
        assert len(heads) == 1, "the two ways differ"
        for answer, own in zip(answers, ids, strict=True):
            assert answer.status == 429
            told = orjson.loads(answer.body)
            assert told.pop("request_id") == own
            assert told == {
                "type": "about:blank",
                "title": "Too many requests",
                "status": 429,
                "detail": "Come back in 60 s.",
            }
        first = answers[0]["date"]
        await clock.advance(2)
        assert (await client.get("/limited"))["date"] != first
