"""The key table: every key of the rule format, once.

Rules of this file:

- The loader, the JSON Schema and the reference (rules/README.md) are made from these rows and nothing
  else; a key that is not here does not exist.
- ``doc`` is for operators: one or two sentences, no internals. ``example`` is YAML that loads as a part of
  a rule (a test loads each).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from edgeproxy.policy.content import ContentForm
from edgeproxy.policy.freshness import DEFAULT_DISCONNECTED
from edgeproxy.policy.stored import Compression, Overrides, Unsafe
from edgeproxy.policy.vocabulary import NotStored, PassReason
from edgeproxy.rules import values
from edgeproxy.rules.document import Mapping, Node, Scalar, Sequence, describe
from edgeproxy.rules.kinds import WRONG, Either, Key, Many, Pairs, Schema, Table, Word
from edgeproxy.rules.model import (
    BodyPolicy,
    Coalesce,
    RefreshAhead,
    TagPolicy,
    ValueCondition,
    WarmUp,
    WebSocket,
)
from edgeproxy.rules.patterns import path_pattern
from edgeproxy.rules.safe_regex import compile_regex

if TYPE_CHECKING:
    from edgeproxy.rules.problems import Problems

MOST_BODY = 1024 * 1024
"""Octets of a request's body that a rule may have read for the key: they are held in memory meanwhile."""

TEXT: Schema = {"type": ["string", "number", "boolean"]}
WORD: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"}

DURATION = Word(
    "a duration such as 30s, 15m, 1h30m, 7d or plain seconds",
    values.duration,
    {
        "type": ["string", "number"],
        "pattern": r"^([0-9]+(\.[0-9]+)?(ms|[smhdwy]))+$|^[0-9]+(\.[0-9]+)?$",
        "minimum": 0,
    },
)
SIZE = Word(
    "a size such as 1MiB, 512KB or a number of octets",
    values.size,
    {
        "type": ["string", "integer"],
        "pattern": r"^[0-9]+(\.[0-9]+)?\s*([kKmMgG]([iI]?[bB])?|[bB])?$",
        "minimum": 0,
    },
)
COUNT = Word(
    "a whole number such as 500",
    values.count,
    {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 0},
)
FLAG = Word("true or false", values.flag, {"enum": [True, False, "on", "off", "yes", "no"]})
FIELD = Word("a header name", values.field_name, NAME)
CHANGEABLE = Word("a header name", values.changeable_field, NAME)
VALUE = Word("a header value", values.field_value, TEXT)
TAG = Word('a tag such as pitches or "pitch:{id}"', values.template, WORD)
TARGET = Word(
    'a path such as "/api/pitches/{id}"', values.target_template, {"type": "string", "pattern": "^/"}
)
CACHE_CONTROL = Word('directives such as "public, max-age=60"', values.cache_control, WORD)
PATH = Word('a path pattern such as "/api/pitches/**"', path_pattern, WORD, opening="")


def one_of(*allowed: str) -> Word:
    return Word(" or ".join(allowed), partial(values.words, allowed), {"enum": list(allowed)})


class _Origin:
    """``ttl: origin``."""


ORIGIN = _Origin()


def _ttl(text: str) -> Any:
    return ORIGIN if text == "origin" else values.duration(text)


@dataclass(frozen=True)
class Condition:
    """true (there), false (not there), a value, a list of values, or "~" and a regular expression.
    Gives a function from the name to the ValueCondition."""

    says: str = 'true, false, a value, a list of values or a regular expression ("~...")'

    def read(self, node: Node, key: str, out: Problems) -> Any:
        if isinstance(node, Mapping) or (isinstance(node, Scalar) and node.empty):
            out.add(node, key, f"expected {self.says}, got {describe(node)}")
            return WRONG
        if isinstance(node, Sequence):
            listed = Many(VALUE, lone=False).read(node, key, out)
            return WRONG if listed is WRONG else partial(ValueCondition, values=frozenset(listed))
        if not node.quoted and node.text in ("true", "false"):
            return partial(ValueCondition, present=node.text == "true")
        if node.text.startswith("~"):
            try:
                return partial(ValueCondition, regex=compile_regex(node.text[1:]))
            except ValueError as error:
                out.add(node, key, str(error))
                return WRONG
        value = VALUE.read(node, key, out)
        return WRONG if value is WRONG else partial(ValueCondition, values=frozenset({value}))

    def schema(self) -> Schema:
        return {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}


MATCH = Table(
    (
        Key("path", Many(PATH),
            "The paths this rule is about: `/a/b` exactly, `{id}` one segment (and its name), `*` within a "
            "segment, `**` any number of segments (none too: `/a/**` is also `/a`), a pattern without `/` "
            "for the last segment, or `~` and a regular expression for the whole path. Compared as it "
            "comes over the wire: case matters, nothing is decoded.",
            example='match: {path: ["/api/pitches/{id}", "/static/**", "*.css", "~/v[0-9]+/.*"]}'),
        Key("host", Many(Word("a host such as api.example or *.example", values.host, WORD)),
            "Only for these hosts; `*.example` is every name beneath it. Ports are left out of account.",
            default="any", example="match: {path: /**, host: [api.example, '*.api.example']}"),
        Key("method", Many(Word("a method such as GET", values.method, NAME)),
            "Only for these methods. GET covers HEAD.",
            default="any", example="match: {path: /**, method: GET}"),
        Key("headers", Pairs(FIELD, Condition(), "a mapping of header names to conditions"),
            "Conditions on request headers, all of which must hold: `true` it is there, `false` it is not, a "
            "value or one of a list of values, or `~` and a regular expression for the whole value.",
            example="match: {path: /**, headers: {authorization: false, accept: '~.*json.*'}}"),
        Key("cookies", Pairs(Word("a cookie's name", values.cookie_name, NAME), Condition(),
                             "a mapping of cookie names to conditions"),
            "Conditions on cookies, as for headers.",
            example="match: {path: /**, cookies: {session: false}}"),
        Key("query", Pairs(Word("a query parameter's name", values.parameter, WORD), Condition(),
                           "a mapping of query parameters to conditions"),
            "Conditions on query parameters (percent-decoded), as for headers.",
            example='match: {path: /**, query: {preview: false, page: ["1", "2"]}}'),
    ),
    says='a mapping such as {path: "/api/pitches/**"}',
    hints=(("url", 'write "path"'), ("uri", 'write "path"'), ("prefix", 'write path: "/prefix/**"'),
           ("regex", 'write path: "~..."'), ("domain", 'write "host"')),
)  # fmt: skip

QUERY = Table(
    (
        Key("allow", Many(Word("a parameter name", values.parameter_pattern, WORD), least=0),
            "Only these parameters tell answers apart; `utm_*` for a prefix.", default="every parameter"),
        Key("ignore", Many(Word("a parameter name", values.parameter_pattern, WORD), least=0),
            "All but these.", default="none"),
        Key("sort", FLAG, "The order of different parameters does not tell answers apart.", default="false"),
    ),
    says="a mapping with allow, ignore, sort",
)  # fmt: skip

BODY = Table(
    (
        Key("as", one_of(*(form.value for form in ContentForm)),
            "`exact`: octet by octet. `json`: white space, the order of members and escapes make no "
            "difference. `graphql`: only what is surely one query is cached, by document, variables and "
            "operation name; mutations, subscriptions and batches are forwarded as without the rule.",
            default="exact"),
        Key("methods", Many(Word("QUERY or POST", values.body_method, {"enum": ["QUERY", "POST"]})),
            "The methods that this is about. A POST named here is taken as a question: what is stored "
            "answers it, and it purges nothing.",
            default="QUERY; with graphql QUERY and POST"),
        Key("limit", SIZE, f"Larger bodies are forwarded unread; at most {MOST_BODY // 1024**2}MiB.",
            default=f"{BodyPolicy().limit // 1024}KiB"),
        Key("persisted", FLAG,
            "With graphql: a POST that has only the hash of a persisted query is a query, never a mutation. "
            "(A QUERY is one anyway.)", default="false"),
    ),
    says="a mapping with as, methods, limit, persisted",
    hints=(("form", 'write "as"'), ("method", 'write "methods"'), ("max", 'write "limit"')),
)  # fmt: skip

KEY = Table(
    (
        Key("query", Either(one_of("all", "none"), QUERY),
            "Which query parameters tell answers apart: `all`, `none`, or a mapping with `allow`, `ignore` "
            "and `sort`. What is left out here is still forwarded to the origin.",
            default="all", example='key: {query: {ignore: ["utm_*", fbclid], sort: true}}'),
        Key("headers", Many(FIELD, least=0),
            "Request headers whose values tell answers apart, whatever Vary says.",
            default="none", example="key: {headers: [x-tenant]}"),
        Key("cookies", Many(Word("a cookie's name", values.cookie_name, NAME), least=0),
            "Cookies whose values tell answers apart.", default="none", example="key: {cookies: [session]}"),
        Key("host", FLAG,
            "Whether scheme and host tell answers apart. `false` where all hosts are one site: name them "
            "under `match`, or say `unsafe: [any_host]`.",
            default="true", example="key: {host: false}"),
        Key("body", Either(one_of(*(form.value for form in ContentForm)), BODY),
            "That the bodies of QUERY requests (RFC 10008), or of POSTs that only ask, tell answers apart: "
            "then these are cached too. `exact`, `json`, `graphql`, or a mapping.",
            default="only GET and HEAD are cached",
            example="key: {body: {as: json, methods: [QUERY, POST], limit: 16KiB}}"),
    ),
    says="a mapping with query, headers, cookies, host, body",
)  # fmt: skip

INVALIDATION = Table(
    (
        Key("on", Many(Word("a method such as POST", values.unsafe_method, NAME)),
            "The methods, when the origin answers with 2xx or 3xx.", default="POST, PUT, PATCH, DELETE"),
        Key("tags", Many(TAG), "Tags to purge; `{id}` is filled from the path."),
        Key("urls", Many(TARGET), "Paths (with a query, if any) to purge on the same host."),
        Key("prefixes", Many(TARGET), "Path prefixes to purge on the same host."),
        Key("soft", FLAG, "Mark stale in place of removing.", default="false"),
    ),
    says="a mapping such as {on: POST, tags: [pitches]}",
    hints=(("method", 'write "on"'), ("methods", 'write "on"'), ("tag", 'write "tags"')),
)  # fmt: skip

HEADER_OPS = Table(
    (
        Key("remove", Many(CHANGEABLE, least=0), "Headers to remove."),
        Key("set", Pairs(CHANGEABLE, VALUE, "a mapping of header names to values", fold=True),
            "Headers to set, in place of what is there."),
        Key("add", Pairs(CHANGEABLE, Many(VALUE), "a mapping of header names to values", fold=True),
            "Header lines to add to what is there."),
    ),
    says="a mapping with remove, set, add",
)  # fmt: skip

_C = Compression()
COMPRESSION = Table(
    (
        Key("minimum", SIZE, "Smaller bodies stay as they are.", default=f"{_C.minimum}"),
        Key("types", Many(Word("a media type such as text/*", values.media_type, WORD)),
            "Media types to compress.",
            default=", ".join(_C.types)),
        Key("codings", Many(Word("br or gzip", values.coding, {"enum": ["br", "gzip"]})),
            "In order of preference, where the client accepts several alike.", default=", ".join(_C.codings)),
    ),
    says="a mapping with minimum, types, codings",
)  # fmt: skip

_W = Coalesce()
COALESCE = Table(
    (
        Key("wait", DURATION, "How long a request waits for another's fetch before it goes on its own.",
            default=values.show_duration(_W.wait)),
        Key("lease", DURATION, "After so long without an answer, one new fetch may begin.",
            default=values.show_duration(_W.lease)),
        Key("waiters", COUNT, "So many may wait for one fetch; more get what is stale, or 503.",
            default=str(_W.waiters)),
    ),
    says="a mapping with wait, lease, waiters",
)  # fmt: skip

_S = WebSocket()
WEBSOCKET = Table(
    (
        Key("idle", DURATION, "Closed (1001) after so long without a message either way; `0`: never.",
            default=values.show_duration(_S.idle)),
        Key("heartbeat", DURATION,
            "When nothing went either way for so long, the client is sent a ping; one that does not answer "
            "in as long again is gone. `0`: none.",
            default=values.show_duration(_S.heartbeat)),
        Key("connections", COUNT, "Open at a time in each worker; more are answered 503. `0`: no limit but "
            "`--websockets`.",
            default=str(_S.connections)),
        Key("max_frame", SIZE, "A longer frame, from either side, ends it (1009). `0`: any.", default="0"),
        Key("max_message", SIZE, "A longer message, as sent, ends it (1009). `0`: any.", default="0"),
    ),
    says="a mapping with idle, heartbeat, connections, max_frame, max_message",
)  # fmt: skip

_R = RefreshAhead()
RATE = Word(
    "a rate such as 1/s or 30/m",
    values.rate,
    {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(/[smh])?$", "minimum": 0},
)
REFRESH_AHEAD = Table(
    (
        Key("within", Word("a share such as 10%, or a duration", values.last_part, WORD),
            "In the last part of its lifetime, half of it at most; the moment is drawn for each answer, so "
            "that not all are refreshed at once.",
            default=f"{_R.within:.0%}"),
        Key("rate", RATE, "Only what was asked for at least so often since it was stored.",
            default=f"{_R.rate * 60:g}/m"),
        Key("waiting", Word("a number such as 0.5", values.number,
                            {"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?$", "minimum": 0}),
            "Only where at least so many requests would have to wait for the fetch: their rate times the "
            "seconds that the last fetch took.",
            default=f"{_R.waiting:g}"),
    ),
    says="a mapping with within, rate, waiting",
)  # fmt: skip

RATE_LIMIT = Table(
    (
        Key("rate", Word("a rate such as 10/s or 100/m", values.some_rate, RATE.json), "So many requests.",
            required=True),
        Key("burst", Word("a whole number from 1 to 1000000", partial(values.some, 1_000_000), COUNT.json),
            "So many at once, after a pause.", default="what `rate` brings in a second"),
        Key("by", Word("client, all or header:NAME", values.counted_by,
                       {"type": "string", "pattern": "^(client|all|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$"}),
            "What has a limit of its own: each `client` (an IPv4 address, an IPv6 /64), each value of a "
            "request header such as `header:x-api-key` (without it, each client), or `all` together.",
            default="client"),
    ),
    says="a mapping such as {rate: 10/s, burst: 20}",
    hints=(("limit", 'write "rate"'), ("per", 'write "by"'), ("key", 'write "by"')),
)  # fmt: skip

NETWORK = Word("a network or an address such as 10.0.0.0/8", values.network, WORD)
CLIENTS = Table(
    (
        Key("allow", Many(NETWORK), "Only these are answered.", default="all"),
        Key("deny", Many(NETWORK), "These are not.", default="none"),
    ),
    says="a mapping with allow, deny",
)  # fmt: skip

_ON_THE_WAY = {PassReason.PURGE_PENDING}
"""What no rule decides."""
REASONS = tuple(dict.fromkeys(r.value for r in (*PassReason, *NotStored) if r not in _ON_THE_WAY))
EXPECT = Table(
    (
        Key("rule", Word("a rule's name, or none", str, WORD), "Which rule matches.",
            default="the rule it stands in"),
        Key("cached", FLAG, "Whether the answer is stored. One to HEAD never is."),
        Key("reason", one_of(*REASONS), "Why it is not stored, in the words of Cache-Status."),
        Key("ttl", DURATION, "How long it is fresh, from its arrival here."),
        Key("stale_while_revalidate", DURATION, "The window."),
        Key("stale_if_error", DURATION, "The window."),
        Key("stale_if_disconnected", DURATION, "The window."),
        Key("keep", DURATION, "How long it is kept for revalidation."),
        Key("key", Word("a key as explain prints it", str, WORD),
            "What the answer is stored under: the target alone (`/api/search?q=a`), or all of it as "
            "`explain` prints it."),
        Key("tags", Many(Word("a tag", str, TEXT), least=0), "All its tags, in any order."),
        Key("cache_control", Word("a header value, or none", str, WORD),
            "The Cache-Control that clients get."),
        Key("cdn_cache_control", Word("a header value, or none", str, WORD),
            "The CDN-Cache-Control that caches below get."),
        Key("invalidates", Many(Word("a tag or path", str, WORD), least=0),
            "Tags, paths and prefixes (`/a/*`) that the request purges when it succeeds."),
        Key("parts", Pairs(Word("a name", str, WORD), Word("a value", str, TEXT),
            "a mapping of names to values"),
            "The named parts of the path."),
    ),
    says="a mapping such as {cached: true, ttl: 15m}",
)  # fmt: skip

EXAMPLE = Table(
    (
        Key("request", Word('a request such as "GET /api/pitches"', str, WORD),
            "`METHOD target`, or a target (then GET), or with a whole URL.", required=True),
        Key("headers", Pairs(FIELD, VALUE, "a mapping of header names to values"), "The request's headers."),
        Key("body", Word("a text", str, TEXT), "The request's body, as UTF-8.", default="none"),
        Key("response", Table((
            Key("status", Word("a status such as 200", values.status, {"type": "integer", "minimum": 200,
                "maximum": 599}),
                "The origin's status.", default="200"),
            Key("headers", Pairs(FIELD, Many(VALUE), "a mapping of header names to values"),
            "The origin's headers.",
                default="content-type: the type the path ends in, else application/json"),
        ), says="a mapping with status, headers"), "What the origin answers.",
            default="200, of the type the path ends in, else application/json"),
        Key("expect", EXPECT, "What must come of it.", default="that this rule matches"),
    ),
    says='a mapping such as {request: "GET /api/pitches", expect: {cached: true}}',
)  # fmt: skip

TTL_BOUNDS = Table(
    (
        Key("min", DURATION, "At least so long, whatever the origin says; for answers below 400."),
        Key("max", DURATION, "At most so long."),
    ),
    says="a mapping with min, max for the origin's",
)

_O = Overrides()
RULE = Table(
    (
        Key("name", Word("a name such as pitches", values.rule_name,
                         {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}),
            "The rule's name: the label in Cache-Status, logs and metrics. Unique.", required=True,
            example="name: pitches"),
        Key("match", MATCH,
            "Which requests the rule is about. All that is given must hold; within one list, any.",
            required=True, example='match: {path: "/api/pitches/**"}'),
        Key("ttl", Either(Word("a duration such as 15m, or origin", _ttl,
            DURATION.json | {"pattern": DURATION.json["pattern"] + "|^origin$"}),
                          TTL_BOUNDS),
            "How long the edge may answer without asking: fixed, `origin` (as the answer says), or the "
            "origin's within `{min, max}`. Of errors (400 and above) only `max` is meant: how long they are "
            "kept is said by `status_ttl` or by themselves.",
            default="origin", example="ttl: {min: 10s, max: 1h}"),
        Key("ttl_jitter", Word("a share such as 10%", values.share,
                               {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$"}),
            "Each answer's lifetime here is by chance up to so much shorter, so that what was stored "
            "together does not all expire together.",
            default="0%", example="ttl_jitter: 10%"),
        Key("status_ttl", Pairs(Word("a status such as 404 or a class such as 5xx", values.status_or_class,
                                     {"type": "string", "pattern": "^[2-5]([0-9][0-9]|[xX][xX])$"}),
                                DURATION, "a mapping such as {404: 1m, 5xx: 0}"),
            "The ttl by status, before `ttl`; `0` is never stored. A status goes before its class; a class "
            "leaves out statuses about one request, such as 401, 403 and 429, unless it is given `0`.",
            example="status_ttl: {404: 1m, 5xx: 0}"),
        Key("stale_while_revalidate", DURATION,
            "How long after its ttl an answer may still be sent while it is refreshed in the background.",
            default="as the answer says", example="stale_while_revalidate: 1m"),
        Key("stale_if_error", DURATION, "How long after its ttl an answer may be sent when the origin fails.",
            default="as the answer says", example="stale_if_error: 1h"),
        Key("stale_if_disconnected", DURATION,
            "How long after its ttl an answer may be sent when the origin cannot be reached at all (refused, "
            "reset, silent, not found, broken off), where neither `stale_if_error` nor the answer's own is "
            "there. Never for a 5xx, nor against must-revalidate and its kin; `0` turns it off.",
            default=values.show_duration(DEFAULT_DISCONNECTED), example="stale_if_disconnected: 5m"),
        Key("max_stale", DURATION,
            "The cap on all of these: nothing that has been stale for longer is sent, whatever this rule, "
            "the answer or a client's `max-stale` says.",
            default="a day, or this rule's longest window", example="max_stale: 1h"),
        Key("keep", DURATION, "How long a stale answer is kept so that the origin can confirm it with 304.",
            default="as long as is useful", example="keep: 1d"),
        Key("cache_control", CACHE_CONTROL,
            "The Cache-Control that clients get on storable answers, in place of the origin's.",
            default="the origin's", example='cache_control: "public, max-age=60"'),
        Key("cdn_cache_control", CACHE_CONTROL,
            "The CDN-Cache-Control (RFC 9213) that caches between here and the clients get.",
            default="the origin's", example='cdn_cache_control: "max-age=300"'),
        Key("key", KEY, "What of a request tells answers apart.",
            default="scheme, host, path and the whole query",
            example="key: {query: none}"),
        Key("normalise", Pairs(FIELD, Many(Word("a value", str, WORD)),
            "a mapping such as {accept-language: [en, de]}"),
            "Header -> the values it is reduced to where an answer varies on it, best match first, else "
            "the first: fewer copies.",
            example="normalise: {accept-language: [en, de]}"),
        Key("tags", Many(TAG, least=0), "Names to purge by; `{id}` is filled from the path.",
            example='tags: [pitches, "pitch:{id}"]'),
        Key("tags_from", Many(FIELD, least=0),
            "Answer headers whose values are tags too (at most 128 tags of 256 octets; `cache-groups`, "
            "RFC 9875, 128 groups besides).",
            default=", ".join(TagPolicy().from_headers), example="tags_from: [surrogate-key]"),
        Key("invalidates", Many(INVALIDATION, least=0),
            "What a method that changes something purges when it succeeds, besides its own URL.",
            example='invalidates: {on: [PUT, DELETE], tags: ["pitch:{id}"], urls: [/api/pitches]}'),
        Key("request_headers", HEADER_OPS, "Changes to what the origin gets: remove, then set, then add.",
            example="request_headers: {remove: [cookie], set: {x-edge: '1'}}"),
        Key("response_headers", HEADER_OPS, "Changes to what clients get: remove, then set, then add.",
            example="response_headers: {remove: [x-powered-by], add: {link: [</a>; rel=preload]}}"),
        Key("compression", Either(FLAG, COMPRESSION), "Whether and what the edge compresses.", default="on",
            example="compression: {minimum: 2KiB, codings: [br, gzip]}"),
        Key("coalesce", Either(FLAG, COALESCE), "Whether requests for one missing answer wait for one fetch.",
            default="on", example="coalesce: {wait: 2s, lease: 5s}"),
        Key("range", one_of("part", "whole"),
            "What a request for one range of what is not stored asks the origin for: that `part`, which is "
            "stored, joined to others and completed, or the `whole`, of which all ranges are then served.",
            default="part", example="range: whole"),
        Key("refresh_ahead", Either(FLAG, REFRESH_AHEAD),
            "Whether what is asked for often is refreshed in the background shortly before it expires, so "
            "that nobody waits. Never while the origin fails; it is asked without cookies or credentials, "
            "and what needs them is left alone.",
            default="off", example="refresh_ahead: {within: 10%, rate: 1/s}"),
        Key("websocket", Either(FLAG, WEBSOCKET), "Whether WebSockets are let through, and their limits.",
            default="on", example="websocket: {idle: 10m, connections: 500, max_message: 1MiB}"),
        Key("rate_limit", RATE_LIMIT,
            "How often a client may ask, hits included; more is answered 429 with Retry-After. Counted for "
            "all workers of a node together; hits under such a rule are a little slower.",
            default="none", example="rate_limit: {rate: 10/s, burst: 20, by: 'header:x-api-key'}"),
        Key("clients", CLIENTS,
            "The addresses that are answered; others get 403. What `--trusted-proxies` say counts.",
            default="all", example="clients: {allow: [10.0.0.0/8, '2001:db8::/32'], deny: [10.9.9.9]}"),
        Key("read_timeout", DURATION,
            "How long the origin may be silent in the middle of an answer; `0`: for ever. A stream of events "
            "(`text/event-stream`) may be, unless this says otherwise.",
            default="`--read-timeout`", example="read_timeout: 5m"),
        Key("max_object", SIZE, "Larger bodies are delivered, not stored.",
            default=f"{_O.max_object // 1024**2}MiB", example="max_object: 1MiB"),
        Key("origin", Word("a pool's name", str, NAME),
            "The pool of origins that is asked (see pools); no part of the key.", default="default",
            example="origin: default"),
        Key("retry", one_of("idempotent", "any", "none"),
            "Which methods may be sent again when that pool's `retries` say so. `any` is for APIs that can "
            "take a POST twice.", default="idempotent", example="retry: none"),
        Key("request_directives", one_of("honour", "ignore"),
            "Whether a client's own Cache-Control (`no-cache`, `max-age=0`, `only-if-cached` ...) counts.",
            default="honour", example="request_directives: ignore"),
        Key("heuristic", FLAG,
            "Whether an answer with a Last-Modified and no lifetime gets a tenth of its age (RFC 9111 "
            "§4.2.2).",
            default="on", example="heuristic: off"),
        Key("extension_guard", FLAG,
            "Whether an answer that is not of the type its path ends in (HTML for `/account/x.css`) is "
            "delivered and not stored: a page of one user under such a name is how caches are made to share "
            "it.",
            default="on where the rule gives the lifetime", example="extension_guard: on"),
        Key("pass", FLAG, "Forward without asking or filling the cache.", default="false",
            example="pass: true"),
        Key("no_store", FLAG, "Never store the answers.", default="false", example="no_store: true"),
        Key("unsafe", Many(one_of(*(u.value for u in Unsafe)), least=0),
            "What is only done when it is asked for by its name; see below.", default="nothing",
            example="unsafe: [set_cookie]"),
        Key("examples", Many(EXAMPLE, lone=False, least=0),
            "Requests and what must come of them: checked at every load, and a file whose examples fail is "
            "refused.",
            example="examples: [{request: GET /, expect: {cached: true}}]"),
    ),
    says="a rule: a mapping with name, match, ttl ...",
    hints=(
        ("path", "write it under match: {path: ...}"),
        ("methods", "write it under match: {method: ...}"), ("method", "write it under match: {method: ...}"),
        ("host", "write it under match: {host: ...}"),
        ("ignore_no_store", "write unsafe: [no_store]"), ("ignore_private", "write unsafe: [private]"),
        ("ignore_set_cookie", "write unsafe: [set_cookie]"),
        ("swr", 'write "stale_while_revalidate"'), ("grace", 'write "stale_while_revalidate"'),
        ("max_age", 'write "ttl"'), ("proxy_cache_valid", 'write "ttl" and "status_ttl"'),
        ("bypass", "write pass: true"), ("cache", "write pass: true to go round the cache"),
        ("pool", 'write "origin"'), ("upstream", 'write "origin"'), ("backend", 'write "origin"'),
        ("query", "write it under key: {query: ...} or match: {query: ...}"),
        ("vary", "write key: {headers: [...]}"), ("body", "write key: {body: ...}"),
        ("cache_body", "write key: {body: ...}"), ("guard", 'write "extension_guard"'),
        ("deception_guard", 'write "extension_guard"'), ("gzip", 'write "compression"'),
        ("surrogate_key", 'write "tags"'), ("purge", 'write "invalidates"'), ("lock", 'write "coalesce"'),
        ("ratelimit", 'write "rate_limit"'), ("limit_req", 'write "rate_limit"'),
        ("allow", "write clients: {allow: [...]}"), ("deny", "write clients: {deny: [...]}"),
        ("ws", 'write "websocket"'), ("websockets", 'write "websocket"'),
        ("proxy_read_timeout", 'write "read_timeout"'), ("prefetch", 'write "refresh_ahead"'),
        ("ttl_min", "write ttl: {min: ...}"), ("ttl_max", "write ttl: {max: ...}"),
    ),
)  # fmt: skip

_WU = WarmUp("")
WARM = Table(
    (
        Key("every", Word("a duration of 10s or more", values.interval, DURATION.json),
            "How often; first after so long. This or `at`.", example="{every: 10m, most_wanted: 200}"),
        Key("at", Word('a time of day (UTC) such as "05:00"', values.time_of_day,
                       {"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2}$"}),
            "Once a day. This or `every`.",
            example='{at: "05:00", sitemap: "http://api.example/sitemap.xml"}'),
        Key("urls", Many(Word("a URL as clients use it", values.whole_url, WORD)),
            "These; or one of the next three.",
            example="{every: 1h, urls: [http://api.example/, http://api.example/api/pitches]}"),
        Key("file", Word("the path of a file, from the root", values.list_file, WORD),
            "A list, one URL a line, read each time.", example="{every: 1h, file: /etc/edgeproxy/warm.txt}"),
        Key("sitemap", Word("a URL as clients use it", values.whole_url, WORD),
            "A sitemap or an index of sitemaps, gzipped or not, got from the origin under that host. What it "
            "names on other hosts is left out.",
            example="{every: 6h, sitemap: http://api.example/sitemap.xml, hosts: [www.example]}"),
        Key("most_wanted", Word("a whole number from 1 to 1000", partial(values.some, 1000), COUNT.json),
            "So many of what clients asked for most in the last hour or so.",
            example="{every: 10m, most_wanted: 200}"),
        Key("hosts", Many(Word("a host such as api.example", values.host, WORD)),
            "Other hosts that a sitemap may name.", default="none",
            example="{every: 6h, sitemap: http://api.example/s.xml, hosts: [www.example]}"),
        Key("rate", Word("a rate such as 10/s", values.some_rate, RATE.json), "At most so many requests.",
            default=f"{_WU.rate:g}/s", example="{every: 1h, most_wanted: 50, rate: 5/s}"),
        Key("concurrency", Word("a whole number from 1 to 64", partial(values.some, 64), COUNT.json),
            "At most so many at a time.", default=str(_WU.concurrency),
            example="{every: 1h, most_wanted: 50, concurrency: 4}"),
    ),
    says="a warm-up: a mapping such as {every: 10m, most_wanted: 200}",
    hints=(("cron", 'write "at" or "every"'), ("url", 'write "urls"'), ("list", 'write "file"')),
)  # fmt: skip

DEFAULTS = Table(
    tuple(
        Key(k.name, k.kind, k.doc, k.default, k.example)
        for k in RULE.keys
        if k.name not in ("name", "examples")
    ),
    says="a mapping with keys of a rule",
    hints=(*RULE.hints, ("name", "each rule has its own"), ("examples", "they belong to a rule")),
)

UNSAFE_DOCS = {
    Unsafe.SET_COOKIE: "Store and share answers that set cookies. Every client gets the same cookie.",
    Unsafe.AUTHORIZATION: "Share answers to requests that carried Authorization, with those whose key is the "
    "same.",
    Unsafe.NO_STORE: "Store answers that say no-store.",
    Unsafe.PRIVATE: "Store and share answers that say private: made for one user.",
    Unsafe.NO_CACHE: "Reuse answers that say no-cache without asking the origin.",
    Unsafe.MUST_REVALIDATE: "Send answers that say must-revalidate or proxy-revalidate when they are stale.",
    Unsafe.ANY_HOST: "With `key: {host: false}` in a rule that names no hosts: what was fetched for one is "
    "for clients of any other, and `check` is silent. Right where the origin never looks at the host.",
}
