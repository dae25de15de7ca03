"""Spans of a real worker, read by a real collector; and that nothing changes for what is not recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edgeproxy.front.followed import Followed
from edgeproxy.front.sampled import SampledLane
from edgeproxy.front.traced import MOST_DRAWN, Sampling
from edgeproxy.policy.head import Headers
from edgeproxy.rules.differences import Differences
from tests.support.edge import running_edge
from tests.support.ledger import FIN, LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.edge import Edge

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED = ("traceparent", f"00-{TRACE}-{PARENT}-01")
NOT_RECORDED = ("traceparent", f"00-{TRACE}-{PARENT}-00")
RULES = "rules: [{name: items, match: {path: '/items/**'}, ttl: 1h}]\n"


class Collector:
    """What it was sent: spans by name, attributes plain."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.resource: dict[str, Any] = {}
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for resource in told.resource_spans:
            self.resource = attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        {
                            "name": span.name,
                            "kind": span.kind,
                            "trace": span.trace_id.hex(),
                            "span": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                            "status": span.status.code,
                            "said": span.status.message,
                            **attributes(span.attributes),
                        }
                    )
        return web.Response(content_type="application/x-protobuf")

    def of_kind(self, kind: int) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["kind"] == kind]


SERVER, CLIENT = 2, 3


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as running:
        yield running


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(RULES)
    return tmp_path


def sent(origin: LedgerOrigin, number: int = -1) -> dict[str, str]:
    """The trace fields that the origin got."""
    told = {name.lower(): value for name, value in origin.requests[number].headers}
    return {name: told[name] for name in ("traceparent", "tracestate") if name in told}


async def flushed(edge: Edge) -> None:
    await edge.until(lambda: not edge.worker.handler.in_flight)
    spans = edge.worker.telemetry.spans
    assert spans is not None
    await asyncio.to_thread(spans._provider.force_flush)


async def test_a_recorded_request_goes_on_under_an_id_of_ours(
    origin: LedgerOrigin, collector: Collector, rules: Path
) -> None:
    async with running_edge(
        origin.url, rules=rules, otlp=collector.url, trace_sample=0, trace_from="all"
    ) as edge:
        answer = await edge.get("/items/1?secret=x", RECORDED, ("tracestate", "a=1"))
        assert answer.status == 200
        hit = await edge.get("/items/1?secret=x", RECORDED)
        assert hit.get("x-cache-status") == "HIT"
        await flushed(edge)
    told = sent(origin)
    version, trace, fetch, flags = told["traceparent"].split("-")
    assert (version, trace, flags, told["tracestate"]) == ("00", TRACE, "01", "a=1")
    assert fetch != PARENT
    first, second = sorted(collector.of_kind(SERVER), key=lambda span: span["edgeproxy.cache"] == "HIT")
    (asked,) = collector.of_kind(CLIENT)
    assert (first["trace"], first["parent"], first["name"]) == (TRACE, PARENT, "GET items")
    assert (first["edgeproxy.cache"], first["http.response.status_code"]) == ("MISS", 200)
    assert (first["url.path"], first["edgeproxy.stored"]) == ("/items/1", True)
    assert (asked["span"], asked["parent"], asked["trace"]) == (fetch, first["span"], TRACE)
    assert (second["edgeproxy.cache"], second["parent"]) == ("HIT", PARENT)
    assert second["span"] != first["span"]
    assert "secret" not in str(collector.spans)
    assert collector.resource["service.name"] == "edgeproxy"


@pytest.mark.parametrize("field", [NOT_RECORDED, ("traceparent", "nonsense"), None])
async def test_what_is_not_recorded_passes_as_it_came(
    origin: LedgerOrigin, collector: Collector, rules: Path, field: tuple[str, str] | None
) -> None:
    fields = [] if field is None else [field, ("tracestate", "a=1")]
    flags: tuple[dict[str, Any], ...] = ({"otlp": collector.url, "trace_sample": "0"}, {})
    for more in flags:
        async with running_edge(origin.url, rules=rules, trace_from="all", **more) as edge:
            for target in ("/items/1", "/items/1", "/plain"):
                await edge.get(target, *fields)
            assert sent(origin) == dict(fields)
            assert all(trace.span is None for trace in edge.traces)
            if more:
                await flushed(edge)
    assert collector.spans == []


async def test_without_an_exporter_a_recorded_trace_passes_as_it_came(origin: LedgerOrigin) -> None:
    async with running_edge(origin.url, trace_from="all") as edge:
        await edge.get("/a", RECORDED, ("tracestate", "a=1"))
        assert edge.worker.telemetry.spans is None
    assert sent(origin) == {"traceparent": RECORDED[1], "tracestate": "a=1"}


async def test_every_request_is_recorded_though_the_lane_knows_it(
    origin: LedgerOrigin, collector: Collector, rules: Path
) -> None:
    """The same octets again and again: without traces all but the first two are the lane's."""
    async with running_edge(origin.url, rules=rules, otlp=collector.url, trace_sample=1) as edge:
        async with edge.client() as client:
            for _ in range(6):
                answer = await client.request("GET", "/items/1")
                assert answer.status == 200
        lane = edge.worker.handler.lane
        assert lane is not None
        lane.fold()
        assert lane.hits == 0
        await flushed(edge)
    words = [span["edgeproxy.cache"] for span in collector.of_kind(SERVER)]
    assert sorted(words) == ["HIT"] * 5 + ["MISS"]
    assert len({span["trace"] for span in collector.of_kind(SERVER)}) == 6
    assert all(span["parent"] == "" for span in collector.of_kind(SERVER))


async def test_what_is_recorded_stays_so_while_other_rules_are_tried(
    origin: LedgerOrigin, collector: Collector, rules: Path
) -> None:
    async with running_edge(origin.url, rules=rules, otlp=collector.url, trace_sample=1) as edge:
        lane = edge.worker.handler.lane
        assert lane is not None
        differences = Differences(1000, str)
        differences.left = 1000
        edge.worker.handler.lane = SampledLane(lane, differences)
        async with edge.client() as client:
            for _ in range(6):
                assert (await client.request("GET", "/items/1")).status == 200
        lane.fold()
        assert (lane.hits, differences.left) == (0, 1000)
        await flushed(edge)
    assert len(collector.of_kind(SERVER)) == 6


async def test_what_is_not_drawn_stays_with_the_lane_and_is_answered_alike(
    origin: LedgerOrigin, collector: Collector, rules: Path
) -> None:
    told: list[list[tuple[int, str | None]]] = []
    flags: tuple[dict[str, Any], ...] = ({}, {"otlp": collector.url, "trace_sample": "0"})
    for more in flags:
        async with running_edge(origin.url, rules=rules, **more) as edge, edge.client() as client:
            told.append([])
            for target in ("/items/1", "/items/1", "/items/1", "/items/1", "/plain", "/plain"):
                answer = await client.request("GET", target)
                told[-1].append((answer.status, answer.get("x-cache-status")))
            lane = edge.worker.handler.lane
            assert lane is not None
            lane.fold()
            assert lane.hits > 0
    assert told[0] == told[1]
    assert collector.spans == []


async def test_a_failure_is_told(origin: LedgerOrigin, collector: Collector) -> None:
    origin.script("/broken", [FIN])
    async with running_edge(origin.url, otlp=collector.url, trace_sample=1) as edge:
        assert (await edge.get("/broken")).status == 502
        assert (await edge.request("PROPFIND", "/odd")).status
        await flushed(edge)
    failed = next(span for span in collector.of_kind(SERVER) if span["url.path"] == "/broken")
    assert (failed["status"], failed["said"], failed["edgeproxy.reason"]) == (2, "reset", "reset")
    assert {span["name"] for span in collector.of_kind(SERVER)} == {"GET none", "HTTP none"}


async def test_a_collector_that_is_not_there_costs_no_request(origin: LedgerOrigin) -> None:
    async with running_edge(origin.url, otlp="http://127.0.0.1:9", trace_sample=1) as edge:
        assert (await edge.get("/a")).status == 200


def test_a_draw_holds_until_the_ordinary_way_has_it() -> None:
    draws = iter([0.0, 0.9, 0.0, 0.9])
    sampling = Sampling(0.5, lambda: next(draws), Followed("all"))
    one, two = bytes(bytearray(b"GET / HTTP/1.1\r\n\r\n")), bytes(bytearray(b"GET / HTTP/1.1\r\n\r\n"))
    assert [sampling.wants(one, "") for _ in range(3)] == [True] * 3  # lane, short way, and again when parsed
    assert [sampling.wants(two, "") for _ in range(3)] == [False] * 3
    assert sampling.begin(Headers(), one) is not None
    assert sampling.begin(Headers(), two) is None
    assert sampling.begin(Headers(), None) is not None  # what never passed by the lane is drawn there
    assert sampling.begin(Headers(), one) is None


def test_what_is_remembered_is_bounded() -> None:
    sampling = Sampling(0.5, lambda: 0.0, Followed("all"))
    kept = [b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(3 * MOST_DRAWN)]
    assert all(sampling.wants(data, "") for data in kept)
    assert len(sampling._drawn) <= MOST_DRAWN
