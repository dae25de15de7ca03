"""A rule's conditions besides path and host: method, header fields, cookies, query parameters.

Rules of this file:

- ``losing_condition`` is the definition. The index (narrow.py) asks ``given`` for what a request has, so that
  rules that need what it lacks are not looked at, and then this decides.
- A repeated field or parameter holds if any of its values does; of a repeated cookie the first counts.
  Where its values differ, that is not the last word (``Named.twice``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from edgeproxy.key import all_cookies, cookies
from edgeproxy.policy.lists import OWS
from edgeproxy.rules.safe_regex import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import Match, Rule, ValueCondition

KINDS = ("headers", "cookies", "query")


def losing_condition(match: Match, request: RequestHead) -> str | None:
    """Which condition besides path and host does not hold ("method", "header x-beta"), or None."""
    if not method_matches(match.methods, request.method):
        return "method"
    for condition in match.headers:
        if not _holds(condition, request.headers.get_all(condition.name)):
            return f"header {condition.name}"
    if match.cookies:
        jar = cookies(request)
        for condition in match.cookies:
            value = jar.get(condition.name)
            if not _holds(condition, () if value is None else (value,)):
                return f"cookie {condition.name}"
    if match.query:
        given_parameters = parameters(request.query)
        for condition in match.query:
            if not _holds(condition, given_parameters.get(condition.name, ())):
                return f"query {condition.name}"
    return None


class Named:
    """What the conditions of ``rules`` ask for, by name."""

    __slots__ = ("_cookies", "_headers", "_query")

    def __init__(self, rules: Iterable[Rule]) -> None:
        matches = [rule.match for rule in rules]
        self._headers = tuple({each.name for match in matches for each in match.headers})
        self._cookies = tuple({each.name for match in matches for each in match.cookies})
        self._query = tuple({each.name for match in matches for each in match.query})

    def twice(self, request: RequestHead) -> bool:
        """Whether the request gives one of these more than once, and not the same."""
        headers = request.headers
        for name in self._headers:
            if name in headers and _differ(headers.get_all(name)):
                return True
        if self._cookies and "cookie" in headers:
            lines = headers.get_all("cookie")
            if len(lines) > 1 or ";" in lines[0]:
                jar = all_cookies(request)
                if any(name in jar and _differ(jar[name]) for name in self._cookies):
                    return True
        if self._query and request.query and "&" in request.query:
            found = parameters(request.query)
            return any(name in found and _differ(found[name]) for name in self._query)
        return False


def _differ(values: Sequence[str]) -> bool:
    return len(values) > 1 and len(set(values)) > 1


def method_matches(methods: frozenset[str], method: str) -> bool:
    """None named: any. A rule for GET also covers HEAD."""
    return not methods or method in methods or (method == "HEAD" and "GET" in methods)


def given(kind: str, request: RequestHead) -> Iterable[tuple[str, Sequence[str]]]:
    """Name and values of each field, cookie or parameter that the request has."""
    if kind == "headers":
        return [(name, request.headers.get_all(name)) for name in request.headers.names()]
    if kind == "cookies":
        return [(name, (value,)) for name, value in cookies(request).items()]
    return parameters(request.query).items() if request.query else ()


def parameters(query: str | None) -> dict[str, list[str]]:
    """Percent-decoded, each octet one character, as in key.py."""
    found: dict[str, list[str]] = {}
    for pair in (query or "").split("&"):
        name, _, value = pair.partition("=")
        if pair:
            found.setdefault(unquote(name, "latin-1"), []).append(unquote(value, "latin-1"))
    return found


def _holds(condition: ValueCondition, values: Sequence[str]) -> bool:
    """Of a repeated field any value may satisfy; that it is absent, none."""
    if not values:
        return not condition.present
    if not condition.present:
        return False
    if condition.regex is not None:
        return any(matches(condition.regex, value.strip(OWS)) for value in values)
    return not condition.values or any(value.strip(OWS) in condition.values for value in values)
