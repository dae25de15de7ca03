"""rules/README.md: the reference of the rule format, made from the key table.

Rules of this file:

- ``python -m edgeproxy.rules.reference`` prints it; a test holds that the shipped file is this.
- The head is written by hand (below); every key comes from keys.py, the recipes from recipes.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgeproxy.policy.freshness import OF_ONE_REQUEST
from edgeproxy.rules import keys, pool_keys
from edgeproxy.rules.recipes import recipes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.rules.kinds import Table

HEAD = """\
# Rule files

A rule says which requests it is about and how long their answers may be kept. The least one:

```yaml
rules:
  - name: pitches
    match: {path: "/api/pitches/**"}
    ttl: 15m
```

`GET /api/pitches` and everything below it is now answered from the cache for 15 minutes. What HTTP forbids
stays forbidden: answers that say `no-store` or `private`, that set cookies, or that were asked for with
Authorization are not shared until the rule says so by name (`unsafe`).

A rule that is worth having says a little more:

```yaml
rules:
  - name: pitches
    match: {path: ["/api/pitches/{id}", "/api/pitches/**"]}
    ttl: 15m
    stale_while_revalidate: 1m           # then up to a minute stale, while it is refreshed
    stale_if_error: 1h                   # and up to an hour if the origin is down
    key: {query: {ignore: ["utm_*"]}}    # tracking parameters make no second copy
    tags: [pitches, "pitch:{id}"]        # names to purge by
    invalidates: {tags: [pitches, "pitch:{id}"]}   # POST, PUT, PATCH and DELETE purge them
    examples:
      - request: GET /api/pitches/7?utm_source=x
        expect: {cached: true, ttl: 15m, key: /api/pitches/7, tags: [pitches, "pitch:7"]}
```

## How files are read

- All `*.yaml` and `*.yml` of the rules directory, in name order; rules in file order. **The first rule that
  matches answers**, so the particular goes before the general (`/api/me` before `/api/**`); where none
  does, plain HTTP caching applies.
- `defaults`, beside `rules`, holds keys of a rule that lie beneath each rule of its file. Mappings are
  merged; lists and words are replaced.
- All or nothing: if anything is wrong, nothing of it is loaded and the rules that were loaded before go on.
  Each problem is reported with file:line:column and what was expected: first what is no YAML (the first such
  fault of each file) together with the unknown keys and bad values of all files; once there is none of
  these, the examples that fail.
- A reload purges nothing: what was stored under the old rules keeps the times and tags it was stored with
  until it expires or is purged (or until a changed `key` no longer leads to it). After a correction that
  matters, purge.
- At most 1 MiB a file, 1,000 files, 100,000 rules. No anchors, no tags, no second document.
- A path with a dot segment (`/static/..%2fapi/me`), in any writing, matches as it stands but is never
  answered from the cache: the origin may take it for another path. Nor is one that, decoded and without
  `;...` and double slashes, is an earlier rule's (`/%61dmin` where `/admin/**` stands before `/**`).
- Durations: `30s`, `15m`, `1h30m`, `7d`, also `ms`, `w`, `y`, or plain seconds. Sizes: `1MiB`, `512KB`, `8m`
  (1024), or plain octets. Patterns that begin with `*` go in quotes.
- [schema.json](schema.json) lets editors complete and check: put it beside your files with
  `edgeproxy check --schema > schema.json` and begin each with `# yaml-language-server: $schema=schema.json`.

`edgeproxy check DIR` reads the files as `serve` does and runs their examples (`check FILE` those of one
file as if it were alone); `edgeproxy explain URL` says which rule matches, which do not and why, and what
comes of it.

## How long

- A `ttl` is for answers below 400; to keep a 404, write `status_ttl: {404: 1m}`.
- `status_ttl` with a class (`4xx: 1m`) is about what has become of the resource. It leaves out the statuses
  that speak of one request:
  OF_ONE_REQUEST.
  To keep one of these, name it (412 and 416 are never stored). `4xx: 0` means all of them.
- An answer with `s-maxage` is not sent stale (RFC 9111 §5.2.2.10), unless the rule gives a `ttl` or a stale
  window. One with `must-revalidate` or `proxy-revalidate` is not, whatever the rule's windows are
  (`unsafe: [must_revalidate]`).
- A rule's times count from the answer's arrival here. Clients also get its `Age`, and subtract it from
  `max-age`: with `ttl: 15m` and `cache_control: "public, max-age=60"`, an answer that has been here for more
  than a minute is stale to a browser at once. For browsers to keep it, `max-age` must be
  longer than the `ttl`.
- Only GET fills the cache. HEAD is answered from what a GET stored; all else goes to the origin, but for
  QUERY and POST where a rule has their bodies in the key.

## What explain's key shows

`http://api.example/api/pitches?page=2` is the plain key. What changes it stands after ` | `, in this order:

| part | what it says |
| --- | --- |
| `x-tenant=blue` | a header of `key.headers` and its value; `x-tenant-` where the request has none |
| `authorization#5d0c...` | a header whose value is a credential, or long: its digest |
| `session;#9a41...` | a cookie of `key.cookies`: the digest of its value; `session;-` where there is none |
| `?3f9a1c07` | the rule changes the query (`key.query`): the digest of how, so that an edit begins anew |
| `!77e0b2d4` | the rule has conditions on headers, cookies or query: the digest of them |
| `@QUERY json#07c1...` | the method, the body (`key.body`: how it was read) and its `Content-*` headers |

An answer's Vary is no part of the key: variants are told apart beneath it.

""".replace("OF_ONE_REQUEST", ", ".join(str(status) for status in sorted(OF_ONE_REQUEST)))

BODIES = """\
## GraphQL, and other questions with a body

```yaml
rules:
  - name: graphql
    match: {path: /graphql}
    ttl: 1m
    stale_while_revalidate: 5m
    key: {body: graphql, headers: [authorization]}
    unsafe: [authorization]
    examples:
      - request: POST /graphql
        headers: {content-type: application/json}
        body: '{"query": "query Pitch($id: ID!) { pitch(id: $id) { name } }", "variables": {"id": 7}}'
        expect: {cached: true, ttl: 1m}
      - request: POST /graphql
        headers: {content-type: application/json}
        body: '{"query": "mutation { delete(id: 7) }"}'
        expect: {cached: false, reason: body-not-a-query}
```

- A POST is answered from the cache if it surely is one query: `application/json` in UTF-8, with a document in
  which `operationName` selects a query. Everything else is forwarded like any POST, and when it succeeds it
  purges what is stored for its URL, as every POST does: after a mutation no query gets an answer from before.
- Answers that have `errors` are delivered and not stored, whatever their status.
- Automatic persisted queries: what has the document is cached. A POST with the hash alone could be a
  mutation; where only queries are sent so, say `key: {body: {as: graphql, persisted: true}}`.
- If answers depend on who asks, the key must say so, as above; without Authorization leave both lines out.
- The answer to a POST needs an explicit lifetime: the rule's `ttl`, or the origin's. When it is stale it is
  fetched anew, never validated. One to QUERY is treated as one to GET: validated, cut into ranges.
- A QUERY needs no rule to pass, and never purges anything. Purges by URL and tag take these answers too.
- Bodies are read up to `limit` before the origin is asked. One worker holds 16 MiB of them at most; what is
  beyond is forwarded unread.

"""

WARM = """\
## Asking before clients do

`warm`, beside `rules`, is a list of what to have in the cache before it is asked for:

```yaml
warm:
  - {at: "05:00", sitemap: "http://api.example/sitemap.xml", rate: 20/s}   # each day, UTC
  - {every: 10m, most_wanted: 200}                                         # what clients ask for most
rules:
  - name: pitches
    match: {path: "/api/pitches/**"}
    ttl: 15m
    refresh_ahead: on        # what is asked for often never expires under anybody's eyes
```

- URLs are those that clients use: scheme and host are part of the key. It is always the origin that is asked,
  under that host; nothing is fetched from elsewhere.
- What is fresh already costs the origin nothing; what may not be stored is not stored here either. Cookies
  and credentials are never sent.
- It gives way to clients: while requests queue for the origin, none is begun.
- With several workers the first one does it. A reload keeps the times of what stays as it was.

"""

UNSAFE_HEAD = """\
## unsafe

Words a rule must say before an answer is shared that HTTP would keep apart. `authorization` is refused until
the rule also says with whom: `key: {headers: [authorization]}` keeps users apart, `key: {headers: []}` (or a
`cache_control` that says public) means that all of them get the same.

| word | what it allows |
| --- | --- |
"""

POOLS_HEAD = """\
## pools

`pools`, beside `rules` in any of the files, gives origins by name; the rule key `origin` says which pool is
asked. Rules that name none ask the pool `default`: the origins of `--origin`, unless the files give it
others.

```yaml
pools:
  default: {retries: {attempts: 1, on: [connect, reset]}}      # --origin, with other settings
  api:
    origins: [{url: http://10.0.0.1:8080, weight: 3}, http://10.0.0.2:8080]
    balance: least_outstanding
    health: {path: /healthz}
    fallback: direct
  direct: {origins: [https://api.example]}
rules:
  - name: api
    match: {path: /api/**}
    origin: api
```

- A reload keeps what it can: an origin whose URL, timeouts, limits and TLS are as before keeps its
  connections, its state and its counters. One that is gone gets no new requests; those under way end in
  peace.
- An origin is usable unless its breaker is open, it is ejected, or its health checks fail. Where none
  is, the fallback pool is asked; where that has none either, an origin that only its health checks or an
  ejection keep out is asked all the same (a check that is wrong must not take a site down), and without one
  the answer is stale where a rule allows it, else 503 with Retry-After, at once.
- A breaker that opened because nobody could connect is watched: once a second it is tried whether one can,
  and then one request goes through. Only one at a time does while a breaker is half-open, on the whole
  machine. One that takes connections and breaks them, where there is no other, is tried every second and a
  half.
- What clients do wrong (leaving, a bad body), 404, and a full queue never count against an origin.
  A 5xx does not open the breaker of, nor eject, the last usable origin: it is passed on.
- The workers of a node share what their breakers found out, and the budget for repeats; latency, ejections,
  health checks and limits are each worker's own.
"""

REGEX = """\
## Regular expressions

After `~`, in paths, headers, cookies and query parameters; Python's, for the whole value; `(?P<id>...)` names
a part; `(?i)` at the beginning ignores case. Because rules run on every request, an expression that could
take long is refused: repeats of something that itself repeats or chooses (`(a+)+`, `(a|b)*`), look-around,
backreferences, more than two open-ended repeats that can eat what follows them (`.*a.*b.*`). A value of more
than 2,048 characters matches no expression; use path patterns where that matters.
"""


def reference() -> str:
    """The whole file."""
    unsafe = "".join(f"| `{word.value}` | {doc} |\n" for word, doc in keys.UNSAFE_DOCS.items())
    return (
        HEAD
        + "\n".join(_sections())
        + "\n"
        + WARM
        + "\n".join(_table(keys.WARM))
        + "\n"
        + BODIES
        + recipes()
        + "\n"
        + UNSAFE_HEAD
        + unsafe
        + "\n"
        + REGEX
    )


def _sections() -> Iterator[str]:
    yield "## A rule\n"
    yield from _table(keys.RULE)
    yield "Each with an example:\n"
    yield "```yaml"
    for key in keys.RULE.keys:
        yield key.example
    yield "```\n"
    for title, table in _INNER:
        yield f"## {title}\n"
        yield from _table(table)
    yield POOLS_HEAD
    yield from _table(pool_keys.POOL_TABLE)
    yield "Each with an example:\n"
    yield "```yaml"
    for key in pool_keys.POOL_TABLE.keys:
        yield key.example
    yield "```\n"
    for title, table in _IN_POOLS:
        yield f"### {title}\n"
        yield from _table(table)


_INNER: tuple[tuple[str, Table], ...] = (
    ("match", keys.MATCH),
    ("key", keys.KEY),
    ("key.query", keys.QUERY),
    ("key.body", keys.BODY),
    ("ttl, where the origin's is bounded", keys.TTL_BOUNDS),
    ("invalidates", keys.INVALIDATION),
    ("request_headers, response_headers", keys.HEADER_OPS),
    ("compression", keys.COMPRESSION),
    ("coalesce", keys.COALESCE),
    ("refresh_ahead", keys.REFRESH_AHEAD),
    ("rate_limit", keys.RATE_LIMIT),
    ("clients", keys.CLIENTS),
    ("websocket", keys.WEBSOCKET),
    ("examples", keys.EXAMPLE),
    ("examples: expect", keys.EXPECT),
)

_IN_POOLS: tuple[tuple[str, Table], ...] = (
    ("origins", pool_keys.ORIGIN),
    ("health", pool_keys.HEALTH),
    ("ejection", pool_keys.EJECTION),
    ("breaker", pool_keys.BREAKER),
    ("retries", pool_keys.RETRIES),
    ("timeouts", pool_keys.TIMEOUTS),
    ("limits", pool_keys.LIMITS),
    ("canary", pool_keys.CANARY),
    ("tls", pool_keys.TLS),
)


def _table(table: Table) -> Iterator[str]:
    yield "| key | what it says | expects | by default |"
    yield "| --- | --- | --- | --- |"
    for key in table.keys:
        default = "required" if key.required else key.default
        yield f"| `{key.name}` | {_cell(key.doc)} | {_cell(key.kind.says)} | {_cell(default)} |"
    yield ""


def _cell(text: str) -> str:
    return (
        text.replace(keys.DURATION.says, "a duration").replace(keys.SIZE.says, "a size").replace("|", "\\|")
    )


if __name__ == "__main__":
    sys.stdout.write(reference())
