"""Each timeout at its own value, each way of not connecting by its own name; TLS, Unix sockets, IPv6."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from aiohttp.client_proto import ResponseHandler

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.connection import verify_aiohttp
from edgeproxy.origin.dial import Address
from edgeproxy.policy.vocabulary import OriginFailure
from tests.origin.conftest import forward, read_all
from tests.support.driven import settle
from tests.support.ledger import Gate, LedgerOrigin, chunk, head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.origin.client import OriginClient
    from tests.support.driven import DrivenClock


async def failure(client: OriginClient, target: str = "/a") -> OriginFailure:
    with pytest.raises(OriginError) as caught:
        await client.fetch(forward(target=target))
    return caught.value.failure


@pytest.mark.parametrize("octets", [b"", b"HTTP/1.1 200 OK\r\nX:"], ids=["silence", "half a head"])
async def test_first_byte(
    origin: LedgerOrigin, make: Callable[..., OriginClient], clock: DrivenClock, octets: bytes
) -> None:
    client = make(first_byte_timeout=4)
    origin.script("/a", [octets, Gate("never")])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(failure(client))
        await origin.gate("never").reached()
        await clock.advance(3.9)
        assert not task.done()
        await clock.advance(0.2)
        assert task.done()
    assert task.result() is OriginFailure.FIRST_BYTE_TIMEOUT
    assert client.in_flight == 0
    await origin.connections_are(0)


async def test_deadlines_are_exact_on_a_connection_used_for_long(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    origin.script("/slow", [Gate("never")])
    for _ in range(4):
        await read_all(await client.fetch(forward()))
        await clock.advance(7)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(failure(client, "/slow"))
        await origin.arrived("/slow")
        await clock.advance(9.9)
        assert not task.done()
        await clock.advance(0.2)
        assert task.done()
    assert origin.connections == 1


async def test_silence_in_a_body(
    origin: LedgerOrigin, make: Callable[..., OriginClient], clock: DrivenClock
) -> None:
    client = make(read_timeout=5)
    pieces: list[bytes | Gate] = [
        head(200, [("Transfer-Encoding", "chunked")]),
        chunk(b"a"),
        Gate("1"),
        chunk(b"b"),
        Gate("2"),
    ]
    origin.script("/a", pieces)
    reply = await client.fetch(forward())
    assert await reply.body.read() == b"a"
    await clock.advance(4)
    origin.gate("1").open()
    assert await reply.body.read() == b"b"  # each piece moves the deadline
    await clock.advance(4.9)

    async def broken() -> OriginFailure:
        with pytest.raises(OriginError) as caught:
            await read_all(reply)
        return caught.value.failure

    async with asyncio.TaskGroup() as group:
        task = group.create_task(broken())
        await settle()
        assert not task.done()
        await clock.advance(0.2)
    assert task.result() is OriginFailure.READ_TIMEOUT
    assert client.failures[OriginFailure.READ_TIMEOUT] == 1


async def test_a_slow_reader_is_not_the_origins_silence(
    origin: LedgerOrigin, client: OriginClient, clock: DrivenClock
) -> None:
    origin.reply("/small", body=b"x" * 1000)
    origin.reply("/large", body=b"x" * 8_000_000)
    for target, size in (("/small", 1000), ("/large", 8_000_000)):
        reply = await client.fetch(forward(target=target))
        await settle(500)
        await clock.advance(3600)
        assert len(await read_all(reply)) == size


async def test_connect_timeout(make: Callable[..., OriginClient], clock: DrivenClock) -> None:
    """A listener whose backlog is full accepts nothing and refuses nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler = [socket.socket() for _ in range(4)]
        for each in filler:
            each.settimeout(0)
            each.connect_ex(listener.getsockname())
        client = make(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=2)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(failure(client))
            await clock.advance(1.9)
            assert not task.done()
            await clock.advance(0.2)
            assert task.done()
        assert task.result() is OriginFailure.CONNECT_TIMEOUT
        assert client.in_flight == 0
        for each in filler:
            each.close()


async def test_cancelled_while_connecting(make: Callable[..., OriginClient], clock: DrivenClock) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler = [socket.socket() for _ in range(4)]
        for each in filler:
            each.settimeout(0)
            each.connect_ex(listener.getsockname())
        client = make(f"http://127.0.0.1:{listener.getsockname()[1]}")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(client.fetch(forward()))
            await settle()
            assert not task.done()
            task.cancel()
        assert task.cancelled()
        assert client.in_flight == 0
        assert clock.pending == ()
        for each in filler:
            each.close()


async def test_refused(make: Callable[..., OriginClient], origin: LedgerOrigin) -> None:
    client = make()
    await origin.stop()
    assert await failure(client) is OriginFailure.REFUSED
    await origin.start()
    assert await read_all(await client.fetch(forward())) == b"/a version 1\n"


async def test_a_name_that_does_not_resolve(make: Callable[..., OriginClient]) -> None:
    assert await failure(make("http://no-such-host.invalid:81")) is OriginFailure.DNS


async def test_a_name_is_resolved_when_connecting(
    make: Callable[..., OriginClient], origin: LedgerOrigin
) -> None:
    client = make(f"http://localhost:{origin.port}")  # ::1 may come first and refuse: the next is tried
    assert await read_all(await client.fetch(forward())) == b"/a version 1\n"


async def test_unix_socket(make: Callable[..., OriginClient], tmp_path: Path) -> None:
    async with LedgerOrigin(unix=str(tmp_path / "origin.sock")) as origin:
        client = make(origin.url)
        assert await read_all(await client.fetch(forward())) == b"/a version 1\n"
        await client.aclose()
    assert await failure(make(f"unix:{tmp_path / 'nobody.sock'}")) is OriginFailure.REFUSED


async def test_ipv6(make: Callable[..., OriginClient]) -> None:
    try:
        origin = LedgerOrigin(host="::1")
        await origin.start()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    client = make(origin.url)
    assert await read_all(await client.fetch(forward())) == b"/a version 1\n"
    await client.aclose()
    await origin.stop()


async def test_tls(make: Callable[..., OriginClient], certificate: tuple[Path, Path]) -> None:
    key, cert = certificate
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert, key)
    named: list[str | None] = []
    server.sni_callback = lambda _sock, name, _context: named.append(name)
    trusting = ssl.create_default_context(cafile=str(cert))
    async with LedgerOrigin(tls=server) as origin:
        client = make(origin.url, tls=trusting, server_name="origin.test")
        for _ in range(2):
            assert await read_all(await client.fetch(forward())) == b"/a version 1\n"
        assert (origin.connections, named) == (1, ["origin.test"])
        await client.aclose()

        wrong_name = make(origin.url, tls=trusting, server_name="other.test")
        assert await failure(wrong_name) is OriginFailure.TLS
        untrusted = make(origin.url, server_name="origin.test")
        assert await failure(untrusted) is OriginFailure.TLS
        for each in (wrong_name, untrusted):
            await each.aclose()


async def test_tls_to_a_plain_origin(make: Callable[..., OriginClient], clock: DrivenClock) -> None:
    """One that answers the handshake in clear, and one that waits for a request that never comes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(head(400))
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await failure(make(f"https://127.0.0.1:{port}")) is OriginFailure.TLS
    server.close()
    await server.wait_closed()

    async with LedgerOrigin() as silent, asyncio.TaskGroup() as group:
        task = group.create_task(failure(make(f"https://{silent.authority}", connect_timeout=3)))
        await silent.connections_are(1)
        await clock.advance(2.9)
        assert not task.done()
        await clock.advance(0.2)
        await silent.connections_are(0)
    assert task.result() is OriginFailure.CONNECT_TIMEOUT


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", ("h", 80, False, None, "h")),
        ("http://H.example:8080/", ("h.example", 8080, False, None, "H.example:8080")),
        ("https://h", ("h", 443, True, None, "h")),
        ("http://[::1]:81", ("::1", 81, False, None, "[::1]:81")),
        ("unix:/run/a b.sock", ("", 0, False, "/run/a b.sock", "localhost")),
    ],
)
def test_addresses(url: str, expected: tuple[object, ...]) -> None:
    found = Address.parse(url)
    assert (found.host, found.port, found.tls, found.unix, found.authority) == expected


@pytest.mark.parametrize(
    "url",
    [
        "", "h:80", "//h", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://h/path", "http://h?q",
        "http://u:p@h", "unix:relative", "http://[::1", "http://é",
    ],
)  # fmt: skip
def test_wrong_addresses_are_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"^origin .*expected http://HOST"):
        Address.parse(url)


def test_this_aiohttp_is_one_we_know() -> None:
    verify_aiohttp()


def test_another_aiohttp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproxy.origin import connection

    for name, value, message in (
        ("installed", "3.15.0", r"3\.15\.0 is installed"),
        ("installed", "3.14.4", r"3\.14\.4 is installed"),
        ("_INSTANCE", ["_parser", "_no_such_thing"], r"missing .'_no_such_thing'"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(connection, name, value)
            with pytest.raises(RuntimeError, match=message):
                verify_aiohttp.__wrapped__()
    monkeypatch.setattr(ResponseHandler, "_due", 0, raising=False)
    with pytest.raises(RuntimeError, match=r"new .'_due'"):
        verify_aiohttp.__wrapped__()
