# ruff: noqa: ASYNC240 - small files in a temporary directory
"""The access log: what a line holds, when it is written, and that nothing about it hurts a request."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.observe.access_log import FLUSH_BYTES, MOST_PENDING, AccessLog, mask
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import CacheWord, NotStored, StaleReason, Tier
from tests.support.driven import DrivenClock
from tests.support.leaks import no_leaks

FULL = Path("/dev/full")


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


async def written(log: AccessLog, count: int) -> None:
    """Wait until the writer thread has dealt with ``count`` lines: it says so through its pending octets."""
    log.flush()

    def wait() -> None:
        while log._writer.written + log._writer.lost < count:
            threading.Event().wait(0.001)

    await asyncio.wait_for(asyncio.to_thread(wait), 10)


HIT = Trace(
    request_id="r-1", client="2001:db8::7", method="GET", host="api.example", rule='a "quoted" rule',
    word=CacheWord.HIT, tier=Tier.L1, hit=True, status=200, bytes_out=1234, seconds=0.0000123, age=7,
    ttl=52.75,
)  # fmt: skip


@pytest.mark.parametrize("sample", [1.0, 0.999999])
@pytest.mark.parametrize("target", ["/a?b=1", "/a?token=secret", '/"quoted"\\', "/" + "x" * 300])
async def test_a_hit_of_a_kind_says_the_same(
    clock: DrivenClock, path: Path, sample: float, target: str
) -> None:
    """The line that the lane has written by a template is the one that ``write`` makes."""
    log = AccessLog(clock, path, sample=sample)
    trace = replace(HIT, target=target)
    log.write(trace)
    line = log.hit_line(replace(trace, request_id="another", client="c", seconds=1.0, age=1, ttl=1.0))
    assert line is not None
    log.write_hit(line, "r-1", "2001:db8::7", 0.0000123, 7, 52.75)
    await written(log, 2)
    log.close()
    one, other = lines(path)
    assert list(one) == list(other)
    assert one == {**other, "seconds": pytest.approx(other["seconds"], abs=1e-6)}
    assert "secret" not in path.read_text()


@pytest.mark.parametrize("target", ["/caf\xe9", "/a\x7f", "/\ud800"])
async def test_what_is_no_ascii_has_no_template(clock: DrivenClock, path: Path, target: str) -> None:
    log = AccessLog(clock, path)
    assert log.hit_line(replace(HIT, target=target)) is None
    log.close()


async def test_a_line_holds_what_happened(clock: DrivenClock, path: Path) -> None:
    log = AccessLog(clock, path)
    await clock.advance(0.25)
    log.write(
        Trace(
            request_id="r-1",
            client="192.0.2.7",
            method="GET",
            host="api.example",
            target="/api/pitches/1?page=2",
            rule="pitches",
            word=CacheWord.STALE,
            tier=Tier.L1,
            stale_reason=StaleReason.ON_ERROR,
            not_stored=NotStored.ORIGIN_FAILED,
            status=200,
            bytes_out=1234,
            bytes_in=5,
            seconds=0.1234567,
            origin_seconds=0.1,
            queue_seconds=0.01,
            age=70,
            ttl=-10.12345,
            collapsed=True,
            coding="br",
        )
    )
    log.close()
    assert lines(path) == [
        {
            "time": "2023-11-14T22:13:20.250Z",
            "request_id": "r-1",
            "client": "192.0.2.7",
            "method": "GET",
            "host": "api.example",
            "target": "/api/pitches/1?page=2",
            "status": 200,
            "bytes": 1234,
            "bytes_in": 5,
            "seconds": 0.123457,
            "rule": "pitches",
            "cache": "STALE",
            "reason": "stale-if-error",
            "tier": "l1",
            "age": 70,
            "ttl": -10.123,
            "origin_seconds": 0.1,
            "queue_seconds": 0.01,
            "collapsed": True,
            "stored": False,
            "coding": "br",
            "aborted": False,
        }
    ]


async def test_lines_wait_for_the_timer_and_go_out_together(clock: DrivenClock, path: Path) -> None:
    log = AccessLog(clock, path)
    for _ in range(3):
        log.write(Trace())
    assert len(clock.pending) == 1
    await clock.advance(0.19)
    assert path.read_bytes() == b""
    assert log.stats()["pending_bytes"] == len(log._lines[0]) * 3
    await clock.advance(0.01)
    await written(log, 3)
    assert len(lines(path)) == 3
    assert not clock.pending
    log.close()


async def test_many_lines_do_not_wait_for_the_timer(clock: DrivenClock, path: Path) -> None:
    log = AccessLog(clock, path)
    count = 0
    while count * 300 < FLUSH_BYTES * 2:
        log.write(Trace(target="/" + "x" * 300))
        count += 1
    assert log._gathered < FLUSH_BYTES
    await written(log, count)
    assert len(lines(path)) == count
    log.close()


@pytest.mark.parametrize(
    "text", ["\x00\x1b[31m\r\n", "\x7f", "\x80\x85\x9b31m", "\xe9\xff", "\u2028\u202e", "\udcff", '"\\']
)
async def test_no_octet_from_a_client_reaches_the_file_raw(clock: DrivenClock, path: Path, text: str) -> None:
    log = AccessLog(clock, path)
    log.write(Trace(target=f"/{text}", host=text, request_id=text))
    log.close()
    raw = path.read_bytes()
    assert raw.count(b"\n") == 1
    assert all(0x20 <= octet < 0x7F for octet in raw[:-1])
    assert lines(path)[0]["target"] == f"/{text}"


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/a?token", "/a?token"),
        ("/a?token=s3cret", "/a?token=***"),
        ("/a?x=1&TOKEN=s3cret&y=2", "/a?x=1&TOKEN=***&y=2"),
        ("/a?%74oken=s3cret", "/a?%74oken=***"),
        ("/a?access_token=s3=cret?s3cret", "/a?access_token=***"),
        ("/a?x=1;sig=s3cret;y=2", "/a?x=1;sig=***;y=2"),
        ("/a?user[password]=s3cret", "/a?user[password]=***"),
        ("/a?user%5Bpassword%5D=s3cret", "/a?user%5Bpassword%5D=***"),
        ("/a?token=&x=1", "/a?token=***&x=1"),
        ("/a?tokens=1&monkey=2&sort_key=a", "/a?tokens=1&monkey=2&sort_key=a"),
        ("/a?x=token=1", "/a?x=token=1"),
        ("/a?user.password=s3cret", "/a?user.password=***"),
        ("/a?+token=s3cret", "/a?+token=***"),
        ("/token=1", "/token=1"),
    ],
)
def test_secrets_in_the_query_are_masked(target: str, logged: str) -> None:
    assert mask(target) == logged
    assert "s3cret" not in mask(target)


async def test_names_to_mask_can_be_chosen(clock: DrivenClock, path: Path) -> None:
    log = AccessLog(clock, path, masked=frozenset({"pin"}))
    log.write(Trace(target="/?pin=1&token=2"))
    log.close()
    assert lines(path)[0]["target"] == "/?pin=***&token=2"


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.25, 350, 650), (1.0, 2000, 2000)])
async def test_sampling(clock: DrivenClock, path: Path, share: float, least: int, most: int) -> None:
    log = AccessLog(clock, path, sample=share)
    log._random.seed(1)
    for _ in range(2000):
        log.write(Trace())
    log.close()
    logged = lines(path)
    assert least <= len(logged) <= most
    assert all(line.get("sample", 1.0) == share for line in logged)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(clock: DrivenClock, path: Path, share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        AccessLog(clock, path, sample=share)


async def test_reopen_after_a_rotation(clock: DrivenClock, path: Path) -> None:
    log = AccessLog(clock, path)
    log.write(Trace(request_id="old"))
    rotated = path.rename(path.with_suffix(".1"))
    log.reopen()
    log.write(Trace(request_id="new"))
    log.close()
    assert [line["request_id"] for line in lines(rotated)] == ["old"]
    assert [line["request_id"] for line in lines(path)] == ["new"]


async def test_a_failed_reopen_goes_on_with_the_old_file(clock: DrivenClock, path: Path) -> None:
    path.parent.joinpath("sub").mkdir()
    path = path.parent / "sub" / "access.log"
    log = AccessLog(clock, path)
    moved = path.parent.rename(path.parent.with_name("moved")) / path.name
    log.reopen()
    log.write(Trace(request_id="still"))
    log.close()
    assert [line["request_id"] for line in lines(moved)] == ["still"]


async def test_a_file_is_appended_to_and_not_for_everyone(clock: DrivenClock, path: Path) -> None:
    for number in range(2):
        log = AccessLog(clock, path)
        log.write(Trace(request_id=str(number)))
        log.close()
    assert [line["request_id"] for line in lines(path)] == ["0", "1"]
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_that_cannot_be_opened_is_told_at_once(clock: DrivenClock, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        AccessLog(clock, tmp_path / "no" / "such" / "directory.log")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
async def test_a_full_disk_costs_lines_and_nothing_else(
    clock: DrivenClock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.symlink_to(FULL)
    log = AccessLog(clock, path)
    for batch in range(3):
        log.write(Trace())
        await written(log, batch + 1)
    assert log.stats() == {"lines_total": 0, "lines_lost_total": 3, "pending_bytes": 0}
    assert len(caplog.records) == 1  # said once, not once a line
    path.unlink()
    log.reopen()
    log.write(Trace(request_id="again"))
    log.close()
    assert [line["request_id"] for line in lines(path)] == ["again"]
    assert log.stats()["lines_total"] == 1


async def test_a_line_cut_off_by_a_full_disk_does_not_spoil_the_next(clock: DrivenClock, path: Path) -> None:
    log = AccessLog(clock, path)
    log.write(Trace(request_id="whole"))
    await written(log, 1)
    os.write(log._writer._fd, b'{"time": "cut')
    log._writer._torn = True  # as a write that was taken in part leaves it
    log.write(Trace(request_id="next"))
    log.close()
    whole, cut, after = path.read_bytes().splitlines()
    assert json.loads(whole)["request_id"] == "whole"
    assert cut == b'{"time": "cut'
    assert json.loads(after)["request_id"] == "next"


async def test_a_pipe_that_nobody_reads_never_blocks_a_request(clock: DrivenClock, path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = AccessLog(clock, path)
        os.set_blocking(log._writer._fd, False)
        trace = Trace(target="/" + "x" * 10_000)
        for _ in range(2 * MOST_PENDING // 10_000):
            log.write(trace)
        log.flush()
        stats = log.stats()
        assert int(stats["pending_bytes"]) <= MOST_PENDING
        assert int(stats["lines_lost_total"]) > 0
        log.close(timeout=0.5)  # ends although nobody ever reads
        assert log._writer._thread is not None
        assert not log._writer._thread.is_alive()
    finally:
        os.close(reader)


async def test_a_reader_that_is_gone_costs_lines_and_nothing_else(clock: DrivenClock, path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(clock, path)
    os.close(reader)
    log.write(Trace())
    await written(log, 1)
    assert log.stats()["lines_lost_total"] == 1
    log.close()


async def test_closing_leaves_nothing_behind_and_writing_after_it_is_lost_quietly(
    clock: DrivenClock, path: Path
) -> None:
    async with no_leaks():
        log = AccessLog(clock, path)
        log.write(Trace())
        log.close()
        log.close()
    assert not clock.pending
    log.write(Trace())
    log.flush()
    log.reopen()
    assert log.stats()["lines_lost_total"] == 1
    assert len(lines(path)) == 1


async def test_standard_output_and_a_log_never_written_to(path: Path) -> None:
    program = (
        "import asyncio\n"
        "from edgeproxy.clock import Clock\n"
        "from edgeproxy.observe.access_log import AccessLog\n"
        "from edgeproxy.observe.trace import Trace\n"
        "async def main():\n"
        "    log = AccessLog(Clock())\n"
        "    log.write(Trace(request_id='out'))\n"
        "    log.close()\n"
        "    AccessLog(Clock()).close()\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], check=True, capture_output=True, timeout=30
    )
    assert json.loads(done.stdout)["request_id"] == "out"
    assert done.stderr == b""


async def test_lines_of_several_workers_on_one_pipe_stay_whole(
    clock: DrivenClock, path: Path, tmp_path: Path
) -> None:
    """Batches that a pipe takes only in pieces: unless they take turns, the pieces of several mix."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    logs = [AccessLog(clock, path, turns=tmp_path / "turns") for _ in range(3)]
    os.set_blocking(reader, True)
    for log in logs:
        for number in range(60):
            log.write(Trace(request_id=str(number), target="/" + "x" * 9_000))
        log.flush()

    def read() -> bytes:
        got = bytearray()
        while got.count(b"\n") < 3 * 60:
            got += os.read(reader, 3_000)
        return bytes(got)

    got = await asyncio.wait_for(asyncio.to_thread(read), 20)
    for log in logs:
        log.close()
    os.close(reader)
    told = [json.loads(line) for line in got.splitlines()]
    assert sorted(int(line["request_id"]) for line in told) == sorted([*range(60)] * 3)


async def test_who_holds_the_turn_for_ever_does_not_keep_the_others_from_ending(
    clock: DrivenClock, path: Path, tmp_path: Path
) -> None:
    turns = tmp_path / "turns"
    log = AccessLog(clock, path, turns=turns)
    with turns.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        log.write(Trace(request_id="last"))
        log.close(timeout=0.2)
    assert [line["request_id"] for line in lines(path)] == ["last"]
