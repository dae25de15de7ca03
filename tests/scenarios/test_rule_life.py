"""The life of the rules of one worker: versions, the way back, rules tried beside those in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from edgeproxy.rules.history import RuleHistory
from tests.support.driven import DrivenClock
from tests.support.edge import TOKEN, running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Any

    from tests.support.edge import Edge
    from tests.support.ledger import LedgerOrigin

    Rules = Callable[[str], Path]
    Started = Callable[[], AbstractAsyncContextManager[Edge]]

TEXT = 'rules: [{{name: all, match: {{path: "/**"}}, ttl: 1h, cache_control: "max-age={0}"}}]\n'
AGES = {"1": "max-age=1", "2": "max-age=2"}


@pytest.fixture
def start(origin: LedgerOrigin, rules: Rules, tmp_path: Path) -> Started:
    """Starts the same edge again and again."""
    directory = rules(TEXT.format(1))
    return lambda: running_edge(
        origin.url, clock=DrivenClock(), rules=directory, rule_history=5, cache_dir=tmp_path / "cache"
    )


async def call(edge: Edge, method: str, path: str, body: object = None, status: int = 200) -> Any:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.request(
            method, f"http://127.0.0.1:{edge.worker.admin_port}/api/rules/{path}", json=body
        ) as got,
    ):
        told = await got.json()
        assert got.status == status, told
        return told


async def told(edge: Edge, target: str) -> str | None:
    return (await edge.get(target)).get("Cache-Control")


async def numbers(edge: Edge) -> list[tuple[int, str]]:
    return [(v["number"], v["how"]) for v in (await call(edge, "GET", "history"))["versions"]]


async def test_the_version_before_comes_back_and_stays(start: Started, rules: Rules) -> None:
    async with start() as edge:
        assert await numbers(edge) == [(1, "start")]
        rules(TEXT.format(2))
        await call(edge, "POST", "reload", {"by": "ada"})
        assert await told(edge, "/a") == "max-age=2"
        await call(edge, "POST", "rollback", {"by": "bob"})
        assert await told(edge, "/b") == "max-age=1"
        held = (await call(edge, "POST", "reload"))["held"]
        assert "stays in force until they are edited" in held
        assert await told(edge, "/c") == "max-age=1"
        assert await numbers(edge) == [(1, "start"), (2, "reload"), (3, "rollback")]
        versions = (await call(edge, "GET", "history"))["versions"]
        assert [(v["by"], v["in_force"]) for v in versions] == [("", False), ("ada", False), ("bob", True)]
        assert versions[0]["version"] == versions[2]["version"]
    async with start() as edge:
        assert await told(edge, "/a") == "max-age=1"
        rules(TEXT.format(3))
        await call(edge, "POST", "reload")
        assert await told(edge, "/b") == "max-age=3"
        await call(edge, "POST", "rollback", {"to": "2"})
        assert await told(edge, "/c") == "max-age=2"
        assert "no version '77'" in (await call(edge, "POST", "rollback", {"to": "77"}, 400))["detail"]


async def test_a_shadow_changes_nothing_and_tells_what_it_would(start: Started) -> None:
    async with start() as edge, edge.client() as client:
        await call(edge, "PUT", "shadow", {"files": {"a.yaml": TEXT.format(2)}, "sample": 4})
        for _ in range(16):
            assert (await client.request("GET", "/a")).get("Cache-Control") == "max-age=1"
        found = await call(edge, "GET", "shadow")
        # The lane has answered some of them, and left to the ordinary way what was due.
        lane = edge.worker.handler.lane
        assert lane is not None
        lane.fold()
        assert lane.hits >= 9
        assert (found["compared"], found["differing"]) == (4, 4)
        (change,) = found["pairs"][0]["changes"]
        assert (change["field"], change["old"], change["new"]) == (
            "client_cache_control", "max-age=1", "max-age=2",
        )  # fmt: skip
        await call(edge, "POST", "rollback")
        assert type(edge.worker.handler.lane).__name__ == "Lane"
        assert "begin with a shadow" in (await call(edge, "GET", "shadow", status=400))["detail"]


async def test_a_share_of_the_keys_then_all(start: Started) -> None:
    async with start() as edge:
        await call(edge, "PUT", "shadow", {"files": {"a.yaml": TEXT.format(2)}})
        for percent in (30, 60):
            tried = await call(edge, "POST", "promote", {"percent": percent})
            assert tried["candidate"]["percent"] == percent
            # Asked again, by the lane too: each key stays where it is.
            async with edge.client() as client:
                over = set()
                for i in range(30):
                    if (await client.request("GET", f"/{percent}-{i}")).get("Cache-Control") == "max-age=2":
                        over.add(i)
                assert 0 < len(over) < 30
                for i in (*range(8), *range(8), *range(8)):
                    said = (await client.request("GET", f"/{percent}-{i}")).get("Cache-Control")
                    assert said == AGES["2" if i in over else "1"]
    async with start() as edge:  # a restart goes on with it
        tried = (await call(edge, "GET", "history"))["candidate"]
        assert tried["percent"] == 60
        await call(edge, "POST", "promote", {"percent": 100})
        assert {await told(edge, f"/x-{i}") for i in range(20)} == {"max-age=2"}
        assert [how for _, how in await numbers(edge)] == ["start", "promote"]
        assert (await call(edge, "GET", "history"))["candidate"] is None
    async with start() as edge:
        assert await told(edge, "/y") == "max-age=2"
        await call(edge, "POST", "rollback")
        assert await told(edge, "/z") == "max-age=1"


async def test_the_lane_answers_as_the_ordinary_way_while_rules_are_tried(
    origin: LedgerOrigin, rules: Rules, tmp_path: Path
) -> None:
    """What the candidate alone looks at (here User-Agent) must count for the lane too."""
    origin.reply("/", body=lambda request: (request.get("user-agent") or "").encode())
    for number in range(8):
        origin.reply(f"/{number}", body=lambda request: (request.get("user-agent") or "").encode())
    directory = rules('rules: [{name: all, match: {path: "/**"}, ttl: 1h}]')
    tried = 'rules: [{name: all, match: {path: "/**"}, ttl: 1h, key: {headers: [user-agent]}}]'
    got: list[list[bytes]] = []
    hits = []
    for lane in ("on", "off"):
        async with (
            running_edge(
                origin.url, clock=DrivenClock(), rules=directory, rule_history=5, lane=lane,
                cache_dir=tmp_path / lane,
            ) as edge,
            edge.client() as client,
        ):  # fmt: skip
            await call(edge, "PUT", "shadow", {"files": {"a.yaml": tried}, "sample": 5})
            await call(edge, "POST", "promote", {"percent": 50})
            got.append([])
            for _ in range(5):
                for number in range(8):
                    for agent in ("cat", "dog", "cow"):
                        answer = await client.request("GET", f"/{number}", headers=[("User-Agent", agent)])
                        got[-1].append(answer.body)
            hits.append((await edge.worker.operator.stats())["hits"])
    assert got[0] == got[1]
    assert {b"cat", b"dog", b"cow"} <= set(got[0])
    assert hits[0] == hits[1]


async def test_what_is_refused_changes_nothing(start: Started, rules: Rules) -> None:
    pools = 'pools: {{p: {{origins: ["http://127.0.0.1:{0}"]}}}}\n' + TEXT.replace("ttl", "origin: p, ttl")
    rules(pools.format(1))
    async with start() as edge:
        wrong = {"files": {"a.yaml": "rules: [{name: a, match: {path: /a}, ttl: soon}]"}}
        assert "a.yaml:1" in (await call(edge, "PUT", "shadow", wrong, 422))["errors"][0]
        assert (await call(edge, "GET", "history"))["candidate"] is None
        assert "begin with" in (await call(edge, "POST", "promote", {"percent": 5}, 400))["detail"]
        assert "percent" in (await call(edge, "POST", "promote", {"percent": 500}, 400))["detail"]
        assert "no version before" in (await call(edge, "POST", "rollback", status=400))["detail"]
        await call(edge, "PUT", "shadow", {"files": {"../a.yaml": "x"}}, 400)
        await call(edge, "PUT", "shadow", {"files": {"rules.yaml": pools.format(2)}})
        assert "pools.p differs" in (await call(edge, "POST", "promote", {"percent": 5}, 400))["detail"]
        assert (await call(edge, "GET", "history"))["candidate"]["percent"] == 0
        await call(edge, "POST", "promote", {"percent": 100})


async def test_each_directory_of_rules_has_a_history_of_its_own(
    start: Started, origin: LedgerOrigin, tmp_path: Path
) -> None:
    """Two instances before one origin, with one cache directory."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.yaml").write_text(TEXT.format(9))
    async with start() as edge:
        await call(edge, "PUT", "shadow", {"files": {"a.yaml": TEXT.format(2)}})
        async with running_edge(
            origin.url, rules=other, rule_history=5, cache_dir=tmp_path / "cache"
        ) as second:
            assert (await call(second, "GET", "history"))["candidate"] is None
            assert await numbers(second) == [(1, "start")]


async def test_without_a_history(origin: LedgerOrigin, rules: Rules, tmp_path: Path) -> None:
    async with running_edge(origin.url, rules=rules(TEXT.format(1))) as edge:
        assert "--rule-history is 0" in (await call(edge, "GET", "history", status=409))["detail"]
    async with running_edge(origin.url) as edge:
        assert "--rules none" in (await call(edge, "POST", "rollback", status=409))["detail"]
    assert not (tmp_path / "cache").exists()
    assert RuleHistory(tmp_path / "x").versions == ()
