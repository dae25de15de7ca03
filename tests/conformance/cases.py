"""What a conformance case says, and how it is played: steps against one edge, on a clock that the test drives.

A case names its section and is a list of steps. It has a host of its own, so that cases can share an edge;
``apart: true`` gives it an edge and an origin of its own. ``each`` is a list: the case is played once for each,
with that in place of ``{each}`` (``{each.0}``: its first member). ``known: reason`` marks what is not as the RFC says: the case must fail. In a
step, in this order:

- ``wait``: seconds that pass. ``origin``: ``down`` or ``up`` (``apart`` only).
- ``answer``: fields that the origin answers with from now on ({} for none); ``once``: the same, for one request
  only, before that. With ``status``, ``body`` (or ``size``: of so many octets), ``interim`` (1xx heads sent
  before: status -> fields) and ``framing``: ``length`` (unless said), ``chunked``, ``close`` (ends with the connection), ``short`` (ends two
  octets before its announced end). ``at``: for this target and not ``/a``.
- ``ask``: the request's fields ({} for none), with ``method``, ``content`` and ``at``; then ``expect``:

  - ``cached``: the origin saw nothing; ``refreshed``: answered from the cache, and the origin was asked besides;
  - ``fetched``: it saw a request without conditions; ``validated``: with conditions; ``refetched``: one with,
    then one without;
  - ``unreached``: not from the cache, and the origin saw nothing.

  and ``gets``: the answer's status (200 unless said), ``sees``: fields of the answer (null: not there),
  ``brings``: its body, ``broken: true``: it breaks off, ``sends``: fields that the origin saw, ``caches``: the names in Cache-Status, in order,
  ``says``: all parameters of our member there.

A field's value may be a list: one line each. ``{date+60}`` is the HTTP-date a minute from now, ``{host}`` the
case's host. Of every answer it is asked that it is well formed (``_well_formed``).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import http_sf
import yaml

from edgeproxy.policy.http_date import format_http_date, parse_http_date
from tests.support.ledger import FIN, LedgerOrigin, chunk, head

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
_ASK = {"ask", "method", "content", "expect", "gets", "sees", "brings", "broken", "sends", "caches", "says"}
_STEP = {*_ANSWER, *_ASK, "at", "origin", "wait"}
_CASE = {"id", "section", "steps", "each", "apart", "known"}
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
        for case in yaml.safe_load(path.read_text()):
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
        interim = b"".join(head(number, self._fields(said)) for number, said in step.get("interim", {}).items())
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
        octets = interim + head(status, fields)

        def made(asked: Recorded) -> Sequence[Step]:
            return [octets] if asked.method == "HEAD" else [octets, *end]

        self.origin.script(step.get("at", "/a"), made, times=times)

    async def _ask(self, step: Said) -> None:
        target, method = self._filled(step.get("at", "/a")), step.get("method", "GET")
        content = step.get("content", "content" if method in ("POST", "PUT", "PATCH") else None)
        before = len(self.origin.requests)
        async with self.edge.client() as client:
            answer = await client.request(
                method,
                target,
                self._fields(step["ask"]),
                body=None if content is None else content.encode(),
                host=self.host,
            )
        await self.edge.settle()
        seen = self.origin.requests[before:]
        came = _came(seen, answer)
        assert came == step["expect"], f"{came}, {answer.status}, {answer.get('cache-status')}"
        assert answer.status == step.get("gets", 200), answer.status
        assert answer.complete is not step.get("broken", False), f"complete: {answer.complete}"
        _well_formed(answer, method)
        self._compare(step.get("sees", {}), answer.get, "the answer")
        if "sends" in step:
            self._compare(step["sends"], seen[-1].get, "the request")
        if "brings" in step:
            assert answer.body.decode() == str(step["brings"]), answer.body
        members = _cache_status(answer)
        if "caches" in step:
            assert [str(name) for name, _ in members] == step["caches"], answer.get("cache-status")
        if "says" in step:
            assert members, "no Cache-Status"
            assert {n: str(v) if isinstance(v, http_sf.Token) else v for n, v in members[-1][1].items()} == (
                step["says"]
            ), answer.get("cache-status")
        self._interim(step, answer, came)

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
        return _DATE.sub(lambda found: format_http_date(self.clock.now() + int((found[1] or "0").replace("--", ""))), text)


def _came(seen: Sequence[Recorded], answer: RawAnswer) -> str:
    """Where the answer came from, in one word."""
    members = _cache_status(answer)
    hit = bool(members) and "hit" in members[-1][1]
    conditional = [
        asked.method in ("GET", "HEAD") and any(asked.get(name) is not None for name in _CONDITIONS)
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
        parsed: list[tuple[object, dict[str, object]]] = http_sf.parse(value.encode(), tltype="list")
    except ValueError as error:
        raise AssertionError(f"Cache-Status is no structured list: {value}") from error
    return parsed


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
    assert made_here or ("hit" in said) != ("fwd" in said), f"one of hit and fwd: {answer.get('cache-status')}"
    assert str(said.get("fwd", "miss")) in _FORWARDED, said
    assert "fwd" in said or not {"fwd-status", "stored", "collapsed"} & set(said), said
    # "Boolean parameters" that are true are written without a value (RFC 9651 §3.1.2).
    assert "=?" not in str(answer.get("cache-status")), answer.get("cache-status")
