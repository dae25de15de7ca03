"""What a rule file means: frozen values, nothing that reads a file or matches a request.

Rules of this file:

- A RuleSet is made once, by load.py, and swapped at once; nobody changes one.
- ``policy`` never sees a Rule: a Rule contains an Overrides value.
- ``at`` is "file.yaml:line", the line of the rule's ``- name``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.networks import NOBODY, Networks
from edgeproxy.policy.content import ContentForm
from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Overrides
from edgeproxy.rules.pools import DEFAULT
from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.rules.pools import PoolSpec

PLAIN_HTTP = Overrides()
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})


@dataclass(frozen=True, slots=True)
class PathPattern:
    """One path pattern: ``source`` as written, ``text`` the expression that must match the whole path.

    ``{name}`` matches one segment and names it; ``*`` matches within a segment; ``**`` matches any number
    of segments; a pattern without "/" matches the last segment; ``~`` opens a regex. ``literal`` is the
    path's leading part that is the same for all matches, for the index; ``exact`` says that it is all, and
    ``deep`` that everything beneath it matches too ("/a/**"): these two need no expression.
    """

    source: str
    text: str
    literal: str
    exact: bool = False
    deep: bool = False
    _regex: re.Pattern[str] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def regex(self) -> re.Pattern[str]:
        """Compiled when it is first asked for: of many thousand rules few are ever met, and compiling is most
        of what loading them would cost. What ``~`` opens has been tried when it was read."""
        made = self._regex
        if made is None:
            made = re.compile(self.text, 0 if self.source.startswith("~") else re.DOTALL)
            object.__setattr__(self, "_regex", made)
        return made


@dataclass(frozen=True, slots=True)
class ValueCondition:
    """A condition on one header, cookie or query parameter.

    ``present`` True: must be there; False: must be absent; ``values``: one of these; ``regex``: the whole
    value matches.
    """

    name: str
    present: bool = True
    values: frozenset[str] = frozenset()
    regex: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """All that is given must hold; within one list, any."""

    paths: tuple[PathPattern, ...] = ()
    hosts: tuple[str, ...] = ()
    """Exact (``api.example``) or by suffix (``*.example``), lower case, without a port."""
    methods: frozenset[str] = frozenset()
    """Empty: any. A rule for GET also covers HEAD."""
    headers: tuple[ValueCondition, ...] = ()
    cookies: tuple[ValueCondition, ...] = ()
    query: tuple[ValueCondition, ...] = ()


@dataclass(frozen=True, slots=True)
class BodyPolicy:
    """How a request's content is part of the key. ``methods``: QUERY, POST or both, which are taken as safe;
    ``limit``: octets read for it; ``persisted``: a GraphQL POST with nothing but a stored document's hash is
    a query."""

    form: ContentForm = ContentForm.EXACT
    methods: frozenset[str] = frozenset({"QUERY"})
    limit: int = 64 * 1024
    persisted: bool = False


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What of the request names the stored answer.

    ``query_allow`` None: every parameter; else only these (``()`` drops the query). ``query_ignore``:
    names or ``prefix*``. ``sort``: order parameters by name. ``host``: whether the host is part.
    """

    host: bool = True
    query_allow: tuple[str, ...] | None = None
    query_ignore: tuple[str, ...] = ()
    sort: bool = False
    headers: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    body: BodyPolicy | None = None
    scope: str = ""
    """Names the conditions that led to the rule and that nothing else in the key tells: requests that fulfil
    them and requests that do not are answered apart."""


@dataclass(frozen=True, slots=True)
class TagPolicy:
    """``templates`` such as ``pitch:{id}`` filled from the path's named parts; ``from_headers``: answer
    fields whose values are tags (split at spaces and commas)."""

    templates: tuple[str, ...] = ()
    from_headers: tuple[str, ...] = ("surrogate-key", "cache-tag", "cache-groups")


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What an unsafe method on this rule's paths purges when it succeeds, besides its own URL."""

    methods: frozenset[str] = frozenset({"POST", "PUT", "PATCH", "DELETE"})
    tags: tuple[str, ...] = ()
    """Templates, as in TagPolicy."""
    urls: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    soft: bool = False


@dataclass(frozen=True, slots=True)
class HeaderOps:
    """Changes to a head, in this order: remove, set, add."""

    remove: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remove or self.set or self.add)

    def apply(self, headers: Headers) -> Headers:
        """The changed fields; ``headers`` stays as it is."""
        gone = {n.lower() for n in self.remove} | {n.lower() for n, _ in self.set}
        kept = headers.without(gone) if gone else headers
        extra = tuple((n.encode("latin-1"), v.encode("latin-1")) for n, v in (*self.set, *self.add))
        return Headers((*kept.raw, *extra)) if extra else kept


@dataclass(frozen=True, slots=True)
class Coalesce:
    """``wait``: seconds a request waits for another's fetch before it goes on its own; ``lease``: after
    that many seconds without an answer one new fetch may begin; ``waiters``: so many may wait for one.

    Both are longer than connecting and the head of an answer may take (3 s and 10 s), so that a silent
    origin fails once for all who wait instead of being asked by each.
    """

    enabled: bool = True
    wait: float = 15.0
    lease: float = 20.0
    waiters: int = 5000


@dataclass(frozen=True, slots=True)
class WebSocket:
    """Seconds, counts and octets; 0: no such limit. ``idle``: closed after so long without a message;
    ``heartbeat``: a client silent for so long is sent a ping; ``connections``: open at a time, in each
    worker; ``max_frame``, ``max_message``: from either side, as sent."""

    enabled: bool = True
    idle: float = 3600.0
    heartbeat: float = 30.0
    connections: int = 0
    max_frame: int = 0
    max_message: int = 0


@dataclass(frozen=True, slots=True)
class RefreshAhead:
    """Refresh before it expires what is asked for often. ``within``: the last part of its life, as a share of
    it (``share``) or in seconds; ``rate``: asked for at least so often, per second; ``waiting``: that rate
    times the seconds its fetch took is at least so much: requests that would wait for it."""

    within: float = 0.1
    share: bool = True
    rate: float = 0.1
    waiting: float = 0.05

    def window(self, life: float) -> float:
        """Seconds, of an entry that is fresh for ``life`` seconds: half of them at most."""
        return min(self.within * life if self.share else self.within, life / 2)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``rate`` requests a second, ``burst`` at once; counted for each value of ``header`` (lower case), and
    where there is none for each client or, without ``by_client``, for all together."""

    rate: float
    burst: int
    header: str = ""
    by_client: bool = True


@dataclass(frozen=True, slots=True)
class Clients:
    """``allow``: where it is not empty, nobody else is answered; ``deny``: these are not."""

    allow: Networks = NOBODY
    deny: Networks = NOBODY

    def permits(self, client: str) -> bool:
        return client not in self.deny and (not self.allow or client in self.allow)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A warm-up on a schedule: ``every`` so many seconds, or ``daily`` so many seconds after midnight (UTC).
    One of ``urls``, ``file`` (a list, read each time), ``sitemap`` and ``most_wanted`` is given. ``at`` is
    "file.yaml:line"."""

    at: str
    every: float | None = None
    daily: int | None = None
    urls: tuple[str, ...] = ()
    file: str = ""
    sitemap: str = ""
    most_wanted: int = 0
    hosts: tuple[str, ...] = ()
    rate: float = 10.0
    concurrency: int = 2


@dataclass(frozen=True, slots=True)
class Example:
    """A request and what must come of it; checked on every load.

    ``request`` is "METHOD target" or a target; the rest is what is expected. None: not asserted.
    """

    at: str
    method: str
    url: str
    request_headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    response_status: int = 200
    response_headers: tuple[tuple[str, str], ...] = ()
    expect: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    at: str
    match: Match = Match()
    overrides: Overrides = PLAIN_HTTP
    key: KeyPolicy = KeyPolicy()
    tags: TagPolicy = TagPolicy()
    invalidates: tuple[Invalidation, ...] = ()
    client_cache_control: str | None = None
    """The Cache-Control that clients get on storable answers, in place of the origin's."""
    cdn_cache_control: str | None = None
    """The CDN-Cache-Control that caches below this one get."""
    request_headers: HeaderOps = HeaderOps()
    response_headers: HeaderOps = HeaderOps()
    coalesce: Coalesce = Coalesce()
    websocket: WebSocket = WebSocket()
    refresh_ahead: RefreshAhead | None = None
    rate_limit: RateLimit | None = None
    clients: Clients | None = None
    read_timeout: float | None = None
    """Seconds between two pieces of the origin's body, 0 for any; None: as the command line says."""
    origin: str = DEFAULT
    """The pool that is asked. No part of the key: what is stored is the same whoever gave it."""
    retry: str = "idempotent"
    """Which methods may be sent again: ``idempotent``, ``any`` or ``none``."""
    examples: tuple[Example, ...] = ()

    @property
    def is_gated(self) -> bool:
        """Not all who ask are answered (engine/gates.py): so each request has to be looked at."""
        return self.rate_limit is not None or self.clients is not None


PLAIN = Rule(name="none", at="built-in")
"""Plain HTTP caching: what matches when no rule does, and all there is under ``--rules none``."""


@value
class Matched:
    """A rule and the named parts of the path that matched it."""

    rule: Rule
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in order; first match wins. ``version`` is a short digest of all files' bytes."""

    rules: tuple[Rule, ...] = ()
    version: str = "none"
    source: str = "none"
    pools: tuple[PoolSpec, ...] = ()
    warm: tuple[WarmUp, ...] = ()
