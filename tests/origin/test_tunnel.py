"""A connection that leaves HTTP with a 101: handed over whole, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.tunnel import SwitchedConnection, accept_of
from edgeproxy.policy.vocabulary import OriginFailure
from tests.origin.conftest import forward
from tests.support.ledger import Gate, head
from tests.support.websocket import ACCEPT, HANDSHAKE, KEY, TEXT, RawSocketOrigin, at_end, made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.origin.base import Forward
    from edgeproxy.origin.client import OriginClient
    from tests.support.ledger import LedgerOrigin

ASKED: Forward = forward(headers=[*HANDSHAKE[2:]], upgrade=True)
SWITCHED = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)]


class Taker(asyncio.Protocol):
    def __init__(self, tunnel: SwitchedConnection) -> None:
        self.tunnel = tunnel
        self.got = bytearray()
        self.is_lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.tunnel.lost(exc)
        self.is_lost.set()


def test_the_accept_of_the_rfc() -> None:
    assert accept_of(KEY) == ACCEPT


async def switched(client: OriginClient) -> SwitchedConnection:
    reply = await client.fetch(ASKED)
    assert reply.head.status == 101
    assert isinstance(reply.body, SwitchedConnection)
    assert (client.in_flight, client.connections_open) == (0, 1)
    assert (reply.body.take_all(), await reply.body.read()) == (None, b"")
    return reply.body


@pytest.mark.parametrize("behind", [0, 100, 300_000])
async def test_taken_over(make: Callable[..., OriginClient], behind: int) -> None:
    """With what came behind the 101, however much that is; from then on octets are octets."""
    late = bytes(i % 251 for i in range(behind))
    async with RawSocketOrigin(behind=late) as origin:
        client = make(origin.url)
        tunnel = await switched(client)
        end = await origin.end()
        for _ in range(100):
            await asyncio.sleep(0)  # it comes while nobody has taken over
        taker = Taker(tunnel)
        transport, early = tunnel.take_over(taker)
        taker.got[:0] = early
        transport.write(made(TEXT, b"hello"))
        assert (await end.frame()).payload == b"hello"
        await end.send(b"HTTP/1.1 200 OK\r\n\r\n")  # no head any more
        end.writer.close()
        await taker.is_lost.wait()
        assert bytes(taker.got) == late + b"HTTP/1.1 200 OK\r\n\r\n"
        assert client.connections_open == 0


async def test_closed_by_who_took_over_or_before(make: Callable[..., OriginClient]) -> None:
    async with RawSocketOrigin() as origin:
        client = make(origin.url)
        for takes in (True, False):
            tunnel = await switched(client)
            end = await origin.end()
            taker = Taker(tunnel)
            if takes:
                tunnel.take_over(taker)
            tunnel.close()
            tunnel.close()
            assert await at_end(end.reader)
        with pytest.raises(OriginError):
            tunnel.take_over(taker)
        assert client.connections_open == 0


async def test_the_end_of_the_client_is_the_end_of_its_tunnels(make: Callable[..., OriginClient]) -> None:
    async with RawSocketOrigin() as origin:
        client = make(origin.url)
        tunnel = await switched(client)
        taker = Taker(tunnel)
        tunnel.take_over(taker)
        await client.aclose()
        await taker.is_lost.wait()


async def test_an_origin_that_is_gone_behind_its_101(make: Callable[..., OriginClient]) -> None:
    async with RawSocketOrigin() as origin:
        client = make(origin.url)
        tunnel = await switched(client)
        (await origin.end()).reset()
        async with asyncio.timeout(5):
            while client.connections_open:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)
        with pytest.raises(OriginError) as caught:
            tunnel.take_over(Taker(tunnel))
        assert caught.value.failure is OriginFailure.RESET


async def test_a_101_that_was_not_asked_for(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [head(101, SWITCHED), Gate("never")])
    with pytest.raises(OriginError) as caught:
        await client.fetch(forward())
    assert caught.value.failure is OriginFailure.BAD_RESPONSE
    await origin.connections_are(0)


async def test_an_early_hint_before_the_101(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [head(103), head(101, SWITCHED), Gate("never")])
    (await switched(client)).close()
    await origin.connections_are(0)


@pytest.fixture(scope="module")
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    key, cert = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


async def test_over_tls(
    make: Callable[..., OriginClient], certificate: tuple[Path, Path], server_tls: ssl.SSLContext
) -> None:
    async with RawSocketOrigin(behind=b"late", tls=server_tls) as origin:
        trusting = ssl.create_default_context(cafile=str(certificate[1]))
        client = make(origin.url, tls=trusting, server_name="origin.test")
        tunnel = await switched(client)
        end = await origin.end()
        taker = Taker(tunnel)
        transport, early = tunnel.take_over(taker)
        taker.got[:0] = early
        transport.write(made(TEXT, b"hello"))
        assert (await end.frame()).payload == b"hello"
        await end.send(b" and more")
        end.writer.close()
        await taker.is_lost.wait()
        assert bytes(taker.got) == b"late and more"
