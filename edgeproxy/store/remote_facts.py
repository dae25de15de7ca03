"""What Redis or Memcached say of themselves, cheaply: a few numbers of the server, no key is listed.

Rules of this file: one connection to a server, two commands at most, short timeouts. The numbers are the
server's, so they count whatever else it holds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiomcache
from aiomcache.exceptions import ClientException
from redis.exceptions import RedisError

from edgeproxy.cluster.redis_link import connect, nodes_of
from edgeproxy.store.shared import StoreUnusable

if TYPE_CHECKING:
    from edgeproxy.store.open import StoreUrl

TIMEOUT = 3.0
_REDIS = ("redis_version", "used_memory", "maxmemory", "maxmemory_policy", "evicted_keys", "expired_keys")
_ADDED = frozenset(("keys", "used_memory", "maxmemory", "evicted_keys", "expired_keys"))
"""What is told of a cluster as the sum of its nodes; the rest is one node's."""
_MEMCACHED = ("version", "curr_items", "bytes", "limit_maxbytes", "evictions")


async def remote_facts(place: StoreUrl) -> dict[str, object]:
    """Raises StoreUnusable where the server does not answer as one."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await (_redis(place.url) if place.kind == "redis" else _memcached(place.host, place.port))
    except TimeoutError:
        raise StoreUnusable(f"{place.shown}: no answer within {TIMEOUT:g} s") from None
    except (OSError, RedisError, ClientException, ValueError) as error:
        raise StoreUnusable(f"{place.shown}: {' '.join(str(error).split())}") from None


async def _redis(url: str) -> dict[str, object]:
    client = connect(url, connections=1, timeout=TIMEOUT)
    try:
        nodes = await nodes_of(client)
        each = [{"keys": await node.dbsize(), **await node.info()} for node in nodes]
    finally:
        await client.aclose()
    told: dict[str, object] = {"nodes": len(each)} if len(each) > 1 else {}
    for name in ("keys", *_REDIS):
        said = [one[name] for one in each if name in one]
        if said:
            told[name] = sum(said) if name in _ADDED else said[0]
    return told


async def _memcached(host: str, port: int) -> dict[str, object]:
    client = aiomcache.Client(host, port, pool_size=1)
    try:
        said = await client.stats()
    finally:
        await client.close()
    found: dict[str, object] = {}
    for name in _MEMCACHED:
        value = said.get(name.encode())
        if value is not None:
            found[name] = int(value) if value.isdigit() else value.decode("ascii", "replace")
    return found
