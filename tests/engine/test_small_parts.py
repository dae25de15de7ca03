from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from edgeproxy.engine.background import Background
from edgeproxy.engine.coalesce import Failed, Flights, Uncacheable
from edgeproxy.engine.cooldown import FIRST, LONGEST, ROOM, CoolDown
from edgeproxy.engine.exchange import Exchange
from edgeproxy.engine.forward import ForwardBuilder
from edgeproxy.engine.invalidate import url_order, write_orders
from edgeproxy.observe.trace import Trace
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.policy.vocabulary import NotStored, OriginFailure
from edgeproxy.rules.load import load_text
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.model import PLAIN

if TYPE_CHECKING:
    import pytest


async def test_background_work_that_fails_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    background = Background()

    async def fails() -> None:
        raise ValueError("broken")

    with caplog.at_level(logging.ERROR):
        background.spawn(fails(), "the work")
        await background.settle("the work")
        await asyncio.sleep(0)
    assert "'the work' failed" in caplog.text
    assert len(background) == 0


async def test_background_work_ends_with_its_owner() -> None:
    background = Background()
    task = background.spawn(asyncio.Event().wait(), "endless")  # type: ignore[arg-type]
    await background.close()
    assert task.cancelled()


async def test_background_work_that_takes_a_cancelling_for_something_else_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgeproxy.engine.background.AGAIN", 0.01)
    background = Background()

    async def deaf_once() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = background.spawn(deaf_once(), "deaf")
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await background.close()
    assert task.cancelled()
    assert len(background) == 0


async def test_a_flight_is_resolved_once_and_gives_way_to_a_newer_one() -> None:
    flights = Flights()
    first = flights.begin("k", 1, 0.0)
    assert flights.find("k", 5.0, lease=10) is first
    assert flights.find("k", 11.0, lease=10) is None
    second = flights.begin("k", 1, 11.0)
    flights.end(first)  # the old one ends; the new one stays
    assert flights.find("k", 12.0, lease=10) is second
    flights.resolve(second, Uncacheable(NotStored.RESPONSE_PRIVATE))
    flights.resolve(second, Failed(OriginError(OriginFailure.RESET)))
    assert isinstance(second.outcome.result(), Uncacheable)
    # One that has an outcome may be joined after its lease: its body is under way.
    assert flights.find("k", 99.0, lease=10) is second
    flights.end(second)
    assert len(flights) == 0


def test_cool_down_grows_and_ends() -> None:
    cooldown = CoolDown()
    assert not cooldown.active("k", 0.0)
    cooldown.failed("k", 0.0, OriginFailure.RESET)
    assert cooldown.active("k", FIRST / 2 - 0.01) is OriginFailure.RESET
    assert not cooldown.active("k", FIRST)
    for _ in range(20):
        cooldown.failed("k", 100.0, OriginFailure.REFUSED)
    assert cooldown.active("k", 100.0 + LONGEST / 2 - 0.01)
    assert not cooldown.active("k", 100.0 + LONGEST)
    cooldown.succeeded("k")
    assert not cooldown.active("k", 100.0)


def test_cool_down_is_bounded() -> None:
    cooldown = CoolDown()
    for number in range(ROOM + 50):
        cooldown.failed(str(number), 0.0, OriginFailure.RESET)
    assert len(cooldown._until) == ROOM


def exchange(*fields: tuple[str, str], method: str = "GET") -> Exchange:
    head = RequestHead(method, "http", "api.test", "/a?b=1", Headers.of([("Host", "api.test"), *fields]))
    return Exchange(head, Trace(request_id="r1"), client="192.0.2.7")


def test_what_the_origin_is_asked_for_the_cache() -> None:
    sent = ForwardBuilder("edge").whole(
        exchange(
            ("If-None-Match", '"x"'), ("Range", "bytes=0-1"), ("Accept-Encoding", "br"), ("Cookie", "a=b"),
            ("X-Forwarded-Host", "evil"), ("X-HTTP-Method-Override", "DELETE"),
            ("Connection", "X-Hop, Cookie"),
            ("X-Hop", "1"), ("Via", "1.1 other"),
        ),
        PLAIN,
        ((b"If-None-Match", b'"stored"'),),
    )  # fmt: skip
    headers = sent.headers
    assert headers.get_all("if-none-match") == ('"stored"',)
    assert "range" not in headers
    assert headers.get("accept-encoding") == "identity"
    assert headers.get("cookie") == "a=b"
    assert headers.get("host") == "api.test"
    for gone in ("x-forwarded-host", "x-http-method-override", "x-hop", "connection"):
        assert gone not in headers
    assert headers.get("via") == "1.1 other, 1.1 edge"
    assert headers.get("x-forwarded-for") == "192.0.2.7"
    assert headers.get("x-request-id") == "r1"
    assert sent.target == "/a?b=1"


def test_the_host_that_the_operator_set_goes_instead() -> None:
    builder = ForwardBuilder("edge", "vhost.example:8443")
    nameless = Exchange(RequestHead("GET", "http", "", "/", Headers()), Trace(request_id="r1"))
    for asked in (exchange(), nameless):
        for sent in (builder.whole(asked, PLAIN), builder.passed(asked, PLAIN)):
            assert sent.headers.get_all("host") == ("vhost.example:8443",)
    assert exchange().head.host == "api.test"


def test_what_is_passed_keeps_its_conditions() -> None:
    sent = ForwardBuilder("edge").passed(
        exchange(("If-None-Match", '"x"'), ("Range", "bytes=0-1"), ("Accept-Encoding", "br"), method="POST"),
        PLAIN,
    )
    assert sent.headers.get("if-none-match") == '"x"'
    assert sent.headers.get("range") == "bytes=0-1"
    assert sent.headers.get("accept-encoding") == "br"


RULES = """
rules:
  - name: items
    match: {path: "/items/{id}"}
    ttl: 1m
    key: {query: {ignore: ["utm_*"]}}
    invalidates: [{on: [PUT], tags: ["item:{id}"], urls: ["/items"], prefixes: ["/search"]}]
"""


def test_what_a_write_purges() -> None:
    matcher = Matcher(load_text(RULES))
    request = RequestHead("PUT", "http", "api.test", "/items/7?utm_source=x")
    answer = ResponseHead(
        200, "", Headers.of([("Location", "/items/8"), ("Content-Location", "http://other/x")])
    )
    orders = write_orders(matcher, request, matcher.match(request), answer)
    assert {(o.kind.value, o.value, o.host) for o in orders} == {
        ("url", "/items/7?utm_source=x", "api.test"),
        ("url", "/items/8", "api.test"),
        ("url", "/items", "api.test"),
        ("tag", "item:7", None),
        ("prefix", "/search", "api.test"),
    }
    assert "/items/7" in orders[0].targets  # as the rule's key names it
    assert write_orders(matcher, request, matcher.match(request), ResponseHead(500)) == []


def test_a_url_is_purged_under_every_form_a_key_may_have_given_it() -> None:
    order = url_order(Matcher(load_text(RULES)), None, "/items/7?utm_source=x&a=1", soft=True)
    assert order.targets == ("/items/7?a=1",)
    assert order.soft
