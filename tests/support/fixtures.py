"""What fixtures of several directories are made of: ``redis = pytest.fixture(scope="session")(a_redis)``.

Rules of this file: no fixtures, only how to make one; how long each lives is for the directory to say.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from edgeproxy.engine.background import Background
from tests.support.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.servers import Server


def a_redis() -> Iterator[Server]:
    """Skips where there is none."""
    with redis_server() as server:
        if server is None:
            pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
        yield server


async def a_background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.close()
    gc.collect()
