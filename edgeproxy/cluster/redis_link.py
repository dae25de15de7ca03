"""How edgeproxy talks to Redis or Valkey: one place for timeouts, retries, TLS and who is asked.

Rules of this file:

- No retries and short socket timeouts: redis-py's own (ten times five seconds) would outlive every budget.
  A command that runs into the socket timeout has its connection closed, so no reply stays behind on one.
- What ``connect`` gives is a redis-py client in any case, whatever the URL's kind (redis_url.py). In a
  cluster each command goes to the node that holds its key (redis_cluster.py), so a command has one key, or
  keys with one hash tag.
- Behind sentinels each new connection asks them who the primary is. A primary that has become a replica
  refuses writes, which closes the connection.
- One TLS context for all connections of a client: making one reads files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from edgeproxy.cluster.redis_cluster import ClusterRedis
from edgeproxy.cluster.redis_url import Kind, parse_redis_url, secret_of, tls_context

if TYPE_CHECKING:
    import ssl

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.redis_url import RedisUrl

SOCKET_TIMEOUT = 0.5
"""Seconds until a command, and a connection that it needs, is given up."""

Command = tuple[str, Sequence[Any]]
"""The key, and the whole command."""


def connect(
    url: str,
    *,
    connections: int,
    timeout: float = SOCKET_TIMEOUT,
    clock: Clock | None = None,
    named: str = "",
) -> Redis:
    """A client with up to ``connections`` connections (to each node), made when needed. ``named``: what the
    log calls it when a node of a cluster is given up; "" for no such lines. Raises ValueError for a bad
    URL."""
    place = parse_redis_url(url)
    context = tls_context(place)
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections,
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 2,
    }
    keys: dict[str, Any] = {"username": place.username, "password": place.password}
    match place.kind:
        case Kind.UNIX:
            pool = ConnectionPool(
                UnixDomainSocketConnection, path=place.path, db=place.database, **keys, **options
            )
            return Redis.from_pool(pool)
        case Kind.SENTINEL:
            return _by_sentinels(place, {**options, **keys, "db": place.database}, context)
        case Kind.CLUSTER:
            made = partial(_one, options={**options, **keys}, context=context)
            return ClusterRedis(place.hosts, made, clock=clock, named=named)
        case Kind.ONE:
            return _one(place.hosts[0], {**options, **keys, "db": place.database}, context)


async def pipelined(redis: Redis, commands: Sequence[Command]) -> list[object]:
    """Send all at once, to each node its own. A result or an exception for each, in order; raises RedisError
    or OSError where nothing of it got an answer."""
    if isinstance(redis, ClusterRedis):
        return await redis.pipelined(commands)
    pipeline = redis.pipeline(transaction=False)
    for _, command in commands:
        pipeline.execute_command(*command)
    results: list[object] = await pipeline.execute(raise_on_error=False)
    return results


async def nodes_of(redis: Redis) -> list[Redis]:
    """Each server that holds a part: one, or the primaries of a cluster. Raises as a command does."""
    return await redis.primaries() if isinstance(redis, ClusterRedis) else [redis]


def _one(address: tuple[str, int], options: dict[str, Any], context: ssl.SSLContext | None) -> Redis:
    host, port = address
    kind = Connection if context is None else partial(_TLS, context=context)
    pool = ConnectionPool(kind, host=host, port=port, socket_keepalive=True, **options)  # type: ignore[arg-type]
    return Redis.from_pool(pool)


class _TLS(SSLConnection):
    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


class _SentinelTLS(SentinelManagedSSLConnection):
    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.ssl_context.context = context


class _OfSentinels(Redis):
    """The primary's client; closes those of the sentinels with it."""

    def __init__(self, pool: ConnectionPool, sentinels: Sequence[Redis]) -> None:
        super().__init__(connection_pool=pool)
        self._sentinels = sentinels

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002, FBT001
        await self.connection_pool.disconnect()
        for sentinel in self._sentinels:
            await sentinel.aclose()


def _by_sentinels(place: RedisUrl, options: dict[str, Any], context: ssl.SSLContext | None) -> Redis:
    secret = secret_of(place.sentinel_password_file) if place.sentinel_password_file else None
    asked = {**options, "username": None, "password": secret, "db": 0}
    sentinels = [_one(address, asked, context) for address in place.hosts]
    manager = Sentinel([])  # type: ignore[no-untyped-call]
    manager.sentinels = sentinels
    kind = SentinelManagedConnection if context is None else partial(_SentinelTLS, context=context)
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        place.service, manager, connection_class=kind, socket_keepalive=True, **options
    )
    return _OfSentinels(pool, tuple(sentinels))
