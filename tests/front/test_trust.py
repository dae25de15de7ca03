"""Whose X-Forwarded-For and X-Forwarded-Proto count, and what comes of them: log, origin, key, lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.front.trust import Trust
from edgeproxy.networks import networks_in
from edgeproxy.policy.head import Headers
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

TRUST = Trust(networks_in("10.0.0.0/8, 127.0.0.0/8, fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6", "192.0.2.7,10.1.1.1"], "192.0.2.7"),
        ("10.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711, fd00::2"], "2001:db8::1"),
        ("10.0.0.1", ["6.6.6.6, unknown, 10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, , "], "6.6.6.6"),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("192.0.2.1", ["6.6.6.6"], "192.0.2.1"),
        ("", ["6.6.6.6"], ""),
    ],
)
def test_whose_request_it_is(peer: str, forwarded: list[str], client: str) -> None:
    headers = Headers.of([("X-Forwarded-For", line) for line in forwarded])
    assert TRUST.source(peer, "http", headers).client == client


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        ("10.0.0.1", ["https"], "https"),
        ("10.0.0.1", ["HTTPS"], "https"),
        ("10.0.0.1", ["ws"], "http"),
        ("10.0.0.1", ["https, http"], "http"),
        ("10.0.0.1", ["https", "http"], "http"),
        ("10.0.0.1", [], "http"),
        ("192.0.2.1", ["https"], "http"),
    ],
)
def test_which_scheme_it_had(peer: str, proto: list[str], scheme: str) -> None:
    headers = Headers.of([("X-Forwarded-Proto", line) for line in proto])
    assert TRUST.source(peer, "http", headers).scheme == scheme
    assert TRUST.source("10.0.0.1", "https", Headers.of([("X-Forwarded-Proto", "http")])).scheme == "http"


def test_what_the_origin_is_told() -> None:
    headers = Headers.of([("X-Forwarded-For", "6.6.6.6,unknown"), ("X-Forwarded-For", "192.0.2.7")])
    assert TRUST.source("10.0.0.1", "http", headers).chain == "6.6.6.6, unknown, 192.0.2.7, 10.0.0.1"
    assert TRUST.source("192.0.2.1", "http", headers).chain == "192.0.2.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client", "scheme"),
    [
        ("10.0.0.1", ["for=192.0.2.7"], "192.0.2.7", "http"),
        ("10.0.0.1", ["For=192.0.2.7;Proto=HTTPS;by=10.0.0.1"], "192.0.2.7", "https"),
        ("10.0.0.1", ["for=6.6.6.6;proto=https, for=192.0.2.7"], "192.0.2.7", "http"),
        ("10.0.0.1", ["for=6.6.6.6", 'for="192.0.2.7:47";proto=https, for=10.2.2.2'], "192.0.2.7", "https"),
        ("10.0.0.1", ['for="[2001:db8::1]:4711"'], "2001:db8::1", "http"),
        ("10.0.0.1", ['for=6.6.6.6, for=_hidden, for="10.1.1.1"'], "10.1.1.1", "http"),
        ("10.0.0.1", ['for="a, for=6.6.6.6"'], "10.0.0.1", "http"),
        ("10.0.0.1", ["proto=https"], "10.0.0.1", "http"),
        ("192.0.2.1", ["for=6.6.6.6;proto=https"], "192.0.2.1", "http"),
    ],
)
def test_forwarded(peer: str, forwarded: list[str], client: str, scheme: str) -> None:
    """RFC 7239; "proto" of the element that names the client."""
    headers = Headers.of([("Forwarded", line) for line in forwarded])
    source = TRUST.source(peer, "http", headers)
    assert (source.client, source.scheme) == (client, scheme)
    beside = Headers.of([*(("Forwarded", line) for line in forwarded), ("X-Forwarded-For", "203.0.113.5")])
    assert TRUST.source("10.0.0.1", "http", beside).client == "203.0.113.5"


def test_what_the_origin_is_told_of_forwarded() -> None:
    headers = Headers.of([("Forwarded", 'for="a, b\\"c", for=192.0.2.7')])
    assert TRUST.source("10.0.0.1", "http", headers).chain == "unknown, 192.0.2.7, 10.0.0.1"


FIELDS = (("X-Forwarded-For", "6.6.6.6, 192.0.2.7"), ("X-Forwarded-Proto", "https"))


async def test_a_trusted_proxy_is_believed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Log, origin and key; an answer for https is none for http."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with running_edge(origin.url, clock=clock, trusted_proxies="127.0.0.1") as edge:
        assert (await edge.get("/a", *FIELDS))["X-Cache-Status"] == "MISS"
        assert (await edge.get("/a", *FIELDS))["X-Cache-Status"] == "HIT"
        assert (await edge.get("/a"))["X-Cache-Status"] == "MISS"
        assert [trace.client for trace in edge.traces] == ["192.0.2.7", "192.0.2.7", "127.0.0.1"]
        told = [(r.all("x-forwarded-for"), r.all("x-forwarded-proto")) for r in origin.of("/a")]
        assert told == [(["6.6.6.6, 192.0.2.7, 127.0.0.1"], ["https"]), (["127.0.0.1"], ["http"])]
        found = await edge.worker.operator.entry(f"https://{edge.traces[0].host}/a", [])
        assert found is not None
        assert "https" in str(found["key"])


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24"])
async def test_others_are_not(origin: LedgerOrigin, clock: DrivenClock, trusted: str) -> None:
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with running_edge(origin.url, clock=clock, trusted_proxies=trusted) as edge:
        assert (await edge.get("/a", *FIELDS))["X-Cache-Status"] == "MISS"
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"
        assert [trace.client for trace in edge.traces] == ["127.0.0.1"] * 2
        (asked,) = origin.of("/a")
        assert asked.all("x-forwarded-for") == ["127.0.0.1"]
        assert asked.all("x-forwarded-proto") == ["http"]


@pytest.mark.parametrize(("trusted", "fields", "learned"), [
    ("127.0.0.1", FIELDS[:1], False),
    ("127.0.0.1", FIELDS[1:], False),
    ("192.0.2.0/24", FIELDS, False),
    ("127.0.0.1", (), True),
    ("", FIELDS, True),
])  # fmt: skip
async def test_the_lane_knows_octets_alone(
    origin: LedgerOrigin,
    clock: DrivenClock,
    trusted: str,
    fields: tuple[tuple[str, str], ...],
    learned: bool,
) -> None:
    """The same octets mean one thing from a trusted peer and another from others: not for the lane."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=60")])
    async with (
        running_edge(origin.url, clock=clock, trusted_proxies=trusted) as edge,
        edge.client() as client,
    ):
        for _ in range(6):
            assert (await client.request("GET", "/a", headers=fields)).status == 200
        lane = edge.worker.handler.lane
        assert lane is not None
        lane.fold()
        assert (lane.hits > 0) is learned
        assert origin.count("/a") == 1


async def test_the_clients_host_where_the_origin_gets_another(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock, origin_host="api.internal") as edge:
        for target in ("/a", "/b"):  # /b: from the block that /a was learned with
            await edge.get(target, ("X-Forwarded-Host", "evil.test"))
            (recorded,) = origin.of(target)
            assert recorded.all("host") == ["api.internal"]
            assert recorded.all("x-forwarded-host") == ["example.test"]
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/c", ("X-Forwarded-Host", "evil.test"))
        assert origin.of("/c")[0].all("x-forwarded-host") == []
