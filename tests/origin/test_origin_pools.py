"""Pools of real origins, through ``Pools`` itself: TLS, Unix sockets, turns, and what one request costs."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from edgeproxy.origin.base import OriginError, Purpose
from edgeproxy.origin.breaker import State
from edgeproxy.origin.pools import Pools
from edgeproxy.origin.turns import Turns
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.rules.load import load_text
from edgeproxy.rules.pools import Given, OriginSpec, PoolSpec, Tls
from tests.origin.conftest import forward, read_all, spawn
from tests.support.driven import DrivenClock
from tests.support.ledger import Gate, LedgerOrigin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_tls_of_a_pool(certificate: tuple[Path, Path]) -> None:
    """Authorities, the name in SNI, and a certificate of our own that the origin asks for."""
    key, cert = certificate
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert, key)
    server.load_verify_locations(cert)
    server.verify_mode = ssl.CERT_REQUIRED
    clock = DrivenClock()
    async with LedgerOrigin(tls=server) as origin:
        for tls, well in (
            (Tls(ca=cert, cert=cert, key=key, server_name="origin.test"), True),
            (Tls(cert=cert, key=key, verify=False), True),
            (Tls(ca=cert, cert=cert, key=key), False),
            (Tls(cert=cert, key=key, server_name="origin.test"), False),
        ):
            spec = PoolSpec("default", "x", (OriginSpec(origin.url),), tls=tls)
            specs = Given().completed((spec,))
            pools = Pools(specs, clock=clock, spawn=spawn, turns=Turns(), chance=lambda: 0.0)
            try:
                if well:
                    assert await read_all(await pools.fetch(forward())) == origin.stamp("/a", 1)
                else:
                    with pytest.raises(OriginError) as caught:
                        await pools.fetch(forward())
                    assert caught.value.failure is OriginFailure.TLS
            finally:
                await pools.aclose()


async def test_a_pool_on_a_unix_socket(tmp_path: Path) -> None:
    where = str(tmp_path / "o.sock")
    async with LedgerOrigin(unix=where) as origin:
        loaded = load_text(f'pools: {{default: {{origins: "http+unix://{quote(where, safe="")}"}}}}')
        specs = Given().completed(loaded.pools)
        pools = Pools(specs, clock=DrivenClock(), spawn=spawn, turns=Turns(), chance=lambda: 0.0)
        assert await read_all(await pools.fetch(forward())) == origin.stamp("/a", 1)
        await pools.aclose()


async def test_another_worker_is_trying_it(tmp_path: Path, clock: DrivenClock) -> None:
    """An origin that somebody else on the machine tries is not tried here, and looked at again soon."""
    theirs, mine = Turns(str(tmp_path)), Turns(str(tmp_path))
    async with LedgerOrigin() as origin:
        specs = Given((origin.url,)).completed(())
        pools = Pools(specs, clock=clock, spawn=spawn, turns=mine, chance=lambda: 0.0)
        await origin.stop()
        for _ in range(3):
            with pytest.raises(OriginError):
                await pools.fetch(forward())
        (member,) = pools.pools["default"].members
        assert member.breaker.state is State.OPEN
        await origin.start()
        await clock.advance(1.01)
        assert theirs.take(origin.url)
        with pytest.raises(OriginError) as caught:
            await pools.fetch(forward())
        assert (caught.value.failure, origin.requests) == (OriginFailure.BREAKER_OPEN, [])
        theirs.leave(origin.url)
        await clock.advance(0.3)
        await read_all(await pools.fetch(forward()))
        assert theirs.take(origin.url), "and ours was given back"
        theirs.close()
        await pools.aclose()


async def test_background_work_yields_to_clients_that_wait(clock: DrivenClock) -> None:
    async with LedgerOrigin() as origin:
        specs = Given((origin.url,), concurrent=1).completed(())
        pools = Pools(specs, clock=clock, spawn=spawn, turns=Turns(), chance=lambda: 0.0)
        origin.script("/a", [Gate("a")])
        first, second = (spawn(fails(pools), "client") for _ in range(2))
        await origin.arrived("/a")
        with pytest.raises(OriginError) as caught:
            await pools.fetch(forward(purpose=Purpose.REFRESH))
        assert caught.value.failure is OriginFailure.YIELDED
        await pools.aclose()
        await first
        await second


async def fails(pools: Pools) -> None:
    with pytest.raises(OriginError):
        await pools.fetch(forward())


async def test_a_pool_of_one_takes_the_short_way(clock: DrivenClock) -> None:
    """... again after its breaker has closed; nothing is set going for a request."""
    async with LedgerOrigin() as origin:
        specs = Given((origin.url,)).completed(())
        pools = Pools(specs, clock=clock, spawn=spawn, turns=Turns(), chance=lambda: 0.0)
        pool = pools.pools["default"]
        assert pool.solo is not None
        await read_all(await pools.fetch(forward()))
        assert len(clock.pending) == 1, "the connection's own"
        await origin.stop()
        for _ in range(3):
            with pytest.raises(OriginError):
                await pools.fetch(forward())
        assert pool.solo is None
        await origin.start()
        await clock.advance(1.01)
        await read_all(await pools.fetch(forward()))
        assert pool.solo is not None
        await pools.aclose()
