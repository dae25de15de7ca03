"""Which nodes follow the purge log, how far each has come, and who is waited for.

Rules of this file:

- Every worker that follows reports to a hash in Redis: its node, the last position that the node has applied,
  and for how long the node goes on trusting its memory without another report (the lease). The times are
  Redis's own, so that no two clocks are compared.
- A node has applied a purge when one of its workers says so: they share the purge table. It counts as live
  until the lease of the last report of all its workers is over; then it serves nothing from memory, and has
  to catch up before it does again. So a purge holds everywhere when each node has applied it or run out.
- A worker that ends takes its report away. What no one has renewed for FORGET beyond its lease is removed.
- After the log has been lost and made anew, nodes that followed the old one may not be known: for as long as
  they may trust their memory, nobody says that all have been told.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.cluster.epoch import number_of
from edgeproxy.store.purge import NodeReceipt
from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from edgeproxy.clock import Clock
    from edgeproxy.cluster.epoch import PurgeTable

FORGET = 60_000
"""Milliseconds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two looks of who waits; each pause is twice the one before."""

_REPORT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
redis.call('HSET', KEYS[2], ARGV[2], t[1] * 1000 + math.floor(t[2] / 1000) .. ' ' .. ARGV[3])
return 1
"""
_LOOK = "return {redis.call('TIME'), redis.call('HGETALL', KEYS[1])}"

Position = tuple[int, int]


@value
class Report:
    """One worker's. Times in milliseconds, by Redis's clock."""

    node: str
    name: str
    at: int
    seen: Position
    lease: int

    @property
    def until(self) -> int:
        return self.at + self.lease


@value
class Looked:
    """What was found, and when that look began (clock.monotonic())."""

    began: float
    now: int
    reports: tuple[Report, ...]


class Registry:
    """One per worker. ``keys``: of the log's name and of the hash. ``name``: the node's, for people;
    ``lease``: seconds that it trusts its memory after a report."""

    def __init__(
        self,
        redis: Redis,
        keys: tuple[str, str],
        table: PurgeTable,
        clock: Clock,
        *,
        name: str,
        lease: float,
    ) -> None:
        self._table = table
        self._clock = clock
        self._keys = keys
        self._redis = redis
        self._name = name.replace(" ", "_") or "?"
        self._lease = lease
        # A copied file has the same number; the machines then have names of their own.
        self._node = blake2b(table.node + name.encode(), digest_size=8).hexdigest()
        self._field = f"{self._node}/{os.urandom(4).hex()}"
        self._looking = asyncio.Lock()
        self._looked = Looked(float("-inf"), 0, ())

    async def report(self) -> bool:
        """Say how far this node has come; False if the log is not the one it follows. From when this was
        sent the lease counts. Raises RedisError and OSError."""
        sent = self._clock.monotonic()
        milliseconds, sequence = self._table.seen
        said = f"{milliseconds} {sequence} {int(self._lease * 1000)} {self._name}"
        arguments = (*self._keys, self._table.incarnation, self._field, said)
        answer = await cast("Any", self._redis.eval(_REPORT, 2, *arguments))
        good = bool(answer == 1)
        if good:
            self._table.heard = sent
        return good

    async def leave(self) -> None:
        await cast("Any", self._redis.hdel(self._keys[1], self._field))

    async def wait(self, position: Position, patience: float) -> tuple[NodeReceipt, ...]:
        """Until every node has applied the log up to ``position`` or trusts its memory no more, for
        ``patience`` seconds at most: what each has said. Raises RedisError and OSError."""
        until = self._clock.monotonic() + patience
        pause = FIRST_PAUSE
        while True:
            receipts = self._receipts(await self._after(self._clock.monotonic()), position)
            left = until - self._clock.monotonic()
            if left <= 0 or all(receipt.good for receipt in receipts):
                return receipts
            await self._clock.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _after(self, moment: float) -> Looked:
        """A look that began after ``moment``: who waits at the same time shares it."""
        async with self._looking:
            if self._looked.began < moment:
                self._looked = await self._look_now()
            return self._looked

    async def _look_now(self) -> Looked:
        began = self._clock.monotonic()
        (seconds, micros), fields = await cast("Any", self._redis.eval(_LOOK, 1, self._keys[1]))
        now = int(seconds) * 1000 + int(micros) // 1000
        read = {
            bytes(name): _read(bytes(name), bytes(said))
            for name, said in zip(fields[::2], fields[1::2], strict=True)
        }
        gone = [name for name, report in read.items() if report is None or report.until + FORGET < now]
        if gone:
            await cast("Any", self._redis.hdel(self._keys[1], *gone))
        return Looked(began, now, tuple(report for report in read.values() if report is not None))

    def _receipts(self, looked: Looked, position: Position) -> tuple[NodeReceipt, ...]:
        by_node: dict[str, list[Report]] = {}
        for report in looked.reports:
            by_node.setdefault(report.node, []).append(report)
        receipts = []
        for node, reports in by_node.items():
            best = max(reports, key=lambda report: (report.seen, report.at))
            seen = max(best.seen, self._table.seen) if node == self._node else best.seen
            said = "ok"
            if seen < position:
                if max(report.until for report in reports) >= looked.now:
                    said = "no answer"
                elif max(report.until for report in reports) + FORGET < looked.now:
                    continue
                else:
                    said = "cut off"
            receipts.append(NodeReceipt(best.name, number_of(seen), best.at / 1000, said))
        if 0 <= self._clock.monotonic() - self._table.reborn < self._lease:
            receipts.append(NodeReceipt("nodes of the log before this one", 0, 0.0, "not known yet"))
        return tuple(sorted(receipts, key=lambda receipt: receipt.name))


def _read(field: bytes, said: bytes) -> Report | None:
    words: Sequence[str] = said.decode("latin-1").split(" ")
    node = field.partition(b"/")[0].decode("latin-1")
    try:
        at, milliseconds, sequence, lease = map(int, words[:4])
        return Report(node, words[4], at, (milliseconds, sequence), lease)
    except (ValueError, IndexError):
        return None
