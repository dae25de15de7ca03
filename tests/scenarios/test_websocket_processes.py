"""C10 with real processes: what a restart is to those who have a WebSocket open, and a second signal."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from edgeproxy.clock import Clock
from tests.support.origins import EdgeProcess, edgeproxy_process
from tests.support.rawclient import RawClient
from tests.support.websocket import HANDSHAKE, TEXT, RawSocketOrigin, at_end, closing, made, read_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("workers")]

COUNT = 40


@asynccontextmanager
async def with_sockets(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[EdgeProcess, list[RawClient]]]:
    """A worker or several, and COUNT open WebSockets over which a message has passed both ways."""
    async with RawSocketOrigin() as origin:
        with ExitStack() as stack:
            running = edgeproxy_process(origin.url, tmp_path, arguments=arguments)
            edge = await asyncio.to_thread(stack.enter_context, running)
            clients = [await opened(edge, origin) for _ in range(COUNT)]
            yield edge, clients
            for client in clients:
                await client.aclose()
            await asyncio.to_thread(stack.close)


async def opened(edge: EdgeProcess, origin: RawSocketOrigin) -> RawClient:
    client = RawClient("127.0.0.1", edge.port)
    await client.connect()
    await client.start("GET", "/ws", HANDSHAKE)
    assert (await client.read_head()).status == 101
    end = await origin.end()
    await client.send(made(TEXT, b"up"))
    assert (await end.frame()).payload == b"up"
    await end.send(made(TEXT, b"down", masked=False))
    assert (await read_frame(client.reader)).payload == b"down"
    return client


async def goodbye(client: RawClient) -> float:
    """When the Close came."""
    assert (await read_frame(client.reader, 60)).code == 1001  # the second worker's turn comes late
    at = Clock().monotonic()
    await client.send(closing(1001))
    assert await at_end(client.reader)
    return at


async def test_sigterm_says_goodbye_to_each(tmp_path: Path) -> None:
    async with with_sockets(tmp_path, "--drain-timeout", "10s") as (edge, clients):
        edge.process.send_signal(signal.SIGTERM)
        times = sorted(await asyncio.gather(*(goodbye(client) for client in clients)))
        assert 0.2 < times[-1] - times[0] < 7
        assert await asyncio.to_thread(edge.process.wait, 10) == 0
        assert edge.log().count('"closed":"edge 1001"') == COUNT
        assert "Traceback" not in edge.log()


async def test_who_does_not_answer_is_cut_at_the_deadline(tmp_path: Path) -> None:
    async with with_sockets(tmp_path, "--drain-timeout", "2s") as (edge, clients):
        edge.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(edge.process.wait, 10) == 0
        for client in clients:
            assert (await read_frame(client.reader)).code == 1001
            assert await at_end(client.reader)
        assert "Traceback" not in edge.log()


async def test_a_rolling_restart(tmp_path: Path) -> None:
    """Each is told; who comes back finds a worker; the old ones are gone."""
    async with with_sockets(tmp_path, "--workers", "2", "--drain-timeout", "10s") as (edge, clients):
        edge.process.send_signal(signal.SIGUSR2)
        await asyncio.gather(*(goodbye(client) for client in clients))
        async with RawClient("127.0.0.1", edge.port) as client:
            await client.start("GET", "/ws", HANDSHAKE)
            assert (await client.read_head()).status == 101
            client.reset()
        async with asyncio.timeout(30):
            while "all workers are replaced" not in edge.log():  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.05)
