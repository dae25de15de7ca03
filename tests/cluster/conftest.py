from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine.background import Background
from tests.support.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.servers import Server


@pytest.fixture
def redis() -> Iterator[Server]:
    """One for each test: these take it down, empty it and bring it back."""
    with redis_server() as server:
        if server is None:
            pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
        yield server


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.close()
    gc.collect()
