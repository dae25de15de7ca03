"""How edgeproxy talks to Redis or Valkey: one place for timeouts and retries.

Rules of this file:

- No retries and short socket timeouts: redis-py's own (ten times five seconds) would outlive every budget.
  A command that runs into the socket timeout has its connection closed, so no reply stays behind on one.
- TLS, user, password and database come with the URL (``rediss://user:password@host:port/0``).
"""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

SOCKET_TIMEOUT = 0.5
"""Seconds until a command, and a connection that it needs, is given up."""


def connect(url: str, *, connections: int, timeout: float = SOCKET_TIMEOUT) -> Redis:
    """A client with up to ``connections`` connections, made when needed. Raises ValueError for a bad URL."""
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        max_connections=connections,
        health_check_interval=0,
        decode_responses=False,
        protocol=2,
    )
