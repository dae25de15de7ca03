"""Load, and what goes wrong meanwhile: drawn from a seed, one thing every half second.

Rules of this file:

- Clients ask all the time, on kept connections, and check each answer with the ledger. Somebody writes
  through the nodes, and changes a group at the origin and purges its tag, all the time too.
- What is broken is mended before the end of the run, and by whoever broke it.
- The draw depends on the seed, what comes of it on much else: the seed is where to begin to look, no replay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.clock import Clock
from tests.chaos.ledger import Ledger
from tests.chaos.parts import FRESH, Node, Origin, Redis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

GROUPS, ITEMS = 4, 8
CLIENTS = 6
"""For each node."""
EVERY = 0.5
PATIENCE = 8.0
"""Seconds that a request may take: many things are slow here, none for ever."""
BACK = 20.0
"""Seconds after which a Redis that is back is to be in use."""
LOST = 2.0
"""Seconds after which what was broken is behind us: leases, breakers and pauses have run out."""


class Broken(Exception):  # noqa: N818 - what happened to a connection
    pass


class Connection:
    """A kept connection. ``alive``: when it was opened, or when what it last answered was asked: the answer
    may have been on its way when its process was killed."""

    def __init__(self, port: int, clock: Clock) -> None:
        self._port = port
        self._clock = clock
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.alive = 0.0

    async def ask(self, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        """Raises Broken."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(method, target)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.close()
            raise Broken(f"{method} {target}: {error!r}") from None

    async def _ask(self, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self.alive = self._clock.monotonic()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        began = self._clock.monotonic()
        body = b"x" if method == "PUT" else b""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: chaos.example\r\n{length}\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(fields["content-length"]))
        self.alive = began
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(first.split(" ")[1]), fields, content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Report:
    ledger: Ledger
    seconds: float
    done: dict[str, int] = field(default_factory=dict)
    """How often each thing was done."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(second, MiB resident) of a process, on the average; so are the next two."""
    descriptors: list[tuple[float, float]] = field(default_factory=list)
    tasks: list[tuple[float, float]] = field(default_factory=list)
    """Of a worker."""
    logged: list[str] = field(default_factory=list)
    """Unhandled exceptions in the nodes' logs."""


class Chaos:
    def __init__(
        self, directory: Path, seed: int, *, nodes: int, workers: int, say: Callable[[str], None]
    ) -> None:
        self._draw = random.Random(seed)
        self._spread = random.Random(seed + 1)
        self._clock = Clock()
        self._say = say
        self.ledger = Ledger(fresh=FRESH - 1.2, calm=LOST)
        self._origin = Origin(lambda key, version: self.ledger.fetched(key, version, self._now()))
        self._redis = Redis(directory / "redis")
        self._directory = directory
        self._count, self._workers = nodes, workers
        self._nodes: list[Node] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._mending: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._began = 0.0
        self._redis_busy = False
        self._report = Report(self.ledger, 0.0)
        self._things: dict[str, Callable[[], Awaitable[bool]]] = {
            "kill -9 a worker": self._kill_worker,
            "kill -9 a node": self._kill_node,
            "stop Redis": self._stop_redis,
            "restart Redis": self._restart_redis,
            "lose Redis": self._lose_redis,
            "hang Redis": self._hang_redis,
            "purge by tag": self._purge,
            "write through": self._write,
            "reload the rules": self._reload,
            "replace all workers": self._replace,
        }

    def _now(self) -> float:
        return self._clock.monotonic() - self._began

    async def run(self, seconds: float, *, calm: float) -> Report:
        """``calm`` seconds of nothing but load, purges and writes come first."""
        await self._origin.start()
        self._redis.start()
        self._nodes = [
            Node(f"node-{n}", self._directory / f"node-{n}", self._origin.url, self._redis.url, self._workers)
            for n in range(1, self._count + 1)
        ]
        try:
            for node in self._nodes:
                node.start()
            await asyncio.gather(*(node.ready() for node in self._nodes))
            self._began = self._clock.monotonic()
            for node in self._nodes:
                for _ in range(CLIENTS):
                    self._spawn(self._client(node), self._tasks)
            self._spawn(self._changer(), self._tasks)
            self._spawn(self._sampler(), self._tasks)
            await asyncio.sleep(calm)
            while self._now() < seconds + calm:
                next_thing = asyncio.sleep(EVERY)
                await asyncio.gather(self._one_thing(), next_thing)
            while self._mending:
                await asyncio.wait(self._mending)
            await asyncio.sleep(LOST)
            self._over.set()
            await asyncio.gather(*self._tasks)
        finally:
            for task in (*self._tasks, *self._mending):
                task.cancel()
            for node in self._nodes:
                node.kill()
            self._redis.kill()
            await self._origin.stop()
        self._report.seconds = self._now()
        for node in self._nodes:
            self._report.logged += [line for line in node.log().splitlines() if line.startswith("Traceback")]
        return self._report

    def _spawn(self, work: Coroutine[object, object, None], where: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        where.add(task)
        if where is self._mending:
            task.add_done_callback(self._mended)

    def _mended(self, task: asyncio.Task[None]) -> None:
        self._mending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.ledger.failed.append(f"not mended at {self._now():.3f}: {error!r}")

    # -- load -------------------------------------------------------------------------------------------

    def _key(self) -> str:
        return f"/items/{self._spread.randrange(GROUPS)}/{self._spread.randrange(ITEMS)}"

    async def _client(self, node: Node) -> None:
        connection = Connection(node.port, self._clock)
        while not self._over.is_set():
            if not node.up:
                connection.close()
                await asyncio.sleep(0.02)
                continue
            key = self._key()
            floor = self.ledger.floor(key)
            answer = await self._asked(node, connection, "GET", key)
            if answer is not None:
                body = answer[1].split()
                what = f"{self._now():.3f} {node.name} {answer[0].get('x-cache-status')}"
                self.ledger.answered(what, key, int(body[1]), floor)
            await asyncio.sleep(0.03)
        connection.close()

    async def _asked(
        self, node: Node, connection: Connection, method: str, key: str
    ) -> tuple[dict[str, str], bytes] | None:
        """None where it failed, which the ledger has been told."""
        try:
            status, fields, body = await connection.ask(method, key)
            if status == 200:
                return fields, body
            what = f"{method} {key}: {status} {fields.get('cache-status')}"
        except Broken as error:
            what = str(error)
        self.ledger.failed_on(node.name, what, connection.alive - self._began, self._now())
        return None

    async def _changer(self) -> None:
        """Purges and writes, in turn, all the time."""
        turn = 0
        while not self._over.is_set():
            turn += 1
            await (self._purge() if turn % 4 == 0 else self._write())
            await asyncio.sleep(0.08)

    async def _write(self) -> bool:
        node = self._somebody()
        if node is None:
            return False
        key, began = self._key(), self._now()
        connection = Connection(node.port, self._clock)
        answer = await self._asked(node, connection, "PUT", key)
        connection.close()
        if answer is None:
            # It may have been carried out; what it was to purge may not have been.
            self.ledger.changed(began, self._now(), {key: 0}, complete=False)
        else:
            fields, body = answer
            complete = "purge-pending" not in fields.get("cache-status", "")
            self.ledger.changed(began, self._now(), {key: int(body.split()[1])}, complete=complete)
        return True

    async def _purge(self) -> bool:
        node = self._somebody()
        if node is None:
            return False
        group, began = self._spread.randrange(GROUPS), self._now()
        versions = {key: self._origin.bump(key) for key in (f"/items/{group}/{n}" for n in range(ITEMS))}
        status = 0
        with contextlib.suppress(OSError, EOFError, ValueError):
            body = json.dumps({"tag": f"group-{group}"}).encode()
            status = (await asyncio.to_thread(node.admin, "POST", "/api/cache/purge", body)).status
        self.ledger.changed(began, self._now(), versions, complete=status == 200)
        return True

    def _somebody(self) -> Node | None:
        up = [node for node in self._nodes if node.up]
        return self._spread.choice(up) if up else None

    async def _sampler(self) -> None:
        while not self._over.is_set():
            await self._sample()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._over.wait()

    async def _sample(self) -> None:
        processes = [each for node in self._nodes for each in node.resources()]
        if processes:
            octets, descriptors = (sum(column) / len(processes) for column in zip(*processes, strict=True))
            self._report.memory.append((self._now(), octets / 2**20))
            self._report.descriptors.append((self._now(), descriptors))
        asked = [asyncio.to_thread(node.tasks) for node in self._nodes if node.up]
        told = [tasks for tasks in await asyncio.gather(*asked) if tasks is not None]
        if told:
            self._report.tasks.append((self._now(), sum(told) / len(told)))

    # -- what goes wrong --------------------------------------------------------------------------------

    async def _one_thing(self) -> None:
        for name in self._draw.sample(list(self._things), len(self._things)):
            if await self._things[name]():
                self._report.done[name] = self._report.done.get(name, 0) + 1
                self._say(f"{self._now():7.2f} {name}")
                return

    def _victim(self) -> Node | None:
        """A node to do something to, never the last one that is up."""
        node = self._draw.choice(self._nodes)
        return node if node.up and sum(n.up for n in self._nodes) > 1 else None

    async def _kill_worker(self) -> bool:
        node = self._victim()
        pids = []
        if node is not None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                pids = await asyncio.to_thread(node.workers)
        if node is None or len(pids) < 2:
            return False  # the other one is being started again
        self.ledger.broke(self._now(), node.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._draw.choice(pids), signal.SIGKILL)
        return True

    async def _kill_node(self) -> bool:
        node = self._victim()
        if node is None:
            return False
        self.ledger.broke(self._now(), node.name)
        node.kill()
        self._spawn(self._again(node), self._mending)
        return True

    async def _again(self, node: Node) -> None:
        node.start()
        await node.ready()
        self.ledger.broke(self._now())

    async def _stop_redis(self) -> bool:
        return await self._redis_trouble(self._redis.kill, self._draw.uniform(0.3, 2.0))

    async def _restart_redis(self) -> bool:
        return await self._redis_trouble(self._redis.kill, 0.0)

    async def _lose_redis(self) -> bool:
        return await self._redis_trouble(self._redis.lose, self._draw.uniform(0.0, 1.0))

    async def _hang_redis(self) -> bool:
        return await self._redis_trouble(
            lambda: self._redis.signal(signal.SIGSTOP), self._draw.uniform(0.3, 2.0)
        )

    async def _redis_trouble(self, trouble: Callable[[], None], seconds: float) -> bool:
        if self._redis_busy:
            return False
        self._redis_busy = True
        began = self._now()
        self.ledger.broke(began)
        trouble()
        self._spawn(self._mend_redis(began, seconds), self._mending)
        return True

    async def _mend_redis(self, began: float, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._redis.start()
        self._redis.signal(signal.SIGCONT)
        self.ledger.broke(self._now())
        self._redis_busy = False
        # Not before all say that they use it again: how soon that is depends on the machine.
        until = self._now() + BACK
        while self._now() < until and not await self._all_use_redis():  # noqa: ASYNC110 - they ring no bell
            await asyncio.sleep(0.1)
        self.ledger.broke(self._now())
        self.ledger.away(began, self._now())

    async def _all_use_redis(self) -> bool:
        asked = [asyncio.to_thread(node.uses_redis) for node in self._nodes if node.up]
        return all(await asyncio.gather(*asked))

    async def _reload(self) -> bool:
        for node in self._nodes:
            node.write_rules()
            if node.up:  # what is starting has not said yet what SIGHUP means to it
                node.signal(signal.SIGHUP)
        return True

    async def _replace(self) -> bool:
        node = self._victim()
        if node is None:
            return False
        self.ledger.broke(self._now())  # for a while nobody is quick
        node.signal(signal.SIGUSR2)
        return True
