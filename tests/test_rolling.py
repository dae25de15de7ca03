"""All workers replaced while clients are served: scenarios C4 and C5.

Rules of this file:

- One running parent for all tests; each leaves it serving with the settings in its config file.
- Load is counted by what its clients see: every connection that is refused or reset, every answer that is cut
  short or not the one expected, is one too many. A client may use a connection until an answer says that it
  was the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.engine.background import Background
from edgeproxy.settings import environment
from tests.support.ledger import FIN, Gate, head
from tests.support.origins import Answer, EdgeProcess, edgeproxy_process
from tests.support.rawclient import MalformedAnswer, RawClient
from tests.support.threads import ThreadedOrigin, threaded_origin
from tests.test_workers import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("rolling")]

RATE = 500
"""Requests a second, of all kinds together."""
KEPT = 16
"""Clients that keep their connection; as many open a new one for each request."""
DOWNLOADS = 20
FILE: dict[str, object] = {"workers": 2, "store": "memory:", "access_log": "off"}
HALF = b"x" * 40_000


@dataclass
class Node:
    edge: EdgeProcess
    origin: ThreadedOrigin
    config: Path

    def stats(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.edge.admin("GET", "/api/cache/stats").body)["node"]
        return told

    def pids(self) -> dict[int, int]:
        """Slot -> pid, of those that serve."""
        return {each["worker"]: each["pid"] for each in self.stats()["each"] if each["state"] == "ready"}

    def set(self, **settings: object) -> None:
        self.config.write_text(written(settings))

    def replace(self) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.edge.admin_port, timeout=120)
        with contextlib.closing(connection):
            fields = {"Authorization": f"Bearer {self.edge.token}"}
            connection.request("POST", "/api/workers/replace", headers=fields)
            reply = connection.getresponse()
            return Answer(reply.status, tuple(reply.getheaders()), reply.read())

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgeproxy", *arguments, "--admin", f"127.0.0.1:{self.edge.admin_port}"],
            env={**environment(), "EDGEPROXY_ADMIN_TOKEN": self.edge.token},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


def written(settings: dict[str, object]) -> str:
    return "".join(f"{name}: '{value}'\n" for name, value in settings.items())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("rolling")
    config = directory / "edge.yaml"
    config.write_text(written(FILE))
    flags = ["--config", str(config), "--drain-grace", "40s", "--drain-timeout", "100s"]
    with (
        threaded_origin() as origin,
        edgeproxy_process(origin.url, directory, store=None, arguments=flags) as edge,
    ):
        yield Node(edge, origin, config)
        assert edge.process.poll() is None


def test_settings_that_are_wrong_replace_nobody(node: Node) -> None:
    before = node.pids()
    assert len(before) == 2
    try:
        node.set(**(FILE | {"workers": "many"}))
        answer = node.replace()
        assert answer.status == 422
        assert "edge.yaml: workers: 'many': expected a whole number" in json.loads(answer.body)["detail"]
        assert node.pids() == before
    finally:
        node.set(**FILE)


def test_workers_that_do_not_start_replace_nobody(node: Node) -> None:
    """C5: the status, the reason and the state are told; what was in force still is."""
    before = node.pids()
    says = "--access-log: /dev/null/x.log: Not a directory"  # only a worker finds this out
    try:
        node.set(**(FILE | {"access_log": "/dev/null/x.log"}))
        done = node.command("reload", "--workers")
        assert done.returncode == 1
        assert says in done.stderr
        assert node.pids() == before
        told = node.stats()["replacement"]
        assert not told["under_way"]
        assert told["last"] == {"replaced": 0, "why_not": says}
        shown = node.command("stats").stdout
        assert f"was given up: {says}" in shown
        assert f"worker 1: ready, pid {before[1]}, up " in shown
        assert "edgeproxy_node_replacement_failed 1" in node.edge.admin("GET", "/metrics").body.decode()
        # One that crashes now starts with the settings that the others have.
        os.kill(before[1], signal.SIGKILL)
        until(lambda: node.pids().get(1, before[1]) != before[1], "the replacement of the one that crashed")
        assert node.pids()[2] == before[2]
    finally:
        node.set(**FILE)


@dataclass
class Load:
    """What its clients saw."""

    node: Node
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, number: int, *, kept: bool) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + number / RATE
        pause = 2 * KEPT / RATE
        connection: RawClient | None = None
        serial = 0
        while not self.ending.is_set():
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + pause, loop.time())  # what a slow machine did not do is not made up for
            serial += 1
            # Half of them hits, half misses.
            target = f"/hit/{number}" if serial % 2 else f"/miss/{number}/{kept}/{serial}"
            try:
                if connection is None:
                    connection = RawClient("127.0.0.1", self.node.edge.port)
                    await connection.connect()
                    self.seen["connections"] += 1
                answer = await connection.request("GET", target)
                if answer.status != 200 or not answer.complete or not answer.body.startswith(target.encode()):
                    self.wrong.append(f"{target}: {answer.status}, {answer.body[:80]!r}")
                self.seen["kept" if kept else "new"] += 1
                if not answer.keep_alive:
                    self.seen["last answers"] += 1
                if not kept or not answer.keep_alive:
                    await connection.aclose()
                    connection = None
            except (OSError, MalformedAnswer, EOFError, TimeoutError) as error:
                self.wrong.append(f"{target}, {'kept' if kept else 'new'}: {error!r}")
                connection = None
        if connection is not None:
            await connection.aclose()

    async def download(self, target: str) -> None:
        """One that begins before a replacement and ends after it."""
        async with RawClient("127.0.0.1", self.node.edge.port, timeout=100) as connection:
            answer = await connection.request("GET", target)
        if answer.status != 200 or not answer.complete or answer.body != HALF + HALF:
            self.wrong.append(f"{target}: {answer.status}, {len(answer.body)} octets")
        self.seen["downloads"] += 1


@pytest.mark.timeout(300)
async def test_five_replacements_under_load_lose_nothing(node: Node) -> None:
    """C4: 500 requests a second on kept and on new connections, downloads that outlast their worker."""
    load, loop = Load(node), asyncio.get_running_loop()
    origin = node.origin.ledger
    answer = head(200, [("Content-Length", str(2 * len(HALF))), ("Cache-Control", "no-store")])
    origin.cache_control = "max-age=600"
    background = Background()
    clients = [background.spawn(load.client(n, kept=n % 2 == 0), "client") for n in range(2 * KEPT)]
    for turn, workers in enumerate((3, 2, 1, 2, 2)):
        before = await asyncio.to_thread(node.pids)
        generation = (await asyncio.to_thread(node.stats))["generation"] + 1
        origin.script(f"/long/{turn}", [answer, HALF, Gate(f"turn {turn}"), HALF, FIN])
        downloads = [
            background.spawn(load.download(f"/long/{turn}?{n}"), "download") for n in range(DOWNLOADS // 5)
        ]
        await asyncio.to_thread(node.origin.reached, f"turn {turn}", len(downloads))
        node.set(**FILE | {"workers": workers})
        replaced = loop.run_in_executor(None, node.replace)
        handing_over = False
        while not handing_over:
            told = (await asyncio.to_thread(node.stats))["each"]
            assert len({each["generation"] for each in told}) <= 2
            states = {(each["state"], each["generation"] == generation) for each in told}
            handing_over = {("retiring", False), ("ready", True)} <= states
            assert not replaced.done()  # it waits for those that still have a download
            await asyncio.sleep(0.05)
        assert not any(each.done() for each in downloads)
        node.origin.open(f"turn {turn}")
        assert (await replaced).status == 200, (await replaced).body
        await asyncio.gather(*downloads)
        after = await asyncio.to_thread(node.pids)
        assert len(after) == workers
        assert not set(after.values()) & set(before.values())
    load.ending.set()
    await asyncio.gather(*clients)
    assert load.wrong == []
    assert load.seen["downloads"] == DOWNLOADS
    assert min(load.seen["kept"], load.seen["new"]) > 1000, load.seen
    assert load.seen["last answers"] > 0
    assert "Traceback" not in node.edge.log()
