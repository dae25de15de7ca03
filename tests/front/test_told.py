"""What the origin is told of clients, and whose ids and traces are taken over: every way out alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.engine.forwarded import forwarded
from edgeproxy.front.blocks import Blocks
from edgeproxy.front.followed import Followed
from edgeproxy.front.traced import Sampling
from edgeproxy.networks import networks_in
from edgeproxy.policy.trace_context import TRACE
from edgeproxy.rules.model import KeyPolicy, Rule
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin, Recorded

KEPT = [("Cache-Control", "max-age=60")]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STALE = (
    ("Forwarded", "for=6.6.6.6;host=evil.test;proto=https"),
    ("forwarded", "for=6.6.6.7"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X-Forwarded-Host", "evil.test"),
    ("X-Forwarded-Proto", "https"),
)


@pytest.mark.parametrize(
    ("chain", "client", "host", "value"),
    [
        ("192.0.2.7", "192.0.2.7", "a.test", "for=192.0.2.7;host=a.test;proto=http"),
        ("192.0.2.7", "192.0.2.7", "a.test:80", 'for=192.0.2.7;host="a.test:80";proto=http'),
        ("192.0.2.7", "192.0.2.7", "", "for=192.0.2.7;proto=http"),
        ("2001:db8::1", "2001:db8::1", "[::1]", 'for="[2001:db8::1]";host="[::1]";proto=http'),
        ("", "", "a", "for=unknown;host=a;proto=http"),
        ("6.6.6.6, 192.0.2.7, 10.0.0.1", "192.0.2.7", "",
         "for=6.6.6.6, for=192.0.2.7;proto=http, for=10.0.0.1"),
        ('6.6.6.6:1, un"k, [::2]:3, 10.0.0.1', "10.0.0.1", "",
         'for=6.6.6.6, for=unknown, for="[::2]", for=10.0.0.1;proto=http'),
        ("192.0.2.7, 10.0.0.1, 192.0.2.7", "192.0.2.7", "",
         "for=192.0.2.7, for=10.0.0.1, for=192.0.2.7;proto=http"),
    ],
)  # fmt: skip
def test_forwarded(chain: str, client: str, host: str, value: str) -> None:
    assert forwarded(chain, client, "http", host) == value


def told(asked: Recorded) -> dict[str, list[str]]:
    names = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
    return {name: found for name in names if (found := asked.all(name))}


@pytest.mark.parametrize("lane", ["on", "off"])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"x-forwarded-for": ["127.0.0.1"], "x-forwarded-proto": ["http"]}),
        ({"forwarded_fields": "forwarded"}, {"forwarded": ["for=127.0.0.1;host=e.test;proto=http"]}),
        ({"forwarded_fields": ""}, {}),
        ({"origin_host": "o.test"}, {"x-forwarded-for": ["127.0.0.1"], "x-forwarded-host": ["e.test"],
                                     "x-forwarded-proto": ["http"]}),
        ({"origin_host": "o.test", "forwarded_fields": "x-forwarded-for"},
         {"x-forwarded-for": ["127.0.0.1"]}),
        ({"trusted_proxies": "127.0.0.1", "forwarded_fields": "forwarded,x-forwarded-for"},
         {"forwarded": ["for=6.6.6.6;host=e.test;proto=https, for=127.0.0.1"],
          "x-forwarded-for": ["6.6.6.6, 127.0.0.1"]}),
    ],
)  # fmt: skip
async def test_what_the_origin_is_told(
    origin: LedgerOrigin, flags: dict[str, Any], expected: dict[str, list[str]], lane: str
) -> None:
    """Whatever the client says: the short way (a block learned with another target) and the ordinary one."""
    fields = [field for field in STALE if "trusted_proxies" not in flags or field[0].startswith("X-")]
    async with running_edge(origin.url, clock=DrivenClock(), lane=lane, **flags) as edge:
        async with edge.client() as client:
            for number in range(4):
                await client.request("GET", f"/{number}", [("Host", "e.test"), *fields])
        await edge.request("POST", "/4", [("Host", "e.test"), *fields], b"x")
    assert [told(asked) for asked in origin.requests] == [expected] * 5
    for asked in origin.requests:
        assert "evil" not in str(asked.headers)
        assert asked.all("x_forwarded_for") == []


# -- ids and traces ---------------------------------------------------------------------------------------


IDS = (("X-Request-ID", "mine"), ("traceparent", PARENT), ("tracestate", "a=1"))


@pytest.mark.parametrize("lane", ["on", "off"])
@pytest.mark.parametrize(
    ("flags", "followed"),
    [
        ({}, False),
        ({"trusted_proxies": "192.0.2.0/24"}, False),
        ({"trusted_proxies": "127.0.0.1"}, True),
        ({"trace_from": "all"}, True),
        ({"trace_from": "none", "trusted_proxies": "127.0.0.1"}, False),
    ],
)
async def test_whose_ids_are_taken_over(
    origin: LedgerOrigin, flags: dict[str, Any], followed: bool, lane: str
) -> None:
    """Of each way: a POST, a GET with an id (both the ordinary), GETs without one (the short, then with a
    block that is known)."""
    async with running_edge(origin.url, clock=DrivenClock(), lane=lane, **flags) as edge:
        for method, target in (("POST", "/p"), ("GET", "/g")):
            answer = await edge.request(method, target, IDS, b"x" if method == "POST" else None)
            (asked,) = origin.of(target)
            assert asked.all("x-request-id") == answer.all("x-request-id")
            assert (answer["x-request-id"] == "mine") is followed
            assert asked.all("traceparent") == ([PARENT] if followed else [])
        async with edge.client() as client:
            for number in range(4):
                await client.request("GET", f"/{number}", IDS[1:])
                (asked,) = origin.of(f"/{number}")
                assert asked.all("traceparent") == ([PARENT] if followed else [])
                assert asked.all("tracestate") == (["a=1"] if followed else [])


async def octets_from(edge: Edge, peers: str, segment: bytes) -> list[bytes]:
    """What each of ``peers`` ("t" trusted, "s" a stranger) is answered, without what differs anyway."""
    found = []
    for peer in peers:
        address = "192.0.2.1" if peer == "t" else "198.51.100.1"
        async with edge.client() as client:
            await client.send(b"PROXY TCP4 %b 192.0.2.9 1 2\r\n" % address.encode() + segment)
            for _ in range(3):
                answer = (await client.read_answer()).raw
                answer = re.sub(rb"X-(Request-ID|Serial): [^\r]*\r\n", b"", answer)
                found.append(re.sub(rb"dur=[0-9.]+", b"dur=", answer))
                await client.send(segment)
            await client.read_answer()
    return found


@pytest.mark.parametrize("keyed", [True, False])
async def test_the_same_octets_from_some_mean_what_they_do_not_from_others(
    origin: LedgerOrigin, rules: Callable[[str], Path], keyed: bool
) -> None:
    """A rule that has traceparent in its key, which no rule should; and one that has not, where the lane
    answers. Lane, short way and the ordinary way agree, in whatever order the peers come."""
    key = "key: {headers: [traceparent]}, " if keyed else ""
    directory = rules(f"rules: [{{name: all, match: {{path: '/**'}}, {key}ttl: 10m}}]")
    origin.reply("/a", body=lambda asked: f"for {asked.all('traceparent')}".encode())
    segment = f"GET /a HTTP/1.1\r\nHost: e.test\r\ntraceparent: {PARENT}\r\n\r\n".encode()
    flags: dict[str, Any] = {"trusted_proxies": "192.0.2.0/24", "proxy_protocol": "127.0.0.1"}
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), rules=directory, lane=lane, **flags) as edge:
            got.append(await octets_from(edge, "sstts", segment))
            whole = edge.worker.handler.lane
            if whole is not None:
                whole.fold()
                assert (whole.hits > 0) is not keyed
    assert got[0] == got[1]
    if keyed:
        for place, answer in enumerate(got[0]):
            assert (b"4bf92f" in answer) is (6 <= place < 12)
        assert origin.count("/a") == 4


def test_a_block_is_doubted_only_where_its_field_counts() -> None:
    rule = Rule("r", "", key=KeyPolicy(headers=("traceparent",)))
    block = b"Host: a\r\nTraceParent: x\r\n\r\n"
    for of, unsure, learned in (
        (rule, TRACE, False),
        (rule, frozenset[str](), True),
        (Rule("r", ""), TRACE, True),
    ):
        blocks = Blocks[dict[bytes, int]](dict, unsure)
        blocks.rules([of])
        for _ in range(3):
            table = blocks.table(block, ())
        assert (table is not None) is learned


def test_only_of_who_is_followed_is_the_flag_read() -> None:
    sampling = Sampling(0.0, lambda: 0.5, Followed("trusted", networks_in("10.0.0.0/8")))
    head = f"GET / HTTP/1.1\r\ntraceparent: {PARENT}\r\n\r\n"
    ours, theirs = (bytes(bytearray(head.encode())) for _ in range(2))
    assert sampling.wants(ours, "10.0.0.1")
    assert not sampling.wants(theirs, "192.0.2.1")
