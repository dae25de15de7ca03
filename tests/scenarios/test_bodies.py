"""QUERY, and POST by rule: what is answered from the cache, what the origin sees, and what passes."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine import contents
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.edge import running_edge
from tests.support.ledger import READ_BODY, RST, Gate, Recorded, chunk, head
from tests.support.ranged import Resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawAnswer

    Rules = Callable[[str], Path]

JSON = ("Content-Type", "application/json")
TEXT = ("Content-Type", "text/plain")
EXACT = "rules: [{name: q, match: {path: /**}, key: {body: {as: exact, methods: [QUERY, POST], limit: 100}}}]"
AS_JSON = "rules: [{name: q, match: {path: /**}, key: {body: {as: json, methods: [QUERY, POST]}}, ttl: 1m}]"
GRAPHQL = """
rules:
  - {name: g, match: {path: /g}, key: {body: graphql}, ttl: 1m, tags: [g]}
"""


async def ask(
    edge: Edge, method: str, body: bytes, *headers: tuple[str, str], target: str = "/g"
) -> RawAnswer:
    return await edge.request(method, target, headers or [JSON], body)


def echo(origin: LedgerOrigin, path: str = "/g", *fields: tuple[str, str]) -> None:
    """Answers repeat the request's method and body."""

    def answer(asked: Recorded) -> bytes:
        body = asked.method.encode() + b" " + bytes(asked.body)
        length = ("Content-Length", str(len(body)))
        said = fields or [("Cache-Control", "max-age=60")]
        return head(200, [*said, length]) + (b"" if asked.method == "HEAD" else body)

    origin.script(path, [answer])


async def test_a_query_passes_without_a_rule_and_purges_nothing(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    echo(origin, "/g", ("Cache-Control", "max-age=60"), ("Accept-Query", "application/json"))
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/g")
        for _ in range(2):
            answer = await ask(edge, "QUERY", b"[1]")
            assert answer.body == b"QUERY [1]"
            assert answer["Accept-Query"] == "application/json"
            assert "fwd=method" in answer["Cache-Status"]
            assert "detail=method-not-cacheable" in answer["Cache-Status"]
        assert (await edge.get("/g"))["X-Cache-Status"] == "HIT"
        assert [(r.method, r.get("content-type"), r.get("content-length")) for r in origin.of("/g")[1:]] == [
            ("QUERY", "application/json", "3")
        ] * 2


@pytest.mark.parametrize("method", ["QUERY", "POST"])
async def test_the_body_tells_answers_apart(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, method: str
) -> None:
    echo(origin, "/g", ("Cache-Control", "max-age=60"))
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        await edge.get("/g")
        first = await ask(edge, method, b"a", TEXT)
        assert (first.body, first["X-Cache-Status"]) == (f"{method} a".encode(), "MISS")
        assert 'rule="q"' in first["Cache-Status"]
        seen = origin.of("/g")[-1]
        assert (seen.method, bytes(seen.body), seen.get("content-length")) == (method, b"a", "1")
        assert seen.get("content-type") == "text/plain"
        again = await ask(edge, method, b"a", TEXT)
        assert (again.body, again["X-Cache-Status"]) == (f"{method} a".encode(), "HIT")
        assert again["Age"] == "0"
        for other_method, body, field in (
            (method, b"b", TEXT), (method, b"a", JSON),
            ({"QUERY": "POST", "POST": "QUERY"}[method], b"a", TEXT),
        ):  # fmt: skip
            answer = await ask(edge, other_method, body, field)
            assert (answer.body, answer["X-Cache-Status"]) == (other_method.encode() + b" " + body, "MISS")
        assert (await edge.get("/g")).body == b"GET "
        assert (await edge.request("HEAD", "/g"))["X-Cache-Status"] == "HIT"
        assert origin.count("/g") == 5
    assert edge.worker.engine.contents.held == 0


async def test_json_that_says_the_same_shares_an_answer(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge:
        assert (await ask(edge, "QUERY", b'{"a": 1, "b": 2}')).body == b'QUERY {"a": 1, "b": 2}'
        assert (await ask(edge, "QUERY", b' {"b":2,"a":1}'))["X-Cache-Status"] == "HIT"
        assert (await ask(edge, "QUERY", b'{"a": 1, "b": 2.0}'))["X-Cache-Status"] == "MISS"
        assert (await ask(edge, "QUERY", b'{"a": 1, "a": 1, "b": 2}'))["X-Cache-Status"] == "MISS"


@pytest.mark.parametrize("octets", [101, 3_000_000], ids=["just too large", "very large"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
async def test_what_is_longer_than_the_limit_goes_on_as_it_comes(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, octets: int, *, chunked: bool
) -> None:
    origin.reply("/g", headers=[("Cache-Control", "max-age=60")])
    body = bytes(range(256)) * (octets // 256) + b"x" * (octets % 256)
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        for method in ("QUERY", "POST"):
            async with edge.client() as client:
                if chunked:
                    await client.start(method, "/g", [("Transfer-Encoding", "chunked")])
                    await client.send(chunk(body[:50]) + chunk(body[50:]) + chunk(b""))
                else:
                    await client.start(method, "/g", body=body)
                answer = await client.read_answer()
            assert answer.status == 200
            assert "detail=body-over-limit" in answer["Cache-Status"]
            seen = origin.of("/g")[-1]
            assert bytes(seen.body) == body
            assert seen.get("transfer-encoding") == ("chunked" if chunked else None)
        # What the rule calls a question is one, however long it is.
        await ask(edge, "POST", b"a")
        await ask(edge, "POST", b"y" * 200)
        assert (await ask(edge, "POST", b"a"))["X-Cache-Status"] == "HIT"
        assert edge.worker.engine.contents.held == 0


async def test_a_chunked_body_is_read_and_sent_with_its_length(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge, edge.client() as client:
        for word in ("MISS", "HIT"):
            await client.start("QUERY", "/g", [JSON, ("Transfer-Encoding", "chunked")])
            await client.send(chunk(b'{"a":') + chunk(b" 1}") + chunk(b""))
            answer = await client.read_answer()
            assert (answer.body, answer["X-Cache-Status"]) == (b'QUERY {"a": 1}', word)
        assert origin.of("/g")[0].get("content-length") == "8"
        assert (await ask(edge, "QUERY", b'{"a":1}'))["X-Cache-Status"] == "HIT"


async def test_expect_100_continue(origin: LedgerOrigin, clock: DrivenClock, rules: Rules) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge, edge.client() as client:
        for word in ("MISS", "HIT"):
            await client.start("QUERY", "/g", [JSON, ("Expect", "100-continue"), ("Content-Length", "3")])
            async with asyncio.timeout(10):
                assert (await client.reader.readline()).startswith(b"HTTP/1.1 100")
                await client.reader.readline()
            await client.send(b"[1]")
            answer = await client.read_answer()
            assert (answer.body, answer["X-Cache-Status"]) == (b"QUERY [1]", word)
        assert origin.count("/g") == 1
        assert origin.of("/g")[0].get("expect") is None


async def test_an_upload_that_breaks_off_asks_nobody(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge:
        async with edge.client() as client:
            await client.start("QUERY", "/g", [JSON, ("Content-Length", "10")], body=b"[1")
            client.half_close()
            await edge.until(lambda: len(edge.traces) == 1)
        async with edge.client() as client:
            await client.start("QUERY", "/g", [JSON, ("Transfer-Encoding", "chunked")])
            await client.send(b"2\r\n[1\r\nxx\r\n")
            answer = await client.read_answer()
            assert answer.status == 400
        assert origin.count("/g") == 0
        assert edge.worker.engine.contents.held == 0


async def test_an_upload_that_stops_is_told_so(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge, edge.client() as client:
        await client.start("QUERY", "/g", [JSON, ("Content-Length", "10")], body=b"[1")
        await edge.until(lambda: edge.worker.engine.contents.held == 2)
        await clock.advance(61)
        assert (await client.read_answer()).status == 408
        assert edge.worker.engine.contents.held == 0
        assert origin.count("/g") == 0


async def test_the_memory_for_bodies_is_bounded(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge, edge.client() as client:
        held = edge.worker.engine.contents
        monkeypatch.setattr(held, "_most", 8)
        await client.start("QUERY", "/g", [JSON, ("Content-Length", "10")], body=b"[1,2,")
        await edge.until(lambda: held.held == 5)
        answer = await ask(edge, "QUERY", b"[3, 4]")
        assert answer.body == b"QUERY [3, 4]"
        assert "detail=body-memory-full" in answer["Cache-Status"]
        await client.send(b"3,4,]")
        assert (await client.read_answer()).body == b"QUERY [1,2,3,4,]"
        gc.collect()
        assert held.held == 0
    assert contents.HELD == 16 * 1024 * 1024


@pytest.mark.parametrize("method", ["QUERY", "POST"])
async def test_one_fetch_for_all_who_ask_the_same(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, method: str
) -> None:
    origin.script("/g", [Gate("g"), lambda asked: head(200, [("Content-Length", "3")]) + bytes(asked.body)])
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge:
        asked = [asyncio.create_task(ask(edge, method, b"[%d]" % (i % 2))) for i in range(20)]  # noqa: TID251
        await edge.waiting(18)
        origin.gate("g").open()
        answers = await asyncio.gather(*asked)
        assert [a.body for a in answers] == [b"[%d]" % (i % 2) for i in range(20)]
        assert origin.count("/g") == 2
        gc.collect()
        assert edge.worker.engine.contents.held == 0


async def test_a_stale_query_is_validated_with_its_body(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/g", headers=[("Cache-Control", "max-age=10")], etag=True)
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        await ask(edge, "QUERY", b"a", TEXT)
        await clock.advance(20)
        answer = await ask(edge, "QUERY", b"a", TEXT)
        assert (answer.status, answer["X-Cache-Status"]) == (200, "REVALIDATED")
        seen = origin.of("/g")[-1]
        assert (seen.method, bytes(seen.body), seen.get("if-none-match")) == ("QUERY", b"a", '"v1"')
        assert (await ask(edge, "QUERY", b"a", TEXT))["X-Cache-Status"] == "HIT"
        mine = await ask(edge, "QUERY", b"a", TEXT, ("If-None-Match", '"v1"'))
        assert (mine.status, mine["X-Cache-Status"]) == (304, "HIT")
        part = await ask(edge, "QUERY", b"a", TEXT, ("Range", "bytes=1-3"))
        assert (part.status, part.body) == (206, origin.stamp("/g", 1)[1:4])


async def test_a_stale_post_is_fetched_anew_and_never_asked_with_conditions(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/g", headers=[("Cache-Control", "max-age=10")], etag=True)
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        await ask(edge, "POST", b"a", TEXT)
        await clock.advance(20)
        assert (await ask(edge, "POST", b"a", TEXT))["X-Cache-Status"] == "EXPIRED"
        assert [r.get("if-none-match") for r in origin.of("/g")] == [None, None]
        assert (await ask(edge, "POST", b"a", TEXT, ("Range", "bytes=1-3"))).status == 200
        passed = await ask(edge, "POST", b"a", TEXT, ("If-None-Match", '"v1"'))
        assert "detail=post-with-conditions" in passed["Cache-Status"]


async def test_it_is_refreshed_in_the_background_with_the_body_that_was_kept(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/g", headers=[("Cache-Control", "max-age=10, stale-while-revalidate=60")], times=1)
    origin.reply("/g", headers=[("Cache-Control", "max-age=10")], gate="g")
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        await ask(edge, "POST", b"a", TEXT)
        await clock.advance(20)
        assert (await ask(edge, "POST", b"a", TEXT))["X-Cache-Status"] == "UPDATING"
        await origin.gate("g").reached()
        assert edge.worker.engine.contents.held == 1
        origin.gate("g").open()
        await edge.settle()
        seen = origin.of("/g")[-1]
        assert (seen.method, bytes(seen.body), seen.get("content-type")) == ("POST", b"a", "text/plain")
        assert (await ask(edge, "POST", b"a", TEXT))["X-Cache-Status"] == "HIT"
        gc.collect()
        assert edge.worker.engine.contents.held == 0


async def test_it_is_served_stale_when_the_origin_fails(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/g", headers=[("Cache-Control", "max-age=10, stale-if-error=60")], times=1)
    origin.reply("/g", status=503)
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        await ask(edge, "QUERY", b"a", TEXT)
        await clock.advance(20)
        answer = await ask(edge, "QUERY", b"a", TEXT)
        assert (answer.status, answer["X-Cache-Status"]) == (200, "STALE")
        assert (await ask(edge, "QUERY", b"b", TEXT)).status == 503


async def test_a_query_is_sent_again_on_a_dead_connection_and_a_post_is_not(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        for method, status in (("QUERY", 200), ("POST", 502)):
            await edge.get(f"/warm-{method}")
            origin.script("/g", [READ_BODY, RST], times=1)
            answer = await ask(edge, method, b"a", TEXT)
            assert answer.status == status
        assert [r.method for r in origin.of("/g")] == ["QUERY", "QUERY", "POST"]


@pytest.mark.parametrize("order", [
    PurgeOrder(PurgeKind.URL, "/g"), PurgeOrder(PurgeKind.TAG, "g"), PurgeOrder(PurgeKind.PREFIX, "/"),
])  # fmt: skip
async def test_purges_take_answers_to_bodies_too(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, order: PurgeOrder
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        for method in ("QUERY", "POST"):
            await ask(edge, method, query("{ a }"))
            assert (await ask(edge, method, query("{ a }")))["X-Cache-Status"] == "HIT"
        await edge.worker.store.purge(order)
        for method in ("QUERY", "POST"):
            assert (await ask(edge, method, query("{ a }")))["X-Cache-Status"] == "MISS"


@pytest.mark.parametrize("store", ["lmdb", "memory"])
async def test_answers_to_bodies_are_in_the_shared_store(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, tmp_path: Path, store: str
) -> None:
    echo(origin)
    where = f"lmdb:{tmp_path / 'store'}" if store == "lmdb" else "memory:"
    for word in ("MISS", "HIT" if store == "lmdb" else "MISS"):
        async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON), store=where) as edge:
            assert (await ask(edge, "QUERY", b"[1]"))["X-Cache-Status"] == word
            await edge.settle()


@pytest.mark.parametrize(
    ("status", "cache_control", "reason"),
    [
        (200, "public", "no-lifetime"), (201, "max-age=60", "status-not-cacheable"),
        (200, "no-store", "response-no-store"), (200, "no-cache, max-age=60", "response-no-cache"),
        (200, "max-age=0", "lifetime-zero"),
    ],
)  # fmt: skip
async def test_a_post_without_an_explicit_lifetime_is_not_kept(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules, status: int, cache_control: str, reason: str
) -> None:
    fields = [
        ("Cache-Control", cache_control),
        ("ETag", '"a"'),
        ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"),
    ]
    origin.reply("/g", status=status, headers=fields)
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        for _ in range(2):
            answer = await ask(edge, "POST", b"a", TEXT)
            assert f"detail={reason}" in answer["Cache-Status"] or "hit-for-miss" in answer["Cache-Status"]
        assert origin.count("/g") == 2
        if cache_control == "public":
            await ask(edge, "QUERY", b"a", TEXT)
            assert (await ask(edge, "QUERY", b"a", TEXT))["X-Cache-Status"] == "HIT"


async def test_a_rule_that_says_pass_reads_nothing(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    rule = "rules: [{name: q, match: {path: /**}, key: {body: exact}, pass: true}]"
    async with running_edge(origin.url, clock=clock, rules=rules(rule)) as edge, edge.client() as client:
        origin.reply("/g", early=True)
        await client.start("QUERY", "/g", [TEXT, ("Content-Length", "10")], body=b"a")
        assert "detail=method-not-cacheable" in (await client.read_answer())["Cache-Status"]


async def test_a_body_key_does_not_touch_other_methods(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(EXACT)) as edge:
        await edge.get("/g")
        assert "method-not-cacheable" in (await ask(edge, "PUT", b"a"))["Cache-Status"]
        assert (await edge.get("/g"))["X-Cache-Status"] == "MISS"  # purged
        assert "request-has-body" in (await ask(edge, "GET", b"a"))["Cache-Status"]
        assert "method-not-cacheable" in (await edge.request("QUERY", "/g"))["Cache-Status"]


async def test_a_question_with_no_store_passes_and_purges_nothing(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        await ask(edge, "POST", query("{ a }"))
        passed = await ask(edge, "POST", query("{ a }"), JSON, ("Cache-Control", "no-store"))
        assert passed.body == b"POST " + query("{ a }")
        assert "detail=request-no-store" in passed["Cache-Status"]
        assert (await ask(edge, "POST", query("{ a }")))["X-Cache-Status"] == "HIT"


async def test_what_the_lane_knows_of_get_is_nothing_to_a_query(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge:
        lane = edge.worker.handler.lane
        assert lane is not None
        async with edge.client() as client:
            for _ in range(4):
                assert (await client.get("/g", [JSON])).body == b"GET "
            for _ in range(3):
                assert (await client.request("QUERY", "/g", [JSON], body=b"[1]")).body == b"QUERY [1]"
                assert (await client.get("/g", [JSON])).body == b"GET "
        async with edge.client() as client:
            assert (await client.get("/g", [JSON])).body == b"GET "
            assert (await client.request("QUERY", "/g", [JSON])).body == b"QUERY "
            assert (await client.request("QUERY", "/g", [JSON], body=b"[1]"))["X-Cache-Status"] == "HIT"
        assert origin.count("/g") == 3


# -- GraphQL ------------------------------------------------------------------------------------------------


def query(document: str, **more: object) -> bytes:
    return json.dumps({"query": document, **more}).encode()


async def test_graphql_queries_are_cached_and_mutations_purge_them(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    echo(origin)
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        one = query("query A { a } query B { b }", operationName="A", variables={"x": 1})
        assert (await ask(edge, "POST", one)).body == b"POST " + one
        spaced = query("query A{a}\n# c\nquery B{b}", variables={"x": 1}, operationName="A")
        assert (await ask(edge, "POST", spaced)).body == b"POST " + one
        for other in (
            query("query A { a } query B { b }", operationName="B", variables={"x": 1}),
            query("query A { a } query B { b }", operationName="A", variables={"x": 2}),
            query("query A { a } query B { c }", operationName="A", variables={"x": 1}),
        ):  # fmt: skip
            assert (await ask(edge, "POST", other)).body == b"POST " + other
        assert origin.count("/g") == 4
        for changing in (
            query("mutation { a }"), query("query A { a } mutation B { b }", operationName="B"),
            b"[" + query("{ a }") + b"]", query("subscription { a }"), b"{", query("{ a "),
        ):  # fmt: skip
            await ask(edge, "POST", one)
            before = origin.count("/g")
            for _ in range(2):
                passed = await ask(edge, "POST", changing)
                assert passed.body == b"POST " + changing
                assert "detail=body-not-a-query" in passed["Cache-Status"]
            assert origin.count("/g") == before + 2
            assert (await ask(edge, "POST", one))["X-Cache-Status"] == "MISS", changing


async def test_a_failed_mutation_purges_nothing(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        await ask(edge, "POST", query("{ a }"))
        origin.reply("/g", status=400, times=1)
        await ask(edge, "POST", query("mutation { a }"))
        assert (await ask(edge, "POST", query("{ a }")))["X-Cache-Status"] == "HIT"


ERRORS = b'{"errors": [{"message": "PersistedQueryNotFound"}]}'


def _whole(body: bytes) -> list[bytes]:
    return [head(200, [JSON, ("Content-Length", str(len(body)))]) + body]


def _in_pieces(body: bytes) -> list[bytes | Gate]:
    return [
        head(200, [JSON, ("Transfer-Encoding", "chunked")]),
        chunk(body[:9]),
        Gate("g"),
        chunk(body[9:]) + chunk(b""),
    ]


@pytest.mark.parametrize("how", [_whole, _in_pieces])
@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (ERRORS, False), (b'{"data": {"errors": []}}', True), (b'{"data": {"errors": [1]}}', True),
        (b'{"data": {}, "errors": null}', True), (b'{"data": {}, "errors": []}', True),
        (b'"errors" is no JSON', False),
        (b'[{"errors": [1]}]', False), (b'{"data": "' + b"x" * 1_100_000 + b'", "errors": [1]}', False),
        (b'{"data": "' + b"x" * 1_100_000 + b'"}', True),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
async def test_graphql_answers_with_errors_are_not_kept(
    origin: LedgerOrigin,
    clock: DrivenClock,
    rules: Rules,
    body: bytes,
    how: Callable[[bytes], list[bytes | Gate]],
    *,
    kept: bool,
) -> None:
    origin.script("/g", how(body))
    origin.gate("g").open()
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        for _ in range(2):
            answer = await ask(edge, "POST", query("{ a }"))
            assert answer.body == body
            await edge.settle()
        assert origin.count("/g") == (1 if kept else 2)
        if not kept and how is _whole and len(body) < 1000:
            assert "detail=graphql-errors" in answer["Cache-Status"]


async def test_errors_are_not_told_the_rules_cache_control(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    said = GRAPHQL.replace("ttl: 1m", "ttl: 1m, cache_control: 'public, max-age=9'")
    async with running_edge(origin.url, clock=clock, rules=rules(said)) as edge:
        origin.reply("/g", body=ERRORS, headers=[("Cache-Control", "no-cache")], times=1)
        assert (await ask(edge, "QUERY", query("{ a }")))["Cache-Control"] == "no-cache"
        assert (await ask(edge, "QUERY", query("{ a }")))["Cache-Control"] == "public, max-age=9"


async def test_other_rules_do_not_look_for_errors(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/g", body=ERRORS)
    async with running_edge(origin.url, clock=clock, rules=rules(AS_JSON)) as edge:
        await ask(edge, "POST", b"[1]")
        assert (await ask(edge, "POST", b"[1]"))["X-Cache-Status"] == "HIT"


async def test_a_coded_graphql_answer_cannot_be_looked_into(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    origin.reply("/g", headers=[("Content-Encoding", "gzip")], body=b"whatever")
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        assert "detail=graphql-errors" in (await ask(edge, "POST", query("{ a }")))["Cache-Status"]


async def test_a_part_of_a_graphql_answer_cannot_be_looked_into(
    origin: LedgerOrigin, clock: DrivenClock, rules: Rules
) -> None:
    """Joined to others it would be an answer whose errors nobody has seen."""
    Resource(ERRORS).serve(origin, "/g")
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        for span in (0, len(ERRORS) // 2):
            answer = await edge.get("/g", ("Range", f"bytes={span}-{span + 4}"))
            assert (answer.status, answer.body) == (206, ERRORS[span : span + 5])
            assert "detail=graphql-errors" in answer["Cache-Status"]
            await edge.settle()
        assert (await edge.get("/g")).body == ERRORS
        assert [r.get("range") for r in origin.of("/g")][-1] is None


async def test_persisted_queries(origin: LedgerOrigin, clock: DrivenClock, rules: Rules) -> None:
    known: set[bytes] = set()

    def answer(asked: Recorded) -> bytes:
        if b'"query"' in asked.body:
            known.add(b"x")
        body = b'{"data": 1}' if known else ERRORS
        return head(200, [("Content-Length", str(len(body)))]) + body

    origin.script("/g", [answer])
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": "x"}}
    short, full = json.dumps({"extensions": extensions}).encode(), query("{ a }", extensions=extensions)
    said = GRAPHQL.replace("body: graphql", "body: {as: graphql, persisted: true}")
    async with running_edge(origin.url, clock=clock, rules=rules(said)) as edge:
        assert (await ask(edge, "POST", short)).body == ERRORS
        assert (await ask(edge, "POST", full)).body == b'{"data": 1}'
        for word in ("MISS", "HIT"):
            answered = await ask(edge, "POST", short)
            assert (answered.body, answered["X-Cache-Status"]) == (b'{"data": 1}', word)
    async with running_edge(origin.url, clock=clock, rules=rules(GRAPHQL)) as edge:
        assert "detail=body-not-a-query" in (await ask(edge, "POST", short))["Cache-Status"]
        for word in ("MISS", "HIT"):
            assert (await ask(edge, "QUERY", short))["X-Cache-Status"] == word
