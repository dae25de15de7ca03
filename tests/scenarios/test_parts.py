"""RFC 9110 §14, RFC 9111 §3.3 and §3.4 from socket to socket: parts stored, joined, completed and sliced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.edge import running_edge
from tests.support.ranged import Resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawAnswer

BODY = bytes(i * 7 % 251 for i in range(1000))
URL = PurgeOrder(PurgeKind.URL, "/a")


def asked(origin: LedgerOrigin) -> list[tuple[str | None, str | None]]:
    """Range and If-Range of each request that the origin has seen."""
    return [(r.get("range"), r.get("if-range")) for r in origin.of("/a")]


async def get(edge: Edge, span: str = "", *fields: tuple[str, str]) -> RawAnswer:
    answer = await edge.get("/a", *([("Range", f"bytes={span}")] if span else []), *fields)
    assert answer.complete
    await edge.settle()
    return answer


def is_part(answer: RawAnswer, start: int, stop: int, word: str | None = None) -> None:
    assert (answer.status, answer.body) == (206, BODY[start:stop])
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
    assert word is None or answer["X-Cache-Status"] == word


def is_whole(answer: RawAnswer, word: str) -> None:
    assert (answer.status, answer.body, answer["X-Cache-Status"]) == (200, BODY, word)
    assert answer.get("Content-Range") is None


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_part_is_stored_and_sliced(
    origin: LedgerOrigin,
    clock: DrivenClock,
    chunked: bool,
) -> None:
    Resource(BODY, chunked=chunked).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        is_part(await get(edge, "100-299"), 100, 300, "MISS")
        is_part(await get(edge, "100-299"), 100, 300, "HIT")
        hit = await get(edge, "150-159")
        is_part(hit, 150, 160, "HIT")
        assert hit["Content-Length"] == "10"
        beyond = await get(edge, "1000-")
        assert (beyond.status, beyond["Content-Range"]) == (416, "bytes */1000")
        assert asked(origin) == [("bytes=100-299", None)]
        # What is not in it is not answered from it.
        is_part(await get(edge, "400-"), 400, 1000, "MISS")
        assert (await edge.request("HEAD", "/a"))["X-Cache-Status"] == "MISS"
        is_whole(await get(edge), "MISS")


async def test_parts_are_joined_until_they_are_the_whole(origin: LedgerOrigin, clock: DrivenClock) -> None:
    Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        is_part(await get(edge, "0-399"), 0, 400)
        overlapping = await get(edge, "300-699")
        is_part(overlapping, 300, 700, "MISS")
        assert "fwd=partial" in (overlapping["Cache-Status"])
        is_part(await get(edge, "0-699"), 0, 700, "HIT")
        is_part(await get(edge, "700-"), 700, 1000, "MISS")
        is_whole(await get(edge), "HIT")
        is_part(await get(edge, "-10"), 990, 1000, "HIT")
        assert asked(origin) == [
            ("bytes=0-399", None),
            ("bytes=400-699", '"a"'),
            ("bytes=700-", None),
        ]


@pytest.mark.parametrize(("first", "rest"), [("0-399", "bytes=400-"), ("-600", "bytes=0-399")])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_part_is_completed(
    origin: LedgerOrigin,
    clock: DrivenClock,
    first: str,
    rest: str,
    chunked: bool,
) -> None:
    Resource(BODY, chunked=chunked).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, first)
        answer = await get(edge)
        is_whole(answer, "MISS")
        assert answer["Content-Length"] == "1000"
        assert asked(origin)[1:] == [(rest, '"a"')]
        is_whole(await get(edge), "HIT")


async def test_a_strong_last_modified_is_a_validator_too(origin: LedgerOrigin, clock: DrivenClock) -> None:
    modified = "Thu, 01 Jan 1998 00:00:00 GMT"
    said = [("Cache-Control", "max-age=60"), ("Last-Modified", modified)]
    Resource(BODY, etag="", ignores_if_range=True, headers=said).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        is_whole(await get(edge), "MISS")
        assert asked(origin)[-1] == ("bytes=400-", modified)


async def test_what_has_changed_is_never_mixed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """With If-Range the origin sends the new whole; one that ignores it is found out by the ETag."""
    resource = Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        for ignores in (False, True):
            resource.body, resource.etag, resource.ignores_if_range = BODY, '"a"', ignores
            await get(edge, "0-399")
            resource.body, resource.etag = BODY[::-1], '"b"'
            before = origin.count("/a")
            answer = await get(edge)
            assert (answer.status, answer.body) == (200, BODY[::-1])
            seen = asked(origin)[before:]
            assert seen == [("bytes=400-", '"a"'), (None, None)][: 2 if ignores else 1]
            await edge.worker.store.purge(URL)


async def test_a_range_partly_there_of_what_has_changed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    resource = Resource(BODY, ignores_if_range=True).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        resource.body, resource.etag = BODY[::-1], '"b"'
        answer = await get(edge, "300-499")
        assert (answer.status, answer.body) == (206, BODY[::-1][300:500])
        assert asked(origin)[1:] == [("bytes=400-499", '"a"'), ("bytes=300-499", None)]


@pytest.mark.parametrize("etag", ["", 'W/"a"'])
async def test_without_a_strong_validator_nothing_is_joined(
    origin: LedgerOrigin, clock: DrivenClock, etag: str
) -> None:
    Resource(BODY, etag=etag).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        is_whole(await get(edge), "MISS")
        assert asked(origin)[1:] == [("bytes=400-", None), (None, None)]
        await edge.worker.store.purge(URL)
        await get(edge, "0-399")
        is_part(await get(edge, "300-499"), 300, 500, "MISS")
        is_part(await get(edge, "100-499"), 100, 500, "MISS")


@pytest.mark.parametrize("says", ["bytes 401-999/1000", "bytes 400-998/1000", "bytes 400-999/1001", "x"])
async def test_a_rest_that_is_not_what_it_says(origin: LedgerOrigin, clock: DrivenClock, says: str) -> None:
    Resource(BODY, says={"bytes=400-": says}).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        is_whole(await get(edge), "MISS")
        assert asked(origin)[-1] == (None, None)


@pytest.mark.parametrize("sent", [BODY[:999], BODY + b"x"], ids=["less", "more"])
async def test_a_rest_of_another_length_breaks_off(
    origin: LedgerOrigin, clock: DrivenClock, sent: bytes
) -> None:
    """Chunked, so that it shows only once the head is out."""
    resource = Resource(BODY, chunked=True, gates={"bytes=400-": "g"}).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await get(edge, "0-399")
        resource.body, resource.says = sent, {"bytes=400-": "bytes 400-999/1000"}
        await client.start("GET", "/a")
        head = await client.read_head()
        assert (head.status, head["Content-Length"]) == (200, "1000")
        origin.gate("g").open()
        answer = await client.read_body(head)
        assert not answer.complete
        await edge.settle()
        is_part(await get(edge, "0-399"), 0, 400, "HIT")
        resource.body, resource.says = BODY, {}
        is_whole(await get(edge), "MISS")


async def test_a_part_of_fewer_octets_than_it_says(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Counted by Content-Length it is stored, never completed; not counted it may have been cut off."""
    for path, chunked in (("/a", False), ("/b", True)):
        Resource(b"0123456789", chunked=chunked, says={"bytes=-5": "bytes 4-9/10"}).serve(origin, path)
    async with running_edge(origin.url, clock=clock) as edge:
        assert (await get(edge, "-5"))["Content-Range"] == "bytes 4-9/10"
        for span, body, said in (("-5", b"56789", "5-9"), ("6-", b"789", "6-8"), ("-1", b"9", "9-9")):
            hit = await get(edge, span)
            assert (hit["X-Cache-Status"], hit.body) == ("HIT", body)
            assert hit["Content-Range"] == f"bytes {said}/10"
        assert (await get(edge)).body == b"0123456789"
        assert asked(origin)[1:] == [(None, None)]
        for _ in range(2):
            answer = await edge.get("/b", ("Range", "bytes=-5"))
            await edge.settle()
            assert (answer.body, answer["X-Cache-Status"]) == (b"56789", "MISS")


async def test_a_part_that_breaks_off_is_not_stored(origin: LedgerOrigin, clock: DrivenClock) -> None:
    from tests.support.ledger import FIN, head

    fields = [("Content-Range", "bytes 0-9/20"), ("Content-Length", "10"), ("Cache-Control", "max-age=60")]
    origin.script("/a", [head(206, fields), b"01234", FIN], times=1)
    Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        broken = await edge.get("/a", ("Range", "bytes=0-9"))
        assert not broken.complete
        await edge.settle()
        is_part(await get(edge, "0-4"), 0, 5, "MISS")


async def test_a_stale_part_is_confirmed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """A 304 refreshes its fields; and a stale one with a strong validator is completed."""
    resource = Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        await clock.advance(100)
        resource.headers = [*resource.headers, ("X-New", "1")]
        confirmed = await get(edge, "10-19")
        is_part(confirmed, 10, 20, "REVALIDATED")
        assert confirmed["X-New"] == "1"
        assert origin.of("/a")[1].get("if-none-match") == '"a"'
        is_part(await get(edge, "0-399"), 0, 400, "HIT")
        await clock.advance(100)
        is_whole(await get(edge), "EXPIRED")
        assert asked(origin)[-1] == ("bytes=400-", '"a"')
        is_whole(await get(edge), "HIT")


async def test_a_stale_part_that_has_changed(origin: LedgerOrigin, clock: DrivenClock) -> None:
    resource = Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        await clock.advance(100)
        resource.body, resource.etag = BODY[::-1], '"b"'
        changed = await get(edge, "10-19")
        assert (changed.status, changed.body) == (206, BODY[::-1][10:20])
        assert asked(origin)[1] == ("bytes=10-19", None)
        again = await get(edge, "12-13")
        assert (again["X-Cache-Status"], again.body) == ("HIT", BODY[::-1][12:14])


async def test_stale_parts_for_what_they_have_only(origin: LedgerOrigin, clock: DrivenClock) -> None:
    said = [("Cache-Control", "max-age=60, stale-while-revalidate=60, stale-if-error=600")]
    Resource(BODY, headers=said).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        await clock.advance(100)
        is_part(await get(edge, "10-19"), 10, 20, "UPDATING")
        assert asked(origin)[-1] == ("bytes=0-399", None)
        is_part(await get(edge, "10-399"), 10, 400, "HIT")
        await clock.advance(200)
        await origin.stop()
        is_part(await get(edge, "10-19"), 10, 20, "STALE")
        assert (await get(edge)).status == 502
        assert (await get(edge, "300-499")).status == 502


@pytest.mark.parametrize("when", ["before the answer", "while it comes"])
@pytest.mark.parametrize("span", ["", "300-499"])
async def test_a_purge_meanwhile(origin: LedgerOrigin, clock: DrivenClock, when: str, span: str) -> None:
    """The purge number of the older of both counts: what was purged is in nothing that is stored."""
    resource = Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        rest = "bytes=400-499" if span else "bytes=400-"
        if when == "while it comes":
            resource.gates[rest] = "g"
        else:
            script = resource.answer
            from tests.support.ledger import Gate

            origin.script("/a", lambda r: [Gate("g"), *script(r)], times=1)
        fields = [("Range", f"bytes={span}")] if span else []
        async with edge.client() as client:
            await client.start("GET", "/a", fields)
            await origin.gate("g").reached()
            began = await client.read_head() if when == "while it comes" else None
            await edge.worker.store.purge(URL)
            origin.gate("g").open()
            answer = await client.read_body(began or await client.read_head())
        assert answer.body == (BODY[300:500] if span else BODY)
        await edge.settle()
        # Purged before the answer: asked again, after the purge. While it came: not stored.
        wanted = "HIT" if when == "before the answer" else "MISS"
        assert (await get(edge, "310-320"))["X-Cache-Status"] == wanted
        assert (await get(edge, "10-20"))["X-Cache-Status"] == (
            "HIT" if wanted == "HIT" and not span else "MISS"
        )


@pytest.mark.parametrize("held", [False, True])
async def test_two_ranges_at_once_are_two_flights(
    origin: LedgerOrigin,
    clock: DrivenClock,
    held: bool,
) -> None:
    Resource(BODY, gates={"bytes=0-499": "one", "bytes=500-": "two"}, held=held).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:

        def begin(*fields: tuple[str, str]) -> asyncio.Task[RawAnswer]:
            return asyncio.create_task(edge.get("/a", *fields))  # noqa: TID251

        first = begin(("Range", "bytes=0-499"))
        await origin.gate("one").reached()
        follower = begin(("Range", "bytes=0-0499"))
        if held:
            await edge.waiting(1)
        second = begin(("Range", "bytes=500-"))
        await origin.gate("two").reached()
        whole = begin()
        assert (await whole).body == BODY
        origin.gate("two").open()
        is_part(await second, 500, 1000)
        origin.gate("one").open()
        is_part(await first, 0, 500)
        is_part(await follower, 0, 500)
        assert sorted(str(r) for r, _ in asked(origin)) == ["None", "bytes=0-499", "bytes=500-"]
        await edge.settle()
        is_whole(await get(edge), "HIT")


async def test_what_is_joined_is_as_old_as_its_oldest_part(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """A purge of something else lies between the parts."""
    Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        store = edge.worker.store
        await get(edge, "0-399")
        before = store.epoch
        for span, stop in (("300-499", 500), ("500-599", 600), ("", None)):
            await store.purge(PurgeOrder(PurgeKind.TAG, "other"))
            await get(edge, span)
            (entry,) = store.inspect(edge.traces[-1].key)
            part = entry.stored.part
            assert (entry.epoch, None if part is None else part.stop) == (before, stop)


async def test_parts_that_came_at_once_are_joined(origin: LedgerOrigin, clock: DrivenClock) -> None:
    Resource(BODY, gates={"bytes=0-499": "one", "bytes=500-": "two"}).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        tasks = []
        for span, gate in (("0-499", "one"), ("500-", "two")):
            tasks.append(asyncio.create_task(edge.get("/a", ("Range", f"bytes={span}"))))  # noqa: TID251
            await origin.gate(gate).reached()
            await clock.advance(1)
        for gate in ("two", "one"):
            origin.gate(gate).open()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        await edge.settle()
        is_whole(await get(edge), "HIT")


async def test_followers_of_a_completing_fetch(origin: LedgerOrigin, clock: DrivenClock) -> None:
    Resource(BODY, gates={"bytes=400-": "g"}).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        tasks = [asyncio.create_task(edge.get("/a")) for _ in range(3)]  # noqa: TID251
        await origin.gate("g").reached()
        is_part(await edge.get("/a", ("Range", "bytes=0-9")), 0, 10, "HIT")
        origin.gate("g").open()
        for answer in await asyncio.gather(*tasks):
            assert (answer.status, answer.body) == (200, BODY)
        assert len(asked(origin)) == 2


async def test_parts_survive_a_restart(origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path) -> None:
    Resource(BODY).serve(origin, "/a")
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        await get(edge, "0-399")
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        hit = await get(edge, "10-19")
        is_part(hit, 10, 20, "HIT")
        assert "tier;desc=l2" in hit["Server-Timing"]
        is_whole(await get(edge), "MISS")
        assert asked(origin)[1:] == [("bytes=400-", '"a"')]
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        is_whole(await get(edge), "HIT")


async def test_parts_of_variants_stay_apart(origin: LedgerOrigin, clock: DrivenClock) -> None:
    said = [("Cache-Control", "max-age=60"), ("Vary", "X-Lang")]
    resource = Resource(BODY, headers=said).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399", ("X-Lang", "en"))
        resource.body, resource.etag = BODY[::-1], '"de"'
        german = await get(edge, "0-399", ("X-Lang", "de"))
        assert german.body == BODY[::-1][:400]
        is_part(await get(edge, "5-9", ("X-Lang", "en")), 5, 10, "HIT")
        assert (await get(edge, "", ("X-Lang", "de"))).body == BODY[::-1]
        resource.body, resource.etag = BODY, '"a"'
        is_whole(await get(edge, "", ("X-Lang", "en")), "MISS")


async def test_too_large_a_whole_leaves_its_parts(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    Resource(BODY).serve(origin, "/a")
    directory = rules("rules: [{name: all, match: {path: '/**'}, max_object: 500}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        is_part(await get(edge, "0-399"), 0, 400)
        is_part(await get(edge, "400-799"), 400, 800, "MISS")  # both together are too large
        is_part(await get(edge, "400-799"), 400, 800, "HIT")
        is_part(await get(edge, "0-399"), 0, 400, "MISS")
        assert (await get(edge)).body == BODY
        assert asked(origin)[-1] == ("bytes=400-", '"a"')
        is_part(await get(edge, "0-399"), 0, 400, "HIT")


async def test_a_rule_may_ask_for_the_whole(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    Resource(BODY).serve(origin, "/a")
    directory = rules("rules: [{name: all, match: {path: '/**'}, range: whole}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        is_part(await get(edge, "100-199"), 100, 200, "MISS")
        assert asked(origin) == [(None, None)]
        is_whole(await get(edge), "HIT")


async def test_coded_bodies_are_never_parts(origin: LedgerOrigin, clock: DrivenClock) -> None:
    text = b"the same and the same again " * 100
    said = [("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")]
    Resource(text, headers=said).serve(origin, "/a")
    coded = ("Accept-Encoding", "br")
    async with running_edge(origin.url, clock=clock) as edge:
        for _ in range(2):
            piece = await get(edge, "0-1999", coded)
            assert (piece.status, piece.body, piece.get("Content-Encoding")) == (206, text[:2000], None)
            assert piece["ETag"] == '"a"'
        assert piece["Vary"] == "Accept-Encoding"
        whole = await get(edge, "", coded)
        assert (whole.status, whole["Content-Encoding"], whole["ETag"]) == (200, "br", '"a-br"')
        assert asked(origin)[1:] == [("bytes=2000-", '"a"')]


async def test_the_lane_never_answers_with_a_part(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """One connection, the same octets over and over, while whole, part and whole take turns in the store."""
    Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(4):
            for _ in range(4):
                answer = await client.get("/a")
                assert (answer.status, answer.body) == (200, BODY)
                await edge.settle()
            await edge.worker.store.purge(URL)
            for span in ("0-399", "0-399", "0-399"):
                piece = await client.get("/a", [("Range", f"bytes={span}")])
                assert (piece.status, piece.body) == (206, BODY[:400])
                await edge.settle()


async def test_a_plain_request_completes_a_part_whatever_way_it_takes(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """Its header block is known to the short way and the target to the lane; a part is for neither."""
    Resource(BODY).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for number in range(4):
            await client.get(f"/other{number}")
        await client.get("/a", [("Range", "bytes=0-399")])
        await edge.settle()
        is_whole(await client.get("/a"), "MISS")
        assert asked(origin) == [("bytes=0-399", None), ("bytes=400-", '"a"')]
        await edge.settle()
        is_whole(await client.get("/a"), "HIT")


async def test_those_who_wait_for_the_whole_get_no_stale_part(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path
) -> None:
    """Under ``range: whole`` a stored part is confirmed by a fetch that others wait for."""
    from tests.support.ledger import Gate, head

    said = [("Cache-Control", "max-age=60, stale-if-error=600")]
    resource = Resource(BODY, headers=said).serve(origin, "/a")
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        await get(edge, "0-399")
    await clock.advance(100)
    origin.script("/a", [Gate("g"), head(500, [("Content-Length", "0")])], times=1)
    directory = rules("rules: [{name: all, match: {path: '/**'}, range: whole}]")
    async with running_edge(origin.url, clock=clock, store=store, rules=directory) as edge:
        leader = asyncio.create_task(edge.get("/a", ("Range", "bytes=10-19")))  # noqa: TID251
        await origin.gate("g").reached()
        follower = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await edge.waiting(1)
        origin.gate("g").open()
        is_part(await leader, 10, 20, "STALE")
        answer = await follower
        assert (answer.status, answer.body) == (200, resource.body)


@pytest.mark.parametrize(
    ("also", "span", "status"),
    [
        ("", "10-19", 206),
        ("", "", 502),
        ("", "300-499", 502),
        # must-revalidate forbids what could be done with it (§5.2.2.2), and nothing else.
        (", must-revalidate", "10-19", 504),
        (", must-revalidate", "", 502),
    ],
)
async def test_what_a_part_is_good_for_while_the_origin_is_away(
    origin: LedgerOrigin, clock: DrivenClock, also: str, span: str, status: int
) -> None:
    """RFC 9111 §4.2.4: stale for half a minute, to those whose range it has."""
    Resource(BODY, headers=[("Cache-Control", f"max-age=60{also}")]).serve(origin, "/a")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399")
        await clock.advance(70)
        await origin.stop()
        answer = await get(edge, span)
        assert answer.status == status
        if status == 206:
            is_part(answer, 10, 20, "STALE")


async def test_parts_are_not_lent_by_language(origin: LedgerOrigin, clock: DrivenClock) -> None:
    said = [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language"), ("Content-Language", "de")]
    Resource(BODY, headers=said).serve(origin, "/a")
    long, short = ("Accept-Language", "de, en;q=0.5"), ("Accept-Language", "de")
    async with running_edge(origin.url, clock=clock) as edge:
        await get(edge, "0-399", long)
        is_part(await get(edge, "5-9", short), 5, 10, "MISS")
        is_whole(await get(edge, "", short), "MISS")
        is_part(await get(edge, "5-9", long), 5, 10, "HIT")
        is_whole(await get(edge, "", ("Accept-Language", "de;q=0.7")), "HIT")


async def test_a_client_s_own_range_is_sent_once(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """With Authorization its own fields go along; what may be shared is stored all the same."""
    Resource(BODY, headers=[("Cache-Control", "public, max-age=60")]).serve(origin, "/a")
    known = ("Authorization", "Basic eA==")
    async with running_edge(origin.url, clock=clock) as edge:
        is_part(await get(edge, "0-399", known, ("If-Range", '"a"')), 0, 400, "MISS")
        is_part(await get(edge, "300-499", known), 300, 500, "MISS")
        is_part(await get(edge, "0-499"), 0, 500, "HIT")
        assert asked(origin) == [("bytes=0-399", '"a"'), ("bytes=400-499", '"a"')]
