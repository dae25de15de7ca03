"""B2, F1, F4, F5 end to end: whatever stands in the shared store, or comes coded from the origin, the client
gets the right octets or the origin's."""

from __future__ import annotations

import gzip
import pickle  # noqa: TID251 - what an attacker would plant
import resource
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

from tests.support.edge import running_edge
from tests.support.ledger import head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def flip(at: int) -> Callable[[bytes], bytes]:
    def change(value: bytes) -> bytes:
        spot = at % len(value)
        return value[:spot] + bytes([value[spot] ^ 0x55]) + value[spot + 1 :]

    return change


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "magic": flip(12),
    "near the head": flip(40),
    "the middle": lambda v: flip(len(v) // 2)(v),
    "the last octet": flip(-1),
    "cut": lambda v: v[: len(v) // 2],
    "empty": lambda _: b"",
    "zeroed": lambda v: bytes(len(v)),
    "longer": lambda v: v + b"more",
}


def rewrite(store: Path, change: Callable[[bytes], bytes]) -> int:
    """Change every record of a store that nobody has open; how many there were."""
    with lmdb.open(str(store / "data.mdb"), subdir=False, max_dbs=2) as env:
        records = env.open_db(b"records")
        with env.begin(write=True, db=records) as txn:
            found = [(bytes(k), bytes(v)) for k, v in txn.cursor()]
            for key, value in found:
                txn.put(key, change(value))
    return len(found)


@pytest.mark.parametrize("name", CHANGES)
async def test_b2_altered_entries_are_misses(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path, name: str
) -> None:
    store = tmp_path / "store"
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{store}") as edge:
        await edge.get("/a")
        await edge.settle()
    assert rewrite(store, CHANGES[name]) == 1
    origin.bump("/a")
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{store}") as edge:
        answer = await edge.get("/a")
        assert (answer.status, answer.body, answer["X-Cache-Status"]) == (200, origin.stamp("/a", 2), "MISS")
        await edge.settle()
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"
    assert origin.count("/a") == 2


async def test_f1_a_pickle_in_the_store_is_a_miss(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path
) -> None:
    store, made = tmp_path / "store", tmp_path / "made"
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{store}") as edge:
        await edge.get("/a")
        await edge.settle()
    payload = pickle.dumps(Planted(made))
    assert rewrite(store, lambda value: value[:8] + payload) == 1
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{store}") as edge:
        assert (await edge.get("/a")).body == origin.stamp("/a", 1)
    assert not made.exists()


async def test_f4_an_entry_copied_under_another_key_is_refused(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{store}") as edge:
        await edge.get("/a")
        await edge.get("/b")
        await edge.settle()
    with lmdb.open(str(store / "data.mdb"), subdir=False, max_dbs=2) as env:
        records = env.open_db(b"records")
        with env.begin(write=True, db=records) as txn:
            (one, first), (two, second) = [(bytes(k), bytes(v)) for k, v in txn.cursor()]
            txn.put(one, second)
            txn.put(two, first)
    async with running_edge(origin.url, clock=clock, store=f"lmdb:{store}") as edge:
        for path in ("/a", "/b"):
            answer = await edge.get(path)
            assert (answer.body, answer["X-Cache-Status"]) == (origin.stamp(path, 1), "MISS")
        assert edge.worker.store.stats()["l2_foreign_total"] == 2


async def test_f5_what_comes_coded_goes_out_coded(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """10 MiB of gzip that would be 10 GiB, to a client that did not ask for it: passed on, never opened."""
    member = gzip.compress(bytes(10 * 1024 * 1024))
    bomb = member * (10 * 1024 * 1024 // len(member))
    fields = [
        ("Content-Encoding", "gzip"),
        ("Content-Length", str(len(bomb))),
        ("Cache-Control", "max-age=60"),
    ]
    origin.script("/bomb", [head(200, fields), bomb])
    async with running_edge(origin.url, clock=clock) as edge:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = await edge.get("/bomb")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert answer["Content-Encoding"] == "gzip"
        assert answer.body == bomb
        assert grown < 200 * 1024  # KiB: a few copies of the 10 MiB, here in one process with both ends
