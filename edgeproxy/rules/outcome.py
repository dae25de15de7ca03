"""What comes of one request and one answer under a rule set: the flow's decisions, without any flow.

Rules of this file:

- Asks the matcher, the key builder and the policy, the same functions that the engine asks, in its order,
  with an empty cache. Nothing is decided here a second time.
- So a HEAD is not stored: it is answered from what a GET has stored, and leaves nothing itself.
- Pure; ``explain`` and rule examples both read an Outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeproxy.key import CacheKey, build_key
from edgeproxy.policy.decide import bypass, conclude
from edgeproxy.policy.decisions import Discard, GiveUp, OriginAnswer, Refetch, Store
from edgeproxy.policy.extension import TYPES, extension
from edgeproxy.policy.head import Headers, ResponseHead
from edgeproxy.policy.parts import fetch_missing
from edgeproxy.policy.vocabulary import Forwarded, NotStored, PassReason
from edgeproxy.rules.content import only_asks
from edgeproxy.rules.tags import Target, invalidation_targets, tags_for

if TYPE_CHECKING:
    from edgeproxy.policy.decisions import Conclusion
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.policy.stored import Freshness
    from edgeproxy.rules.model import Matched, Rule

WHEN = 1_767_225_600.0
"""2026-01-01T00:00:00Z: the moment of examples and of explanations that are given no other."""

ASSUMED = ResponseHead(200, "OK", Headers.of([("Content-Type", "application/json")]))
"""What the origin answers where nobody says."""


def assumed(path: str) -> ResponseHead:
    """The same, of the type that the path's extension stands for, where it has one."""
    ending = extension(path)
    if not ending:
        return ASSUMED
    kind = TYPES[ending][0]
    return replace(
        ASSUMED, headers=Headers.of([("Content-Type", "application/octet-stream" if "*" in kind else kind)])
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """``pass_reason`` is set where the cache is not asked; else ``freshness`` where the answer is stored,
    else ``not_stored``. ``cache_control`` and ``cdn_cache_control`` are what clients get."""

    matched: Matched
    key: CacheKey
    tags: tuple[str, ...] = ()
    purges: tuple[Target, ...] = ()
    pass_reason: PassReason | None = None
    not_stored: NotStored | None = None
    freshness: Freshness | None = None
    cache_control: str | None = None
    cdn_cache_control: str | None = None

    @property
    def cached(self) -> bool:
        return self.freshness is not None

    @property
    def reason(self) -> PassReason | NotStored | None:
        return self.pass_reason or self.not_stored

    @property
    def ttl(self) -> float:
        """Seconds from now for which it may be used unasked; 0 if never."""
        f = self.freshness
        return 0.0 if f is None or f.must_validate else max(0.0, f.lifetime - f.initial_age)

    @property
    def stale_while_revalidate(self) -> float:
        f = self.freshness
        return 0.0 if f is None or f.must_validate or f.never_stale else f.stale_while_revalidate

    @property
    def stale_if_error(self) -> float:
        f = self.freshness
        return 0.0 if f is None or f.must_validate or f.never_stale else f.stale_if_error

    @property
    def stale_if_disconnected(self) -> float:
        f = self.freshness
        return 0.0 if f is None or f.must_validate or f.never_stale else f.stale_if_disconnected


def outcome(
    matched: Matched, request: RequestHead, response: ResponseHead | None = None, now: float = WHEN
) -> Outcome:
    """What the edge does under the rule that matched ``request``, if the origin answers ``response`` (None:
    an assumed one)."""
    rule = matched.rule
    response = response or assumed(request.path)
    key = build_key(request, rule.key)
    passed = bypass(request, rule.overrides)
    if passed is not None:
        asks = only_asks(rule, request)
        purges = () if asks else invalidation_targets(rule, matched.parts, request.method)
        came = Outcome(matched, key, purges=purges, pass_reason=passed.reason)
    else:
        asked = fetch_missing(request, Forwarded.URI_MISS, rule.overrides).asked
        concluded = conclude(request, None, OriginAnswer(response, now, now), rule.overrides, now, asked)
        if isinstance(concluded, Store):
            tags = tags_for(rule, matched.parts, response.headers)
            came = Outcome(matched, key, tags=tags, freshness=concluded.stored.freshness)
        else:
            came = Outcome(matched, key, not_stored=_no(concluded))
    told = _told(response, rule, shareable=came.cached)
    return replace(
        came, cache_control=told.get("cache-control"), cdn_cache_control=told.get("cdn-cache-control")
    )


def _no(concluded: Conclusion) -> NotStored:
    """With nothing stored there are no other ends than these."""
    match concluded:
        case Discard(reason=reason):
            return reason
        case Refetch():
            return NotStored.NOT_MODIFIED
        case GiveUp():
            return NotStored.ORIGIN_FAILED
        case _:
            raise AssertionError(concluded)


def _told(response: ResponseHead, rule: Rule, *, shareable: bool) -> Headers:
    """The fields as front/respond.py sends them: the rule's on good answers that are stored."""
    headers = response.headers
    if shareable and response.status < 400:
        for name, value in (
            ("Cache-Control", rule.client_cache_control), ("CDN-Cache-Control", rule.cdn_cache_control),
        ):  # fmt: skip
            headers = headers if value is None else headers.setting(name, value)
    return rule.response_headers.apply(headers)
