"""What is recognised without parsing is what the parser would have read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.origin.framing import response_head
from edgeproxy.origin.recognise import Heads, Recognised
from edgeproxy.policy.known import OF_EACH

if TYPE_CHECKING:
    from edgeproxy.policy.head import ResponseHead

LIMIT = 65_536
DATE = b"Date: Sun, 22 Nov 2026 07:00:00 GMT"


def read(octets: bytes) -> tuple[Any, ResponseHead, bytes]:
    """By aiohttp's parser and our checks, as the client does it. Raises whatever refuses it."""
    loop = asyncio.new_event_loop()
    try:
        handler = ResponseHandler(loop)
        handler.set_response_params(read_until_eof=True, auto_decompress=False)
        handler.data_received(octets)
        if handler.exception() is not None:
            raise handler.exception()  # type: ignore[misc]
        message, payload = handler._buffer.popleft()[0]
        head, _ = response_head(message, "GET", LIMIT)
        assert payload.is_eof()
        assert not handler._buffer
        body = payload.read_nowait() if payload.total_bytes else b""
        return message, head, body
    finally:
        loop.close()


def taught(octets: bytes) -> Heads:
    heads = Heads(LIMIT)
    message, head, _ = read(octets)
    for _ in range(2):
        heads.learn(octets, message, head)
    return heads


def answer(*lines: bytes, body: bytes = b"hello", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""]) + body


def as_parsed(found: Recognised | None) -> tuple[ResponseHead, bytes] | None:
    return None if found is None or found.missing else (found.head.head(found.values), found.body)


PLAIN = answer(DATE, b"Server: o", b'ETag: "1"', b"Content-Length: 5", b"Cache-Control: max-age=60")


def test_a_head_is_known_when_it_has_come_twice() -> None:
    heads = Heads(LIMIT)
    message, head, body = read(PLAIN)
    for _ in range(2):
        assert heads.find(PLAIN) is None
        heads.learn(PLAIN, message, head)
    assert as_parsed(heads.find(PLAIN)) == (head, body)
    assert len(heads) == 1


def test_other_values_are_read_as_the_parser_reads_them() -> None:
    other = answer(
        b"Date: Mon, 23 Nov 2026 08:00:00 GMT", b"Server: o", b'ETag: W/"x y"', b"Content-Length: 11",
        b"Cache-Control: max-age=60", body=b"hello again",
    )  # fmt: skip
    _, head, body = read(other)
    assert as_parsed(taught(PLAIN).find(other)) == (head, body)


@pytest.mark.parametrize(
    "octets",
    [
        PLAIN + b"!",
        PLAIN.replace(b"Length: 5", b"Length: 99999"),
        PLAIN.replace(b"Length: 5", b"Length: 05"),
        PLAIN.replace(b"Length: 5", b"Length: +5"),
        PLAIN.replace(b"Length: 5", b"Length: 5, 5"),
        PLAIN.replace(b"Server: o", b"Server: p"),
        PLAIN.replace(b"Server: o", b"Server : o"),
        PLAIN.replace(b'"1"', b'"1"\x00'),
        PLAIN.replace(b'"1"', b'"\xff"'),
        PLAIN.replace(b'"1"', b'"1"\r\n folded'),
        PLAIN.replace(b'"1"', b'"1"\rX: y'),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"200 OK", b"404 OK"),
        PLAIN.replace(b"\r\nServer", b"\r\nContent-Length: 5\r\nServer"),
        PLAIN.replace(b"\r\nServer", b"\r\nTransfer-Encoding: chunked\r\nServer"),
        PLAIN.replace(b"\r\n", b"\n"),
        b" " + PLAIN,
        b"",
    ],
)
def test_what_differs_otherwise_is_left_to_the_parser(octets: bytes) -> None:
    assert taught(PLAIN).find(octets) is None


@pytest.mark.parametrize("name", sorted(OF_EACH - {"date", "content-length"}))
def test_a_field_of_each_answers_own_is_known_as_it_is_spelled(name: str) -> None:
    spelled = {name, name.title()} if name != "etag" else {name, "ETag"}
    if name.endswith("id"):
        spelled |= {name.title()[:-2] + "ID", name.title()[:-2] + "Id"}
    for one in spelled:
        first = answer(DATE, b"%b: 1" % one.encode(), b"Content-Length: 5")
        found = taught(first).find(first.replace(b": 1\r", b": 2 b\r"))
        assert found is not None, one
        assert b"2 b" in found.values


def test_a_body_of_which_some_is_missing() -> None:
    found = taught(PLAIN).find(PLAIN[:-2])
    assert found is not None
    assert (found.body, found.missing) == (b"hel", 2)


@pytest.mark.parametrize(
    "octets",
    [
        answer(b"Content-Length: 5"),  # no Date
        answer(DATE, DATE, b"Content-Length: 5"),
        answer(DATE, b"Content-Length: 5", b"Connection: close"),
        answer(DATE, b"Content-Length: 5", b"Content-Type: text/event-stream"),
        answer(DATE, b"Content-Length: 5", b"Upgrade: h2c"),
        answer(DATE, b"Content-Length:   5"),  # found by the parser where the octets do not tell
        answer(DATE, b"Content-Length: 5", status=b"HTTP/1.0 200 OK"),
        answer(DATE, b"Content-Length: 0", status=b"HTTP/1.1 204 No Content", body=b""),
        answer(DATE, b"Content-Length: 5", b"X: " + b"x" * 5000),
    ],
)
def test_what_is_never_learned(octets: bytes) -> None:
    heads = taught(octets)
    assert heads.find(octets) is None
    assert len(heads) == 0


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.origin.recognise.MOST", 4)
    heads = Heads(LIMIT)
    for number in range(20):
        octets = answer(DATE, b"X-N: %d" % number, b"Content-Length: 5")
        message, head, _ = read(octets)
        heads.learn(octets, message, head)
        heads.learn(octets, message, head)
        assert as_parsed(heads.find(octets)) == (head, b"hello")
    assert len(heads) <= 4


VALUE = st.binary(max_size=12) | st.sampled_from(
    [b'"a"', b"5", b"0", b"Sun, 22 Nov 2026 07:00:00 GMT", b" 5"]
)
NAME = st.sampled_from([b"Date", b"date", b"ETag", b"Last-Modified", b"Expires", b"Content-Length", b"X-A"])


@given(st.lists(st.tuples(NAME, VALUE), max_size=5), st.binary(max_size=8), VALUE, st.integers(0, 4))
def test_no_octets_are_read_otherwise_than_by_the_parser(
    fields: list[tuple[bytes, bytes]], body: bytes, value: bytes, place: int
) -> None:
    """Learn whatever the parser takes; then change one value: found is what the parser finds, or nothing."""
    lines = [DATE, b"Content-Length: %d" % len(body), *(name + b": " + octets for name, octets in fields)]
    octets = answer(*lines, body=body)
    try:
        heads = taught(octets)
    except Exception:  # noqa: BLE001 - the parser's many ways of refusing
        return
    if fields:
        name, _ = fields[place % len(fields)]
        lines[2 + place % len(fields)] = name + b": " + value
        octets = answer(*lines, body=body)
    found = heads.find(octets)
    if found is not None:
        _, head, read_body = read(octets)
        assert as_parsed(found) == (head, read_body)
