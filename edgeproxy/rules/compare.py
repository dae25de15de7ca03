"""Two rules beside each other: what differs in what they decide, for all requests or for one.

Rules of this file:

- One table names every decision that a rule makes (FIELDS); a test holds it against the model, so that a new
  key of rules cannot be forgotten here.
- Exact: where what comes of a request hangs on the answer, the rules' own words are compared, and a rule that
  leaves it to the answer is shown as "as the answer says".
- For one request: the key, the tags and what is purged are those of this request; what the cache would do
  counts only where one of the two rules asks the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.key import build_key
from edgeproxy.policy.decide import bypass
from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Unsafe
from edgeproxy.rules.model import PLAIN, SAFE_METHODS, Coalesce, HeaderOps, KeyPolicy, Match
from edgeproxy.rules.possible import show_condition
from edgeproxy.rules.tags import invalidation_targets, tags_for
from edgeproxy.rules.values import show_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import Clients, Invalidation, Matched, RateLimit, Rule, RuleSet, TagPolicy
    from edgeproxy.rules.pools import PoolSpec

ANSWER = "as the answer says"


class Change(NamedTuple):
    """One decision that differs, in words."""

    field: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Field:
    """A decision: its name in rule files, its value in a rule, how it is shown. ``cache``: it concerns only
    requests for which the cache is asked."""

    name: str
    of: Callable[[Rule], Any]
    show: Callable[[Any], str] = str
    cache: bool = True


def changes(old: Rule, new: Rule) -> tuple[Change, ...]:
    """All that differs, conditions among it, in the table's order. Names and places do not count."""
    found = [_MATCH, *FIELDS]
    return tuple(
        Change(f.name, f.show(f.of(old)), f.show(f.of(new))) for f in found if f.of(old) != f.of(new)
    )


def changes_for(old: Matched, new: Matched, request: RequestHead) -> tuple[Change, ...]:
    """What is decided otherwise for this request (of which no field need be known)."""
    passes = [bypass(_with_content(each.rule, request), each.rule.overrides) for each in (old, new)]
    words = ["cached" if p is None else f"passed ({p.reason.value})" for p in passes]
    found = [] if words[0] == words[1] else [Change("cache", *words)]
    a, b = old.rule, new.rule
    # Of a rule that passes, what it says of the cache is idle: the other is told in full.
    cached_a, cached_b = a if passes[0] is None else PLAIN, b if passes[1] is None else PLAIN
    for f in FIELDS:
        one, other = (cached_a, cached_b) if f.cache else (a, b)
        if f.name not in _OF_REQUEST and f.name != "pass" and f.of(one) != f.of(other):
            found.append(Change(f.name, f.show(f.of(one)), f.show(f.of(other))))
    if None in passes or request.method not in SAFE_METHODS:
        found += _key(a, b, request)
    if None in passes:
        found += _tags(old, new, None in passes[:1], None in passes[1:])
    purged = [
        [f"{kind} {value}{' (soft)' if soft else ''}" for soft, kind, value in _purges(each, request)]
        for each in (old, new)
    ]
    if purged[0] != purged[1]:
        found.append(Change("invalidates", _list(purged[0]), _list(purged[1])))
    return tuple(found)


def pool_changes(old: RuleSet, new: RuleSet) -> dict[str, Change]:
    """Pools of one name that are not the same, by name; those added and removed too."""
    before, after = _pools(old), _pools(new)
    return {
        name: Change(f"pools.{name}", _pool(before, after, name), _pool(after, before, name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _pools(ruleset: RuleSet) -> dict[str, PoolSpec]:
    return {pool.name: replace(pool, at="") for pool in ruleset.pools}


def _pool(mine: Mapping[str, PoolSpec], others: Mapping[str, PoolSpec], name: str) -> str:
    pool, other = mine.get(name), others.get(name)
    if pool is None:
        return "not in the files"
    differs = [
        f"{f.name} {getattr(pool, f.name)}"
        for f in fields(pool)
        if f.name != "origins" and (other is None or getattr(pool, f.name) != getattr(other, f.name))
    ]
    if other is None:
        return "in the files"
    if pool.origins != other.origins:
        differs.insert(0, f"origins {_list(str(each.url) for each in pool.origins)}")
    return "; ".join(differs)


def _with_content(rule: Rule, request: RequestHead) -> RequestHead:
    """As if it had content where the rule has that in the key: what a URL cannot tell, the rule means."""
    body = rule.key.body
    if body is None or request.method not in body.methods or request.content_key or request.unkeyed:
        return request
    return replace(request, content_key="content")


def _key(a: Rule, b: Rule, request: RequestHead) -> list[Change]:
    keys = [build_key(_with_content(rule, request), rule.key) for rule in (a, b)]
    if keys[0] == keys[1] and a.key.body == b.key.body:
        return []
    words = [show_key(rule.key) for rule in (a, b)]
    # Where the policies read alike, what differs is what this request comes to.
    return [
        Change("key", *(words if words[0] != words[1] else [k.primary.replace("\0", " | ") for k in keys]))
    ]


def _tags(old: Matched, new: Matched, old_asks: bool, new_asks: bool) -> list[Change]:  # noqa: FBT001
    none = Headers()
    tags = [
        tags_for(each.rule, each.parts, none) if asks else ()
        for each, asks in ((old, old_asks), (new, new_asks))
    ]
    from_fields = [
        each.rule.tags.from_headers if asks else PLAIN.tags.from_headers
        for each, asks in ((old, old_asks), (new, new_asks))
    ]
    found = []
    if tags[0] != tags[1]:
        words = [
            _list(each.rule.tags.templates if asks else ())
            for each, asks in ((old, old_asks), (new, new_asks))
        ]
        found.append(Change("tags", *(words if words[0] != words[1] else [_list(each) for each in tags])))
    if from_fields[0] != from_fields[1]:
        found.append(Change("tags.from_headers", _list(from_fields[0]), _list(from_fields[1])))
    return found


def _purges(matched: Matched, request: RequestHead) -> Iterable[tuple[bool, str, str]]:
    return invalidation_targets(matched.rule, matched.parts, request.method)


def _list(values: Iterable[str]) -> str:
    return ", ".join(values) or "none"


def _time(value: float | None) -> str:
    return ANSWER if value is None else show_duration(value)


def _flag(value: bool | None) -> str:  # noqa: FBT001
    return ANSWER if value is None else "true" if value else "false"


def _said(value: str | None) -> str:
    return ANSWER if value is None else value or '""'


def _status(value: Mapping[int, float]) -> str:
    return _list(f"{k if k > 5 else f'{k}xx'} {show_duration(v)}" for k, v in sorted(value.items()))


def show_key(policy: KeyPolicy) -> str:
    """A key policy in words: "host, query without utm_*, sorted"."""
    parts = ["host"] if policy.host else []
    if policy.query_allow is None:
        parts.append("query")
    else:
        parts.append(f"query only {' '.join(policy.query_allow)}" if policy.query_allow else "no query")
    if policy.query_ignore:
        parts[-1] += f" without {' '.join(policy.query_ignore)}"
    if policy.sort:
        parts[-1] += " sorted"
    parts += [f"header {name}" for name in policy.headers]
    parts += [f"cookie {name}" for name in policy.cookies]
    if policy.body is not None:
        body = policy.body
        extra = " persisted" if body.persisted else ""
        parts.append(
            f"body of {' '.join(sorted(body.methods))} as {body.form.value}, at most {body.limit} B{extra}"
        )
    if policy.scope:
        parts.append(f"apart for {policy.scope}")
    return ", ".join(parts)


def _ops(ops: HeaderOps) -> str:
    return _list(
        [f"remove {name}" for name in ops.remove]
        + [f"set {name}: {value}" for name, value in ops.set]
        + [f"add {name}: {value}" for name, value in ops.add]
    )


def _coalesce(value: Coalesce) -> str:
    return f"wait {_time(value.wait)}, lease {_time(value.lease)}" if value.enabled else "false"


def _plain(value: Any) -> str:
    """A frozen dataclass as "name value, name value"."""
    return ", ".join(f"{f.name} {getattr(value, f.name)}" for f in fields(value))


def _match(match: Match) -> str:
    parts = [f"path {_list(p.source for p in match.paths)}"] if match.paths else []
    parts += [f"host {_list(match.hosts)}"] if match.hosts else []
    parts += [f"method {_list(sorted(match.methods))}"] if match.methods else []
    for kind, conditions in (("header", match.headers), ("cookie", match.cookies), ("query", match.query)):
        parts += [f"{kind} {each.name}: {show_condition(each)}" for each in conditions]
    return "; ".join(parts) or "everything"


def _invalidates(value: Iterable[Invalidation]) -> str:
    return _list(
        f"on {' '.join(sorted(each.methods))}: "
        + _list(
            f"{kind} {text}"
            for kind, texts in (("tag", each.tags), ("url", each.urls), ("prefix", each.prefixes))
            for text in texts
        )
        + (" (soft)" if each.soft else "")
        for each in value
    )  # fmt: skip


def _unsafe(value: Iterable[Unsafe]) -> str:
    return _list(sorted(each.value for each in value))


def _deciding(rule: Rule) -> frozenset[Unsafe]:
    return rule.overrides.unsafe - {Unsafe.ANY_HOST}


def _ahead(value: Any) -> str:
    return "none" if value is None else _plain(value) if is_dataclass(value) else str(value)


def _guard(value: bool | None) -> str:  # noqa: FBT001
    return "where the rule gives the lifetime" if value is None else _flag(value)


def _normalise(value: Mapping[str, Iterable[str]]) -> str:
    return _list(f"{name} to {' '.join(values)}" for name, values in sorted(value.items()))


def _read_timeout(value: float | None) -> str:
    return "as the command line says" if value is None else _time(value)


def _rate_limit(limit: RateLimit | None) -> str:
    if limit is None:
        return "none"
    by = f"header:{limit.header}" if limit.header else "client" if limit.by_client else "all"
    return f"{limit.rate:g}/s, burst {limit.burst}, by {by}"


def _clients(clients: Clients | None) -> str:
    if clients is None:
        return "all"
    return f"allow {clients.allow or 'all'}, deny {clients.deny or 'none'}"


def _tag_policy(value: TagPolicy) -> str:
    return f"{_list(value.templates)}; from {_list(value.from_headers)}"


_MATCH = Field("match", lambda rule: rule.match, _match)

FIELDS: tuple[Field, ...] = (
    Field("pass", lambda rule: rule.overrides.pass_, _flag, cache=False),
    Field("no_store", lambda rule: rule.overrides.no_store, _flag),
    Field("ttl", lambda rule: rule.overrides.ttl, _time),
    Field("ttl_min", lambda rule: rule.overrides.ttl_min, _time),
    Field("ttl_max", lambda rule: rule.overrides.ttl_max, _time),
    Field("ttl_jitter", lambda rule: rule.overrides.ttl_jitter, lambda share: f"{share:.0%}"),
    Field("status_ttl", lambda rule: dict(rule.overrides.status_ttl), _status),
    Field("stale_while_revalidate", lambda rule: rule.overrides.stale_while_revalidate, _time),
    Field("stale_if_error", lambda rule: rule.overrides.stale_if_error, _time),
    Field("stale_if_disconnected", lambda rule: rule.overrides.stale_if_disconnected, _time),
    Field("max_stale", lambda rule: rule.overrides.max_stale, _time),
    Field("keep", lambda rule: rule.overrides.keep, _time),
    Field("key", lambda rule: rule.key, show_key),
    Field("tags", lambda rule: rule.tags, _tag_policy),
    Field("invalidates", lambda rule: rule.invalidates, _invalidates, cache=False),
    Field("unsafe", _deciding, _unsafe),
    Field("honour_request_directives", lambda rule: rule.overrides.honour_request_directives, _flag),
    Field("heuristic", lambda rule: rule.overrides.heuristic, _flag),
    Field("extension_guard", lambda rule: rule.overrides.extension_guard, _guard),
    Field("max_object", lambda rule: rule.overrides.max_object, lambda value: f"{value:,} B"),
    Field("range", lambda rule: rule.overrides.parts, lambda parts: "part" if parts else "whole"),
    Field("normalise", lambda rule: dict(rule.overrides.normalise), _normalise),
    Field("compression", lambda rule: rule.overrides.compression, _plain, cache=False),
    Field("client_cache_control", lambda rule: rule.client_cache_control, _said),
    Field("cdn_cache_control", lambda rule: rule.cdn_cache_control, _said),
    Field("request_headers", lambda rule: rule.request_headers, _ops, cache=False),
    Field("response_headers", lambda rule: rule.response_headers, _ops, cache=False),
    Field("refresh_ahead", lambda rule: rule.refresh_ahead, _ahead),
    Field("coalesce", lambda rule: rule.coalesce, _coalesce),
    Field("origin", lambda rule: rule.origin, cache=False),
    Field("retry", lambda rule: rule.retry, cache=False),
    Field("rate_limit", lambda rule: rule.rate_limit, _rate_limit, cache=False),
    Field("clients", lambda rule: rule.clients, _clients, cache=False),
    Field("read_timeout", lambda rule: rule.read_timeout, _read_timeout, cache=False),
    Field("websocket", lambda rule: rule.websocket, _plain, cache=False),
)  # fmt: skip
"""Every decision of a rule."""

_OF_REQUEST = frozenset({"key", "tags", "invalidates"})
"""Compared as they come out for the request."""
