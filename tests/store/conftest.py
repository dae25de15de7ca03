from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine.background import Background
from tests.support.driven import DrivenClock
from tests.support.servers import memcached_server, redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.servers import Server


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    with redis_server() as server:
        if server is None:
            pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
        yield server


@pytest.fixture(scope="session")
def memcached() -> Iterator[Server]:
    with memcached_server() as server:
        if server is None:
            pytest.skip("there is no memcached on the PATH")
        yield server


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.close()
    gc.collect()
