"""Warm-ups, what is most wanted across restarts, schedules: real sockets, a driven clock."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.warm.tally import Came, Source
from edgeproxy.warm.wanted import HALF_LIFE
from edgeproxy.warm.warmer import ENDED, PATIENCE, Busy
from tests.support.edge import running_edge
from tests.support.ledger import RST, Gate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.warm.warmer import Job
    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

RULES = """
rules:
  - {name: private, match: {path: "/pass/**"}, pass: true}
  - {name: tenants, match: {path: "/t/**"}, ttl: 10m, key: {headers: [x-tenant]}}
  - {name: people, match: {path: "/p/**"}, ttl: 10m, key: {cookies: [session]}}
  - {name: all, match: {path: "/**"}, ttl: 1m}
"""


async def ended(edge: Edge, job: Job, seconds: float = 120.0) -> dict[str, tuple[str, str]]:
    """Let the job come to its end; URL without scheme and host -> result and reason."""
    for _ in range(int(seconds * 2)):
        if job.state in ENDED:
            break
        await edge.clock.advance(0.5)
    assert job.state in ENDED
    return {r.url.partition("://")[2].partition("/")[2]: (r.came.value, r.reason) for r in job.results}


async def test_each_url_has_its_result(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/never", headers=[("Cache-Control", "no-store")])
    origin.reply("/broken", status=503)
    origin.cache_control = None
    origin.reply("/large", body=b"x" * 300_000, chunked=True)
    async with running_edge(origin.url, rules=rules(RULES), clock=clock) as edge:
        host = "http://example.test"
        await edge.get("/there")
        job = edge.worker.warming.warm_urls(
            [f"{host}/a", f"{host}/there", f"{host}/never", f"{host}/broken", f"{host}/large",
             f"{host}/pass/x", "ftp://x/y", "/no-host", f"{host}/a#again"]
        )  # fmt: skip
        came = await ended(edge, job)
        assert came == {
            "a": ("stored", ""),
            "there": ("fresh", ""),
            "never": ("not-storable", "response-no-store"),
            "broken": ("failed", "server-error"),
            "large": ("stored", ""),
            "pass/x": ("not-storable", "rule-says-pass"),
            "y": ("refused", "expected an http URL"),
            "": ("refused", "expected a URL with its host, as clients use it"),
        }
        assert job.told()["state"] == "done"
        assert origin.count("/pass/x") == 0
        await edge.settle()
        for target in ("/a", "/large"):
            assert (await edge.get(target))["X-Cache-Status"] == "HIT"
            assert origin.count(target) == 1


async def test_it_is_no_clients_traffic(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with running_edge(origin.url, rules=rules(RULES), clock=clock, access_log=log) as edge:
        await ended(edge, edge.worker.warming.warm_urls(["http://example.test/a"]))
        await ended(edge, edge.worker.warming.warm_urls(["http://example.test/a"]))
        told = edge.worker.metrics.snapshot()
        assert told["requests"] == 0
        assert told["hit_ratio"] is None
        assert edge.traces == []
        assert edge.worker.metrics.warm.warmed[Source.ASKED, Came.STORED] == 1
        assert b'edgeproxy_warmed_total{result="fresh",source="asked"} 1.0' in edge.worker.metrics.render()
        assert len(edge.worker.warming.wanted) == 0
        asked = origin.of("/a")[0]
        assert asked.get("x-forwarded-for") is None
        assert asked.get("host") == "example.test"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["target"], line["purpose"], line["client"]) for line in lines] == [("/a", "warm", "")] * 2


async def test_a_client_and_a_warm_up_share_one_fetch(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        job = edge.worker.warming.warm_urls(["http://example.test/a"])
        await origin.gate("g").reached()
        client = asyncio.create_task(edge.get("/a"))  # noqa: TID251
        await edge.waiting(1)
        origin.gate("g").open()
        assert (await client).status == 200
        assert await ended(edge, job) == {"a": ("stored", "")}
        assert origin.count("/a") == 1


async def test_the_failure_of_a_warm_up_is_no_clients(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """Clients that joined its fetch ask for themselves, together."""
    origin.script("/a", [Gate("g"), RST], times=1)
    async with running_edge(origin.url, clock=clock) as edge:
        job = edge.worker.warming.warm_urls(["http://example.test/a"])
        await origin.gate("g").reached()
        clients = [asyncio.create_task(edge.get("/a")) for _ in range(5)]  # noqa: TID251
        await edge.waiting(5)
        origin.gate("g").open()
        assert {answer.status for answer in await asyncio.gather(*clients)} == {200}
        assert origin.count("/a") == 2
        assert (await ended(edge, job))["a"][0] == "failed"


async def test_it_keeps_to_the_origins_budget(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """An origin that answers nothing sees no more of a warm-up than its budget has for it."""
    origin.reply("/slow", gate="g")
    async with running_edge(origin.url, clock=clock, first_byte_timeout="1m") as edge:
        urls = [f"http://example.test/slow?{n}" for n in range(9)]
        job = edge.worker.warming.warm_urls(urls, concurrency=9)
        await clock.advance(20)
        assert 1 <= origin.count("/slow") <= 3
        assert edge.worker.metrics.warm.waited > 0
        assert job.results == []
        origin.gate("g").open()
        await ended(edge, job)
        assert job.counts[Came.STORED] == 9
        assert origin.count("/slow") == 9


async def test_cancelling_harms_no_client(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/0", gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        urls = [f"http://example.test/{n}" for n in range(5)]
        warmer = edge.worker.warming.warmer
        job = edge.worker.warming.warm_urls(urls, concurrency=1)
        await origin.gate("g").reached()
        client = asyncio.create_task(edge.get("/0"))  # noqa: TID251
        await edge.waiting(1)
        warmer.cancel(job)
        assert job.state == "cancelled"
        origin.gate("g").open()
        assert (await client).status == 200
        await clock.advance(60)
        assert len(origin.requests) == 1
        assert edge.worker.metrics.warm.running == 0
        early = edge.worker.warming.warm_urls(urls)
        warmer.cancel(early)  # before it has begun
        await clock.advance(60)
        assert (early.state, len(origin.requests)) == ("cancelled", 1)


async def test_the_rate_and_the_concurrency_are_kept(origin: LedgerOrigin, clock: DrivenClock) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        urls = [f"http://example.test/{n}" for n in range(40)]
        job = edge.worker.warming.warm_urls(urls, rate=2, concurrency=4)
        await clock.advance(4.9)
        assert len(origin.requests) == 10
        await ended(edge, job)
        for _ in range(300):  # clients' requests: the budget is a share of them
            await edge.get("/clients")
            await edge.worker.store.purge(PurgeOrder(PurgeKind.ALL))
        origin.reply("/slow", gate="g")
        urls = [f"http://example.test/slow?{n}" for n in range(9)]
        job = edge.worker.warming.warm_urls(urls, concurrency=3, rate=1000)
        await clock.advance(0.01)  # no longer: an origin that is slow is left alone
        assert origin.count("/slow") == 3
        origin.gate("g").open()
        await ended(edge, job)
        assert job.counts[Came.STORED] == 9


async def test_it_gives_way_to_clients(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/slow", gate="g")
    async with running_edge(origin.url, clock=clock, origin_connections=2) as edge:
        clients = [asyncio.create_task(edge.get(f"/slow?{n}")) for n in range(2)]  # noqa: TID251
        await origin.gate("g").reached(2)
        job = edge.worker.warming.warm_urls(["http://example.test/a", "http://example.test/b"], concurrency=1)
        await clock.advance(5)
        assert (origin.count("/a"), job.results) == (0, [])
        assert edge.worker.metrics.warm.waited == 1
        await clock.advance(PATIENCE - 24)
        origin.gate("g").open()
        await asyncio.gather(*clients)
        assert await ended(edge, job) == {"a": ("stored", ""), "b": ("stored", "")}


async def test_a_stale_answer_is_made_fresh(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/a", etag=True)
    text = "rules: [{name: a, match: {path: /a}, ttl: 10s, stale_while_revalidate: 1h, stale_if_error: 1h}]"
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        await edge.get("/a")
        await clock.advance(20)
        assert await ended(edge, edge.worker.warming.warm_urls(["http://example.test/a"])) == {
            "a": ("stored", "")
        }
        assert origin.of("/a")[1].get("if-none-match") == '"v1"'
        assert (await edge.get("/a"))["X-Cache-Status"] == "HIT"
        await clock.advance(20)
        origin.reply("/a", status=500)
        came = await ended(edge, edge.worker.warming.warm_urls(["http://example.test/a"]))
        assert came["a"][0] == "failed"
        assert (await edge.get("/a")).body == origin.stamp("/a", 1)


async def test_hosts_that_no_rule_names_are_refused(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    text = "rules: [{name: a, match: {path: /**, host: [api.example, '*.shop.example']}, ttl: 1m}]"
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        job = edge.worker.warming.warm_urls(
            ["http://api.example/1", "http://a.shop.example:8080/2", "http://evil.example/3"]
        )
        assert await ended(edge, job) == {
            "1": ("stored", ""), "2": ("stored", ""), "3": ("refused", "no rule is for this host"),
        }  # fmt: skip
        assert [r.get("host") for r in origin.requests] == ["api.example", "a.shop.example:8080"]


# -- sitemaps ------------------------------------------------------------------------------------------


def urlset(*urls: str) -> bytes:
    return f"<urlset>{''.join(f'<url><loc>{u}</loc></url>' for u in urls)}</urlset>".encode()


def index(*urls: str) -> bytes:
    inner = "".join(f"<sitemap><loc>{u}</loc></sitemap>" for u in urls)
    return f"<sitemapindex>{inner}</sitemapindex>".encode()


async def test_a_sitemap_index(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply(
        "/sitemap.xml",
        body=index("https://api.example/1.xml", "https://api.example/2.xml.gz", "https://api.example/gone.xml",
                   "http://evil.example/3.xml", "https://api.example/sitemap.xml"),
    )  # fmt: skip
    origin.reply("/1.xml", body=urlset("https://api.example/a", "https://www.example/b", "/relative"))
    origin.reply(
        "/2.xml.gz", body=gzip.compress(urlset("https://api.example/c?x=1", "http://evil.example/d"))
    )
    origin.reply("/gone.xml", status=404)
    async with running_edge(origin.url, clock=clock) as edge:
        job = edge.worker.warming.warm_sitemap("http://api.example/sitemap.xml", hosts=["www.example"])
        for _ in range(50):
            if job.state in ENDED:
                break
            await asyncio.sleep(0.01)  # a thread reads the XML
            await clock.advance(0.5)
        assert job.state == "done", job.why
        assert {r.url: (r.came.value, r.reason) for r in job.results} == {
            "http://api.example/a": ("stored", ""),
            "http://www.example/b": ("stored", ""),
            "http://api.example/c?x=1": ("stored", ""),
            "http://api.example/gone.xml": (
                "failed", "http://api.example/gone.xml: the origin says 404",
            ),
            "http://evil.example/3.xml": ("refused", "not of the sitemap's host"),
            "http://evil.example/d": ("refused", "not of the sitemap's host"),
            "/relative": ("refused", "not of the sitemap's host"),
        }  # fmt: skip
        assert {r.get("host") for r in origin.requests} == {"api.example", "www.example"}
        assert (await edge.get("/a", ("Host", "api.example")))["X-Cache-Status"] == "HIT"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]><urlset/>', "document type"),
        (b"<html/>", "no sitemap"),
        (b"no xml", "not XML"),
        (None, "the origin says 404"),
    ],
)
async def test_a_sitemap_that_is_none(
    origin: LedgerOrigin, clock: DrivenClock, body: bytes | None, why: str
) -> None:
    origin.reply("/s.xml", body=body, status=404 if body is None else 200)
    async with running_edge(origin.url, clock=clock) as edge:
        job = edge.worker.warming.warm_sitemap("http://api.example/s.xml")
        await edge.until(lambda: job.state in ENDED)
        assert job.state == "failed"
        assert why in job.why
        assert job.results == []


# -- what is most wanted -------------------------------------------------------------------------------


def names(edge: Edge) -> list[str]:
    top = edge.worker.warming.wanted.top(10, edge.worker.engine.matcher)
    return [w.again.target for w in top]


async def test_hits_of_the_lane_and_of_the_ordinary_way_are_counted(
    origin: LedgerOrigin, clock: DrivenClock
) -> None:
    async with running_edge(origin.url, clock=clock) as edge:
        async with edge.client() as client:
            for _ in range(50):
                await client.request("GET", "/often")
        for _ in range(5):
            await edge.get("/some", ("Cache-Control", "max-stale=1"))
        await edge.get("/once")
        lane = edge.worker.handler.lane
        assert lane is not None
        lane.fold()
        assert lane.hits > 40
        await clock.advance(1.1)
        await edge.get("/often")
        assert names(edge) == ["/often", "/some", "/once"]
        top = edge.worker.warming.wanted.top(3, edge.worker.engine.matcher)
        assert [round(w.weight) for w in top] == [51, 5, 1]
        await clock.advance(3 * HALF_LIFE)
        top = edge.worker.warming.wanted.top(3, edge.worker.engine.matcher)
        assert top[0].weight == pytest.approx(51 / 8, rel=0.05)


async def test_secrets_are_never_kept(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path
) -> None:
    origin.reply("/v/key", headers=[("Vary", "X-Api-Key")])
    origin.reply("/v/lang", headers=[("Vary", "Accept-Language, Accept-Encoding, User-Agent")])
    given: dict[str, Any] = {
        "rules": rules(RULES),
        "clock": clock,
        "warm_start": "on",
        "cache_dir": tmp_path / "c",
    }
    async with running_edge(origin.url, **given) as edge:
        await edge.get("/t/1", ("X-Tenant", "blue"))
        await edge.get("/t/2")
        await edge.get("/p/1", ("Cookie", "session=s3cret"))
        await edge.get("/p/2", ("Cookie", "other=s3cret"))
        await edge.get("/v/key", ("X-Api-Key", "s3cret"))
        await edge.get("/v/key")
        await edge.get(
            "/v/lang", ("Accept-Language", "de;q=0.9, fr"), ("Accept-Encoding", "br"),
            ("Authorization", "Bearer s3cret"),
        )  # fmt: skip
        await edge.get("/v/lang", ("Accept-Language", "de;q=0.9, fr"), ("Accept-Encoding", "br"))
        top = edge.worker.warming.wanted.top(20, edge.worker.engine.matcher)
        assert {(w.again.target, w.again.fields, w.rule) for w in top} == {
            ("/t/1", (("x-tenant", "blue"),), "tenants"),
            ("/t/2", (), "tenants"),
            ("/p/2", (), "people"),
            ("/v/key", (), "all"),
            ("/v/lang", (("accept-language", "fr,de;q=0.9"),), "all"),
        }
    (kept,) = (tmp_path / "c").glob("most-wanted-*.json")
    assert b"s3cret" not in kept.read_bytes()
    assert b"/p/1" not in kept.read_bytes()


async def test_a_cold_start_asks_for_what_was_most_wanted(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "rules": rules(RULES),
        "clock": clock,
        "warm_start": "on",
        "cache_dir": tmp_path / "c",
    }
    async with running_edge(origin.url, **given) as edge:
        for _ in range(3):
            await edge.get("/a", ("Host", "api.example"))
            await edge.get("/t/1", ("Host", "api.example"), ("X-Tenant", "blue"))
    origin.requests.clear()
    origin.reply("/a", gate="g")
    async with running_edge(origin.url, **given) as edge:
        # It serves before its warm-up has had an answer.
        await origin.gate("g").reached()
        assert edge.worker.state == "ready"
        assert (await edge.get("/other")).status == 200
        origin.gate("g").open()
        (job,) = edge.worker.warming.warmer.jobs.values()
        assert await ended(edge, job) == {"a": ("stored", ""), "t/1": ("stored", "")}
        assert job.source is Source.START
        hit = await edge.get("/t/1", ("Host", "api.example"), ("X-Tenant", "blue"))
        assert hit["X-Cache-Status"] == "HIT"
        assert len(origin.of("/t/1")) == 1
        assert names(edge)[0] in ("/a", "/t/1")  # it goes on counting
        # Without further requests the file is not made worse: the next start knows it still.
    async with running_edge(origin.url, **given) as edge:
        await edge.until(lambda: bool(edge.worker.warming.warmer.jobs))


async def test_it_is_kept_while_it_runs(origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path) -> None:
    async with running_edge(origin.url, clock=clock, warm_start="on", cache_dir=tmp_path / "c") as edge:
        await edge.get("/a")
        await clock.advance(61)
        await edge.worker.background.settle("keep ")
        (kept,) = (tmp_path / "c").glob("most-wanted-*.json")
        assert b'"/a"' in kept.read_bytes()


async def test_a_broken_file_does_not_keep_it_from_starting(
    origin: LedgerOrigin, clock: DrivenClock, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"clock": clock, "warm_start": "on", "cache_dir": tmp_path / "c"}
    async with running_edge(origin.url, **given) as edge:
        await edge.get("/a")
    (kept,) = (tmp_path / "c").glob("most-wanted-*.json")
    kept.write_bytes(b"\xff" * 1000)
    async with running_edge(origin.url, **given) as edge:
        await edge.worker.background.settle("warm start")
        assert edge.worker.warming.warmer.jobs == {}
        assert (await edge.get("/a")).status == 200


async def test_a_key_without_a_host_is_asked_for_as_it_was(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    text = "rules: [{name: a, match: {path: /**}, ttl: 1m, key: {host: false, query: none}}]"
    async with running_edge(origin.url, rules=rules(text), clock=clock) as edge:
        await edge.get("/a?utm=1", ("Host", "b.example"))
        (one,) = edge.worker.warming.wanted.top(5, edge.worker.engine.matcher)
        assert one.again.url == "http://b.example/a"
        await clock.advance(61)
        job = edge.worker.warming.warm_most_wanted(5)
        assert await ended(edge, job) == {"a": ("stored", "")}
        assert (await edge.get("/a?utm=2", ("Host", "c.example")))["X-Cache-Status"] == "HIT"


# -- schedules -----------------------------------------------------------------------------------------


async def test_schedules_run_and_a_reload_keeps_their_times(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("# ours\nhttp://api.example/from-list\n\n")
    text = f"""
warm:
  - {{every: 10m, urls: "http://api.example/every"}}
  - {{at: "22:20", file: {listed}}}
  - {{every: 1h, most_wanted: 5}}
{RULES}"""
    directory = rules(text)
    async with running_edge(origin.url, rules=directory, clock=clock) as edge:  # at 22:13:20
        await edge.get("/wanted", ("Host", "api.example"))
        await clock.advance(399)
        assert origin.count("/from-list") == 0
        await clock.advance(2)
        await edge.worker.background.settle("warm-up")
        assert origin.count("/from-list") == 1
        (directory / "rules.yaml").write_text(text + "# edited\n")
        assert not (await edge.worker.operator.reload_rules()).errors
        await clock.advance(190)
        assert origin.count("/every") == 0
        await clock.advance(10)
        assert origin.count("/every") == 1
        assert edge.worker.metrics.warm.warmed[Source.SCHEDULE, Came.STORED] == 2
        await clock.advance(3000)
        await edge.worker.background.settle("warm-up")
        assert origin.count("/wanted") == 2
        assert origin.count("/every") == 6
        (directory / "rules.yaml").write_text(RULES)
        assert not (await edge.worker.operator.reload_rules()).errors
        await clock.advance(4000)
        assert origin.count("/every") == 6


async def test_a_schedule_does_not_overtake_itself(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/slow", gate="g")
    text = 'warm: [{every: 10s, urls: ["http://api.example/slow"]}]\n' + RULES
    async with running_edge(origin.url, rules=rules(text), clock=clock, first_byte_timeout="1h") as edge:
        await clock.advance(55)
        assert origin.count("/slow") == 1
        assert edge.worker.warming.schedule.skipped == 4
        origin.gate("g").open()
        await origin.arrived("/slow", 1)
        await clock.advance(1)
        assert edge.worker.metrics.warm.running == 0


async def test_so_many_at_a_time(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/slow", gate="g")
    async with running_edge(origin.url, clock=clock) as edge:
        for _ in range(4):
            edge.worker.warming.warm_urls(["http://example.test/slow"])
        with pytest.raises(Busy):
            edge.worker.warming.warm_urls(["http://example.test/slow"])
        origin.gate("g").open()
