"""Our own conformance cases: data in ``cases/``, one file for each RFC, on a driven clock, without Node.js.

A case names its section and is a list of steps against ``/a``:

- ``answer``: fields that the origin answers with from now on ({} for none); with ``status``, ``body`` and
  ``interim`` (1xx heads sent before: status -> fields).
- ``wait``: seconds that pass.
- ``ask``: the request's fields ({} for none), with ``method``; then ``expect``: ``cached`` (the origin saw
  nothing), ``fetched`` (it saw a request without conditions), ``validated`` (with conditions); and
  ``sees``: fields of the answer (null: not there), ``gets``: its status (200 unless said), ``reads``: its
  body, ``saw``: fields of the last request that the origin saw (null: not there).

A field's value may be a list: one line each. ``{date+60}`` is the HTTP-date a minute from now.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from edgeproxy.policy.http_date import format_http_date
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin, head

if TYPE_CHECKING:
    from tests.support.edge import Edge

CASES: list[Any] = [
    pytest.param(case, id=f"{path.stem} {case['section'].strip('§')}: {case['id']}")
    for path in sorted(Path(__file__).with_name("cases").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]
_DATE = re.compile(r"\{date([+-]\d+)?\}")
_CONDITIONS = ("if-none-match", "if-modified-since")
_STEP = {
    "answer",
    "status",
    "body",
    "interim",
    "wait",
    "ask",
    "method",
    "expect",
    "sees",
    "gets",
    "reads",
    "saw",
}


@pytest.mark.parametrize("case", CASES)
async def test_case(case: dict[str, Any]) -> None:
    clock = DrivenClock()
    async with LedgerOrigin(clock=clock) as origin, running_edge(origin.url, clock=clock) as edge:
        for number, step in enumerate(case["steps"], 1):
            assert set(step) <= _STEP, f"step {number}: {set(step) - _STEP}"
            if "answer" in step:
                _answer(origin, clock, step)
            if "wait" in step:
                await clock.advance(step["wait"])
            if "ask" in step:
                await _ask(origin, clock, edge, step, number)


def _answer(origin: LedgerOrigin, clock: DrivenClock, step: dict[str, Any]) -> None:
    status = step.get("status", 200)
    body = b"" if status in (204, 304) else str(step.get("body", "whole")).encode()
    interim = b"".join(head(status, _fields(clock, said)) for status, said in step.get("interim", {}).items())
    length = [("Content-Length", str(len(body)))] if body else []
    octets = head(status, [*_fields(clock, step["answer"]), *length])
    origin.script("/a", lambda asked: [interim + octets + (b"" if asked.method == "HEAD" else body)])


async def _ask(
    origin: LedgerOrigin, clock: DrivenClock, edge: Edge, step: dict[str, Any], number: int
) -> None:
    before = origin.count("/a")
    method = step.get("method", "GET")
    body = b"content" if method == "POST" else None
    answer = await edge.request(method, "/a", _fields(clock, step["ask"]), body)
    await edge.settle()
    seen = origin.of("/a")[before:]
    conditional = any(asked.get(name) is not None for asked in seen for name in _CONDITIONS)
    came = "cached" if not seen else "validated" if conditional else "fetched"
    assert came == step["expect"], f"step {number}: {came}"
    assert answer.status == step.get("gets", 200), f"step {number}"
    for name, value in step.get("sees", {}).items():
        wanted = None if value is None else _dated(clock, str(value))
        assert answer.get(name) == wanted, f"step {number}: {name}: {answer.get(name)}"
    if "reads" in step:
        assert answer.body.decode() == str(step["reads"]), f"step {number}"
    for name, value in step.get("saw", {}).items():
        assert seen[-1].get(name.lower()) == value, f"step {number}: the origin saw {name}"
    told = {answer.status: dict(answer.headers) for answer in answer.interim}
    for status, said in step.get("interim", {}).items():
        assert status in told, f"step {number}: no {status}"
        for name, value in said.items():
            assert told[status].get(name.lower()) == str(value), f"step {number}: {status} {name}"
    assert came != "cached" or not told, f"step {number}: a stored 1xx"


def _fields(clock: DrivenClock, given: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, _dated(clock, str(line)))
        for name, value in given.items()
        for line in (value if isinstance(value, list) else [value])
    ]


def _dated(clock: DrivenClock, text: str) -> str:
    return _DATE.sub(lambda found: format_http_date(clock.now() + int(found[1] or 0)), text)
