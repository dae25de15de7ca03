"""An origin's name that comes to mean another address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.failing import PASS, only
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock


@pytest.fixture
async def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where origin.test is: at the one in the list."""
    found = ["127.0.0.1"]
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def resolve(host: str, port: int, **more: Any) -> Any:
        assert host == "origin.test"
        return await real(found[0], port, **more)

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    return found


async def test_a_name_that_changes_its_address(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, addresses: list[str]
) -> None:
    """Names are asked for anew with each connection; the request that finds the old one dead is repeated."""
    moved = LedgerOrigin(clock=clock, host="127.0.0.2")
    moved.port = origin.port
    async with (
        moved,
        running_edge(f"http://origin.test:{origin.port}", clock=clock, rules=rules(PASS)) as edge,
    ):
        assert (await edge.get("/a")).status == 200
        assert (origin.count("/a"), moved.count("/a")) == (1, 0)
        addresses[:] = ["127.0.0.2"]
        await origin.stop()
        for _ in range(3):
            assert (await edge.get("/a")).status == 200
        assert (origin.count("/a"), moved.count("/a")) == (1, 3)


async def test_a_name_that_changes_its_address_while_the_old_one_goes_on_answering(
    origin: LedgerOrigin, clock: DrivenClock, rules: WriteRules, addresses: list[str]
) -> None:
    """A connection that is always busy would be kept for ever, and the origin asked where it was."""
    moved = LedgerOrigin(clock=clock, host="127.0.0.2")
    moved.port = origin.port
    async with (
        moved,
        running_edge(f"http://origin.test:{origin.port}", clock=clock, rules=rules(PASS)) as edge,
        edge.client() as client,
    ):
        for second in range(100):
            if second == 20:
                addresses[:] = ["127.0.0.2"]
            answers = await asyncio.gather(client.get("/a"), edge.get("/a"))
            assert {a.status for a in answers} == {200}
            await clock.advance(1)
        assert len(origin.requests) + len(moved.requests) == 200, "no request was sent twice"
        assert origin.connections <= 2, "two, until they came of age"
        assert 40 <= len(origin.requests) < 150
        for each in moved.requests[-20:]:
            assert each.path == "/a"
        assert len(moved.requests) > 50
        assert only(edge).client.connects <= 6

    # An address cannot move: its connections are kept as long as both sides like.
    async with (
        LedgerOrigin(clock=clock) as fixed,
        running_edge(fixed.url, clock=clock, rules=rules(PASS)) as edge,
    ):
        for _ in range(30):
            assert (await edge.get("/a")).status == 200
            await clock.advance(5)
        assert fixed.connections == 1
