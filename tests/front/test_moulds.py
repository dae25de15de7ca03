"""Casts from moulds: to the octet what the ordinary way answers and stores, and never where it would not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.admin.control import Kind, PurgeRequest
from edgeproxy.engine.prompt import Call
from edgeproxy.engine.settle import Settler
from edgeproxy.policy.http_date import format_http_date
from edgeproxy.store.tiered import TieredStore
from tests.front.test_short import comparable, idle_connection, request
from tests.support.driven import DrivenClock
from tests.support.edge import Edge, running_edge
from tests.support.ledger import FIN, Gate, LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from edgeproxy.engine.exchange import Answer
    from edgeproxy.engine.mould import Cast
    from edgeproxy.store.base import Found

Fields = list[tuple[str, str]]

RULES = """
rules:
  - name: tagged
    match: {path: "/tagged/{id}"}
    ttl: 5m
    tags: ["t-{id}"]
    cache_control: "max-age=9"
  - name: own
    match: {path: "/own/**"}
    tags_from: [X-Request-Id]
  - name: live
    match: {path: "/live/**"}
    pass: true
  - name: small
    match: {path: "/small/**"}
    ttl: 5m
    max_object: 4B
  - name: anyone
    match: {path: "/anyone/**"}
    key: {host: false, query: {ignore: ["utm_*"]}}
    response_headers: {set: {X-Rule: "anyone"}}
"""


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as ledger:
        yield ledger


@pytest.fixture
def casts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that were answered from a mould."""
    targets: list[str] = []

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def note(self: Settler, mould: Any, ask: Any, *rest: Any) -> Any:
            cast = method(self, mould, ask, *rest)
            if cast is not None:
                targets.append(ask.exchange.head.target)
            return cast

        return note

    monkeypatch.setattr(Settler, "cast", noting(Settler.cast))
    monkeypatch.setattr(Settler, "cast_passed", noting(Settler.cast_passed))
    return targets


def answers(clock: DrivenClock, fields: Fields, body: bytes, *, skew: int = 0, number: int = 0) -> bytes:
    own = [("Date", format_http_date(clock.now() - skew)), *fields, ("Content-Length", str(len(body)))]
    return head(200, [(name, value.replace("#", str(number))) for name, value in own]) + body


async def both(
    origin: LedgerOrigin,
    targets: Sequence[str],
    fields: Fields,
    sent: Sequence[str] = (),
    *,
    rules: Path | None = None,
    body: bytes = b"hello",
    skew: int = 0,
    store: str = "memory:",
) -> list[Any]:
    """What is answered and stored with the short way on and off, which has to be equal."""
    told = []
    for lane in ("on", "off"):
        clock = DrivenClock()
        for number, target in enumerate(targets):
            octets = answers(clock, fields, body + b"%d" % number, skew=skew, number=number)
            origin.script(target.partition("?")[0], [octets])
        shared = f"{store}/{lane}" if store.startswith("lmdb") else store
        async with running_edge(origin.url, clock=clock, lane=lane, rules=rules, store=shared) as edge:
            await idle_connection(edge, origin)
            got: list[Any] = []
            async with edge.client() as client:
                for target in [*targets, *targets]:
                    await client.send(request(target, *sent))
                    got.append(comparable((await client.read_answer()).raw))
            await edge.settle()
            got += [
                (t.target, t.word, t.status, t.stored, t.not_stored, t.forwarded, t.forwarded_status, t.key,
                 t.ttl, t.age, t.bytes_out, t.rule)
                for t in edge.traces
                if not t.hit
            ]  # fmt: skip
            told.append(got + stored(edge))
    assert told[0] == told[1]
    return told[0]


def stored(edge: Edge) -> list[Any]:
    entries = [
        entry for key in edge.worker.store.memory._slots for entry in edge.worker.store.memory.inspect(key)
    ]
    return [
        (e.primary, e.host, e.target, e.variant, e.stored, e.body, e.epoch, e.tags, e.rule, e.seen_as)
        for e in sorted(entries, key=lambda e: e.primary)
    ]


FRESH: Fields = [("Cache-Control", "max-age=60"), ("Content-Type", "application/json")]
OWN: Fields = [("ETag", '"e#"'), ("Last-Modified", "Sun, 22 Nov 2020 07:00:0# GMT")]
LOGGED: Fields = [("X-Request-Id", "r-#"), ("x-amzn-RequestId", "#"), ("X-Runtime", "0.#")]
PATHS = [f"/n/{number}" for number in range(5)]


@pytest.mark.parametrize(
    "fields",
    [FRESH, FRESH + OWN, OWN + FRESH, FRESH + OWN[1:], [*FRESH, ("Expires", "0")], FRESH + LOGGED],
)
@pytest.mark.parametrize("skew", [0, 7])
async def test_a_miss_like_others(origin: LedgerOrigin, casts: list[str], fields: Fields, skew: int) -> None:
    await both(origin, PATHS, fields, skew=skew)
    assert PATHS[-1] in casts


async def test_where_a_shared_store_was_asked_first(
    origin: LedgerOrigin, casts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(call: Call, cast: Cast) -> Answer:
        raise AssertionError("rendered by the ordinary way")

    counted = TieredStore._counted

    def taking_time(self: TieredStore, found: Found, began: float) -> Found:
        return counted(self, found, began - 0.00125)  # the driven clock stands still meanwhile

    monkeypatch.setattr(Call, "uncast", never)
    monkeypatch.setattr(TieredStore, "_counted", taking_time)
    got = await both(origin, PATHS, FRESH + OWN, store=f"lmdb:{tmp_path}")
    assert PATHS[-1] in casts
    told = [answer for answer in got if isinstance(answer, bytes)]
    assert all(b"\r\nServer-Timing: tier;desc=origin, l2;dur=, origin;dur=\r\n" in one for one in told[:5])


CASES: dict[str, tuple[list[str], Fields, bool]] = {
    "not stored": (PATHS, [("Cache-Control", "no-store"), *OWN], True),
    "private": (PATHS, [("Cache-Control", "private"), *OWN], True),
    "by rule, with a tag of the path": ([f"/tagged/{n}" for n in range(5)], OWN, True),
    "tags of the answer": (PATHS, [*FRESH, ("Surrogate-Key", "a b")], True),
    "tags of what is each answer's own": ([f"/own/{n}" for n in range(5)], [*FRESH, *LOGGED], False),
    "passed": ([f"/live/{n}" for n in range(5)], FRESH, True),
    "too large": ([f"/small/{n}" for n in range(5)], FRESH, False),
    "another key": ([f"/anyone/{n}?utm_a=1&b={n}" for n in range(5)], FRESH, True),
    "an extension": ([f"/n/{n}.json" for n in range(5)], FRESH, True),
    "deception": ([f"/account/{n}.css" for n in range(5)], [*FRESH, *OWN], True),
    "varying": (PATHS, [*FRESH, ("Vary", "X-Lang")], False),
    "varying on what never comes": (PATHS, [*FRESH, ("Vary", "Accept-Encoding")], False),
    "no lifetime of its own": (PATHS, OWN, False),
    "a set-cookie that differs": (PATHS, [*FRESH, ("Set-Cookie", "n=#")], False),
    "an age": (PATHS, [*FRESH, ("Age", "5")], False),
    "to be validated": (PATHS, [("Cache-Control", "no-cache"), *OWN], False),
    "stale as it comes": (PATHS, [("Cache-Control", "max-age=0"), *OWN], False),
    "no transform": (PATHS, [("Cache-Control", "max-age=60, no-transform")], True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [5, 900])
async def test_both_ways(
    origin: LedgerOrigin, casts: list[str], tmp_path: Path, name: str, size: int
) -> None:
    """``size``: smaller, and larger, than what is coded."""
    targets, fields, cast = CASES[name]
    (tmp_path / "r.yaml").write_text(RULES)
    await both(origin, targets, fields, rules=tmp_path, body=b"b" * size)
    assert (targets[-1] in casts) is cast


@pytest.mark.parametrize(
    ("sent", "cast"),
    [
        ((), True),
        (("Cookie: a=b",), True),
        (("Accept-Encoding: br",), True),  # an entry all the same, sent in another way
        (('If-None-Match: "e4"',), False),
        (("If-Modified-Since: Sun, 22 Nov 2026 07:00:00 GMT",), False),
        (("Range: bytes=0-1",), False),
        (("Cache-Control: max-age=5",), False),
        (("Cache-Control: no-store",), False),
        (("Authorization: Basic eDp5",), False),
        (("Pragma: no-cache",), False),
    ],
)
async def test_what_the_request_asks_for(
    origin: LedgerOrigin, casts: list[str], sent: tuple[str, ...], cast: bool
) -> None:
    await both(origin, PATHS, FRESH + OWN, sent, body=b"b" * 900)
    assert (PATHS[-1] in casts) is cast


async def test_what_a_purge_has_overtaken(origin: LedgerOrigin, casts: list[str]) -> None:
    """The answer of a mould is not stored where a purge came while it was fetched."""
    clock = DrivenClock()
    for number, path in enumerate(PATHS):
        octets = answers(clock, FRESH + OWN, b"old", number=number)
        origin.script(path, [Gate("last"), octets] if path == PATHS[-1] else [octets], times=1)
        origin.script(path, [answers(clock, FRESH + OWN, b"new", number=number)])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        for path in PATHS[:-1]:
            await edge.get(path)
        await client.send(request(PATHS[-1]))
        await origin.arrived(PATHS[-1])
        await edge.worker.operator.purge(PurgeRequest(Kind.ALL))
        origin.gate("last").open()
        answer = await client.read_answer()
        assert answer.body == b"old"
        assert "stored" not in (answer["Cache-Status"] or "").split("; ")
        assert PATHS[-1] in casts
        assert (await edge.get(PATHS[-1])).body == b"new"


@pytest.mark.parametrize("fields", [FRESH, [("Cache-Control", "no-store")]])
async def test_head_and_body_apart(origin: LedgerOrigin, casts: list[str], fields: Fields) -> None:
    """As most Python servers send them. The head is learned, and known again, all the same."""
    clock = DrivenClock()
    for number, path in enumerate(PATHS):
        octets = answers(clock, fields + OWN, b"hello", number=number)
        origin.script(path, [octets[:-5], octets[-5:]])
    async with running_edge(origin.url, clock=clock) as edge:
        await idle_connection(edge, origin)
        for path in PATHS:
            assert (await edge.get(path)).body == b"hello"
        await edge.settle()
        assert [trace.aborted for trace in edge.traces] == [False] * (len(PATHS) + 1)


async def test_a_body_that_does_not_come(origin: LedgerOrigin, casts: list[str]) -> None:
    """Behind a head that is known: it is sent on at once, as any, and broken off as it broke off."""
    clock = DrivenClock()
    for number, path in enumerate(PATHS):
        octets = answers(clock, FRESH + OWN, b"hello", number=number)
        origin.script(path, [octets[:-5], Gate("body"), octets[-5:-2], FIN] if number == 4 else [octets])
    async with running_edge(origin.url, clock=clock) as edge, edge.client() as client:
        await idle_connection(edge, origin)
        for path in PATHS[:-1]:
            await edge.get(path)
        assert PATHS[3] in casts
        await client.send(request(PATHS[-1]))
        answer = await client.read_head()
        assert (answer.status, answer["Content-Length"]) == (200, "5")
        origin.gate("body").open()
        assert not (await client.read_body(answer)).complete
        assert PATHS[-1] not in casts


async def test_a_reload_makes_moulds_anew(origin: LedgerOrigin, tmp_path: Path, casts: list[str]) -> None:
    text = """rules: [{name: all, match: {path: "/**"}, ttl: %dm, cache_control: "max-age=%d"}]"""
    clock = DrivenClock()
    for number in range(8):
        origin.script(f"/n/{number}", [answers(clock, OWN, b"x", number=number)])
    (tmp_path / "rules.yaml").write_text(text % (9, 9))
    async with running_edge(origin.url, clock=clock, rules=tmp_path) as edge:
        for minutes, numbers in ((1, range(4)), (2, range(4, 8))):
            (tmp_path / "rules.yaml").write_text(text % (minutes, minutes))
            assert not (await edge.worker.operator.reload_rules()).errors
            await idle_connection(edge, origin)
            for number in numbers:
                answer = await edge.get(f"/n/{number}")
                assert answer["Cache-Control"] == f"max-age={minutes}"
                assert f"ttl={60 * minutes};" in (answer["Cache-Status"] or "") + ";"
    assert {"/n/3", "/n/7"} <= set(casts)


HEADS = st.lists(
    st.sampled_from(
        [
            *FRESH, *OWN, *LOGGED,
            ("Cache-Control", "max-age=60, s-maxage=5"), ("Cache-Control", "no-store"),
            ("Cache-Control", "public"), ("CDN-Cache-Control", "max-age=7"),
            ("Expires", "Sun, 22 Nov 2037 07:00:00 GMT"),
            ("Expires", "#"),
            ("ETag", 'W/"w#"'), ("ETag", "bare#"), ("Last-Modified", "yesterday #"), ("Last-Modified", "#"),
            ("Vary", "Cookie"), ("Vary", "*"), ("Set-Cookie", "a=b"), ("Surrogate-Key", "one two"),
            ("Cache-Tag", "x"), ("Cache-Groups", '"g"'), ("X-Serial-No", "7"), ("Via", "1.0 other"),
            ("Content-Encoding", "gzip"), ("Content-Language", "de"), ("Warning", "110 - x"), ("Age", "3"),
            ("Content-Type", "text/html"), ("X-Cache-Status", "theirs"), ("Cache-Status", "inner; hit"),
            ("Connection", "x-serial-no"), ("Keep-Alive", "timeout=5"), ("Link", "</x>; rel=preload"),
        ]
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=HEADS, skew=st.sampled_from([0, 3, 600]), size=st.sampled_from([0, 5, 900]))
async def test_any_head(fields: Fields, skew: int, size: int, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RULES)
    async with LedgerOrigin() as origin:
        targets = [*PATHS[:4], *[f"/tagged/{n}" for n in range(4)]]
        await both(origin, targets, fields, rules=tmp_path, body=b"b" * size, skew=skew)
