"""Requests on the wire: refused, or one meaning for the edge and the origin. The cases: cases/requests.yaml.

Rules of this file:

- Each case goes three ways: first on a connection, to an edge with its lane; behind a hit that the lane has
  given on the same connection; octet by octet, to an edge without a lane.
- Whatever the origin is sent, in any case, is looked at strictly: ``canonical``.
- Behind each case stands another request, which must not be executed where the case is refused. (Octet by
  octet it is left out: to write to a connection that was refused may cost the client the answer.)
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.front.test_lane import lane_hits
from tests.hardening.cases import requests
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.hardening.cases import Asked, RequestCase
    from tests.support.ledger import Recorded
    from tests.support.rawclient import RawClient

CASES = requests()
HOT = b"GET /hot HTTP/1.1\r\nHost: a\r\n\r\n"
WAYS = ("first", "behind a hit")
FEW = 2
MANY = 2000
"""Octets that are not sent one by one."""
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n"

_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e\x80-\xff]+ HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t\x20-\x7e\x80-\xff]*)")


@dataclass
class Stand:
    """An origin, and an edge with its lane and one without before it."""

    origin: LedgerOrigin
    edges: dict[str, Edge]
    barrier: dict[str, RawClient]
    """A connection of its own to each."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with LedgerOrigin() as origin:
        options = {"clock": DrivenClock(), "max_body": "1MiB"}
        async with (
            running_edge(origin.url, lane="on", **options) as with_lane,  # type: ignore[arg-type]
            running_edge(origin.url, lane="off", **options) as without,  # type: ignore[arg-type]
        ):
            stand = Stand(origin, {"on": with_lane, "off": without}, {})
            origin.reply("/hot", headers=[("Cache-Control", "max-age=3600")])
            async with with_lane.client() as one, without.client() as other:
                for _ in range(4):
                    await with_lane.get("/hot", ("Host", "a"))
                assert await lane_hits(with_lane)
                stand.barrier = {with_lane.host: one, without.host: other}
                yield stand


def canonical(asked: Recorded) -> None:
    """What the edge has sent can be read in one way only."""
    start, *lines = asked.raw_head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert _REQUEST_LINE.fullmatch(start), start
    pairs = [_FIELD.fullmatch(line) for line in lines]
    assert all(pairs), lines
    names = [pair[1].lower() for pair in pairs if pair]
    assert names.count(b"host") == 1, lines
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, lines
    assert asked.get("transfer-encoding") in {None, "chunked"}
    assert re.fullmatch(r"\d+", asked.get("content-length") or "0")


def means(asked: Recorded, wanted: Asked) -> None:
    assert asked.body_complete
    if wanted.method is not None:
        assert asked.method == wanted.method
    if wanted.target is not None:
        assert asked.target == wanted.target
    if wanted.hosts is not None:
        assert asked.all("host") == list(wanted.hosts)
    if wanted.body is not None:
        assert bytes(asked.body) == wanted.body.encode("latin-1")
    if wanted.framing:
        name, _, value = wanted.framing.partition(": ")
        assert asked.all(name) == [value]
    for name, value in wanted.has.items():
        assert asked.all(name) == [value]
    for name in wanted.hasnt:
        assert asked.get(name) is None


async def send_each_octet(client: RawClient, octets: bytes) -> None:
    """As many segments as octets, until an error comes: to write to what has been closed may lose it."""
    transport = client.writer.transport
    for place in range(len(octets)):
        transport.write(octets[place : place + 1])
        await asyncio.sleep(0)
        if client.reader._buffer[9:10] in (b"4", b"5") or client.reader.at_eof():  # type: ignore[attr-defined]
            return


async def play(stand: Stand, case: RequestCase, way: str) -> None:
    edge, origin = stand.edges["off" if way == "octets" else "on"], stand.origin
    origin.forget()
    origin.cache_control = "no-store"
    async with edge.client() as client:
        if way == "behind a hit":
            await client.send(HOT)
            assert (await client.read_answer()).status == 200
        if way == "octets":
            await send_each_octet(client, case.sends)
        else:
            await client.send(case.sends + AFTER * (not case.alone))
        method = case.sends.lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
        answer = await client.read_head()
        refused = answer.status in case.statuses
        # A head that was not understood may have been of HEAD or not: it is answered with a body, and an end.
        await client.read_body(answer, "GET" if refused else method)
        if refused:
            client.half_close()  # what is left of a body would be read for a while
            assert await client.at_end(), "a refused request is its connection's last"
        else:
            assert case.asked is not None, f"answered {answer.status}"
            assert answer.status == 200, answer
            if (way == "octets" or case.alone) and answer.keep_alive:
                await client.send(AFTER)
            if case.closes != "maybe":
                closes = way != "octets" if case.closes == "behind" else case.closes
                assert answer.keep_alive is not closes
            if answer.keep_alive:
                after = await client.read_answer()
                assert (after.status, after.body) == (200, b"/after version 1\n")
            else:
                assert await client.at_end()
    # Whatever the edge had begun has arrived when a later request of its has.
    await stand.barrier[edge.host].get("/barrier")
    seen = [asked for asked in origin.requests if asked.path not in {"/barrier", "/hot"}]
    for asked in seen:
        canonical(asked)
    if refused:
        assert not any(asked.body_complete for asked in seen)
        assert len(seen) <= case.begun
    else:
        assert case.asked is not None
        means(seen[0], case.asked)
        assert [asked.target for asked in seen[1:]] == ["/after"] * answer.keep_alive


def ways(case: RequestCase, place: int) -> tuple[str, ...]:
    """Octet by octet where chunks come, and else for a few items of each case: it takes long."""
    if len(case.sends) < MANY and (place < FEW or b"hunked" in case.sends):
        return (*WAYS, "octets")
    return WAYS


async def all_that_is_wrong(stand: Stand, plays: list[tuple[RequestCase, str]]) -> str:
    wrong = []
    for case, way in plays:
        try:
            await play(stand, case, way)
        except (AssertionError, ConnectionError) as error:
            wrong.append(f"{case} ({way}): {error}"[:300])
    return "\n".join(wrong)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_request(stand: Stand, name: str) -> None:
    plays = [(case, way) for place, case in enumerate(CASES[name]) for way in ways(case, place)]
    assert not await all_that_is_wrong(stand, plays)


@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
async def test_every_request_octet_by_octet(stand: Stand) -> None:
    cases = [case for items in CASES.values() for case in items if len(case.sends) < MANY]
    assert not await all_that_is_wrong(stand, [(case, "octets") for case in cases])
