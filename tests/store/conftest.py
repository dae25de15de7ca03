from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.driven import DrivenClock
from tests.support.fixtures import a_background, a_redis
from tests.support.redis_kinds import PASSWORD, USER, make_authority, redis_cluster, redis_tls
from tests.support.servers import memcached_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.redis_kinds import Authority, Cluster
    from tests.support.servers import Server


redis = pytest.fixture(scope="session")(a_redis)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        if servers is None:
            pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
        yield servers


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = make_authority(tmp_path_factory.mktemp("tls"))
    if made is None:
        pytest.skip("no openssl to make certificates with")
    return made


@pytest.fixture(scope="session")
def tls(authority: Authority) -> Iterator[str]:
    """The URL with all that it takes: authority, client certificate, user, password."""
    with redis_tls(authority) as server:
        if server is None:
            pytest.skip("there is no redis-server that knows TLS")
        yield f"rediss://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}?{authority.query}"


@pytest.fixture(scope="session")
def memcached() -> Iterator[Server]:
    with memcached_server() as server:
        if server is None:
            pytest.skip("there is no memcached on the PATH")
        yield server


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


background = pytest.fixture(a_background)
