"""A3: every wait for an origin has an end."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.failing import NO_STORE, PASS, only, start
from tests.support.edge import running_edge
from tests.support.ledger import Gate, LedgerOrigin, chunk, head

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import Step


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A listener whose backlog is full: it accepts nothing and refuses nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


TIMEOUTS = (
    PASS
    + "pools: {default: {timeouts: {connect: 2s, tls: 3s, first_byte: 5s, between_bytes: 7s, whole: 11s}}}"
)


async def fires_at(edge: Edge, clock: DrivenClock, asked: asyncio.Task[Any], seconds: float) -> None:
    """Within a tenth."""
    await clock.advance(seconds * 0.95)
    assert not asked.done()
    await clock.advance(seconds * 0.1)
    await asked
    assert edge.worker.origin.in_flight == 0


async def test_a3_connect(clock: DrivenClock, rules: WriteRules) -> None:
    with black_hole() as where:
        async with running_edge(f"http://{where}", clock=clock, rules=rules(TIMEOUTS)) as edge:
            asked = start(edge, "/a")
            await edge.until(lambda: edge.worker.origin.in_flight == 1)
            await fires_at(edge, clock, asked, 2)
            assert (asked.result().status, edge.traces[-1].reason) == (504, "connect-timeout")


async def test_a3_tls(clock: DrivenClock, rules: WriteRules) -> None:
    """The connection is accepted and nobody shakes hands."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        where = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with running_edge(where, clock=clock, rules=rules(TIMEOUTS)) as edge:
            asked = start(edge, "/a")
            await edge.until(lambda: edge.worker.origin.in_flight == 1)
            await fires_at(edge, clock, asked, 3)
            assert (asked.result().status, edge.traces[-1].reason) == (504, "tls-timeout")


@pytest.mark.parametrize("reused", [False, True])
async def test_a3_first_byte(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, reused: bool
) -> None:
    origin.script("/a", [Gate("never")])
    async with running_edge(origin.url, clock=clock, rules=rules(TIMEOUTS)) as edge:
        if reused:
            await edge.get("/before")
        asked = start(edge, "/a")
        await origin.arrived("/a")
        await fires_at(edge, clock, asked, 5)
        assert (asked.result().status, edge.traces[-1].reason) == (504, "first-byte-timeout")
        assert origin.connections == 1, "a timeout is not tried again at the same origin"


async def test_a3_between_bytes(origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules) -> None:
    origin.script("/a", [head(200, [("Content-Length", "9"), *NO_STORE]), b"some", Gate("never")])
    async with running_edge(origin.url, clock=clock, rules=rules(TIMEOUTS)) as edge:
        asked = start(edge, "/a")
        await origin.gate("never").reached()
        await fires_at(edge, clock, asked, 7)
        assert not asked.result().complete, "the head was out: broken off, never ended well"
        assert edge.traces[-1].reason == "read-timeout"


@pytest.mark.parametrize("case", ["drip", "many pieces of a head", "waiting for a place"])
async def test_a3_whole(origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, case: str) -> None:
    """One octet a second moves every other deadline."""
    gates = [Gate(str(n)) for n in range(30)]
    drip: list[Step] = [head(200, [("Transfer-Encoding", "chunked"), *NO_STORE])]
    drip += [step for gate in gates for step in (chunk(b"x"), gate)]
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    if case == "drip":
        origin.script("/a", drip)
    else:
        origin.script("/a", [step for gate in gates[:12] for step in (interim, gate)])
    text = TIMEOUTS
    if case == "waiting for a place":
        text = text.replace("timeouts:", "limits: {concurrent: 1, wait: 60s}, timeouts:").replace("5s", "50s")
        origin.script("/first", [Gate("never")])
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge:
        if case == "waiting for a place":
            first = start(edge, "/first")
            await origin.arrived("/first")
            await clock.advance(1)
        asked = start(edge, "/a")
        if case == "waiting for a place":
            await edge.until(lambda: only(edge).client.queued == 1)
            await clock.advance(9.9)
            assert not first.done()
            await clock.advance(0.2)
            assert (await first).status == 504
            await clock.advance(0.8)
        else:
            await origin.arrived("/a")
            for gate in gates[:10]:
                await origin.gate(gate.name).reached()
                await clock.advance(1)
                assert not asked.done()
                origin.gate(gate.name).open()
            await clock.advance(0.9)
        assert not asked.done()
        await clock.advance(0.2)
        answer = await asked
        assert edge.traces[-1].reason == "whole-timeout"
        assert (answer.status == 504) if case != "drip" else not answer.complete
        assert edge.worker.origin.in_flight == 0
