"""D8: everything is missing at once, or expires at once: one fetch for each key, and never too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Self

import pytest

from edgeproxy.clock import Clock
from tests.support.edge import running_edge
from tests.support.origins import edgeproxy_process
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin
    from tests.support.origins import EdgeProcess

CAP = 16
RULES = """
rules: [{name: all, match: {path: "/**"}, ttl: TTL, coalesce: {wait: 30s, lease: 30s}}]
pools: {default: {limits: {concurrent: CAP, queue: 20000, wait: 60s}}}
"""


@pytest.mark.parametrize("jitter", [True, False])
async def test_what_was_stored_together_expires_together_or_with_jitter_spread(
    origin: LedgerOrigin, clock: DrivenClock, rules: Callable[[str], Path], jitter: bool
) -> None:
    """The peak is at most twice the mean over the time in which the answers expire."""
    keys = [f"/k{n}" for n in range(40)]
    text = RULES.replace("TTL", "100s" + (", ttl_jitter: 40%" if jitter else "")).replace("CAP", "8")
    async with running_edge(origin.url, clock=clock, rules=rules(text)) as edge, edge.client() as client:
        for key in keys:
            await client.get(key)
        assert len(origin.requests) == len(keys)
        await clock.advance(60)
        seen: list[int] = []
        for _ in range(11):
            before = len(origin.requests)
            for key in keys:
                assert (await client.get(key)).status == 200
            seen.append(len(origin.requests) - before)
            await clock.advance(4)
        assert sum(seen) == len(keys), "each once"
        if jitter:
            assert max(seen) <= 2 * len(keys) / 10
            assert sum(1 for n in seen if n) >= 8
        else:
            assert sorted(seen)[-2:] == [0, len(keys)]


class Counting:
    """An origin that takes a moment for each answer, and counts: requests by path, and how many at once."""

    async def __aenter__(self) -> Self:
        self.asked: Counter[bytes] = Counter()
        self.at_once = self.most = 0
        self._clock = Clock()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked[head.split(b" ", 2)[1]] += 1
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                await self._clock.sleep(0.002)
                self.at_once -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 200)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()


async def all_of_it(edge: EdgeProcess, keys: int, clients: int) -> int:
    """Each key asked for by two clients at about the same time; how many requests failed."""
    failed = 0

    async def one(number: int) -> None:
        nonlocal failed
        async with RawClient("127.0.0.1", edge.port, timeout=60) as client:
            for key in range(number // 2, keys, clients // 2):
                answer = await client.get(f"/k{key}")
                failed += answer.status != 200 or len(answer.body) != 200

    await asyncio.gather(*(one(n) for n in range(clients)))
    return failed


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_d8_both_tiers_empty_under_load(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A cold start, and a restart with nothing left. (10,000 keys say no more, and take a minute.)"""
    keys, clients = 2_000, 64
    (tmp_path / "rules").mkdir()
    text = RULES.replace("TTL", "10m").replace("CAP", str(CAP))
    (tmp_path / "rules" / "rules.yaml").write_text(text)
    async with Counting() as origin:
        for run in ("cold", "restarted"):
            origin.asked.clear()
            origin.most = 0
            async with AsyncExitStack() as stack:
                processes = ExitStack()
                running = edgeproxy_process(
                    origin.url, tmp_path / run, rules=tmp_path / "rules", store=None, check_log=False
                )
                edge = await asyncio.to_thread(processes.enter_context, running)
                stack.push_async_callback(asyncio.to_thread, processes.close)
                failed = await all_of_it(edge, keys, clients)
                again = await all_of_it(edge, 300, clients)
                record_property(f"{run}: failed client requests", failed)
                assert (failed, again) == (0, 0)
                assert len(origin.asked) == keys
                assert max(origin.asked.values()) == 1, "one fetch for each key; warm again without help"
                assert 1 < origin.most <= CAP
                if run == "cold":
                    await asyncio.to_thread(edge.kill)
