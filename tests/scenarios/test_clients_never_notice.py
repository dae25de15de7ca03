"""Every way an origin can fail, and how many of the clients' requests fail with it.

Rules of this file:

- A fault is a row of FAULTS: what the origin does to each request while it lasts. It lasts from half a
  second on for two seconds; a request begins every 100 ms.
- Three situations: two origins of which one is at fault; one origin and a warm cache, with answers that may
  be stale while they are refreshed, or only on errors. Each row says how many requests may fail in each.
  Where it is not 0 these are bodies whose head was out before they broke off, and the row says why there are
  no more.
- The count is compared, and kept as a property of the test (``--junit-xml`` has them all).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.breaker import State
from tests.support.driven import settle
from tests.support.edge import running_edge
from tests.support.ledger import FIN, RST, Gate, LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import Recorded, Step

EVERY = 0.1
BEGINS, ENDS, WHOLE = 0.5, 2.5, 4.0
BODY = b"0123456789" * 20


@dataclass(frozen=True)
class Fault:
    """``steps``: what each request gets, given the fields of a good answer. ``away``: what becomes of the
    listener instead: ``dead`` (refuses) or ``hole`` (accepts nothing). ``failed``: requests that may fail
    with two origins, with a warm cache that may be stale meanwhile, and with one that may on errors."""

    name: str
    steps: Callable[[list[tuple[str, str]]], Sequence[Step]] = lambda _: ()
    away: str = ""
    failed: tuple[int, int, int] = (0, 0, 0)


def answered(status: int, fields: list[tuple[str, str]], body: bytes, length: int | None = None) -> bytes:
    return head(status, [*fields, ("Content-Length", str(len(body) if length is None else length))]) + body


FAULTS = [
    Fault("killed", away="dead"),
    Fault("hangs at connect", away="hole"),
    Fault("hangs before the head", lambda _: [Gate("never")]),
    # The head is out. It is ejected after five in a row (what waits there by then hangs too), and one request
    # finds out whether it is back.
    Fault("hangs in the body", lambda f: [answered(200, f, BODY[:50], 200), Gate("never")], failed=(6, 0, 0)),
    Fault("resets at once", lambda _: [RST]),
    Fault("resets in the head", lambda _: [b"HTTP/1.1 200 OK\r\nContent-Le", RST]),
    Fault("resets in the body", lambda f: [answered(200, f, BODY[:50], 200), RST], failed=(5, 0, 0)),
    Fault("short body", lambda f: [answered(200, f, BODY[:50], 200), FIN], failed=(5, 0, 0)),
    Fault("over-long body", lambda f: [answered(200, f, BODY) + b"more than was said"]),
    Fault("garbage", lambda _: [b"220 mail.example ESMTP\r\n", FIN]),
    Fault("503 storm", lambda _: [answered(503, [("Cache-Control", "no-store")], b"busy")]),
    Fault("500 that wants to be kept", lambda _: [answered(500, [("Cache-Control", "max-age=60")], b"oh")]),
]


@dataclass
class Counted:
    asked: int = 0
    failed: int = 0


class Faulty:
    """An origin that answers well until ``begin``, and again after ``end``."""

    def __init__(self, origin: LedgerOrigin, fault: Fault, fields: list[tuple[str, str]]) -> None:
        self.origin = origin
        self._fault = fault
        self._fields = fields
        self._on = False
        self._hole: contextlib.ExitStack | None = None
        origin.script("/", self._script)

    def script(self, *paths: str) -> None:
        for path in paths:
            self.origin.script(path, self._script)

    def _script(self, _: Recorded) -> Sequence[Step]:
        return self._fault.steps(self._fields) if self._on else [answered(200, self._fields, BODY)]

    async def begin(self) -> None:
        self._on = not self._fault.away
        if not self._fault.away:
            return
        await self.origin.stop()
        if self._fault.away == "hole":
            self._hole = contextlib.ExitStack()
            listener = self._hole.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.origin.port))
            listener.listen(0)
            for _ in range(4):  # a backlog that is full neither accepts nor refuses
                filler = self._hole.enter_context(socket.socket())
                filler.settimeout(0)
                filler.connect_ex(listener.getsockname())

    async def end(self) -> None:
        self._on = False
        if self._hole is not None:
            self._hole.close()
        if self._fault.away:
            await self.origin.start()


async def asked_all_along(edge: Edge, clock: DrivenClock, faulty: Faulty, paths: Sequence[str]) -> Counted:
    """Requests every EVERY seconds while the fault comes and goes; what became of them."""
    counted = Counted()
    under_way: list[asyncio.Task[None]] = []

    async def ask(path: str) -> None:
        answer = await edge.get(path)
        counted.asked += 1
        counted.failed += answer.status != 200 or not answer.complete or answer.body != BODY

    steps = round(WHOLE / EVERY)
    for step in range(steps):
        if step == round(BEGINS / EVERY):
            await faulty.begin()
        if step == round(ENDS / EVERY):
            await faulty.end()
        under_way.append(asyncio.get_running_loop().create_task(ask(paths[step % len(paths)])))
        await clock.advance(EVERY)
    await clock.advance(2)
    await asyncio.gather(*under_way)
    assert counted.asked == steps
    return counted


EACH = [pytest.param(fault, id=fault.name) for fault in FAULTS]
POOL = """
rules: [{name: all, match: {path: "/**"}, origin: pair, RULE}]
pools:
  pair:
    origins: [ORIGINS]
    retries: {attempts: 2, on: [connect, reset, timeout, 5xx]}
    timeouts: {connect: 250ms, first_byte: 250ms, between_bytes: 250ms}
"""


@pytest.mark.parametrize("fault", EACH)
async def test_one_of_two(
    clock: DrivenClock, rules: Callable[[str], Path], fault: Fault, record_property: Callable[..., None]
) -> None:
    """Nothing is cached: what saves the request is that it is sent to the other one."""
    async with LedgerOrigin(clock=clock) as bad, LedgerOrigin(clock=clock) as good:
        fields = [("Cache-Control", "no-store")]
        faulty = Faulty(bad, fault, fields)
        good.script("/", [answered(200, fields, BODY)])
        text = POOL.replace("ORIGINS", f'"{bad.url}", "{good.url}"').replace("RULE", "pass: true")
        async with running_edge("http://127.0.0.1:1", clock=clock, rules=rules(text)) as edge:
            for _ in range(20):  # repeats are a part of what clients ask, so there has to be something
                await edge.get("/")
            counted = await asked_all_along(edge, clock, faulty, ["/"])
            before = bad.count("/")
            await clock.advance(5)
            for _ in range(8):
                assert (await edge.get("/")).status == 200
            assert bad.count("/") > before, "it is back"
        record_property("failed_client_requests", counted.failed)
        assert counted.failed <= fault.failed[0]


MEANWHILE = "max-age=1, stale-while-revalidate=60, stale-if-error=600"
ON_ERROR = "max-age=1, stale-if-error=600"


@pytest.mark.parametrize("fault", EACH)
@pytest.mark.parametrize(
    "control", [pytest.param(MEANWHILE, id="meanwhile"), pytest.param(ON_ERROR, id="on-error")]
)
async def test_one_and_a_warm_cache(
    origin: LedgerOrigin,
    clock: DrivenClock,
    rules: Callable[[str], Path],
    fault: Fault,
    control: str,
    record_property: Callable[..., None],
) -> None:
    """There is nobody else to ask: what saves the request is what is stored."""
    paths = [f"/k{n}" for n in range(5)]
    faulty = Faulty(origin, fault, [("Cache-Control", control)])
    faulty.script(*paths)
    text = POOL.replace("ORIGINS", f'"{origin.url}"').replace(", RULE", "")
    async with running_edge("http://127.0.0.1:1", clock=clock, rules=rules(text)) as edge:
        for path in paths:
            assert (await edge.get(path)).body == BODY
        counted = await asked_all_along(edge, clock, faulty, paths)
        # Whatever pauses the fault has left behind, they are short.
        await clock.advance(31)
        for path in paths:
            await edge.get(path)
        await edge.settle()
        await settle()
        for path in paths:
            assert (await edge.get(path))["X-Cache-Status"] == "HIT"
        member = next(iter(edge.worker.origin.pools["pair"].members))
        assert member.breaker.state is State.CLOSED
    record_property("failed_client_requests", counted.failed)
    assert counted.failed <= fault.failed[1 if control == MEANWHILE else 2]
