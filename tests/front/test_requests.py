"""Requests as they come: what is refused and how, forms of the target, bodies and Expect."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.edge import running_edge
from tests.support.ledger import READ_BODY, Gate, head

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin
    from tests.support.rawclient import RawAnswer

HOST = b"Host: a.example\r\n"


def problem(answer: RawAnswer) -> dict[str, Any]:
    """The problem+json of an answer that ends its connection."""
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Connection"] == "close"
    assert answer["Cache-Control"] == "no-store"
    told: dict[str, Any] = json.loads(answer.body)
    assert told["status"] == answer.status
    assert told["request_id"] == answer["X-Request-ID"]
    assert told["title"]
    assert told["detail"]
    return told


REFUSED = {
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "the same Host twice": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two Hosts and HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a Host that is none": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "a Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "a Host with a user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "a Host that is none behind an absolute target": (b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "an empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "a fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "words": (b"hello, is anybody there?\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 400),
    "another version": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", 400),
    "large fields": (b"GET / HTTP/1.1\r\n" + HOST + (b"X-A: %b\r\n" % (b"a" * 7000)) * 10 + b"\r\n", 431),
    "a target that is neither": (b"GET a.example HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "another scheme": (b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a user in the target": (b"GET http://u:p@a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "* for GET": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A : 1\r\n\r\n", 400),
    "a folded field": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n 2\r\n\r\n", 400),
    "NUL in a field": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: \x00\r\n\r\n", 400),
    "a bare CR": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\rX-B: 2\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a negative length": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "an unknown transfer coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: foo\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "a long target": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a long absolute target": (b"GET http://a/?" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a long field": (b"GET / HTTP/1.1\r\n" + HOST + b"Referer: /" + b"a" * 20_000 + b"\r\n\r\n", 431),
    "a long name": (b"GET / HTTP/1.1\r\n" + HOST + b"a" * 20_000 + b": 1\r\n\r\n", 431),
    "many fields": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n" * 200 + b"\r\n", 431),
    "a large body": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2000000\r\n\r\n", 413),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_refused(origin: LedgerOrigin, clock: DrivenClock, case: str) -> None:
    """With problem+json; the connection ends; the origin sees nothing; what follows is not executed."""
    octets, status = REFUSED[case]
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    if status == 413:
        smuggled = bytes(2_000_000) + smuggled  # behind the body that was announced
    async with running_edge(origin.url, clock=clock, max_body="1MiB") as edge:
        async with edge.client() as client:
            await client.send(octets + smuggled)
            answer = await client.read_answer()
            assert (answer.status, answer.keep_alive) == (status, False)
            problem(answer)
            assert await client.at_end()
        assert origin.requests == []
        assert edge.traces[0].status == status
        # And in the same words to a connection that has been used before.
        async with edge.client() as client:
            await client.request("GET", "/a")
            await client.send(octets)
            answer = await client.read_answer()
            assert (answer.status, answer.keep_alive) == (status, False)
            if status == 413:
                # What is left of a body is read for a while, lest a reset take the answer from the client.
                await client.send(smuggled)
            assert await client.at_end()
        assert origin.count("/smuggled") == 0
        assert len(origin.requests) == 1


async def test_a_refused_head_request_gets_no_body(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a/b\r\n\r\n")
        answer = await client.read_answer("HEAD")
        assert answer.status == 400
        assert int(answer["Content-Length"]) > 0
        assert await client.at_end()


async def test_a_good_request_before_a_bad_one_cannot_be_smuggled_around(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """Whatever becomes of the good one, nothing after the bad one is executed."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(
            b"GET /good HTTP/1.1\r\n"
            + HOST
            + b"\r\nGET / bad HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\n"
            + HOST
            + b"\r\n"
        )
        while (answer := await client.read_answer()).status == 200:
            pass
        assert answer.status == 400
        assert await client.at_end()
        assert origin.count("/after") == 0


async def test_http_1_0_needs_no_host(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        for word in ("MISS", "HIT"):
            async with edge.client() as client:
                await client.send(b"GET /a HTTP/1.0\r\n\r\n")
                answer = await client.read_answer()
                assert (answer.status, answer["X-Cache-Status"]) == (200, word)
        # Nobody's answer: a request with a host does not get it.
        assert (await edge.get("/a"))["X-Cache-Status"] == "MISS"


async def test_a_later_version_is_not_spoken(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")
        answer = await client.read_answer()
        assert answer.status == 505
        problem(answer)
        assert await client.at_end()
        assert origin.requests == []


async def test_chunks_of_http_1_0_end_the_connection(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Somebody before us may have framed them otherwise (RFC 9112 §6.1): what follows is not a request."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(
            b"POST /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\nGET /after HTTP/1.0\r\nHost: a\r\n\r\n"
        )
        answer = await client.read_answer("POST")
        assert (answer.status, answer["Connection"]) == (200, "close")
        assert await client.at_end()
        assert bytes(origin.of("/a")[0].body) == b"ok"
        assert origin.count("/after") == 0


async def test_fields_just_small_enough(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        assert (await edge.get("/a", *[("X-A", "a" * 7000)] * 9)).status == 200


async def test_an_absolute_target_is_what_counts(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Its authority over Host (RFC 9112 §3.2.2), for the key and for the origin."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"GET http://Real.example:8000/a?b HTTP/1.1\r\nHost: other.example\r\n\r\n")
        assert (await client.read_answer())["X-Cache-Status"] == "MISS"
        assert origin.requests[0].target == "/a?b"
        assert origin.requests[0].all("Host") == ["Real.example:8000"]
        hit = await client.request("GET", "/a?b", [("Host", "Real.example:8000")])
        assert hit["X-Cache-Status"] == "HIT"
        for target, sent in (("http://c", "/"), ("http://c?d", "/?d"), ("https://c/e", "/e")):
            await client.send(f"GET {target} HTTP/1.1\r\nHost: c\r\n\r\n".encode())
            assert (await client.read_answer()).status == 200
            assert origin.requests[-1].target == sent


async def test_options_star(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.script("*", [head(204, [("Allow", "GET, HEAD")])])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n")
        answer = await client.read_answer("OPTIONS")
        assert (answer.status, answer["Allow"], answer["X-Cache-Status"]) == (204, "GET, HEAD", "BYPASS")
        assert origin.requests[0].target == "*"
        # RFC 9112 §3.2.4: the last proxy makes an asterisk of an absolute form without a path.
        await client.send(b"OPTIONS http://c HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.read_answer("OPTIONS")).status == 204
        assert (origin.requests[-1].target, origin.requests[-1].get("host")) == ("*", "c")
        await client.send(b"OPTIONS http://c/ HTTP/1.1\r\n" + HOST + b"\r\n")
        await client.read_answer("OPTIONS")
        assert origin.requests[-1].target == "/"


@pytest.mark.parametrize("target", ["/a%2Fb//c/../d;e?x=%zz&&y", "/%E2%82%AC?q=a+b", "/'()!$&,:@~", "/a?b?c"])
async def test_targets_are_not_touched(origin: LedgerOrigin, clock: DrivenClock, target: str) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        for word in ("MISS", "HIT", "HIT"):
            assert (await edge.get(target))["X-Cache-Status"] == word
        assert [r.target for r in origin.requests] == [target]


async def test_octets_beyond_ascii_in_a_target_and_a_field(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Not what the RFC allows in a target, but what browsers have sent: passed octet by octet or refused."""
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.send(b"GET /caf\xc3\xa9 HTTP/1.1\r\n" + HOST + b"X-Name: caf\xe9\r\n\r\n")
        answer = await client.read_answer()
        if answer.status == 400:
            return
        assert b"GET /caf\xc3\xa9 HTTP/1.1\r\n" in origin.requests[0].raw_head
        assert b"X-Name: caf\xe9\r\n" in origin.requests[0].raw_head


# -- bodies -------------------------------------------------------------------------------------------------


async def test_expect_continue_is_answered_when_the_body_is_wanted(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.script("/up", [Gate("g"), READ_BODY, head(201, [("Content-Length", "0")])])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/up", [("Content-Length", "5"), ("Expect", "100-continue")])
        assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        origin.gate("g").open()
        answer = await client.read_answer("POST")
        assert (answer.status, answer.interim) == (201, [])
        assert answer.keep_alive
        assert origin.of("/up")[0].body == b"hello"
        assert origin.of("/up")[0].get("Expect") is None
        assert (await client.request("GET", "/a")).status == 200


async def test_expect_continue_is_not_answered_to_a_body_that_is_refused(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock, max_body="1KiB") as edge, edge.client() as client:
        await client.start("POST", "/up", [("Content-Length", "5000"), ("Expect", "100-continue")])
        answer = await client.read_answer("POST")
        assert (answer.status, answer.interim) == (413, [])
        problem(answer)


async def test_an_unknown_expectation_is_not_answered_with_continue(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.script("/up", [READ_BODY, head(201, [("Content-Length", "0")])])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        answer = await client.request("POST", "/up", headers=[("Expect", "a-miracle")], body=b"x")
        assert (answer.status, answer.interim) == (201, [])


async def test_a_chunked_body_that_grows_too_large(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Its size is not told beforehand: 413 as soon as it is known, and the connection ends."""
    origin.script("/up", [READ_BODY, head(201, [("Content-Length", "0")])])
    async with running_edge(origin.url, clock=clock, max_body="1KiB") as edge, edge.client() as client:
        await client.start("POST", "/up", [("Transfer-Encoding", "chunked")])
        await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        request = await origin.arrived("/up")
        await origin.body_arrived(request, 1024)
        await client.send(b"1\r\nx\r\n")
        answer = await client.read_answer("POST")
        assert answer.status == 413
        assert problem(answer)["title"] == "The request's body is too large"
        await origin.connections_are(0)
        assert not request.body_complete


async def test_a_chunked_body_that_is_none(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """400, and the origin never takes what came for the whole."""
    origin.script("/up", [READ_BODY, head(201, [("Content-Length", "0")])])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/up", [("Transfer-Encoding", "chunked")])
        await client.send(b"3\r\nabc\r\n")
        request = await origin.arrived("/up")
        await origin.body_arrived(request, 3)
        await client.send(b"zz\r\n\r\nPOST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert (await client.read_answer("POST")).status == 400
        assert await client.at_end()
        await origin.connections_are(0)
        assert not request.body_complete
        assert origin.count("/smuggled") == 0


@pytest.mark.parametrize("framing", [("Content-Length", str(32 * 2**20)), ("Transfer-Encoding", "chunked")])
async def test_an_upload_is_held_back_by_its_origin(
    origin: LedgerOrigin, clock: DrivenClock, framing: tuple[str, str]
) -> None:
    """32 MiB to an origin that does not read: little of it is taken from the client until it does."""
    size = 32 * 2**20
    origin.script("/up", [Gate("g"), READ_BODY, head(201, [("Content-Length", "2")]), b"ok"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/up", [framing])
        piece = b"u" * 65536
        framed = b"10000\r\n%b\r\n" % piece if framing[1] == "chunked" else piece

        async def upload() -> None:
            for _ in range(size // len(piece)):
                client.writer.write(framed)
                await client.writer.drain()
            if framing[1] == "chunked":
                client.writer.write(b"0\r\n\r\n")

        sending = asyncio.ensure_future(upload())  # noqa: TID251
        await origin.gate("g").reached()
        taken, still = -1, 0
        (connection,) = edge.worker.server.connections
        while still < 300:
            await asyncio.sleep(0)
            now = edge.worker.handler.in_flight and _buffered(client) + 1
            still = still + 1 if now == taken and not sending.done() else 0
            taken = now
            assert not sending.done(), "all of it was taken although the origin read nothing"
        assert connection.transport is not None
        origin.gate("g").open()
        await sending
        answer = await client.read_answer("POST")
        assert (answer.status, answer.body) == (201, b"ok")
        assert bytes(origin.of("/up")[0].body) == b"u" * size


def _buffered(client: Any) -> int:
    return int(client.writer.transport.get_write_buffer_size())


async def test_an_answer_before_the_end_of_the_upload(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """It is delivered; what is left of the body is not the start of a request, so the connection ends."""
    origin.script("/up", [head(403, [("Content-Length", "2")]), b"no", READ_BODY])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await client.start("POST", "/up", [("Content-Length", "100")])
        answer = await client.read_answer("POST")
        assert (answer.status, answer.body, answer["Connection"]) == (403, b"no", "close")
        await client.send(b"POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".ljust(100, b"x"))
        assert await client.at_end()
        assert origin.count("/smuggled") == 0


async def test_a_get_with_a_body_passes_and_is_never_stored(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for n in (1, 2):
            answer = await client.request("GET", "/a", body=b"query")
            assert answer["X-Cache-Status"] == "BYPASS"
            assert answer.keep_alive
            assert origin.count("/a") == n
            assert origin.of("/a")[-1].body == b"query"
        assert (await client.request("GET", "/a"))["X-Cache-Status"] == "MISS"
