"""What comes out beside answers: logs, metrics, error pages, the admin port.

Nothing that strangers send makes them grow, forges a line of them, or brings out a secret.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from edgeproxy.admin.api import ROUTES
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure, Tier
from tests.support.edge import TOKEN, Edge, running_edge
from tests.support.ledger import FIN, LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.engine.exchange import Answer, Exchange
    from tests.support.driven import DrivenClock

BEARER = {"Authorization": f"Bearer {TOKEN}"}
MADE_UP = "zqx"


def series(edge: Edge) -> set[str]:
    lines = edge.worker.metrics.render().decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


async def test_no_request_makes_a_series(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    """Methods, hosts, paths, parameters, fields and request ids that nobody has ever heard of."""
    directory = rules(f"rules: [{{name: all, match: {{path: '/{MADE_UP}/{{id}}'}}, ttl: 1m}}]")
    async with running_edge(origin.url, clock=clock, rules=directory, trace_from="all") as edge:

        async def strange(number: int) -> None:
            word = f"{MADE_UP}{number}"
            named = [(f"X-{word}", word), ("X-Request-ID", word), ("Cookie", word)]
            fields = [("Host", f"{word}.test"), *named]
            await edge.get(f"/{MADE_UP}/{word}?{word}={word}", *fields)
            await edge.request(word.upper(), f"/{word}", fields)
            await edge.get(f'/"{{{word}}},\\n%0a', ("Host", "bad host"))

        for number in range(20):
            await strange(number)
        before = series(edge)
        for number in range(20, 120):
            await strange(number)
        for number in range(10_000):
            word = f"{MADE_UP}{number}"
            trace = Trace(word, 1.0, word, f"{word}.test", f"/{word}", f"2001:db8:{number:x}::1")
            trace.status = number % 1000
            trace.word, trace.tier = CacheWord.BYPASS, Tier.ORIGIN
            trace.rule = "none" if number % 2 else "all"
            trace.failure = OriginFailure.RESET if number % 3 else None
            edge.worker.handler.finish(trace)
        after = series(edge)
        assert after == before
        assert not [name for name in after if MADE_UP in name.lower()]


GARBAGE = [
    b"\x1b[2JHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX\x1b[31m: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\nERROR edgeproxy: forged\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1bz\r\nERROR forged\r\n",
]


@pytest.mark.parametrize("octets", GARBAGE)
async def test_an_origin_forges_no_line_of_the_log(
    origin: LedgerOrigin, clock: DrivenClock, caplog: pytest.LogCaptureFixture, octets: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    origin.script("/a", [octets, FIN])
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.send(b"GET /a HTTP/1.1\r\nHost: e.test\r\n\r\n")
            answer = await client.read_answer()
        assert not answer.complete or answer.status == 502
    told = [record.getMessage() for record in caplog.records if record.name.startswith("edgeproxy")]
    assert any("the origin fails" in line for line in told)
    for line in told:
        assert line.isprintable(), line


async def test_an_error_page_shows_nothing_of_the_request(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.script("/", [FIN])
    async with running_edge(origin.url, clock=clock) as edge:
        for target, host in (
            ("/<script>alert(1)</script>", "a.test"), ('/"},{"x":"', "a.test"), ("/a\x80\xff", "a.test"),
            ("/a", "<script>"), ("/a#<b>", "a.test"), ("http://<u>@x/", "a.test"),
        ):  # fmt: skip
            origin.script(target.partition("?")[0], [FIN])
            answer = await edge.get(target, ("Host", host), ("X-Request-ID", "<b>"))
            assert answer.status in (400, 502)
            assert answer["Content-Type"] == "application/problem+json"
            assert json.loads(answer.body)["status"] == answer.status
            assert b"<" not in answer.body
            assert re.fullmatch(rb"[ -~]+", answer.body)


async def test_no_secret_comes_out_anywhere(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One in each place where one may be configured or sent; every output is looked through, at level debug,
    while the store is down, the origin fails and something crashes."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(
        "pools: {api: {origins: ['http://127.0.0.1:1']}}\n"
        "rules:\n"
        "  - name: api\n    match: {path: '/api/**'}\n    origin: api\n"
        "    key: {headers: [x-api-key], cookies: [sid]}\n    ttl: 1m\n"
        "    request_headers: {set: {authorization: 'Bearer canary-origin', x-key: canary-origin-key}}\n"
    )
    (tmp_path / "read").write_text("canary-read-token")
    (tmp_path / "store").write_text("canary-store-password")
    sent = [
        ("Authorization", "Bearer canary-bearer"), ("Cookie", "sid=canary-cookie; b=canary-b"),
        ("X-Api-Key", "canary-key"), ("Proxy-Authorization", "Basic canary-proxy"),
    ]  # fmt: skip
    target = "/api/x?token=canary-token&password=canary-query&page=1"
    flags: dict[str, Any] = {
        "rules": tmp_path / "rules", "read_token_file": tmp_path / "read", "access_log": tmp_path / "log",
        "store_password_file": tmp_path / "store", "store": "redis://canary-user@127.0.0.1:1/0",
        "cache_dir": tmp_path / "cache", "rule_history": 5,
    }  # fmt: skip
    async with running_edge(origin.url, clock=clock, **flags) as edge:
        out = []
        for path in (target, "/b?access_token=canary-access"):
            out += [(await edge.get(path, *sent)).raw for _ in range(3)]
            out.append((await edge.request("POST", path, sent, b"canary-body")).raw)

        async def broken(exchange: Exchange) -> Answer:
            raise RuntimeError("broken")

        whole = edge.worker.engine.handle
        edge.worker.engine.handle = broken  # type: ignore[method-assign]
        out.append((await edge.request("POST", target, sent, b"canary-body")).raw)
        edge.worker.engine.handle = whole  # type: ignore[method-assign]
        admin = f"http://127.0.0.1:{edge.worker.admin_port}"
        async with aiohttp.ClientSession() as session:
            for route in ROUTES:
                if route.method != "GET" or "{" in route.path or route.path == "/api/events":
                    continue
                of_url = route.path in ("/api/explain", "/api/cache/entry")
                asked = f"{admin}{route.path}" + (f"?url=http://{edge.host}/api/x" if of_url else "")
                for fields in (BEARER, {}):
                    async with session.get(asked, headers=fields) as answer:
                        assert not fields or answer.status in (200, 400, 404, 503), route.path
                        out.append(await answer.read())
            wrong = {"Authorization": "Bearer canary-wrong-token"}
            async with session.post(f"{admin}/api/cache/purge", headers=wrong, json={"all": True}) as answer:
                assert answer.status == 401
                out.append(await answer.read())
            async with session.get(f"{admin}/api/audit", headers=BEARER) as answer:
                out.append(await answer.read())
        out.append(repr(edge.worker.settings).encode())
    out.append((tmp_path / "log").read_bytes())
    out.extend(caplog.handler.format(record).encode() for record in caplog.records)
    found = {secret for text in out for secret in re.findall(rb"canary-[a-z-]+", text)}
    assert found == set()
    assert not [text for text in out if TOKEN.encode() in text]
    assert b"token=***" in b"".join(out)
