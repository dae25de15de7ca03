"""Header blocks that mean the same share what the lane knows; those that do not, do not."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgeproxy
from edgeproxy.front import lane as lane_file
from edgeproxy.front.blocks import SELECTS_NOTHING, Blocks
from edgeproxy.front.server import EdgeProtocol
from edgeproxy.rules.model import KeyPolicy, Match, Rule, ValueCondition
from tests.front.test_lane import comparable, lane_hits, request
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.support.edge import Edge
    from tests.support.ledger import Recorded

FIELDS = [("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")]


def said(name: str, asked: Recorded) -> bytes:
    return (asked.get(name) or "-").encode()


@pytest.fixture
async def origin() -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin() as ledger:
        for target in ("/a", "/b", "/by-cookie"):
            ledger.reply(target, headers=FIELDS, body=b"the same for all")
        for target, name in (("/lang", "Accept-Language"), ("/agent", "User-Agent"), ("/x", "X-Lang")):
            ledger.reply(
                target,
                headers=[*FIELDS, ("Vary", name)],
                body=partial(said, name.lower()),
            )
        yield ledger


RULES = """
rules:
  - {name: some, match: {path: "/by-cookie", cookies: {plan: gold}}, ttl: 1m, cache_control: "max-age=1"}
  - {name: rest, match: {path: "/by-cookie"}, ttl: 1m, cache_control: "max-age=2"}
"""


async def ask(edge: Edge, requests: Sequence[tuple[str, tuple[str, ...]]]) -> list[bytes]:
    answers = []
    async with edge.client() as client:
        for target, fields in requests:
            await client.send(request(target, *fields))
            answers.append(comparable((await client.read_answer()).raw))
    return answers


ONE = ("User-Agent: one", "Cookie: a=1", "Accept-Language: de")
OTHER = ("User-Agent: another", "Accept-Language: fr", "Cookie: b=2")


async def test_what_one_browser_was_answered_another_is(origin: LedgerOrigin) -> None:
    async with running_edge(origin.url, clock=DrivenClock()) as edge:
        await ask(edge, [("/a", ONE)] * 4)
        await ask(edge, [("/b", OTHER)] * 3)
        hits = await lane_hits(edge)
        await ask(edge, [("/a", OTHER), ("/b", ONE)])
        assert await lane_hits(edge) == hits + 2


@pytest.mark.parametrize("target", ["/lang", "/agent"])
async def test_what_an_answer_varies_on_counts(origin: LedgerOrigin, target: str) -> None:
    async with running_edge(origin.url, clock=DrivenClock()) as edge:
        await ask(edge, [("/a", ONE), ("/a", OTHER)] * 4)  # known, and the same
        requests = [(target, ONE)] * 5 + [(target, OTHER)] * 5 + [(target, ONE)] * 5
        bodies = [answer.rpartition(b"\r\n")[2] for answer in await ask(edge, requests)]
        first, second = {"/lang": (b"de", b"fr"), "/agent": (b"one", b"another")}[target]
        assert bodies == [first] * 5 + [second] * 5 + [first] * 5
        hits = await lane_hits(edge)
        await ask(edge, [(target, ONE), (target, OTHER)])
        assert await lane_hits(edge) == hits + 2


BLOCK = st.tuples(
    st.sampled_from([(), ("User-Agent: one",), ("User-Agent: another",)]),
    st.sampled_from([(), ("Accept-Language: de",), ("Accept-Language: fr",)]),
    st.sampled_from([(), ("Cookie: plan=gold",), ("Cookie: plan=tin",)]),
    st.sampled_from([(), ("X-Lang: de",), ("Accept-Encoding: br",)]),
).map(lambda parts: tuple(line for part in parts for line in part))
TARGET = st.sampled_from(["/a", "/lang", "/agent", "/x", "/by-cookie"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(BLOCK, min_size=2, max_size=4), steps=st.lists(st.tuples(TARGET, st.integers(0, 3))))
async def test_any_order_of_blocks_and_targets(
    origin: LedgerOrigin,
    tmp_path: Path,
    blocks: list[tuple[str, ...]],
    steps: list[tuple[str, int]],
) -> None:
    """With the lane and without it: the same answers to the same requests in the same order."""
    (tmp_path / "rules.yaml").write_text(RULES)
    requests = [(target, blocks[number % len(blocks)]) for target, number in steps * 4]
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), rules=tmp_path, lane=lane) as edge:
            got.append(await ask(edge, requests))
    assert got[0] == got[1]


def tables(rules: tuple[Rule, ...] = ()) -> Blocks[dict[bytes, int]]:
    blocks = Blocks[dict[bytes, int]](dict)
    blocks.rules(rules)
    return blocks


def table(blocks: Blocks[dict[bytes, int]], block: bytes, *names: str) -> dict[bytes, int] | None:
    blocks.table(block, [names] if names else ())
    return blocks.table(block, [names] if names else ())


def test_only_what_selects_nothing_is_left_out() -> None:
    blocks = tables()
    plain = table(blocks, b"Host: a\r\n\r\n")
    assert plain is not None
    assert table(blocks, b"Host: a\r\nuser-AGENT: x\r\nCookie: y\r\n\r\n") is plain
    for other in (b"Host: b", b"Host: a\r\nAccept: */*", b"Host: a\r\nUser-Agent : x", b"host: a"):
        assert table(blocks, other + b"\r\n\r\n") is not plain
    # Lines that may be read in two ways are left as they are.
    for other in (
        b"Host: a\r\nCookie: y\r\n X: z",
        b"Host: a\r\nCookie: y\nX: z",
        b"Host: a\r\nCookie: y\rX: z",
    ):
        assert table(blocks, other + b"\r\n\r\n") is not plain


@pytest.mark.parametrize(
    "rule",
    [
        Rule("r", "", match=Match(headers=(ValueCondition("cookie"),))),
        Rule("r", "", match=Match(cookies=(ValueCondition("plan"),))),
        Rule("r", "", key=KeyPolicy(cookies=("plan",))),
        Rule("r", "", key=KeyPolicy(headers=("cookie",))),
    ],
)
def test_what_a_rule_asks_for_counts(rule: Rule) -> None:
    blocks = tables((rule,))
    plain = table(blocks, b"Host: a\r\n\r\n")
    assert table(blocks, b"Host: a\r\nUser-Agent: y\r\n\r\n") is plain
    assert table(blocks, b"Host: a\r\nCookie: y\r\n\r\n") is not plain


def test_before_the_rules_are_known_every_field_counts() -> None:
    blocks = Blocks[dict[bytes, int]](dict)
    assert table(blocks, b"Host: a\r\n\r\n") is not table(blocks, b"Host: a\r\nDNT: 1\r\n\r\n")


def test_the_first_answer_that_varies_has_everything_forgotten() -> None:
    blocks = tables()
    plain = table(blocks, b"Host: a\r\n\r\n")
    assert table(blocks, b"Host: a\r\n\r\n", "x-lang") is plain
    varied = table(blocks, b"Host: a\r\n\r\n", "user-agent")
    assert varied is not plain
    assert table(blocks, b"Host: a\r\nUser-Agent: y\r\n\r\n") is not varied


def test_nothing_looks_at_these_fields_by_itself() -> None:
    """Only what a rule names or an answer varies on may make one of them count."""
    known = {
        "key.py": {"cookie"},  # where a rule asks for cookies
        "policy/header_table.py": {"cookie"},  # whether it is sent on
        "engine/forward.py": {"accept-language", "cookie", "user-agent"},  # whether it is sent on
        "policy/vary.py": {"accept-language"},  # what an answer varies on
        "policy/language.py": {"accept-language"},
        "policy/trace_context.py": {"traceparent", "tracestate"},  # what is recorded, the lane declines
        "front/websocket.py": {"origin"},  # a side, and no request that upgrades is learned
    }
    root = Path(edgeproxy.__file__).parent
    for directory in ("policy", "engine", "front", "store"):
        for path in [*(root / directory).glob("*.py"), root / "rules" / "match.py", root / "key.py"]:
            name = path.relative_to(root).as_posix()
            if name in ("front/blocks.py", "policy/vocabulary.py"):
                continue
            said = {word.lower() for word in re.findall(r'b?"([A-Za-z-]+)"', path.read_text())}
            assert said & SELECTS_NOTHING <= known.get(name, set()), name


@pytest.mark.parametrize(
    ("lines", "is_alike"),
    [
        ((b"Host: a", b"Cookie: y"), True),
        ((b'cookie: y; z="1"', b"Host: a", b"User-AGENT:  x "), True),
        ((b"Host: a", b"Cookie: "), True),
        ((b"Host: a", b"Cookie:y"), False),
        ((b"Host: a", b"Cookie : y"), False),
        ((b"Host: a", b"Cookie"), False),
        ((b"Host: a", b"Cookie: y\tz"), False),
        ((b"Host: a", b"Cookie: y\x00"), False),
        ((b"Host: a", b"Cookie: y\xc3\xa4"), False),
        ((b"Host: a", b"Cookie: y\nX: z"), False),
        ((b"Host: a", b"Cookie: y\rX: z"), False),
        ((b"Host: a", b"Cookie: y", b" z"), False),
        ((b"Host: a", b"User-Agent: y", b"user-agent: y"), False),
        ((b"Host: a", b"Accept: y"), False),
        ((b"Host: b", b"Cookie: y"), False),
        ((b"Host: a", b"", b"Cookie: y"), False),
        ((b"Cookie: y",), False),
    ],
)
def test_what_need_not_be_parsed(lines: tuple[bytes, ...], is_alike: bool) -> None:
    blocks = tables()
    plain = table(blocks, b"Host: a\r\n\r\n")
    assert plain is not None
    block = b"\r\n".join((*lines, b"", b""))
    assert blocks.alike(block) is (plain if is_alike else None)


def test_a_field_that_selects_nothing_is_looked_at_whatever_stands_in_other_blocks() -> None:
    """One that is equal to itself alone, since it may be read in two ways, has such fields in its name."""
    blocks = tables()
    odd = b"Host: a\r\nUser-Agent: x\r\n folded\r\n\r\n"
    assert table(blocks, odd) is not None
    assert table(blocks, b"Host: a\r\n\r\n") is not None
    assert blocks.alike(odd[:-2] + b"User-Agent: y\r\n\r\n") is None
    assert blocks.alike(odd) is None


def test_many_lines_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = tables()
    block = b"\r\n".join((b"Host: a", *(b"X-%d: y" % n for n in range(60)), b"", b""))
    known = table(blocks, block)
    assert blocks.alike(b"DNT: 1\r\n" + block) is known is not None
    assert blocks.alike(b"DNT: 1\r\nSec-GPC: 1\r\n" + block) is None


async def test_a_new_cookie_is_not_parsed(origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    one_head = EdgeProtocol._one_head

    def noting(protocol: EdgeProtocol, data: bytes) -> None:
        parsed.append(data)
        one_head(protocol, data)

    async with running_edge(origin.url, clock=DrivenClock(), max_head="8KiB") as edge:
        await ask(edge, [("/a", ONE), ("/a", OTHER)] * 4)
        hits = await lane_hits(edge)
        monkeypatch.setattr(EdgeProtocol, "_one_head", noting)
        await ask(edge, [("/a", (f"Cookie: new={n}", "User-Agent: new")) for n in range(5)])
        await ask(edge, [("/a", (f"Cookie: new={'x' * 9000}",))])  # too long, which the parser knows
        assert await lane_hits(edge) == hits + 5
        assert len(parsed) == 1


ODD = st.lists(
    st.tuples(
        st.sampled_from([b"Cookie: ", b"cookie:", b"User-Agent: ", b"Referer: \t", b"DNT : ", b"X-Lang: "]),
        st.one_of(
            st.text(alphabet=' !~az"', max_size=6).map(str.encode),
            st.binary(max_size=6),
            st.sampled_from([b"a\r\n b", b"a\nb", b"a\r", b"\x00", b"\xff", b"a\r\n\r\n", b"a\r\nTE: x"]),
        ),
    ).map(b"".join),
    min_size=1,
    max_size=3,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(ODD, min_size=10, max_size=20))
async def test_whatever_stands_in_a_block_is_taken_as_the_parser_takes_it(
    origin: LedgerOrigin, blocks: list[list[bytes]]
) -> None:
    got = []
    for lane in ("on", "off"):
        async with running_edge(origin.url, clock=DrivenClock(), lane=lane) as edge:
            await ask(edge, [("/a", ()), ("/b", ())] * 4)
            answers = []
            for lines in blocks:
                async with edge.client() as client:
                    await client.send(b"\r\n".join((b"GET /a HTTP/1.1", b"Host: e.test", *lines, b"", b"")))
                    raw = comparable((await client.read_answer()).raw)
                    answers.append(re.sub(rb'"request_id":"[0-9a-f]+"', b"", raw))
            got.append(answers)
    assert got[0] == got[1]


async def test_heads_that_are_not_warm_are_rendered_again(
    origin: LedgerOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_file, "MOST_WARM", 1)
    clock = DrivenClock()
    async with running_edge(origin.url, clock=clock) as edge:
        both = [("/a", ONE), ("/b", ONE)]
        await ask(edge, both * 3)
        await clock.advance(5)
        hits = await lane_hits(edge)
        answers = await ask(edge, both * 3)
        assert await lane_hits(edge) == hits + 6
        assert all(b"Age: 5\r\n" in answer for answer in answers)
        lane = edge.worker.handler.lane
        assert lane is not None
        assert len(lane._warm) == 1
