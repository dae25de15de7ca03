"""Codings: which one a client gets, what is left alone, each made once, large ones off the loop."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
import zlib
from typing import TYPE_CHECKING

import brotli
import pytest

from edgeproxy.front import compress
from tests.support.edge import running_edge
from tests.support.ledger import Gate, chunk, head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawAnswer

TEXT = b"Every unhappy family is unhappy in its own way. " * 100
PLAIN = ("Content-Type", "text/plain; charset=utf-8")
BR = ("Accept-Encoding", "br")


def plain(answer: RawAnswer) -> bytes:
    coding = answer.get("Content-Encoding")
    decoders: dict[str | None, Callable[[bytes], bytes]] = {
        None: bytes, "br": brotli.decompress, "gzip": gzip.decompress,
    }  # fmt: skip
    return decoders[coding](answer.body)


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", "br"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.000, gzip;q=0", None),
        ("*", "br"),
        ("*;q=0.5, br;q=0", "gzip"),
        ("gzip;q=0.3, identity;q=0.9", None),
        ("abr, gzipx", None),
        ("BR", "br"),
        ("deflate", None),
    ],
)
async def test_negotiation(
    origin: LedgerOrigin, clock: DrivenClock, accepts: str | None, coding: str | None
) -> None:
    """By weights (RFC 9110 §12.5.3), the same on a miss, on a hit, and on an answer that is passed."""
    fields = [] if accepts is None else [("Accept-Encoding", accepts)]
    origin.reply("/a", headers=[PLAIN], body=TEXT)
    origin.reply("/p", headers=[PLAIN, ("Cache-Control", "no-store")], body=TEXT)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for target in ("/a", "/a", "/a", "/a", "/p"):
            answer = await client.request("GET", target, fields)
            assert answer.get("Content-Encoding") == coding
            assert plain(answer) == TEXT
            assert answer["Vary"] == "Accept-Encoding"
        assert origin.count("/a") == 1


async def test_the_origin_is_asked_for_the_identity_once(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=[PLAIN, ("Vary", "Accept-Language")], body=TEXT)
    async with running_edge(origin.url, clock=clock) as edge:
        for accepts in ("br", "gzip", "identity", "br"):
            answer = await edge.get("/a", ("Accept-Encoding", accepts))
            assert plain(answer) == TEXT
            assert answer["Vary"] == "Accept-Language, Accept-Encoding"
        assert [r.get("Accept-Encoding") for r in origin.of("/a")] == ["identity"]


LEFT_ALONE = {
    "small": ([PLAIN], TEXT[:500]),
    "an image": ([("Content-Type", "image/png")], TEXT),
    "no type": ([], TEXT),
    "no-transform": ([PLAIN, ("Cache-Control", "max-age=60, no-transform")], TEXT),
    "coded already": ([PLAIN, ("Content-Encoding", "gzip")], gzip.compress(TEXT * 9)),
    "coded in a way unknown here": ([PLAIN, ("Content-Encoding", "zstd")], TEXT),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
async def test_left_alone(origin: LedgerOrigin, clock: DrivenClock, case: str) -> None:
    fields, body = LEFT_ALONE[case]
    origin.reply("/a", headers=fields, body=body, etag=True)
    origin.reply("/p", headers=fields, body=body, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        for target, more in (("/a", ()), ("/a", ()), ("/p", (("Cache-Control", "no-store"),))):
            answer = await edge.get(target, ("Accept-Encoding", "br, gzip"), *more)
            assert answer.body == body
            assert answer.get("Content-Encoding") == dict(fields).get("Content-Encoding")
            assert answer["ETag"] == '"v1"'
            assert "Vary" not in answer


async def test_off_and_tuned_by_rule(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    for target in ("/off/a", "/gzip/a", "/all/a"):
        origin.reply(target, headers=[("Content-Type", "application/x-own")], body=TEXT)
    directory = rules("""
rules:
  - {name: "off", match: {path: "/off/**"}, ttl: 1m, compression: off}
  - {name: gzip, match: {path: "/gzip/**"}, ttl: 1m, compression: {types: ["*/x-own"], codings: [gzip]}}
  - {name: all, match: {path: "/**"}, ttl: 1m, compression: {types: ["*/*"], minimum: 1MiB}}
""")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        for target, coding in (("/off/a", None), ("/gzip/a", "gzip"), ("/all/a", None)):
            answer = await edge.get(target, ("Accept-Encoding", "br, gzip"))
            assert answer.get("Content-Encoding") == coding


async def test_what_does_not_become_smaller_is_sent_plain(
    origin: LedgerOrigin, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = random.Random(7).randbytes(3000)
    origin.reply("/a", headers=[PLAIN], body=body, etag=True)
    made = count_codings(monkeypatch)
    async with running_edge(origin.url, clock=clock) as edge:
        for _ in range(3):
            answer = await edge.get("/a", BR)
            assert (answer.body, answer["ETag"]) == (body, '"v1"')
            assert "Content-Encoding" not in answer
        assert made == [("br", 3000)]


def count_codings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    made: list[tuple[str, int]] = []
    real = compress.encode

    def encode(coding: str, data: bytes, *, best: bool = False) -> bytes:
        made.append((coding, len(data)) if not best else (f"best {coding}", len(data)))
        return real(coding, data, best=best)

    monkeypatch.setattr(compress, "encode", encode)
    return made


@pytest.mark.parametrize("times", [20, 20_000])
async def test_each_coding_is_made_once(
    origin: LedgerOrigin, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """20 clients at once, whether it is made in place or by the thread; then from what is kept."""
    body = b"All happy families are alike; every unhappy one is not. " * times
    origin.reply("/a", headers=[PLAIN], body=body)
    made = count_codings(monkeypatch)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await edge.settle()
        for _ in range(2):
            accepts = ["br", "gzip"] * 4
            answers = await asyncio.gather(*(edge.get("/a", ("Accept-Encoding", a)) for a in accepts))
            assert {plain(answer) for answer in answers} == {body}
        assert sorted(made) == [("br", len(body)), ("gzip", len(body))]


async def test_codings_are_kept_in_the_shared_store(
    origin: LedgerOrigin, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    origin.reply("/a", headers=[PLAIN, ("Cache-Control", "max-age=600")], body=TEXT)
    store = f"lmdb:{tmp_path / 'store'}"
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        await edge.get("/a")
        first = await edge.get("/a", BR)
        await edge.settle()
    made = count_codings(monkeypatch)
    async with running_edge(origin.url, clock=clock, store=store) as edge:
        again = await edge.get("/a", BR)
        assert "desc=l2" in again["Server-Timing"]
        assert again.body == first.body
        assert made == []


@pytest.mark.parametrize("coding", ["br", "gzip"])
async def test_a_large_body_is_coded_beside_the_loop(
    origin: LedgerOrigin, clock: DrivenClock, coding: str
) -> None:
    """5 MiB take some 300 ms of a core; the loop turns meanwhile, and no turn costs it a third of that.

    It is the loop's own time that counts: a busy machine may take the core away from it at any moment. And a
    slow one takes longer for both.
    """
    body = random.Random(1).randbytes(5 * 2**19).hex().encode()
    begun = time.thread_time()
    zlib.compress(body)
    whole = time.thread_time() - begun
    origin.reply("/a", headers=[PLAIN], body=body)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        await edge.settle()
        running = edge.worker.compressor._running
        coded = asyncio.ensure_future(edge.get("/a", ("Accept-Encoding", coding)))  # noqa: TID251
        while not running:
            assert not coded.done(), "it was not coded beside the loop at all"
            await asyncio.sleep(0)
        longest, turns, before = 0.0, 0, time.thread_time()
        while running:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, before, turns = max(longest, now - before), now, turns + 1
        answer = await coded
        assert answer["Content-Encoding"] == coding
        assert plain(answer) == body
        assert turns > 20
        assert longest < whole / 3, f"the loop was busy for {longest:.3f} s, coding takes {whole:.3f} s"


async def test_what_is_hot_is_coded_better(
    origin: LedgerOrigin, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = random.Random(3)
    body = b"".join(b"key %d is %d\n" % (n, numbers.randrange(10**6)) for n in range(2000))
    origin.reply("/a", headers=[PLAIN, ("Cache-Control", "max-age=600")], body=body, etag=True)
    made = count_codings(monkeypatch)
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.request("GET", "/a")
        first = await client.request("GET", "/a", [BR])
        for _ in range(2 * compress.HOT):
            await client.request("GET", "/a", [BR])
            await clock.advance(0.2)
        await edge.settle()
        better = await client.request("GET", "/a", [BR])
        assert plain(better) == body
        assert len(better.body) < len(first.body)
        assert better["Content-Length"] == str(len(better.body))
        for _ in range(compress.HOT):
            await client.request("GET", "/a", [BR])
        await edge.settle()
        assert made == [("br", len(body)), ("best br", len(body))]


async def test_an_event_arrives_before_the_next_is_sent(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """A stream of events, coded on its way: each is flushed."""
    fields = [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
        ("Transfer-Encoding", "chunked"),
    ]
    events = [b"data: %d\n\n" % n for n in range(3)]
    origin.script(
        "/events",
        [
            head(200, fields),
            Gate("0"),
            chunk(events[0]),
            Gate("1"),
            chunk(events[1]),
            Gate("2"),
            chunk(events[2]),
            chunk(b""),
        ],
    )
    decoders = {
        "br": brotli.Decompressor().process,
        "gzip": zlib.decompressobj(31).decompress,
        "identity": bytes,
    }
    async with running_edge(origin.url, clock=clock) as edge:
        for coding, decode in decoders.items():
            async with edge.client() as client:
                await client.start("GET", "/events", [("Accept-Encoding", coding)])
                answer = await client.read_head()
                assert answer.get("Content-Encoding") == (None if coding == "identity" else coding)
                assert answer.chunked
                for n, event in enumerate(events):
                    origin.gate(str(n)).open()
                    got = b""
                    while event not in got:
                        size = int(await client.reader.readuntil(b"\r\n"), 16)
                        assert size > 0
                        got += decode((await client.reader.readexactly(size + 2))[:-2])
                    assert got == event
                for n in range(3):
                    origin.gate(str(n)).close()


async def test_a_passed_body_that_breaks_off_is_not_ended_well_by_its_coding(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    fields = [PLAIN, ("Cache-Control", "no-store"), ("Transfer-Encoding", "chunked")]
    origin.script("/a", [head(200, fields), chunk(TEXT), Gate("g"), b"5\r\nab"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("GET", "/a", [BR])
        answer = await client.read_head()
        await origin.gate("g").reached()
        origin.drop_connections()
        await client.read_body(answer)
        assert answer["Content-Encoding"] == "br"
        assert not answer.complete
