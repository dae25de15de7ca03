"""``edgeproxy store``: on real LMDB files, beside a worker that serves from them, and damaged by hand."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

from edgeproxy.clock import Clock
from edgeproxy.cluster.epoch import PurgeTable
from edgeproxy.store.codec import VERSION, Marker, encode, encode_marker, record_key
from edgeproxy.store.lmdb_backend import LmdbCache
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.store.shared import Write, Wrote
from tests.store.make import make_entry
from tests.support.servers import memcached_server, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.store.entry import Entry
    from tests.cli.conftest import Done

    Run = Callable[..., Done]

SIZE = 8 * 1024 * 1024
TTL = 600.0
SECRET = "session=s3cr3t-value"


class Past(Clock):
    """A clock that is slow: what it writes has ended, and it does not sweep it."""

    def now(self) -> float:
        return super().now() - TTL - 60


class Filled:
    """A store's directory: entries in it, and the purge table beside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = Clock().now()
        table = PurgeTable.open(path / "purges")
        self.space = table.incarnation
        table.close()

    @property
    def url(self) -> str:
        return f"lmdb:{self.path}"

    def put(self, *entries: Entry, space: bytes | None = None, ended: bool = False) -> None:
        """``ended``: when nobody swept, and nobody has written since."""
        namespace = space or self.space
        batch = []
        for entry in entries:
            data = encode(entry, namespace)
            assert data is not None
            batch.append(Write(record_key(namespace, entry.primary, entry.variant), data, TTL))
        self.write(*batch, clock=Past() if ended else None)

    def write(self, *batch: Write, clock: Clock | None = None) -> None:
        async def written() -> None:
            cache = LmdbCache(self.path, clock or Clock(), max_bytes=SIZE)
            assert set(await cache.write(batch)) == {Wrote.STORED}
            await cache.close()

        asyncio.run(written())

    def entry(self, target: str = "/a", body: bytes = b"body-octets", **given: Any) -> Entry:
        return make_entry(target, body, received=self.now, **given)

    def purge(self, order: PurgeOrder) -> None:
        table = PurgeTable.open(self.path / "purges")
        table.apply(order, self.now)
        table.close()

    def name(self, entry: Entry) -> str:
        return record_key(self.space, entry.primary, entry.variant)

    def octets(self, entry: Entry, *, flip: int | None = None) -> bytes | None:
        """The record as it lies in the file, after inverting its octet ``flip``."""
        env = lmdb.open(str(self.path / "data.mdb"), subdir=False, max_dbs=2, map_size=SIZE)
        records = env.open_db(b"records")
        with env.begin(db=records, write=True) as txn:
            data = txn.get(self.name(entry).encode())
            if data is not None and flip is not None:
                changed = bytearray(data)
                changed[flip] ^= 0xFF
                data = bytes(changed)
                txn.put(self.name(entry).encode(), data)
        env.close()
        return data


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path / "store")


def told(done: Done) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(done.out)
    return result


def test_totals_tell_what_is_served_and_what_is_not(run: Run, filled: Filled) -> None:
    filled.put(filled.entry("/a", tags=("x",)), filled.entry("/b"), filled.entry("/c", host="other.example"))
    filled.put(filled.entry("/gone", tags=("old",)), filled.entry("/soft"))
    filled.put(filled.entry("/elsewhere"), space=b"another!")
    filled.put(filled.entry("/over"), ended=True)
    filled.purge(PurgeOrder(PurgeKind.TAG, "old"))
    filled.purge(PurgeOrder(PurgeKind.URL, "/soft", soft=True))
    before = (filled.path / "purges").read_bytes()
    done = run("store", "inspect", "--store", filled.url, "--format", "json")
    facts = told(done)
    assert (done.code, done.err) == (0, "")
    assert {name: facts[name] for name in ("entries", "purged", "soft_purged", "other_table", "expired")} == {
        "entries": 4, "purged": 1, "soft_purged": 1, "other_table": 1, "expired": 1,
    }  # fmt: skip
    assert facts["by_host"]["api.example"]["entries"] == 3
    assert facts["by_host"]["other.example"]["entries"] == 1
    assert facts["versions"] == {str(VERSION): 7}
    assert facts["file"]["map_octets"] == SIZE
    assert facts["purge_table"]["state"] == "ok"
    assert (filled.path / "purges").read_bytes() == before, "looking changes nothing"
    by_rule = told(run("store", "inspect", "--store", filled.url, "--by", "rule", "--format", "json"))
    assert list(by_rule["by_rule"]) == ["pitches"]
    text = run("store", "inspect", "--store", filled.url).out
    assert "4 entries to serve" in text
    assert "api.example: 3 entries" in text


def test_a_url_shows_its_variants_and_no_secret(run: Run, filled: Filled) -> None:
    filled.put(
        filled.entry("/v", vary=(("accept-language", "de"),), tags=("t:1",), stale=30.0),
        filled.entry("/v", vary=(("cookie", SECRET),), fields=(("Set-Cookie", SECRET), ("ETag", '"1"'))),
        filled.entry("/other"),
    )
    for words in (["http://api.example/v"], ["/v"], ["--key", "http://api.example/v"]):
        done = run("store", "inspect", *words, "--store", filled.url, "--format", "json")
        facts = told(done)
        assert facts["count"] == 2
        by_name = {"".join(entry["varies_on"]): entry for entry in facts["entries"]}
        german = by_name["accept-language"]
        assert (german["status"], german["purged"], german["tags"]) == (200, "no", ["t:1"])
        assert (german["stale_while_revalidate"], german["body_octets"]) == (30.0, len(b"body-octets"))
        assert 0 < german["fresh_for"] <= 60
        assert 0 <= german["age"] < 60
        assert by_name["cookie"]["varies_on"] == {"cookie": "(not shown)"}
        assert "s3cr3t" not in done.out
        assert "body-octets" not in done.out
    done = run("store", "inspect", "/v", "--store", filled.url)
    assert "s3cr3t" not in done.out
    assert "varies on accept-language: de" in done.out
    assert "2 found" in done.out
    assert (
        told(run("store", "inspect", "http://no.example/v", "--store", filled.url, "--format", "json"))[
            "entries"
        ]
        == []
    )
    some = told(
        run("store", "inspect", "--prefix", "/", "--limit", "1", "--store", filled.url, "--format", "json")
    )
    assert (some["count"], len(some["entries"])) == (3, 1)


def test_purged_is_what_the_table_says(run: Run, filled: Filled) -> None:
    filled.put(filled.entry("/hard"), filled.entry("/soft"))
    filled.purge(PurgeOrder(PurgeKind.PREFIX, "/ha"))
    filled.purge(PurgeOrder(PurgeKind.URL, "/soft", soft=True))
    for target, said in (("/hard", "hard"), ("/soft", "soft")):
        done = run("store", "inspect", target, "--store", filled.url, "--format", "json")
        (entry,) = told(done)["entries"]
        assert entry["purged"] == said
    assert entry["fresh_for"] <= 0, "purged softly: stale since then"
    (filled.path / "purges").unlink()
    done = run("store", "inspect", "/hard", "--store", filled.url)
    assert "purged: unknown" in done.out
    assert not (filled.path / "purges").exists()


@pytest.mark.parametrize("where", ["magic", "length", "meta", "body", "end"])
def test_verify_finds_flipped_octets_and_repair_deletes_them(run: Run, filled: Filled, where: str) -> None:
    bad, good = filled.entry("/bad", b"x" * 9000), filled.entry("/good")
    filled.put(bad, good)
    assert run("store", "verify", "--store", filled.url).code == 0
    at = {"end": 6, "magic": 8, "length": 8 + 24 + 1, "meta": 8 + 60 + 40, "body": -5}[where]
    damaged = filled.octets(bad, flip=at)
    done = run("store", "verify", "--store", filled.url, "--format", "json")
    facts = told(done)
    assert (done.code, facts["damaged"], facts["sound"], facts["deleted"]) == (1, 1, 1, 0)
    assert [f["record"] for f in facts["found"] if f["state"] == "damaged"] == [filled.name(bad)]
    assert filled.octets(bad) == damaged, "nothing is changed without --repair"
    done = run("store", "verify", "--repair", "--store", filled.url)
    assert done.code == 0
    assert f"damaged: {filled.name(bad)}" in done.out
    assert filled.octets(bad) is None
    assert filled.octets(good) is not None
    facts = told(run("store", "verify", "--store", filled.url, "--format", "json"))
    assert (facts["records"], facts["damaged"], facts["dangling"]) == (1, 0, 0)


def test_verify_tells_each_state_apart(run: Run, filled: Filled) -> None:
    sound = filled.entry("/v", vary=(("accept", "a"),))
    marker = Marker(sound.primary, (("accept",),), (sound.variant,), filled.now + 500)
    lonely = Marker("http://api.example/none", (("accept",),), ("gone",), filled.now + 500)
    filled.put(sound, filled.entry("/orphan", vary=(("accept", "b"),)))
    for each in (marker, lonely):
        data = encode_marker(each, filled.space)
        assert data is not None
        filled.write(Write(record_key(filled.space, each.primary), data, 600.0))
    filled.put(filled.entry("/elsewhere"), space=b"another!")
    filled.put(filled.entry("/gone", tags=("x",)), filled.entry("/later"))
    filled.purge(PurgeOrder(PurgeKind.TAG, "x"))
    filled.octets(filled.entry("/later"), flip=8 + 4)  # the version
    copied = encode(filled.entry("/copied"), filled.space)
    filled.write(Write(record_key(filled.space, "http://api.example/under"), copied, 600.0))
    filled.put(filled.entry("/over"), ended=True)
    done = run("store", "verify", "--store", filled.url, "--format", "json")
    facts = told(done)
    states = ("sound", "dangling", "expired", "other_purge_table", "purged", "other_version", "damaged")
    assert [facts[state] for state in states] == [2, 2, 1, 1, 1, 1, 1]
    assert done.code == 1
    assert {f["why"] for f in facts["found"]} == {
        "under another's key", "none of its variants is there", "no marker leads to this variant",
    }  # fmt: skip
    assert told(run("store", "verify", "--repair", "--store", filled.url, "--format", "json"))["deleted"] == 3
    after = told(run("store", "verify", "--store", filled.url, "--format", "json"))
    assert (after["records"], after["dangling"], after["damaged"]) == (6, 0, 0)


def test_a_store_of_many_slices_is_walked_once_each(run: Run, filled: Filled) -> None:
    filled.put(*(filled.entry(f"/{n}") for n in range(1500)))
    facts = told(run("store", "verify", "--store", filled.url, "--format", "json"))
    assert (facts["records"], facts["sound"], facts["dangling"]) == (1500, 1500, 0)
    facts = told(run("store", "inspect", "--store", filled.url, "--format", "json"))
    assert facts["entries"] == 1500


def test_compact_leaves_out_what_is_over_and_keeps_the_rest(run: Run, filled: Filled) -> None:
    kept = [filled.entry(f"/keep/{n}", b"k" * 5000) for n in range(20)]
    filled.put(*kept)
    filled.put(*(filled.entry(f"/drop/{n}", b"d" * 20_000) for n in range(60)))
    filled.put(filled.entry("/elsewhere"), space=b"another!")
    filled.put(filled.entry("/over"), ended=True)
    filled.purge(PurgeOrder(PurgeKind.PREFIX, "/drop/"))
    before = {filled.name(entry): filled.octets(entry) for entry in kept}
    size = (filled.path / "data.mdb").stat().st_size
    (filled.path / "compact.mdb").write_bytes(b"left by one that was killed")
    facts = told(run("store", "compact", "--store", filled.url, "--format", "json"))
    assert (facts["kept"], facts["left_out"]) == (20, 62)
    assert facts["after"] == (filled.path / "data.mdb").stat().st_size < size / 4
    assert facts["won"] == facts["before"] - facts["after"] > 0
    assert {filled.name(entry): filled.octets(entry) for entry in kept} == before
    assert not (filled.path / "compact.mdb").exists()
    assert (filled.path / "data.mdb").stat().st_mode & 0o077 == 0
    assert told(run("store", "verify", "--store", filled.url, "--format", "json"))["sound"] == 20
    filled.put(filled.entry("/keep/0", started=9), filled.entry("/new"))  # and it can be written to
    facts = told(run("store", "verify", "--store", filled.url, "--format", "json"))
    assert (facts["sound"], facts["dangling"]) == (21, 0)


async def test_beside_a_process_that_serves_all_but_compact_work(filled: Filled) -> None:
    # The store is open in this process; the command runs in one of its own.
    cache = LmdbCache(filled.path, Clock(), max_bytes=SIZE)

    async def write(entry: Entry) -> None:
        data = encode(entry, filled.space)
        assert await cache.write([Write(filled.name(entry), data, 600.0)]) == [Wrote.STORED]

    async def command(*words: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeproxy", "store", *words, "--store", filled.url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, (out or err).decode()

    await write(filled.entry("/a"))
    inode = (filled.path / "data.mdb").stat().st_ino
    code, said = await command("inspect")
    assert (code, "1 entries to serve" in said) == (0, True), said
    code, said = await command("verify", "--repair")
    assert (code, "1 sound" in said) == (0, True), said
    code, said = await command("compact")
    assert (code, said.count("\n")) == (1, 1)
    assert "another process has the store open" in said
    assert (filled.path / "data.mdb").stat().st_ino == inode
    await write(filled.entry("/b"))
    assert cache.read_now(filled.name(filled.entry("/a"))) is not None
    await cache.close()
    code, said = await command("compact")
    assert (code, "2 kept" in said) == (0, True), said


@pytest.mark.parametrize("action", ["inspect", "verify", "compact"])
def test_what_is_no_store_is_one_line(run: Run, tmp_path: Path, action: str) -> None:
    for name, content in (("garbage", b"garbage" * 3000), ("empty", b""), ("zero", b"\0" * 8192)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(content)
        done = run("store", action, "--store", f"lmdb:{tmp_path / name}")
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        assert (tmp_path / name / "data.mdb").read_bytes() == content
    done = run("store", action, "--store", f"lmdb:{tmp_path}/absent")
    assert (done.code, done.out) == (2, "")
    assert "no store is there" in done.err
    assert not (tmp_path / "absent").exists()


def test_a_file_cut_short_is_refused(run: Run, filled: Filled) -> None:
    filled.put(*(filled.entry(f"/{n}", b"x" * 5000) for n in range(50)))
    data = filled.path / "data.mdb"
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size // 2)
    done = run("store", "verify", "--store", filled.url)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "octets are missing" in done.err


def test_other_stores_are_told_so(run: Run) -> None:
    for url in ("redis://127.0.0.1:1/0", "memcached://127.0.0.1:1", "memory:"):
        for action in ("verify", "compact"):
            done = run("store", action, "--store", url)
            assert (done.code, done.err.count("\n")) == (2, 1)
            assert "is for LMDB" in done.err
    done = run("store", "inspect", "--store", "redis://user:pa55@127.0.0.1:1/0")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "pa55" not in done.err


def test_redis_tells_its_numbers(run: Run) -> None:
    with redis_server() as server:
        if server is None:
            pytest.skip("there is no redis-server, neither on the PATH nor in a wheel")
        done = run("store", "inspect", "--store", server.url, "--format", "json")
        facts = told(done)
        assert (done.code, facts["keys"]) == (0, 0)
        assert facts["used_memory"] > 0
        done = run("store", "inspect", "/a", "--store", server.url)
        assert (done.code, "in LMDB only" in done.err) == (2, True)


def test_memcached_tells_its_numbers(run: Run) -> None:
    with memcached_server() as server:
        if server is None:
            pytest.skip("there is no memcached on the PATH")
        facts = told(run("store", "inspect", "--store", server.url, "--format", "json"))
        assert facts["curr_items"] == 0


def test_the_default_store_is_that_of_serve(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEPROXY_STORE", raising=False)
    done = run("store", "inspect")
    assert (done.code, "--store: missing" in done.err) == (2, True)
    from edgeproxy import settings

    flags = {"origin": "http://127.0.0.1:9000", "cache_dir": str(tmp_path), "rules": "none"}
    served = settings.load(flags, {}).store
    assert settings.load_store(flags, {}) == served
    done = run("store", "inspect", "--origin", flags["origin"], "--cache-dir", str(tmp_path))
    assert served.removeprefix("lmdb:") in done.err
