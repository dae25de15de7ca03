"""Which nodes follow the purge log, how far each has come, and who is waited for.

Rules of this file:

- Every worker that follows reports to a hash in Redis: its node, the last position that the node has applied,
  and for how long the node goes on trusting its memory without another report (the lease). The times are
  Redis's own, so that no two clocks are compared.
- A node has applied a purge when one of its workers says so: they share the purge table. It counts as live
  until the lease of the last report of all its workers is over; then it serves nothing from memory, and has
  to catch up before it does again. So a purge holds everywhere when each node has applied it or run out.
- A worker that ends takes its report away. What no one has renewed for FORGET beyond its lease is removed.
- Whenever a worker has come further, or ends, that is news in a stream too: who waits is woken by it (one
  blocking read for all of them, listener.py) and asks nobody in between. Only what no news tell, a lease that
  runs out, is looked for when it should be so.
- After the log has been lost and made anew, nodes that followed the old one may not be known: for as long as
  they may trust their memory, nobody says that all have been told.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.cluster.epoch import number_of
from edgeproxy.cluster.listener import Listener
from edgeproxy.cluster.reports import Reports, read_place, read_report
from edgeproxy.cluster.scripts import Scripts
from edgeproxy.store.purge import NodeReceipt
from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from redis.asyncio import Redis

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.epoch import PurgeTable
    from edgeproxy.cluster.reports import Position

FORGET = 60_000
"""Milliseconds."""
NEWS = 10_000
"""Pieces of news that are kept, about: more than all workers say while somebody is on the way to listen."""
UNHEARD = 0.05
"""Seconds until the next look of who waits, where no news can be had."""
_SOONEST = 0.001

_REPORT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
local said = t[1] * 1000 + math.floor(t[2] / 1000) .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[2], ARGV[2], said)
if ARGV[4] == '1' then redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', ARGV[2], said) end
return 1
"""
_LEAVE = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', ARGV[1], '')
return 1
"""
_LOOK = """
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {redis.call('TIME'), redis.call('HGETALL', KEYS[1]), last and last[1] or '0-0'}
"""


@value
class Keys:
    """``log``: of its name. ``reports``: the hash. ``news``: the stream."""

    log: str
    reports: str
    news: str


class Registry:
    """One per worker. ``name``: the node's, for people; ``lease``: seconds that it trusts its memory after a
    report. ``clients``: one for commands, and one for reads that block, for ``block`` seconds at most."""

    def __init__(
        self,
        clients: tuple[Redis, Redis],
        keys: Keys,
        table: PurgeTable,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        *,
        name: str,
        lease: float,
        block: float,
    ) -> None:
        self._table = table
        self._clock = clock
        self._keys = keys
        self._redis, tail = clients
        self._scripts = Scripts(self._redis)
        self._name = name.replace(" ", "_") or "?"
        self._lease = lease
        # A copied file has the same number; the machines then have names of their own.
        self._node = blake2b(table.node + name.encode(), digest_size=8).hexdigest()
        self._field = f"{self._node}/{os.urandom(4).hex()}"
        self._said: Position = (-1, -1)
        """What this worker has reported last."""
        self._reports = Reports()
        self._listener = Listener(tail, keys.news, spawn, self._heard, block=block)
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        """clock.monotonic() when the last look began."""

    async def report(self) -> bool:
        """Say how far this node has come; False if the log is not the one it follows. From when this was
        sent the lease counts. Raises RedisError and OSError."""
        sent = self._clock.monotonic()
        seen = self._table.seen
        said = f"{seen[0]} {seen[1]} {int(self._lease * 1000)} {self._name}"
        keys = (self._keys.log, self._keys.reports, self._keys.news)
        news = int(seen != self._said)
        arguments = (self._table.incarnation, self._field, said, news, NEWS)
        answer = await self._scripts.run(_REPORT, 3, *keys, *arguments)
        good = bool(answer == 1)
        if good:
            self._table.heard = sent
            self._said = seen
        return good

    async def leave(self) -> None:
        """Raises RedisError and OSError."""
        keys = self._keys.reports, self._keys.news
        await self._scripts.run(_LEAVE, 2, *keys, self._field, NEWS)

    async def wait(self, position: Position, patience: float) -> tuple[NodeReceipt, ...]:
        """Until every node has applied the log up to ``position`` or trusts its memory no more, for
        ``patience`` seconds at most: what each has said. Raises RedisError and OSError."""
        until = self._clock.monotonic() + patience
        await self._look(self._clock.monotonic())
        with self._listener.waiting():
            while True:
                receipts = self._receipts(position)
                now = self._clock.monotonic()
                if now >= until or all(receipt.good for receipt in receipts):
                    return receipts
                # No await since the receipts were made: nothing is heard in between.
                news = self._listener.news(self._reports.place)
                pause = max(_SOONEST, min(until - now, self._next_end(position, now)))
                if await self._clock.wait_for(cast("asyncio.Future[object]", news), pause):
                    if news.result():
                        continue
                    await self._clock.sleep(min(UNHEARD, pause))
                await self._look(self._clock.monotonic())

    async def _look(self, moment: float) -> None:
        """A look that began after ``moment``: who waits at the same time shares it."""
        async with self._looking:
            if self._looked >= moment:
                return
            began = self._clock.monotonic()
            keys = self._keys.reports, self._keys.news
            (seconds, micros), fields, last = await self._scripts.run(_LOOK, 2, *keys)
            now = int(seconds) * 1000 + int(micros) // 1000
            read = {
                bytes(name): read_report(bytes(name), bytes(said))
                for name, said in zip(fields[::2], fields[1::2], strict=True)
            }
            gone = [name for name, report in read.items() if report is None or report.until + FORGET < now]
            if gone:
                await cast("Any", self._redis.hdel(self._keys.reports, *gone))
            told = {name: report for name, report in read.items() if report is not None}
            self._reports.looked(now, read_place(last), told)
            self._looked = began

    def _heard(self, place: Position, worker: bytes, said: bytes) -> None:
        report = read_report(worker, said)
        if report is not None or not said:
            self._reports.heard(place, worker, report)

    def _next_end(self, position: Position, now: float) -> float:
        """Seconds until one that is waited for will have run out, unless it is heard of."""
        ends = [
            max(report.until for report in reports) - self._reports.now
            for node, reports in self._reports.by_node().items()
            if node != self._node and max(report.seen for report in reports) < position
        ]
        seconds = [self._looked + (end + 1) / 1000 - now for end in ends]
        if (reborn := self._table.reborn + self._lease - now) > 0:
            seconds.append(reborn)
        return min(seconds, default=float("inf"))

    def _receipts(self, position: Position) -> tuple[NodeReceipt, ...]:
        now = self._reports.now
        receipts = []
        for node, reports in self._reports.by_node().items():
            best = max(reports, key=lambda report: (report.seen, report.at))
            seen = max(best.seen, self._table.seen) if node == self._node else best.seen
            said = "ok"
            if seen < position:
                until = max(report.until for report in reports)
                if until >= now:
                    said = "no answer"
                elif until + FORGET < now:
                    continue
                else:
                    said = "cut off"
            receipts.append(NodeReceipt(best.name, number_of(seen), best.at / 1000, said))
        if 0 <= self._clock.monotonic() - self._table.reborn < self._lease:
            receipts.append(NodeReceipt("nodes of the log before this one", 0, 0.0, "not known yet"))
        return tuple(sorted(receipts, key=lambda receipt: receipt.name))
