"""The cache as a target: what one client sends must not decide what another one is answered.

Rules of this file:

- The origin says what it was asked, so whatever of one request shows in another one's answer is seen.
- An attacker asks first, a victim after him; each attack is one row of a table.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine.coalesce import DOUBTS
from edgeproxy.engine.forward import SPOKEN_FOR
from edgeproxy.front.request import MOST_HOPS
from tests.support.edge import running_edge
from tests.support.ledger import FIN, Gate, head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin, Recorded, Step

KEPT = [("Cache-Control", "max-age=600")]
EVIL = "evil.test"
HITS = 4
"""Requests after which the lane answers, if it ever does."""


def said(asked: Recorded) -> bytes:
    """The request without what the edge writes anew for each, and the range, which is no matter in 200."""
    left_out = {"x-request-id", "range", "if-range"}
    fields = [(n.lower(), v) for n, v in asked.headers if n.lower() not in left_out]
    return repr((asked.method, asked.target, fields, bytes(asked.body))).encode()


async def plain(edge: Edge, target: str = "/p") -> bytes:
    return (await edge.get(target)).body


async def test_who_speaks_for_the_edge_is_not_heard(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """All the fields known for it, together and in any spelling: the victims get what a clean edge gives."""
    origin.reply("/p", headers=KEPT, body=said)
    async with running_edge(origin.url, clock=clock) as clean:
        wanted = await plain(clean)
    for spell in (str, str.upper, lambda name: name.replace("-", "_")):
        fields = [(spell(name), EVIL) for name in sorted(SPOKEN_FOR)]
        async with running_edge(origin.url, clock=clock, max_line="32KiB") as edge:
            for _ in range(HITS):
                await edge.get("/p", *fields)
            assert await plain(edge) == wanted
            assert EVIL.encode() not in wanted


@pytest.mark.parametrize("status", [400, 405, 413, 414, 431, 500, 501, 502])
async def test_an_error_that_a_field_brought_about_is_the_senders_alone(
    origin: LedgerOrigin, clock: DrivenClock, status: int
) -> None:
    """Oversized or odd fields (CPDoS). The origin says nothing of caching, as origins do of their errors."""

    def steps(asked: Recorded) -> list[bytes]:
        bad = asked.get("x-odd") is not None
        fields = [("Content-Length", "1")] if bad else [*KEPT, ("Content-Length", "1")]
        return [head(status if bad else 200, fields), b"x"]

    origin.script("/p", steps)
    async with running_edge(origin.url, clock=clock) as edge:
        for odd in ("x" * 7000, "\x80", "", "() { :; }"):
            assert (await edge.get("/p", ("X-Odd", odd))).status == status
        for _ in range(HITS):
            assert (await edge.get("/p")).status == 200


@pytest.mark.parametrize("lane", ["on", "off"])
@pytest.mark.parametrize("status", [500, 501, 502])
async def test_nor_is_it_for_those_who_wait_for_his_answer(
    origin: LedgerOrigin, clock: DrivenClock, status: int, lane: str
) -> None:
    def steps(asked: Recorded) -> Sequence[Step]:
        if asked.get("x-odd") is None:
            return [head(200, [*KEPT, ("Content-Length", "1")]), b"x"]
        return [Gate("g"), head(status, [("Content-Length", "1")]), b"x"]

    origin.script("/p", steps)
    async with running_edge(origin.url, clock=clock, lane=lane) as edge:
        async with edge.client() as odd:
            await odd.start("GET", "/p", [("X-Odd", "1")])
            await origin.arrived("/p", 1)
            others = asyncio.gather(*(edge.get("/p") for _ in range(5)))
            await edge.waiting(5)
            origin.gate("g").open()
            assert (await odd.read_answer()).status == status
        assert {answer.status for answer in await others} == {200}
        assert origin.count("/p") == 2, "one of the others asked for all of them"


async def test_what_fails_for_everybody_is_found_out_by_a_few(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/p", status=500, gate="g", headers=[("Cache-Control", "no-cache")])
    async with running_edge(origin.url, clock=clock) as edge:
        answers = asyncio.gather(*(edge.get("/p") for _ in range(20)))
        await edge.waiting(19)
        origin.gate("g").open()
        assert {answer.status for answer in await answers} == {500}
        assert origin.count("/p") == DOUBTS


@pytest.mark.parametrize("status", [411, 413, 421, 429, 431])
async def test_even_where_the_origin_would_have_it_kept(
    origin: LedgerOrigin, clock: DrivenClock, status: int
) -> None:
    origin.reply("/p", status=status, headers=KEPT, times=1)
    origin.reply("/p", headers=KEPT)
    async with running_edge(origin.url, clock=clock) as edge:
        assert (await edge.get("/p", ("X-Odd", "x" * 7000))).status == status
        assert (await edge.get("/p")).status == 200


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [
        ("HEAD", [], None),
        ("GET", [], b"fat"),
        ("GET", [("Range", "bytes=0-0")], None),
        ("GET", [("Range", "bytes=5-2")], None),
        ("GET", [("Range", "bytes=-0")], None),
        ("GET", [("Range", "bytes=0-,0-,0-,0-")], None),
        ("GET", [("Range", "bytes=" + ",".join(f"{n}-{n}" for n in range(900)))], None),
        ("GET", [("Range", "lines=1-2")], None),
        ("GET", [("Range", "bytes=99999999999999999999-")], None),
        ("GET", [("If-Range", '"x"'), ("Range", "bytes=1-")], None),
        ("GET", [("If-None-Match", "*")], None),
        ("GET", [("If-Match", '"none"')], None),
        ("GET", [("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")], None),
        ("GET", [("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")], None),
        ("GET", [("Accept-Encoding", "x-evil, gzip;q=0, identity;q=0")], None),
        ("GET", [("Expect", "a-miracle")], None),
        (
            "GET",
            [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "x")],
            None,
        ),
        ("GET", [("Connection", "host, accept-encoding, cookie, x-forwarded-for")], None),
        ("GET", [("Authorization", "Basic eA==")], None),
        ("GET", [("Proxy", "http://evil.test/")], None),
        ("POST", [("X-HTTP-Method-Override", "GET")], b"x"),
        ("POST", [("X-HTTP-Method", "GET"), ("X-Method-Override", "GET")], b"x"),
    ],
)
async def test_no_odd_request_leaves_anything_behind(
    origin: LedgerOrigin, clock: DrivenClock, method: str, fields: list[tuple[str, str]], body: bytes | None
) -> None:
    """Whatever it was answered: who asks plainly afterwards gets what a plain request is answered, whole."""
    origin.reply("/p", headers=KEPT, body=said)
    async with running_edge(origin.url, clock=clock) as clean:
        wanted = await plain(clean)
    async with running_edge(origin.url, clock=clock) as edge:
        for _ in range(HITS):
            await edge.request(method, "/p", fields, body)
        for _ in range(HITS):
            answer = await edge.get("/p")
            assert (answer.status, answer.body) == (200, wanted)


APART = [
    "/a/b", "/a%2fb", "/a%2Fb", "/a//b", "//a/b", "/a/b/", "/a/./b", "/a/c/../b", "/a/%2e/b", "/a/c/%2e%2e/b",
    "/a\\b", "/a%5cb", "/A/b", "/a/B", "/a/b;x", "/a/b;", "/a/b%3b", "/a/b%23c", "/a/b%00", "/a/b%0a",
    "/a/b%20", "/a/b+", "/a/b.", "/a/b%3f", "/a/b?", "/a/b??", "/a/b?x", "/a/b?x=", "/a/b?x=1", "/a/b?x=1&",
    "/a/b?&x=1",
    "/a/b?x=1&y=2", "/a/b?y=2&x=1", "/a/b?x=1;y=2", "/a/b?x=1%26y=2", "/a/b?%78=1", "/a/b?X=1", "/a/b?x=%31",
    "/a/b?x[]=1", "/a/b?x=1&x=2", "/a/b?x=2&x=1", "/a/b?x=1?y=2", "/a/%62", "/%61/b", "/a/b%2f", "/a%252fb",
]  # fmt: skip
HOSTS = [
    "a.test", "a.test:80", "a.test:8080", "a.test:", "a.test.", "A.test", "www.a.test", "a.test:080",
    "127.0.0.1", "127.1", "[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]", "a_test", "a%2etest", "xn--a", "a-test",
]  # fmt: skip


async def test_what_the_origin_may_tell_apart_is_kept_apart(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Targets and hosts go as they came, and are keyed so: each gets its own answer, whoever asked before."""
    requests = [(target, "a.test") for target in APART] + [("/a/b", host) for host in HOSTS]
    for target in APART:
        origin.reply(target.partition("?")[0], headers=KEPT, body=said)
    async with running_edge(origin.url, clock=clock) as edge:
        for _ in range(2):
            for target, host in requests:
                answer = await edge.get(target, ("Host", host))
                shown = answer.body.decode("latin-1")
                assert repr(target) in shown
                assert repr(("host", host)) in shown
        for fixed, target in (("#f", "/a/b#f"), ("user", "http://user@a.test/a/b")):
            assert (await edge.get(target, ("Host", "a.test"))).status == 400, fixed


DECEIVING = [
    "x.css", ";x.css", "%3bx.css", "%23x.css", "%3fx.css", "%00x.css", "%00.css", "%0ax.css", "%0d%0ax.css",
    "%2fx.css", "%5cx.css", "/..%2f..%2fstatic/x.css", "/%2e%2e/static/x.css", "!x.css", ".css", "~x.css",
    "%20.css", "/.css", "?x.css", "?a=/static/x.css", ";a=b/x.css", "%252fx.css", "/..;/static/x.css",
]  # fmt: skip


@pytest.mark.parametrize("suffix", DECEIVING)
async def test_a_page_under_a_stylesheets_name_is_one_users(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], suffix: str
) -> None:
    """And so is one whose path a server may take for another one (/static/..%2faccount)."""
    directory = rules(
        "rules: [{name: styles, match: {path: ['*.css', '/static/**', 'robots.txt']}, ttl: 1h}]"
    )
    origin.cache_control = None
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for target in (
            f"/account{suffix}",
            f"/static/..%2faccount{suffix}",
            f"/static/%2e%2e%5caccount{suffix}",
        ):
            origin.reply(
                target.partition("?")[0],
                headers=[("Content-Type", "text/html; charset=utf-8")],
                body=lambda asked: f"page of {asked.get('cookie')}".encode(),
            )
            for user in ("ann", "ben", "ben"):
                answer = await edge.get(target, ("Cookie", f"user={user}"))
                assert answer.body == f"page of user={user}".encode()


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ([("Cookie", "plan=tin; plan=gold")], "/p"),
        ([("Cookie", "plan=gold; plan=tin")], "/p"),
        ([("Cookie", "plan=gold"), ("Cookie", "plan=tin")], "/p"),
        ([("X-Beta", "1"), ("X-Beta", "0")], "/p"),
        ([], "/p?v=1&v=2"),
    ],
)
async def test_who_says_both_of_two_rules_is_answered_for_himself(
    origin: LedgerOrigin,
    clock: DrivenClock,
    rules: Callable[[str], Path],
    fields: list[tuple[str, str]],
    target: str,
) -> None:
    """We take one cookie of a name, the origin may take the other: its answer was kept under the first."""
    directory = rules(
        "rules:\n"
        "  - {name: gold, match: {path: '/p', cookies: {plan: gold}}, ttl: 10m}\n"
        "  - {name: beta, match: {path: '/p', headers: {x-beta: '1'}}, ttl: 10m}\n"
        "  - {name: v, match: {path: '/p', query: {v: '1'}}, ttl: 10m, key: {query: {allow: []}}}\n"
        "  - {name: all, match: {path: '/p'}, ttl: 10m}\n"
    )
    origin.reply("/p", body=said)
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for _ in range(HITS):
            assert (await edge.get(target, *fields))["X-Cache-Status"] == "BYPASS"
        for others in ([], [("Cookie", "plan=gold")], [("Cookie", "plan=tin; x=1")], [("X-Beta", "1")]):
            for result in ("MISS", "HIT"):
                answer = await edge.get("/p", *others)
                if others != [("Cookie", "plan=tin; x=1")]:
                    assert answer["X-Cache-Status"] == result
                assert b"plan=tin; plan" not in answer.body
                assert b"; plan=tin" not in answer.body
        assert (await edge.get("/p", ("Cookie", "plan=gold; a=b; plan=gold")))["X-Cache-Status"] == "HIT"


async def test_what_connection_names_stays_where_it_must(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """G3. Nor can it name what the edge adds."""
    stays = [
        ("Host", "a.test"), ("Authorization", "Basic eA=="), ("Cookie", "a=b"), ("Cache-Control", "no-store"),
        ("Content-Type", "text/plain"), ("Content-Encoding", "gzip"),
    ]  # fmt: skip
    names = ", ".join(name.lower() for name, _ in stays)
    ours = "x-forwarded-for, x-forwarded-proto, via, x-request-id"
    named = f"{names}, content-length, transfer-encoding, x-mine, {ours}"
    answered = [
        ("Connection", "Set-Cookie, X-Gone"), ("Set-Cookie", "a=b"), ("X-Gone", "y"),
        ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"), ("Proxy-Authenticate", "Basic"),
    ]  # fmt: skip
    origin.reply("/p", headers=answered)
    async with running_edge(origin.url, clock=clock) as edge:
        answer = await edge.request(
            "POST", "/p", [*stays, ("X-Mine", "y"), ("TE", "trailers"), ("Connection", named)], b"hello"
        )
        (asked,) = origin.requests
        for name, value in stays:
            assert asked.all(name) == [value]
        assert (asked.all("content-length"), bytes(asked.body)) == (["5"], b"hello")
        assert asked.all("x-forwarded-for") == ["127.0.0.1"]
        for name in ("via", "x-request-id", "x-forwarded-proto"):
            assert len(asked.all(name)) == 1
        for name in ("x-mine", "te", "connection", "keep-alive", "trailer"):
            assert asked.all(name) == []
        assert answer["Set-Cookie"] == "a=b"
        for name in ("x-gone", "keep-alive", "upgrade", "proxy-authenticate"):
            assert name not in answer


async def test_a_url_has_no_more_variants_than_it_may(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Whoever makes them up drives out the oldest of that URL, and nothing else."""
    from edgeproxy.store.codec import MOST_VARIANTS

    origin.reply("/p", headers=[*KEPT, ("Vary", "X-Made-Up")], body=said)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/other")
        for number in range(3 * MOST_VARIANTS):
            await edge.get("/p", ("X-Made-Up", str(number)))
        assert edge.worker.store.memory.entries == MOST_VARIANTS + 1
        assert (await edge.get("/other"))["X-Cache-Status"] == "HIT"


async def test_a_loop_has_an_end(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """An edge that is its own origin, by mistake or by somebody's DNS: each round adds to Via."""
    async with running_edge(origin.url, clock=clock) as edge:
        via = ", ".join(["1.1 edgeproxy"] * MOST_HOPS)
        assert (await edge.get("/p", ("Via", via))).status == 200
        for fields in ([("Via", f"{via}, 1.1 b")], [("Via", via), ("Via", "1.1 b")]):
            for _ in range(HITS):
                assert (await edge.get("/p", *fields)).status == 508
    assert origin.count("/p") == 1


async def test_a_stored_value_splits_nothing(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """What looks like a line end to somebody else is octets, and what is one is no answer."""
    for path, value in (
        ("/a", "x%0d%0aSet-Cookie: a=b"),
        ("/b", "x\\r\\nX: y"),
        ("/c", "\xe5\x98\x8a\xe5\x98\x8d"),
    ):
        origin.reply(path, headers=[*KEPT, ("Location", value), ("ETag", f'"{value}"')])
    origin.script("/d", [b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX: a\rSet-Cookie: b\r\n\r\n", FIN])
    async with running_edge(origin.url, clock=clock) as edge:
        for path in ("/a", "/b", "/c"):
            for _ in range(HITS):
                answer = await edge.get(path)
                assert answer.status == 200
                assert "set-cookie" not in answer
                assert "x" not in answer
        assert (await edge.get("/d")).status == 502
