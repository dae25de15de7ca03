"""What the tests of the origin client share: a ledger origin, a driven clock, a client in front of it."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from edgeproxy.origin.base import Forward
from edgeproxy.origin.client import OriginClient
from edgeproxy.policy.head import Headers
from tests.support.driven import DrivenClock
from tests.support.leaks import no_leaks
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from edgeproxy.origin.base import OriginReply


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


def forward(
    method: str = "GET",
    target: str = "/a",
    headers: list[tuple[str, str]] | None = None,
    **more: Any,
) -> Forward:
    fields = [("Host", "example.test"), *(headers or [])]
    return Forward(method, target, Headers.of(fields), **more)


async def read_all(reply: OriginReply) -> bytes:
    """The body to its end, then closed. Raises OriginError where it breaks off."""
    pieces: list[bytes] = []
    try:
        while piece := await reply.body.read():
            pieces.append(piece)
    finally:
        reply.body.close()
    return b"".join(pieces)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops: their transports differ in how they pause, break and report."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    async with no_leaks():
        yield


@pytest.fixture
async def origin(nothing_left: None) -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as it:
        yield it


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
async def make(clock: DrivenClock, origin: LedgerOrigin) -> AsyncIterator[Callable[..., OriginClient]]:
    """Make clients that are closed at the end; options as OriginClient's."""
    made: list[OriginClient] = []

    def make_one(url: str | None = None, **options: Any) -> OriginClient:
        made.append(OriginClient(url or origin.url, clock=clock, spawn=spawn, **options))
        return made[-1]

    yield make_one
    for each in made:
        await each.aclose()
        assert (each.connections_open, each.connections_idle, each.queued) == (0, 0, 0)
        assert each.in_flight == 0, "a place at the origin was not given back"


@pytest.fixture
async def client(make: Callable[..., OriginClient]) -> OriginClient:
    return make()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for origin.test, made on the spot."""
    where = tmp_path_factory.mktemp("tls")
    key, cert = where / "key.pem", where / "cert.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=origin.test",
        "-addext", "subjectAltName=DNS:origin.test",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    return key, cert
