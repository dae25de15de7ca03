"""Why a request gets what it gets: the rule, those that lost, the key, the times, and what would change it.

Rules of this file:

- Every statement comes from an Outcome, that is, from the functions the engine uses.
- What it would take otherwise is otherwise.py's.
- A HEAD is never stored: what a GET of the same URL would leave to answer it from is told with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeproxy.policy.freshness import status_ttl
from edgeproxy.policy.stored import LifetimeSource
from edgeproxy.policy.vocabulary import PassReason
from edgeproxy.rules.conditions import losing_condition
from edgeproxy.rules.content import named
from edgeproxy.rules.last_answer import LastAnswer, Source
from edgeproxy.rules.match import has_dot_segment, host_matches, host_name, path_parts
from edgeproxy.rules.otherwise import Otherwise, otherwise, otherwise_text
from edgeproxy.rules.outcome import WHEN, Outcome, assumed, outcome
from edgeproxy.rules.values import show_duration

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead, ResponseHead
    from edgeproxy.rules.match import Matcher
    from edgeproxy.rules.model import Matched, Rule

SHOWN = 20
"""Losing rules named in the text form; the data holds all."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A rule that did not answer. ``why``: path, host, method, "header x-beta", ..., or "an earlier rule
    matched"."""

    name: str
    at: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    request: RequestHead
    status: int
    source: Source
    """Of the answer."""
    seconds: float | None
    """Since it came, of one that an instance knows."""
    outcome: Outcome
    lost: tuple[Lost, ...]
    otherwise: Otherwise | None
    notes: tuple[str, ...]
    get: Outcome | None = None
    """For a HEAD that asks the cache: what comes of a GET, from whose stored answer it is answered."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, times in seconds. ``rule`` is ``{"name": ..., "at": "file.yaml:2"}``."""
        came, rule, told = self.outcome, self.outcome.matched.rule, self.get or self.outcome
        freshness = came.freshness
        return {
            "request": {
                "method": self.request.method, "host": self.request.host, "target": self.request.target,
            },
            "rule": {"name": rule.name, "at": rule.at},
            "parts": dict(came.matched.parts),
            "lost": [{"name": each.name, "at": each.at, "why": each.why} for each in self.lost],
            "key": came.key.primary.replace("\0", " | "),
            "key_target": came.key.target,
            "decision": "pass" if came.pass_reason else "cache",
            "stored": came.cached,
            "reason": None if came.reason is None else came.reason.value,
            "get": None if self.get is None else {
                "stored": self.get.cached,
                "reason": None if self.get.reason is None else self.get.reason.value,
                "ttl": self.get.ttl if self.get.cached else None,
            },
            "ttl": came.ttl if came.cached else None,
            "ttl_source": freshness.source.value if freshness else None,
            "validate_always": bool(freshness and freshness.must_validate),
            "stale_while_revalidate": came.stale_while_revalidate if came.cached else None,
            "stale_if_error": came.stale_if_error if came.cached else None,
            "stale_if_disconnected": came.stale_if_disconnected if came.cached else None,
            "keep": freshness.keep if freshness else None,
            "tags": list(came.tags),
            "purges": [{"kind": k, "value": v, "soft": soft} for soft, k, v in came.purges],
            "clients": {"cache_control": told.cache_control, "cdn_cache_control": told.cdn_cache_control},
            "answer": {
                "status": self.status, "assumed": self.source is Source.ASSUMED,
                "source": self.source.value, "age": self.seconds,
            },
            "otherwise": None if self.otherwise is None else {
                "without": list(self.otherwise.reasons),
                "ttl": self.otherwise.ttl,
                "needs": self.otherwise.needs or None,
            },
            "notes": list(self.notes),
        }  # fmt: skip

    def text(self) -> str:
        """For a terminal; ends without a newline."""
        came, rule, told = self.outcome, self.outcome.matched.rule, self.get or self.outcome
        named = "".join(f"  {name}={value}" for name, value in came.matched.parts.items())
        whose = _WHOSE.get(self.source, self.source.value)
        whose += "" if self.seconds is None else f", {show_duration(round(self.seconds))} ago"
        rows = [
            (
                "request",
                f"{self.request.method} {self.request.scheme}://{self.request.host}{self.request.target}",
            ),
            ("answer", f"{self.status} ({whose})"),
            (
                "rule",
                f"{rule.name} ({rule.at}){named}" if rule.at != "built-in" else "none: plain HTTP caching",
            ),
            ("key", came.key.primary.replace("\0", " | ")),
            ("cache", HEAD_SAYS if self.get is not None else self._cache(came)),
        ]
        if self.get is not None:
            rows.append(("", f"of a GET: {self._cache(self.get)}"))
        if self.otherwise is not None:
            rows.append(("", otherwise_text(self.otherwise)))
        if came.tags:
            rows.append(("tags", ", ".join(came.tags)))
        rows += [("purges", f"{k} {v}{' (soft)' if soft else ''}") for soft, k, v in came.purges]
        rows.append(("clients", f"Cache-Control: {told.cache_control or '(none)'}"))
        if told.cdn_cache_control is not None:
            rows.append(("caches", f"CDN-Cache-Control: {told.cdn_cache_control}"))
        # A rule that lost by more than its path is the one that was meant.
        nearest = sorted(self.lost, key=lambda each: each.why == "path")[:SHOWN]
        rows += [("lost", f"{each.name} ({each.at}): {each.why}") for each in nearest]
        if len(self.lost) > SHOWN:
            rows.append(("", f"and {len(self.lost) - SHOWN} more"))
        rows += [("note", note) for note in self.notes]
        return "\n".join(f"{name:<8} {value}".rstrip() for name, value in rows)

    def _cache(self, came: Outcome) -> str:
        freshness = came.freshness
        if came.pass_reason is not None:
            only = " (only GET and HEAD are answered from the cache)"
            why = only if came.pass_reason is PassReason.METHOD else ""
            return f"passed: {came.pass_reason.value}{why}"
        if freshness is None:
            return f"not stored: {came.not_stored.value if came.not_stored else ''}"
        if freshness.must_validate:
            said = "stored, and validated with the origin before each use (no-cache)"
        else:
            said = f"stored for {show_duration(came.ttl)} ({self._source(freshness.source)})"
        if came.stale_while_revalidate:
            said += f"; then stale for {show_duration(came.stale_while_revalidate)} while it is refreshed"
        if came.stale_if_error:
            said += f"; stale for {show_duration(came.stale_if_error)} if the origin fails"
        if came.stale_if_disconnected:
            said += f"; stale for {show_duration(came.stale_if_disconnected)} if the origin cannot be reached"
        return said

    def _source(self, source: LifetimeSource) -> str:
        overrides = self.outcome.matched.rule.overrides
        if source is LifetimeSource.RULE and status_ttl(self.status, overrides) is not None:
            return "the rule's status_ttl"
        return _SOURCES[source]


_WHOSE = {
    Source.STORED: "the one that is stored",
    Source.REFUSED: "the last one, which was not stored",
    Source.VARIANT: "one that is stored for other requests; none for this one",
}

HEAD_SAYS = "answered from what a GET stored; does not fill the cache"

_SOURCES = {
    LifetimeSource.RULE: "the rule's ttl",
    LifetimeSource.CDN_CACHE_CONTROL: "the answer's CDN-Cache-Control",
    LifetimeSource.S_MAXAGE: "the answer's s-maxage",
    LifetimeSource.MAX_AGE: "the answer's max-age",
    LifetimeSource.EXPIRES: "the answer's Expires",
    LifetimeSource.HEURISTIC: "a tenth of the time since Last-Modified",
    LifetimeSource.NONE: "no lifetime given",
}


def explain(
    matcher: Matcher,
    request: RequestHead,
    response: ResponseHead | LastAnswer | None = None,
    now: float = WHEN,
    *,
    content: bytes | None = None,
    unknown: str = "",
    any_host: bool = False,
) -> Explanation:
    """``response`` None: a plain 200 of the type the path ends in, else JSON, and nothing else is assumed;
    ``unknown``: why none is known. ``content``: the request's, None where it has none. ``any_host``:
    the request's host was not asked for."""
    source, seconds = Source.GIVEN, None
    if response is None:
        answer, source = assumed(request.path), Source.ASSUMED
    elif isinstance(response, LastAnswer):
        answer, source, seconds = response.head, response.source, response.seconds
        now = response.when or now  # what it says of times, it says of then
    else:
        answer = response
    matched = matcher.match(request)
    request = named(matched.rule, replace(request, has_body=content is not None), content)
    came = outcome(matched, request, answer, now)
    # Where a HEAD is not passed, whether there is something to answer it from is the GET's to say.
    asked = replace(request, method="GET") if request.method == "HEAD" and not came.pass_reason else request
    get = outcome(matched, asked, answer, now) if asked is not request else None
    notes = [unknown] if unknown else []
    body = matched.rule.key.body
    if content is None and body is not None and request.method in body.methods:
        notes.append("the rule has the body in the key: give one (-d) to see what comes of it")
    if any_host and (bound := _bound(matcher, request)):
        notes.append(f"the host decides here, and none was given: {bound}; write the whole URL")
    if has_dot_segment(request.path):
        notes.append("the path has a dot segment: a rule never answers it from the cache")
    if matcher.evades(request.host, request.path):
        notes.append(
            "an origin that decodes the path may take it for one of an earlier rule: it is not answered "
            "from the cache"
        )
    return Explanation(
        request=request,
        status=answer.status,
        source=source,
        seconds=seconds,
        outcome=came,
        lost=tuple(_lost(matcher, matched, request)),
        otherwise=otherwise(matched, asked, answer, now, get or came),
        notes=tuple(notes),
        get=get,
    )


def _bound(matcher: Matcher, request: RequestHead) -> str:
    """The rules that answer on their own hosts, before the one that answers on any other; "" if none."""
    bound: list[str] = []
    for matched in matcher.candidates(None, request.path):
        rule = matched.rule
        if losing_condition(rule.match, request) is not None:
            continue
        if not rule.match.hosts:
            break
        bound.append(f"{rule.name} ({rule.at}) is for {', '.join(rule.match.hosts)}")
    more = f" and {len(bound) - SHOWN} more" if len(bound) > SHOWN else ""
    return "; ".join(bound[:SHOWN]) + more


def _lost(matcher: Matcher, won: Matched, request: RequestHead) -> list[Lost]:
    return [
        Lost(rule.name, rule.at, _why(rule, request))
        for rule in matcher.ruleset.rules
        if rule.name != won.rule.name
    ]


def _why(rule: Rule, request: RequestHead) -> str:
    if path_parts(rule.match.paths, request.path) is None:
        return "path"
    if not host_matches(rule.match.hosts, host_name(request.host)):
        return "host"
    return losing_condition(rule.match, request) or "an earlier rule matched"
