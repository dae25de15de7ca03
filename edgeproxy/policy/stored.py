"""What the policy knows of a stored answer, and what a rule may override.

Rules of this file:

- Plain frozen values. ``policy`` never sees a Rule, a store or a body: a Rule *contains* an Overrides, an
  Entry *contains* a Stored.
- All times are seconds since the epoch as given by ``now``; all durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.policy.head import Headers


class LifetimeSource(StrEnum):
    """Where a freshness lifetime came from, in order of precedence."""

    RULE = "rule"
    CDN_CACHE_CONTROL = "cdn-cache-control"
    S_MAXAGE = "s-maxage"
    MAX_AGE = "max-age"
    EXPIRES = "expires"
    HEURISTIC = "heuristic"
    NONE = "none"


@value
class Freshness:
    """How long a stored answer may be used, and how (RFC 9111 §4.2, RFC 5861).

    ``received`` is when the answer's head arrived; ``initial_age`` its corrected initial age then
    (§4.2.3). ``stale_if_disconnected`` is for an origin that cannot be reached (§4.2.4), and 0 where the
    answer or the rule gives a ``stale_if_error``. ``must_validate`` (no-cache) forbids any use without
    validation; ``never_stale`` (must-revalidate, proxy-revalidate, s-maxage where the RFC says so) forbids
    any use once stale.
    """

    received: float
    initial_age: float
    lifetime: float
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    stale_if_disconnected: float = 0.0
    keep: float = 0.0
    must_validate: bool = False
    never_stale: bool = False
    source: LifetimeSource = LifetimeSource.NONE

    @property
    def fresh_until(self) -> float:
        return self.received - self.initial_age + self.lifetime

    def age(self, now: float) -> float:
        """Current age in seconds (§4.2.3), never negative."""
        return max(0.0, self.initial_age + max(0.0, now - self.received))

    def is_fresh(self, now: float) -> bool:
        return not self.must_validate and now < self.fresh_until

    def storage_ttl(self, now: float) -> float:
        """Seconds a store should hold the entry: lifetime + the longest stale window + keep."""
        windows = 0.0
        if not self.never_stale:
            windows = max(self.stale_while_revalidate, self.stale_if_error, self.stale_if_disconnected)
        return max(0.0, self.fresh_until - now) + windows + self.keep

    def shortened(self, share: float) -> Freshness:
        """With so much less of what was left of the lifetime when it came."""
        left = max(0.0, self.lifetime - self.initial_age)
        return replace(self, lifetime=self.lifetime - left * share)

    def stale_from(self, when: float) -> Freshness:
        """Soft-purged: stale from ``when``; never made to live longer than it would have. It has aged by what
        it had left to live: a cache below, which knows only Age and what the answer says, must not take what
        is stale here for fresh (RFC 9111 §4.2)."""
        if when >= self.fresh_until:
            return self
        born = self.received - self.initial_age
        return replace(self, initial_age=self.initial_age + self.fresh_until - max(when, born))


@value
class Part:
    """What a 206 with one part holds of a representation, as its Content-Range says: the octets [start, stop)
    of ``total``, the complete length (None: it was not said)."""

    start: int
    stop: int
    total: int | None

    @property
    def size(self) -> int:
        """Octets that the part has by what it says."""
        return self.stop - self.start

    @property
    def reaches_end(self) -> bool:
        return self.stop == self.total


@value
class Stored:
    """One stored answer (one variant), without its body.

    ``headers`` are the fields as they may be sent again. ``vary`` are the selecting field names in lower
    case, sorted; ``selecting`` their values, normalised, in the same order (None: the request had none).
    ``length`` is the body's length in octets. ``coding`` is the stored body's own content coding ("" for
    identity). ``part`` says which part of a representation the body is, None where it is the whole. Of a part
    the ``status`` is 206, and parts.py says what the entry may answer.
    """

    status: int
    reason: str
    headers: Headers
    freshness: Freshness
    length: int
    vary: tuple[str, ...] = ()
    selecting: tuple[str | None, ...] = ()
    coding: str = ""
    part: Part | None = None

    @property
    def complete_length(self) -> int | None:
        """Octets of the whole representation; None where not known."""
        if self.part is not None:
            return self.part.total
        return self.length if self.length >= 0 else None

    @property
    def etag(self) -> str | None:
        return self.headers.get("etag")

    @property
    def last_modified(self) -> str | None:
        return self.headers.get("last-modified")


@dataclass(frozen=True, slots=True)
class Compression:
    """Which answers the edge codes itself, and how. ``codings`` in the edge's order of preference."""

    enabled: bool = True
    minimum: int = 1024
    types: tuple[str, ...] = (
        "text/*",
        "application/json",
        "application/*+json",
        "application/javascript",
        "application/xml",
        "application/*+xml",
        "application/wasm",
        "application/manifest+json",
        "application/x-ndjson",
        "image/svg+xml",
        "font/ttf",
        "font/otf",
    )
    codings: tuple[str, ...] = ("br", "gzip")


class Unsafe(StrEnum):
    """What a rule may only do when it says the word."""

    SET_COOKIE = "set_cookie"
    """Store and share answers that set cookies."""
    AUTHORIZATION = "authorization"
    """Share answers to requests that carried Authorization."""
    NO_STORE = "no_store"
    """Store answers that say no-store."""
    PRIVATE = "private"
    """Store and share answers that say private."""
    NO_CACHE = "no_cache"
    """Reuse answers that say no-cache without validation."""
    MUST_REVALIDATE = "must_revalidate"
    """Serve answers that say must-revalidate or proxy-revalidate when stale."""
    ANY_HOST = "any_host"
    """Share answers among all hosts there are: changes nothing here, and tells lint that it is meant."""


LONGEST_STALE = 24 * 3600.0
"""Seconds that an answer may be stale for, where no rule says how long: whatever it and clients say."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a rule changes of plain HTTP caching. ``Overrides()`` is plain RFC 9111.

    ``ttl`` replaces the origin's lifetime; ``ttl_min`` and ``ttl_max`` bound it. ``status_ttl`` is by
    status (an int) or class (1 to 5) and replaces ``ttl`` for that status; with 0 the answer is not
    stored. None everywhere means: as the answer says.
    """

    ttl: float | None = None
    ttl_min: float | None = None
    ttl_max: float | None = None
    ttl_jitter: float = 0.0
    """A share: each answer's lifetime is by chance up to so much shorter."""
    status_ttl: Mapping[int, float] = field(default_factory=dict)
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    stale_if_disconnected: float | None = None
    max_stale: float | None = None
    """The cap on all of these, and on what clients accept; see ``stale_limit``."""
    keep: float | None = None
    unsafe: frozenset[Unsafe] = frozenset()
    honour_request_directives: bool = True
    heuristic: bool = True
    max_object: int = 8 * 1024 * 1024
    compression: Compression = Compression()
    normalise: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Selecting field (lower case) -> the values it is reduced to (the best match, or the first)."""
    extension_guard: bool | None = None
    """Whether an answer whose type contradicts its path's extension is not stored. None: where the rule gives
    the lifetime."""
    pass_: bool = False
    no_store: bool = False
    parts: bool = True
    """A request for one range of what is not stored asks the origin for that range, not for the whole."""

    @property
    def stale_limit(self) -> float:
        """Seconds: what has been stale for as long is never sent. The rule's cap; where it has none a day, or
        as long as its own windows say."""
        if self.max_stale is not None:
            return self.max_stale
        own = (self.stale_while_revalidate, self.stale_if_error, self.stale_if_disconnected)
        return max(LONGEST_STALE, *(window or 0.0 for window in own))

    @property
    def shares_authorized(self) -> bool:
        """Whether answers to requests with Authorization are shared like others."""
        return Unsafe.AUTHORIZATION in self.unsafe
