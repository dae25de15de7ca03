from __future__ import annotations

import pytest

from tests.support.fixtures import a_background, a_redis
from edgeproxy.engine.background import Background
from tests.cluster.two import two_nodes
from tests.support.servers import redis_server

redis = pytest.fixture(a_redis)
"""One for each test: these take it down, empty it and bring it back."""

background = pytest.fixture(a_background)
    from tests.cluster.two import Two
    from tests.support.servers import Server


@pytest.fixture
def redis() -> Iterator[Server]:
    """One for each test: these take it down, empty it and bring it back."""
    with redis_server() as server:
        if server is None:
            pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
        yield server


@pytest.fixture
async def two(redis: Server) -> AsyncIterator[Two]:
    async with two_nodes(redis.url) as two:
        yield two


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.close()
    gc.collect()
