"""HEAD, 304, parts and 416 from a stored answer, and what a 304 and an ETag are worth both ways."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import brotli
import pytest

from tests.support.edge import running_edge
from tests.support.ledger import head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

TEXT = b"All happy families are alike. " * 100
PLAIN = [("Content-Type", "text/plain")]
BR = ("Accept-Encoding", "br")


async def test_head_from_a_stored_get(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """The same fields as GET, the length of the body it would bring, and no body."""
    origin.reply("/a", headers=PLAIN, body=TEXT, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        for fields in ((), (BR,)):
            await edge.get("/a", *fields)
            get = await edge.get("/a", *fields)
            answer = await edge.request("HEAD", "/a", fields)
            assert answer["X-Cache-Status"] == "HIT"
            assert answer.body == b""
            varying = {"x-request-id", "server-timing"}
            assert {f for f in answer.headers if f[0] not in varying} == {
                f for f in get.headers if f[0] not in varying
            }
        assert origin.count("/a") == 1
        # Nothing of a body is on the connection: the next answer is read from the right octet.
        async with edge.client() as client:
            for _ in range(3):
                assert (await client.request("HEAD", "/a")).status == 200


async def test_head_without_a_stored_get_asks_and_stores_nothing(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=PLAIN, body=TEXT)
    async with running_edge(origin.url, clock=clock) as edge:
        for n in (1, 2):
            answer = await edge.request("HEAD", "/a")
            assert answer["Content-Length"] == str(len(TEXT))
            assert origin.of("/a")[-1].method == "HEAD"
            assert origin.count("/a") == n
        # What GET would send has no length beforehand when it is coded on its way.
        passed = await edge.request("HEAD", "/a", [BR, ("Cache-Control", "no-store")])
        assert passed["Content-Encoding"] == "br"
        assert "Content-Length" not in passed


async def test_if_match_is_the_origins_to_evaluate(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """RFC 9111 §4.3.2: it gets the condition, with the ETags that it knows; the answer is this client's."""
    origin.reply("/a", headers=PLAIN, body=TEXT, etag=True, times=1)
    origin.reply("/a", status=412, headers=[("Cache-Control", "max-age=60")])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        for n, (method, field, seen) in enumerate((
            ("GET", ("If-Match", '"other"'), '"other"'),
            ("HEAD", ("If-Match", '"v1-br"'), '"v1-br", "v1"'),
            ("GET", ("If-Unmodified-Since", "Tue, 14 Nov 2023 00:00:00 GMT"), None),
        ), 2):  # fmt: skip
            answer = await edge.request(method, "/a", [field])
            assert (answer.status, answer["X-Cache-Status"]) == (412, "BYPASS")
            assert "detail=precondition" in answer["Cache-Status"]
            assert origin.count("/a") == n
            assert origin.of("/a")[-1].get(field[0]) == (seen or field[1])
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"
        # Nobody may be asked: then it is as if the condition were not there (RFC 9110 §13.1.1).
        answer = await edge.get("/a", ("If-Match", '"other"'), ("Cache-Control", "only-if-cached"))
        assert (answer.status, answer["X-Cache-Status"]) == (200, "HIT")


async def test_a_304_to_the_client(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply(
        "/a", headers=[*PLAIN, ("Last-Modified", "Tue, 14 Nov 2023 00:00:00 GMT"), ("Vary", "X-A")],
        body=TEXT, etag=True,
    )  # fmt: skip
    async with running_edge(origin.url, clock=clock) as edge:
        full = await edge.get("/a")
        for condition in (
            ("If-None-Match", '"v1"'),
            ("If-None-Match", 'W/"v1"'),
            ("If-None-Match", '"other", "v1"'),
            ("If-None-Match", "*"),
            ("If-Modified-Since", "Tue, 14 Nov 2023 00:00:00 GMT"),
        ):
            answer = await edge.get("/a", condition)
            assert (answer.status, answer.body) == (304, b"")
            assert "Content-Type" not in answer
            assert "Content-Length" not in answer
            for name in ("ETag", "Cache-Control", "Date", "Vary", "Last-Modified"):
                assert answer[name] == full[name]
        for condition in (
            ("If-None-Match", '"other"'),
            ("If-None-Match", '"v1-br"'),
            ("If-Modified-Since", "Mon, 13 Nov 2023 00:00:00 GMT"),
        ):
            assert (await edge.get("/a", condition)).status == 200
        assert origin.count("/a") == 1


@pytest.mark.parametrize("coding", ["br", "gzip"])
async def test_the_etag_of_a_coding_is_its_own_and_is_matched_back(
    origin: LedgerOrigin, clock: DrivenClock, coding: str
) -> None:
    origin.reply("/a", headers=PLAIN, body=TEXT, etag=True)
    accept = ("Accept-Encoding", coding)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        coded = await edge.get("/a", accept)
        assert coded["ETag"] == f'"v1-{coding}"'
        again = await edge.get("/a", accept, ("If-None-Match", coded["ETag"]))
        assert (again.status, again["ETag"]) == (304, coded["ETag"])
        assert again["Vary"] == "Accept-Encoding"
        # The identity's ETag is not that of what this client would be sent.
        assert (await edge.get("/a", accept, ("If-None-Match", '"v1"'))).status == 200
        assert origin.count("/a") == 1


async def test_a_304_of_the_origin_confirms_by_its_own_etag(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """A stale entry is confirmed with the origin's ETag, the client's is compared here; codings stay."""
    origin.reply("/a", headers=[*PLAIN, ("Cache-Control", "max-age=10")], body=TEXT, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        coded = await edge.get("/a", BR)
        coded = await edge.get("/a", BR)
        await clock.advance(11)
        answer = await edge.get("/a", BR, ("If-None-Match", coded["ETag"]))
        assert (answer.status, answer["X-Cache-Status"]) == (304, "REVALIDATED")
        assert origin.of("/a")[-1].all("If-None-Match") == ['"v1"']
        full = await edge.get("/a", BR)
        assert (full["X-Cache-Status"], full.body) == ("HIT", coded.body)


@pytest.mark.parametrize("kind", ["pass", "hit-for-miss"])
async def test_a_passed_answer_coded_here_is_matched_back_by_its_origin(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], kind: str
) -> None:
    """The origin has never heard of "v1-br": it is asked about "v1" too, and its 304 is told as "v1-br"."""
    control = [("Cache-Control", "private, max-age=60")]
    origin.reply("/a", headers=[*PLAIN, *control], body=TEXT, etag=True)
    passing = ", pass: true" if kind == "pass" else ""
    directory = rules(f"rules: [{{name: all, match: {{path: '/**'}}{passing}}}]")
    async with running_edge(origin.url, clock=clock, rules=directory) as edge:
        await edge.get("/a", BR)
        coded = await edge.get("/a", BR)
        assert coded["ETag"] == '"v1-br"'
        assert brotli.decompress(coded.body) == TEXT
        answer = await edge.get("/a", BR, ("If-None-Match", coded["ETag"]))
        assert (answer.status, answer["ETag"]) == (304, coded["ETag"])
        assert answer["Vary"] == "Accept-Encoding"
        assert "Content-Encoding" not in answer
        plain = await edge.get("/a", ("If-None-Match", '"v1"'))
        assert (plain.status, plain["ETag"]) == (304, '"v1"')


async def test_a_write_with_the_etag_of_a_coding_reaches_the_origin_with_its_own(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """Else whoever was sent "v1-br" could never change what it read (If-Match, RFC 9110 §13.1.1)."""
    origin.reply("/a", status=204)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.request("PUT", "/a", [("If-Match", '"v1-br"')], b"new")
        assert origin.of("/a")[-1].get("If-Match") == '"v1-br", "v1"'
        await edge.request("PUT", "/a", [("If-Match", '"v1"')], b"new")
        assert origin.of("/a")[-1].get("If-Match") == '"v1"'


async def test_errors_about_the_stored_answer_are_not_for_caches_below(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """A 416 with the entry's own max-age would be kept in its place."""
    origin.reply(
        "/a", body=TEXT, etag=True,
        headers=[*PLAIN, ("Cache-Control", "max-age=60"), ("Expires", "Wed, 15 Nov 2023 00:00:00 GMT")],
    )  # fmt: skip
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        answer = await edge.get("/a", ("Range", "bytes=99999-"))
        assert (answer.status, answer.body, answer["Content-Length"]) == (416, b"", "0")
        assert answer.all("Cache-Control") == ["no-store"]
        assert "Expires" not in answer
        assert answer["X-Cache-Status"] == "HIT"


# -- parts --------------------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-", 10000, 10240),
        ("bytes=-5", 10235, 10240),
        ("bytes=-99999", 0, 10240),
        ("BYTES=10239-99999", 10239, 10240),
    ],
)
async def test_one_part(origin: LedgerOrigin, clock: DrivenClock, asked: str, start: int, stop: int) -> None:
    origin.reply("/a", headers=PLAIN, body=BODY, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        answer = await edge.get("/a", ("Range", asked), BR)
        assert (answer.status, answer.reason) == (206, "Partial Content")
        assert answer.body == BODY[start:stop]
        assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
        assert answer["Content-Length"] == str(stop - start)
        assert answer["ETag"] == '"v1"'
        assert "Content-Encoding" not in answer  # parts are of the identity body
        assert answer["X-Cache-Status"] == "HIT"
        assert origin.count("/a") == 1


async def test_several_parts(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """multipart/byteranges (RFC 9110 §14.6); the boundary is not the client's to choose."""
    origin.reply("/a", headers=PLAIN, body=BODY)
    long_id = "boundary" * 16
    async with running_edge(origin.url, clock=clock, trace_from="all") as edge:
        await edge.get("/a")
        answer = await edge.get("/a", ("Range", "bytes=5-9, -3,300-300"), ("X-Request-ID", long_id))
        assert answer.status == 206
        assert "Content-Range" not in answer
        found = re.fullmatch(r'multipart/byteranges; boundary="([A-Za-z0-9-]{1,70})"', answer["Content-Type"])
        assert found is not None
        mark = b"--" + found[1].encode()
        preamble, *parts, end = answer.body.split(mark)
        assert (preamble, end) == (b"\r\n", b"--\r\n")
        assert [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts] == [
            BODY[5:10], BODY[-3:], BODY[300:301],
        ]  # fmt: skip
        assert [re.search(rb"Content-Range: (.*)\r\n", part)[1] for part in parts] == [  # type: ignore[index]
            b"bytes 5-9/10240", b"bytes 10237-10239/10240", b"bytes 300-300/10240",
        ]  # fmt: skip
        assert all(b"\r\nContent-Type: text/plain\r\n" in part for part in parts)


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
async def test_no_part_of_it(origin: LedgerOrigin, clock: DrivenClock, asked: str) -> None:
    origin.reply("/a", headers=PLAIN, body=BODY)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        answer = await edge.get("/a", ("Range", asked))
        assert (answer.status, answer.body) == (416, b"")
        assert answer["Content-Range"] == "bytes */10240"


@pytest.mark.parametrize("asked", ["bytes=5-3", "lines=1-2", "bytes=a-b", "bytes", "bytes=0-1,0-1", ""])
async def test_a_range_that_is_none_is_ignored(origin: LedgerOrigin, clock: DrivenClock, asked: str) -> None:
    origin.reply("/a", headers=PLAIN, body=BODY)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        answer = await edge.get("/a", ("Range", asked))
        assert (answer.status, answer.body) == (200, BODY)


async def test_if_range(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", headers=PLAIN, body=BODY, etag=True)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/a")
        part = ("Range", "bytes=0-9")
        assert (await edge.get("/a", part, ("If-Range", '"v1"'))).status == 206
        for other in ('"v2"', 'W/"v1"', '"v1-br"', "Tue, 14 Nov 2023 00:00:00 GMT"):
            answer = await edge.get("/a", part, ("If-Range", other))
            assert (answer.status, answer.body) == (200, BODY)
        # Conditions come first (RFC 9110 §13.2.2).
        assert (await edge.get("/a", part, ("If-None-Match", '"v1"'))).status == 304


async def test_a_range_on_a_miss_that_the_origin_answers_with_the_whole(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.reply("/a", headers=PLAIN, body=BODY)
    async with running_edge(origin.url, clock=clock) as edge:
        answer = await edge.get("/a", ("Range", "bytes=256-511"))
        assert (answer.status, answer.body) == (206, BODY[256:512])
        assert origin.of("/a")[0].get("range") == "bytes=256-511"
        await edge.settle()
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"


async def test_a_stored_answer_without_a_body(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.script("/empty", [head(200, [("Content-Length", "0"), ("Cache-Control", "max-age=9")])])
    origin.script("/none", [head(204, [("Cache-Control", "max-age=9")])])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        for _ in range(4):
            empty = await client.request("GET", "/empty", [("Range", "bytes=0-1")])
            assert (empty.status, empty["Content-Length"], empty.body) == (200, "0", b"")
            none = await client.request("GET", "/none")
            assert none.status == 204
            assert "Content-Length" not in none
        assert (origin.count("/empty"), origin.count("/none")) == (1, 1)
