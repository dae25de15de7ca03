"""Recipes: what people ask of caches, each as a rule file that can be used as it stands.

Rules of this file:

- Every recipe is a title, a line or two, and a whole rule file with examples. A test loads each, runs its
  examples, and has ``check`` find nothing to say about it.
- They stand in rules/README.md (reference.py), in this order.
"""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    title: str
    says: str
    text: str


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "Ignore tracking parameters",
        "They make no second copy, and the origin still sees them. `edgeproxy doctor` finds more of them.",
        """
rules:
  - name: pages
    match: {path: "/**"}
    ttl: 10m
    key: {query: {ignore: ["utm_*", gclid, fbclid]}}
    examples:
      - request: GET /news?utm_source=mail&page=2
        expect: {cached: true, key: "/news?page=2"}
""",
    ),
    Recipe(
        "Only the parameters that count, in any order",
        "What is not listed can neither split the cache nor fill it with junk.",
        """
rules:
  - name: search
    match: {path: /search}
    ttl: 5m
    key: {query: {allow: [q, page], sort: true}}
    examples:
      - request: GET /search?page=2&nonsense=1&q=cats
        expect: {cached: true, key: "/search?page=2&q=cats"}
""",
    ),
    Recipe(
        "A cache behind a login: each user apart",
        "The token is in the key (as a digest), so nobody gets what was made for somebody else.",
        """
rules:
  - name: account
    match: {path: "/api/account/**"}
    ttl: 30s
    key: {headers: [authorization]}
    unsafe: [authorization]
    cache_control: "private, max-age=0"
    examples:
      - request: GET /api/account/orders
        headers: {authorization: Bearer ada}
        expect: {cached: true, ttl: 30s, cache_control: "private, max-age=0"}
""",
    ),
    Recipe(
        "The same for all who are logged in",
        "The origin checks the token of the one request that fills the cache, and of no other: only for "
        "what any "
        "visitor may see.",
        """
rules:
  - name: catalogue
    match: {path: "/api/catalogue/**"}
    ttl: 5m
    key: {headers: []}
    unsafe: [authorization]
    examples:
      - request: GET /api/catalogue/7
        headers: {authorization: Bearer ada}
        expect: {cached: true, ttl: 5m}
""",
    ),
    Recipe(
        "Guests from the cache, members from the origin",
        "The particular rule goes first.",
        """
rules:
  - name: members
    match: {path: "/**", cookies: {session: true}}
    pass: true
    examples:
      - request: GET /
        headers: {cookie: session=1}
        expect: {cached: false, reason: rule-says-pass}
  - name: guests
    match: {path: "/**"}
    ttl: 2m
    examples:
      - request: GET /
        headers: {cookie: theme=dark}
        expect: {cached: true, ttl: 2m}
""",
    ),
    Recipe(
        "Purge when the application writes",
        "The write passes through here, so it can purge: its own URL always, and what the rule names. "
        "When the "
        "writer has its answer, no reader gets the old one.",
        """
rules:
  - name: items
    match: {path: ["/api/items/{id}", "/api/items"]}
    ttl: 1h
    tags: [items, "item:{id}"]
    invalidates: {on: [POST, PUT, PATCH, DELETE], tags: [items, "item:{id}"]}
    examples:
      - request: PUT /api/items/7
        expect: {cached: false, invalidates: [items, "item:7"]}
      - request: GET /api/items/7
        expect: {cached: true, tags: [items, "item:7"]}
""",
    ),
    Recipe(
        "Purge by names that the origin gives",
        "`Surrogate-Key`, `Cache-Tag` and `Cache-Groups` of answers are tags. Whatever writes past this "
        "cache "
        "says `edgeproxy purge --tag item-7`, or POSTs to `/api/cache/purge`.",
        """
rules:
  - name: shop
    match: {path: "/shop/**"}
    ttl: 1d
    tags_from: [surrogate-key]
    examples:
      - request: GET /shop/7
        response: {headers: {surrogate-key: item-7 brand-3}}
        expect: {cached: true, tags: [item-7, brand-3]}
""",
    ),
    Recipe(
        "Nobody waits, and an outage is not seen",
        "Stale for a minute while one request refreshes it; for a day if the origin fails.",
        """
rules:
  - name: api
    match: {path: "/api/**"}
    ttl: 1m
    stale_while_revalidate: 1m
    stale_if_error: 1d
    examples:
      - request: GET /api/x
        expect: {cached: true, stale_while_revalidate: 1m, stale_if_error: 1d}
""",
    ),
    Recipe(
        "What is wanted most never expires",
        "Refreshed in the background shortly before, while it is asked for.",
        """
rules:
  - name: front
    match: {path: [/, "/top/*"]}
    ttl: 1m
    refresh_ahead: on
    examples:
      - request: GET /top/films
        expect: {cached: true, ttl: 1m}
""",
    ),
    Recipe(
        "Assets with a fingerprint in their name",
        "For a year, here and in browsers; what has no fingerprint for an hour.",
        """
rules:
  - name: fingerprinted
    match: {path: '~/assets/.*\\.[0-9a-f]{8,}\\.(?:js|css|woff2|png|svg)'}
    ttl: 365d
    cache_control: "public, max-age=31536000, immutable"
    examples:
      - request: GET /assets/app.0a1b2c3d.js
        expect: {cached: true, ttl: 365d, cache_control: "public, max-age=31536000, immutable"}
  - name: assets
    match: {path: "/assets/**"}
    ttl: 1h
    examples:
      - request: GET /assets/app.js
        expect: {cached: true, ttl: 1h}
""",
    ),
    Recipe(
        "Long here, short in browsers",
        "Here it can be purged, there it cannot. `no-cache` has browsers ask each time; mostly they get "
        "a 304.",
        """
rules:
  - name: pages
    match: {path: "/**"}
    ttl: 1d
    cache_control: "no-cache"
    examples:
      - request: GET /about
        response: {headers: {content-type: text/html, etag: '"1"'}}
        expect: {cached: true, ttl: 1d, cache_control: no-cache}
""",
    ),
    Recipe(
        "What is not there, and errors",
        "A 404 is kept for a minute, so that a bot cannot wear the origin out; errors are not kept.",
        """
rules:
  - name: api
    match: {path: "/api/**"}
    ttl: 5m
    status_ttl: {404: 1m, 5xx: 0}
    examples:
      - request: GET /api/none
        response: {status: 404}
        expect: {cached: true, ttl: 1m}
      - request: GET /api/broken
        response: {status: 500}
        expect: {cached: false}
""",
    ),
    Recipe(
        "Several languages",
        "Answers that say `Vary: Accept-Language` have a copy for each language that there is, not for "
        "each list "
        "that browsers send.",
        """
rules:
  - name: pages
    match: {path: "/**"}
    ttl: 10m
    normalise: {accept-language: [en, de, fr]}
    examples:
      - request: GET /
        headers: {accept-language: "de-AT,de;q=0.9,en;q=0.5"}
        response: {headers: {vary: Accept-Language, content-language: de}}
        expect: {cached: true}
""",
    ),
    Recipe(
        "One URL, several forms",
        "Answers that vary on `Accept`: a copy for each form that the origin has.",
        """
rules:
  - name: items
    match: {path: "/items/**"}
    ttl: 5m
    normalise: {accept: [application/json, text/html]}
    examples:
      - request: GET /items/7
        headers: {accept: "text/html,application/xhtml+xml,*/*;q=0.8"}
        response: {headers: {vary: Accept, content-type: text/html}}
        expect: {cached: true}
""",
    ),
    Recipe(
        "Tenants by a header",
        "Whatever the origin says of Vary, tenants are kept apart.",
        """
rules:
  - name: tenants
    match: {path: "/api/**", headers: {x-tenant: true}}
    ttl: 1m
    key: {headers: [x-tenant]}
    examples:
      - request: GET /api/items
        headers: {x-tenant: blue}
        expect: {cached: true}
""",
    ),
    Recipe(
        "Several hosts, one site",
        "One copy for all of them. Purge it by path: no host is part of its key.",
        """
rules:
  - name: site
    match: {path: "/static/**", host: [example.com, www.example.com]}
    ttl: 1h
    key: {host: false}
    examples:
      - request: GET http://www.example.com/static/a.png
        expect: {cached: true, key: /static/a.png}
""",
    ),
    Recipe(
        "An origin that sets a cookie on everything",
        "Answers are shared, and no client gets the cookie.",
        """
rules:
  - name: brochure
    match: {path: "/brochure/**"}
    ttl: 1h
    unsafe: [set_cookie]
    response_headers: {remove: [set-cookie]}
    examples:
      - request: GET /brochure/1
        response: {headers: {set-cookie: id=1}}
        expect: {cached: true, ttl: 1h}
""",
    ),
    Recipe(
        "An origin that says no-store, and means nothing by it",
        "Each such word is named; what it forbids otherwise stays forbidden.",
        """
rules:
  - name: legacy
    match: {path: "/legacy/**"}
    ttl: 1m
    unsafe: [no_store]
    examples:
      - request: GET /legacy/report
        response: {headers: {cache-control: no-store}}
        expect: {cached: true, ttl: 1m}
      - request: GET /legacy/mine
        response: {headers: {cache-control: private}}
        expect: {cached: false, reason: response-private}
""",
    ),
    Recipe(
        "The reload button does not reach the origin",
        "A client's own `no-cache` is left out of account.",
        """
rules:
  - name: api
    match: {path: "/api/**"}
    ttl: 1m
    request_directives: ignore
    examples:
      - request: GET /api/x
        headers: {cache-control: no-cache}
        expect: {cached: true, ttl: 1m}
""",
    ),
    Recipe(
        "Drafts past the cache",
        "Editors see what is not yet published; nobody else ever gets it from here.",
        """
rules:
  - name: drafts
    match: {path: "/**", query: {preview: true}}
    pass: true
    examples:
      - request: GET /news/7?preview=1
        expect: {cached: false, reason: rule-says-pass}
  - name: pages
    match: {path: "/**"}
    ttl: 10m
    examples:
      - request: GET /news/7
        expect: {cached: true}
""",
    ),
    Recipe(
        "A search that is a POST",
        "A POST that only asks, cached by its body: white space and the order of members make no difference.",
        """
rules:
  - name: search
    match: {path: /api/search, method: POST}
    ttl: 1m
    key: {body: {as: json, methods: POST}}
    examples:
      - request: POST /api/search
        headers: {content-type: application/json}
        body: '{"q": "cats", "page": 2}'
        expect: {cached: true, ttl: 1m}
""",
    ),
    Recipe(
        "GraphQL",
        "Queries are cached, mutations pass and purge; more of it "
        "[above](#graphql-and-other-questions-with-a-body).",
        """
rules:
  - name: graphql
    match: {path: /graphql}
    ttl: 1m
    key: {body: graphql}
    examples:
      - request: POST /graphql
        headers: {content-type: application/json}
        body: '{"query": "{ films { name } }"}'
        expect: {cached: true, ttl: 1m}
      - request: POST /graphql
        headers: {content-type: application/json}
        body: '{"query": "mutation { delete(id: 7) }"}'
        expect: {cached: false, reason: body-not-a-query}
""",
    ),
    Recipe(
        "Videos and downloads",
        "Large files are stored too, and a request for a part has the whole fetched, of which all parts are "
        "served.",
        """
rules:
  - name: media
    match: {path: ["/media/**", "*.mp4", "*.zip"]}
    ttl: 7d
    max_object: 64MiB
    range: whole
    examples:
      - request: GET /media/film.mp4
        expect: {cached: true, ttl: 7d}
""",
    ),
    Recipe(
        "Warm after a deployment",
        "`edgeproxy purge --all` and `edgeproxy warm --most-wanted 200` do it once; this does it each "
        "morning.",
        """
warm:
  - {at: "05:00", sitemap: "http://www.example.com/sitemap.xml", rate: 20/s}
rules:
  - name: pages
    match: {path: "/**"}
    ttl: 1d
    examples:
      - request: GET /
        expect: {cached: true, ttl: 1d}
""",
    ),
)


INTRODUCTION = """\
## Recipes

What people ask of caches. Each is a whole file, with examples that `edgeproxy check` runs; take the rule, and
put the particular ones before the general.
"""


def recipes() -> str:
    """The chapter."""
    each = (f"### {r.title}\n\n{_wrapped(r.says)}\n\n```yaml\n{r.text.strip()}\n```\n" for r in RECIPES)
    return "\n".join([INTRODUCTION, *each])


def _wrapped(text: str) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= 110:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
