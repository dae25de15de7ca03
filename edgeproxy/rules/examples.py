"""A rule's examples, run: a request, an answer, and what must come of them.

Rules of this file:

- Run at every load, against all rules together: an example fails too when another rule takes its request.
- Each failure names the example's file:line, what was expected and what came out; where an answer should
  have been stored and is not, also what it would take (once for an example).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.rules.content import named
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.otherwise import otherwise, otherwise_text
from edgeproxy.rules.outcome import WHEN, Outcome, assumed, outcome
from edgeproxy.rules.problems import Problem
from edgeproxy.rules.values import show_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.rules.model import Example, Matched, Rule, RuleSet

HOST = "edge.example"
"""The host of examples that name none."""


def check_examples(ruleset: RuleSet) -> list[Problem]:
    """One Problem for each expectation that does not hold."""
    if not any(rule.examples for rule in ruleset.rules):
        return []
    matcher = Matcher(ruleset)
    return [
        problem
        for rule in ruleset.rules
        for example in rule.examples
        for problem in check_example(matcher, rule, example)
    ]


def check_example(matcher: Matcher, rule: Rule, example: Example) -> list[Problem]:
    request = request_of(example)
    matched, answer = matcher.match(request), response_of(example, request.path)
    request = named(matched.rule, request, None if example.body is None else example.body.encode())
    came = outcome(matched, request, answer)
    expected: dict[str, Any] = {"rule": rule.name, **example.expect}
    file, _, line = example.at.rpartition(":")
    problems = []
    hint = _hint(matched, request, answer, came)
    for key, wanted in expected.items():
        got = _GOT[key](came)
        if not _same(key, wanted, got, came):
            why = _why(key, came, hint)
            hint = "" if hint in why else hint
            problems.append(
                Problem(
                    file, int(line), 1, f"{rule.name}: example {example.method} {example.url}",
                    f"expected {key}: {_show(wanted)}, got {_show(got)}{why}",
                )
            )  # fmt: skip
    return problems


def request_of(example: Example) -> RequestHead:
    """The example's request; its host is the URL's, else the Host header's, else ``edge.example``."""
    scheme, separator, rest = example.url.partition("://")
    if not separator or example.url.startswith("/"):
        scheme, rest = "http", example.url
    host, slash, target = rest.partition("/") if not rest.startswith("/") else ("", "/", rest[1:])
    headers = Headers.of(example.request_headers)
    return RequestHead(
        example.method, scheme, (host or headers.get("host") or HOST).lower(), slash + target, headers,
        has_body=example.body is not None,
    )  # fmt: skip


def response_of(example: Example, path: str) -> ResponseHead:
    """The example's answer; a Content-Type is assumed where it names none."""
    headers = Headers.of(example.response_headers)
    if "content-type" not in headers:
        headers = Headers((*assumed(path).headers.raw, *headers.raw))
    return ResponseHead(example.response_status, "", headers)


_GOT: dict[str, Callable[[Outcome], object]] = {
    "rule": lambda came: came.matched.rule.name,
    "cached": lambda came: came.cached,
    "reason": lambda came: None if came.reason is None else came.reason.value,
    "ttl": lambda came: came.ttl,
    "stale_while_revalidate": lambda came: came.stale_while_revalidate,
    "stale_if_error": lambda came: came.stale_if_error,
    "stale_if_disconnected": lambda came: came.stale_if_disconnected,
    "keep": lambda came: came.freshness.keep if came.freshness else 0.0,
    "key": lambda came: came.key.primary.replace("\0", " | "),
    "tags": lambda came: came.tags,
    "cache_control": lambda came: came.cache_control or "none",
    "cdn_cache_control": lambda came: came.cdn_cache_control or "none",
    "invalidates": lambda came: tuple(
        value + "*" if kind == "prefix" else value for _, kind, value in came.purges
    ),
    "parts": lambda came: tuple(came.matched.parts.items()),
}
"""What each key of ``expect`` is compared with."""


def _same(key: str, wanted: Any, got: Any, came: Outcome) -> bool:
    if key in ("tags", "invalidates", "parts"):
        return bool(sorted(wanted) == sorted(got))
    if key == "key":
        return wanted in (got, came.key.target)
    if isinstance(wanted, float):
        return bool(abs(wanted - got) < 0.001)
    return bool(wanted == got)


def _hint(matched: Matched, request: RequestHead, answer: ResponseHead, came: Outcome) -> str:
    """What it would take to have it stored, as ``explain`` says it; "" where nothing is to be said."""
    if request.method == "HEAD" and not came.pass_reason:
        return "; a HEAD is answered from what a GET stored and fills nothing: write GET"
    other = otherwise(matched, request, answer, WHEN, came)
    return "" if other is None else f"; {otherwise_text(other)}"


def _why(key: str, came: Outcome, hint: str) -> str:
    """What helps to understand it."""
    if key == "rule":
        return f" ({came.matched.rule.at})"
    if key in ("cached", "ttl", "tags") and came.reason is not None:
        return f" (not stored: {came.reason.value}{hint})"
    return ""


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return show_duration(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(": ".join(v) if isinstance(v, tuple) else str(v) for v in value) + "]"
    return "none" if value is None else str(value)
