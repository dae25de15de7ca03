"""Clients that do not read: what they cost, and when they are no longer waited for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from edgeproxy.front.parting import Idle
from edgeproxy.front.sender import SLICE
from edgeproxy.front.unread import FAREWELL, GRACE, PATIENCE, UNSENT
from tests.support.edge import running_edge
from tests.support.ledger import head
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

MIB = 2**20
NO_STORE = ("Cache-Control", "no-store")
HIGH_WATER = 64 * 1024


def slow_client(edge: Edge) -> RawClient:
    return RawClient("127.0.0.1", edge.worker.port, receive_buffer=4096)


async def narrow(edge: Edge, client: RawClient) -> None:
    """The kernel shall hold little of what this, the only client, is sent."""
    await client.request("GET", "/a")
    (connection,) = edge.worker.server.connections
    assert connection.transport is not None
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)


def unsent(edge: Edge) -> int:
    (connection,) = edge.worker.server.connections
    assert connection.transport is not None
    return connection.transport.get_write_buffer_size()


async def still(edge: Edge) -> None:
    """Until the kernel takes no more of what the one connection has been sent."""
    async with asyncio.timeout(20):
        before, turns = -1, 0
        while turns < 300:
            await asyncio.sleep(0)
            now = unsent(edge)
            turns = turns + 1 if now == before and now > 0 else 0
            before = now


async def test_a_place_at_the_origin_is_not_held_by_a_client_that_does_not_read(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    origin.script("/big", [head(200, [NO_STORE, ("Content-Length", str(64 * MIB))]), *[bytes(MIB)] * 64])
    async with running_edge(origin.url, clock=clock) as edge, slow_client(edge) as client:
        await client.start("GET", "/big")
        await client.read_head()
        await still(edge)
        await clock.advance(PATIENCE - 1)
        assert edge.worker.handler.in_flight == 1
        await clock.advance(PATIENCE + 1)
        await edge.until(lambda: edge.worker.handler.in_flight == 0)
        assert edge.traces[-1].aborted
        await origin.connections_are(0)
        await edge.until(lambda: not edge.worker.server.connections)


async def test_a_client_that_reads_slowly_is_waited_for(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Less than the kernel asks for at once, so that the edge's own buffer stands still for long."""
    origin.script("/big", [head(200, [NO_STORE, ("Content-Length", str(64 * MIB))]), *[bytes(MIB)] * 64])
    async with running_edge(origin.url, clock=clock) as edge, slow_client(edge) as client:
        await client.start("GET", "/big")
        await client.read_head()
        await still(edge)
        read = 0
        for n in range(1, 13):
            while read < n * 2 * MIB:
                read += len(await client.reader.read(65_536))
            await still(edge)
            await clock.advance(PATIENCE / 2)
            assert edge.worker.handler.in_flight == 1
        while read < 64 * MIB:
            read += len(await client.reader.read(MIB))
        await edge.until(lambda: edge.worker.handler.in_flight == 0)
        assert not edge.traces[-1].aborted


async def test_a_client_that_reads_more_slowly_than_it_has_to_is_not_waited_for(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    """D5: something moves between two looks, and it is too little."""
    origin.script("/big", [head(200, [NO_STORE, ("Content-Length", str(64 * MIB))]), *[bytes(MIB)] * 64])
    async with running_edge(origin.url, clock=clock, min_rate="1MiB") as edge, slow_client(edge) as client:
        await client.start("GET", "/big")
        await client.read_head()
        await still(edge)
        for _ in range(int(GRACE) + 5):
            with contextlib.suppress(TimeoutError):
                await client.read_some()
            await clock.advance(1)
        await edge.until(lambda: edge.worker.handler.in_flight == 0)
        assert edge.traces[-1].aborted
        await origin.connections_are(0)


async def test_a_large_hit_costs_no_more_than_a_slice(origin: LedgerOrigin, clock: DrivenClock) -> None:
    body = bytes(range(256)) * 32 * 1024
    origin.reply("/large", body=body)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/large")
        await edge.settle()
        async with slow_client(edge) as client:
            await narrow(edge, client)
            await client.start("GET", "/large")
            answer = await client.read_head()
            assert answer["X-Cache-Status"] == "HIT"
            await still(edge)
            assert unsent(edge) <= SLICE + HIGH_WATER
            await client.read_body(answer)
            assert answer.complete
            assert answer.body == body
            assert "Connection" not in await client.request("GET", "/a")
            await client.start("GET", "/large")
            await client.read_head()
            await still(edge)
            await clock.advance(2 * PATIENCE)
            await edge.until(lambda: edge.worker.handler.in_flight == 0)
            assert [t.aborted for t in edge.traces if t.target == "/large"] == [False, False, True]


@pytest.mark.parametrize("how", ["idle", "close"])
async def test_a_closed_connection_ends_though_its_client_does_not_read(
    origin: LedgerOrigin, clock: DrivenClock, how: str
) -> None:
    body = bytes(8 * MIB)
    origin.reply("/large", body=body)
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/large")
        await edge.settle()
        async with slow_client(edge) as client:
            await narrow(edge, client)
            (connection,) = edge.worker.server.connections
            assert connection.transport is not None
            connection.transport.set_write_buffer_limits(high=2 * len(body))
            await client.start("GET", "/large", [("Connection", "close")] if how == "close" else [])
            await client.read_head()
            await edge.until(lambda: edge.worker.handler.in_flight == 0)
            await still(edge)
            if how == "idle":
                Idle(edge.clock, 0).end(edge.worker.server.idle())
            await clock.advance(FAREWELL - 1)
            assert len(edge.worker.server.connections) == 1
            await clock.advance(FAREWELL + 1)
            await edge.until(lambda: not edge.worker.server.connections)


async def test_the_kernel_is_not_handed_megabytes_for_who_does_not_read(origin: LedgerOrigin) -> None:
    """200 of them would be half a gigabyte of the machine's, copied before anything else is done."""
    async with running_edge(origin.url) as edge:
        if not hasattr(socket, "TCP_NOTSENT_LOWAT"):
            pytest.skip("this system has no TCP_NOTSENT_LOWAT")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            client.setblocking(False)
            accepted = edge.worker.doors.open
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", edge.worker.port))
            await edge.until(lambda: edge.worker.doors.open > accepted)
            (protocol,) = edge.worker.server.connections
            assert protocol.transport is not None
            sock = protocol.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT
