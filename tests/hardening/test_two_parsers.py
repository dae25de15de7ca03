"""aiohttp's two parsers, in this process, on the same octets: where they read a request differently is known.

Rules of this file:

- The C parser serves; the Python one never does (front/server.py refuses to start). What the two make of a
  request shows where *readers* may differ: each such place is named in DIFFER, and is new when it is not.
- A difference alone is no fault of the edge: what it does with each case is test_request_framing.py's to say.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import http_parser
from aiohttp.http_exceptions import HttpProcessingError

from tests.hardening.cases import FILES, requests
from tests.support.yaml_cases import read_cases

if TYPE_CHECKING:
    from tests.hardening.cases import RequestCase

CASES = requests()
REFUSED: tuple[object, ...] = ("refused", [])
PARSERS: dict[str, Any] = {"C": http_parser.HttpRequestParser, "Python": http_parser.HttpRequestParserPy}

DIFFER: dict[str, dict[str, list[str]]] = read_cases(FILES / "parsers.yaml")
"""Case -> who alone reads some of its items as a request ("C", "Python"; "both" where they read it otherwise)
-> those items; under "why" the reason."""


def verdict(parser: str, case: RequestCase, loop: asyncio.AbstractEventLoop) -> object:
    """What was read of each request: method, target, version, fields and body; or that it was refused."""
    protocol = SimpleNamespace(
        _reading_paused=False, pause_reading=lambda: None, resume_reading=lambda **_: None, connected=True
    )
    made = PARSERS[parser](
        protocol, loop, 2**16, max_line_size=8190, max_field_size=8190, auto_decompress=False
    )
    try:
        messages, *_ = made.feed_data(case.sends)
    except (HttpProcessingError, ValueError):
        return "refused"
    read = []
    for message, payload in messages:
        if payload.exception() is not None:
            return "refused"
        body = b"".join(getattr(payload, "_buffer", ()))
        version = tuple(message.version)
        fields = [(name.lower(), value) for name, value in message.raw_headers]
        read.append((message.method, message.path, version, fields, body, payload.is_eof()))
    return read


@pytest.mark.parametrize("name", CASES)
def test_both_read_the_same(name: str) -> None:
    loop = asyncio.new_event_loop()
    found: dict[str, list[str]] = {}
    try:
        for case in CASES[name]:
            ours, other = verdict("C", case, loop), verdict("Python", case, loop)
            if ours != other:
                who = "Python" if ours in REFUSED else "C" if other in REFUSED else "both"
                found.setdefault(who, []).append(case.item)
    finally:
        loop.close()
    known = {who: items for who, items in DIFFER.get(name, {}).items() if who != "why"}
    assert found == known


def test_the_cases_that_differ_are_cases() -> None:
    assert DIFFER.keys() <= CASES.keys()


def test_without_the_c_parser_it_does_not_start() -> None:
    from edgeproxy.front import server

    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy
    server.verify()
    told = "from edgeproxy.front import server; server.verify()"
    ran = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},  # noqa: TID251 - a process of its own
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "aiohttp's C parser is missing" in ran.stderr
