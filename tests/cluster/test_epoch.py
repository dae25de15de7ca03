from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cluster.epoch import (
    BANS,
    CURRENT,
    GONE,
    GOOD,
    PurgeTable,
    SoftSince,
    logged_part,
    number_of,
)
from edgeproxy.store.purge import PurgeKind, PurgeOrder, concerns

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 256


def url(target: str, *, soft: bool = False, host: str | None = None) -> PurgeOrder:
    return PurgeOrder(PurgeKind.URL, target, soft=soft, host=host)


def test_an_order_concerns_older_fetches_only() -> None:
    table = PurgeTable.anonymous(SMALL)
    before = table.current
    number = table.apply(url("/a"), 0.0)
    assert table.current == table.words[CURRENT] == number > before
    assert table.verdict("h", "/a", (), before) is GONE
    assert table.verdict("h", "/a", (), number) is GOOD
    table.close()


orders = st.builds(
    PurgeOrder,
    st.sampled_from(PurgeKind),
    st.sampled_from(["/a", "/a/b", "/b*", "t1", "t2", "/ä\udc80"]),
    st.sampled_from([None, "", "x", "y"]),
    st.booleans(),
    st.lists(st.sampled_from(["/a", "/b"]), max_size=2).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(orders, max_size=8),
    st.sampled_from(["", "x", "y", "z"]),
    st.sampled_from(["/a", "/a/b", "/b", "/bc", "/c", "/ä\udc80"]),
    st.lists(st.sampled_from(["t1", "t2", "t3"]), max_size=2),
    st.integers(0, 8),
    st.sampled_from([3, 2**18]),
)
def test_never_less_than_the_orders_say(
    made: list[PurgeOrder], host: str, target: str, tags: list[str], epoch: int, buckets: int
) -> None:
    """With three buckets nearly everything collides: more may be purged, never less. With many, exactly."""
    table = PurgeTable.anonymous(buckets)
    for now, order in enumerate(made):
        table.apply(order, float(now))
    verdict = table.verdict(host, target, tags, epoch)
    later = list(enumerate(made))[epoch:]
    hard = [o for _, o in later if not o.soft and concerns(o, host, target, tags)]
    soft = [now for now, o in later if o.soft and concerns(o, host, target, tags)]
    if hard:
        assert verdict is GONE
    elif soft:
        assert verdict is GONE or isinstance(verdict, SoftSince)
        if isinstance(verdict, SoftSince):
            # Where a later soft purge shares the bucket, its time is the one that is told: in the past as
            # well, so the entry is stale either way, and it never outlives its own lifetime.
            assert verdict.when <= (max(soft) if buckets > 3 else len(made) - 1)
    if buckets > 3:
        expected = GONE if hard else SoftSince if soft else GOOD
        assert verdict is expected or (expected is SoftSince and isinstance(verdict, SoftSince))
    table.close()


def test_bans_are_read_as_they_come_and_fall_out_over_the_floor() -> None:
    table = PurgeTable.anonymous(SMALL)
    for number in range(1, BANS + 1):
        table.apply(PurgeOrder(PurgeKind.PREFIX, f"/{number}/"), 0.0)
    assert table.verdict("h", "/1/x", (), 0) is GONE
    assert table.verdict("h", "/none", (), 0) is GOOD
    assert table.judge((), "h", "/5/x", 0, since=4) is GONE
    assert table.judge((), "h", "/5/x", 0, since=5) is GOOD
    table.apply(PurgeOrder(PurgeKind.PREFIX, "/more/"), 0.0)
    table.apply(PurgeOrder(PurgeKind.PREFIX, "/even-more/"), 0.0)
    assert table.verdict("h", "/none", (), 0) is GONE, "older than the floor"
    assert table.verdict("h", "/none", (), 2) is GOOD
    late = PurgeTable(table._region, SMALL)  # a reader that comes when the ring has wrapped
    assert late.verdict("h", "/3/x", (), 2) is GONE, "the oldest that is kept"
    assert late.verdict("h", "/1000/x", (), 2) is GONE
    assert late.verdict("h", "/none", (), 2) is GOOD


def test_the_longest_ban_fits() -> None:
    table = PurgeTable.anonymous(SMALL)
    order = PurgeOrder(PurgeKind.PATTERN, "/" + "x" * 1022 + "*", host="h" * 255)
    for _ in range(3):
        table.apply(order, 0.0)
    assert table.verdict("h" * 255, "/" + "x" * 1022 + "tail", (), 0) is GONE
    assert table.verdict("h" * 254, "/" + "x" * 1022 + "tail", (), 0) is GOOD


def test_numbers_only_rise_and_logged_ones_come_once() -> None:
    table = PurgeTable.anonymous(SMALL)
    assert table.apply(url("/a"), 0.0, number=50) == 50
    assert table.apply(url("/b"), 0.0, number=20) == 51
    assert table.verdict("h", "/b", (), 50) is GONE
    number = table.apply_logged(url("/c"), 0.0, (100, 3))
    assert number == number_of((100, 3))
    assert table.apply_logged(url("/c"), 0.0, (100, 3)) is None
    assert table.apply_logged(url("/c"), 0.0, (99, 9)) is None
    local = table.apply(url("/d"), 0.0)
    assert local == number + 1
    assert logged_part(local) == number < number_of((100, 4))
    assert table.seen == (100, 3)


def test_adopting_another_log_purges_everything() -> None:
    table = PurgeTable.anonymous(SMALL)
    epoch = table.current
    table.adopt(b"12345678", 0.0, 0.0)
    assert table.incarnation == b"12345678"
    assert table.verdict("h", "/a", (), epoch) is GONE
    number = table.current
    table.adopt(b"12345678", 0.0, 0.0)
    assert table.current == number


def test_it_survives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "state" / "purges"
    first = PurgeTable.open(path, SMALL)
    name, epoch = first.incarnation, first.current
    number = first.apply(url("/a", soft=True), 12.5)
    first.flush()
    first.close()
    again = PurgeTable.open(path, SMALL)
    assert again.incarnation == name
    assert again.current > number, "no number is given twice, even if a power cut took the last"
    assert again.verdict("h", "/a", (), epoch) == SoftSince(12.5)
    again.close()
    path.unlink()
    lost = PurgeTable.open(path, SMALL)
    assert lost.incarnation != name
    lost.close()


@pytest.mark.parametrize(
    "garbage", [b"", b"x", b"\0" * 100_000, None], ids=["empty", "short", "long", "size"]
)
def test_a_foreign_file_is_replaced(tmp_path: Path, garbage: bytes | None) -> None:
    path = tmp_path / "purges"
    path.write_bytes(b"\xa5" * PurgeTable.size(SMALL) if garbage is None else garbage)
    table = PurgeTable.open(path, SMALL)
    assert table.verdict("h", "/a", (), 0) is GOOD
    assert table.apply(url("/a"), 0.0) == 1
    table.close()


def test_an_unusable_path_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        PurgeTable.open(tmp_path / "file" / "purges", SMALL)


WORKER = """
import sys
from pathlib import Path
from edgeproxy.cluster.epoch import GONE, PurgeTable
from edgeproxy.store.purge import PurgeKind, PurgeOrder
table = PurgeTable.open(Path(sys.argv[1]), 256)
for line in sys.stdin:
    verb, *words = line.split()
    if verb == "purge":
        print(table.apply(PurgeOrder(PurgeKind(words[0]), words[1]), 1.0), flush=True)
    elif verb == "many":
        for _ in range(int(words[0])):
            table.apply(PurgeOrder(PurgeKind.URL, words[1]), 1.0)
        print("done", flush=True)
    elif verb == "gone":
        print(table.verdict("h", words[0], (), int(words[1])) is GONE, flush=True)
"""


class _Worker:
    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_two_processes_see_each_others_purges_at_once(tmp_path: Path) -> None:
    path = tmp_path / "purges"
    table = PurgeTable.open(path, SMALL)
    worker = _Worker(path)
    try:
        number = 0
        for round_ in range(50):
            kind = "url" if round_ % 2 else "prefix"
            epoch = table.current
            number = int(worker.ask(f"purge {kind} /{round_}"))
            assert table.current == number > epoch
            assert table.verdict("h", f"/{round_}", (), number - 1) is GONE
            assert table.verdict("h", f"/{round_}", (), number) is GOOD
            mine = table.apply(url(f"/mine/{round_}"), 0.0)
            assert worker.ask(f"gone /mine/{round_} {mine - 1}") == "True"
    finally:
        worker.end()
    again = _Worker(path)  # the other was killed; its purges were not
    try:
        assert again.ask(f"gone /48 {number - 100}") == "True"
    finally:
        again.end()
    table.close()


def test_writers_in_processes_and_threads_lose_no_number(tmp_path: Path) -> None:
    path = tmp_path / "purges"
    workers = [_Worker(path) for _ in range(2)]
    table = PurgeTable.open(path, SMALL)
    try:
        for worker in workers:
            assert worker.ask("gone /x 0") == "False"  # has opened it
        before = table.current
        for worker in workers:
            worker.say("many 500 /x")
        threads = [
            threading.Thread(target=lambda: [table.apply(url("/y"), 0.0) for _ in range(250)])
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [worker.hear() for worker in workers] == ["done", "done"]
        assert table.current == before + 1500
    finally:
        for worker in workers:
            worker.end()
        table.close()


def test_a_killed_writer_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "purges"
    table = PurgeTable.open(path, SMALL)
    worker = _Worker(path)
    assert worker.ask("gone /x 0") == "False"
    worker.say("many 10000000 /x")
    while table.verdict("h", "/x", (), 0) is GOOD:
        pass
    worker.end()
    epoch = table.current
    assert table.apply(url("/y"), 0.0) == epoch + 1
    assert table.verdict("h", "/y", (), epoch) is GONE
    table.close()
