"""Connections and places: reuse, resending (A6), waiting, cancellation, closing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure
from tests.origin.conftest import forward, read_all
from tests.support.driven import settle
from tests.support.ledger import FIN, RST, Gate, LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgeproxy.origin.base import Forward
    from edgeproxy.origin.client import OriginClient
    from tests.support.driven import DrivenClock


async def get(client: OriginClient, target: str = "/a") -> bytes:
    return await read_all(await client.fetch(forward(target=target)))


async def failure(client: OriginClient, request: Forward | None = None) -> OriginFailure:
    with pytest.raises(OriginError) as caught:
        await client.fetch(request or forward())
    return caught.value.failure


async def test_connections_are_reused(origin: LedgerOrigin, client: OriginClient) -> None:
    for _ in range(5):
        await get(client)
    assert (origin.connections, client.connects, client.connections_idle) == (1, 1, 1)
    assert [r.order for r in origin.requests] == [1, 2, 3, 4, 5]


async def test_methods_alternate_on_one_connection(origin: LedgerOrigin, client: OriginClient) -> None:
    for method, body in [
        ("GET", b"/a version 1\n"),
        ("HEAD", b""),
        ("GET", b"/a version 1\n"),
        ("HEAD", b""),
    ]:
        reply = await client.fetch(forward(method))
        assert reply.body.take_all() == body
    assert origin.connections == 1


async def test_connection_close_is_kept_to(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.reply("/a", headers=[("Connection", "close")])
    await get(client)
    assert client.connections_idle == 0
    await get(client)
    assert origin.connections == 2


async def test_a_body_not_read_to_its_end_closes(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.reply("/a", body=b"x" * 4_000_000)
    reply = await client.fetch(forward())
    await reply.body.read()
    reply.body.close()
    reply.body.close()
    assert (client.connections_idle, client.in_flight) == (0, 0)
    await origin.connections_are(0)


async def test_an_idle_connection_expires(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    await get(client)
    await clock.advance(29)
    assert client.connections_idle == 1
    await clock.advance(2)
    assert (client.connections_idle, client.connections_open) == (0, 0)
    await origin.connections_are(0)
    assert clock.pending == ()


async def test_use_puts_the_expiry_off(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    for _ in range(6):
        await get(client)
        await clock.advance(20)
    assert origin.connections == 1
    assert client.connections_idle == 1


@pytest.mark.parametrize("end", [FIN, RST], ids=["FIN", "RST"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
async def test_an_idempotent_request_is_resent_once(
    origin: LedgerOrigin, client: OriginClient, method: str, end: object
) -> None:
    await get(client, "/warm")
    origin.script("/a", [end], times=1)  # type: ignore[list-item]
    reply = await client.fetch(forward(method))
    reply.body.close()
    assert (origin.count("/a"), origin.connections, client.resent) == (2, 2, 1)


async def test_resent_once_only(origin: LedgerOrigin, client: OriginClient) -> None:
    await get(client, "/warm")
    origin.script("/a", [FIN])
    assert await failure(client) is OriginFailure.RESET
    assert (origin.count("/a"), client.resent) == (2, 1)


async def test_resent_on_a_fresh_connection(origin: LedgerOrigin, client: OriginClient) -> None:
    """All idle connections may be dead when one is: the second try does not take another."""
    origin.reply("/warm", gate="g")
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(get(client, "/warm"))
        await origin.gate("g").reached(3)
        origin.gate("g").open()
    assert client.connections_idle == 3
    origin.script("/a", [FIN], times=1)
    await get(client)
    assert origin.requests[-1].order == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "BREW"])
async def test_others_are_not_resent(origin: LedgerOrigin, client: OriginClient, method: str) -> None:
    await get(client, "/warm")
    origin.script("/a", [FIN])
    assert await failure(client, forward(method)) is OriginFailure.RESET
    assert (origin.count("/a"), client.resent) == (1, 0)


async def test_a_streamed_body_is_not_resent(origin: LedgerOrigin, client: OriginClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    await get(client, "/warm")
    origin.script("/a", [FIN])
    assert await failure(client, forward("PUT", body=body(), length=3)) is OriginFailure.RESET
    assert (origin.count("/a"), client.resent) == (1, 0)


async def test_a_fresh_connection_is_no_reason_to_resend(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.script("/a", [FIN])
    assert await failure(client) is OriginFailure.RESET
    assert (origin.count("/a"), client.resent) == (1, 0)


@pytest.mark.parametrize("octets", [b"H", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: 1\r\n", head(103)])
async def test_after_an_octet_of_an_answer_nothing_is_resent(
    origin: LedgerOrigin, client: OriginClient, octets: bytes
) -> None:
    await get(client, "/warm")
    origin.script("/a", [octets, FIN])
    assert await failure(client) is OriginFailure.RESET
    assert (origin.count("/a"), client.resent) == (1, 0)


async def test_a_timeout_on_a_reused_connection_is_not_resent(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    await get(client, "/warm")
    origin.script("/a", [Gate("never")])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(failure(client))
        await origin.arrived("/a")
        await clock.advance(10.1)
    assert task.result() is OriginFailure.FIRST_BYTE_TIMEOUT
    assert (origin.count("/a"), client.resent) == (1, 0)


async def test_a_connection_closed_while_idle_is_not_used(origin: LedgerOrigin, client: OriginClient) -> None:
    await get(client)
    origin.drop_connections()
    await origin.connections_are(0)
    reply = await client.fetch(forward("POST"))
    reply.body.close()
    assert (client.resent, origin.connections) == (0, 2)


async def test_places_queue_and_are_handed_on(
    origin: LedgerOrigin, make: Callable[..., OriginClient]
) -> None:
    client = make(max_connections=2, max_queued=2)
    origin.reply("/a", gate="g")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(get(client)) for _ in range(4)]
        await origin.gate("g").reached(2)
        await settle()
        assert (client.in_flight, client.queued, origin.count("/a")) == (2, 2, 2)
        assert await failure(client) is OriginFailure.OVERLOADED
        origin.gate("g").open()
    assert len({t.result() for t in tasks}) == 1
    assert (origin.count("/a"), origin.connections) == (4, 2)
    assert client.failures[OriginFailure.OVERLOADED] == 1


async def test_waiting_for_a_place_has_an_end(
    origin: LedgerOrigin, make: Callable[..., OriginClient], clock: DrivenClock
) -> None:
    client = make(max_connections=1, queue_timeout=0.5)
    origin.reply("/a", gate="g")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(get(client))
        await origin.gate("g").reached()
        second = group.create_task(failure(client))
        await clock.advance(0.4)
        assert not second.done()
        await clock.advance(0.2)
        assert second.result() is OriginFailure.OVERLOADED
        assert client.queued == 0
        origin.gate("g").open()
    assert first.result()


async def test_one_who_leaves_the_queue_frees_it(
    origin: LedgerOrigin, make: Callable[..., OriginClient]
) -> None:
    client = make(max_connections=1, max_queued=1)
    origin.reply("/a", gate="g")
    async with asyncio.TaskGroup() as group:
        group.create_task(get(client))
        await origin.gate("g").reached()
        leaver = group.create_task(get(client))
        await settle()
        leaver.cancel()
        await settle()
        assert client.queued == 0
        stayer = group.create_task(get(client))
        await settle()
        assert client.queued == 1
        origin.gate("g").open()
    assert stayer.result()


async def test_leaving_in_the_turn_in_which_the_place_is_given(
    origin: LedgerOrigin, make: Callable[..., OriginClient]
) -> None:
    client = make(max_connections=1)
    reply = await client.fetch(forward())
    async with asyncio.TaskGroup() as group:
        leaver = group.create_task(get(client))
        await settle()
        reply.body.close()  # hands the place on
        leaver.cancel()  # before it could be used
    assert client.in_flight == 0
    await get(client)


async def test_a_cancelled_fetch_closes_its_connection(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.reply("/a", gate="never")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(get(client))
        await origin.gate("never").reached()
        task.cancel()
    assert (client.in_flight, client.connections_idle) == (0, 0)
    await settle()
    assert client.connections_open == 0


async def test_cancelled_while_the_body_is_read(origin: LedgerOrigin, client: OriginClient) -> None:
    origin.reply("/a", body_gate="never")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(get(client))
        await origin.gate("never").reached()
        await settle()
        task.cancel()
    assert (client.in_flight, client.connections_idle) == (0, 0)


async def test_closing_ends_what_is_under_way(
    origin: LedgerOrigin, make: Callable[..., OriginClient]
) -> None:
    client = make(max_connections=2)
    await get(client)
    origin.reply("/a", gate="never")
    origin.reply("/b", body_gate="never")
    reply = await client.fetch(forward(target="/b"))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(failure(client))
        await origin.gate("never").reached(2)
        queued = group.create_task(failure(client))
        await settle()
        await client.aclose()
        assert client.connections_open == 0
    assert waiting.result() is OriginFailure.RESET
    assert queued.result() is OriginFailure.OVERLOADED
    with pytest.raises(OriginError) as caught:
        await read_all(reply)
    assert caught.value.failure is OriginFailure.TRUNCATED
    assert await failure(client) is OriginFailure.OVERLOADED


async def test_a_probe_connects_and_keeps_what_it_opened(origin: LedgerOrigin, client: OriginClient) -> None:
    await client.probe()
    assert (client.connects, client.connections_idle, origin.requests) == (1, 1, [])
    await get(client)
    await client.probe()
    assert client.connects == 1
    await origin.stop()
    await settle()
    with pytest.raises(OriginError) as caught:
        await client.probe()
    assert caught.value.failure is OriginFailure.REFUSED
