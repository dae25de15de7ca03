"""Cache deception: one user's page under a stylesheet's name is delivered and never shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.edge import running_edge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin, Recorded

RULES = """
rules:
  - {name: styles, match: {path: ["*.css", "/static/**"]}, ttl: 1h}
"""


def page(asked: Recorded) -> bytes:
    return f"page of {asked.get('x-user')}".encode()


@pytest.mark.parametrize(
    "target",
    [
        "/account/x.css", "/account;x.css", "/account%2Fx.css", "/account%252Fx.css", "/account%3Fx.css",
        "/account/x.css?v=1", "/static/x.CSS", "/static/x.css.", "/static/x.css%20", "/static/x.css;a=b",
        "/static/x.css/",
    ],
)  # fmt: skip
async def test_a_page_is_nobody_elses(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], target: str
) -> None:
    origin.reply(target, headers=[("Content-Type", "text/html")], body=page)
    origin.cache_control = None
    async with running_edge(origin.url, clock=clock, rules=rules(RULES)) as edge:
        for user in ("ann", "ben", "ben"):
            answer = await edge.get(target, ("X-User", user))
            assert answer.body == f"page of {user}".encode()
        first, *others = edge.traces
        assert first.reason == "type-contradicts-extension"
        assert all(trace.reason for trace in others), "remembered, so that nobody waits for it"


async def test_a_stylesheet_is_kept(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/x.css", headers=[("Content-Type", "text/css; charset=utf-8")])
    async with running_edge(origin.url, clock=clock, rules=rules(RULES)) as edge:
        await edge.get("/x.css")
        assert (await edge.get("/x.css"))["X-Cache-Status"] == "HIT"


async def test_the_reason_is_told(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path]
) -> None:
    origin.reply("/x.css", headers=[("Content-Type", "text/html")])
    async with running_edge(origin.url, clock=clock, rules=rules(RULES)) as edge:
        assert "detail=type-contradicts-extension" in (await edge.get("/x.css"))["Cache-Status"]
        assert b"type-contradicts-extension" in edge.worker.metrics.render()


async def test_without_a_rule_the_origins_word_counts(origin: LedgerOrigin, clock: DrivenClock) -> None:
    origin.reply("/x.css", headers=[("Content-Type", "text/html"), ("Cache-Control", "public, max-age=60")])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/x.css")
        assert (await edge.get("/x.css"))["X-Cache-Status"] == "HIT"
