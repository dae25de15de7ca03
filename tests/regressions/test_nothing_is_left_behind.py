"""Cheap requests that tried to keep a place at the origin, or memory, for good."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.policy import cache_control, coding, head, http_date
from edgeproxy.policy.coding import with_plain_etags
from edgeproxy.policy.head import Headers
from edgeproxy.store.entry import Entry
from tests.support.driven import settle
from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin


async def test_a_write_to_a_host_too_long_to_purge_gives_its_place_back(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        host = "h" * 300
        await edge.get("/a", ("Host", host))
        answer = await edge.request("POST", "/a", [("Host", host)], b"x")
        assert answer.status == 200
        assert edge.worker.origin.in_flight == 0
        origin.bump("/a")
        assert (await edge.get("/a", ("Host", host))).body == origin.stamp("/a", 2)


async def test_a_write_whose_rule_names_a_prefix_too_long_gives_its_place_back(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    directory = rules(
        "rules: [{name: all, match: {path: '/a/{id}'}, ttl: 10m, invalidates: {prefixes: ['/b/{id}']}}]"
    )
    long = "x" * 2000
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        assert (await edge.request("POST", f"/a/{long}", body=b"x")).status == 200
        assert edge.worker.origin.in_flight == 0


async def test_a_client_that_stops_sending_does_not_keep_a_place_at_the_origin(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock, min_rate="0") as edge, edge.client() as client:
        await client.start("POST", "/a", [("Content-Length", "1000")])
        await client.send(b"x")
        await origin.arrived("/a")
        await clock.advance(50)
        await client.send(b"x")
        await settle(100)
        await clock.advance(50)
        assert edge.worker.origin.in_flight == 1
        await clock.advance(20)
        assert (await client.read_answer()).status == 408
        assert edge.worker.origin.in_flight == 0


async def test_the_lane_keeps_no_entry_that_the_memory_has_let_go(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """200,000 answers of 128 KiB each could stay: the lane held what L1 had evicted."""
    async with running_edge(origin.url, clock=clock, memory="1MiB") as edge, edge.client() as client:
        for number in range(40):
            path = f"/{number}"
            origin.reply(path, headers=[("Cache-Control", "max-age=600")], body=b"x" * 100_000)
            for _ in range(4):
                await client.get(path)
        assert edge.worker.store.stats()["l1_evictions"]
        edge.traces.clear()
        gc.collect()
        alive = [e for e in gc.get_objects() if isinstance(e, Entry)]
        assert sum(len(e.body) for e in alive) <= 2**20


@pytest.mark.parametrize("store", ["memory:", "lmdb:{}"])
@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("GET", "/a?{}", ()),
        ("GET", "/a", ()),
        ("GET", "/a?{}", (("Accept-Encoding", "br"),)),
        ("GET", "/a", (("Cache-Control", "no-cache"),)),
        ("GET", "/varying?{}", (("X-Lang", "de"),)),
        ("GET", "/private?{}", ()),
        ("GET", "/fails?{}", ()),
        ("GET", "/large?{}", ()),
        ("POST", "/private?{}", (("Content-Length", "0"),)),
    ],
)
async def test_a_request_leaves_nothing_to_the_collector(
    origin: LedgerOrigin,
    clock: DrivenClock,
    tmp_path: Path,
    store: str,
    method: str,
    target: str,
    fields: tuple[tuple[str, str], ...],
) -> None:
    """A miss was a cycle of 16 objects: its answer stayed until the collector came by, and under load that
    was a hundred megabytes."""
    fresh = ("Cache-Control", "max-age=600")
    origin.reply("/a", headers=[fresh], body=b"x" * 2000)
    origin.reply("/varying", headers=[fresh, ("Vary", "X-Lang")])
    origin.reply("/private", headers=[("Cache-Control", "no-store")])
    origin.reply("/fails", status=500)
    origin.reply("/large", headers=[fresh], body=b"x" * 300_000)
    async with running_edge(origin.url, clock=clock, store=store.format(tmp_path)) as edge:
        for number in range(12):
            if number == 6:
                await edge.settle()
                edge.traces.clear()
                gc.collect()
                gc.disable()
            async with edge.client() as client:
                for turn in range(3):
                    await client.request(method, target.format(f"{number}.{turn}"), headers=fields)
        await edge.settle()
        edge.traces.clear()
        await settle(20)
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            left = {type(thing).__qualname__ for thing in gc.garbage if of_the_edge(thing)}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert left == set()


def of_the_edge(thing: object) -> bool:
    return type(thing).__module__.startswith("edgeproxy.")


async def test_the_lane_learns_nothing_from_a_request_that_begins_with_an_empty_line(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """The parser skips it (RFC 9112 §2.2); counted from the wrong octet, the lane learned another target and
    later answered a request line that is none."""
    origin.reply("/a", headers=[("Cache-Control", "max-age=600")])
    block = b" HTTP/1.1\r\nHost: example.test\r\n\r\n"
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            for _ in range(4):
                await client.send(b"\r\nGET /a" + block)
                assert (await client.read_answer()).status == 200
        async with edge.client() as client:
            await client.send(b"GET T /a" + block)
            assert (await client.read_answer()).status == 400


def test_one_request_cannot_hold_the_loop_with_its_conditions() -> None:
    """A hundred thousand tags: looking each up in a list took minutes. Such a list goes on as it came."""
    for most in (600, 100_000):
        tags = ", ".join(f'"{i:x}-br"' for i in range(most))
        began = time.process_time()
        known = with_plain_etags(tags, ("br", "gzip"))
        assert time.process_time() - began < 5
        assert known.endswith(f', "{599:x}"') if most == 600 else known == tags


def said(name: str, value: str) -> Headers:
    return Headers.of([(name, value)])


@pytest.mark.parametrize(
    ("memo", "ask"),
    [
        (cache_control._of_request, lambda v: cache_control.request_directives(said("cache-control", v))),
        (cache_control._of_response, lambda v: cache_control.response_directives(said("cache-control", v))),
        (
            cache_control._of_targeted,
            lambda v: cache_control.targeted_directives(said("cdn-cache-control", v)),
        ),
        (coding._chosen, lambda v: coding.choose_coding(v, ("br",))),
        (http_date._parsed, http_date.parse_http_date),
        (head._remembered, lambda v: Headers([(v.encode(), b"")]).get("x")),
    ],
)
def test_no_memo_keeps_what_clients_made_long(memo: Any, ask: Callable[[str], object]) -> None:
    """2,048 and more values of up to two megabytes each."""
    before = memo.cache_info()
    ask("a=" + "x" * 300)
    assert memo.cache_info() == before
    ask("abc")
    assert memo.cache_info() != before
