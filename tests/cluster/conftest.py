from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.two import two_nodes
from tests.support.fixtures import a_background, a_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cluster.two import Two
    from tests.support.servers import Server

redis = pytest.fixture(a_redis)
"""One for each test: these take it down, empty it and bring it back."""

background = pytest.fixture(a_background)


@pytest.fixture
async def two(redis: Server) -> AsyncIterator[Two]:
    async with two_nodes(redis.url) as two:
        yield two
