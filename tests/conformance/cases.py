"""What a conformance case says, and how it is played: steps against one edge, on a driven clock.

A case names its section and is a list of steps. It has a host of its own, so that cases can share an edge;
``apart: true`` gives it an edge and an origin of its own, and so does ``rules``, a rule file. ``each`` is a
list: the case is played once for each, with that in place of ``{each}`` (``{each.0}``: its first member).
``known: reason`` marks what is not as the RFC says: the case must fail. In a step, in this order:

- ``wait``: seconds that pass. ``origin``: ``down`` or ``up`` (``apart`` only).
- ``answer``: fields that the origin answers with from now on ({} for none); ``once``: the same, for one
  request only, before that. With ``status``, ``body`` (or ``size``: of so many octets), ``interim`` (1xx
  heads sent before: status -> fields) and ``framing``: ``length`` (unless said), ``chunked``, ``close`` (ends
  with the connection), ``short`` (ends two octets before its announced end). ``at``: for this target and not
  ``/a``.
- ``ask``: the request's fields ({} for none), with ``method``, ``content`` and ``at``; then ``expect``:

  - ``cached``: the origin saw nothing; ``refreshed``: from the cache, and the origin was asked besides;
  - ``fetched``: it saw a request without conditions; ``validated``: with conditions; ``refetched``: one with,
    then one without;
  - ``unreached``: not from the cache, and the origin saw nothing.

  and ``gets``: the answer's status (200 unless said), ``sees``: fields of the answer (null: not there),
  ``brings``: its body, ``broken: true``: it breaks off, ``sends``: fields that the origin saw, ``caches``:
  the names in Cache-Status, in order, ``says``: all parameters of our member there. ``clients: 3``: so many
  ask the same while the origin takes its time; ``sharers_say`` is ``says`` for all but the first.

A field's value may be a list: one line each. ``{date+60}`` is the HTTP-date a minute from now, ``{host}`` the
case's host. Of every answer it is asked that it is well formed (``_well_formed``).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import http_sf

from edgeproxy.policy.http_date import format_http_date, parse_http_date
from tests.support.ledger import FIN, Gate, LedgerOrigin, chunk, head
from tests.support.yaml_cases import read_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.driven import DrivenClock
    from tests.support.edge import Edge
    from tests.support.ledger import Recorded, Step
    from tests.support.rawclient import RawAnswer

Said = dict[str, Any]

_DATE = re.compile(r"\{date([+-]-?\d+)?\}")
_CONDITIONS = ("if-none-match", "if-modified-since")
_BODILESS = (204, 304)
_ANSWER = {"answer", "once", "status", "body", "size", "interim", "framing"}
_ASK = {"ask", "method", "content", "clients", "expect"}
_SHOWN = {"gets", "sees", "brings", "broken", "sends", "caches", "says", "sharers_say"}
_STEP = {*_ANSWER, *_ASK, *_SHOWN, "at", "origin", "wait"}
_CASE = {"id", "section", "steps", "each", "apart", "known", "rules"}
_ONCE_AT_MOST = ("date", "etag", "content-length", "x-cache-status", "x-request-id")
_TYPES: dict[str, type] = {
    # RFC 9211 §2; the others are ours.
    "hit": bool,
    "fwd": http_sf.Token,
    "fwd-status": int,
    "ttl": int,
    "stored": bool,
    "collapsed": bool,
    "rule": str,
    "detail": http_sf.Token,
}
_FORWARDED = {"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}


def load() -> list[tuple[str, Said]]:
    """Every case with its name: the file, the section and what it is about. Raises AssertionError."""
    cases: list[tuple[str, Said]] = []
    for path in sorted(Path(__file__).with_name("cases").glob("*.yaml")):
        for case in read_cases(path):
            name = f"{path.stem} {case['section'].strip('§')}: {case['id']}"
            assert set(case) <= _CASE, f"{name}: {set(case) - _CASE}"
            for number, step in enumerate(case["steps"], 1):
                assert set(step) <= _STEP, f"{name}: step {number}: {set(step) - _STEP}"
            if "each" in case:
                steps = case["steps"]
                cases += ((f"{name}: {one}", {**case, "steps": _with(steps, one)}) for one in case["each"])
            else:
                cases.append((name, case))
    twice = [name for name, times in Counter(name for name, _ in cases).items() if times > 1]
    assert not twice, twice
    return cases


def _with(said: Any, one: Any) -> Any:
    """``said`` with ``one`` in place of ``{each}``."""
    if isinstance(said, dict):
        return {_with(name, one): _with(value, one) for name, value in said.items()}
    if isinstance(said, list):
        return [_with(value, one) for value in said]
    if not isinstance(said, str):
        return said
    for number, member in enumerate(one if isinstance(one, list) else ()):
        said = said.replace(f"{{each.{number}}}", str(member))
    return one if said == "{each}" else said.replace("{each}", str(one))


@dataclass
class Stage:
    """One case at play. ``host`` is its own."""

    clock: DrivenClock
    origin: LedgerOrigin
    edge: Edge
    host: str

    async def play(self, case: Said) -> None:
        for number, step in enumerate(case["steps"], 1):
            try:
                await self._step(step)
            except AssertionError as found:
                raise AssertionError(f"step {number}: {found}") from None

    async def _step(self, step: Said) -> None:
        if "wait" in step:
            await self.clock.advance(step["wait"])
        if "origin" in step:
            await (self.origin.stop() if step["origin"] == "down" else self.origin.start())
        for kind, times in (("answer", None), ("once", 1)):
            if kind in step:
                self._answer(step, self._fields(step[kind]), times)
        if "ask" in step:
            await self._ask(step)

    def _answer(self, step: Said, fields: list[tuple[str, str]], times: int | None) -> None:
        status, framing = step.get("status", 200), step.get("framing", "length")
        body = b"x" * step["size"] if "size" in step else str(step.get("body", "whole")).encode()
        body = b"" if status in _BODILESS else body
        interim = b"".join(
            head(number, self._fields(said)) for number, said in step.get("interim", {}).items()
        )
        end: list[Step] = []
        if framing == "chunked":
            fields = [*fields, ("Transfer-Encoding", "chunked")]
            end = [chunk(body), chunk(b"")]
        elif framing == "close":
            end = [body, FIN]
        elif framing == "short":
            fields = [*fields, ("Content-Length", str(len(body) + 2))]
            end = [body, FIN]
        elif body:
            fields = [*fields, ("Content-Length", str(len(body)))]
            end = [body]
        begin: list[Step] = [Gate("clients")] if "clients" in step else []
        begin.append(interim + head(status, fields))

        def made(asked: Recorded) -> Sequence[Step]:
            return begin if asked.method == "HEAD" else [*begin, *end]

        self.origin.script(step.get("at", "/a"), made, times=times)

    async def _ask(self, step: Said) -> None:
        before = len(self.origin.requests)
        answers = await (self._together(step, step["clients"]) if "clients" in step else self._one(step))
        await self.edge.settle()
        seen = self.origin.requests[before:]
        came = _came(seen, answers[0])
        assert came == step["expect"], f"{came}, {answers[0].status}, {answers[0].get('cache-status')}"
        if "sends" in step:
            self._compare(step["sends"], seen[-1].get, "the request")
        self._interim(step, answers[0], came)
        for number, answer in enumerate(answers):
            self._shown(step, answer, "sharers_say" if number else "says")

    async def _one(self, step: Said) -> list[RawAnswer]:
        method = step.get("method", "GET")
        content = step.get("content", "content" if method in ("POST", "PUT", "PATCH") else None)
        async with self.edge.client() as client:
            answer = await client.request(
                method,
                self._filled(step.get("at", "/a")),
                self._fields(step["ask"]),
                body=None if content is None else content.encode(),
                host=self.host,
            )
        return [answer]

    async def _together(self, step: Said, clients: int) -> list[RawAnswer]:
        gate = self.origin.gate("clients")
        gate.close()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(self._one(step))
            await gate.reached()
            others = [group.create_task(self._one(step)) for _ in range(clients - 1)]
            await self.edge.waiting(clients - 1)
            gate.open()
        return [answer for task in (first, *others) for answer in task.result()]

    def _shown(self, step: Said, answer: RawAnswer, says: str) -> None:
        assert answer.status == step.get("gets", 200), answer.status
        assert answer.complete is not step.get("broken", False), f"complete: {answer.complete}"
        _well_formed(answer, step.get("method", "GET"))
        self._compare(step.get("sees", {}), answer.get, "the answer")
        if "brings" in step:
            assert answer.body.decode() == str(step["brings"]), answer.body
        members = _cache_status(answer)
        if "caches" in step:
            assert [str(name) for name, _ in members] == step["caches"], answer.get("cache-status")
        if says in step:
            assert members, "no Cache-Status"
            said = {n: str(v) if isinstance(v, http_sf.Token) else v for n, v in members[-1][1].items()}
            assert said == step[says], answer.get("cache-status")

    def _interim(self, step: Said, answer: RawAnswer, came: str) -> None:
        told = {interim.status: interim for interim in answer.interim}
        for status, said in step.get("interim", {}).items():
            assert status in told, f"no {status}"
            self._compare(said, told[status].get, f"the {status}")
        assert came != "cached" or not told, "a stored 1xx"

    def _compare(self, wanted: Said, given: Any, where: str) -> None:
        for name, value in wanted.items():
            expected = None if value is None else self._filled(str(value))
            assert given(name) == expected, f"{where}: {name}: {given(name)!r}"

    def _fields(self, given: Said) -> list[tuple[str, str]]:
        return [
            (name, self._filled(str(line)))
            for name, value in given.items()
            for line in (value if isinstance(value, list) else [value])
        ]

    def _filled(self, text: str) -> str:
        text = text.replace("{host}", self.host)
        return _DATE.sub(self._date, text)

    def _date(self, found: re.Match[str]) -> str:
        seconds = (found[1] or "0").replace("--", "+")  # of "{date-{each}}" with a negative one
        return format_http_date(self.clock.now() + int(seconds))


def _came(seen: Sequence[Recorded], answer: RawAnswer) -> str:
    """Where the answer came from, in one word."""
    members = _cache_status(answer)
    hit = bool(members) and "hit" in members[-1][1]
    conditional = [
        asked.method in ("GET", "HEAD", "QUERY") and any(asked.get(name) is not None for name in _CONDITIONS)
        for asked in seen
    ]
    if not seen:
        return "cached" if hit or answer.get("x-cache-status") == "HIT" else "unreached"
    if hit:
        return "refreshed"
    if conditional == [True, False]:
        return "refetched"
    assert len(seen) == 1, f"the origin was asked {len(seen)} times"
    return "validated" if conditional[0] else "fetched"


def _cache_status(answer: RawAnswer) -> list[tuple[object, dict[str, object]]]:
    """The members of Cache-Status, closest to the origin first (RFC 9211 §2). Raises AssertionError."""
    value = answer.get("cache-status")
    if value is None:
        return []
    try:
        parsed = http_sf.parse(value.encode(), tltype="list")
    except ValueError as error:
        raise AssertionError(f"Cache-Status is no structured list: {value}") from error
    return cast("list[tuple[object, dict[str, object]]]", parsed)


def _well_formed(answer: RawAnswer, method: str) -> None:
    """What holds for every answer, whatever the case is about."""
    for name in _ONCE_AT_MOST:
        assert len(answer.all(name)) <= 1, f"{name}: {answer.all(name)}"
    # RFC 9110 §6.6.1: a recipient with a clock adds a missing Date.
    assert parse_http_date(answer["date"]) is not None, answer["date"]
    for name in ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"):
        assert name == "connection" or name not in answer, f"{name} was handed on"
    if answer.status in _BODILESS or method == "HEAD":
        assert not answer.body, "a body where there is none"
    members = _cache_status(answer)
    if not members:
        return
    _, said = members[-1]
    # What is passed on and not stored keeps the Age it came with, whatever it is.
    if {"hit", "stored"} & set(said):
        assert re.fullmatch(r"[0-9]+", answer.get("age") or "0"), answer.get("age")  # and one line
    for name, value in said.items():
        assert type(value) is _TYPES[name], f"{name}: {value!r}"
    made_here = answer.get("content-type") == "application/problem+json"
    assert made_here or ("hit" in said) != ("fwd" in said), (
        f"one of hit and fwd: {answer.get('cache-status')}"
    )
    assert str(said.get("fwd", "miss")) in _FORWARDED, said
    assert "fwd" in said or not {"fwd-status", "stored", "collapsed"} & set(said), said
    # "Boolean parameters" that are true are written without a value (RFC 9651 §3.1.2).
    assert "=?" not in str(answer.get("cache-status")), answer.get("cache-status")
