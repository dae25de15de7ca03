"""The short way: the answers of the ordinary way, in order, and nothing lost where it ends in the middle."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from edgeproxy.front import plans as plans_file
from edgeproxy.front.at_once import AtOnce
from edgeproxy.front.pending import PendingWriter
from edgeproxy.front.server import EdgeProtocol
from edgeproxy.front.short import ShortWay
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import FIN, RST, Gate, LedgerOrigin, chunk, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from edgeproxy.front.pending import Pending
    from tests.support.ledger import Script

FRESH = ("Cache-Control", "max-age=60")
NO_STORE = ("Cache-Control", "no-store")
JSON = ("Content-Type", "application/json")
BODY = b'{"title": "a quiet city"}' * 100


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as ledger:
        yield ledger


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that went the short way, hits and misses."""
    targets: list[str] = []
    take = ShortWay._take

    def noting(
        self: ShortWay, protocol: EdgeProtocol, block: plans_file.Block, target: str, data: bytes
    ) -> bool:
        took = take(self, protocol, block, target, data)
        if took:
            targets.append(target)
        return took

    monkeypatch.setattr(ShortWay, "_take", noting)
    return targets


def request(target: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: e.test", *fields, "", ""]).encode()


def comparable(raw: bytes) -> bytes:
    raw = re.sub(rb"X-(Request-ID|Serial): [^\r]*\r\n", b"", raw)
    raw = re.sub(rb'"request_id":"[^"]*"', b"", raw)
    return re.sub(rb"dur=[0-9.]+", b"dur=", raw)


async def idle_connection(edge: Edge, origin: LedgerOrigin) -> None:
    """See to it that a connection to the origin waits for use."""
    origin.reply("/first", headers=[NO_STORE])
    await edge.get("/first")


SCRIPTS: dict[str, Script] = {
    "stored": [head(200, [FRESH, JSON, ("Content-Length", "5")]) + b"first"],
    "coded": [head(200, [FRESH, JSON, ("Content-Length", str(len(BODY)))]) + BODY],
    "chunked": [head(200, [FRESH, ("Transfer-Encoding", "chunked")]) + chunk(b"one") + b"0\r\n\r\n"],
    "to the end": [head(200, [FRESH]) + b"to the end", FIN],
    "not stored": [head(200, [NO_STORE, JSON, ("Content-Length", "5")]) + b"first"],
    "coded, not stored": [head(200, [NO_STORE, JSON, ("Content-Length", str(len(BODY)))]) + BODY],
    "set-cookie": [head(200, [FRESH, ("Set-Cookie", "a=b"), ("Content-Length", "2")]) + b"me"],
    "not found": [head(404, [FRESH, ("Content-Length", "2")]) + b"no"],
    "error": [head(503, [("Content-Length", "2")]) + b"no"],
    "no content": [head(204, [FRESH])],
    "moved": [head(301, [("Location", "/b"), ("Content-Length", "0")])],
    "unasked 304": [head(304, [("ETag", '"x"')])],
    "hints first": [head(103, [("Link", "</x>")]) + head(200, [FRESH, ("Content-Length", "2")]) + b"ok"],
    "broken off": [head(200, [FRESH, ("Content-Length", "9")]) + b"half", FIN],
    "nothing": [RST],
    "no answer": [b"what?\r\n\r\n", FIN],
    "varying": [head(200, [FRESH, ("Vary", "X-Lang"), ("Content-Length", "2")]) + b"de"],
    "withheld": [
        head(200, [("Cache-Control", 'max-age=60, private="x-me"'), ("X-Me", "1"), ("Content-Length", "2")])
        + b"ok"
    ],
    "large": [head(200, [FRESH, ("Content-Length", str(300_000))]), b"x" * 300_000],
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("fields", [(), ("Accept-Encoding: br", "X-Lang: de")], ids=["plain", "coded"])
async def test_both_ways_give_the_same(
    origin: LedgerOrigin, taken: list[str], name: str, fields: tuple[str, ...]
) -> None:
    """A miss, what comes after it on the connection, and on another one."""
    origin.script("/a", SCRIPTS[name])
    got, seen = [], []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), lane=lane) as edge:
            await idle_connection(edge, origin)
            before = origin.count("/a")
            answers = []
            for _ in range(2):
                async with edge.client() as client:
                    for _ in range(3):
                        await client.send(request("/a", *fields))
                        answer = await client.read_answer()
                        raw = answer.raw
                        if not answer.complete:  # how much came before the end is a matter of the moment
                            raw = raw.partition(b"\r\n\r\n")[0]
                        answers.append((comparable(raw), answer.complete))
                        if not answer.complete or not answer.keep_alive:
                            break
            await edge.settle()
            got.append(answers)
            seen.append(origin.count("/a") - before)
            notes = [
                (t.word, t.status, t.stored, t.not_stored, t.failure, t.aborted, t.forwarded)
                for t in edge.traces
                if not t.hit  # the lane shows none of its own
            ]
            got[-1].append((repr(notes).encode(), True))
    assert got[0] == got[1]
    assert seen[0] == seen[1]
    assert "/a" in taken


STALE = {
    "refreshed behind": "max-age=10, stale-while-revalidate=60",
    "on error": "max-age=10, stale-if-error=60",
    "never": "max-age=10, must-revalidate",
    "validated": "no-cache, stale-if-error=60",
}


@pytest.mark.parametrize("says", STALE.values(), ids=STALE)
@pytest.mark.parametrize("store", ["memory:", "lmdb:"])
async def test_both_ways_give_the_same_when_it_is_stale(
    origin: LedgerOrigin, taken: list[str], tmp_path: Path, says: str, store: str
) -> None:
    """While the origin fails, and when it is back."""
    good = [head(200, [("Cache-Control", says), JSON, ("Content-Length", "5")]) + b"first"]
    got = []
    for lane in ("on", "off"):
        clock = DrivenClock()
        place = store if store == "memory:" else f"lmdb:{tmp_path / lane}"
        async with running_edge(origin.url, clock=clock, lane=lane, store=place) as edge:
            origin.script("/a", good)
            answers = []
            async with edge.client() as client:
                for seconds, script in (
                    (0, good),
                    (15, [RST]),
                    (1, [RST]),
                    (1, [RST]),
                    (600, good),
                    (1, good),
                ):
                    clock.jump(seconds)
                    origin.script("/a", script)
                    for _ in range(2):
                        await client.send(request("/a"))
                        answer = await client.read_answer()
                        answers.append(comparable(answer.raw))
                        await edge.settle()
            notes = [
                (t.word, t.tier, t.status, t.stale_reason, t.failure, t.forwarded, t.lookup_miss)
                for t in edge.traces
                if t.word != "HIT"
            ]
            got.append((answers, notes))
    assert got[0] == got[1]


async def test_what_is_stale_costs_no_task(origin: LedgerOrigin, taken: list[str]) -> None:
    clock = DrivenClock()
    answer = [
        head(200, [("Cache-Control", "max-age=10, stale-if-error=600"), ("Content-Length", "2")]) + b"ok"
    ]
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        origin.script("/a", answer)
        await client.send(request("/a"))
        await client.read_answer()
        clock.jump(20)
        origin.script("/a", [RST])
        for _ in range(3):
            await client.send(request("/a"))
            stale = await client.read_answer()
            assert stale.get("x-cache-status") == "STALE"
            await edge.settle()
    # The first one asks the origin; until it is to be asked again the others are answered at once.
    assert taken == ["/a", "/a", "/a"]


async def test_a_rule_that_passes(origin: LedgerOrigin, taken: list[str], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text('rules: [{name: live, match: {path: "/live/**"}, pass: true}]')
    origin.reply("/live/1", headers=[FRESH], body=b"now")
    async with running_edge(origin.url, rules=tmp_path) as edge:
        await idle_connection(edge, origin)
        for _ in range(3):
            answer = await edge.get("/live/1")
            assert (answer.body, answer["X-Cache-Status"]) == (b"now", "BYPASS")
        assert origin.count("/live/1") == 3
    assert taken.count("/live/1") == 3


async def test_what_comes_behind_waits_its_turn(origin: LedgerOrigin, taken: list[str]) -> None:
    """Requests sent while an answer is awaited are answered after it, whatever they are."""
    origin.reply("/hot", headers=[FRESH], body=b"hot")
    origin.script("/slow", [Gate("g"), head(200, [FRESH, ("Content-Length", "4")]) + b"slow"])
    async with running_edge(origin.url) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        assert (await edge.get("/hot")).body == b"hot"
        await client.send(request("/slow"))
        await origin.arrived("/slow")
        await client.send(request("/hot") + request("/hot", "X-Other: 1") + b"GET /ho")
        await client.send(b"t HTTP/1.1\r\nHost: e.test\r\n\r\n")
        origin.gate("g").open()
        assert [(await client.read_answer()).body for _ in range(4)] == [b"slow", b"hot", b"hot", b"hot"]
        assert "/slow" in taken


async def test_much_behind_is_left_to_the_socket(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.script("/slow", [Gate("g"), head(200, [NO_STORE, ("Content-Length", "4")]) + b"slow"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        await client.send(request("/slow"))
        await origin.arrived("/slow")
        origin.reply("/hot", headers=[FRESH], body=b"hot")
        await client.send(request("/hot", "X-Filler: " + "x" * 7000) * 12)
        (connection,) = edge.worker.server.connections
        assert isinstance(connection, EdgeProtocol)
        await edge.until(lambda: connection._held_paused)
        origin.gate("g").open()
        assert [(await client.read_answer()).body for _ in range(13)] == [b"slow", *[b"hot"] * 12]


async def test_a_client_that_leaves(origin: LedgerOrigin, taken: list[str]) -> None:
    """What others may use is fetched to its end and stored; what is for this client alone is not."""
    origin.script("/shared", [Gate("s"), head(200, [FRESH, ("Content-Length", "2")]) + b"ok"])
    origin.script("/alone", [head(200, [NO_STORE, ("Content-Length", "2")]) + b"me"], times=1)
    origin.script("/alone", [Gate("a"), head(200, [NO_STORE, ("Content-Length", "2")]) + b"me"])
    async with running_edge(origin.url) as edge:
        await idle_connection(edge, origin)
        async with edge.client() as client:
            await client.send(request("/shared"))
            await origin.arrived("/shared")
        origin.gate("s").open()
        await edge.until(lambda: any(trace.target == "/shared" for trace in edge.traces))
        async with edge.client() as client:
            await client.send(request("/shared"))
            assert (await client.read_answer())["X-Cache-Status"] == "HIT"
        async with edge.client() as client:
            await client.send(request("/alone"))
            assert (await client.read_answer()).body == b"me"
            await client.send(request("/alone"))
            await origin.arrived("/alone", 2)
        await edge.until(lambda: edge.traces[-1].aborted)
        assert edge.worker.handler.in_flight == 0
        await origin.connections_are(0)
    assert taken.count("/shared") == 2
    assert taken.count("/alone") == 2


async def test_a_connection_that_has_died_is_replaced_once(origin: LedgerOrigin, taken: list[str]) -> None:
    """The idle connection ends just as the request goes out: it is sent once more, on a fresh one."""
    origin.script("/a", [FIN], times=1)
    origin.script("/a", [head(200, [FRESH, ("Content-Length", "2")]) + b"ok"])
    async with running_edge(origin.url) as edge:
        await idle_connection(edge, origin)
        assert (await edge.get("/a")).body == b"ok"
        assert origin.count("/a") == 2
        origin.script("/b", [FIN])
        assert (await edge.get("/b")).status == 502
        assert origin.count("/b") == 2
    assert {"/a", "/b"} <= set(taken)


async def test_a_body_in_pieces_goes_on_the_ordinary_way(origin: LedgerOrigin, taken: list[str]) -> None:
    origin.script("/a", [head(200, [FRESH, ("Content-Length", "6")]), Gate("1"), b"one", Gate("2"), b"two"])
    async with running_edge(origin.url) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        await client.send(request("/a"))
        answer = await client.read_head()  # at once, with nothing of the body there
        assert answer.status == 200
        origin.gate("1").open()
        origin.gate("2").open()
        assert (await client.read_body(answer)).body == b"onetwo"
        await client.send(request("/a"))
        assert (await client.read_answer())["X-Cache-Status"] == "HIT"
    assert "/a" in taken


async def test_one_fetch_for_all_who_come(origin: LedgerOrigin, taken: list[str]) -> None:
    origin.script("/a", [Gate("g"), head(200, [FRESH, ("Content-Length", "2")]) + b"ok"])
    async with running_edge(origin.url) as edge, edge.client() as one, edge.client() as other:
        await idle_connection(edge, origin)
        await one.send(request("/a"))
        await origin.arrived("/a")
        await other.send(request("/a"))
        await edge.waiting(1)
        origin.gate("g").open()
        assert [(await client.read_answer()).body for client in (one, other)] == [b"ok", b"ok"]
        assert origin.count("/a") == 1
    assert taken[-1] == "/a"


async def test_a_drain_waits_for_what_is_under_way(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.script("/a", [Gate("g"), head(200, [NO_STORE, ("Content-Length", "2")]) + b"ok"])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        await client.send(request("/a"))
        await origin.arrived("/a")
        draining = edge.worker.background.spawn(edge.worker.drain(), "drain")
        await edge.until(lambda: edge.worker.handler.draining)
        assert edge.worker.handler.in_flight == 1
        origin.gate("g").open()
        answer = await client.read_answer()
        assert (answer.body, answer["Connection"]) == (b"ok", "close")
        assert await client.at_end()
        await clock.advance(0.1)
        await draining


async def test_an_answer_under_way_during_a_reload_is_not_learned(
    origin: LedgerOrigin, tmp_path: Path
) -> None:
    text = """rules: [{name: all, match: {path: "/**"}, ttl: 1m, cache_control: "max-age=%d"}]"""
    (tmp_path / "rules.yaml").write_text(text % 1)
    origin.script("/a", [Gate("g"), head(200, [("Content-Length", "2")]) + b"ok"])
    async with running_edge(origin.url, rules=tmp_path) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        await client.send(request("/a"))
        await origin.arrived("/a")
        (tmp_path / "rules.yaml").write_text(text % 2)
        assert not (await edge.worker.operator.reload_rules()).errors
        origin.gate("g").open()
        assert (await client.read_answer())["Cache-Control"] == "max-age=1"
        for _ in range(4):
            await client.send(request("/a"))
            assert (await client.read_answer())["Cache-Control"] == "max-age=2"


async def test_an_idle_connection_ends_after_its_time(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Also one that only ever went the short way, on which aiohttp has never set its timer."""
    origin.reply("/a", headers=[FRESH], body=b"ok")
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            await client.send(request("/a"))
            await client.read_answer()
        async with edge.client() as client:
            await client.send(request("/a"))
            assert (await client.read_answer())["X-Cache-Status"] == "HIT"
            (connection,) = edge.worker.server.connections
            assert isinstance(connection, EdgeProtocol)
            assert connection._keepalive_handle is not None
            assert connection._next_keepalive_close_time <= connection._loop.time() + 75


async def test_what_fails_in_it_is_seen(
    origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours is a 500 and a line in the log, and the followers are told."""
    origin.reply("/a", headers=[FRESH], body=b"ok")

    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    async with running_edge(origin.url) as edge:
        await idle_connection(edge, origin)
        with monkeypatch.context() as patched:
            patched.setattr(edge.worker.engine.prompt.settler, "settle", broken)
            assert (await edge.get("/a")).status == 500
        with monkeypatch.context() as patched:
            patched.setattr(AtOnce, "stored", broken)
            assert (await edge.get("/a")).status == 500
        with monkeypatch.context() as patched:
            patched.setattr(ShortWay, "_take", broken)
            assert (await edge.get("/a")).body == b"ok"
        assert edge.worker.handler.in_flight == 0
        assert not edge.worker.engine.flights.all()
    assert "ZeroDivisionError" in caplog.text


UNUSUAL_TARGETS: dict[str, Callable[[], bytes]] = {
    "fragment": lambda: request("/a#b"),
    "high octets": lambda: b"GET /\xc3\xa4 HTTP/1.1\r\nHost: e.test\r\n\r\n",
    "absolute": lambda: request("http://e.test/a"),
    "two spaces": lambda: b"GET  /a HTTP/1.1\r\nHost: e.test\r\n\r\n",
    "a tab": lambda: b"GET /a\tb HTTP/1.1\r\nHost: e.test\r\n\r\n",
    "none": lambda: b"GET  HTTP/1.1\r\nHost: e.test\r\n\r\n",
    "another version inside": lambda: b"GET /a HTTP/1.1\r\n HTTP/1.1\r\nHost: e.test\r\n\r\n",
}


@pytest.mark.parametrize("name", UNUSUAL_TARGETS)
async def test_targets_behind_a_known_block(origin: LedgerOrigin, name: str) -> None:
    """A block that is known does not vouch for the request line before it."""
    origin.reply("/a", headers=[FRESH], body=b"ok")
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), lane=lane) as edge:
            for _ in range(3):
                await edge.get("/a")
            async with edge.client() as client:
                for _ in range(3):
                    await client.send(request("/a"))
                    await client.read_answer()
                await client.send(UNUSUAL_TARGETS[name]())
                got.append(comparable((await client.read_answer()).raw))
    assert got[0] == got[1]


async def test_memory_is_bounded(origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_file, "MOST_BLOCKS", 8)
    monkeypatch.setattr(plans_file, "MOST_SEEN", 16)
    origin.reply("/a", headers=[FRESH], body=b"ok")
    async with running_edge(origin.url) as edge, edge.client() as client:
        for number in range(50):
            for _ in range(3):
                await client.send(request("/a", f"X-Number: {number}"))
                await client.read_answer()
        short = edge.worker.handler.short
        assert short is not None
        assert len(short._plans._blocks) <= 8
        assert len(short._plans._seen) <= 16


async def test_who_leaves_before_the_task_that_goes_on_has_begun_is_over_once(
    origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The connection's end and a 1xx of the origin's in one turn of the loop."""
    origin.script(
        "/a", [head(103, [("Link", "</x>")]), head(200, [NO_STORE, ("Content-Length", "2")]), b"ok"]
    )
    (tmp_path / "rules.yaml").write_text("rules: [{name: mine, match: {path: /**}, pass: true}]")
    async with running_edge(origin.url, rules=tmp_path) as edge:
        handler = edge.worker.handler
        await edge.get("/known")
        wait = PendingWriter.wait

        def leaving(self: PendingWriter, pending: Pending, answer: object) -> None:
            wait(self, pending, answer)  # type: ignore[arg-type]
            pending.protocol.connection_lost(None)

        monkeypatch.setattr(PendingWriter, "wait", leaving)
        before = len(edge.traces)
        async with edge.client() as client:
            await client.send(request("/a"))
            await edge.until(lambda: len(edge.traces) > before)
            await edge.until(lambda: not handler.in_flight)
        await edge.settle()
        assert (len(edge.traces) - before, handler.in_flight) == (1, 0)


async def test_memory_is_bounded_in_octets_too(origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long blocks are not remembered, and many that are not so long push one another out."""
    monkeypatch.setattr(plans_file, "MOST_OCTETS", 40_000)
    origin.reply("/a", headers=[NO_STORE], body=b"ok")
    async with running_edge(origin.url) as edge, edge.client() as client:
        short = edge.worker.handler.short
        assert short is not None
        for length in (plans_file.LONGEST, 5_000):
            for number in range(20):
                for _ in range(3):
                    await client.send(request("/a", f"X-Number: {number:0{length}}"))
                    assert (await client.read_answer()).status == 200
            blocks = short._plans._blocks
            held = sum(map(len, blocks))
            held += sum(plan.octets for block in blocks.values() for plan in block.plans.values())
            assert held <= (40_000 if length == 5_000 else 0)
        assert blocks


async def test_what_is_remembered_does_not_grow_with_paths(origin: LedgerOrigin) -> None:
    """Paths with a dot segment are passed under a rule of their own: one, not one each."""
    async with running_edge(origin.url) as edge, edge.client() as client:
        for number in range(8):
            await client.send(request(f"/{number}/../a"))
            assert (await client.read_answer()).status == 200
        short = edge.worker.handler.short
        assert short is not None
        (block,) = short._plans._blocks.values()
        assert len(block.plans) == 1
