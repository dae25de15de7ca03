"""Whatever is asked for in whatever order, of an honest origin: every answer is exactly the right octets."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin
from tests.support.ranged import Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.edge import Edge
    from tests.support.rawclient import RawAnswer


@dataclass
class Running:
    """One origin and one edge for all examples, each of which has a path of its own."""

    runner: asyncio.Runner
    origin: LedgerOrigin
    edge: Edge
    numbers: Iterator[int]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    clock = DrivenClock()
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()

        async def start() -> tuple[LedgerOrigin, Edge]:
            origin = await stack.enter_async_context(LedgerOrigin(clock=clock))
            return origin, await stack.enter_async_context(running_edge(origin.url, clock=clock))

        origin, edge = runner.run(start())
        yield Running(runner, origin, edge, count())
        runner.run(stack.aclose())


SIZES = st.integers(0, 12)
SPANS = (
    st.tuples(SIZES, SIZES).map(lambda p: f"bytes={min(p)}-{max(p)}")
    | SIZES.map(lambda first: f"bytes={first}-")
    | SIZES.map(lambda last: f"bytes=-{last}")
)
STEP = st.one_of(
    st.just(("whole", "")),
    SPANS.map(lambda span: ("range", span)),
    SPANS.map(lambda span: ("guarded", span)),
    st.just(("change", "")),
    st.just(("grow old", "")),
    st.tuples(SPANS, SPANS).map(lambda two: ("two", "|".join(two))),
)


def _torn(cut: int, first: int) -> list[tuple[str, str]]:
    """The two sides of a cut, of two representations, and then both: what must never be joined."""
    sides = [f"bytes=0-{cut}", f"bytes={cut + 1}-"]
    return [("range", sides[first]), ("change", ""), ("range", sides[1 - first]), ("whole", "")]


STEPS = st.lists(
    STEP.map(lambda step: [step]) | st.builds(_torn, st.integers(0, 6), st.integers(0, 1)),
    min_size=2,
    max_size=10,
).map(lambda some: [step for steps in some for step in steps])
KINDS = st.sampled_from(['"{}"', 'W/"{}"', ""])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(min_size=1, max_size=10),
    steps=STEPS,
    kind=KINDS,
    chunked=st.booleans(),
    ignores=st.booleans(),
)
def test_every_answer_is_right(
    running: Running, body: bytes, steps: list[tuple[str, str]], kind: str, *, chunked: bool, ignores: bool
) -> None:
    path = f"/{next(running.numbers)}"
    resource = Resource(body, kind.format(0), chunked=chunked, ignores_if_range=ignores)
    resource.serve(running.origin, path)
    running.runner.run(_play(running.edge, resource, path, steps, kind))


async def _play(edge: Edge, resource: Resource, path: str, steps: list[tuple[str, str]], kind: str) -> None:
    bodies = [resource.body]
    for number, (step, span) in enumerate(steps, 1):
        if step == "change":
            # Same length, so that nothing but the validator tells.
            resource.body = bytes((octet + number) % 256 for octet in resource.body)
            resource.etag = kind.format(number)
            bodies.append(resource.body)
            continue
        if step == "grow old":
            await edge.clock.advance(100)
            bodies = [resource.body] if kind else bodies
            continue
        fields = [("Range", one) for one in span.split("|") if one]
        if step == "two":
            asked = [edge.get(path, field) for field in fields]
            for answer, field in zip(await asyncio.gather(*asked), fields, strict=True):
                _right(answer, bodies, field[1])
        else:
            if step == "guarded" and resource.etag:
                fields.append(("If-Range", resource.etag))
            _right(await edge.get(path, *fields), bodies, span)
        await edge.settle()


def _right(answer: RawAnswer, bodies: list[bytes], span: str) -> None:
    """One of the bodies that there have been, in the form that was asked for; never a mix of two."""
    assert answer.complete
    right: list[tuple[int, bytes, str | None]] = []
    for body in bodies:
        total = len(body)
        first, _, last = span.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, total - int(last or 0))
        stop = min(total, int(last) + 1) if first and last else total
        right.append((200, body, None))
        if span and start < stop:
            right.append((206, body[start:stop], f"bytes {start}-{stop - 1}/{total}"))
        elif span:
            right.append((416, b"", f"bytes */{total}"))
    assert (answer.status, answer.body, answer.get("Content-Range")) in right
    if not span:
        assert answer.status == 200
