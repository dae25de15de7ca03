"""What the key table has read -> a Rule, and what its keys mean together.

Rules of this file:

- Gets a dict that kinds.py has checked key by key; checks here what no single key can know.
- What a rule does not say it has from PLAIN, the same values for all: of ten thousand rules few say much.
- Whatever would share one user's answer with another is refused here, or needs an ``unsafe`` word, and
  the message says why.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import blake2b
from math import ceil
from typing import TYPE_CHECKING, Any

from edgeproxy.key import SECRET
from edgeproxy.networks import Networks
from edgeproxy.policy.content import ContentForm
from edgeproxy.policy.stored import Overrides, Unsafe
from edgeproxy.rules.document import Mapping, Node, at
from edgeproxy.rules.keys import MOST_BODY, ORIGIN
from edgeproxy.rules.model import (
    PLAIN,
    BodyPolicy,
    Clients,
    Example,
    HeaderOps,
    Invalidation,
    KeyPolicy,
    Match,
    RateLimit,
    RefreshAhead,
    Rule,
    TagPolicy,
)
from edgeproxy.rules.patterns import names_in

if TYPE_CHECKING:
    from edgeproxy.rules.problems import Problems

Read = dict[str, Any]

_REQUEST = re.compile(r"(?:([A-Za-z]+) +)?((?:https?://[^/\s]+)?/\S*)")
_NAMED = re.compile(r"\{(\w+)\}")


def build_rule(read: Read, node: Node, key: str, out: Problems) -> Rule:
    match = _match(read["match"])
    rule = Rule(
        name=read["name"],
        at=f"{out.file}:{node.line}",
        match=match,
        overrides=_overrides(read),
        key=_key(read.get("key", {}), _scope(match)),
        tags=_tags(read),
        invalidates=tuple(_invalidation(i) for i in read.get("invalidates", ())),
        client_cache_control=read.get("cache_control"),
        cdn_cache_control=read.get("cdn_cache_control"),
        request_headers=_header_ops(read.get("request_headers", {})),
        response_headers=_header_ops(read.get("response_headers", {})),
        coalesce=_switched(PLAIN.coalesce, read.get("coalesce")),
        websocket=_switched(PLAIN.websocket, read.get("websocket")),
        refresh_ahead=_refresh_ahead(read.get("refresh_ahead")),
        rate_limit=_rate_limit(read.get("rate_limit")),
        clients=_clients(read.get("clients")),
        read_timeout=read.get("read_timeout"),
        **{name: read[name] for name in ("origin", "retry") if name in read},
        examples=tuple(
            _example(e, at(node, "examples", i, default=node), f"{key}.examples[{i}]", out)
            for i, e in enumerate(read.get("examples", ()))
        ),
    )
    for check in (
        _check_match,
        _check_body,
        _check_ttl,
        _check_templates,
        _check_invalidates,
        _check_sharing,
        _check_authorized,
    ):
        check(rule, node, key, out)
    return rule


def _match(read: Read) -> Match:
    return Match(
        paths=read.get("path", ()),
        hosts=read.get("host", ()),
        methods=frozenset(read.get("method", ())),
        **{
            name: tuple(condition(of) for of, condition in read.get(name, ()))
            for name in ("headers", "cookies", "query")
        },
    )


def _overrides(read: Read) -> Overrides:
    ttl = read.get("ttl", ORIGIN)
    bounds: Read = ttl if isinstance(ttl, dict) else {}
    plain = {
        name: read[name]
        for name in (
            "ttl_jitter",
            "stale_while_revalidate",
            "stale_if_error",
            "stale_if_disconnected",
            "max_stale",
            "keep",
            "heuristic",
            "max_object",
            "no_store",
        )
        if name in read
    }
    return Overrides(
        ttl=ttl if isinstance(ttl, float) else None,
        ttl_min=bounds.get("min"),
        ttl_max=bounds.get("max"),
        status_ttl=dict(read.get("status_ttl", ())),
        unsafe=frozenset(Unsafe(word) for word in read.get("unsafe", ())),
        honour_request_directives=read.get("request_directives", "honour") == "honour",
        compression=_switched(PLAIN.overrides.compression, read.get("compression")),
        extension_guard=read.get("extension_guard"),
        normalise=dict(read.get("normalise", ())),
        pass_=read.get("pass", False),
        parts=read.get("range", "part") == "part",
        **plain,
    )


def _switched(default: Any, read: bool | Read | None) -> Any:  # noqa: FBT001
    """``on``, ``off`` or a mapping of what differs from ``default``."""
    if isinstance(read, dict):
        return replace(default, **read)
    return default if read is None else replace(default, enabled=read)


def _refresh_ahead(read: bool | Read | None) -> RefreshAhead | None:  # noqa: FBT001
    if not isinstance(read, dict):
        return RefreshAhead() if read else None
    within, share = read.get("within", (RefreshAhead().within, True))
    return RefreshAhead(within, share, **{k: v for k, v in read.items() if k != "within"})


def _rate_limit(read: Read | None) -> RateLimit | None:
    if read is None:
        return None
    rate = read["rate"]
    by = read.get("by", "client")
    return RateLimit(rate, read.get("burst", max(1, ceil(rate))), by.partition(":")[2], by_client=by != "all")


def _clients(read: Read | None) -> Clients | None:
    if read is None:
        return None
    return Clients(Networks(read.get("allow", ())), Networks(read.get("deny", ())))


def _key(read: Read, scope: str) -> KeyPolicy:
    if not read and not scope:
        return PLAIN.key
    query = read.get("query", "all")
    detail: Read = query if isinstance(query, dict) else {}
    return KeyPolicy(
        host=read.get("host", True),
        query_allow=() if query == "none" else detail.get("allow"),
        query_ignore=detail.get("ignore", ()),
        sort=detail.get("sort", False),
        headers=read.get("headers", ()),
        cookies=read.get("cookies", ()),
        body=_body(read["body"]) if "body" in read else None,
        scope=scope,
    )


def _body(read: str | Read) -> BodyPolicy:
    given: Read = {"as": read} if isinstance(read, str) else dict(read)
    form = ContentForm(given.pop("as", ContentForm.EXACT))
    methods = given.pop("methods", ("QUERY", "POST") if form is ContentForm.GRAPHQL else ("QUERY",))
    return BodyPolicy(form, frozenset(methods), **given)


def _scope(match: Match) -> str:
    """The conditions on fields, cookies and parameters as one short word, "" where there is none."""
    said = [
        (kind, each.name, each.present, sorted(each.values), each.regex and each.regex.pattern)
        for kind in ("headers", "cookies", "query")
        for each in getattr(match, kind)
    ]
    return blake2b(repr(said).encode(), digest_size=4).hexdigest() if said else ""


def _tags(read: Read) -> TagPolicy:
    if "tags" not in read and "tags_from" not in read:
        return PLAIN.tags
    return TagPolicy(read.get("tags", ()), read.get("tags_from", PLAIN.tags.from_headers))


def _invalidation(read: Read) -> Invalidation:
    given: Read = {name: read[name] for name in ("tags", "urls", "prefixes", "soft") if name in read}
    if "on" in read:
        given["methods"] = frozenset(read["on"])
    return Invalidation(**given)


def _header_ops(read: Read) -> HeaderOps:
    if not read:
        return PLAIN.request_headers
    return HeaderOps(
        remove=tuple(name.lower() for name in read.get("remove", ())),
        set=read.get("set", ()),
        add=tuple((name, value) for name, values in read.get("add", ()) for value in values),
    )


def _example(read: Read, node: Node, key: str, out: Problems) -> Example:
    found = _REQUEST.fullmatch(read["request"])
    if found is None:
        out.add(
            at(node, "request", default=node),
            f"{key}.request",
            'expected "METHOD /target" such as "GET /api/pitches"',
        )
    response: Read = read.get("response", {})
    return Example(
        at=f"{out.file}:{node.line}",
        method=(found[1] or "GET").upper() if found else "GET",
        url=found[2] if found else "/",
        request_headers=read.get("headers", ()),
        body=read.get("body"),
        response_status=response.get("status", 200),
        response_headers=tuple((n, v) for n, many in response.get("headers", ()) for v in many),
        expect=read.get("expect", {}),
    )


def _check_match(rule: Rule, node: Node, key: str, out: Problems) -> None:
    if rule.match == Match():
        out.add(
            at(node, "match", default=node), f"{key}.match", "expected at least one condition, such as path"
        )


def _check_body(rule: Rule, node: Node, key: str, out: Problems) -> None:
    body = rule.key.body
    if body is None:
        return
    place, where = at(node, "key", "body", default=node), f"{key}.key.body"
    if body.limit > MOST_BODY:
        out.add(place, f"{where}.limit", f"expected at most {MOST_BODY // 1024**2}MiB: it is held in memory")
    if body.persisted and body.form is not ContentForm.GRAPHQL:
        out.add(place, f"{where}.persisted", "only means something with as: graphql")
    if rule.match.methods and not body.methods & rule.match.methods:
        out.add(
            place, where,
            f"never happens: match.method does not cover {' or '.join(sorted(body.methods))}",
        )  # fmt: skip


def _check_ttl(rule: Rule, node: Node, key: str, out: Problems) -> None:
    low, high = rule.overrides.ttl_min, rule.overrides.ttl_max
    if low is not None and high is not None and low > high:
        out.add(at(node, "ttl", default=node), f"{key}.ttl", "expected min to be no more than max")


def _check_templates(rule: Rule, node: Node, key: str, out: Problems) -> None:
    """Each {name} is in one of the paths; where the path that matched lacks it, the tag is left out."""
    known: set[str] = set()
    for pattern in rule.match.paths:
        known |= names_in(pattern)

    def check(template: str, place: Node, where: str) -> None:
        for name in _NAMED.findall(template):
            if name not in known:
                have = ", ".join(sorted(known)) or "none"
                out.add(place, where, f'"{{{name}}}" is not named in match.path (named there: {have})')

    for i, template in enumerate(rule.tags.templates):
        check(template, at(node, "tags", i, default=node), f"{key}.tags")
    for i, each in enumerate(rule.invalidates):
        for field in ("tags", "urls", "prefixes"):
            for template in getattr(each, field):
                check(template, at(node, "invalidates", i, field, default=node), f"{key}.invalidates.{field}")


def _check_invalidates(rule: Rule, node: Node, key: str, out: Problems) -> None:
    place = at(node, "invalidates", default=node)
    for each in rule.invalidates:
        if not (each.tags or each.urls or each.prefixes):
            out.add(
                place, f"{key}.invalidates", "expected tags, urls or prefixes (its own URL is purged anyway)"
            )
        unreached = each.methods - rule.match.methods if rule.match.methods else frozenset()
        if unreached == each.methods:
            out.add(
                place, f"{key}.invalidates",
                f"never happens: match.method does not cover {', '.join(sorted(each.methods))}",
            )  # fmt: skip


def _check_sharing(rule: Rule, node: Node, key: str, out: Problems) -> None:
    overrides = rule.overrides
    for name in sorted(SECRET & set(overrides.normalise)):
        out.add(
            at(node, "normalise", default=node), f"{key}.normalise.{name}",
            f"would give one user's answers to all others: {name} says who is asking; put it in the key "
            f"instead",
        )  # fmt: skip
    ops = rule.response_headers
    if any(n.lower() == "set-cookie" for n, _ in (*ops.set, *ops.add)) and not (
        overrides.pass_ or Unsafe.SET_COOKIE in overrides.unsafe
    ):
        out.add(
            at(node, "response_headers", default=node), f"{key}.response_headers",
            "sets the same cookie for every client of a shared answer; if that is meant, say unsafe: "
            "[set_cookie]",
        )  # fmt: skip
    personal = [*(h for h in rule.key.headers if h in SECRET), *(f"cookie {c}" for c in rule.key.cookies)]
    told = (("cache_control", rule.client_cache_control), ("cdn_cache_control", rule.cdn_cache_control))
    for field, value in told:
        words = _directives(value)
        closed = words & {"private", "no-store"}
        shares = words & {"public", "s-maxage"} or (field == "cdn_cache_control" and value and not closed)
        if personal and shares:
            out.add(
                at(node, field, default=node), f"{key}.{field}",
                f"lets other caches share what is kept apart here by {', '.join(personal)}, which they "
                f"cannot "
                "know; say private",
            )  # fmt: skip


def _check_authorized(rule: Rule, node: Node, key: str, out: Problems) -> None:
    """unsafe: [authorization] says that answers are shared. With whom, the key says, or that Cache-Control
    calls them public; where neither does, that the rule's author has thought of it is not to be guessed."""
    overrides = rule.overrides
    if not overrides.shares_authorized or overrides.pass_ or overrides.no_store:
        return
    written = at(node, "key", default=node)
    decided = isinstance(written, Mapping) and (written.get("headers") or written.get("cookies"))
    if decided or {"public", "s-maxage"} & _directives(rule.client_cache_control):
        return
    out.add(
        at(node, "unsafe", default=node), f"{key}.unsafe",
        "authorization would give the first user's answer to all others; write key: {headers: "
        "[authorization]} to keep users apart, or key: {headers: []} if all of them get the same",
    )  # fmt: skip


def _directives(value: str | None) -> set[str]:
    if not value:
        return set()
    return {p.strip().partition("=")[0].lower() for p in value.split(",")}
