"""What is fuzzed: each target takes octets, whatever they are, and raises where a promise is broken.

Rules of this file:

- A target is a function of octets and nothing else, so that what fails fails again.
- ``SEEDS`` are inputs that come far into a target; what fuzzes starts from them.
- What a target may raise is named in it; anything else is a finding.
"""

from __future__ import annotations

import asyncio
import re
import struct
from functools import cache, partial
from hashlib import blake2b
from time import process_time
from typing import TYPE_CHECKING

from edgeproxy.key import build_key
from edgeproxy.policy.cache_control import (
    effective_directives,
    request_directives,
    response_directives,
    targeted_directives,
)
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.structured import parse_dictionary
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.rules.load import load_bytes
from edgeproxy.rules.model import KeyPolicy
from edgeproxy.rules.problems import RuleError
from edgeproxy.store.codec import Marker, claims, coordinates, decode, encode, encode_marker, version_of
from edgeproxy.store.entry import Entry
from edgeproxy.store.frame import Frames
from edgeproxy.store.packed import Packing
from tests.front.test_lane import comparable
from tests.store.make import NOW, make_entry, same
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.edge import Edge
    from tests.support.ledger import Recorded

SPACE = b"namespac"
SLOW = 5.0
"""Seconds of the processor that loading a rule file may take, however it is written."""
PATIENCE = 3600.0
"""Seconds for an answer, and between two: fuzzers run for hours beside other things, and may be stopped."""
_HEAD = struct.calcsize(">4sHBx16sIQQ16s")


# -- stored entries -----------------------------------------------------------------------------------------


@cache
def _entry() -> Entry:
    return make_entry()


@cache
def _sealed() -> bytes:
    data = encode(_entry(), SPACE)
    assert data is not None
    return data


def entry(data: bytes) -> None:
    """Whatever stands in the store is an entry that belongs here, or a miss; so with a checksum that fits."""
    wanted = _entry()
    key = (wanted.primary, wanted.variant)
    resealed = b""
    if len(data) >= _HEAD:
        bare = data[: _HEAD - 16] + data[_HEAD:]
        resealed = data[: _HEAD - 16] + blake2b(bare, digest_size=16).digest() + data[_HEAD:]
    for octets in (data, resealed):
        for read in (version_of, claims):
            read(octets)
        coordinates(octets, SPACE)
        found = decode(octets, key, SPACE, NOW)
        assert isinstance(found, Entry | Marker | LookupMiss)
        packed = decode(octets, key, SPACE, NOW, _frames())
        if isinstance(found, Entry):
            assert (found.primary, found.variant) == key
            assert 200 <= found.stored.status <= 599
            for name, value in found.stored.headers.raw:
                assert not {*name, *value} & {0, 10, 13}
            assert isinstance(packed, Entry)
            assert same(packed, found)
        else:
            assert packed == found


@cache
def _frames() -> Frames:
    return Frames(Packing())


# -- rule files ---------------------------------------------------------------------------------------------


def rules(data: bytes) -> None:
    """Rules, or a RuleError with at least one problem; neither takes long."""
    began = process_time()
    try:
        load_bytes([("rules.yaml", data)], source="fuzz")
    except RuleError as error:
        assert error.problems  # noqa: PT017 - RuleError is the answer, not the finding
    assert process_time() - began < SLOW


# -- fields -------------------------------------------------------------------------------------------------


def cache_control(data: bytes) -> None:
    """Directives, whatever stands in the fields; seconds that can be added to a time."""
    text = data.decode("latin-1")
    for name in ("Cache-Control", "CDN-Cache-Control", "Pragma"):
        headers = Headers.of([(name, line) for line in text.split("\n")])
        for read in (response_directives, request_directives, effective_directives):
            said = read(headers)
            for seconds in (said.max_age, said.s_maxage, said.stale_while_revalidate, said.stale_if_error):
                assert seconds is None or 0 <= seconds < 2**32
        targeted_directives(headers)
    found = parse_dictionary(text)
    assert found is None or isinstance(found, dict)


# -- keys ---------------------------------------------------------------------------------------------------

_POLICIES = (
    KeyPolicy(),
    KeyPolicy(headers=("x-a", "x-b")),
    KeyPolicy(cookies=("a", "b")),
    KeyPolicy(headers=("x-a",), cookies=("a",), scope="0a1b"),
)


def _request(octets: bytes) -> RequestHead:
    """Of lines: host, target, then values of X-A, X-B and Cookie; what no field can hold is left out."""
    text = octets.replace(b"\0", b"").replace(b"\r", b"").decode("latin-1")
    host, target, *values = (text.split("\n") + [""] * 5)[:5]
    named = [(n, v.strip(" \t")) for n, v in zip(("X-A", "X-B", "Cookie"), values, strict=True) if v]
    return RequestHead("GET", "http", host.strip(" \t"), "/" + target, Headers.of(named))


def key(data: bytes) -> None:
    """Two requests that differ in what a policy looks at have two keys, and so have two policies."""
    first, _, second = data.partition(b"\n\n")
    one, two = _request(first), _request(second)
    for number, policy in enumerate(_POLICIES):
        made = build_key(one, policy)
        assert made == build_key(one, policy)
        same = (one.host, one.target) == (two.host, two.target)
        same = same and all(one.headers.get(n) == two.headers.get(n) for n in policy.headers)
        if not policy.cookies:
            assert (build_key(two, policy).primary == made.primary) == same
        for other in _POLICIES[number + 1 :]:
            assert build_key(one, other).primary != made.primary


# -- the lane's memo against the handler ---------------------------------------------------------------------

_TARGETS = ("/a", "/a?b", "/vary", "/lang", "/none", "/a%2f", "//a", "/private")
_FIELDS = (
    "Accept-Encoding: br", "Accept-Encoding: gzip;q=0", "Accept-Language: de",
    "accept-language: fr, de;q=0.1",
    "Cookie: a=1", "cookie: b=2", "Cookie:c=3", "Cookie: d\te", "Cookie: \xe4 ", "Cookie: \x00", "DNT : 1",
    "Referer: a\r\n b", "User-Agent: x", "X-Lang: de", "X-Lang:fr", 'If-None-Match: "e1"',
    "Cache-Control: max-age=0", "Range: bytes=0-1", "Connection: keep-alive", "Connection: x-lang",
    "X-Forwarded-For: 1.2.3.4", "Referer: /", "Accept: */*", "Host: other.test",
)  # fmt: skip
_OWN_ID = re.compile(rb'"request_id":"[^"]*"')
_FIXED = [("Cache-Control", "max-age=60"), ("ETag", '"e1"'), ("Content-Type", "text/plain")]


def requests_of(data: bytes) -> list[bytes]:
    """Requests: of three octets the first chooses a target, the others fields; 0xff repeats the last one."""
    made: list[bytes] = []
    for place in range(0, min(len(data), 60), 3):
        target, *fields = data[place : place + 3]
        if target == 0xFF and made:
            made += [made[-1]] * 3
            continue
        chosen = [_FIELDS[number % len(_FIELDS)] for number in fields if number < 0xC0]
        lines = [f"GET {_TARGETS[target % len(_TARGETS)]} HTTP/1.1", "Host: e.test", *chosen]
        made.append("\r\n".join([*lines, "", ""]).encode("latin-1"))
    return made


def _said(name: str, asked: Recorded) -> bytes:
    return (asked.get(name) or "-").encode()


async def _edges() -> AsyncIterator[tuple[LedgerOrigin, Edge, Edge]]:
    async with LedgerOrigin() as origin:
        for target in _TARGETS:
            origin.reply(target, headers=_FIXED, body=b"the same for all, and long enough to be coded" * 20)
        for target, name in (("/vary", "X-Lang"), ("/lang", "Accept-Language")):
            origin.reply(
                target,
                headers=[*_FIXED, ("Vary", name)],
                body=partial(_said, name),
            )
        origin.reply("/none", status=404, headers=_FIXED, body=b"none")
        origin.reply("/private", headers=[("Cache-Control", "private")], body=b"mine")
        clock = DrivenClock()
        async with (
            running_edge(origin.url, clock=clock, lane="on", keepalive=PATIENCE) as one,
            running_edge(origin.url, clock=clock, lane="off", keepalive=PATIENCE) as other,
        ):
            yield origin, one, other


class Lane:
    """An edge with its lane and one without, for as many inputs as there are."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stand = _edges()
        self._edges = self._loop.run_until_complete(anext(self._stand))

    def __call__(self, data: bytes) -> None:
        """The same requests, in the same order: the same octets come back."""
        self._loop.run_until_complete(self._compare(requests_of(data)))

    async def _compare(self, requests: list[bytes]) -> None:
        origin, one, other = self._edges
        # What they have noted of the inputs before: it would be gigabytes in an hour.
        origin.requests.clear()
        one.traces.clear()
        other.traces.clear()
        async with one.client() as first, other.client() as second:
            for request in requests:
                answers = []
                for client in (first, second):
                    client.timeout = PATIENCE
                    await client.send(request)
                    answers.append(_OWN_ID.sub(b"", comparable((await client.read_answer()).raw)))
                assert answers[0] == answers[1], request
                if b"\r\nConnection: close\r\n" in answers[0]:
                    return

    def close(self) -> None:
        self._loop.run_until_complete(self._stand.aclose())  # type: ignore[attr-defined]
        self._loop.close()


# -- all of them --------------------------------------------------------------------------------------------

TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "entry": lambda: entry,
    "rules": lambda: rules,
    "cache-control": lambda: cache_control,
    "key": lambda: key,
    "lane": Lane,
}
"""Name -> what makes the target."""


def seeds(name: str) -> list[bytes]:
    """Inputs to start from."""
    if name == "entry":
        marker = encode_marker(Marker("p", (("accept",),), ("a" * 16,), 2e9, b"\0" * 16), SPACE)
        return [_sealed(), marker or b""]
    if name == "rules":
        from tests.rules.test_load import EVERYTHING, LEAST

        return [EVERYTHING.encode(), LEAST.encode(), b"pools: {a: {origins: [http://b]}}\nrules: []\n"]
    if name == "cache-control":
        return [
            b'max-age=60, s-maxage="5", private="a, b", no-cache="set-cookie"',
            b"max-age=99999999999999999999, stale-while-revalidate=1, must-understand, no-store",
            b'max-age=60;a=1, b=?0, c=:YQ==:, d=(1 2.5 "x" t);e, *f=@1',
        ]
    if name == "key":
        return [b"a.test:80\na?b=1&c\nx\ny\na=1; b=2\n\na.test\n80a?b=1&c\nx\ny\na=1", b"a\n/b\n\na/\nb"]
    return [bytes(range(60)), b"\0\xff\xff\xff\xff\xff\x02\x07\x08\xff\xff\xff\x03\x02\x04\xff\xff\xff"]
