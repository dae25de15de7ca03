"""The purge log of all nodes that share one Redis: an ordered stream, followed by each.

Rules of this file:

- A purge is appended first and applied then, together with everything that stands before it in the log: its
  number is its position, the same on every node. Each entry is applied once per node, in order.
- ``incarnation`` names the log. It is kept beside the stream, and the stream begins with a record of its
  own; if either is missing (a flushed, evicted or replaced Redis), both are made anew, every node drops what
  it has and nobody reads what was stored under the old name.
- A node that comes back reads on from where it was. If the log has been trimmed beyond that point, or begins
  later than it should, everything older counts as purged. If the log has lost its end, it is made anew
  (lost_log.py). A record that cannot be read is a purge of everything.
- ``ready`` says that this node has caught up: until then, what other nodes have stored is not to be trusted.
- A purge is waited for: the receipt has a line for each node (receipts.py). A node that has not been heard
  of for its lease is waited for no longer, since by then it trusts its own memory no more (``trusting``):
  what it has there goes, and nothing comes in until it has caught up with the log again.
- Without Redis a purge is applied on this node, under a number between two positions of the log, and kept to
  be told later (untold.py); the receipt says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from typing import TYPE_CHECKING, cast

import msgspec
from redis.exceptions import RedisError

from edgeproxy.cluster import lost_log
from edgeproxy.cluster.epoch import number_of
from edgeproxy.cluster.mend import is_wrong_type, mend
from edgeproxy.cluster.receipts import Keys, Registry
from edgeproxy.cluster.redis_link import connect
from edgeproxy.cluster.scripts import Scripts, is_full
from edgeproxy.cluster.untold import Untold
from edgeproxy.store.purge import PurgeKind, PurgeOrder, octets, text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.store.purge import NodeReceipt

log = logging.getLogger("edgeproxy.bus")

COMMANDS = 12
"""Purges on their way to Redis at one time; the others wait for their turn."""
KEPT = 100_000
"""Purges that the log keeps, about."""
BEAT = 1.0
"""Seconds between two reports of a worker, at most; also how long one look at the end of the log waits."""
PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between two tries to reach Redis; each pause is twice the one before."""
_READ = 1000
_NOT_YET = "not connected yet"

# Keys carry one hash tag, so that a cluster keeps them in one slot.
_BEGIN = """
local name = redis.call('GET', KEYS[1])
if not name or #name ~= #ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
  name = ARGV[1]
  redis.call('SET', KEYS[1], name)
  redis.call('XADD', KEYS[2], '*', 'begin', name)
end
return name
"""
_APPEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
  return false
end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'purge', ARGV[3])
"""

Position = tuple[int, int]
Record = tuple[bytes, dict[bytes, bytes]]


class _Told(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kind: PurgeKind
    value: bytes
    host: bytes | None
    soft: bool
    targets: tuple[bytes, ...]


class LogLost(Exception):  # noqa: N818  # a state of the log
    """The log is not the one this node follows."""


class RedisBus:
    """One per worker. ``start`` once; ``publish`` instead of ``table.apply``. ``name`` is the node's, for
    people; ``lease`` and ``wait`` in seconds; ``on_trust`` hears when memory is to be trusted, and when no
    more."""

    def __init__(
        self,
        url: str,
        table: PurgeTable,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        *,
        prefix: str = "edgeproxy:",
        name: str = "",
        lease: float = 30.0,
        wait: float = 1.0,
    ) -> None:
        self._beat = min(BEAT, lease / 4)
        self._redis = connect(url, connections=COMMANDS + 4)
        self._scripts = Scripts(self._redis)
        self._turns = asyncio.Semaphore(COMMANDS)
        # Blocking reads: of the log, and of what nodes say while a purge is waited for.
        self._tail = connect(url, connections=2, timeout=self._beat + 1.0)
        name_key, log_key, nodes, news = (
            f"{{{prefix}purges}}:{what}" for what in ("name", "log", "nodes", "news")
        )
        self._keys = [name_key, log_key]
        self._all_keys = name_key, log_key, nodes, news
        clients = self._redis, self._tail
        self._registry = Registry(
            clients,
            Keys(name_key, nodes, news),
            table,
            clock,
            spawn,
            name=name,
            lease=lease,
            block=self._beat,
        )
        self._lease = lease
        self._wait = wait
        self._reported = 0.0
        self.trusting = False
        """Whether this worker's memory may be served from."""
        self.on_trust: Callable[[bool], None] = lambda _: None
        self._tried = asyncio.Event()
        self._table = table
        self._clock = clock
        self._spawn = spawn
        self._untold = Untold(table.path, table.writing, _record(PurgeOrder(PurgeKind.ALL)))
        self._closed = False
        self._follower: asyncio.Task[object] | None = None
        self.ready = False
        self.followed = asyncio.Event()
        """Set while ``ready``, to wait for."""
        self.heard = 0.0
        """clock.monotonic() when the log was last read to its end."""
        self.error = _NOT_YET
        self.gaps = 0
        """How often everything had to count as purged because the log could not be followed."""

    def start(self) -> None:
        self._spawn(self._follow(), "purge log")
        self._spawn(self._watch(), "trust in memory")

    async def tried(self) -> None:
        """Until the log has been followed or found out of reach for the first time."""
        await self._tried.wait()

    async def publish(
        self, order: PurgeOrder, *, wait: bool = True
    ) -> tuple[int, str, tuple[NodeReceipt, ...]]:
        """Purge on all nodes. The number, and "ok" or why the other nodes have not been told yet; this node
        has carried it out in either case. Then what each node has said, if it was to be waited for."""
        try:
            if not self.ready:
                raise LogLost(self.error)  # noqa: TRY301  # one way out for all of them
            async with self._turns:
                position = await self._append(_record(order))
                await self._catch_up()
        except (RedisError, OSError, LogLost) as error:
            self._down(error)
            number = self._table.apply(order, self._clock.now())
            self._untold.keep(_record(order))
            return number, f"not told yet: {error}", ()
        if not wait:
            return number_of(position), "ok", ()
        try:
            return number_of(position), "ok", await self._registry.wait(position, self._wait)
        except (RedisError, OSError) as error:
            self._down(error)
            return number_of(position), f"told, but no node has confirmed it: {error}", ()

    async def _append(self, record: bytes) -> Position:
        name = self._table.incarnation
        answer = await self._scripts.run(_APPEND, 2, *self._keys, name, KEPT, record)
        if not isinstance(answer, bytes):
            raise LogLost("the purge log has been lost and is being made anew")
        return _position(answer)

    async def _follow(self) -> None:
        """The tail task: connect, catch up, wait for news; from the start again after any failure."""
        self._follower = asyncio.current_task()
        pause = PAUSE
        while not self._closed:
            try:
                await self._begin()
                await self._catch_up()
                await self._tell()
                await self._report()
                self._up()
                self._tried.set()
                pause = PAUSE
                while self.ready and not self._closed:
                    news = await self._wait_for_news()
                    self.heard = self._clock.monotonic()
                    if news or self.heard - self._reported >= self._beat / 2:
                        await self._report()
            except Exception as error:  # noqa: BLE001  # whatever it was, the log is followed again
                if not self._closed:  # else a connection was closed under a command
                    self._down(error)
                    await self._mend(error)
            self._tried.set()
            if not self._closed:
                await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _mend(self, error: Exception) -> None:
        """After an error: remove what is at our keys and is none of ours, if that was it."""
        if is_wrong_type(error):
            with contextlib.suppress(RedisError, OSError):
                count = await mend(self._redis, self._all_keys)
                log.warning("purge log: %d keys were of another type and are removed", count)

    async def _report(self) -> None:
        self._reported = self._clock.monotonic()
        try:
            known = await self._registry.report()
        except RedisError as error:
            if not is_full(error):
                raise
            # An old server that is full: the log is read all the same, and its lease alone runs out.
            known = True
        if not known:
            raise LogLost("the purge log has been lost and is being made anew")
        self._judge()

    async def _watch(self) -> None:
        """Say at once when the node has not followed the log for its lease, and when it does again."""
        while not self._closed:
            left = self._judge()
            await self._clock.sleep(min(max(left, 0.001), self._beat) if left > 0 else self._beat)

    def _judge(self) -> float:
        """Seconds of trust left, 0 or less for none."""
        left = self._table.heard + self._lease - self._clock.monotonic()
        trusting = (
            0 < left <= self._lease
        )  # a stamp of the time before the machine's last start is in the future
        if trusting is not self.trusting and not self._closed:
            self.trusting = trusting
            if not trusting:
                log.warning("memory is not served from: no purge could be heard of for %g s", self._lease)
            self.on_trust(trusting)
        return left if trusting else 0.0

    async def _begin(self) -> None:
        """Find the log, or make it."""
        name = await self._scripts.run(_BEGIN, 2, *self._keys, os.urandom(8))
        if not isinstance(name, bytes) or len(name) != 8:
            raise LogLost("the purge log's name is not one")
        if name != self._table.incarnation:
            self._table.adopt(name, self._clock.now(), self._clock.monotonic())
            await lost_log.lift(self._redis, self._keys, name, self._table.current)

    async def _catch_up(self) -> bool:
        """Apply everything between this node's place and the end of the log, in order; whether this worker
        applied any of it.

        Each look begins with the record that was read last: where it is missing, the log has been trimmed
        beyond our place, and whatever stood there may concern everything we have.
        """
        applied = False
        while True:
            seen = self._table.seen
            records = await self._range(seen)
            first = _position(records[0][0]) if records else None
            missing = seen not in {(0, 0), first}
            if missing and await lost_log.made_anew(self._redis, self._keys, self._table.incarnation, seen):
                raise LogLost("the purge log has lost its end and is made anew")
            if first is None:
                raise LogLost("the purge log is empty")
            if missing:
                last = _position(records[-1][0])
                self.gaps += 1
                self._table.raise_floor(number_of(last))
                self._table.skip_to(last)
                applied = True
                continue
            if seen == (0, 0) and b"begin" not in records[0][1]:
                self.gaps += 1
                self._table.raise_floor(number_of(first))
            news = records if seen == (0, 0) else records[1:]
            applied = self._apply(news) or applied
            if len(records) < _READ:
                return applied

    async def _tell(self) -> None:
        """Tell what could not be told, each once."""
        for place, records in self._untold.take():
            for record in records:
                await self._append(record)
            self._untold.done(place, len(records))
        await self._catch_up()

    async def _wait_for_news(self) -> bool:
        milliseconds, sequence = self._table.seen
        streams: dict[Any, Any] = {self._keys[1]: f"{milliseconds}-{sequence}"}
        answer = cast("Any", await self._tail.xread(streams, count=1, block=max(1, int(self._beat * 1000))))
        if not answer:
            await self._begin()  # is it still the same log?
        return await self._catch_up()

    def _apply(self, records: list[Record]) -> bool:
        now = self._clock.now()
        applied = False
        for name, fields in records:
            position = _position(name)
            if b"begin" in fields:
                self._table.skip_to(position)
                continue
            # Stale since it was purged, not since we heard of it; never in our future.
            when = min(now, position[0] / 1000)
            applied = self._table.apply_logged(_order(fields), when, position) is not None or applied
        return applied

    async def _range(self, low: Position) -> list[Record]:
        begin = "-" if low == (0, 0) else f"{low[0]}-{low[1]}"
        return cast("list[Record]", await self._redis.xrange(self._keys[1], begin, "+", count=_READ))

    def _up(self) -> None:
        if not self.ready:
            first = self.error == _NOT_YET
            log.log(logging.INFO if first else logging.WARNING, "purge log: followed")
        self.ready, self.error = True, ""
        self.followed.set()
        self.heard = self._clock.monotonic()

    def _down(self, error: Exception) -> None:
        if self.ready:
            log.warning("purge log: lost (%s)", error)
        elif self.error == _NOT_YET:
            log.warning(
                "purge log: out of reach (%s); nothing is answered from the cache until it is followed", error
            )
        self.ready = False
        self.followed.clear()
        self.error = f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        self._closed = True
        self.ready = False
        if self._follower is not None:
            # Its connection is its own and closed next, so the reply it leaves behind crosses nobody's.
            self._follower.cancel()
            await asyncio.wait([self._follower])
        with contextlib.suppress(RedisError, OSError):
            await self._registry.leave()
        await self._tail.aclose()
        await self._redis.aclose()


def _record(order: PurgeOrder) -> bytes:
    return msgspec.msgpack.encode(
        _Told(
            order.kind,
            octets(order.value),
            None if order.host is None else octets(order.host),
            order.soft,
            tuple(map(octets, order.targets)),
        )
    )


def _order(fields: dict[bytes, bytes]) -> PurgeOrder:
    try:
        told = msgspec.msgpack.decode(fields[b"purge"], type=_Told)
        return PurgeOrder(
            told.kind,
            text(told.value),
            None if told.host is None else text(told.host),
            told.soft,
            tuple(map(text, told.targets)),
        )
    except (KeyError, ValueError, msgspec.MsgspecError, RecursionError):
        return PurgeOrder(PurgeKind.ALL)


def _position(name: bytes) -> Position:
    milliseconds, _, sequence = name.partition(b"-")
    return int(milliseconds), int(sequence)
