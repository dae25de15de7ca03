"""From ``--store`` to a store: what each kind of URL means.

Rules of this file:

- A URL that means nothing is refused with one clear line (ValueError), before anything is opened.
- A store that cannot be opened is not fatal: the process runs on L1 alone and says that it is degraded.
- The purge table lies where the workers of the node find the same one: beside the LMDB file, or in the
  state directory (also where the place of the LMDB file is unusable). Where there is no such place it is
  private to the process: one worker only.
- A backend is imported when its kind of store is opened: a start pays for no other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgeproxy.cluster.epoch import PurgeTable
from edgeproxy.cluster.lease import NodeLeases
from edgeproxy.cluster.redis_url import SCHEMES, is_redis, parse_redis_url, secret_of, tls_context
from edgeproxy.store.memory import MemoryStore
from edgeproxy.store.shared import BUDGET, SharedStore, StoreUnusable
from edgeproxy.store.tiered import TieredStore

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.cluster.redis_lease import ClusterLeases
    from edgeproxy.store.backend import ByteCache
    from edgeproxy.store.shared import Spawn
    from edgeproxy.store.tiered import Hooks

log = logging.getLogger("edgeproxy.store")

L1_BYTES = 256 * 1024 * 1024
L2_BYTES = 1024 * 1024 * 1024
L1_LEASE = 30.0
PURGE_WAIT = 1.0
"""Seconds; cluster/bus.py."""

FORMS = f"memory:, lmdb:PATH, memcached://HOST:PORT, {', '.join(s.form for s in SCHEMES.values())}"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """``kind`` is memory, lmdb, redis or memcached; the rest as far as the kind has it. ``shown`` is for
    logs: no password. ``identity`` names the same store whatever its password is."""

    kind: str
    url: str = field(repr=False)
    path: Path | None = None
    host: str = ""
    port: int = 0
    shown: str = ""
    identity: str = ""


def parse_store_url(url: str) -> StoreUrl:
    """Raises ValueError with one line that says what was expected."""
    if url == "memory:":
        return StoreUrl("memory", url, shown=url, identity=url)
    if is_redis(url):
        redis = parse_redis_url(url)
        return StoreUrl("redis", url, shown=redis.shown, identity=redis.identity)
    scheme, _, rest = url.partition(":")
    if scheme == "lmdb" and rest:
        path = Path(rest.removeprefix("//")).expanduser()
        return StoreUrl("lmdb", url, path, shown=url, identity=url)
    if scheme != "memcached" or not rest.startswith("//"):
        raise ValueError(f"store {_printable(url)}: expected {FORMS}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 11211
    except ValueError as error:
        raise ValueError(f"store {scheme}: {error}; expected {FORMS}") from None
    if not host:
        raise ValueError(f"store {scheme}: no host is named; expected {FORMS}")
    if parts.username or parts.path.strip("/") or parts.query:
        raise ValueError("store memcached: expected memcached://HOST:PORT and nothing else")
    return StoreUrl("memcached", url, None, host, port, shown=url, identity=url)


def check_store_url(url: str) -> None:
    """All that can be said of it before it is opened, its files of TLS too. Raises ValueError."""
    if parse_store_url(url).kind == "redis":
        place = parse_redis_url(url)
        tls_context(place)
        if place.sentinel_password_file:
            secret_of(place.sentinel_password_file)


async def open_store(
    url: str,
    *,
    clock: Clock,
    spawn: Spawn,
    state_dir: Path | None = None,
    l1_bytes: int = L1_BYTES,
    l2_bytes: int = L2_BYTES,
    budget: float = BUDGET,
    hooks: Hooks | None = None,
    together: Path | None = None,
    node: str = "",
    l1_lease: float = L1_LEASE,
    purge_wait: float = PURGE_WAIT,
) -> TieredStore:
    """A store for this process. Call it after the fork, on the loop that uses it. ``together``: a directory
    of the workers that fetch into this store together. ``node``, ``l1_lease`` and ``purge_wait`` are for many
    nodes (cluster/bus.py). Raises ValueError for a URL that means nothing, and for nothing else."""
    place = parse_store_url(url)
    cache: ByteCache | None = None
    degraded = ""
    try:
        cache = _cache(place, clock, l2_bytes)
    except StoreUnusable as error:
        degraded = str(error)
        log.error("store %s cannot be used, going on with memory alone: %s", place.shown, error)  # noqa: TRY400
    table, problem = _table(place, state_dir)
    degraded = degraded or problem
    memory = MemoryStore(l1_bytes, table)
    if cache is None:
        return TieredStore(memory, table, clock, hooks=hooks, degraded=degraded)
    if problem and place.kind == "lmdb":
        # Entries that outlive the process need a purge table that does.
        await cache.close()
        return TieredStore(memory, table, clock, hooks=hooks, degraded=degraded)
    shared = SharedStore(cache, clock, spawn, name=place.shown, budget=budget)
    bus = None
    if place.kind == "redis":
        from edgeproxy.cluster.bus import RedisBus  # noqa: PLC0415 - see the head

        bus = RedisBus(place.url, table, clock, spawn, name=node, lease=l1_lease, wait=purge_wait)
        bus.start()
        # What is fetched before would come after purges that nobody here has heard of.
        await bus.tried()
    leases: NodeLeases | ClusterLeases | None = None
    workers = None if together is None else _leases(together, clock)
    if place.kind == "redis":
        from edgeproxy.cluster.redis_lease import CONNECTIONS, ClusterLeases  # noqa: PLC0415
        from edgeproxy.cluster.redis_link import connect  # noqa: PLC0415

        link = connect(place.url, connections=CONNECTIONS)
        leases = ClusterLeases(link, clock, spawn, breaker=shared.breaker, budget=budget, node=workers)
    else:
        leases = workers
    return TieredStore(
        memory, table, clock, shared=shared, bus=bus, hooks=hooks, degraded=degraded, leases=leases
    )


def _leases(directory: Path, clock: Clock) -> NodeLeases | None:
    try:
        return NodeLeases(directory, clock)
    except OSError as error:
        log.error("workers fetch each for itself: %s", error)  # noqa: TRY400
        return None


def _cache(place: StoreUrl, clock: Clock, max_bytes: int) -> ByteCache | None:
    match place.kind:
        case "lmdb":
            from edgeproxy.store.lmdb_backend import LmdbCache  # noqa: PLC0415 - see the head

            return LmdbCache(place.path or Path(), clock, max_bytes=max_bytes)
        case "redis":
            from edgeproxy.store.redis_backend import RedisCache  # noqa: PLC0415

            return RedisCache(place.url, clock=clock, named=place.shown)
        case "memcached":
            from edgeproxy.store.memcached_backend import MemcachedCache  # noqa: PLC0415

            return MemcachedCache(place.host, place.port, clock)
        case _:
            return None


def _table(place: StoreUrl, state_dir: Path | None) -> tuple[PurgeTable, str]:
    """The node's purge table, and what is wrong with it ("" if nothing is)."""
    paths = []
    if place.kind == "lmdb" and place.path is not None:
        paths.append(place.path / "purges")
    if state_dir is not None:
        digest = blake2b(place.identity.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        paths.append(state_dir / f"purges-{digest}")
    problem = ""
    for path in paths:
        try:
            return PurgeTable.open(path), problem
        except OSError as error:
            log.error("purge table %s cannot be used: %s", path, error)  # noqa: TRY400
            problem = problem or f"purge table {path}: {error}"
    return PurgeTable.anonymous(), problem


def _printable(text: str) -> str:
    """The URL without what might be a password."""
    scheme, mark, rest = text.partition("://")
    return repr(f"{scheme}{mark}{rest.rpartition('@')[2]}")
