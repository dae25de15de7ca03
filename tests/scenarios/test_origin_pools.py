"""Health checks, a canary, a reload of pools, and what operators see of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.scenarios.failing import NO_STORE, PASS, members, origins, start
from tests.support.edge import running_edge
from tests.support.ledger import Gate

if TYPE_CHECKING:
    from tests.scenarios.failing import WriteRules
    from tests.support.driven import DrivenClock


async def test_health_checks_take_an_origin_out_and_bring_it_back(
    clock: DrivenClock, rules: WriteRules
) -> None:
    async with origins(clock, 2) as (first, second):
        text = f"""
rules:
  - {{name: all, match: {{path: /**}}, pass: true, origin: api}}
pools:
  api:
    origins: ["{first.url}", "{second.url}"]
    health: {{path: /healthz, interval: 5s, timeout: 2s, up: 2, down: 3}}
"""
        async with running_edge("http://127.0.0.1:1", clock=clock, rules=rules(text)) as edge:
            await first.arrived("/healthz")
            first.reply("/healthz", status=500)
            await clock.advance(16)
            assert first.count("/healthz") in (3, 4)
            assert members(edge, "api")[0].state(clock.now()) == ("unhealthy", "health check: status 500")
            for _ in range(10):
                assert (await edge.get("/a")).status == 200
            assert first.count("/a") == 0
            first.reply("/healthz")
            await clock.advance(11)
            assert members(edge, "api")[0].state(clock.now())[0] == "usable"
            for _ in range(10):
                await edge.get("/a")
            assert first.count("/a") == 5

            # A check that is wrong must not take the site down.
            first.script("/healthz", [Gate("never")])
            second.reply("/healthz", status=404)
            await clock.advance(40)
            assert [m.healthy for m in members(edge, "api")] == [False, False]
            assert "whole-timeout" in members(edge, "api")[0].unhealthy_for
            assert (await edge.get("/a")).status == 200


async def test_a_canary_gets_its_keys_and_is_ended_when_it_fails(
    clock: DrivenClock, rules: WriteRules
) -> None:
    async with origins(clock, 2) as (stable, new):
        text = f"""
rules:
  - {{name: all, match: {{path: /**}}, origin: api}}
pools:
  api: {{origins: ["{stable.url}"], canary: {{origins: ["{new.url}"], percent: 30}}}}
"""
        stable.cache_control = new.cache_control = "no-store"
        async with running_edge("http://127.0.0.1:1", clock=clock, rules=rules(text)) as edge:
            for n in range(60):
                await edge.get(f"/k{n}")
            mine = {r.path for r in new.requests}
            assert 8 <= len(mine) <= 28
            for n in range(60):
                await edge.get(f"/k{n}")
            assert {r.path for r in new.requests} == mine, "a key stays on its side"
            assert len(new.requests) == 2 * len(mine)
            await clock.advance(11)
            for path in mine:
                new.reply(path, status=500)
            for n in range(120):
                await edge.get(f"/k{n % 60}")
            pool = edge.worker.origin.pools["api"]
            assert pool.canary is not None
            assert pool.canary.ended
            seen = len(new.requests)
            for n in range(60):
                assert (await edge.get(f"/k{n}")).status == 200
            assert len(new.requests) == seen


async def test_a_reload_keeps_what_it_can(clock: DrivenClock, rules: WriteRules) -> None:
    async with origins(clock, 3) as (kept, gone, new):

        def text(*urls: str, more: str = "") -> str:
            listed = ", ".join(f'"{url}"' for url in urls)
            return f"""
rules: [{{name: all, match: {{path: /**}}, pass: true, origin: api}}]
pools: {{api: {{origins: [{listed}]{more}}}}}
"""

        gone.reply("/slow", headers=NO_STORE, gate="slow")
        kept.reply("/slow", headers=NO_STORE, gate="slow")
        async with running_edge(
            "http://127.0.0.1:1", clock=clock, rules=rules(text(kept.url, gone.url))
        ) as edge:
            await edge.get("/a")
            await edge.get("/a")
            under_way = [start(edge, "/slow"), start(edge, "/slow")]
            await gone.arrived("/slow")
            await kept.arrived("/slow")
            before = members(edge, "api")
            rules(text(kept.url, new.url, more=", breaker: {connects: 9}"))
            assert not (await edge.worker.operator.reload_rules()).lines
            after = members(edge, "api")
            assert after[0] is before[0]
            assert (after[0].requests, after[0].breaker.policy.connects) == (1, 9)
            assert after[1].name == new.url
            for _ in range(4):
                await edge.get("/a")
            assert (gone.count("/a"), new.count("/a"), kept.count("/a")) == (1, 2, 3)
            for origin in (gone, kept):
                origin.gate("slow").open()
            assert [(await each).status for each in under_way] == [200, 200], "they end in peace"
            await gone.connections_are(0)
            assert kept.connections <= 2, "its connections were kept"

            rules(text("http://127.0.0.1:1", more=", fallback: nobody"))
            refused = await edge.worker.operator.reload_rules()
            assert any('no pool is called "nobody"' in line for line in refused.lines)
            assert members(edge, "api") == after
            assert (await edge.get("/a")).status == 200


async def test_what_operators_see(clock: DrivenClock, rules: WriteRules) -> None:
    async with origins(clock, 2) as (dead, alive):
        await dead.stop()
        text = PASS + "pools: {default: {retries: {attempts: 1, on: [connect]}}}"
        async with running_edge(f"{dead.url},{alive.url}", clock=clock, rules=rules(text)) as edge:
            for _ in range(20):
                assert (await edge.get("/a")).status == 200
            part = (await edge.worker.operator.health())["origin"]
            assert not part.ok
            assert f"default: {dead.url}: " in part.detail
            told: Any = await edge.worker.operator.stats()
            rows = told["origins"]["default"]
            assert rows[alive.url]["state"] == "usable"
            assert rows[dead.url]["failures"] == 5
            assert rows[dead.url]["usable"] == 0
            assert "refused" in rows[dead.url]["reason"]
            metrics = (await edge.worker.operator.metrics()).decode()
            assert f'edgeproxy_origin_usable{{origin="{dead.url}",pool="default"}} 0.0' in metrics
            assert f'edgeproxy_origin_retries_total{{origin="{alive.url}",pool="default"}} 5.0' in metrics
