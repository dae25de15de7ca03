"""A body that many are reading, coded on its way: once for each coding, and as sound as the plain one."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from typing import TYPE_CHECKING

import brotli
import pytest

from edgeproxy.engine.background import Background
from edgeproxy.engine.body import WINDOW, SharedBody
from edgeproxy.front import coded
from edgeproxy.front.coded import CodedReader, coded_reader
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure
from tests.support.driven import settle
from tests.support.edge import running_edge
from tests.support.ledger import FIN, Gate, chunk, head
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from edgeproxy.engine.exchange import Reader
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin, Step

MIB = 2**20
PLAIN = ("Content-Type", "text/plain")
FRESH = ("Cache-Control", "max-age=60")
PIECES = [b"All happy families are alike. " * 400, b"Every unhappy one is not. " * 4000]
TEXT = b"".join(PIECES)
DECODE: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.decompress, "gzip": gzip.decompress, "identity": bytes,
}  # fmt: skip
PARTLY: dict[str, Callable[[bytes], bytes]] = {
    "br": lambda octets: brotli.Decompressor().process(octets),
    "gzip": lambda octets: zlib.decompressobj(31).decompress(octets),
    "identity": bytes,
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codings of the coders that were made."""
    codings: list[str] = []

    class Counted(CodedReader):
        def __init__(
            self,
            reader: Reader,
            coding: str,
            beside: Callable[[Callable[[bytes], bytes], bytes], Awaitable[bytes]] | None = None,
        ) -> None:
            codings.append(coding)
            super().__init__(reader, coding, beside)

    monkeypatch.setattr(coded, "CodedReader", Counted)
    return codings


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_cold_miss_is_coded_once_for_all_who_share_it(
    origin: LedgerOrigin, clock: DrivenClock, made: list[str], *, chunked: bool
) -> None:
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(TEXT)))
    first, second = (chunk(p) if chunked else p for p in PIECES)
    fields = [PLAIN, FRESH, framing, ("ETag", '"v1"')]
    origin.script("/a", [head(200, fields), first, Gate("g"), second, chunk(b"") if chunked else b""])
    async with running_edge(origin.url, clock=clock) as edge:

        async def begin(coding: str) -> tuple[str, RawClient]:
            client = edge.client()
            await client.connect()
            await client.start("GET", "/a", [("Accept-Encoding", coding)])
            return coding, client

        clients = [await begin(coding) for coding in ("br", "gzip", "br", "identity", "br", "gzip")]
        await origin.gate("g").reached()
        answers = [await client.read_head() for _, client in clients]
        for (coding, client), answer in zip(clients, answers, strict=True):
            if coding == "identity":
                assert "Content-Encoding" not in answer
                assert answer["ETag"] == '"v1"'
            else:
                assert (answer["Content-Encoding"], answer["ETag"]) == (coding, f'"v1-{coding}"')
                assert answer.chunked
                # What is here is here to its end: nothing waits for the next piece.
                size = int(await client.reader.readuntil(b"\r\n"), 16)
                piece = (await client.reader.readexactly(size + 2))[:-2]
                assert PARTLY[coding](piece) == PIECES[0][: len(PARTLY[coding](piece))] != b""
                answer.body = piece
            assert answer["Vary"] == "Accept-Encoding"
        late = await begin("br")
        late_answer = await late[1].read_head()
        origin.gate("g").open()
        for (coding, client), answer in [*zip(clients, answers, strict=True), (late, late_answer)]:
            begun, answer.body = answer.body, b""
            await client.read_body(answer)
            assert answer.complete
            assert DECODE[coding](begun + answer.body) == TEXT
            await client.aclose()
        assert origin.count("/a") == 1
        assert sorted(made) == ["br", "gzip"]
        await edge.settle()
        hit = await edge.get("/a", ("Accept-Encoding", "br"))
        assert (hit["X-Cache-Status"], hit["ETag"]) == ("HIT", '"v1-br"')
        assert brotli.decompress(hit.body) == TEXT
        part = await edge.get("/a", ("Range", "bytes=0-4"), ("Accept-Encoding", "br"))
        assert (part.status, part.body) == (206, TEXT[:5])
        assert len(edge.worker.background) == 0


@pytest.mark.parametrize("chunked", [True, False])
async def test_what_breaks_off_breaks_off_in_every_coding(
    origin: LedgerOrigin, clock: DrivenClock, *, chunked: bool
) -> None:
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(TEXT)))
    piece = chunk(PIECES[0]) if chunked else PIECES[0]
    broken: list[Step] = [head(200, [PLAIN, FRESH, framing]), piece, Gate("g"), FIN]
    origin.script("/a", broken, times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        clients = [edge.client() for _ in range(4)]
        for n, client in enumerate(clients):
            await client.connect()
            await client.start("GET", "/a", [("Accept-Encoding", ("br", "gzip")[n % 2])])
        heads = [await client.read_head() for client in clients]
        assert origin.count("/a") == 1
        origin.gate("g").open()
        for n, (client, answer) in enumerate(zip(clients, heads, strict=True)):
            await client.read_body(answer)
            assert answer["Content-Encoding"] == ("br", "gzip")[n % 2]
            assert not answer.complete
            await client.aclose()
        assert (await edge.get("/a"))["X-Cache-Status"] == "MISS"


async def test_a_coded_body_that_has_outgrown_the_cache_is_held_back_by_its_reader(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """48 MiB to a client that reads nothing: the edge takes some MiB, then stops reading."""
    sent = [0]
    piece = random.Random(5).randbytes(MIB // 4)

    class Counting(list["Step"]):
        def __iter__(self) -> Iterator[Step]:
            yield head(200, [PLAIN, FRESH, ("Content-Length", str(64 * MIB))])
            for _ in range(256):
                sent[0] += len(piece)
                yield piece

    origin.script("/big", Counting())
    async with running_edge(origin.url, clock=clock) as edge:
        async with RawClient("127.0.0.1", edge.worker.port, receive_buffer=4096) as client:
            await client.start("GET", "/big", [("Accept-Encoding", "gzip")])
            answer = await client.read_head()
            assert answer["Content-Encoding"] == "gzip"
            async with asyncio.timeout(20):
                before, turns = -1, 0
                while turns < 2000:
                    await asyncio.sleep(0)
                    turns = turns + 1 if sent[0] == before else 0
                    before = sent[0]
            assert sent[0] < 40 * MIB
            client.reset()
        # Nobody reads any more: the coder leaves, and with it the last reader of the plain body.
        await edge.until(lambda: len(edge.worker.background) == 0)
        await origin.connections_are(0)


# -- by itself ----------------------------------------------------------------------------------------------


async def on_the_loop(code: Callable[[bytes], bytes], piece: bytes) -> bytes:
    return code(piece)


async def whole(reader: Reader) -> bytes:
    octets = b""
    while piece := await reader.read():
        octets += piece
    return octets


@pytest.fixture
def background() -> Background:
    return Background()


async def test_who_comes_when_the_coded_body_has_outgrown_codes_for_himself(background: Background) -> None:
    """Octets that no coding makes smaller: the plain body may be kept, the coded one is too large."""
    numbers = random.Random(9)
    octets = [numbers.randbytes(100) for _ in range(1000)]
    body = SharedBody(None, keep=100_000)
    first = coded_reader(body.join(), "gzip", background, on_the_loop)
    reading = asyncio.ensure_future(whole(first))  # noqa: TID251
    for piece in octets:
        body.feed(piece)
        await settle(5)
    assert (body.joinable, body.coded["gzip"].joinable) == (True, False)
    second = coded_reader(body.join(), "gzip", background, on_the_loop)
    assert isinstance(second, CodedReader)
    body.finish()
    for got in (await reading, await whole(second)):
        assert gzip.decompress(got) == b"".join(octets)
    second.close()
    first.close()
    await background.close()
    assert body.readers == 0


async def test_a_coder_that_nobody_reads_from_leaves_a_body_that_has_outgrown(
    background: Background,
) -> None:
    """However small its own is: else it would draw an endless body for nobody."""
    body = SharedBody(None, keep=1000)
    reader = coded_reader(body.join(), "br", background, on_the_loop)
    body.feed(bytes(900))
    await settle(5)
    reader.close()
    body.feed(bytes(900))
    await settle(5)
    assert body.coded["br"].error is not None
    assert body.readers == 0
    await background.close()


async def test_a_coded_body_lets_go_of_what_its_readers_have_had(background: Background) -> None:
    body = SharedBody(None, keep=1000)
    reader = coded_reader(body.join(), "gzip", background, on_the_loop)
    numbers = random.Random(3)
    for _ in range(64):
        body.feed(numbers.randbytes(65_536))
        await settle(3)
    held = body.coded["gzip"]._held
    assert WINDOW < held < WINDOW + 2 * 65_536
    body.finish(OriginError(OriginFailure.TRUNCATED))
    with pytest.raises(OriginError):
        await whole(reader)
    await background.close()


async def test_a_reader_that_has_begun_is_not_exchanged(background: Background) -> None:
    body = SharedBody(None, keep=1000)
    reader = body.join()
    body.feed(b"begun")
    await reader.read()
    assert isinstance(coded_reader(reader, "br", background, on_the_loop), CodedReader)
    assert not body.coded
    assert len(background) == 0
