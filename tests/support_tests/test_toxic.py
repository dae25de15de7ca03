from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.driven import settle
from tests.support.leaks import leak_free  # noqa: F401
from tests.support.ledger import LedgerOrigin
from tests.support.rawclient import RawClient
from tests.support.toxic import ToxicProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def origin(leak_free: None) -> AsyncIterator[LedgerOrigin]:  # noqa: F811
    async with LedgerOrigin() as it:
        yield it


@pytest.fixture
async def proxy(origin: LedgerOrigin) -> AsyncIterator[ToxicProxy]:
    async with ToxicProxy(origin.host, origin.port) as it:
        yield it


async def test_passes_through_and_heals(proxy: ToxicProxy) -> None:
    async with RawClient(port=proxy.port) as client:
        assert (await client.get("/a")).complete
        proxy.delay(0.001)
        assert (await client.get("/a")).complete
        await proxy.heal()
        assert (await client.get("/a")).complete
    assert proxy.accepted == 1


async def test_hang_swallows_until_healed(proxy: ToxicProxy, origin: LedgerOrigin) -> None:
    proxy.hang()
    async with RawClient(port=proxy.port) as client:
        await client.start("GET", "/a")
        await settle(500)
        assert origin.count("/a") == 0
        await proxy.heal()
        await origin.arrived("/a")
        assert (await client.read_answer()).complete


async def test_reset_hits_open_and_new_connections(proxy: ToxicProxy) -> None:
    async with RawClient(port=proxy.port) as client:
        assert (await client.get("/a")).complete
        proxy.reset()
        assert await client.at_end()
        assert client.was_reset
    async with RawClient(port=proxy.port) as client:
        with pytest.raises(ConnectionError):
            await client.get("/a")
    await proxy.heal()
    async with RawClient(port=proxy.port) as client:
        assert (await client.get("/a")).complete


async def test_cut_truncates_an_answer(proxy: ToxicProxy, origin: LedgerOrigin) -> None:
    origin.reply("/a", body=b"x" * 100_000)
    async with RawClient(port=proxy.port) as client:
        proxy.cut(after=50_000)
        answer = await client.get("/a")
    assert not answer.complete
    assert len(answer.raw) == 50_000


async def test_refuse_takes_the_listener_away(proxy: ToxicProxy) -> None:
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        async with RawClient(port=proxy.port):
            pass
    await proxy.heal()
    async with RawClient(port=proxy.port) as client:
        assert (await client.get("/a")).complete
