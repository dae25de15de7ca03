"""Heads, answers and stored entries for the tests of policy/."""

from __future__ import annotations

from dataclasses import replace

from edgeproxy.policy.conclude import conclude
from edgeproxy.policy.decisions import OriginAnswer, Store
from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.policy.http_date import format_http_date
from edgeproxy.policy.stored import Overrides, Stored

NOW = 1_750_000_000.0
PLAIN = Overrides()
Fields = dict[str, str] | list[tuple[str, str]]


def fields(given: Fields | None) -> Headers:
    return Headers.of(given.items() if isinstance(given, dict) else given or ())


def request(
    given: Fields | None = None,
    *,
    method: str = "GET",
    host: str = "api.example",
    target: str = "/a",
    scheme: str = "http",
    has_body: bool = False,
) -> RequestHead:
    return RequestHead(method, scheme, host, target, fields(given), has_body)


def answer(status: int = 200, given: Fields | None = None) -> ResponseHead:
    return ResponseHead(status, "", fields(given))


def came(
    status: int = 200, given: Fields | None = None, *, at: float = NOW, took: float = 0.0
) -> OriginAnswer:
    """An answer whose head arrived at ``at``, ``took`` seconds after the request left."""
    return OriginAnswer(answer(status, given), at - took, at)


def stored(
    given: Fields,
    *,
    asked: RequestHead | None = None,
    overrides: Overrides = PLAIN,
    status: int = 200,
    length: int = 10_000,
    at: float = NOW,
) -> Stored:
    """What is stored of an answer received at ``at``."""
    conclusion = conclude(asked or request(), None, came(status, given, at=at), overrides, at)
    assert isinstance(conclusion, Store), conclusion
    return replace(conclusion.stored, length=length)


def date(offset: float = 0.0) -> str:
    return format_http_date(NOW + offset)
