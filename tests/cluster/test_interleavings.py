"""E13: a refresh by a 304, a read from the shared store and a purge, in every order of their steps.

Rules of this file:

- One node refreshes what is stale: the origin has produced its 304 (``asked``), the refreshed entry is in
  this node's memory (``told``), and in Redis (``written``). The other node reads the key from Redis
  (``read``) and puts what it read into its own memory (``promoted``). A purge of the key, which has a new
  version at the origin, returns (``purged``).
- Each stands still at each of its steps until it is its turn: 60 orders, the ones that keep each one's own.
- Whatever the order, no request that begins after the purge has returned is answered with the old version,
  by neither node, and neither from memory nor from Redis.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.store.purge import PurgeKind, PurgeOrder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeproxy.store.shared import Write, Wrote
    from tests.cluster.two import Two
    from tests.support.edge import Edge
    from tests.support.rawclient import RawAnswer

SEQUENCES = (("asked", "told", "written"), ("read", "promoted"), ("purged",))


def orders(*rest: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All ways to merge the sequences."""
    if not any(rest):
        yield ()
    for index, sequence in enumerate(rest):
        if sequence:
            for tail in orders(*rest[:index], sequence[1:], *rest[index + 1 :]):
                yield (sequence[0], *tail)


class Held:
    """A place where a node stands still until ``go``; ``reached`` when it does."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.go.wait()


class Order:
    """One order, on a path of its own."""

    def __init__(self, two: Two, number: int, order: tuple[str, ...]) -> None:
        self.two = two
        self.path = f"/e13/{number}"
        self.order = order
        self.purger = (two.one, two.other)[number % 2]
        self.promotion, self.writing = Held(), Held()
        self.after: list[asyncio.Task[RawAnswer]] = []
        """Requests that began when the purge had returned."""

    def ask(self, edge: Edge) -> asyncio.Task[RawAnswer]:
        return asyncio.create_task(edge.get(self.path))  # noqa: TID251

    async def run(self) -> None:
        two, origin = self.two, self.two.origin
        fresh = [("Cache-Control", "max-age=600")]
        origin.reply(self.path, headers=[("Cache-Control", "max-age=1")], etag=True, times=1)
        origin.reply(self.path, headers=fresh, etag=True, gate=self.path, times=1)
        origin.reply(self.path, headers=fresh, etag=True)
        await two.through(two.one.get(self.path))
        await two.through(two.one.settle())
        await two.clock.advance(5)  # stale, and kept
        store = two.one.worker.store.shared
        assert store is not None
        cache: Any = store.cache
        write = cache.write

        async def held(batch: Sequence[Write]) -> list[Wrote]:
            await self.writing.pass_through()
            wrote: list[Wrote] = await write(batch)
            return wrote

        cache.write = held
        two.other.worker.store.hooks = SimpleNamespace(before_promote=self.promotion.pass_through)
        try:
            for step in self.order:
                await getattr(self, step)()
        finally:
            cache.write = write
            two.other.worker.store.hooks = None
        await two.through(self.reading)
        new = origin.stamp(self.path, 2)
        for edge in (two.one, two.other):
            self.after.append(self.ask(edge))
        for task in self.after:
            assert (await two.through(task)).body == new, self.order
        for edge in (two.one, two.other):
            await two.through(edge.settle())
            edge.worker.store.memory.clear()  # what Redis has
            assert (await two.through(edge.get(self.path))).body == new, self.order

    async def asked(self) -> None:
        self.refresh = self.ask(self.two.one)
        await self.two.through(self.two.origin.gate(self.path).reached())

    async def told(self) -> None:
        self.two.origin.gate(self.path).open()
        await self.two.through(self.refresh)

    async def written(self) -> None:
        self.writing.go.set()
        await self.two.through(self.two.one.settle())

    async def read(self) -> None:
        self.reading = self.ask(self.two.other)
        if "purged" not in self.order[: self.order.index("read")]:  # else there is nothing to promote
            await self.two.through(self.promotion.reached.wait())

    async def promoted(self) -> None:
        self.promotion.go.set()

    async def purged(self) -> None:
        self.two.origin.bump(self.path)
        order = PurgeOrder(PurgeKind.URL, self.path)
        receipt = await self.two.through(self.purger.worker.store.purge(order))
        assert receipt.complete
        self.after += [self.ask(edge) for edge in (self.two.one, self.two.other)]


def test_every_order_is_there() -> None:
    assert len(set(orders(*SEQUENCES))) == 60


@pytest.mark.long
async def test_no_order_brings_back_what_was_purged(two: Two) -> None:
    for number, order in enumerate(orders(*SEQUENCES)):
        await Order(two, number, order).run()
