"""TLS at the listener and the PROXY protocol in front of it, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.front.proxy_head import (
    FIXED,
    SIGNATURE,
    NotAHead,
    client_of,
    client_of_line,
    length_of,
)
from edgeproxy.front.tls import LOOK
from edgeproxy.settings import SettingsError
from tests.support.driven import settle
from tests.support.edge import TOKEN, running_edge
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

FRESH = [("Cache-Control", "max-age=3600")]


def certificate(where: Path, names: str, *, common: str = "edge", ca: bool = False) -> Path:
    """A new self-signed certificate and its key in one file."""
    key, chain = where.with_suffix(".key"), where.with_suffix(".crt")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "30", "-subj", f"/CN={common}", "-keyout", str(key), "-out", str(chain)]
    command += ["-addext", f"subjectAltName={names}"] if names else []
    command += ["-addext", f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}"]
    subprocess.run(command, check=True, capture_output=True)
    where.write_bytes(chain.read_bytes() + key.read_bytes())
    return where


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.pem, b.pem (other names), client.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on the PATH")
    here = tmp_path_factory.mktemp("tls")
    certificate(here / "a.pem", "DNS:a.test,IP:127.0.0.1", common="a")
    certificate(here / "b.pem", "DNS:b.test,DNS:*.B.test", common="b")
    certificate(here / "client.pem", "", common="client", ca=True)
    return here


def trusting(*authorities: Path, name: str = "a.test", client: Path | None = None) -> Client:
    context = ssl.create_default_context()
    for authority in authorities:
        context.load_verify_locations(authority)
    if client is not None:
        context.load_cert_chain(client)
    return Client(context, name)


class Client:
    """TLS to an edge under a name."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.context, self.name = context, name

    @contextlib.asynccontextmanager
    async def to(self, edge: Edge, before: bytes = b"") -> AsyncIterator[RawClient]:
        """``before``: octets before the handshake."""
        client = RawClient("127.0.0.1", edge.worker.port)
        await client.connect()
        if before:
            await client.send(before)
        async with asyncio.timeout(10):
            await client.writer.start_tls(self.context, server_hostname=self.name)
        try:
            yield client
        finally:
            await client.aclose()


async def test_https_by_every_way(origin: LedgerOrigin, clock: DrivenClock, made: Path) -> None:
    """The short way, the lane and the ordinary way, whole and in pieces; the origin is told of the scheme."""
    origin.reply("/a", headers=FRESH)
    origin.reply("/large", headers=FRESH, body=os.urandom(1_000_000))
    async with running_edge(origin.url, clock=clock, tls_certificate=made / "a.pem") as edge:
        async with trusting(made / "a.pem").to(edge) as client:
            answers = [await client.get("/a") for _ in range(6)]
            assert {answer.body for answer in answers} == {answers[0].body}
            assert [answer["x-cache-status"] for answer in answers] == ["MISS", *["HIT"] * 5]
            lane = edge.worker.handler.lane
            assert lane is not None
            lane.fold()
            assert lane.hits > 0
            large = await client.get("/large")
            assert large.complete
            assert (await client.get("/large")).body == large.body
            posted = await client.request("POST", "/p", body=bytes(300_000))
            assert posted.status == 200
            tls = client.writer.get_extra_info("ssl_object")
            assert tls.version() == "TLSv1.3"
        (recorded,) = origin.of("/a")
        assert ("X-Forwarded-Proto", "https") in recorded.headers
        await edge.until(lambda: edge.worker.doors.open == 0)


async def test_the_certificate_is_chosen_by_name_and_exchanged_under_way(
    origin: LedgerOrigin, clock: DrivenClock, made: Path, tmp_path: Path
) -> None:
    for file in ("a.pem", "b.pem"):
        shutil.copy(made / file, tmp_path / file)
    certificate(tmp_path / "new.pem", "DNS:a.test", common="new")
    split = f"{made / 'b.crt'}:{made / 'b.key'}"
    async with running_edge(origin.url, clock=clock, tls_certificate=f"{tmp_path / 'a.pem'},{split}") as edge:
        for name, file in (("a.test", "a"), ("b.test", "b"), ("x.b.test", "b")):
            async with trusting(made / f"{file}.pem", name=name).to(edge) as client:
                assert (await client.get("/a")).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            async with trusting(made / "a.pem", made / "b.pem", name="x.y.b.test").to(edge):
                pass
        async with trusting(made / "a.pem").to(edge) as old:
            assert (await old.get("/a")).status == 200
            (tmp_path / "a.pem").write_text("not a certificate")
            await clock.advance(LOOK + 1)
            async with trusting(made / "a.pem").to(edge) as client:
                assert (await client.get("/a")).status == 200, "the old one goes on"
            shutil.copy(tmp_path / "new.pem", tmp_path / "a.pem")
            await clock.advance(LOOK + 1)
            async with trusting(tmp_path / "new.pem").to(edge) as client:
                assert (await client.get("/a")).status == 200
            assert (await old.get("/a")).status == 200, "connections stay"
        numbers = edge.worker.metrics.render().decode()
        assert "edgeproxy_tls_reloads_total 1.0" in numbers
        assert "edgeproxy_tls_reload_failures_total 1.0" in numbers


async def test_client_certificates(origin: LedgerOrigin, clock: DrivenClock, made: Path) -> None:
    async with running_edge(
        origin.url, clock=clock, tls_certificate=made / "a.pem", tls_client_ca=made / "client.pem"
    ) as edge:
        async with trusting(made / "a.pem", client=made / "client.pem").to(edge) as client:
            assert (await client.get("/a")).status == 200
        for shown in (None, made / "b.pem"):
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                async with trusting(made / "a.pem", client=shown).to(edge) as client:
                    await client.get("/a")
        assert origin.count("/a") == 1
        await edge.until(lambda: edge.worker.doors.open == 0)


async def test_old_tls_gets_nothing_and_plain_http_is_told(
    origin: LedgerOrigin, clock: DrivenClock, made: Path
) -> None:
    async with running_edge(
        origin.url, clock=clock, tls_certificate=made / "a.pem", head_timeout="5s"
    ) as edge:
        old = trusting(made / "a.pem")
        with warnings.catch_warnings(action="ignore"):
            old.context.minimum_version = ssl.TLSVersion.TLSv1
            old.context.maximum_version = ssl.TLSVersion.TLSv1_1
        old.context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with old.to(edge):
                pass
        async with edge.client() as plain:
            answer = await plain.get("/a")
            assert (answer.status, answer.keep_alive) == (400, False)
            assert "https://" in json.loads(answer.body)["detail"]
            assert await plain.at_end()
        async with edge.client() as plain:
            answer = await plain.request("HEAD", "/a")
            assert (answer.status, answer.body) == (400, b"")
            assert await plain.at_end(), "no octet of a body"
        async with edge.client() as proxy:
            await proxy.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await proxy.at_end()
        await edge.until(lambda: edge.worker.doors.open == 0)
        assert edge.worker.arrivals.handshakes_failed == 4
        assert not origin.requests


async def test_plain_http_is_told_though_it_goes_on_sending(origin: LedgerOrigin, made: Path) -> None:
    """What comes to a closed socket would take the answer along."""

    def upload(port: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        with contextlib.closing(connection):
            connection.request("POST", "/a", body=bytes(8_000_000))
            return connection.getresponse().status

    async with running_edge(origin.url, tls_certificate=made / "a.pem") as edge:
        assert await asyncio.to_thread(upload, edge.worker.port) == 400
        await edge.until(lambda: edge.worker.doors.open == 0)


async def test_who_has_said_nothing_is_not_waited_for_at_a_drain(
    origin: LedgerOrigin, clock: DrivenClock, made: Path
) -> None:
    async with (
        running_edge(origin.url, clock=clock, tls_certificate=made / "a.pem") as edge,
        edge.client() as silent, edge.client() as half,
    ):  # fmt: skip
        await half.send(b"\x16\x03\x01")
        await edge.until(lambda: len(edge.worker.arrivals.silent()) == 1)
        drained = edge.worker.background.spawn(edge.worker.drain(grace=1), "drain")
        await clock.advance(0.9)
        assert edge.worker.doors.open == 2
        await clock.advance(0.3)
        assert await silent.at_end()
        await edge.until(lambda: edge.worker.doors.open == 1)
        assert not drained.done()
        half.reset()
        await edge.until(lambda: edge.worker.doors.open == 0)
        await clock.advance(0.1)
        await drained


async def test_a_handshake_that_does_not_come_is_not_waited_for(
    origin: LedgerOrigin, clock: DrivenClock, made: Path
) -> None:
    """Behind a PROXY head as without; the loop's own timeout is in real time."""
    flags: dict[str, Any] = {"tls_certificate": made / "a.pem", "head_timeout": "100ms"}
    async with running_edge(origin.url, clock=clock, **flags) as edge:
        async with edge.client() as silent:
            await edge.until(lambda: edge.worker.doors.open == 1)
            await clock.advance(0.1)
            assert await silent.at_end()
        assert edge.worker.heads.timeouts == 1
        async with edge.client() as half:
            await half.send(b"\x16\x03\x01")
            assert await half.at_end()
        assert edge.worker.arrivals.handshakes_failed == 1
    async with running_edge(origin.url, clock=clock, proxy_protocol="127.0.0.1", **flags) as edge:
        async with edge.client() as silent:
            await silent.send(version_2("192.0.2.1"))
            assert await silent.at_end()
        await edge.until(lambda: edge.worker.doors.open == 0)
        assert edge.worker.arrivals.handshakes_failed == 1
        assert not edge.worker.arrivals.under_way
    async with running_edge(origin.url, clock=clock, proxy_protocol="10.0.0.0/8", **flags) as edge:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with trusting(made / "a.pem").to(edge):
                pass
        assert edge.worker.arrivals.heads_refused == 1


async def test_clients_that_do_not_hesitate(origin: LedgerOrigin, made: Path) -> None:
    """The ClientHello is there before the edge has looked at the connection."""
    context = ssl.create_default_context(cafile=str(made / "a.pem"))

    def shake_hands(port: int) -> str | None:
        with (
            socket.create_connection(("127.0.0.1", port)) as sock,
            context.wrap_socket(sock, server_hostname="a.test") as tls,
        ):
            return tls.version()

    async with running_edge(origin.url, tls_certificate=made / "a.pem") as edge:
        port = edge.worker.port
        for _ in range(10):
            versions = await asyncio.gather(*(asyncio.to_thread(shake_hands, port) for _ in range(8)))
            assert versions == ["TLSv1.3"] * 8
        await edge.until(lambda: edge.worker.doors.open == 0)
        assert edge.worker.arrivals.handshakes_failed == 0


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("stays", [True, False])
async def test_no_descriptor_is_left_of_handshakes_that_came_to_nothing(
    origin: LedgerOrigin, clock: DrivenClock, made: Path, sent: bytes, stays: bool
) -> None:
    """Nothing was sent, half a ClientHello, or plain HTTP."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - to be counted

    async with running_edge(origin.url, clock=clock, tls_certificate=made / "a.pem") as edge:
        doors = edge.worker.doors
        before = descriptors()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(10):
                client = await stack.enter_async_context(edge.client())
                if sent:
                    await client.send(sent)
            if not sent.startswith(b"GET"):
                await edge.until(lambda: doors.open == 10)
            if stays:
                await clock.advance(60)
                await edge.until(lambda: doors.open == 0)
        await edge.until(lambda: doors.open == 0)
        await edge.until(lambda: descriptors() == before)
        assert not edge.worker.arrivals.under_way


@pytest.mark.parametrize("limit", ["max_connections", "client_connections"])
async def test_a_connection_counts_while_it_shakes_hands(
    origin: LedgerOrigin, clock: DrivenClock, made: Path, limit: str
) -> None:
    """Who never comes to HTTP holds a place, for --head-timeout, and no more of them than he may."""
    flags: dict[str, Any] = {limit: 3, "unlimited_clients": "", "head_timeout": "60s"}
    async with running_edge(origin.url, clock=clock, tls_certificate=made / "a.pem", **flags) as edge:
        doors = edge.worker.doors
        async with edge.client() as one, edge.client() as two, trusting(made / "a.pem").to(edge) as third:
            await one.send(b"\x16\x03\x01\x02\x00\x01\x00")  # half of a ClientHello
            assert (await third.get("/a")).status == 200
            assert doors.open == 3
            async with edge.client() as more:
                assert await more.at_end()
            assert (doors.full, doors.crowded) == ((1, 0) if limit == "max_connections" else (0, 1))
            await clock.advance(59)
            assert doors.open == 3
            await clock.advance(1.1)
            assert await one.at_end()
            assert await two.at_end()
            await edge.until(lambda: doors.open == 1)
            assert (await third.get("/a")).status == 200
        await edge.until(lambda: doors.open == 0)
        assert edge.worker.heads.timeouts == 2


async def test_the_admin_port_speaks_tls_too(origin: LedgerOrigin, clock: DrivenClock, made: Path) -> None:
    async with running_edge(origin.url, clock=clock, admin_tls_certificate=made / "a.pem") as edge:
        context = ssl.create_default_context(cafile=str(made / "a.pem"))
        async with RawClient("127.0.0.1", edge.worker.admin_port, tls=context) as client:
            body = b'{"all": true}'
            answer = await client.request(
                "POST",
                "/api/cache/purge",
                [("Authorization", f"Bearer {TOKEN}")],
                body=body,
                host="127.0.0.1",
            )
            assert answer.status == 200


@pytest.mark.parametrize(
    ("flags", "told"),
    [({"tls_certificate": "/nowhere.pem"}, "--tls-certificate: /nowhere.pem: No such file"),
     ({"tls_client_ca": "/nowhere.pem"}, "--tls-client-ca: means nothing without --tls-certificate"),
     ({"admin_tls_certificate": "/nowhere.pem"}, "--admin-tls-certificate: /nowhere.pem: No such file")],
)  # fmt: skip
async def test_files_that_are_missing_are_told_at_the_start(
    origin: LedgerOrigin, flags: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        async with running_edge(origin.url, **flags):
            pass


# -- the PROXY protocol -----------------------------------------------------------------------------------


def version_2(address: str, *, command: int = 0x21, more: bytes = b"") -> bytes:
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(kind, address)
    rest = packed + packed + struct.pack("!HH", 1, 2) + more
    return SIGNATURE + bytes([command, 0x21 if kind is socket.AF_INET6 else 0x11]) + struct.pack(
        "!H", len(rest)
    ) + rest  # fmt: skip


@pytest.mark.parametrize(
    ("head", "client", "tls"),
    [(b"PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n", "192.0.2.7", True),
     (b"PROXY TCP6 2001:db8::7 ::1 5 80\r\n", "2001:db8::7", False),
     (b"PROXY UNKNOWN\r\n", "127.0.0.1", False),
     (version_2("192.0.2.8"), "192.0.2.8", False),
     (version_2("2001:db8::8", more=b"\x04\0\x01x"), "2001:db8::8", True),
     (version_2("192.0.2.9", command=0x20), "127.0.0.1", False)],
    ids=["line-tls", "line-ipv6", "line-unknown", "ipv4", "ipv6-tls", "local"],
)  # fmt: skip
async def test_a_head_says_who_the_client_is(
    origin: LedgerOrigin, clock: DrivenClock, made: Path, head: bytes, client: str, tls: bool
) -> None:
    flags: dict[str, Any] = {"tls_certificate": made / "a.pem"} if tls else {}
    origin.reply("/a", headers=FRESH)
    async with running_edge(origin.url, clock=clock, proxy_protocol="127.0.0.0/8", **flags) as edge:
        if tls:
            async with trusting(made / "a.pem").to(edge, before=head) as connection:
                answers = [await connection.get("/a") for _ in range(4)]
        else:
            async with edge.client() as connection:
                first = b"GET /a HTTP/1.1\r\nHost: example.test\r\n\r\n"
                await connection.send(head + first)  # in one segment
                answers = [await connection.read_answer()]
                answers += [await connection.get("/a") for _ in range(3)]
        assert [answer.status for answer in answers] == [200] * 4
        assert ("X-Forwarded-For", client) in origin.of("/a")[0].headers
        assert edge.traces[0].client == client
        await edge.until(lambda: edge.worker.doors.open == 0)


async def test_limits_and_lists_are_for_whom_a_head_names(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with (
        running_edge(
            origin.url, clock=clock, proxy_protocol="127.0.0.1", client_connections=1,
            deny="203.0.113.0/24", unlimited_clients="",
        ) as edge,
        contextlib.AsyncExitStack() as stack,
    ):  # fmt: skip
        statuses = []
        for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "203.0.113.9"):
            client = await stack.enter_async_context(edge.client())
            await client.send(f"PROXY TCP4 {address} 10.0.0.1 5 80\r\n".encode())
            try:
                statuses.append((await client.get("/a")).status)
            except ConnectionError:
                statuses.append(0)
        assert statuses == [200, 0, 200, 0]
        doors = edge.worker.doors
        assert (doors.crowded, doors.denied) == (1, 1)


async def test_heads_that_are_none_that_never_end_and_from_others(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock, proxy_protocol="127.0.0.1", head_timeout="5s") as edge:
        for bad in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 192.0.2.1 x 5 80\r\n" + bytes(90),
                    SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), SIGNATURE + b"\x21\x11\xff\xff"):  # fmt: skip
            async with edge.client() as client:
                await client.send(bad)
                assert await client.at_end()
        assert edge.worker.arrivals.heads_refused == 4
        async with edge.client() as slow:
            await slow.send(b"PROXY TCP4 192.")
            await edge.until(lambda: edge.worker.doors.open == 1)
            await settle()
            await clock.advance(5.1)
            assert await slow.at_end()
        await edge.until(lambda: edge.worker.doors.open == 0)
    async with running_edge(origin.url, clock=clock, proxy_protocol="10.0.0.0/8") as edge:
        async with edge.client() as client:
            await client.send(b"PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n")
            assert (await client.read_answer()).status == 400
        assert (await edge.get("/a")).status == 200


@given(st.binary(max_size=120))
def test_a_line_is_an_address_or_refused(tail: bytes) -> None:
    with contextlib.suppress(NotAHead):
        told = client_of_line(b"PROXY " + tail)
        assert told is None or socket.getaddrinfo(told, None, flags=socket.AI_NUMERICHOST)


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_a_version_2_head_is_an_address_or_refused(fixed: bytes, rest: bytes) -> None:
    head = SIGNATURE + fixed
    assert len(head) == FIXED
    with contextlib.suppress(NotAHead):
        length = length_of(head)
        told = client_of(head, (rest + bytes(length))[:length])
        assert told is None or socket.getaddrinfo(told, None, flags=socket.AI_NUMERICHOST)
