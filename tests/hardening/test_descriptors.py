"""A process that may open few descriptors, and clients who take all that they can get (SCENARIOS C8)."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from tests.support.ledger import Gate, LedgerOrigin, head
from tests.support.origins import edgeproxy_process
from tests.support.rawclient import RawAnswer, RawClient

FEW = 128
CLIENTS = 64
AT_ORIGIN = 24
KNOCKING = 300


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ends_or_answers(client: RawClient) -> RawAnswer | None:
    try:
        return await client.read_answer()
    except (ConnectionError, EOFError):
        return None


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from /proc")
async def test_operators_and_origins_have_theirs_whatever_clients_take(tmp_path: Path) -> None:
    """All who are let in ask a slow origin, which would take as many descriptors again. It does not wait for
    anything but what was asked; nothing spins, nobody blames the origin, and what goes makes room."""
    async with LedgerOrigin() as ledger, AsyncExitStack() as stack:
        ledger.script("/slow", [Gate("slow"), head(200, [("Content-Length", "2")]), b"ok"])
        ledger.reply("/after")
        with ExitStack() as processes:
            starting = edgeproxy_process(ledger.url, tmp_path, descriptors=FEW, store=None)
            edge = await asyncio.to_thread(processes.enter_context, starting)

            async def admin(target: str) -> str:
                answer = await asyncio.to_thread(edge.admin, "GET", target)
                assert answer.status == 200, (target, answer.body)
                return answer.body.decode()

            clients = []
            for number in range(KNOCKING):
                client = await stack.enter_async_context(RawClient("127.0.0.1", edge.port, timeout=30))
                await client.send(f"GET /slow?{number} HTTP/1.1\r\nHost: e.test\r\n\r\n".encode())
                clients.append(client)
            await ledger.arrived("/slow", AT_ORIGIN)
            for target in ("/healthz", "/readyz", "/api/health", "/api/cache/stats"):
                await admin(target)
            numbers = await admin("/metrics")
            assert f"edgeproxy_connections_open {CLIENTS}.0" in numbers
            assert f"edgeproxy_connections_full_refused_total {KNOCKING - CLIENTS}.0" in numbers
            assert ledger.open_connections == AT_ORIGIN
            before = processor_seconds(edge.process.pid)
            await asyncio.sleep(1)  # what does nothing for a second takes no processor time in it
            assert processor_seconds(edge.process.pid) - before < 0.5
            ledger.gate("slow").open()
            answers = await asyncio.gather(*map(ends_or_answers, clients))
            # Who waited for a place at the origin for longer than one waits gets a 503, never a 502.
            statuses = [answer.status for answer in answers if answer is not None]
            assert len(statuses) == CLIENTS
            assert set(statuses) <= {200, 503}
            assert statuses.count(200) >= AT_ORIGIN
            await stack.aclose()
            async with asyncio.timeout(20):
                while True:
                    async with RawClient("127.0.0.1", edge.port) as client:
                        await client.send(b"GET /after HTTP/1.1\r\nHost: e.test\r\n\r\n")
                        answer = await ends_or_answers(client)
                        if answer is not None and answer.status == 200:
                            break
            log = edge.log()
            assert "this process may open 128 files" in log
            assert "the origin fails" not in log
            await asyncio.to_thread(processes.close)
