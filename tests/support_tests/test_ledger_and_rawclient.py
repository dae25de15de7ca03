"""The ledger origin and the raw client, one against the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.leaks import leak_free  # noqa: F401
from tests.support.ledger import FIN, READ_BODY, RST, Gate, LedgerOrigin, chunk, head
from tests.support.rawclient import MalformedAnswer, RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("leak_free")


@pytest.fixture
async def origin(leak_free: None) -> AsyncIterator[LedgerOrigin]:  # noqa: F811
    async with LedgerOrigin() as it:
        yield it


async def test_default_answers_are_stamped_and_recorded(origin: LedgerOrigin) -> None:
    async with RawClient(port=origin.port) as client:
        first = await client.get("/a?x=1", [("X-One", "1"), ("x-one", "2")])
        origin.bump("/a")
        second = await client.get("/a")
    assert (first.status, first.body, first.complete) == (200, b"/a version 1\n", True)
    assert second.body == b"/a version 2\n"
    assert first["x-serial"] != second["x-serial"]
    assert origin.count("/a") == 2
    assert origin.count("/a?x=1") == 1
    seen = origin.of("/a")[0]
    assert seen.raw_head.startswith(b"GET /a?x=1 HTTP/1.1\r\nHost: example.test\r\nX-One: 1\r\nx-one: 2\r\n")
    assert seen.get("x-one") == "1, 2"
    assert (origin.connections, [r.order for r in origin.requests]) == (1, [1, 2])


async def test_conditional_and_head(origin: LedgerOrigin) -> None:
    async with RawClient(port=origin.port) as client:
        tag = (await client.get("/a"))["etag"]
        same = await client.get("/a", [("If-None-Match", tag)])
        assert (same.status, same.body, same.complete) == (304, b"", True)
        origin.bump("/a")
        assert (await client.get("/a", [("If-None-Match", tag)])).status == 200
        shown = await client.request("HEAD", "/a")
        assert (shown.status, shown.body, shown.length) == (200, b"", 13)


async def test_a_gated_answer_is_an_old_one(origin: LedgerOrigin) -> None:
    origin.reply("/a", gate="g")
    async with RawClient(port=origin.port) as client:
        await client.start("GET", "/a")
        await origin.arrived("/a")
        await origin.gate("g").reached()
        origin.bump("/a")
        origin.gate("g").open()
        assert (await client.read_answer()).body == b"/a version 1\n"
        assert (await client.get("/a")).body == b"/a version 2\n"


async def test_scripts_are_used_up_in_order(origin: LedgerOrigin) -> None:
    origin.reply("/a", status=503, times=2)
    origin.reply("/a", status=404, times=1)
    origin.reply("/a", status=201)
    async with RawClient(port=origin.port) as client:
        assert [(await client.get("/a")).status for _ in range(5)] == [503, 503, 404, 201, 201]


async def test_request_bodies_are_read_whatever_their_framing(origin: LedgerOrigin) -> None:
    async with RawClient(port=origin.port) as client:
        await client.request("POST", "/a", body=b"hello")
        await client.start("POST", "/a", [("Transfer-Encoding", "chunked")])
        await client.send(chunk(b"hel"))
        request = await origin.arrived("/a", 2)
        await origin.body_arrived(request, 3)
        assert not request.body_complete
        await client.send(chunk(b"lo") + chunk(b""))
        assert (await client.read_answer()).status == 200
    assert [bytes(r.body) for r in origin.requests] == [b"hello", b"hello"]


async def test_an_early_answer(origin: LedgerOrigin) -> None:
    origin.reply("/a", status=413, early=True)
    async with RawClient(port=origin.port) as client:
        await client.start("POST", "/a", [("Content-Length", "10")])
        assert (await client.read_answer()).status == 413


@pytest.mark.parametrize(
    "steps",
    [
        [head(200, [("Content-Length", "1000")]), b"x" * 500, FIN],
        [head(200, [("Content-Length", "1000")]), b"x" * 500, RST],
        [head(200, [("Transfer-Encoding", "chunked")]), chunk(b"abc"), FIN],
        [head(200, [("Transfer-Encoding", "chunked")]), b"5\r\nab", FIN],
        [head(200), b"until the end", Gate("g"), RST],
    ],
    ids=["short", "reset", "no last chunk", "half a chunk", "reset of close-delimited"],
)
async def test_truncation_is_seen(origin: LedgerOrigin, steps: list[bytes]) -> None:
    origin.script("/a", steps)
    async with RawClient(port=origin.port) as client:
        await client.start("GET", "/a")
        answer = await client.read_head()
        origin.gate("g").open()
        await client.read_body(answer)
    assert not answer.complete


async def test_whole_bodies_are_complete(origin: LedgerOrigin) -> None:
    origin.reply("/chunked", body=b"abc", chunked=True)
    origin.script("/close", [head(200), b"until ", b"the end", FIN])
    async with RawClient(port=origin.port) as client:
        answer = await client.get("/chunked")
        assert (answer.body, answer.complete, answer.chunked) == (b"abc", True, True)
        answer = await client.get("/close")
        assert (answer.body, answer.complete, answer.length) == (b"until the end", True, None)
        assert await client.at_end()


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_malformed_answers_are_refused(origin: LedgerOrigin, octets: bytes) -> None:
    origin.script("/a", [octets, FIN])
    async with RawClient(port=origin.port) as client:
        with pytest.raises(MalformedAnswer):
            await client.get("/a")


async def test_interim_answers_are_collected(origin: LedgerOrigin) -> None:
    origin.script("/a", [head(103, [("Link", "</x>")]), READ_BODY, head(204)])
    async with RawClient(port=origin.port) as client:
        answer = await client.get("/a")
    assert (answer.status, [i.status for i in answer.interim]) == (204, [103])


async def test_a_dead_origin_comes_back_on_its_port(origin: LedgerOrigin) -> None:
    async with RawClient(port=origin.port) as client:
        await client.get("/a")
        await origin.stop()
        assert await client.at_end()
    with pytest.raises(ConnectionRefusedError):
        async with RawClient(port=origin.port):
            pass
    await origin.start()
    async with RawClient(port=origin.port) as client:
        assert (await client.get("/a")).status == 200


async def test_no_answer_is_an_error(origin: LedgerOrigin) -> None:
    origin.script("/a", [FIN])
    async with RawClient(port=origin.port) as client:
        with pytest.raises(ConnectionError):
            await client.get("/a")
