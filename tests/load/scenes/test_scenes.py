"""The scenes' parts: the table, the crowd against servers that misbehave, figures, verdicts, pictures."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from xml.etree.ElementTree import fromstring

import msgspec
import pytest

from tests.load.__main__ import main, paths_of
from tests.load.scenes import plan, plots
from tests.load.scenes.body import body_of, etag_of
from tests.load.scenes.crowd import Asked, Crowd, word_of
from tests.load.scenes.figures import FEWEST_SAMPLES, Played
from tests.load.scenes.origin import answer
from tests.load.scenes.plan import Phase, Scene, Wrong
from tests.load.scenes.record import DEADLINE, PATIENCE, Job, Outcome, Second
from tests.load.scenes.sender import Urls
from tests.load.scenes.stage import NUMBERS, Edge, Sample
from tests.load.scenes.verdict import KINDS, SHORT, Targets
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin
from tests.support.origins import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PHASE = Phase(name="only", seconds=2, rate=10, connections=1, urls=10, zipf=1, new=0)
SCENE = Scene(name="plain", idea="", phases=[PHASE], rule={})

# -- the table --------------------------------------------------------------------------------------------


def test_the_scenes_and_targets_that_come_with_it() -> None:
    scenes = plan.read()
    assert {"steady", "ramp", "spike", "soak", "cold", "outage", "connections"} <= set(scenes)
    assert scenes["connections"].phases[-1].connections == 10_000
    assert scenes["connections"].edge == [*scenes["steady"].edge, "--max-connections", "12000"]
    assert [phase.origin for phase in scenes["outage"].phases] == [None, "killed", "back"]
    assert not scenes["cold"].filled
    assert scenes["soak"].lasting(90).phases[-1].seconds == 90
    assert scenes["outage"].ours
    assert not scenes["steady"].ours
    Targets.default(scenes)
    everywhere = plan.document(plan.TARGETS)["all"]
    assert everywhere == {
        "p50_ms": 50, "p95_ms": 100, "p99_ms": 200,
        "hits_percent": 80, "success_percent": 99.9, "requests_per_second": 1000,
    }  # fmt: skip


def test_what_is_not_installed_is_told_with_what_installs_it() -> None:
    program = (
        "import runpy, sys\nsys.modules['hdrh'] = None\nsys.argv[1:] = ['--help']\n"
        "runpy.run_module('tests.load', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("python -m tests.load: hdrh")
    assert done.stderr.endswith(" is not installed; what tests need comes with: pip install -e '.[test]'\n")
    assert done.stderr.count("\n") == 1


def test_the_short_form_keeps_what_happens() -> None:
    for scene in plan.read().values():
        short = scene.short(0.5)
        kept = [(p.name, p.origin, p.purge, p.judged) for p in scene.phases]
        assert [(p.name, p.origin, p.purge, p.judged) for p in short.phases] == kept
        assert short.seconds == 0.5 * len(kept)


def test_a_rate_goes_evenly_from_one_to_the_other() -> None:
    ramp = msgspec.structs.replace(PHASE, rate=[100.0, 300.0])
    assert [ramp.rate_at(second) for second in (0, 1, 2, 9)] == [100, 200, 300, 300]
    assert ramp.times(2).rate == [200, 600]
    assert PHASE.rate_at(1) == 10


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scenes: {a: {idea: x, phases: [{name: b, seconds: 1, urls: 0}]}}", "urls"),
        ("scenes: {a: {idea: x, phases: [{name: b, seconds: 1, uhrls: 1}]}}", "uhrls"),
        ("scenes: {a: {idea: x, phases: []}}", "phases"),
        ("scenes: {a: {idea: x, phases: [{name: b, seconds: 1, origin: sick}]}}", "sick"),
        ("scenes: {a: {idea: x, phases: [{name: b, seconds: 1, rate: [1]}]}}", "rate"),
        ("scenes: {a: 1}", "scenes.yaml"),
        ("scene: {}", "scenes"),
        ("scenes: {}\nmore: 1", "more"),
        ("[", "scenes.yaml"),
        ("1", "mapping"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, text: str, told: str) -> None:
    usual = "defaults: {every: {rate: 1, connections: 1, urls: 1, zipf: 1, new: 0}}\n"
    path = tmp_path / "scenes.yaml"
    path.write_text(text if text in ("[", "1") else usual + text)
    with pytest.raises(Wrong, match=told) as refused:
        plan.read(path)
    assert str(path) in str(refused.value)


def test_urls_by_zipf_with_a_share_of_new_ones() -> None:
    phase = msgspec.structs.replace(PHASE, new=0.25, zipf=1.0)
    job = Job(SCENE, "127.0.0.1", 1, "load.test", "r")
    drawn = Urls(job).of(phase)
    paths = [next(drawn) for _ in range(4000)]
    new = [path for path in paths if "new" in path]
    assert len(set(new)) == len(new)
    assert 800 < len(new) < 1200
    first, second = paths.count("/plain/r/0"), paths.count("/plain/r/1")
    assert 1.5 < first / second < 2.7
    listed = msgspec.structs.replace(job, paths=["/a?b", "/c"])
    assert {path.partition("&")[0] for path, _ in zip(Urls(listed).of(phase), range(99), strict=False)} == {
        "/a?b",
        "/c",
    }


def test_a_file_of_urls(tmp_path: Path) -> None:
    path = tmp_path / "urls"
    path.write_text("/a?b=c\n\nhttp://api.example/d\nhttp://api.example\n")
    assert paths_of(path) == ["/a?b=c", "/d", "/"]
    path.write_text("a b\n")
    with pytest.raises(Wrong, match="a b"):
        paths_of(path)


# -- the origin -------------------------------------------------------------------------------------------


def test_the_origin_says_what_the_url_says() -> None:
    head, _, body = answer("GET /a HTTP/1.1\r\nHost: x").partition(b"\r\n\r\n")
    assert body == body_of("/a") != body_of("/b")
    assert f"Content-Length: {len(body)}".encode() in head
    assert answer(f"GET /a HTTP/1.1\r\nIf-None-Match: {etag_of('/a')}").startswith(b"HTTP/1.1 304 ")


# -- the crowd --------------------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The next that is no greeting. Raises EOFError."""
    while (read := await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /hello "):
        writer.write(ok("/hello"))
    return read


@contextlib.asynccontextmanager
async def crowd_of(serve: Serve, connections: int = 1, addresses: int = 1) -> AsyncIterator[Crowd]:
    """A crowd before a server that treats each connection as ``serve`` does."""
    served: set[asyncio.Task[None] | None] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with contextlib.suppress(EOFError, ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    crowd = Crowd(Job(SCENE, "127.0.0.1", port, "load.test", "r", addresses=addresses), "/hello")
    crowd.want(connections, 0)
    beside = [asyncio.ensure_future(each) for each in (crowd.stay_open(), crowd.keep_deadlines())]  # noqa: TID251
    try:
        yield crowd
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        crowd.close()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*(task for task in served if task is not None))


def ok(path: str, *fields: str) -> bytes:
    body = body_of(path)
    head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields])
    return f"{head}\r\n\r\n".encode() + body


async def ask(crowd: Crowd, path: str, second: Second, ago: float = 0.0) -> None:
    """Until it has its outcome."""
    loop = asyncio.get_running_loop()
    asked = Asked(path, loop.time() - ago, second, loop.create_future())
    second.asked += 1
    crowd.ask(asked)
    assert asked.answer is not None
    async with asyncio.timeout(20):
        await asked.answer


def answering(*answers: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for octets in answers:
            await head(reader, writer)
            writer.write(octets)

    return serve


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("octets", "outcome"),
    [
        (ok("/a"), Outcome.RIGHT),
        (CHUNKED % (len(body_of("/a")), body_of("/a")), Outcome.RIGHT),
        (ok("/b"), Outcome.WRONG),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Outcome.WRONG),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nProxy-Status: edgeproxy\r\n\r\n", Outcome.EDGE),
        (
            b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nCache-Status: e; fwd=uri-miss; fwd-status=500\r\n\r\n",
            Outcome.ORIGIN,
        ),
        (ok("/a")[:-1], Outcome.BROKEN),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Outcome.BROKEN),
        (b"", Outcome.BROKEN),
        (b"GET / HTTP/1.1\r\n\r\n", Outcome.BROKEN),
    ],
)
async def test_every_answer_is_judged(octets: bytes, outcome: Outcome) -> None:
    second = Second(0, 0)
    async with crowd_of(answering(octets)) as crowd:
        await ask(crowd, "/a", second)
    assert second.outcomes == {outcome: 1}
    assert second.complete


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    second = Second(0, 0)
    async with crowd_of(answering(ok("/a") + ok("/b"), ok("/c"))) as crowd:
        await ask(crowd, "/a", second)
        await ask(crowd, "/a", second)  # on a new one, or the old one would say /b or /c
    assert second.outcomes == {Outcome.RIGHT: 2}


async def test_the_time_runs_from_when_a_request_was_due() -> None:
    """Not from when it was sent: while one waits for the other, both wait."""
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for path in ("/a", "/b"):
            await head(reader, writer)
            await release.wait()
            writer.write(ok(path))

    second = Second(0, 0)
    async with crowd_of(serve) as crowd:
        both = asyncio.gather(ask(crowd, "/a", second), ask(crowd, "/b", second, ago=1.5))
        while len(crowd._waiting) != 1 or not crowd._under_way:  # noqa: ASYNC110 - a server is between
            await asyncio.sleep(0)
        release.set()
        await both
    assert second.outcomes == {Outcome.RIGHT: 2}
    assert max(second.times) > 1_500_000


async def test_what_waits_too_long_is_given_up() -> None:
    """For an answer, and for a connection."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader, writer)
        await reader.read()

    second, late = Second(0, 0), Second(0, 1)
    async with crowd_of(silent) as crowd:
        while not crowd.open or crowd.busy:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        await asyncio.gather(
            ask(crowd, "/a", second, ago=DEADLINE), ask(crowd, "/b", late, ago=PATIENCE + 0.01)
        )
    assert second.outcomes == {Outcome.TIMEOUT: 1}
    assert late.outcomes == {Outcome.UNCONNECTED: 1}
    assert second.times == [DEADLINE * 1e6]


async def test_connections_are_all_used_and_as_many_as_are_wanted() -> None:
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = len(served)
        served.append(0)
        while await head(reader, writer):
            served[me] += 1
            writer.write(ok("/a"))

    second = Second(0, 0)
    async with crowd_of(serve, connections=3) as crowd:
        while crowd.open < 3 or crowd.busy:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        for _ in range(6):
            await ask(crowd, "/a", second)
        assert served == [2, 2, 2]
        crowd.want(1, per_connection=2)
        assert crowd.open == 1
        for _ in range(4):
            await ask(crowd, "/a", second)
    assert second.outcomes == {Outcome.RIGHT: 10}
    assert len(served) > 3


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is this machine on Linux alone")
async def test_connections_come_from_several_addresses() -> None:
    """An address has no more than some 28,000 ports to the same server."""
    peers: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        await head(reader, writer)

    async with crowd_of(serve, connections=4, addresses=2) as crowd:
        while crowd.open < 4 or crowd.busy:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert sorted(peers) == ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({b"x-cache-status": b"HIT"}, "HIT"),
        ({b"x-cache-status": b"stale ", b"cache-status": b"a; fwd=miss"}, "STALE"),
        ({b"cache-status": b"shield; fwd=uri-miss, edge; hit; ttl=3"}, "HIT"),
        ({b"cache-status": b"shield; hit, edge; fwd=uri-miss"}, "MISS"),
        ({b"cache-status": b"edge; fwd=bypass"}, "BYPASS"),
        ({}, "NONE"),
    ],
)
def test_what_the_cache_says(fields: dict[bytes, bytes], word: str) -> None:
    assert word_of(fields) == word


async def test_an_edge_tells_what_is_sampled() -> None:
    async with LedgerOrigin() as origin, running_edge(origin.url) as edge, edge.client() as client:
        await client.request("GET", "/a")
        admin = ("127.0.0.1", edge.worker.admin_port)
        told = await asyncio.to_thread(Edge("127.0.0.1", edge.worker.port, "load.test", admin=admin).numbers)
    assert told.keys() == NUMBERS.keys()
    assert all(number > 0 for number in told.values()), told
    assert told["connections"] == 1


# -- figures and verdicts ---------------------------------------------------------------------------------


def second(number: int, phase: int = 0, **more: object) -> Second:
    usual = {
        "times": [1_000] * 90 + [80_000] * 9 + [3_000_000],
        "outcomes": {Outcome.RIGHT: 99, Outcome.TIMEOUT: 1},
        "words": {"HIT": 80, "STALE": 5, "MISS": 14, "BYPASS": 10},
        "connections": 7 + number,
    }
    return msgspec.convert({"phase": phase, "second": number, **usual, **more}, Second)


def played(*seconds: Second, scene: Scene = SCENE, samples: int = 0) -> Played:
    made = Played.begin(scene)
    for one in seconds:
        made.take(one)
    made.samples = [Sample(float(n), 100.0 + n, 10.0, 5.0 + n, 0.1 * n, 3.0) for n in range(samples)]
    return made


def test_figures_of_a_scene() -> None:
    whole = played(second(1), second(0)).judged
    assert (whole.requests, whole.seconds, whole.rate, whole.connections) == (200, 2, 99, 7)
    assert whole.success == 99
    assert whole.hits == pytest.approx(100 * 85 / 99)
    assert [whole.percentile(share) for share in (50, 95, 99, 100)] == pytest.approx(
        [1, 80, 80, 3000], rel=0.002
    )
    assert [point.at for point in played(second(1), second(0)).points] == [0, 1]


def test_what_is_not_judged_is_left_out() -> None:
    before = msgspec.structs.replace(PHASE, name="before", judged=False)
    scene = msgspec.structs.replace(SCENE, phases=[before, PHASE])
    made = played(second(0), second(1), second(0, phase=1), scene=scene)
    assert [figures.requests for figures in made.phases] == [200, 100]
    assert (made.judged.requests, made.judged.rate) == (100, 49.5)  # its second second had none
    assert [point.at for point in made.points] == [0, 1, 2]


def targets(text: str, tmp_path: Path) -> Targets:
    path = tmp_path / "targets.yaml"
    path.write_text(text)
    return Targets.read(path, {"plain": SCENE})


@pytest.mark.parametrize(
    ("what", "met", "missed"),
    [
        ("p50_ms", 1.1, 0.9),
        ("p95_ms", 81, 79),
        ("p99_ms", 81, 79),
        ("hits_percent", 85, 86),
        ("success_percent", 98.9, 99),
        ("requests_per_second", 98, 99),
        ("connections", 7, 8),
        ("memory_growth_percent", 47, 46),
        ("descriptors_growth", 1, 0),
        ("tasks_growth", 61, 60),
    ],
)
def test_a_target_is_met_or_missed(tmp_path: Path, what: str, met: float, missed: float) -> None:
    made = played(second(0), second(1), samples=100)
    for number, verdict in ((met, True), (missed, False)):
        judged = targets(f"all: {{{what}: {number}}}", tmp_path).judge(made)
        assert [check.met for check in judged] == [True, verdict], judged
    assert what in KINDS


def test_targets_of_a_scene_and_of_a_phase(tmp_path: Path) -> None:
    text = "all: {p50_ms: 0, p95_ms: 0}\nscenes: {plain: {p50_ms: 5, p95_ms: null}, plain/only: {p99_ms: 1}}"
    judged = targets(text, tmp_path).judge(played(second(0)))
    assert [(c.where, c.what, c.target, c.figure, c.met) for c in judged] == [
        ("plain", "wrong answers", "0", "0", True),
        ("plain", "p50", "< 5 ms", "1 ms", True),
        ("plain/only", "p99", "< 1 ms", "80.1 ms", False),
    ]
    assert [c.what for c in targets(text, tmp_path).only(SHORT).judge(played(second(0)))] == ["wrong answers"]


def test_a_wrong_answer_is_a_miss_and_so_is_what_is_not_known(tmp_path: Path) -> None:
    wrong = second(0, outcomes={Outcome.WRONG: 1}, words={"NONE": 1})
    assert [c.met for c in targets("{}", tmp_path).judge(played(wrong))] == [False]
    unknown = targets("all: {hits_percent: 0, tasks_growth: 9}", tmp_path)
    judged = unknown.judge(played(wrong, samples=FEWEST_SAMPLES - 1))
    assert [(c.figure, c.met) for c in judged[1:]] == [("not known", False)] * 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("all: {p42_ms: 1}", "p42_ms"),
        ("all: {p50_ms: fast}", "str"),
        ("scenes: {stedy: {}}", "stedy"),
        ("scenes: {plain/never: {}}", "plain/never"),
        ("scenes: {plain/only: {tasks_growth: 1}}", "whole scene"),
        ("every: {}", "every"),
    ],
)
def test_targets_that_are_wrong_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(Wrong, match=told):
        targets(text, tmp_path)


def test_pictures_need_nothing_but_themselves(tmp_path: Path) -> None:
    paths = plots.draw(played(second(0), second(1), samples=3), tmp_path)
    assert [path.stem.removeprefix("plain-") for path in paths] == [
        "latency", "requests", "hits", "memory", "held",
    ]  # fmt: skip
    for path in paths:
        text = path.read_text()
        assert ">only, 0 s<" in text
        tags = [element.tag.rpartition("}")[2] for element in fromstring(text).iter()]  # noqa: S314 - our own
        assert "script" not in tags
        assert "polyline" in tags
        assert "@import" not in text
        assert "url(" not in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "there is no scene 'nothing'"),
        (["steady", "--urls", "x"], "go with --url"),
        (["outage", "--url", "http://127.0.0.1:1"], "nothing is left"),
        (["steady", "--url", "127.0.0.1:80"], "http://HOST:PORT"),
        (["steady", "--url", "http://a.example/b"], "http://HOST:PORT"),
        (["steady", "--targets", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_played_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_without_a_name_the_scenes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(plan.read())
