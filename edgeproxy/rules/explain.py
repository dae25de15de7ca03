"""Why a request gets what it gets: the rule, those that lost, the key, the times, and what would change it.

Rules of this file:

- Every statement comes from an Outcome, that is, from the functions the engine uses.
- The counterfactual is computed, not guessed: the outcome is asked again with the one word changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeproxy.policy.stored import LifetimeSource, Unsafe
from edgeproxy.policy.vocabulary import NotStored, PassReason
from edgeproxy.rules.match import has_dot_segment, host_matches, host_name, losing_condition, path_parts
from edgeproxy.rules.outcome import ASSUMED, WHEN, Outcome, outcome
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
class Otherwise:
    """What it would take: without ``reasons`` the answer would be stored for ``ttl`` seconds (None: not
    even then). ``needs`` is the line to write, "" where no rule can allow it."""

    reasons: tuple[str, ...]
    ttl: float | None
    needs: str


@dataclass(frozen=True, slots=True)
class Explanation:
    request: RequestHead
    status: int
    assumed: bool
    """Whether the answer is an assumed one."""
    outcome: Outcome
    lost: tuple[Lost, ...]
    otherwise: Otherwise | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, times in seconds. ``rule`` is ``{"name": ..., "at": "file.yaml:2"}``."""
        came, rule = self.outcome, self.outcome.matched.rule
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
            "ttl": came.ttl if came.cached else None,
            "ttl_source": freshness.source.value if freshness else None,
            "validate_always": bool(freshness and freshness.must_validate),
            "stale_while_revalidate": came.stale_while_revalidate if came.cached else None,
            "stale_if_error": came.stale_if_error if came.cached else None,
            "keep": freshness.keep if freshness else None,
            "tags": list(came.tags),
            "purges": [{"kind": k, "value": v, "soft": soft} for soft, k, v in came.purges],
            "clients": {"cache_control": came.cache_control, "cdn_cache_control": came.cdn_cache_control},
            "answer": {"status": self.status, "assumed": self.assumed},
            "otherwise": None if self.otherwise is None else {
                "without": list(self.otherwise.reasons),
                "ttl": self.otherwise.ttl,
                "needs": self.otherwise.needs or None,
            },
            "notes": list(self.notes),
        }  # fmt: skip

    def text(self) -> str:
        """For a terminal; ends without a newline."""
        came, rule = self.outcome, self.outcome.matched.rule
        named = "".join(f"  {name}={value}" for name, value in came.matched.parts.items())
        whose = "assumed" if self.assumed else "given"
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
            ("cache", self._cache()),
        ]
        if self.otherwise is not None:
            rows.append(("", _otherwise_text(self.otherwise)))
        if came.tags:
            rows.append(("tags", ", ".join(came.tags)))
        rows += [("purges", f"{k} {v}{' (soft)' if soft else ''}") for soft, k, v in came.purges]
        rows.append(("clients", f"Cache-Control: {came.cache_control or '(none)'}"))
        if came.cdn_cache_control is not None:
            rows.append(("caches", f"CDN-Cache-Control: {came.cdn_cache_control}"))
        # A rule that lost by more than its path is the one that was meant.
        nearest = sorted(self.lost, key=lambda each: each.why == "path")[:SHOWN]
        rows += [("lost", f"{each.name} ({each.at}): {each.why}") for each in nearest]
        if len(self.lost) > SHOWN:
            rows.append(("", f"and {len(self.lost) - SHOWN} more"))
        rows += [("note", note) for note in self.notes]
        return "\n".join(f"{name:<8} {value}".rstrip() for name, value in rows)

    def _cache(self) -> str:
        came, freshness = self.outcome, self.outcome.freshness
        if came.pass_reason is not None:
            return f"passed: {came.pass_reason.value}"
        if freshness is None:
            return f"not stored: {came.not_stored.value if came.not_stored else ''}"
        if freshness.must_validate:
            said = "stored, and validated with the origin before each use (no-cache)"
        else:
            said = f"stored for {show_duration(came.ttl)} ({_SOURCES[freshness.source]})"
        if came.stale_while_revalidate:
            said += f"; then stale for {show_duration(came.stale_while_revalidate)} while it is refreshed"
        if came.stale_if_error:
            said += f"; stale for {show_duration(came.stale_if_error)} if the origin fails"
        return said


_SOURCES = {
    LifetimeSource.RULE: "the rule's ttl",
    LifetimeSource.CDN_CACHE_CONTROL: "the answer's CDN-Cache-Control",
    LifetimeSource.S_MAXAGE: "the answer's s-maxage",
    LifetimeSource.MAX_AGE: "the answer's max-age",
    LifetimeSource.EXPIRES: "the answer's Expires",
    LifetimeSource.HEURISTIC: "a tenth of the time since Last-Modified",
    LifetimeSource.NONE: "no lifetime given",
}

_WORDS = {
    NotStored.SET_COOKIE: Unsafe.SET_COOKIE,
    NotStored.AUTHORIZATION: Unsafe.AUTHORIZATION,
    NotStored.RESPONSE_NO_STORE: Unsafe.NO_STORE,
    NotStored.RESPONSE_PRIVATE: Unsafe.PRIVATE,
    NotStored.RESPONSE_NO_CACHE: Unsafe.NO_CACHE,
}
_MEANT = frozenset({PassReason.METHOD, PassReason.RULE, NotStored.RULE})
"""What the rule (or the method) means to be so."""
_LINES = {
    NotStored.STATUS: "status_ttl: ...",
    NotStored.SERVER_ERROR: "status_ttl: ...",
    NotStored.NO_LIFETIME: "ttl: ...",
    NotStored.LIFETIME_ZERO: "ttl: ...",
    NotStored.TOO_LARGE: "max_object: ...",
    NotStored.REQUEST_NO_STORE: "request_directives: ignore",
    PassReason.REQUEST_NO_STORE: "request_directives: ignore",
}


def explain(
    matcher: Matcher, request: RequestHead, response: ResponseHead | None = None, now: float = WHEN
) -> Explanation:
    """``response`` None: a plain 200 with a JSON body and nothing else is assumed."""
    answer = ASSUMED if response is None else response
    matched = matcher.match(request)
    came = outcome(matched, request, answer, now)
    notes = []
    if has_dot_segment(request.path):
        notes.append("the path has a dot segment: a rule never answers it from the cache")
    return Explanation(
        request=request,
        status=answer.status,
        assumed=response is None,
        outcome=came,
        lost=tuple(_lost(matcher, matched, request)),
        otherwise=_otherwise(matched, request, answer, now, came),
        notes=tuple(notes),
    )


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


def _otherwise(
    matched: Matched, request: RequestHead, answer: ResponseHead, now: float, came: Outcome
) -> Otherwise | None:
    """Grant one unsafe word after the other until the answer is stored, or nothing more can be granted."""
    if came.reason is None or came.reason in _MEANT:
        return None
    reasons: list[str] = []
    words: list[str] = []
    overrides = matched.rule.overrides
    while came.reason is not None:
        reasons.append(came.reason.value)
        word = _WORDS.get(came.reason) if isinstance(came.reason, NotStored) else None
        if word is None or word in overrides.unsafe:
            return Otherwise(tuple(reasons), None, _LINES.get(came.reason, "") if len(reasons) == 1 else "")
        words.append(word.value)
        overrides = replace(overrides, unsafe=overrides.unsafe | {word})
        came = outcome(
            replace(matched, rule=replace(matched.rule, overrides=overrides)), request, answer, now
        )
    return Otherwise(tuple(reasons), came.ttl, f"unsafe: [{', '.join(words)}]")


def _otherwise_text(otherwise: Otherwise) -> str:
    if otherwise.ttl is None:
        return f"to store it, the rule needs {otherwise.needs}" if otherwise.needs else "no rule can store it"
    them = "it" if len(otherwise.reasons) == 1 else f"them ({', '.join(otherwise.reasons)})"
    said = f"would be stored for {show_duration(otherwise.ttl)} without {them}"
    said += f"; to store it all the same: {otherwise.needs}"
    if "authorization" in otherwise.needs:
        said += ", and key: {headers: [authorization]} lest users see each other's"
    return said
